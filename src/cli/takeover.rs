//! `outlast takeover` and `outlast giveback`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::config::Config;
use crate::control::{Command, PairStatus, Reply, client};

/// The time within which the server must answer that it begins.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(45);
/// The time within which a node must serve: the drain, the hooks, and the return.
const TIMEOUT: Duration = Duration::from_secs(240);
/// The interval of status requests.
const PAUSE: Duration = Duration::from_millis(5);

/// Moves the service to the other node, or (`force`) to this one; waits until it is there.
pub(super) fn takeover(config: &Config, force: bool) -> anyhow::Result<()> {
    let before = pair(config)?;
    let is_here = before.role == "serving";
    if force && is_here {
        println!("node {} serves already", before.node);
        return Ok(());
    }
    let to = match force {
        true => before.node.clone(),
        false => before.partner.clone(),
    };
    carry_out(config, &Command::Takeover { force }, &before, &to)
}

/// Leaves the service; waits until this node does not serve any more.
pub(super) fn leave(config: &Config) -> anyhow::Result<()> {
    let before = pair(config)?;
    if before.role == "serving" {
        accept(config, &Command::Takeover { force: false })?;
        let begun = Instant::now();
        // Between its worker's end and the supervisor's next check no process answers.
        while pair(config).map_or(true, |pair| pair.role == "serving") {
            if begun.elapsed() > TIMEOUT {
                bail!("node {} takes too long to leave; see its log", before.node);
            }
            std::thread::sleep(PAUSE);
        }
    }
    println!("node {} does not serve", before.node);
    Ok(())
}

/// Moves the service back to the node that it was taken over from.
pub(super) fn giveback(config: &Config) -> anyhow::Result<()> {
    let before = pair(config)?;
    carry_out(config, &Command::Giveback, &before, &before.partner)
}

fn carry_out(
    config: &Config,
    command: &Command,
    before: &PairStatus,
    to: &str,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    accept(config, command)?;
    let after = wait_for_holder(config, before, to)?;
    println!(
        "node {to} has the service, epoch {} -> {}, after {} ms",
        before.epoch,
        after.epoch,
        begun.elapsed().as_millis()
    );
    Ok(())
}

fn accept(config: &Config, command: &Command) -> anyhow::Result<()> {
    match client::request(&config.server.control_socket, command, ACCEPT_PATIENCE)? {
        Reply::Accepted { .. } => Ok(()),
        _ => Err(super::unexpected()),
    }
}

fn wait_for_holder(config: &Config, before: &PairStatus, to: &str) -> anyhow::Result<PairStatus> {
    let begun = Instant::now();
    loop {
        let is_late = begun.elapsed() > TIMEOUT;
        match pair(config) {
            Ok(pair) if pair.epoch > before.epoch => match &pair.holder {
                Some(holder) if holder == to && pair.role != "taking over" => return Ok(pair),
                Some(holder) if holder == to => {}
                Some(holder) => bail!(
                    "node {to} has not taken the service over, and node {holder} has it; see the logs of both nodes"
                ),
                None => {}
            },
            Ok(PairStatus {
                trouble: Some(why), ..
            }) if before.trouble.as_ref() != Some(&why) => {
                bail!("node {to} has not taken the service over: {why}")
            }
            Err(error) if is_late => return Err(error),
            _ => {}
        }
        if is_late {
            bail!("node {to} takes too long; see the logs of both nodes");
        }
        std::thread::sleep(PAUSE);
    }
}

fn pair(config: &Config) -> anyhow::Result<PairStatus> {
    super::ask_status(config)?.pair.with_context(|| {
        format!(
            "{}: there is no [partner], so this server has no other node",
            config.path.display()
        )
    })
}
