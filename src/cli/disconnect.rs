//! `outlast disconnect`.

use std::time::Duration;

use anyhow::bail;

use crate::config::Config;
use crate::control::{Command, Reply, client};

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Drops the connections of a client or a user.
pub(super) fn run(config: &Config, client_or_user: String) -> anyhow::Result<()> {
    let command = Command::Disconnect {
        client_or_user: client_or_user.clone(),
    };
    match client::request(&config.server.control_socket, &command, TIMEOUT)? {
        Reply::Disconnected { connections: 0 } => {
            bail!(
                "{client_or_user:?} has no connection; `outlast status` shows the clients and their users"
            )
        }
        Reply::Disconnected { connections } => {
            println!("{client_or_user}: {connections} connection(s) dropped");
            Ok(())
        }
        _ => Err(super::unexpected()),
    }
}
