//! Runs Outlast as processes of this machine, on a TAP in the network namespace of the demonstration.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use outlast::control::{self, Reply, Status};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Login;
use crate::fault::{Fault, Server, ip, run, within};
use crate::place::Place;

/// The TAP; its other end is the client's.
pub const DEVICE: &str = "tap0";
/// The server's address.
pub const SERVER: &str = "10.77.0.1";
/// The client's, with its prefix.
const CLIENT: &str = "10.77.0.2/24";
/// The only user.
pub const LOGIN: Login = ("demo", "demo password");
/// The time within which a server must serve.
const PATIENCE: Duration = Duration::from_secs(30);
/// The number of attempts of an upgrade.
const TRIES: usize = 3;
/// The time without a server when all its processes are killed.
const DOWN: Duration = Duration::from_secs(3);

/// A supervisor and its workers.
pub struct Local {
    outlast: PathBuf,
    /// The binary of the next upgrade.
    upgrade: PathBuf,
    config: PathBuf,
    control: PathBuf,
    log: PathBuf,
    supervisor: Child,
}

/// Returns the sentence that announces a fault, if it can occur.
pub fn announcement(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Kill => Some("kill -9 of the server"),
        Fault::KillAll => {
            Some("kill -9 of the server and its supervisor; there is no server for 3 s")
        }
        Fault::Reboot => Some("outlast reboot: drain, save, come back"),
        Fault::Upgrade => Some("outlast reboot --exec: come back as another binary"),
        Fault::Power => None,
    }
}

impl Local {
    /// Makes a TAP, a configuration and a user, and starts the server.
    ///
    /// # Errors
    /// One of these steps fails.
    pub fn start(place: &Place, outlast: &Path) -> anyhow::Result<Local> {
        place.share_file()?;
        ip("link set lo up")?;
        ip(&format!("tuntap add {DEVICE} mode tap"))?;
        ip(&format!("addr add {CLIENT} dev {DEVICE}"))?;
        ip(&format!("link set {DEVICE} up"))?;
        let config = place.path("outlast.toml");
        std::fs::write(&config, configuration(place))?;
        add_user(outlast, &config)?;
        let upgrade = place.path("outlast-next");
        std::fs::copy(outlast, &upgrade)
            .with_context(|| format!("{} cannot be copied", outlast.display()))?;
        let log = place.path("server.log");
        let mut local = Local {
            supervisor: spawn(outlast, &config, &log)?,
            outlast: outlast.to_owned(),
            upgrade,
            config,
            control: place.path("control.sock"),
            log,
        };
        local.wait_for_life(0)?;
        Ok(local)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.outlast);
        command.args(words).arg("--config").arg(&self.config);
        command
    }

    /// Returns the server's status, if it serves.
    fn status(&self) -> Option<Status> {
        let limit = Duration::from_secs(5);
        match control::client::request(&self.control, &control::Command::Status, limit) {
            Ok(Reply::Status(status)) if status.trouble.is_none() => Some(*status),
            _ => None,
        }
    }

    /// Waits until a worker serves that is not this one.
    fn wait_for_life(&mut self, before: u32) -> anyhow::Result<Status> {
        within(PATIENCE, "the server", || {
            if let Some(status) = self.supervisor.try_wait()? {
                bail!(
                    "outlast serve ended ({status}); the end of its log: {}",
                    self.last_words()
                );
            }
            Ok(self.status().filter(|status| status.worker_pid != before))
        })
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        let worker = self.wait_for_life(0)?.worker_pid;
        kill(worker);
        self.wait_for_life(worker).map(drop)
    }

    fn kill_all(&mut self) -> anyhow::Result<()> {
        let worker = self.wait_for_life(0)?.worker_pid;
        self.supervisor.kill()?;
        kill(worker);
        self.supervisor.wait()?;
        std::thread::sleep(DOWN);
        self.supervisor = spawn(&self.outlast, &self.config, &self.log)?;
        self.wait_for_life(0).map(drop)
    }
}

impl Server for Local {
    fn cause(&mut self, fault: Fault) -> anyhow::Result<Option<String>> {
        match fault {
            Fault::Kill => self.kill()?,
            Fault::KillAll => self.kill_all()?,
            Fault::Reboot => drop(run(&mut self.command(&["reboot"]))?),
            Fault::Upgrade => {
                let upgrade = self.upgrade.display().to_string();
                let mut command = self.command(&["reboot", "--exec", &upgrade]);
                // The server refuses a binary that does not prove itself in time, which a busy machine may cause.
                let mut tried = run(&mut command);
                for _ in 1..TRIES {
                    tried = tried.or_else(|_| run(&mut command));
                }
                tried?;
            }
            Fault::Power => bail!("only a virtual machine has power to cut: scripts/vm-demo"),
        }
        Ok(None)
    }

    fn lives(&mut self) -> anyhow::Result<u64> {
        Ok(self.wait_for_life(0)?.epoch)
    }

    fn stop(mut self: Box<Self>) -> anyhow::Result<()> {
        run(&mut self.command(&["stop"]))?;
        let status = within(PATIENCE, "the end of the server", || {
            Ok(self.supervisor.try_wait()?)
        })?;
        match status.success() {
            true => Ok(()),
            false => bail!(
                "outlast serve: {status}; the end of its log: {}",
                self.last_words()
            ),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // The worker ends with it. Both may have ended.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn spawn(outlast: &Path, config: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    Command::new(outlast)
        .arg("serve")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("{} cannot be started", outlast.display()))
}

fn configuration(place: &Place) -> String {
    // The user of the demonstration is not an account of this machine.
    let run_as = match rustix::process::geteuid().is_root() {
        true => r#"run_as = "root""#,
        false => "",
    };
    let path = |name: &str| place.path(name).display().to_string();
    format!(
        r#"[server]
name = "OUTLAST"
users_file = "{users}"
control_socket = "{control}"

[network]
tap = "{DEVICE}"
addresses = ["{SERVER}/24"]

[nvram]
path = "{nvram}"

[[share]]
name = "pub"
path = "{share}"
{run_as}
"#,
        users = path("users"),
        control = path("control.sock"),
        nvram = path("nvram"),
        share = path("share"),
    )
}

/// `outlast user add`.
pub fn add_user(outlast: &Path, config: &Path) -> anyhow::Result<()> {
    let (user, password) = LOGIN;
    let mut child = Command::new(outlast)
        .args(["user", "add", user, "--password-stdin", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("{} cannot be started", outlast.display()))?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    writeln!(stdin, "{password}")?;
    drop(stdin);
    match child.wait()?.success() {
        true => Ok(()),
        false => bail!("outlast user add failed; the line above says why"),
    }
}

/// SIGKILL. The process may have ended by itself.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::KILL);
    }
}
