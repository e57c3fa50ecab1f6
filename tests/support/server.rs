//! The server under test, as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::lab::Lab;
use super::wait_for;

/// Signing and encryption, as the configuration names them.
#[derive(Clone, Copy, Debug)]
pub struct Protection {
    pub signing: &'static str,
    pub encryption: &'static str,
}

impl Default for Protection {
    fn default() -> Protection {
        Protection { signing: "enabled", encryption: "enabled" }
    }
}

pub struct Server {
    config: PathBuf,
    share: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    supervisor: Option<Child>,
}

pub const USER: &str = "alice";
pub const PASSWORD: &str = "correct horse";

impl Server {
    /// Writes a configuration and a users file, and starts the server.
    pub fn start(lab: &Lab, protection: Protection) -> Server {
        Server::start_with(lab, protection, "", &[])
    }

    /// The same with more configuration at the end and environment variables.
    pub fn start_with(lab: &Lab, protection: Protection, more: &str, environment: &[(&str, &str)]) -> Server {
        let (share, config) = (lab.path("share"), lab.path("outlast.toml"));
        std::fs::create_dir_all(&share).expect("the share");
        let dir = lab.dir().display();
        let text = format!(
            r#"[server]
name = "OUTLAST"
users_file = "{dir}/users"
control_socket = "{dir}/control.sock"
signing = "{signing}"
encryption = "{encryption}"

[network]
tap = "tap0"
addresses = ["{v4}/24", "{v6}/64"]

[nvram]
path = "{dir}/nvram"
size = "256MiB"

[[share]]
name = "pub"
path = "{dir}/share"
{more}
"#,
            signing = protection.signing,
            encryption = protection.encryption,
            v4 = super::lab::SERVER,
            v6 = super::lab::SERVER_V6,
        );
        std::fs::write(&config, text).expect("the configuration");
        let mut server = Server {
            config,
            share,
            log: lab.path("server.log"),
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            supervisor: None,
        };
        server.add_user(USER, PASSWORD);
        server.start_again();
        server
    }

    fn add_user(&self, name: &str, password: &str) {
        use std::io::Write as _;
        let mut child = self
            .command(&["user", "add", name, "--password-stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("outlast user add");
        writeln!(child.stdin.take().expect("piped"), "{password}").expect("the password");
        assert!(child.wait().expect("outlast user add").success());
    }

    /// Starts supervisor and worker, and waits until the server answers.
    pub fn start_again(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("the log");
        let child = self
            .command(&["serve"])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("outlast serve");
        self.supervisor = Some(child);
        wait_for("the server to answer", Duration::from_secs(20), || self.try_status());
    }

    /// `outlast COMMAND... --config FILE`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(words).arg("--config").arg(&self.config);
        command
    }

    pub fn share(&self) -> &Path {
        &self.share
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `outlast status --json`, if the server answers.
    pub fn try_status(&self) -> Option<Value> {
        let output = self.command(&["status", "--json"]).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    pub fn status(&self) -> Value {
        wait_for("status", Duration::from_secs(20), || self.try_status())
    }

    fn pid(&self, which: &str) -> i32 {
        i32::try_from(self.status()[which].as_i64().expect(which)).expect(which)
    }

    /// kill -9 of the worker; the supervisor starts the next.
    pub fn kill_worker(&self) {
        kill(self.pid("worker_pid"));
    }

    /// kill -9 of supervisor and worker.
    pub fn kill_tree(&mut self) {
        let worker = self.pid("worker_pid");
        let mut supervisor = self.supervisor.take().expect("running");
        supervisor.kill().expect("kill -9 of the supervisor");
        supervisor.wait().expect("the supervisor");
        kill(worker);
        wait_for("the worker's end", Duration::from_secs(10), || {
            (!Path::new(&format!("/proc/{worker}/fd/0")).exists()).then_some(())
        });
    }

    /// SIGTERM to the supervisor: ends, and keeps the sessions.
    pub fn terminate(&mut self) {
        let mut supervisor = self.supervisor.take().expect("running");
        let pid = rustix::process::Pid::from_child(&supervisor);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        let status = supervisor.wait().expect("the supervisor");
        assert!(status.success(), "after SIGTERM: {status}; {}", self.log());
    }

    /// `outlast reboot`, with more arguments.
    pub fn reboot(&self, more: &[&str]) {
        let words: Vec<_> = ["reboot"].iter().chain(more).copied().collect();
        let output = self.command(&words).output().expect("outlast reboot");
        assert!(output.status.success(), "reboot: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // it may have ended by itself
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("the server's last words:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
