//! `outlast disconnect`.

use std::time::Duration;

use anyhow::bail;

use crate::config::Config;
use crate::control::{Command, Reply, client};

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Drops the connections of a client or a user.
pub(super) fn run(config: &Config, whom: String) -> anyhow::Result<()> {
    let command = Command::Disconnect { whom: whom.clone() };
    match client::request(&config.server.control_socket, &command, TIMEOUT)? {
        Reply::Disconnected { connections: 0 } => {
            bail!("{whom:?} has no connection; `outlast status` shows the clients and their users")
        }
        Reply::Disconnected { connections } => {
            println!("{whom}: {connections} connection(s) dropped");
            Ok(())
        }
        _ => Err(super::unexpected()),
    }
}
