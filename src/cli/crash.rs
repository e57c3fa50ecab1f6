//! `outlast crash`: does what `kill -9` of the worker does, for demonstrations and tests.

use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::reboot::wait_for_successor;
use crate::config::Config;

/// Kills the worker and waits until its successor serves.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    let before = super::ask_status(config)?;
    let pid = i32::try_from(before.worker_pid)
        .ok()
        .and_then(Pid::from_raw);
    let pid = pid.context("the server names no worker")?;
    kill_process(pid, Signal::KILL)
        .with_context(|| format!("worker {} cannot be killed", before.worker_pid))?;
    let (supervisor, hold) = (before.supervisor_pid, Duration::ZERO);
    let status = wait_for_successor(config, before.worker_pid, supervisor, hold)?;
    let outage = status.last_outage.map_or(0.0, |outage| outage.seconds);
    println!(
        "worker {} killed, worker {} serves; epoch {} -> {}, {} connections kept, away for {:.1} ms",
        before.worker_pid,
        status.worker_pid,
        before.epoch,
        status.epoch,
        status.connections.len(),
        outage * 1e3
    );
    Ok(())
}
