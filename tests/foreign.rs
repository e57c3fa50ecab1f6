//! Tests shares on file systems that lack features of Linux' own: on FUSE every rename replaces an existing file, and
//! each name of a file is a separate file in the kernel's cache.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use outlast::control::Status;
use support::client::{SMB3_1_1, Session, run, smbclient};
use support::lab::{self, Lab};
use support::server::{Server, Setup};
use support::{PATIENCE, Rng, can_run, files, has, wait_for};

/// Returns whether a program of this name is installed.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Returns whether the test can run, with a FUSE daemon of this name.
fn can_mount(test: &str, daemon: &str) -> bool {
    let there = std::fs::File::open("/dev/fuse").is_ok();
    let needs = [(there, "/dev/fuse"), (is_there(daemon), daemon)];
    can_run(test) && has(test, &needs)
}

/// A share that a FUSE daemon serves, unmounted with the value.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// `command`: the mount command, without the mount point.
    fn new(lab: &Lab, command: &str) -> Mounted {
        let share = lab.make_dir("share");
        lab::run(&format!("{command} {}", share.display()));
        Mounted(share)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A directory for the daemon, on the file system of the build: tmpfs numbers its files from 1 on, as FUSE does.
fn backing(test: &str, name: &str) -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    dir.display().to_string()
}

const TREE: &str = "mkdir Dir; cd Dir; put source one; rename one two; mkdir sub; rename sub under; put source \
    under\\x; \
                    get under\\x got.x; get two got.two; ls; del two; del under\\x; rmdir under; cd \\; rmdir Dir";

/// The positions of the clients' streams.
fn moved(status: &Status) -> Vec<(u32, u32)> {
    let streams = status.connections.iter().map(|connection| &connection.tcp);
    streams.map(|tcp| (tcp.snd_una, tcp.rcv_nxt)).collect()
}

/// All work is repeated each time that the worker is killed meanwhile, and nothing that was answered is lost.
fn continues_through_kills(test: &str, mount: &str) {
    let lab = Lab::new();
    let share = Mounted::new(&lab, mount);
    let server = Server::start(&lab, Setup::default());
    assert!(!server.status().serves.weaker.is_empty());
    let local = lab.make_dir("local");
    files::random_file(&local.join("source"), 20 << 20, &mut Rng::named(test));
    run(smbclient(SMB3_1_1), &local, TREE).well();
    let mut kills = 0;
    for round in 0..6 {
        let commands = format!("{TREE}; put source kept{round}");
        let mut session = Session::start(smbclient(SMB3_1_1), &local, &commands);
        while !session.has_ended() {
            let before = server.status();
            server.kill_worker(before.worker_pid);
            kills += 1;
            // The next kill happens when the client has progressed: no worker may live too briefly for that.
            wait_for("progress", PATIENCE, || {
                let now = server.try_status()?;
                let got_on = now.worker_pid != before.worker_pid && moved(&now) != moved(&before);
                (got_on || session.has_ended()).then_some(())
            });
        }
        session.finish().well();
        for got in ["got.x", "got.two"] {
            files::assert_same(&local.join("source"), &local.join(got));
            std::fs::remove_file(local.join(got)).expect("the file");
        }
        files::assert_same(&local.join("source"), &share.0.join(format!("kept{round}")));
    }
    assert!(kills > 6);
    let left = std::fs::read_dir(&share.0).expect("the share").count();
    // The kept files, and the directory in which the file system is tried.
    assert_eq!(left, 6 + 1);
    server.assert_sound();
}

#[test]
fn a_share_on_bindfs_keeps_what_was_answered() {
    let test = "a_share_on_bindfs_keeps_what_was_answered";
    if can_mount(test, "bindfs") {
        let dir = backing(test, "a");
        continues_through_kills(test, &format!("bindfs {dir}"));
        let _ = std::fs::remove_dir_all(dir);
    }
}

#[test]
fn a_share_on_mergerfs_keeps_what_was_answered() {
    let test = "a_share_on_mergerfs_keeps_what_was_answered";
    if can_mount(test, "mergerfs") {
        let dirs = [backing(test, "a"), backing(test, "b")];
        let options = "allow_other,use_ino,inodecalc=devino-hash,minfreespace=0";
        continues_through_kills(test, &format!("mergerfs -o {options} {}", dirs.join(":")));
        for dir in dirs {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

#[test]
fn a_share_whose_inode_numbers_change_is_refused() {
    let test = "a_share_whose_inode_numbers_change_is_refused";
    if !can_mount(test, "mergerfs") {
        return;
    }
    let lab = Lab::new();
    let dir = backing(test, "a");
    let _share = Mounted::new(&lab, &format!("mergerfs -o allow_other {dir}"));
    let server = Server::start(&lab, Setup::default());
    let log = server.log();
    assert!(
        log.contains("use_ino") && log.contains("share directory"),
        "{log}"
    );
    let refused = run(smbclient(SMB3_1_1), lab.dir(), "ls");
    assert!(refused.text.contains("NT_STATUS_"), "{}", refused.text);
    let _ = std::fs::remove_dir_all(dir);
}

/// SFTP has no inode numbers: libfuse makes them up, and forgets them.
#[test]
fn a_share_on_sshfs_is_refused() {
    let test = "a_share_on_sshfs_is_refused";
    let sftp_server = "/usr/lib/openssh/sftp-server";
    let needs = [(Path::new(sftp_server).exists(), sftp_server)];
    if !can_mount(test, "sshfs") || !has(test, &needs) {
        return;
    }
    let lab = Lab::new();
    let dir = backing(test, "a");
    // In the place of ssh: no network, no login.
    let ssh = lab.dir().join("ssh");
    std::fs::write(&ssh, format!("#!/bin/sh\nexec {sftp_server}\n")).expect("a script");
    std::fs::set_permissions(&ssh, Permissions::from_mode(0o755)).expect("a script");
    let options = format!("allow_other,ssh_command={}", ssh.display());
    let _share = Mounted::new(&lab, &format!("sshfs -o {options} nowhere:{dir}"));
    let server = Server::start(&lab, Setup::default());
    assert!(server.log().contains("fuse.sshfs changes the inode number"));
    let _ = std::fs::remove_dir_all(dir);
}
