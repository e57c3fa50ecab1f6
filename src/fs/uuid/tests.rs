//! Tests that the older ioctls report the same UUID as the one of all file systems.

use std::path::Path;
use std::process::Command;

use super::*;

/// Runs `test` with the root of a new file system, mounted in a namespace of its thread. Nothing is run where it cannot
/// be made or mounted.
fn on(make: &[&str], test: impl FnOnce(&OwnedFd) + Send) {
    let directory =
        std::env::temp_dir().join(format!("outlast-uuid-{}-{}", make[0], std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let run = || {
        if let Some(root) = mounted(&directory, make) {
            test(&root);
        }
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("the test"));
    std::fs::remove_file(directory.join("image")).expect("the image");
    std::fs::remove_dir(directory.join("root"))
        .and_then(|()| std::fs::remove_dir(&directory))
        .expect("removed");
}

fn mounted(directory: &Path, make: &[&str]) -> Option<OwnedFd> {
    let (image, root) = (directory.join("image"), directory.join("root"));
    std::fs::create_dir(&root).expect("a directory");
    let file = std::fs::File::create(&image).expect("an image");
    // The smallest XFS has 300 MiB.
    file.set_len(320 << 20).expect("an image");
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    // SAFETY: the namespace is the calling thread's alone.
    let is_apart = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0
        && run(Command::new("mount").args(["--make-rprivate", "/"]));
    let is_made = is_apart && run(Command::new(make[0]).args(&make[1..]).arg(&image));
    let is_mounted = is_made
        && run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &root]));
    is_mounted.then(|| std::fs::File::open(root).expect("the root").into())
}

fn assert_equal(older: Option<Uuid>, root: &OwnedFd) {
    let uuid = older.expect("a UUID");
    assert_ne!(uuid, Uuid::default());
    assert!(of_any(root).is_none_or(|of_any| of_any == uuid));
}

#[test]
fn ext4_reports_the_same_before_linux_6_9() {
    on(&["mkfs.ext4", "-q", "-F"], |root| {
        assert_equal(of_ext4(root), root)
    });
}

#[test]
fn xfs_reports_the_same_before_linux_6_9() {
    on(&["mkfs.xfs", "-q"], |root| assert_equal(of_xfs(root), root));
}
