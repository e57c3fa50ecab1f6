//! Tests changes of the configuration, the users and the environment while clients are connected.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::client::{self, SIGNED, Session, anonymous, smbclient};
use support::lab::{self, Lab, SERVER};
use support::server::{PASSWORD, Server, Setup, USER, error};
use support::{PATIENCE, can_run, has, wait_for};

/// A session with an open file.
fn session_of(lab: &Lab, server: &Server, user: &str, password: &str) -> Session {
    let local = lab.make_dir(&format!("local-{user}"));
    let name = format!("held-by-{user}");
    let mut client = anonymous(&format!("//{SERVER}/pub"));
    client.arg("-U").arg(format!("{user}%{password}"));
    Session::holding(client, server.share(), &name, &local)
}

/// The number of open files of each user.
fn opens(server: &Server) -> Vec<(String, u64)> {
    let connections = server.status().connections.into_iter();
    let of = connections.map(|connection| {
        let smb = connection.smb;
        (smb.user.unwrap_or_default(), smb.opens)
    });
    let mut all: Vec<_> = of.collect();
    all.sort();
    all
}

/// One of a user's files is open.
fn one_of(user: &str) -> (String, u64) {
    (user.to_owned(), 1)
}

/// Kills the worker, and waits until another one serves.
fn kill(server: &Server) {
    let pid = server.status().worker_pid;
    server.kill_worker(pid);
    server.successor_of(pid);
}

/// Alice is connected, and Bob is logged off by a reboot.
fn reboot_without_bob(server: &Server) {
    server.reboot();
    wait_for("bob to be gone", PATIENCE, || {
        (opens(server) == [one_of(USER)]).then_some(())
    });
}

/// The held file is closed, and nothing was wrong.
fn close(mut session: Session, server: &Server) {
    session.close_held(|| opens(server) == [(USER.to_owned(), 0)]);
    server.assert_sound();
}

#[test]
fn a_user_who_was_removed_is_logged_off_by_a_reboot() {
    if !can_run("a_user_who_was_removed_is_logged_off_by_a_reboot") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::prepare(&lab, Setup::default());
    server.add_user("bob", "swordfish");
    server.start_again();
    let _alice = session_of(&lab, &server, USER, PASSWORD);
    let _bob = session_of(&lab, &server, "bob", "swordfish");
    assert!(server.outlast(&["user", "remove", "bob"]).status.success());
    // After a crash the previous users apply.
    kill(&server);
    assert_eq!(opens(&server), [one_of(USER), one_of("bob")]);
    reboot_without_bob(&server);
    let log = server.log();
    assert!(
        log.contains("the session of the user \"bob\" is closed"),
        "{log}"
    );
    server.assert_sound();
}

#[test]
fn a_user_whose_password_was_changed_is_logged_off_by_a_reboot() {
    if !can_run("a_user_whose_password_was_changed_is_logged_off_by_a_reboot") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::prepare(&lab, Setup::default());
    server.add_user("bob", "swordfish");
    server.start_again();
    let _alice = session_of(&lab, &server, USER, PASSWORD);
    let _bob = session_of(&lab, &server, "bob", "swordfish");
    let both = [one_of(USER), one_of("bob")];
    server.reboot();
    assert_eq!(opens(&server), both, "the passwords are what they were");
    server.add_user("bob", "another");
    kill(&server);
    assert_eq!(
        opens(&server),
        both,
        "after a crash the previous users apply"
    );
    reboot_without_bob(&server);
    let log = server.log();
    assert!(
        log.contains("the session of the user \"bob\" is closed: the user has another password"),
        "{log}"
    );
    server.assert_sound();
}

#[test]
fn a_crash_uses_the_configuration_that_served() {
    if !can_run("a_crash_uses_the_configuration_that_served") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let _alice = session_of(&lab, &server, USER, PASSWORD);
    let kept = [one_of(USER)];
    let text = server.rewrite("[server]", "[serv");
    std::fs::write(lab.path("users"), "rubbish").expect("the users");
    for _ in 0..3 {
        kill(&server);
        assert_eq!(opens(&server), kept);
    }
    std::fs::write(server.config(), text).expect("the configuration");
    let refused = server.outlast(&["reboot"]);
    assert!(!refused.status.success());
    assert!(error(&refused).contains("users"), "{}", error(&refused));
    assert_eq!(opens(&server), kept);
    server.assert_sound();
}

#[test]
fn a_reboot_without_return_is_refused() {
    if !can_run("a_reboot_without_return_is_refused") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let _alice = session_of(&lab, &server, USER, PASSWORD);
    let before = server.status();
    let share = format!("path = \"{}\"", server.share().display());
    for (what, from, to, names) in [
        (
            "another size",
            "size = \"256MiB\"",
            "size = \"512MiB\"",
            &["nvram.size", "268435456", "outlast stop"][..],
        ),
        (
            "another NVRAM",
            "/nvram\"",
            "/other\"",
            &["nvram.path", "drop the sessions"],
        ),
        (
            "no NVRAM",
            "[nvram]",
            "[nvram]\ndurability = \"none\"",
            &["nvram.durability"],
        ),
        (
            "a sink in memory",
            "[nvram]",
            "[nvram]\ndurability = \"power\"\nsink = \"/dev/shm/sink\"",
            &["nvram.sink", "tmpfs"],
        ),
        (
            "a TAP that is not there",
            "tap = \"tap0\"",
            "tap = \"tap9\"",
            &["network.tap", "tap9"],
        ),
        (
            "the machine's own address",
            "10.77.0.1/24",
            "10.77.0.2/24",
            &["network.addresses", "10.77.0.2", "tap0"],
        ),
        (
            "a share that is not there",
            &share,
            "path = \"/nowhere\"",
            &["pub", "/nowhere"],
        ),
        ("no users", "/users\"", "/no-users\"", &["users_file"]),
        ("no TOML", "[server]", "[server", &["outlast.toml"]),
    ] {
        let text = server.rewrite(from, to);
        let refused = server.outlast(&["reboot"]);
        std::fs::write(server.config(), text).expect("the configuration");
        let said = error(&refused);
        assert!(!refused.status.success(), "{what}");
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        for name in names {
            assert!(said.contains(name), "{what}: {name:?} is not in: {said}");
        }
    }
    let after = server.status();
    assert_eq!(
        (after.worker_pid, after.epoch),
        (before.worker_pid, before.epoch),
        "nothing has happened"
    );
    server.reboot();
    assert_eq!(opens(&server), [one_of(USER)]);
}

/// For errors that no check foresees: the new worker ends with an error, and the next one has the last working
/// configuration.
#[test]
fn a_configuration_that_does_not_start_is_replaced_by_the_one_before() {
    if !can_run("a_configuration_that_does_not_start_is_replaced_by_the_one_before") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let _alice = session_of(&lab, &server, USER, PASSWORD);
    let hold = server
        .command(&["reboot", "--hold", "1"])
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut hold = hold.expect("outlast reboot");
    wait_for("the hold", PATIENCE, || {
        server.log().contains("elective reboot").then_some(())
    });
    // Changed too late to be checked.
    server.rewrite("size = \"256MiB\"", "size = \"512MiB\"");
    assert!(hold.wait().expect("outlast reboot").success());
    assert_eq!(opens(&server), [one_of(USER)]);
    let log = server.log();
    assert!(log.contains("with the previous configuration"), "{log}");
}

#[test]
fn a_tap_that_was_deleted_and_made_again_is_attached_again() {
    if !can_run("a_tap_that_was_deleted_and_made_again_is_attached_again") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let alice = session_of(&lab, &server, USER, PASSWORD);
    lab::run("ip link del tap0");
    wait_for("the server to miss it", PATIENCE, || {
        server
            .log()
            .contains("no worker can be started")
            .then_some(())
    });
    for command in [
        "ip tuntap add tap0 mode tap",
        "ip addr add 10.77.0.2/24 dev tap0",
        "ip link set tap0 up",
    ] {
        lab::run(command);
    }
    assert_eq!(opens(&server), [one_of(USER)]);
    close(alice, &server);
}

#[test]
fn raised_requirements_apply_to_connected_clients() {
    if !can_run("raised_requirements_apply_to_connected_clients") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let _old = session_of(&lab, &server, USER, PASSWORD);
    let signs = lab.make_dir("local-signs");
    let mut signing = Session::interactive(smbclient(SIGNED), &signs);
    signing.say("open held-by-alice");
    signing.expect("fnum");
    server.rewrite("signing = \"enabled\"", "signing = \"required\"");
    server.reboot();
    // A client that signs anyway stays.
    signing.close_held(|| opens(&server).contains(&(USER.to_owned(), 0)));
    server.rewrite(
        "[server]",
        "[server]\nmin_protocol = \"3.1.1\"\nmax_protocol = \"3.1.1\"",
    );
    server.reboot();
    assert!(!opens(&server).is_empty(), "3.1.1 is spoken as before");
    server.rewrite(
        "min_protocol = \"3.1.1\"\nmax_protocol = \"3.1.1\"",
        "max_protocol = \"3.0\"",
    );
    server.reboot();
    wait_for("the connections to be closed", PATIENCE, || {
        opens(&server).is_empty().then_some(())
    });
    let log = server.log();
    assert!(
        log.contains("outside min_protocol and max_protocol"),
        "{log}"
    );
}

/// A disk image at a loop device, mounted on request; both are removed with it.
struct Disk {
    device: String,
}

/// An image of a disk.
fn image(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.path(name);
    let file = std::fs::File::create(&path).expect("an image");
    file.set_len(16 << 20).expect("its length");
    path
}

/// A server whose share is on a disk of its own. `None`: this machine cannot have one.
fn server_on_disk(test: &str, lab: &Lab, image: &Path) -> Option<(Server, Disk)> {
    let made = Command::new("mkfs.ext4").arg("-q").arg(image).status();
    let is_made = made.is_ok_and(|status| status.success());
    let disk = Disk::attach(image).filter(|_| is_made);
    if !has(test, &[(disk.is_some(), "mkfs.ext4 and loop devices")]) {
        return None;
    }
    let disk = disk?;
    let mut server = Server::prepare(lab, Setup::default());
    disk.mount(server.share());
    server.start_again();
    Some((server, disk))
}

/// Ends the server, and takes its share's disk away.
fn unmount(server: Server, lab: &Lab) {
    drop(server);
    lab::run(&format!("umount --lazy {}", lab.path("share").display()));
}

impl Disk {
    fn attach(image: &Path) -> Option<Disk> {
        let found = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output();
        let found = found.ok().filter(|output| output.status.success())?;
        let device = String::from_utf8(found.stdout).ok()?.trim().to_owned();
        Some(Disk { device })
    }

    fn mount(&self, at: &Path) {
        lab::run(&format!("mount {} {}", self.device, at.display()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .args(["--detach", &self.device])
            .status();
    }
}

/// The server restarts before the disk of its share is there, which is then another device.
#[test]
fn a_share_that_is_mounted_late_is_waited_for() {
    const NAME: &str = "a_share_that_is_mounted_late_is_waited_for";
    if !can_run(NAME) {
        return;
    }
    let lab = Lab::new();
    let (disk, dummy) = (image(&lab, "disk"), image(&lab, "dummy"));
    let Some((mut server, first)) = server_on_disk(NAME, &lab, &disk) else {
        return;
    };
    let mut alice = session_of(&lab, &server, USER, PASSWORD);
    server.terminate();
    lab::run(&format!("umount {}", server.share().display()));
    let gone = first.device.clone();
    drop(first);
    let _in_its_place = Disk::attach(&dummy).expect("a loop device");
    let second = Disk::attach(&disk).expect("a loop device");
    assert_ne!(second.device, gone);
    std::fs::write(server.share().join("decoy"), "not of the share").expect("a file");
    server.start_again();
    assert_eq!(opens(&server), [one_of(USER)]);
    alice.say("ls");
    let listed = alice.expect("NT_STATUS_");
    assert!(
        !listed.contains("decoy"),
        "the mount point was served: {listed}"
    );
    second.mount(server.share());
    alice.say("get held-by-alice got");
    alice.expect("getting file");
    alice.close_held(|| opens(&server) == [(USER.to_owned(), 0)]);
    assert_eq!(
        std::fs::read(lab.path("local-alice/got")).expect("the copy"),
        b"held"
    );
    let log = server.log();
    assert!(
        log.contains("is not the directory that was served before"),
        "{log}"
    );
    assert!(!log.contains("it is gone"), "{log}");
    drop(alice);
    unmount(server, &lab);
}

#[test]
fn a_missing_share_leaves_the_others_alone() {
    if !can_run("a_missing_share_leaves_the_others_alone") {
        return;
    }
    let lab = Lab::new();
    let late = lab.path("late");
    let more = format!("[[share]]\nname = \"late\"\npath = \"{}\"", late.display());
    let server = Server::start(
        &lab,
        Setup {
            more,
            ..Setup::default()
        },
    );
    let local = lab.make_dir("local");
    std::fs::write(local.join("file"), "bytes").expect("a file");
    let put = |share: &str| {
        let mut command = anonymous(&format!("//{SERVER}/{share}"));
        command.arg("-U").arg(format!("{USER}%{PASSWORD}"));
        client::run(command, &local, "put file")
    };
    put("pub").well();
    let refused = put("late");
    assert!(
        refused.text.contains("NT_STATUS_BAD_NETWORK_NAME"),
        "{}",
        refused.text
    );
    assert!(server.log().contains("requests for this share are refused"));
    std::fs::create_dir(&late).expect("the share's directory");
    wait_for("the share to be found", PATIENCE, || {
        put("late").success.then_some(())
    });
    assert_eq!(
        std::fs::read(late.join("file")).expect("the file"),
        b"bytes"
    );
    server.assert_sound();
}

/// The disk fails under the server, and is attached again as another device.
#[test]
fn a_disk_that_is_mounted_again_is_served_again() {
    const NAME: &str = "a_disk_that_is_mounted_again_is_served_again";
    if !can_run(NAME) {
        return;
    }
    let lab = Lab::new();
    let disk = image(&lab, "disk");
    let Some((server, _first)) = server_on_disk(NAME, &lab, &disk) else {
        return;
    };
    let mut alice = session_of(&lab, &server, USER, PASSWORD);
    shut_down(server.share());
    alice.say("get held-by-alice first");
    alice.expect("NT_STATUS_");
    lab::run(&format!("umount --lazy {}", server.share().display()));
    let second = Disk::attach(&disk).expect("a loop device");
    second.mount(server.share());
    let copy = lab.path("local-alice/again");
    wait_for("the share to be served again", PATIENCE, || {
        alice.say("get held-by-alice again");
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::read(&copy)
            .is_ok_and(|bytes| bytes == b"held")
            .then_some(())
    });
    close(alice, &server);
    unmount(server, &lab);
}

/// Makes an ext4 fail every operation from now on, as when its disk is missing.
fn shut_down(at: &Path) {
    use std::os::fd::AsRawFd as _;
    /// EXT4_IOC_SHUTDOWN: `_IOR('X', 125, __u32)`.
    const SHUTDOWN: libc::c_ulong = 0x8004_587D;
    let dir = std::fs::File::open(at).expect("the share");
    let flags: u32 = 0;
    // SAFETY: EXT4_IOC_SHUTDOWN reads one u32, which lives across the call; the descriptor is open.
    let result = unsafe { libc::ioctl(dir.as_raw_fd(), SHUTDOWN as _, &flags) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
