//! SIGHUP: the configuration and the users are read again. It is the planned restart of `outlast reboot`, asked for
//! over the same socket, so that a configuration that cannot be served is refused before anything happens.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use log::{error, info};

use crate::config::Config;
use crate::control::{Command, client};

/// How long the worker may take to answer: another may have to come first.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often a request is made whose worker dies over it.
const ATTEMPTS: u32 = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// The way to the thread that asks.
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
        // One may wait while another is under way: it reads what the first was too early for.
        let (wanted, asked) = sync_channel(1);
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || each(&asked, &socket))
            .context("no thread can be started")?;
        Ok(Reload { wanted })
    }

    /// Has the worker make way for one that serves by the files as they are now.
    pub(super) fn ask(&self) {
        // Full: one is waiting already, and will read the same.
        let _ = self.wanted.try_send(());
    }
}

fn each(asked: &Receiver<()>, socket: &Path) {
    while asked.recv().is_ok() {
        match restart(socket) {
            Ok(()) => info!("SIGHUP: the configuration and the users are read again"),
            Err(why) => error!("SIGHUP: the configuration and the users stay as they are: {why}"),
        }
    }
}

/// Asks again if the worker dies over the request: the next one will have the configuration of before.
fn restart(socket: &Path) -> Result<(), client::Error> {
    let reboot = Command::Reboot {
        exec: None,
        hold_seconds: 0.0,
    };
    let mut attempt = 1;
    loop {
        match client::request(socket, &reboot, PATIENCE) {
            Err(client::Error::Ended(_)) if attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            answer => return answer.map(drop),
        }
    }
}
