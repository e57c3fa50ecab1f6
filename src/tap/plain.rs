//! Uses a TAP without offloads: one MTU-sized frame per system call, and all checksums computed by the stack.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use outlast_stack::TxFrame;
use tun_tap::{Iface, Mode};

use super::{TapError, control};

/// An attached TAP.
#[derive(Debug)]
pub(super) struct PlainTap {
    fd: OwnedFd,
}

impl PlainTap {
    /// Attaches to `name`.
    pub(super) fn open(name: &str) -> Result<PlainTap, TapError> {
        // The crate's error does not say whether the driver or the device refused.
        drop(control::open_driver(name)?);
        let interface = Iface::without_packet_info(name, Mode::Tap)
            .map_err(|source| control::explain(name, "attach to", source))?;
        // SAFETY: `into_raw_fd` has just given up the ownership of this open descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(interface.into_raw_fd()) };
        PlainTap::configure(name, fd)
    }

    /// Takes an attached descriptor. With an earlier owner's offload mask we would still receive frames of 64 KiB
    /// without a checksum.
    pub(super) fn configure(name: &str, fd: OwnedFd) -> Result<PlainTap, TapError> {
        let failed = |action| {
            move |source| TapError::Failed {
                name: name.to_owned(),
                action,
                source,
            }
        };
        control::set_offload(fd.as_fd(), 0).map_err(failed("clear the offloads of"))?;
        control::set_nonblocking(&fd).map_err(failed("configure"))?;
        Ok(PlainTap { fd })
    }

    pub(super) fn send(&self, frame: &TxFrame) -> io::Result<()> {
        // A frame of one MTU has few pieces; writev would report too many.
        let mut pieces = Vec::with_capacity(1 + frame.payload.len());
        pieces.push(IoSlice::new(&frame.header));
        pieces.extend(frame.payload.iter().map(|part| IoSlice::new(part)));
        rustix::io::retry_on_intr(|| rustix::io::writev(&self.fd, &pieces))?;
        Ok(())
    }
}

impl AsFd for PlainTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PlainTap> for OwnedFd {
    fn from(tap: PlainTap) -> OwnedFd {
        tap.fd
    }
}
