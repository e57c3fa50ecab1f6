//! Notifies the program that started the server that it serves: a line on a descriptor (`--ready-fd`), and the service
//! manager's protocol (sd_notify(3)), which is a datagram.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::{Context as _, ensure};
use log::warn;
use rustix::io::FdFlags;

/// The variable with the service manager's socket.
pub(super) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The receivers of the ready signal.
#[derive(Debug, Default)]
pub struct Ready {
    descriptor: Option<File>,
    line: String,
    greeting: String,
    manager: Option<SocketAddr>,
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
            manager: manager(std::env::var_os(NOTIFY_SOCKET).as_deref()),
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
            self.notify("READY=1");
        }
    }

    /// Notifies that the server ends.
    pub(super) fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    fn notify(&self, state: &str) {
        let Some(manager) = &self.manager else {
            return;
        };
        let sent = UnixDatagram::unbound()
            .and_then(|socket| socket.send_to_addr(state.as_bytes(), manager));
        if let Err(error) = sent {
            warn!("the service manager cannot be notified ({NOTIFY_SOCKET}): {error}");
        }
    }
}

/// Resolves the address as sd_notify(3) says: a path, or a name in the abstract namespace after an `@`.
fn manager(socket: Option<&std::ffi::OsStr>) -> Option<SocketAddr> {
    let socket = socket?;
    let address = match socket.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(socket),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    address
        .inspect_err(|error| warn!("{NOTIFY_SOCKET} names no socket: {error}"))
        .ok()
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
