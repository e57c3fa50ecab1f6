//! Runs the server under test, as a user does.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use outlast::control::{self, Reply, Status};
use rustix::process::{Pid, Signal, kill_process};

use super::lab::{Lab, SERVER, SERVER_V6};
use super::{PATIENCE, wait_for};

/// Signing and encryption, as the configuration names them.
#[derive(Clone, Copy, Debug)]
pub struct Protection {
    pub signing: &'static str,
    pub encryption: &'static str,
}

impl Default for Protection {
    fn default() -> Protection {
        Protection {
            signing: "enabled",
            encryption: "enabled",
        }
    }
}

/// Deviations from the default configuration.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub protection: Protection,
    /// More lines of `[server]`.
    pub server: String,
    /// More lines of the share `pub`.
    pub share: String,
    /// More tables, after it.
    pub more: String,
    /// The NVRAM's size; empty: 256 MiB.
    pub nvram_size: &'static str,
    /// More lines of `[nvram]`.
    pub nvram: String,
    pub environment: Vec<(&'static str, PathBuf)>,
}

pub struct Server {
    config: PathBuf,
    control: PathBuf,
    share: PathBuf,
    log: PathBuf,
    environment: Vec<(&'static str, PathBuf)>,
    /// The network namespace that it runs in; `None`: the test's.
    namespace: Option<PathBuf>,
    supervisor: Option<Child>,
}

pub const USER: &str = "alice";
pub const PASSWORD: &str = "correct horse";

impl Server {
    /// Writes a configuration and a users file, and starts the server.
    pub fn start(lab: &Lab, setup: Setup) -> Server {
        let mut server = Server::prepare(lab, setup);
        server.start_again();
        server
    }

    /// Writes a configuration and a users file.
    pub fn prepare(lab: &Lab, setup: Setup) -> Server {
        let Setup {
            protection,
            server,
            share: share_keys,
            more,
            nvram_size,
            nvram,
            environment,
        } = setup;
        let dir = lab.dir().display();
        let config = lab.path("outlast.toml");
        let text = format!(
            r#"[server]
name = "OUTLAST"
users_file = "{dir}/users"
control_socket = "{dir}/control.sock"
signing = "{signing}"
encryption = "{encryption}"
{server}

[network]
tap = "tap0"
addresses = ["{SERVER}/24", "{SERVER_V6}/64"]

[nvram]
path = "{dir}/nvram"
size = "{size}"
{nvram}

[[share]]
name = "pub"
path = "{dir}/share"
{share_keys}
{more}
"#,
            signing = protection.signing,
            encryption = protection.encryption,
            size = if nvram_size.is_empty() {
                "256MiB"
            } else {
                nvram_size
            },
        );
        std::fs::write(&config, text).expect("the configuration");
        // for guests, too
        let share = lab.make_dir("share");
        std::fs::set_permissions(&share, std::fs::Permissions::from_mode(0o777))
            .expect("the share's mode");
        let server = Server {
            config,
            control: lab.path("control.sock"),
            share,
            log: lab.path("server.log"),
            environment,
            namespace: None,
            supervisor: None,
        };
        server.add_user(USER, PASSWORD);
        server
    }

    /// Another server with a copy of this one's configuration and some texts changed; its files have `name` in theirs.
    pub fn twin(&self, lab: &Lab, name: &str, changes: &[(&str, &str)]) -> Server {
        let mut text = std::fs::read_to_string(&self.config).expect("the configuration");
        let own_control = format!("control-{name}.sock");
        for (from, to) in [("control.sock", own_control.as_str())]
            .iter()
            .chain(changes)
        {
            assert!(text.contains(from), "{from:?} is not in the configuration");
            text = text.replacen(from, to, 1);
        }
        let config = lab.path(&format!("outlast-{name}.toml"));
        std::fs::write(&config, text).expect("the configuration");
        Server {
            config,
            control: lab.path(&own_control),
            share: self.share.clone(),
            log: lab.path(&format!("server-{name}.log")),
            environment: self.environment.clone(),
            namespace: None,
            supervisor: None,
        }
    }

    /// The supervisor's process id.
    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor.as_ref().expect("running").id()
    }

    pub fn add_user(&self, name: &str, password: &str) {
        add_user(&self.config, name, password);
    }

    /// Starts supervisor and worker, and waits until the server answers.
    pub fn start_again(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("the log");
        let child = self
            .serve()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("outlast serve");
        let pid = child.id();
        self.supervisor = Some(child);
        wait_for("the server to answer", PATIENCE, || {
            let ended = self
                .supervisor
                .as_mut()
                .expect("started")
                .try_wait()
                .expect("outlast serve");
            assert!(ended.is_none(), "outlast serve ended: {}", self.log());
            self.try_status()
                .filter(|status| status.supervisor_pid == pid)
        });
    }

    /// From now on it runs in this network namespace.
    pub fn move_to(&mut self, namespace: PathBuf) {
        self.namespace = Some(namespace);
    }

    fn serve(&self) -> Command {
        let serve = self.command(&["serve"]);
        let Some(namespace) = &self.namespace else {
            return serve;
        };
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", namespace.display()))
            .arg(serve.get_program())
            .args(serve.get_args());
        command
    }

    /// `outlast COMMAND... --config FILE`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(words).arg("--config").arg(&self.config);
        command
    }

    /// Runs such a command.
    pub fn outlast(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("outlast")
    }

    /// Replaces a text of the configuration; returns the former configuration.
    pub fn rewrite(&self, from: &str, to: &str) -> String {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        assert!(text.contains(from), "{from:?} is not in the configuration");
        std::fs::write(&self.config, text.replacen(from, to, 1)).expect("the configuration");
        text
    }

    /// Sets an environment variable for the next start.
    pub fn set_environment(&mut self, name: &'static str, value: &str) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, PathBuf::from(value)));
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    pub fn share(&self) -> &Path {
        &self.share
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The server's status, if its worker answers.
    pub fn try_status(&self) -> Option<Status> {
        self.any_status().filter(|status| status.trouble.is_none())
    }

    /// The server's status, from worker or supervisor.
    pub fn any_status(&self) -> Option<Status> {
        match control::client::request(
            &self.control,
            &control::Command::Status,
            Duration::from_secs(5),
        ) {
            Ok(Reply::Status(status)) => Some(*status),
            _ => None,
        }
    }

    pub fn status(&self) -> Status {
        wait_for("status", PATIENCE, || self.try_status())
    }

    /// kill -9 of a worker; the supervisor starts the next.
    pub fn kill_worker(&self, pid: u32) {
        kill(pid);
    }

    /// Waits for a worker other than this one.
    pub fn successor_of(&self, pid: u32) -> Status {
        wait_for("the next worker", PATIENCE, || {
            self.try_status().filter(|status| status.worker_pid != pid)
        })
    }

    /// kill -9 of supervisor and worker.
    pub fn kill_tree(&mut self, worker: u32) {
        let mut supervisor = self.supervisor.take().expect("running");
        supervisor.kill().expect("kill -9 of the supervisor");
        kill(worker);
        supervisor.wait().expect("the supervisor");
        wait_for("the worker's end", PATIENCE, || {
            has_ended(worker).then_some(())
        });
    }

    /// Takes note that the server was killed by something else.
    pub fn reap(&mut self) {
        let mut supervisor = self.supervisor.take().expect("running");
        supervisor.wait().expect("the supervisor");
    }

    /// SIGTERM to the supervisor: ends, and keeps the sessions.
    pub fn terminate(&mut self) {
        let mut supervisor = self.supervisor.take().expect("running");
        kill_process(Pid::from_child(&supervisor), Signal::TERM).expect("SIGTERM");
        let status = supervisor.wait().expect("the supervisor");
        assert!(status.success(), "after SIGTERM: {status}; {}", self.log());
    }

    /// `outlast reboot`.
    pub fn reboot(&self) {
        let output = self.outlast(&["reboot"]);
        assert!(output.status.success(), "reboot: {}", error(&output));
    }

    /// Waits for the supervisor's own end (`outlast stop`); returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.supervisor
            .take()
            .expect("running")
            .wait()
            .expect("the supervisor")
            .code()
    }

    /// Waits until no client is connected, so that their last segments are on the wire. A socket that was closed with
    /// unsent bytes may take long: after a crowd its congestion control may assume a path of a few kilobytes a second.
    pub fn wait_until_left_alone(&self) {
        wait_for("the connections to end", 4 * PATIENCE, || {
            self.try_status()
                .filter(|status| status.connections.is_empty())
        });
    }

    /// Checks that the worker has never ended by its own fault.
    pub fn assert_sound(&self) {
        let log = self.log();
        assert!(!log.contains("panicked"), "the server panicked: {log}");
    }
}

/// `outlast user add`.
pub fn add_user(config: &Path, name: &str, password: &str) {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_outlast"))
        .args(["user", "add", name, "--password-stdin", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("outlast user add");
    writeln!(child.stdin.take().expect("piped"), "{password}").expect("the password");
    assert!(child.wait().expect("outlast user add").success());
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    // it may have ended already
    let _ = kill_process(pid, Signal::KILL);
}

/// Returns whether a process has ended, even if its exit code has not been read yet.
pub fn has_ended(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z") || rest.starts_with(" X"))
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // its worker ends with it (PDEATHSIG), before the lab's directory is removed
            let status = self.try_status();
            if std::thread::panicking() {
                eprintln!("the server's state: {status:#?}");
            }
            // A standby node of a pair has none.
            let worker = status
                .map(|status| status.worker_pid)
                .filter(|pid| *pid != 0);
            let _ = supervisor.kill();
            let _ = supervisor.wait();
            if let Some(worker) = worker {
                kill(worker);
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the end of the server's log:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// The error message of a command.
pub fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
