use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::sample::Sample;

#[test]
fn the_binary_that_wrote_the_log_does_not_read_it_again() {
    let name = format!("outlast-preflight-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).unwrap();
    let (users, nvram) = (dir.join("users"), dir.join("nvram"));
    std::fs::write(&users, "alice:8846f7eaee8fb117ad06bdd830b7586c\n").unwrap();
    std::fs::set_permissions(&users, PermissionsExt::from_mode(0o600)).unwrap();
    let text = Sample {
        nvram_keys: "size = \"128MiB\"",
        share: &dir,
        ..Sample::default()
    };
    let config = Config::parse(&dir.join("o.toml"), &text.text()).unwrap();
    let missing = would_start(&config).unwrap_err();
    assert!(format!("{missing:#}").contains("nvram.path"), "{missing:#}");
    // The content cannot be read, and only the content may be ignored. The file is no other program's: a superblock is
    // blank while it is written.
    let mut content = vec![0xFF; 1 << 20];
    content[..8].fill(0);
    std::fs::write(&nvram, content).unwrap();
    let file = std::fs::File::options().write(true).open(&nvram).unwrap();
    file.set_len(config.nvram.size_bytes).unwrap();
    would_start(&config).unwrap();
    let unreadable = would_take_over(&config).unwrap_err();
    assert!(
        format!("{unreadable:#}").contains("nvram"),
        "{unreadable:#}"
    );
    file.set_len(config.nvram.size_bytes / 2).unwrap();
    for check in [would_start, would_take_over] {
        let wrong = format!("{:#}", check(&config).unwrap_err());
        assert!(wrong.contains("nvram.size"), "{wrong}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
