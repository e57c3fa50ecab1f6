//! Received and sent frames, and the path of a connection.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A received Ethernet frame, up to 64 KiB.
#[derive(Debug, Clone, Copy)]
pub struct RxFrame<'a> {
    /// The frame from the Ethernet header on.
    pub bytes: &'a [u8],
    /// Whether the transport checksum is still to be verified.
    pub checksum: RxChecksum,
}

/// What is known about a received frame's transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RxChecksum {
    /// Nothing: verify it.
    Verify,
    /// Validated by the kernel, or partial since the frame never left the machine: the field must not be checked.
    Trusted,
}

/// A frame to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxFrame {
    /// Ethernet, IP and TCP headers, or a whole frame of another protocol.
    pub header: Vec<u8>,
    /// The bytes after the header, as slices of the log.
    pub payload: Vec<Bytes>,
    /// The work left to the device.
    pub offload: Offload,
}

/// Work left to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// None: all checksums are in place.
    None,
    /// The transport checksum field holds the pseudo-header's sum; the device completes it.
    Checksum {
        /// Where the sum begins, bytes from the frame's start.
        start: u16,
        /// Where the checksum field lies, bytes from `start`.
        offset: u16,
    },
    /// The device cuts the payload into segments of `mss` bytes, and completes each one's checksum as above.
    Tso {
        /// IPv6, not IPv4.
        v6: bool,
        /// Payload bytes of a segment.
        mss: u16,
        /// Length of Ethernet, IP and TCP headers.
        header_len: u16,
        /// As in `Checksum`.
        start: u16,
        /// As in `Checksum`.
        offset: u16,
    },
}

/// What the device does for us (offload).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// It completes transport checksums of sent frames.
    pub checksum: bool,
    /// It cuts TCP over IPv4 into segments.
    pub tso4: bool,
    /// It cuts TCP over IPv6 into segments.
    pub tso6: bool,
}

/// The two ends of a connection, and the Ethernet address of the peer.
///
/// The Ethernet address is the peer's or its router's, learned from valid segments, so that nothing has to be resolved
/// after a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Path {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Ethernet address to which frames to the peer are sent.
    pub remote_mac: [u8; 6],
}

/// A TCP segment extracted from its Ethernet and IP headers; lengths and checksum are verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    /// Source (remote) and destination (local, one of our addresses).
    pub(crate) path: Path,
    /// TCP header and payload.
    pub(crate) tcp: &'a [u8],
}

/// The link layer's result for a received frame.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Delivery<'a> {
    /// A segment to one of our addresses.
    Segment(Segment<'a>),
    /// An ICMP error about a segment from one of our addresses.
    Error(IcmpError),
    /// The frame has been processed, or was not for us.
    Nothing,
}

/// An ICMP error about a segment of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IcmpError {
    /// Our address and port in the quoted segment.
    pub(crate) local: SocketAddr,
    /// The peer's.
    pub(crate) remote: SocketAddr,
    /// Sequence number of the quoted segment.
    pub(crate) seq: u32,
    /// The reported error.
    pub(crate) kind: IcmpKind,
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IcmpKind {
    /// "Packet too big" or "fragmentation needed": the largest IP packet that passes, bytes.
    TooBig { mtu: usize },
    /// Another error: type and code.
    Unreachable { kind: u8, code: u8 },
}
