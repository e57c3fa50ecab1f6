//! Defines the interface to a network device, and a device in memory with seeded faults.

mod memory;
mod segment;
mod smoltcp_port;
#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;

pub use memory::{Faults, MemoryDevice, Transit, pair};
pub use segment::segment;
pub use smoltcp_port::SmoltcpPort;

use crate::{Capabilities, Offload, RxChecksum, TxFrame};

/// The longest frame that a device handles, in bytes: an IP packet of 64 KiB behind an Ethernet header.
pub const MAX_FRAME_LEN: usize = 65_535 + 14;

impl TxFrame {
    /// A frame that is complete.
    pub fn plain(frame: Vec<u8>) -> TxFrame {
        TxFrame {
            header: frame,
            payload: Vec::new(),
            offload: Offload::None,
        }
    }

    /// Bytes of the payload.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }

    /// Bytes of the whole frame.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload_len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Capabilities {
    /// All offloads.
    pub const ALL: Capabilities = Capabilities {
        checksum: true,
        tso4: true,
        tso6: true,
    };
    /// No offloads.
    pub const NONE: Capabilities = Capabilities {
        checksum: false,
        tso4: false,
        tso6: false,
    };

    /// Returns whether it segments TCP over IPv6 (or else IPv4).
    pub fn segments(&self, v6: bool) -> bool {
        self.checksum && if v6 { self.tso6 } else { self.tso4 }
    }
}

/// A non-blocking network device.
pub trait Device {
    /// Takes the next frame that has arrived into `buffer` ([`MAX_FRAME_LEN`] bytes hold any), `None` if there is none.
    ///
    /// # Errors
    /// The device is gone, or its driver fails.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, RxChecksum)>>;

    /// Sends one frame. A device whose queue is full drops it, as a network would.
    ///
    /// # Errors
    /// The device is gone, or refuses the frame.
    fn send(&mut self, frame: &TxFrame) -> io::Result<()>;

    /// What it does with the frames it sends.
    fn capabilities(&self) -> Capabilities;
}
