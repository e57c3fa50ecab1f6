//! Tests the installation: the package, in a root file system without other files of this repository, the unit, and the
//! descriptors that a service manager keeps for the server.

mod support;

use std::io::{BufRead as _, BufReader, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outlast::control::{self, Reply, Status};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use support::client::{self, SMB3_1_1, Session, smbclient};
use support::lab::{Lab, run};
use support::server::{PASSWORD, Server, Setup, USER};
use support::{PATIENCE, can_run, has, wait_for};

const OUTLAST: &str = env!("CARGO_BIN_EXE_outlast");

fn is_there(program: &str, question: &str) -> bool {
    Command::new(program)
        .arg(question)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A file of the repository.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("a program");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{error}");
    out
}

/// The libraries that a program is linked with, and its loader.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = output_of(Command::new("ldd").arg(program));
    let words = listed.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Unpacks the package into a directory, together with Debian's C library and the kernel's file systems.
fn install(lab: &Lab) -> PathBuf {
    let package = lab.path("outlast.deb");
    // The profile's directory has the name of the profile.
    let profile = Path::new(OUTLAST).parent().and_then(Path::file_name);
    let profile = profile.expect("target/PROFILE/outlast");
    let target = Path::new(OUTLAST).ancestors().nth(2).expect("target");
    output_of(
        Command::new(source("scripts/package/make"))
            .env("CARGO_TARGET_DIR", target)
            .env("CARGO_NET_OFFLINE", "true")
            .args([Path::new("--profile"), Path::new(profile)])
            .args([Path::new("--output"), &package]),
    );
    let root = lab.make_dir("root");
    output_of(Command::new("dpkg-deb").arg("-x").args([&package, &root]));
    let binary = root.join("usr/bin/outlast");
    for library in libraries(&binary) {
        let place = root.join(library.strip_prefix("/").expect("absolute"));
        std::fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
        std::fs::copy(&library, place).expect("a library");
    }
    for (kind, place) in [
        ("proc", "proc"),
        ("devtmpfs", "dev"),
        ("tmpfs", "run"),
        ("tmpfs", "tmp"),
    ] {
        let place = root.join(place);
        std::fs::create_dir_all(&place).expect("a directory");
        match kind {
            "devtmpfs" => run(&format!("mount --rbind /dev {}", place.display())),
            _ => run(&format!("mount -t {kind} {kind} {}", place.display())),
        }
    }
    for place in ["etc/outlast", "var/lib/outlast", "srv/pub"] {
        std::fs::create_dir_all(root.join(place)).expect("a directory");
    }
    std::fs::copy("/etc/passwd", root.join("etc/passwd")).expect("accounts");
    root
}

/// A command in that file system.
fn inside(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).args(words);
    command
}

/// Ends the server with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_package_is_used_in_a_fresh_root_file_system() {
    let test = "the_package_is_used_in_a_fresh_root_file_system";
    let needs = [
        (
            is_there("cargo-deb", "--version"),
            "cargo-deb (cargo install --locked cargo-deb)",
        ),
        (is_there("dpkg-deb", "--version"), "dpkg-deb"),
        (is_there("chroot", "--version"), "chroot"),
    ];
    if !can_run(test) || !has(test, &needs) {
        return;
    }
    let lab = Lab::new();
    let root = install(&lab);
    for place in [
        "usr/share/man/man1/outlast.1.gz",
        "usr/share/man/man1/outlast-serve.1.gz",
        "usr/share/bash-completion/completions/outlast",
        "usr/share/zsh/vendor-completions/_outlast",
        "usr/share/fish/vendor_completions.d/outlast.fish",
        "usr/lib/systemd/system/outlast@.service",
        "usr/lib/outlast/lab",
        "usr/share/doc/outlast/copyright",
        "usr/share/doc/outlast/configuration.md",
    ] {
        assert!(root.join(place).is_file(), "{place} is not in the package");
    }
    // As the example describes, it is copied, and a user is added.
    let example = root.join("usr/share/doc/outlast/outlast.example.toml");
    std::fs::copy(example, root.join("etc/outlast/outlast.toml")).expect("the example");
    let mut add = inside(&root, &["outlast", "user", "add", USER, "--password-stdin"]);
    let mut add = add
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("outlast");
    use std::io::Write as _;
    writeln!(add.stdin.take().expect("piped"), "{PASSWORD}").expect("the password");
    assert!(add.wait().expect("outlast user add").success());
    let checked = output_of(&mut inside(&root, &["outlast", "check"]));
    assert!(checked.contains("nothing is wrong"), "{checked}");

    let server = inside(&root, &["outlast", "serve", "--log-format", "json"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("outlast serve");
    let mut server = Running(server);
    let log = server.0.stderr.take().expect("piped");
    let control = root.join("run/outlast/control.sock");
    let status = wait_for("the server", PATIENCE, || ask_status(&control));
    std::fs::write(root.join("srv/pub/there"), "there").expect("a file");
    let local = lab.make_dir("local");
    let session = smbclient(SMB3_1_1);
    let listed = client::run(session, &local, "ls").well();
    assert!(listed.contains("there"), "{listed}");
    output_of(&mut inside(&root, &["outlast", "crash"]));
    let after = wait_for("the next worker", PATIENCE, || ask_status(&control));
    assert!(after.epoch > status.epoch);
    // It waits until the supervisor has ended and this test has read its exit code.
    let mut stop = inside(&root, &["outlast", "stop"]);
    let mut stop = stop.stdout(Stdio::null()).spawn().expect("outlast");
    assert!(server.0.wait().expect("outlast serve").success());
    assert!(stop.wait().expect("outlast stop").success());
    let lines: Vec<String> = BufReader::new(log).lines().map_while(Result::ok).collect();
    assert!(!lines.is_empty());
    for line in lines {
        let object: serde_json::Value = serde_json::from_str(&line).expect("an object per line");
        assert!(
            object["message"].is_string() && object["level"].is_string(),
            "{line}"
        );
    }
}

fn ask_status(control: &Path) -> Option<Status> {
    match control::client::request(control, &control::Command::Status, Duration::from_secs(5)) {
        Ok(Reply::Status(status)) => Some(*status).filter(|status| status.trouble.is_none()),
        _ => None,
    }
}

/// Returns whether systemd accepts a unit of this text, with the program at /usr/bin/outlast, and its output.
fn verify(directory: &Path, text: &str) -> (bool, String) {
    let units = directory.join("usr/lib/systemd/system");
    std::fs::create_dir_all(&units).expect("a directory");
    for target in ["sysinit", "basic", "shutdown", "multi-user"] {
        let path = units.join(format!("{target}.target"));
        std::fs::write(path, "[Unit]\nDescription=Stands for the real one\n").expect("a unit");
    }
    for program in ["usr/bin/outlast", "bin/kill"] {
        let path = directory.join(program);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::copy("/bin/true", path).expect("a program");
    }
    std::fs::write(units.join("outlast@.service"), text).expect("the unit");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no", "--root"])
        .arg(directory)
        .arg("outlast@x.service")
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_well = output.status.success() && !said.contains("Unknown key");
    (is_well, said)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let test = "systemd_finds_nothing_wrong_with_the_unit";
    let is_there = is_there("systemd-analyze", "--version");
    if !has(test, &[(is_there, "systemd-analyze (package systemd)")]) {
        return;
    }
    let directory = std::env::temp_dir().join(format!("outlast-unit-{}", std::process::id()));
    let unit =
        std::fs::read_to_string(source("scripts/package/outlast@.service")).expect("the unit");
    let (is_well, said) = verify(&directory, &unit);
    assert!(is_well, "{said}");
    let wrong = unit.replace("Restart=", "Restarrt=");
    let (is_well, said) = verify(&directory, &wrong);
    assert!(!is_well, "a wrong key is not noticed: {said}");
    std::fs::remove_dir_all(&directory).expect("removed");
}

/// Stands for the service manager: it is notified, and keeps descriptors by name.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    kept: Vec<(String, OwnedFd)>,
    signs: usize,
}

impl Manager {
    fn new(lab: &Lab) -> Manager {
        let path = lab.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Manager {
            socket,
            path,
            kept: Vec::new(),
            signs: 0,
        }
    }

    /// Receives the waiting messages.
    fn hear(&mut self) {
        loop {
            let mut text = [0; 1000];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut text)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let Ok(received) = recvmsg(&self.socket, &mut parts, &mut with, flags) else {
                return;
            };
            let fds: Vec<OwnedFd> = with
                .drain()
                .filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                    _ => None,
                })
                .flatten()
                .collect();
            let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
            let mut lines = text.lines();
            let what = lines.next().unwrap_or_default();
            let name = lines.find_map(|line| line.strip_prefix("FDNAME="));
            match (what, name) {
                ("FDSTORE=1", Some(name)) => {
                    let fds = fds.into_iter().map(|fd| (name.to_owned(), fd));
                    self.kept.extend(fds);
                }
                ("FDSTOREREMOVE=1", Some(name)) => self.kept.retain(|(known, _)| known != name),
                ("WATCHDOG=1", _) => self.signs += 1,
                _ => {}
            }
        }
    }

    /// Starts `outlast serve` as a service manager does, with the kept descriptors.
    fn start(&self, server: &Server) -> Running {
        let path = self.path.with_file_name("server.log");
        let mut options = std::fs::File::options();
        let log = options
            .append(true)
            .create(true)
            .open(path)
            .expect("the log");
        let names: Vec<&str> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
        let fds: Vec<i32> = self.kept.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        // A shell knows its own process id, which stays the same when it becomes the server.
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "LISTEN_PID=$$ exec \"$@\"",
                "sh",
                OUTLAST,
                "serve",
                "--config",
            ])
            .arg(server.config())
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "200000")
            .env("LISTEN_FDS", fds.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log);
        let prepare = move || {
            // First to free numbers, so that none is overwritten before it has been moved.
            let mut moved = [0; 8];
            for (n, fd) in fds.iter().enumerate() {
                // SAFETY: the descriptors are open in the parent, which waits for this.
                moved[n] = unsafe { libc::fcntl(*fd, libc::F_DUPFD, 100) };
            }
            for (n, fd) in moved.iter().take(fds.len()).enumerate() {
                // SAFETY: as above. From the fourth descriptor on all are the server's.
                unsafe { libc::dup2(*fd, 3 + i32::try_from(n).unwrap_or(0)) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes only system calls.
        let child = unsafe { command.pre_exec(prepare) }
            .spawn()
            .expect("outlast serve");
        Running(child)
    }
}

/// The TAP as its clients see it.
struct Link {
    has_carrier: bool,
    /// Frames that clients have sent and the server has read.
    sent: u64,
    dropped: u64,
}

fn link() -> Link {
    let shown = output_of(Command::new("ip").args(["-s", "-j", "link", "show", "dev", "tap0"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let link = &shown[0];
    let flags = link["flags"].as_array().expect("flags");
    let statistics = &link["stats64"]["tx"];
    let count = |name: &str| statistics[name].as_u64().expect("a count");
    Link {
        has_carrier: !flags.iter().any(|flag| flag == "NO-CARRIER"),
        sent: count("packets"),
        dropped: count("dropped"),
    }
}

/// While no server runs, clients' frames wait in the queue of the TAP, which is kept: the next server receives all
/// frames, and a frame that a killed worker had read is not lost either.
#[test]
fn no_frame_is_lost_when_the_supervisor_is_killed() {
    if !can_run("no_frame_is_lost_when_the_supervisor_is_killed") {
        return;
    }
    let lab = Lab::new();
    let server = Server::prepare(&lab, Setup::default());
    let mut manager = Manager::new(&lab);
    let mut running = manager.start(&server);
    let served = wait_for("the server", PATIENCE, || server.try_status());
    wait_for("the descriptors", PATIENCE, || {
        manager.hear();
        (manager.kept.len() == 2).then_some(())
    });
    let local = lab.make_dir("local");
    let mut session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let pid = running.0.id();
    running.0.kill().expect("kill -9");
    running.0.wait().expect("the supervisor");
    wait_for("the worker's end", PATIENCE, || {
        support::server::has_ended(served.worker_pid).then_some(())
    });
    // The client sends while there is no server at all, and the link takes it.
    let before = link();
    assert!(before.has_carrier, "nobody holds the TAP");
    session.say("ls");
    let signs = manager.signs;
    running = manager.start(&server);
    let back = wait_for("the server", PATIENCE, || {
        server
            .try_status()
            .filter(|status| status.supervisor_pid != pid)
    });
    assert_eq!(back.supervisor_pid, running.0.id());
    assert_eq!(back.connections.len(), 1);
    session.close_held(|| server.status().connections[0].smb.opens == 0);
    session.say("quit");
    session.finish().well();
    let log = server.log();
    assert!(log.contains("the service manager has kept tap0"), "{log}");
    let after = link();
    assert!(after.sent > before.sent);
    assert_eq!(after.dropped, before.dropped, "frames were dropped");
    wait_for("signs of life", PATIENCE, || {
        manager.hear();
        (manager.signs > signs + 2).then_some(())
    });
    assert_eq!(manager.kept.len(), 2, "each is kept once");
    server.assert_sound();
}
