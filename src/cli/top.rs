//! Implements `outlast top`.

use crate::config::Config;

/// Shows the running server until the user leaves.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    crate::top::run(&config.server.control_socket)
}
