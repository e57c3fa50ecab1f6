//! Tests servers without a configuration: `outlast serve DIRECTORY`, `outlast lab`, and their ready signals.

mod support;

use std::io::{BufRead as _, BufReader, PipeReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use outlast::config::Config;
use outlast::control::{self, Reply, Status};
use rustix::process::{Pid, Signal, kill_process};
use support::client::{self, anonymous};
use support::lab::{self, Lab};
use support::server::{Server, Setup, error};
use support::{PATIENCE, can_run, has, wait_for};

const OUTLAST: &str = env!("CARGO_BIN_EXE_outlast");

/// `outlast lab ARGUMENTS -- sh -c SCRIPT`, whose runtime directory is `runtime`.
fn in_lab(program: &Path, runtime: &Path, arguments: &[&str], script: &str) -> Output {
    Command::new(program)
        .arg("lab")
        .args(arguments)
        .args(["--", "sh", "-c", script])
        .env("TMPDIR", runtime)
        .env_remove("OUTLAST_PASSWORD")
        .output()
        .expect("outlast lab")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// Uploads a file and kills the server, as an ordinary test job would.
const JOB: &str = "set -e; \
    share=//$OUTLAST_ADDRESS/pub; login=$OUTLAST_USER%$OUTLAST_PASSWORD; \
    smbclient $share -s /dev/null -U $login -c 'put /etc/passwd one' >&2; \
    $OUTLAST crash >&2; \
    smbclient $share -s /dev/null -U $login -c 'get one -' 2>/dev/null | cmp - /etc/passwd >&2; \
    cmp $OUTLAST_DIRECTORY/one /etc/passwd >&2; \
    echo $OUTLAST_USER; exit 7";

#[test]
fn a_command_has_its_own_server_and_its_exit_code_is_returned() {
    if !can_run("a_command_has_its_own_server_and_its_exit_code_is_returned") {
        return;
    }
    let lab = Lab::new();
    let (runtime, served) = (lab.make_dir("runtime"), lab.make_dir("served"));
    let outlast = Path::new(OUTLAST);
    let directory = ["--directory", served.to_str().expect("UTF-8")];
    let user = ["--user", "ada:a secret"];
    for (arguments, name) in [
        (&[][..], None),
        (&[&directory[..], &user].concat(), Some("ada")),
    ] {
        let job = JOB.replace("$login", "\"$login\"");
        let output = in_lab(outlast, &runtime, arguments, &job);
        assert_eq!(output.status.code(), Some(7), "{}", error(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            name.is_none_or(|name| text == format!("{name}\n")),
            "{text}"
        );
        assert!(entries(&runtime).is_empty(), "all is removed");
    }
    assert_eq!(entries(&served), [served.join("one")]);
    let guest =
        "smbclient //$OUTLAST_ADDRESS/pub -s /dev/null -N -c ls && test -z \"$OUTLAST_USER\"";
    let output = in_lab(outlast, &runtime, &["--guest"], guest);
    assert!(output.status.success(), "{}", error(&output));
}

#[test]
fn errors_of_a_lab_have_separate_exit_codes() {
    if !can_run("errors_of_a_lab_have_separate_exit_codes") {
        return;
    }
    let lab = Lab::new();
    let runtime = lab.make_dir("runtime");
    let plain = lab.path("plain");
    std::fs::write(&plain, "no program").expect("a file");
    let code = |words: &[&str]| {
        let mut command = Command::new(OUTLAST);
        command.arg("lab").args(words).env("TMPDIR", &runtime);
        let output = command.output().expect("outlast lab");
        (output.status.code(), error(&output))
    };
    let (failed, text) = code(&["--directory", "/nowhere", "--", "true"]);
    assert_eq!(failed, Some(125), "{text}");
    assert!(text.contains("/nowhere"), "{text}");
    assert_eq!(code(&["--", plain.to_str().expect("UTF-8")]).0, Some(126));
    assert_eq!(code(&["--", "/nowhere/command"]).0, Some(127));
    assert_eq!(code(&["--", "sh", "-c", "kill -9 $$"]).0, Some(128 + 9));
    // The command may end the server itself.
    let (stopped, text) = code(&["--", "sh", "-c", "$OUTLAST stop; exit 3"]);
    assert_eq!(stopped, Some(3), "{text}");
    assert!(entries(&runtime).is_empty(), "{:?}", entries(&runtime));
}

#[test]
fn a_lab_needs_no_root_where_namespaces_are_permitted() {
    let test = "a_lab_needs_no_root_where_namespaces_are_permitted";
    let nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(program);
        command
    };
    let namespaces = nobody(Path::new("unshare")).args(["-Un", "true"]).output();
    let allowed = namespaces.is_ok_and(|output| output.status.success());
    let what = "user namespaces for ordinary accounts, and setpriv";
    let needs = [(allowed, what)];
    if !can_run(test) || !has(test, &needs) {
        return;
    }
    let lab = Lab::new();
    // The driver, accessible to every account.
    lab::run("mount -t tmpfs tmpfs /dev/net");
    lab::run("mknod -m 666 /dev/net/tun c 10 200");
    let runtime = lab.make_dir("runtime");
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    // Only its owner may have access to the build directory.
    let program = lab.path("outlast");
    std::fs::copy(OUTLAST, &program).expect("the program");
    let script = JOB.replace("exit 7", "test $(id -u) = 65534; exit 7");
    let output = nobody(&program)
        .args(["lab", "--", "sh", "-c", &script])
        .env("TMPDIR", &runtime)
        .current_dir("/")
        .output()
        .expect("outlast lab");
    assert_eq!(output.status.code(), Some(7), "{}", error(&output));
    assert!(entries(&runtime).is_empty(), "all is removed");
}

/// `outlast serve DIRECTORY`, which has reported that it serves.
struct Temporary {
    child: Child,
    config: PathBuf,
}

impl Temporary {
    fn start(directory: &Path, runtime: &Path) -> Temporary {
        let (read, write) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(OUTLAST);
        command
            .arg("serve")
            .arg(directory)
            .args(["--user", "ada:secret", "--ready-fd"])
            .arg(write.as_raw_fd().to_string())
            .env("TMPDIR", runtime)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = inheriting(&mut command, &write).spawn().expect("outlast");
        drop(write);
        let config = first_line(read);
        Temporary {
            child,
            config: config.into(),
        }
    }

    fn status(&self) -> Status {
        let config = Config::load(&self.config).expect("a configuration");
        wait_for("status", PATIENCE, || {
            let socket = &config.server.control_socket;
            match control::client::request(socket, &control::Command::Status, PATIENCE) {
                Ok(Reply::Status(status)) => Some(*status),
                _ => None,
            }
        })
    }

    /// Lists the share.
    fn list(&self, local: &Path) -> client::Finished {
        let config = Config::load(&self.config).expect("a configuration");
        let address = config.network.addresses[0].address;
        let mut command = anonymous(&format!("//{address}/pub"));
        command.args(["-U", "ada%secret"]);
        client::run(command, local, "ls")
    }
}

impl Temporary {
    fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
        let status = self.child.wait().expect("outlast serve");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child keeps this descriptor.
fn inheriting<'a>(command: &'a mut Command, kept: &impl AsRawFd) -> &'a mut Command {
    let kept = kept.as_raw_fd();
    let keep = move || {
        // SAFETY: it is open in the parent until the child has been started, so it is open here.
        let kept = unsafe { std::os::fd::BorrowedFd::borrow_raw(kept) };
        Ok(rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::empty())?)
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(keep) }
}

fn first_line(read: PipeReader) -> String {
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).expect("a line");
    assert!(line.ends_with('\n'), "the server has ended: {line:?}");
    line.trim_end().to_owned()
}

fn devices() -> String {
    std::fs::read_to_string("/proc/self/net/dev").expect("devices")
}

fn wait_for_removal() {
    wait_for("the device to be removed", PATIENCE, || {
        (!devices().contains("outlast")).then_some(())
    });
}

#[test]
fn a_directory_is_served_without_a_configuration() {
    if !can_run("a_directory_is_served_without_a_configuration") {
        return;
    }
    let lab = Lab::new();
    let (runtime, served, local) = (
        lab.make_dir("runtime"),
        lab.make_dir("a \"directory\""),
        lab.make_dir("local"),
    );
    std::fs::write(served.join("inside"), "x").expect("a file");
    let server = Temporary::start(&served, &runtime);
    assert!(server.list(&local).well().contains("inside"));
    let before = server.status();
    // The network of the lab's own TAP is not used.
    assert_ne!(before.serves.addresses[0].to_string(), lab::SERVER);
    let worker = i32::try_from(before.worker_pid)
        .ok()
        .and_then(Pid::from_raw);
    kill_process(worker.expect("a worker"), Signal::KILL).expect("kill -9");
    wait_for("the next worker", PATIENCE, || {
        (server.status().worker_pid != before.worker_pid).then_some(())
    });
    assert!(server.list(&local).well().contains("inside"));
    // A second one at the same time.
    let other = Temporary::start(&served, &runtime);
    assert_ne!(other.status().serves.addresses, before.serves.addresses);
    server.end(Signal::TERM);
    assert_eq!(entries(&runtime).len(), 1, "the other's");
    drop(other);
    wait_for_removal();

    // The next start removes what kill -9 has left. A closed terminal ends the server too.
    let server = Temporary::start(&served, &runtime);
    assert_eq!(entries(&runtime).len(), 1, "its own");
    server.end(Signal::HUP);
    assert!(entries(&runtime).is_empty(), "all is removed");
    wait_for_removal();
    assert_eq!(entries(&served), [served.join("inside")]);
}

/// The datagrams of a server that is started with this as its service manager's socket, and then ended.
fn notified(server: &mut Server, name: &str, manager: &UnixDatagram) -> Vec<String> {
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    server.set_environment("NOTIFY_SOCKET", name);
    let mut heard = Vec::new();
    let mut hear = || {
        let heard_next = || {
            let mut datagram = [0; 100];
            let len = manager.recv(&mut datagram).expect("a datagram");
            String::from_utf8_lossy(&datagram[..len]).into_owned()
        };
        // tests/package.rs covers the descriptors that it keeps.
        let next = std::iter::repeat_with(heard_next).find(|text| !text.starts_with("FDSTORE"));
        heard.extend(next);
    };
    server.start_again();
    hear();
    // A new worker is not a new start.
    server.reboot();
    server.terminate();
    hear();
    heard
}

#[test]
fn a_service_manager_is_notified_of_the_service_and_of_its_end() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    if !can_run("a_service_manager_is_notified_of_the_service_and_of_its_end") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::prepare(&lab, Setup::default());
    let path = lab.path("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let name = path.to_str().expect("UTF-8");
    assert_eq!(
        notified(&mut server, name, &manager),
        ["READY=1", "STOPPING=1"]
    );
    let abstract_name = format!("outlast-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
    let manager = UnixDatagram::bind_addr(&address).expect("a socket");
    let heard = notified(&mut server, &format!("@{abstract_name}"), &manager);
    assert_eq!(heard, ["READY=1", "STOPPING=1"]);
}

#[test]
fn a_descriptor_that_is_not_open_is_refused() {
    let output = Command::new(OUTLAST)
        .args(["serve", "--ready-fd", "77"])
        .output()
        .expect("outlast");
    assert!(!output.status.success());
    assert!(
        error(&output).contains("--ready-fd 77"),
        "{}",
        error(&output)
    );
}

/// A Python with the packages of the example.
fn python() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../example-venv/bin/python");
    let has_all = |python: &PathBuf| {
        let tried = Command::new(python)
            .args(["-c", "import pytest, smbclient"])
            .output();
        tried.is_ok_and(|output| output.status.success())
    };
    [made, "python3".into()].into_iter().find(has_all)
}

#[test]
fn the_example_of_a_foreign_test_passes() {
    let test = "the_example_of_a_foreign_test_passes";
    let python = python();
    let needs = [(
        python.is_some(),
        "pytest and smbprotocol (examples/pytest/run installs them)",
    )];
    if !can_run(test) || !has(test, &needs) {
        return;
    }
    let lab = Lab::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pytest");
    let output = Command::new(OUTLAST)
        .args(["lab", "--"])
        .arg(python.expect("there"))
        .args(["-m", "pytest", "-p", "no:cacheprovider"])
        .arg(example)
        .env("TMPDIR", lab.make_dir("runtime"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("outlast lab");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", error(&output));
    assert!(text.contains("3 passed"), "{text}");
}
