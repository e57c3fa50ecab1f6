//! Frames messages for direct TCP transport: a zero byte and 24 bits of length, big-endian, precede each message
//! (MS-SMB2 2.1; RFC 1002 4.3 for the NetBIOS keep-alive, which some clients send on port 445, too).

use super::Malformed;

/// Length of the transport header in bytes.
pub const LEN: usize = 4;

/// The largest accepted message, in bytes: the largest write or transact buffer (8 MiB) and room for headers and
/// compounded requests.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024 + 256 * 1024;

/// The content of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of this many bytes follows.
    Message(usize),
    /// A NetBIOS keep-alive (0x85), without content and without response.
    KeepAlive,
}

/// Parses a transport header.
///
/// # Errors
/// Another packet type, or a message longer than [`MAX_MESSAGE`].
pub fn parse(header: [u8; LEN]) -> Result<Frame, Malformed> {
    let [kind, a, b, c] = header;
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    match kind {
        0x00 if len > MAX_MESSAGE => Err(Malformed::MessageTooLong(len)),
        0x00 => Ok(Frame::Message(len)),
        0x85 if len == 0 => Ok(Frame::KeepAlive),
        _ => Err(Malformed::FrameType(kind)),
    }
}

/// Encodes the transport header of a message of `len` bytes.
#[must_use]
pub fn encode(len: usize) -> [u8; LEN] {
    debug_assert!(len < 1 << 24);
    let [_, a, b, c] = (len as u32).to_be_bytes();
    [0, a, b, c]
}
