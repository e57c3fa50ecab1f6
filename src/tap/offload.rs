//! Uses a TAP with a virtio-net header before each frame: frames up to 64 KiB in both directions, checksums left to the
//! last device.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use outlast_stack::{Offload, RxChecksum, TxFrame};

use super::{TapError, control};

/// Bytes of `struct virtio_net_hdr` (virtio 1.2 section 5.1.6, legacy layout: no num_buffers, the host's byte order).
pub(super) const VNET_HEADER_LEN: usize = 10;
/// The sum over csum_start.. has to be written at csum_start + csum_offset.
const F_NEEDS_CSUM: u8 = 1;
/// The checksum has been verified.
const F_DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The number of pieces that one writev takes (IOV_MAX is 1024), without the two headers.
const MAX_PIECES: usize = 1000;

/// The work that the kernel may leave undone in frames it passes to us.
const RECEIVE_OFFLOADS: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;

/// An attached TAP with vnet headers.
#[derive(Debug)]
pub(super) struct OffloadTap {
    fd: OwnedFd,
}

impl OffloadTap {
    /// Attaches to `name`; `None` if the kernel does not support these offloads.
    pub(super) fn open(name: &str) -> Result<Option<OffloadTap>, TapError> {
        let fd = control::open_driver(name)?;
        control::attach(fd.as_fd(), name, libc::IFF_NO_PI | libc::IFF_VNET_HDR)
            .map_err(|source| control::explain(name, "attach to", source))?;
        match OffloadTap::configure(name, fd) {
            Err(TapError::Failed { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                Ok(None)
            }
            configured => configured.map(Some),
        }
    }

    /// Takes an attached descriptor and sets what another owner may have changed.
    pub(super) fn configure(name: &str, fd: OwnedFd) -> Result<OffloadTap, TapError> {
        let failed = |action| {
            move |source| TapError::Failed {
                name: name.to_owned(),
                action,
                source,
            }
        };
        control::set_vnet_header_len(fd.as_fd(), VNET_HEADER_LEN)
            .map_err(failed("set the header length of"))?;
        control::set_offload(fd.as_fd(), RECEIVE_OFFLOADS)
            .map_err(failed("set the offloads of"))?;
        control::set_nonblocking(&fd).map_err(failed("configure"))?;
        Ok(OffloadTap { fd })
    }

    /// The state of the checksum of a frame that was read.
    pub(super) fn checksum(header: &[u8]) -> RxChecksum {
        let flags = header.first().copied().unwrap_or_default();
        match flags & (F_NEEDS_CSUM | F_DATA_VALID) {
            0 => RxChecksum::Verify,
            _ => RxChecksum::Trusted,
        }
    }

    pub(super) fn send(&self, frame: &TxFrame) -> io::Result<()> {
        let vnet = vnet_header(frame.offload);
        let joined: Vec<u8>;
        let mut pieces = Vec::with_capacity(2 + frame.payload.len().min(MAX_PIECES));
        pieces.extend([IoSlice::new(&vnet), IoSlice::new(&frame.header)]);
        if frame.payload.len() <= MAX_PIECES {
            pieces.extend(frame.payload.iter().map(|part| IoSlice::new(part)));
        } else {
            joined = frame.payload.concat();
            pieces.push(IoSlice::new(&joined));
        }
        rustix::io::retry_on_intr(|| rustix::io::writev(&self.fd, &pieces))?;
        Ok(())
    }
}

/// The header that requests from the kernel what `offload` leaves undone.
fn vnet_header(offload: Offload) -> [u8; VNET_HEADER_LEN] {
    let mut header = [0; VNET_HEADER_LEN];
    let mut fields = |flags: u8, gso_type: u8, words: [u16; 4]| {
        header[0] = flags;
        header[1] = gso_type;
        for (to, word) in header[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
    };
    // hdr_len, gso_size, csum_start, csum_offset
    match offload {
        Offload::None => {}
        Offload::Checksum { start, offset } => fields(F_NEEDS_CSUM, 0, [0, 0, start, offset]),
        Offload::Tso {
            v6,
            mss,
            header_len,
            start,
            offset,
        } => {
            let gso_type = if v6 { GSO_TCPV6 } else { GSO_TCPV4 };
            fields(F_NEEDS_CSUM, gso_type, [header_len, mss, start, offset]);
        }
    }
    header
}

impl AsFd for OffloadTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OffloadTap> for OwnedFd {
    fn from(tap: OffloadTap) -> OwnedFd {
        tap.fd
    }
}
