//! Provides the basis of whole-server tests: a network namespace with a TAP, the server in it, Debian's smbclient, and
//! a capture.

#![allow(dead_code)] // each test binary uses its own part

pub mod apart;
pub mod attack;
pub mod basics;
pub mod capture;
pub mod client;
pub mod disk;
pub mod etcd;
pub mod files;
pub mod idle;
pub mod lab;
pub mod pair;
pub mod power;
pub mod raw;
pub mod server;
pub mod speakers;
pub mod stage;
pub mod timeline;

pub use basics::{PATIENCE, Rng, wait_for};

/// Returns whether we are root, here or in a user namespace, with the requirements of the tests. If not, says why, and
/// the test counts as skipped.
pub fn can_run(test: &str) -> bool {
    let program = |name: &str| {
        let tried = std::process::Command::new(name).arg("--version").output();
        tried.is_ok()
    };
    has(
        test,
        &[
            (
                rustix::process::geteuid().is_root(),
                "root, or a user namespace (unshare -Urnm)",
            ),
            (
                std::fs::File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/net/tun")
                    .is_ok(),
                "/dev/net/tun, to be read and written",
            ),
            (program("smbclient"), "smbclient (scripts/test installs it)"),
        ],
    )
}

/// Returns whether the requirements of a test are met. If not, names the missing ones, and the test counts as skipped.
pub fn has(test: &str, needs: &[(bool, &str)]) -> bool {
    let Some((_, what)) = needs.iter().find(|(there, _)| !there) else {
        return true;
    };
    eprintln!("skipped: {test} needs {what}");
    if let Some(list) = std::env::var_os("OUTLAST_SKIPPED") {
        use std::io::Write as _;
        let list = std::fs::File::options()
            .append(true)
            .create(true)
            .open(list);
        writeln!(
            list.expect("the list of skipped tests"),
            "{test}: needs {what}"
        )
        .expect("written");
    }
    false
}
