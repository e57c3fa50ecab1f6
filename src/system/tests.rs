use super::*;
use crate::config::sample::Sample;

/// A configuration whose files are there.
fn config(durability: &str, path: &Path, sink: &Path) -> Config {
    let sink = sink.display();
    let text = Sample {
        nvram: path,
        nvram_keys: &format!("sink = \"{sink}\"\ndurability = \"{durability}\""),
        ..Sample::default()
    };
    Config::parse(Path::new("/o.toml"), &text.text()).unwrap()
}

#[test]
fn a_state_in_memory_would_not_survive() {
    let disk = std::env::current_exe().unwrap();
    let memory = Path::new("/dev/shm");
    let none = config("none", &disk, memory);
    assert!(would_survive(&none).unwrap_err().contains("\"none\""));
    let missing = config("process", Path::new("/nowhere/nvram"), memory);
    assert!(would_survive(&missing).unwrap_err().contains("/nowhere"));
    // where the two are as usual
    if volatile_file_system(memory).unwrap() != Some("tmpfs")
        || volatile_file_system(&disk).unwrap().is_some()
    {
        return;
    }
    let refused = would_survive(&config("process", memory, &disk)).unwrap_err();
    assert!(
        refused.contains("tmpfs") && refused.contains("nvram.path"),
        "{refused}"
    );
    assert_eq!(would_survive(&config("process", &disk, memory)), Ok(()));
    // the sink has the state
    assert_eq!(would_survive(&config("power", memory, &disk)), Ok(()));
    let refused = would_survive(&config("power", &disk, memory)).unwrap_err();
    assert!(refused.contains("nvram.sink"), "{refused}");
}

#[test]
fn a_loaded_kernel_is_found() {
    let file = std::env::temp_dir().join(format!("outlast-kexec-{}", std::process::id()));
    for (text, is_loaded) in [("1\n", true), ("0\n", false), ("", false)] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(is_kernel_loaded(&file), is_loaded, "{text:?}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(!is_kernel_loaded(&file));
}
