//! Notifies the program that started the server that it serves: a line on a descriptor (`--ready-fd`), and the service
//! manager's protocol (sd_notify(3)), which is a datagram.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, ensure};
use log::warn;
use rustix::io::FdFlags;

use super::service_manager::Manager;

/// The receivers of the ready signal.
#[derive(Debug, Default)]
pub struct Ready {
    descriptor: Option<File>,
    line: String,
    greeting: String,
    manager: Manager,
    is_said: bool,
}

impl Ready {
    /// Notifies the service manager, if there is one, and writes `line` to a descriptor that this process has
    /// inherited.
    ///
    /// # Errors
    /// No such descriptor is open.
    pub fn new(descriptor: Option<RawFd>, line: String) -> anyhow::Result<Ready> {
        Ok(Ready {
            descriptor: descriptor.map(inherited).transpose()?,
            line,
            greeting: String::new(),
            manager: Manager::from_environment(),
            is_said: false,
        })
    }

    /// A text for the person who started the server, printed when it serves.
    pub fn greet(&mut self, text: String) {
        self.greeting = text;
    }

    /// Notifies once that a worker serves.
    pub(super) fn serves(&mut self) {
        // A reader who has left is no error.
        let _ = io::stdout().write_all(std::mem::take(&mut self.greeting).as_bytes());
        if let Some(mut file) = self.descriptor.take()
            && let Err(error) = writeln!(file, "{}", self.line)
        {
            warn!("--ready-fd cannot be written to: {error}");
        }
        if !std::mem::replace(&mut self.is_said, true) {
            self.manager.notify("READY=1", &[]);
        }
    }

    /// Notifies that the server ends.
    pub(super) fn stopping(&self) {
        self.manager.notify("STOPPING=1", &[]);
    }

    /// The service manager, which may be none.
    pub(super) fn manager(&mut self) -> &mut Manager {
        &mut self.manager
    }
}

fn inherited(descriptor: RawFd) -> anyhow::Result<File> {
    let is_open = std::path::Path::new("/proc/self/fd")
        .join(descriptor.to_string())
        .symlink_metadata()
        .is_ok();
    ensure!(
        descriptor > 2 && is_open,
        "--ready-fd {descriptor}: no such descriptor is open; open one, as in `outlast serve --ready-fd 3 3>FILE`"
    );
    // SAFETY: it is open, and nothing in this process owns it: descriptors that the process opened itself are not named
    // on its command line.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // The worker must not inherit it: its reader waits for the end.
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC).context("--ready-fd cannot be used")?;
    Ok(descriptor.into())
}
