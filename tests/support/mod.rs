//! The basis of whole-server tests: a network namespace with a TAP, the server in it, Debian's smbclient, and a
//! capture.

#![allow(dead_code)] // each test binary uses its own part

pub mod attack;
pub mod capture;
pub mod client;
pub mod disk;
pub mod files;
pub mod lab;
pub mod power;
pub mod raw;
pub mod server;
pub mod speakers;
pub mod stage;
pub mod timeline;

use std::time::{Duration, Instant};

/// Longer than anything that a test waits for, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `probe` until it returns a value, and fails with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

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

/// Seeded randomness (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    /// Makes a seed from a name: each test has its own, always the same.
    pub fn named(name: &str) -> Rng {
        // FNV-1a
        Rng(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("less than a usize")
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}
