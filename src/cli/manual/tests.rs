use super::*;

#[test]
fn each_command_has_a_page() {
    let directory = std::env::temp_dir().join(format!("outlast-manual-{}", std::process::id()));
    run(&directory).unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    for (page, text) in [
        ("outlast.1", "outlast\\-serve(1)"),
        ("outlast-serve.1", "DIRECTORY"),
        ("outlast-user-add.1", "password"),
        ("outlast-capture.1", "pcapng"),
        ("outlast.bash", "_outlast()"),
        ("_outlast", "#compdef outlast"),
        ("outlast.fish", "complete -c outlast"),
    ] {
        assert!(read(page).contains(text), "{text:?} is not in {page}");
    }
    assert!(!directory.join("outlast-worker.1").exists(), "it is hidden");
    std::fs::remove_dir_all(&directory).unwrap();
}
