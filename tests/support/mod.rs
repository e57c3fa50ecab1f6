//! What whole-server tests stand on: a network namespace with a TAP, the server in it, Debian's smbclient, and a capture.

#![allow(dead_code)] // each test binary uses its own part

pub mod capture;
pub mod client;
pub mod lab;
pub mod server;

use std::time::{Duration, Instant};

/// Calls `probe` until it gives something, and fails with `what` when `limit` is over.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Are we root, here or in a user namespace, with /dev/net/tun? Says why not.
pub fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    let tun = std::path::Path::new("/dev/net/tun").exists();
    let smbclient = std::process::Command::new("smbclient").arg("--version").output().is_ok();
    for (there, what) in [
        (root, "root (or `unshare -Urnm`)"),
        (tun, "/dev/net/tun"),
        (smbclient, "smbclient (scripts/test installs it)"),
    ] {
        if !there {
            eprintln!("SKIPPED: this test needs {what}");
            return false;
        }
    }
    true
}
