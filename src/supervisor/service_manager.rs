//! Implements the service manager's protocols: notifications (sd_notify(3)), its watchdog (sd_watchdog_enabled(3)), and
//! the file descriptors that it keeps while the server is restarted (sd_pid_notify_with_fds(3), sd_listen_fds(3)).
//!
//! The supervisor has the service manager keep the TAP and the memory for received frames. When the supervisor is
//! killed, the TAP's queue therefore keeps what clients send, and the next supervisor continues with both.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use log::{info, warn};
use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

use crate::tap::Tap;

/// Names the service manager's socket.
pub(super) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Under these names the service manager keeps descriptors.
const TAP: &str = "tap";
const RECEIVED: &str = "received";
/// The first descriptor that is passed on (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// More descriptors are not passed on: the two names, and what a socket unit may add.
const COUNT_MAX: RawFd = 64;

/// What was kept from the supervisor before this one.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The TAP.
    tap: Option<OwnedFd>,
    /// The memory for received frames.
    pub received: Option<OwnedFd>,
}

impl Kept {
    /// Takes what the service manager passes to this process; to be called once.
    pub(super) fn take() -> Kept {
        let mut kept = Kept::default();
        for (number, name) in passed(|name| std::env::var(name).ok(), std::process::id()) {
            let is_open = rustix::io::fcntl_getfd(
                // SAFETY: it is only asked whether this is a descriptor.
                unsafe { BorrowedFd::borrow_raw(number) },
            );
            if is_open.is_err() {
                continue;
            }
            // SAFETY: it is open, and passed to this process for its own: nothing else here has it.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            // The workers are given what they need.
            if rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).is_err() {
                continue;
            }
            match name.as_str() {
                TAP => kept.tap = Some(fd),
                RECEIVED => kept.received = Some(fd),
                // Of a socket unit or another version.
                _ => {}
            }
        }
        kept
    }

    /// The TAP of this name, if it is the one that was kept; the frames that were received from another are not for
    /// this server, and are forgotten.
    pub(super) fn tap(&mut self, name: &str, offload: bool) -> Option<Tap> {
        let tap = self.tap.take().and_then(|fd| Tap::inherit(fd).ok());
        let tap = tap.filter(|tap| tap.name() == name && tap.is_attached());
        let tap = tap.filter(|tap| offload || !tap.has_offload());
        match &tap {
            Some(_) => info!("the service manager has kept {name}: no frame is lost"),
            None => self.received = None,
        }
        tap
    }
}

/// The descriptors that are passed to this process, with their names (sd_listen_fds(3)).
fn passed(variable: impl Fn(&str) -> Option<String>, own_pid: u32) -> Vec<(RawFd, String)> {
    let number = |name| variable(name)?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(own_pid) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok());
    let count = count.unwrap_or_default().clamp(0, COUNT_MAX);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    (FIRST..FIRST + count)
        .zip(names.split(':').map(str::to_owned))
        .collect()
}

/// The service manager.
#[derive(Debug, Default)]
pub(super) struct Manager {
    address: Option<SocketAddrUnix>,
    /// The interval of its notifications that the supervisor is alive.
    pace: Option<Duration>,
    /// The time of the next one.
    next: Duration,
}

impl Manager {
    /// The one that has started this process, if one has.
    pub(super) fn from_environment() -> Manager {
        let variable = |name: &str| std::env::var(name).ok();
        Manager {
            address: address(std::env::var_os(NOTIFY_SOCKET).as_deref()),
            pace: watchdog(variable, std::process::id()),
            next: Duration::ZERO,
        }
    }

    /// Returns the time of the next notification that the supervisor is alive.
    pub(super) fn next_sign(&self) -> Option<Duration> {
        self.pace.map(|_| self.next)
    }

    /// Notifies the service manager that the supervisor is alive, when the interval is over.
    pub(super) fn live(&mut self, now: Duration) {
        let Some(pace) = self.pace.filter(|_| now >= self.next) else {
            return;
        };
        self.next = now + pace;
        self.notify("WATCHDOG=1", &[]);
    }

    /// Has it keep the TAP, instead of another one that it may have, and the memory for received frames.
    pub(super) fn keep(&self, tap: BorrowedFd<'_>, received: BorrowedFd<'_>) {
        for (name, fd) in [(TAP, tap), (RECEIVED, received)] {
            self.notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
            self.notify(&format!("FDSTORE=1\nFDNAME={name}"), &[fd]);
        }
    }

    /// Sends a message, and descriptors with it.
    pub(super) fn notify(&self, state: &str, fds: &[BorrowedFd<'_>]) {
        let Some(address) = &self.address else {
            return;
        };
        if let Err(error) = send(address, state, fds) {
            warn!("the service manager cannot be notified ({NOTIFY_SOCKET}): {error}");
        }
    }
}

fn send(address: &SocketAddrUnix, state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !with.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let state = [IoSlice::new(state.as_bytes())];
    sendmsg_addr(&socket, address, &state, &mut with, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// sd_notify(3): a path, or a name in the abstract namespace after an `@`.
fn address(socket: Option<&OsStr>) -> Option<SocketAddrUnix> {
    let socket = socket?;
    let address = match socket.as_bytes() {
        [b'/', ..] => SocketAddrUnix::new(socket),
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        _ => Err(rustix::io::Errno::NOTSUP),
    };
    address
        .inspect_err(|error| warn!("{NOTIFY_SOCKET} names no socket: {error}"))
        .ok()
}

/// Half of the time after which the service manager takes this process for hung (sd_watchdog_enabled(3)).
fn watchdog(variable: impl Fn(&str) -> Option<String>, own_pid: u32) -> Option<Duration> {
    let number = |name| variable(name)?.parse::<u64>().ok();
    if variable("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(own_pid.into()) {
        return None;
    }
    let limit = number("WATCHDOG_USEC").filter(|limit| *limit > 0)?;
    Some(Duration::from_micros(limit) / 2)
}

#[cfg(test)]
mod tests;
