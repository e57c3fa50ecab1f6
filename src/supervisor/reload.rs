//! SIGHUP reads the configuration and the users again. It is the planned restart of `outlast reboot`, requested over
//! the same socket, so that an invalid configuration is refused before anything happens.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use log::{error, info};

use crate::config::Config;
use crate::control::{Command, client};

/// How long the worker may take to answer: it may have to be restarted first.
const TIMEOUT: Duration = Duration::from_secs(45);
/// How often a request is repeated if the worker dies during it.
const ATTEMPTS: u32 = 5;
/// The time between two requests.
const PAUSE: Duration = Duration::from_millis(200);

/// The channel to the thread that makes the requests.
pub(super) struct Reload {
    wanted: SyncSender<()>,
}

impl Reload {
    /// Starts the thread, which ends with this value.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn of(config: &Config) -> anyhow::Result<Reload> {
        let socket = config.server.control_socket.clone();
        // One request may wait while another is under way: it reads what the first was too early for.
        let (wanted, asked) = sync_channel(1);
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || each(&asked, &socket))
            .context("cannot start a thread")?;
        Ok(Reload { wanted })
    }

    /// Asks the worker to restart with the current files.
    pub(super) fn ask(&self) {
        // Full: one request is waiting already, and will read the same.
        let _ = self.wanted.try_send(());
    }
}

fn each(asked: &Receiver<()>, socket: &Path) {
    while asked.recv().is_ok() {
        match restart(socket) {
            Ok(()) => info!("SIGHUP: the configuration and the users are read again"),
            Err(why) => error!("SIGHUP: the previous configuration and users are kept: {why}"),
        }
    }
}

/// Asks again if the worker dies during the request: the next one has the previous configuration.
fn restart(socket: &Path) -> Result<(), client::Error> {
    let reboot = Command::Reboot {
        exec: None,
        hold_seconds: 0.0,
    };
    let mut attempt = 1;
    loop {
        match client::request(socket, &reboot, TIMEOUT) {
            Err(client::Error::Ended(_)) if attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            answer => return answer.map(drop),
        }
    }
}
