//! What carries Ethernet frames: the trait, what a device may do for us, and a device in memory with seeded faults.

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

/// The longest frame a device hands over or takes, in bytes: an IP packet of 64 KiB behind an Ethernet header.
pub const MAX_FRAME_LEN: usize = 65_535 + 14;

/// One received Ethernet frame, up to [`MAX_FRAME_LEN`] when the kernel has put segments together.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame<'a> {
    /// From the destination address on, without frame check sequence.
    pub bytes: &'a [u8],
    /// Who answers for the TCP checksum.
    pub checksum: RxChecksum,
}

/// Who answers for the TCP checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxChecksum {
    /// Nobody: verify it.
    Verify,
    /// The sender is this machine's kernel and left it out, or the kernel has verified it.
    Trusted,
}

/// One Ethernet frame to be sent.
#[derive(Clone, Debug)]
pub struct TxFrame {
    /// Ethernet header up to the TCP header with its options, or the whole of a frame that is not TCP.
    pub header: Vec<u8>,
    /// What follows, in pieces over the log.
    pub payload: Vec<Bytes>,
    /// What is left to the device.
    pub offload: Offload,
}

/// What the device has to do to a frame before it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    None,
    /// Sum up the bytes from `start` to the end (the field holds the pseudo header's sum) and put the complement at `start + offset`.
    Checksum {
        /// Where the TCP header begins, in bytes from the start of the frame.
        start: u16,
        /// Where the checksum field is, in bytes from `start`.
        offset: u16,
    },
    /// Cut the payload into segments of `mss` bytes, and then the checksum of each.
    Tso {
        /// IPv6, not IPv4.
        v6: bool,
        /// Payload bytes of each segment but the last.
        mss: u16,
        /// Bytes of the headers that each segment gets.
        header_len: u16,
        /// As for `Checksum`.
        start: u16,
        /// As for `Checksum`.
        offset: u16,
    },
}

impl TxFrame {
    /// A frame that is complete.
    pub fn plain(frame: Vec<u8>) -> TxFrame {
        TxFrame { header: frame, payload: Vec::new(), offload: Offload::None }
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

/// What a device does for its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It completes checksums: [`Offload::Checksum`].
    pub checksum: bool,
    /// It segments TCP over IPv4: [`Offload::Tso`]. Needs `checksum`.
    pub tso4: bool,
    /// It segments TCP over IPv6. Needs `checksum`.
    pub tso6: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true };
    /// Nothing.
    pub const NONE: Capabilities = Capabilities { checksum: false, tso4: false, tso6: false };

    /// Whether it segments TCP over IPv6 (or else IPv4).
    pub fn segments(&self, v6: bool) -> bool {
        self.checksum && if v6 { self.tso6 } else { self.tso4 }
    }
}

/// A network device, non-blocking.
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
