use super::*;

#[test]
fn what_a_killed_server_left_is_removed_and_nothing_else() {
    let base = std::env::temp_dir().join(format!("scratch-test-{}", std::process::id()));
    fs::create_dir_all(&base).unwrap();
    let running = make(&base).unwrap();
    let killed = make(&base).unwrap();
    fs::write(killed.path().join("nvram"), "x").unwrap();
    let left = killed.path().to_owned();
    // Like the kernel: the lock is released, the directory stays.
    let Scratch { path: _, _lock } = &killed;
    rustix::fs::flock(_lock, FlockOperation::Unlock).unwrap();
    std::mem::forget(killed);
    let others = ["outlast-0123", "outlast-data", ".outlast-0123456789abcdef"];
    for name in others {
        fs::create_dir(base.join(name)).unwrap();
    }
    remove_stale(&base);
    assert!(!left.exists() && running.path().exists());
    assert!(others.iter().all(|name| base.join(name).exists()));
    let path = running.path().to_owned();
    drop(running);
    assert!(!path.exists());
    fs::remove_dir_all(&base).unwrap();
}
