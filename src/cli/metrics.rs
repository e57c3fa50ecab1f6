//! `outlast metrics`.

use std::time::Duration;

use crate::config::Config;
use crate::control::{Command, Reply, client};

/// How long it waits for its answer, also while a worker is replaced.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints what the running server has counted.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    match client::request(&config.server.control_socket, &Command::Metrics, PATIENCE)? {
        Reply::Metrics { text } => super::status::print(&text),
        _ => Err(super::unexpected()),
    }
}
