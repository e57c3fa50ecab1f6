//! Identifies a message's protocol, and splits compounded requests (MS-SMB2 3.3.5.2.7).

use bytes::Bytes;
use nom::number::complete::le_u32;

use super::body::fields;
use super::{Header, Malformed, header};

/// ProtocolId of SMB2: FE 'S' 'M' 'B'.
pub const SMB2_ID: u32 = 0x424D_53FE;
/// ProtocolId of SMB1.
pub const SMB1_ID: u32 = 0x424D_53FF;
/// ProtocolId of the transform header.
pub const TRANSFORM_ID: u32 = 0x424D_53FD;
/// ProtocolId of the compression transform header.
pub const COMPRESSION_ID: u32 = 0x424D_53FC;

/// The largest number of requests in one message: far above that of any client, and a bound on the work of one message.
pub const MAX_COMPONENTS: usize = 1024;

/// The protocol of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// SMB1, of which only NEGOTIATE is supported.
    Smb1,
    /// Plain SMB2.
    Smb2,
    /// Encrypted.
    Transform,
    /// Compressed, which is never negotiated and thus a violation.
    Compression,
}

impl Protocol {
    /// Reads the first four bytes.
    ///
    /// # Errors
    /// The message is truncated, or has none of SMB's protocol ids.
    pub fn of(message: &[u8]) -> Result<Protocol, Malformed> {
        match fields(message, le_u32)? {
            SMB1_ID => Ok(Protocol::Smb1),
            SMB2_ID => Ok(Protocol::Smb2),
            TRANSFORM_ID => Ok(Protocol::Transform),
            COMPRESSION_ID => Ok(Protocol::Compression),
            other => Err(Malformed::ProtocolId(other)),
        }
    }
}

/// One request of a message: its header, and its bytes from the header on, padding before the next request included
/// (that is what a signature covers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The header.
    pub header: Header,
    /// Header and body.
    pub bytes: Bytes,
}

impl Component {
    /// Parses a component that was split off before (the bytes of a parked request).
    ///
    /// # Errors
    /// A malformed header.
    pub fn new(bytes: Bytes) -> Result<Component, Malformed> {
        let header = Header::parse(&bytes)?;
        Ok(Component { header, bytes })
    }
}

/// Splits a plain SMB2 message into its requests. The rules for flags are not checked.
///
/// # Errors
/// A malformed header, a NextCommand that is unaligned or leaves no room for two headers, too many requests.
pub fn split(message: &Bytes) -> Result<Vec<Component>, Malformed> {
    let mut components = Vec::with_capacity(1);
    let mut rest = message.clone();
    loop {
        let header = Header::parse(&rest)?;
        let next = header.next_command;
        if next == 0 {
            components.push(Component {
                header,
                bytes: rest,
            });
            return Ok(components);
        }
        if components.len() + 1 >= MAX_COMPONENTS {
            return Err(Malformed::TooManyComponents(MAX_COMPONENTS));
        }
        // 3.3.5.2.7: each request starts at an 8-byte boundary.
        let at = next as usize;
        if !at.is_multiple_of(8) || at < header::LEN || at > rest.len() {
            return Err(Malformed::NextCommand(next));
        }
        let following = rest.split_off(at);
        components.push(Component {
            header,
            bytes: rest,
        });
        rest = following;
    }
}
