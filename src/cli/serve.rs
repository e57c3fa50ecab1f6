//! `outlast serve`.

use std::path::PathBuf;

use clap::Args;

use super::ConfigArg;
use crate::logging::{self, Format};
use crate::supervisor::{self, Ready, Start};
use crate::temporary::{self, Access};

#[derive(Args)]
pub(super) struct Serve {
    /// Directory to serve without a configuration: makes a network device and a checkpoint file, and removes them at
    /// the end.
    #[arg(value_name = "DIRECTORY", conflicts_with = "config")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    at: ConfigArg,
    #[command(flatten)]
    admit: Admit,
    /// Write a line to this file descriptor, and close it, when the server serves.
    #[arg(long, value_name = "FD")]
    ready_fd: Option<i32>,
    /// How lines of the log are written [default: the configuration's log.format].
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// The users that may log in to a server without a configuration.
#[derive(Args)]
pub(super) struct Admit {
    /// Let everyone use DIRECTORY, without a password.
    #[arg(long, conflicts_with = "user")]
    pub guest: bool,
    /// User of DIRECTORY [default: your login name, and $OUTLAST_PASSWORD or a random password].
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    pub user: Option<String>,
}

/// Serves until the server is ended. Returns the exit code.
pub(super) fn run(serve: Serve) -> anyhow::Result<u8> {
    let Serve {
        directory,
        at,
        admit,
        ready_fd,
        log_format,
    } = serve;
    log_format.into_iter().for_each(logging::force);
    if let Some(directory) = directory {
        let access = Access::new(admit.guest, admit.user.as_deref())?;
        return temporary::serve(&directory, &access, ready_fd);
    }
    if admit.guest || admit.user.is_some() {
        anyhow::bail!(
            "--guest and --user need a directory (outlast serve DIRECTORY); a configuration has `guest` and `outlast \
             user add`"
        );
    }
    let path = at.path();
    let start = Start {
        ready: Ready::new(ready_fd, path.display().to_string())?,
        ..Start::default()
    };
    supervisor::serve(&path, start)
}
