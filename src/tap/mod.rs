//! Opens the TAP device: with segmentation and checksum offload if the kernel supports it, plain otherwise.
//!
//! A TAP that a configuration names exists before the server and stays when the server ends, so that the link stays up
//! and its queue keeps the frames that clients send meanwhile. `scripts/lab up` makes one. [`Tap::create`] makes one
//! for a temporary server. [`Received`] keeps frames that have been read; [`Kept`] does while a node is on standby.

mod control;
mod error;
pub mod host;
mod kept;
mod offload;
mod plain;
mod received;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use outlast_stack::{Capabilities, RxChecksum, TxFrame};

pub use error::TapError;
pub use kept::Kept;
use offload::{OffloadTap, VNET_HEADER_LEN};
use plain::PlainTap;
use received::Source;
pub use received::{Received, memory};

/// The frames that reach the queue of a TAP. The kernel drops all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// All.
    All,
    /// Those to this MAC address.
    To([u8; 6]),
    /// None.
    Nothing,
}

/// A TAP device, attached, non-blocking.
#[derive(Debug)]
pub struct Tap {
    name: String,
    mode: Mode,
    /// The interface was down when a frame was last sent.
    down: bool,
}

#[derive(Debug)]
enum Mode {
    Offload(OffloadTap),
    Plain(PlainTap),
}

impl Tap {
    /// Attaches to the TAP `name`, with offloads if `offload` and the kernel supports them.
    ///
    /// # Errors
    /// It does not exist, is no TAP, is in use, or we lack the permission: each with its remedy.
    pub fn open(name: &str, offload: bool) -> Result<Tap, TapError> {
        control::require_interface(name)?;
        let tap = Tap::attach(name, offload)?;
        // Another owner may have made it drop what arrives.
        tap.pass(Passing::All)?;
        // If it had disappeared since the first check, attaching would have made a new one, which is removed with this
        // descriptor.
        if !control::attachment(tap.as_fd()).is_some_and(|attachment| attachment.persistent) {
            return Err(TapError::Missing { name: tap.name });
        }
        Ok(tap)
    }

    /// Has the kernel drop what arrives, except this.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pass(&self, passing: Passing) -> Result<(), TapError> {
        control::pass(self.as_fd(), passing).map_err(|source| TapError::Failed {
            name: self.name.clone(),
            action: "filter what arrives at",
            source,
        })
    }

    /// Makes a TAP that lasts as long as a descriptor of it is open. The kernel puts the first free number in place of
    /// `%d`.
    ///
    /// # Errors
    /// There is no driver, or this account lacks the permission.
    pub fn create(pattern: &str) -> Result<Tap, TapError> {
        let mut tap = Tap::attach(pattern, true)?;
        let attachment = control::attachment(tap.as_fd()).ok_or(TapError::NotInherited)?;
        tap.name = attachment.name;
        Ok(tap)
    }

    /// Attaches to the TAP of this name, which the kernel makes if there is none.
    fn attach(name: &str, offload: bool) -> Result<Tap, TapError> {
        let offloading = match offload {
            true => OffloadTap::open(name)?,
            false => None,
        };
        if offload && offloading.is_none() {
            log::warn!(
                "{name}: the kernel refuses segmentation offload; continuing without, many times slower"
            );
        }
        let mode = match offloading {
            Some(tap) => Mode::Offload(tap),
            None => Mode::Plain(PlainTap::open(name)?),
        };
        Ok(Tap {
            name: name.to_owned(),
            mode,
            down: false,
        })
    }

    /// Checks that there is an interface of this name. It may be in use.
    ///
    /// # Errors
    /// There is none.
    pub fn require(name: &str) -> Result<(), TapError> {
        control::require_interface(name)
    }

    /// Takes an attached TAP from the process that opened it, in the mode in which it was opened.
    ///
    /// # Errors
    /// The descriptor is not an attached TAP.
    pub fn inherit(fd: OwnedFd) -> Result<Tap, TapError> {
        let attachment = control::attachment(fd.as_fd())
            .filter(|attachment| attachment.tap)
            .ok_or(TapError::NotInherited)?;
        let name = attachment.name;
        let mode = match attachment.vnet_header {
            true => Mode::Offload(OffloadTap::configure(&name, fd)?),
            false => Mode::Plain(PlainTap::configure(&name, fd)?),
        };
        Ok(Tap {
            name,
            mode,
            down: false,
        })
    }

    /// Returns whether the interface to which it was attached still exists. One that was deleted and made again is
    /// another.
    pub fn is_attached(&self) -> bool {
        control::attachment(self.as_fd()).is_some_and(|attachment| attachment.tap)
    }

    /// Sends one frame. A frame for which its queue has no room is lost, as on a network.
    ///
    /// # Errors
    /// The interface is gone, or refuses the frame.
    pub fn send(&mut self, frame: &TxFrame) -> io::Result<()> {
        let sent = match &self.mode {
            Mode::Offload(tap) => tap.send(frame),
            Mode::Plain(tap) => tap.send(frame),
        };
        let was_down = std::mem::take(&mut self.down);
        match sent {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The queue is full or memory is short: a lost frame, which TCP repairs.
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Ok(()),
                // The interface is down; it may come up again.
                Some(libc::EIO) => {
                    if !was_down {
                        log::warn!(
                            "{} is down: nothing can be sent (ip link set {} up)",
                            self.name,
                            self.name
                        );
                    }
                    self.down = true;
                    Ok(())
                }
                _ => Err(io::Error::new(
                    error.kind(),
                    format!("sending to {}: {error}", self.name),
                )),
            },
        }
    }

    /// The work that the kernel does on sent frames.
    pub fn capabilities(&self) -> Capabilities {
        match self.mode {
            Mode::Offload(_) => Capabilities::ALL,
            Mode::Plain(_) => Capabilities::NONE,
        }
    }

    /// Returns whether it is attached with segmentation and checksum offload.
    pub fn has_offload(&self) -> bool {
        matches!(self.mode, Mode::Offload(_))
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.mode {
            Mode::Offload(tap) => tap.as_fd(),
            Mode::Plain(tap) => tap.as_fd(),
        }
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> OwnedFd {
        match tap.mode {
            Mode::Offload(tap) => tap.into(),
            Mode::Plain(tap) => tap.into(),
        }
    }
}

impl Source for Tap {
    fn header_len(&self) -> usize {
        match self.mode {
            Mode::Offload(_) => VNET_HEADER_LEN,
            Mode::Plain(_) => 0,
        }
    }

    fn checksum(&self, header: &[u8]) -> RxChecksum {
        match self.mode {
            Mode::Offload(_) => OffloadTap::checksum(header),
            Mode::Plain(_) => RxChecksum::Verify,
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::retry_on_intr(|| rustix::io::read(self.as_fd(), &mut *buffer)) {
            Ok(length) => Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => {
                let error = io::Error::from(error);
                let text = format!("receiving from {}: {error}", self.name);
                Err(io::Error::new(error.kind(), text))
            }
        }
    }
}
