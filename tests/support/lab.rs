//! Provides a network namespace for one test, with a TAP whose host side is the client's.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use super::basics::run;

/// The namespaces (network, mounts) the calling thread has moved into. Processes it starts are in them too.
pub struct Lab {
    dir: Directory,
    /// Only one lab at a time, since two cores suffice for no more.
    _turn: MutexGuard<'static, ()>,
}

/// The tests' user accounts.
const ACCOUNTS: [&str; 4] = ["alice", "bob", "carol", "dave"];

pub const SERVER: &str = "10.77.0.1";
pub const SERVER_V6: &str = "fd77::1";

static TURN: Mutex<()> = Mutex::new(());

impl Lab {
    /// Moves this thread into fresh namespaces and sets the TAP up.
    pub fn new() -> Lab {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = rustix::thread::UnshareFlags::NEWNET | rustix::thread::UnshareFlags::NEWNS;
        // SAFETY: what makes unshare unsafe is a separate table of file descriptors (CLONE_FILES), which is not asked
        // for.
        unsafe { rustix::thread::unshare_unsafe(flags) }.expect("namespaces");
        for command in [
            "mount --make-rprivate /",
            "ip link set lo up",
            "ip tuntap add tap0 mode tap",
            "ip addr add 10.77.0.2/24 dev tap0",
            "ip addr add fd77::2/64 dev tap0 nodad",
            "ip link set tap0 up",
        ] {
            run(command);
        }
        let lab = Lab {
            dir: Directory::new(),
            _turn: turn,
        };
        lab.make_accounts();
        lab
    }

    /// Users have local accounts with root's rights: a server that is root refuses users without one.
    fn make_accounts(&self) {
        let mut accounts = std::fs::read_to_string("/etc/passwd").expect("accounts");
        for name in ACCOUNTS {
            accounts += &format!("{name}:x:0:0::/:/bin/false\n");
        }
        let path = self.path("passwd");
        std::fs::write(&path, accounts).expect("accounts");
        run(&format!("mount --bind {} /etc/passwd", path.display()));
    }

    /// Puts the TAP on a bridge, and another one beside it: a link with two servers. The client's side is the bridge,
    /// which delivers what clients send to both.
    pub fn bridge(&self) {
        for command in [
            "ip addr flush dev tap0",
            "ip link add br0 type bridge",
            "ip link set tap0 master br0",
            "ip tuntap add tap1 mode tap",
            "ip link set tap1 master br0",
            "ip link set tap1 up",
            "bridge link set dev tap0 learning off",
            "bridge link set dev tap1 learning off",
            "ip addr add 10.77.0.2/24 dev br0",
            "ip addr add fd77::2/64 dev br0 nodad",
            "ip link set br0 up",
        ] {
            run(command);
        }
    }

    /// A directory that is removed with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Makes a directory in it.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }
}

/// The directory of labs: in memory, if there is enough of it and the environment does not override it. The tests end
/// processes, not machines, and a busy disk would slow them down.
fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |shm| shm.f_bavail * shm.f_frsize);
    if std::env::var_os("TMPDIR").is_none() && free >= 8 << 30 {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// A directory that is removed when dropped, unless the test failed and it has to be inspected.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "outlast-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = base().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("OUTLAST_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
