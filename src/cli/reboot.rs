//! `outlast reboot`, of the server or of the machine, and `outlast stop`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::config::Config;
use crate::control::{Command, Reply, Status, client};

/// How long the server may take to answer that it begins: it may be probing a new binary.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(45);
/// How long the new worker may take to serve, once it is no longer held.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);
/// How long the sessions may take to be closed.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// The interval of status requests.
const PAUSE: Duration = Duration::from_millis(2);

/// Reboots the server electively and waits until it serves again.
pub(super) fn reboot(config: &Config, exec: Option<PathBuf>, hold: Duration) -> anyhow::Result<()> {
    let exec = exec
        .map(|path| {
            path.canonicalize()
                .with_context(|| format!("--exec: {} cannot be found", path.display()))
        })
        .transpose()?;
    let command = Command::Reboot {
        exec: exec.clone(),
        hold_seconds: hold.as_secs_f64(),
    };
    let before = super::ask_status(config)?;
    let (epoch, supervisor) = accepted(config, &command)?;
    let begun = Instant::now();
    let status = wait_for_successor(config, before.worker_pid, supervisor, hold)?;
    println!(
        "rebooted: epoch {epoch} -> {}, worker {}, {} connections kept, away for {} ms",
        status.epoch,
        status.worker_pid,
        status.connections.len(),
        begun.elapsed().as_millis()
    );
    match exec {
        Some(exec) if status.executable != exec => bail!(
            "{} did not start, {} serves again; see the server's log",
            exec.display(),
            status.executable.display()
        ),
        _ => Ok(()),
    }
}

/// Waits until another worker than `before` serves, which may be delayed for this time.
pub(super) fn wait_for_successor(
    config: &Config,
    before: u32,
    supervisor: u32,
    hold: Duration,
) -> anyhow::Result<Status> {
    let begun = Instant::now();
    loop {
        // The epoch alone would not suffice: without checkpoints there is none. The socket stays bound while no worker
        // runs: a request waits there for the new one.
        match super::ask_status(config) {
            Ok(status) if status.worker_pid != before => return Ok(status),
            Ok(_) | Err(_) if begun.elapsed() < hold + RETURN_PATIENCE => {}
            Ok(_) => bail!("the server has not ended; see its log"),
            Err(error) => return Err(error.context("the server does not serve again; see its log")),
        }
        if !is_alive(supervisor) {
            bail!("the server has ended instead of restarting; see its log");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reboots the machine with the sessions saved; waits until the server has ended for it.
pub(super) fn reboot_system(config: &Config) -> anyhow::Result<()> {
    let before = super::ask_status(config)?;
    let (_, supervisor) = accepted(config, &Command::RebootSystem)?;
    let begun = Instant::now();
    while is_alive(supervisor) {
        if super::ask_status(config).is_ok_and(|status| status.worker_pid != before.worker_pid) {
            bail!("the machine is not rebooted, and the server continues; see its log");
        }
        if begun.elapsed() > RETURN_PATIENCE {
            bail!("the server has not ended; see its log");
        }
        std::thread::sleep(PAUSE);
    }
    println!("saved; the machine reboots");
    Ok(())
}

/// Ends the server and its sessions, and waits until it has ended.
pub(super) fn stop(config: &Config) -> anyhow::Result<()> {
    let (_, supervisor) = accepted(config, &Command::Stop)?;
    let begun = Instant::now();
    while is_alive(supervisor) {
        if begun.elapsed() > STOP_PATIENCE {
            bail!("the server takes too long to stop; see its log");
        }
        std::thread::sleep(PAUSE);
    }
    println!("stopped");
    Ok(())
}

fn accepted(config: &Config, command: &Command) -> anyhow::Result<(u64, u32)> {
    match client::request(&config.server.control_socket, command, ACCEPT_PATIENCE)? {
        Reply::Accepted {
            epoch,
            supervisor_pid,
        } => Ok((epoch, supervisor_pid)),
        _ => Err(super::unexpected()),
    }
}

/// Returns whether there is such a process. A zombie has ended.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).is_ok_and(
        |stat| {
            !stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .trim_start()
                .starts_with('Z')
        },
    )
}
