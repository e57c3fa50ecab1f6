//! A network namespace of the test's own, with a TAP whose host side is the client's.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The namespace the calling thread has moved into. Processes it starts are in it too.
pub struct Lab {
    dir: tempdir::TempDir,
}

pub const SERVER: &str = "10.77.0.1";
pub const SERVER_V6: &str = "fd77::1";

impl Lab {
    /// Moves this thread into a fresh namespace and sets the TAP up.
    pub fn new() -> Lab {
        // SAFETY-free: rustix wraps unshare(2) for the calling thread alone
        #[allow(deprecated)]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("a network namespace");
        for command in [
            "ip link set lo up",
            "ip tuntap add tap0 mode tap",
            "ip addr add 10.77.0.2/24 dev tap0",
            "ip addr add fd77::2/64 dev tap0 nodad",
            "ip link set tap0 up",
        ] {
            run(command);
        }
        Lab { dir: tempdir::TempDir::new() }
    }

    /// A directory that goes with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }
}

/// Runs a command that must succeed.
pub fn run(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

mod tempdir {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory removed when dropped, unless the test failed.
    pub struct TempDir(PathBuf);

    static NEXT: AtomicU32 = AtomicU32::new(0);

    impl TempDir {
        pub fn new() -> TempDir {
            let name = format!("outlast-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).expect("a temporary directory");
            TempDir(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("kept for a look: {}", self.0.display());
            } else {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }
    }
}
