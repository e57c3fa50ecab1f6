use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;
use crate::config::sample::Sample;

/// Directories that are removed with the test, and a configuration for them.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("outlast-sandbox-{}-{number}", std::process::id());
        let top = std::env::temp_dir().join(name);
        for dir in ["shares/pub/sub", "state", "outside"] {
            fs::create_dir_all(top.join(dir)).unwrap();
        }
        Scratch(top.canonicalize().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn config(&self, share: &Path) -> Config {
        let text = Sample {
            nvram: &self.path("state/nvram"),
            share,
            ..Sample::default()
        };
        Config::parse(Path::new("/o.toml"), &text.text()).unwrap()
    }

    /// Runs the test in a thread of its own, under the sandbox of a server with this share, where there is Landlock.
    fn sandboxed(&self, share: &Path, test: impl FnOnce(u32) + Send) {
        let config = self.config(share);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let line = restrict(&config, false);
                let abi = line.strip_prefix("landlock ABI ");
                let abi = abi.and_then(|rest| rest.split(',').next()?.parse().ok());
                match abi {
                    Some(abi) => test(abi),
                    None => eprintln!("SKIPPED: no Landlock here: {line}"),
                }
            });
        });
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn denied<T>(result: io::Result<T>) {
    let error = result.err().expect("it is denied");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

#[test]
fn names_change_in_shares_and_beside_the_nvram_alone() {
    let scratch = Scratch::new();
    let (share, outside) = (scratch.path("shares/pub"), scratch.path("outside"));
    fs::write(outside.join("theirs"), "").unwrap();
    scratch.sandboxed(&share, |_| {
        denied(File::create_new(outside.join("new")));
        denied(fs::create_dir(outside.join("new")));
        denied(fs::remove_file(outside.join("theirs")));
        denied(fs::rename(outside.join("theirs"), outside.join("mine")));
        fs::write(share.join("file"), "ours").unwrap();
        fs::hard_link(share.join("file"), share.join("sub/link")).unwrap();
        fs::rename(share.join("file"), share.join("sub/file")).unwrap();
        std::os::unix::fs::symlink("file", share.join("sub/symlink")).unwrap();
        fs::rename(share.join("sub/symlink"), share.join("symlink")).unwrap();
        fs::create_dir(share.join("new")).unwrap();
        fs::remove_dir(share.join("new")).unwrap();
        fs::remove_file(share.join("symlink")).unwrap();
        assert!(fs::rename(share.join("sub/file"), outside.join("stolen")).is_err());
        fs::write(scratch.path("state/.new"), "").unwrap();
        fs::rename(scratch.path("state/.new"), scratch.path("state/nvram")).unwrap();
    });
}

#[test]
fn nothing_is_executed_connected_to_or_signalled() {
    let scratch = Scratch::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = tcp.local_addr().unwrap();
    let name = format!("outlast-sandbox-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = Pid::from_child(&child);
    scratch.sandboxed(&scratch.path("shares/pub"), |abi| {
        denied(Command::new("/bin/true").status());
        if abi >= 4 {
            denied(std::net::TcpStream::connect(tcp));
            denied(TcpListener::bind("127.0.0.1:0"));
        }
        if abi >= 5 {
            let null = File::open("/dev/null").unwrap();
            denied(rustix::io::ioctl_fionread(&null).map_err(io::Error::from));
        }
        if abi >= 6 {
            denied(UnixStream::connect_addr(&address));
            denied(kill_process(pid, Signal::TERM).map_err(io::Error::from));
        }
        // itself
        kill_process(rustix::process::getpid(), Signal::CONT).unwrap();
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_share_that_comes_later_is_served() {
    let scratch = Scratch::new();
    let later = scratch.path("shares/pub/sub/later");
    std::os::unix::fs::symlink(scratch.path("disk/share"), scratch.path("link")).unwrap();
    scratch.sandboxed(&later, |_| {
        fs::create_dir(&later).unwrap();
        fs::write(later.join("file"), "").unwrap();
        denied(File::create_new(scratch.path("outside/new")));
    });
    // A symbolic link to a directory that is not mounted yet: the rule is above its target.
    let around = around(&scratch.path("link"));
    assert!(around.contains(&scratch.0), "{around:?}");
}

#[test]
fn the_root_is_granted_to_a_share_of_the_root_alone() {
    let top = Path::new("/").read_dir().unwrap();
    let is_dir = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let beneath = top.map(|entry| entry.unwrap().path()).find(is_dir);
    let beneath = beneath.expect("a directory");
    assert_eq!(around(&beneath), BTreeSet::from([beneath.clone()]));
    assert_eq!(around(Path::new("/missing/share")), BTreeSet::new());
    let root = Path::new("/");
    assert_eq!(around(root), BTreeSet::from([root.to_owned()]));
}

/// One thread enters the sandbox, and another, without one, mounts something.
#[test]
fn what_is_mounted_on_a_share_later_is_served() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new();
    let share = scratch.path("shares/pub");
    let mounts = || {
        // SAFETY: a thread of this test alone, which ends with its namespace; no descriptors are unshared.
        let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
        if let Err(error) = unshared {
            eprintln!("SKIPPED: no mount namespace here: {error}");
            return;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        let step = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let line = restrict(&scratch.config(&share), false);
                step.wait();
                step.wait();
                let is_denied = File::create_new(share.join("file")).is_err();
                assert!(!is_denied, "{line}");
            });
            step.wait();
            mount("late", &share, "tmpfs", MountFlags::empty(), None).unwrap();
            step.wait();
        });
        unmount(&share, UnmountFlags::DETACH).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(mounts);
    });
}

#[test]
fn what_exists_of_a_path_is_found() {
    let scratch = Scratch::new();
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, scratch.path(name)).unwrap();
    };
    link("shares/pub", "there");
    link("outside/missing", "dangling");
    link("circle", "circle");
    for (path, expected) in [
        ("shares/pub", "shares/pub"),
        ("there/sub", "shares/pub/sub"),
        ("there/missing/deep", "shares/pub"),
        ("dangling", "outside"),
        ("dangling/deep", "outside"),
        ("missing", ""),
    ] {
        let expected = scratch.0.join(expected);
        let expected = expected.components().as_path();
        assert_eq!(existing(&scratch.path(path)), expected, "{path}");
    }
    assert_eq!(existing(&scratch.path("circle")), Path::new("/"));
}
