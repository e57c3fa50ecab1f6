//! A message's kind, and a compound's requests (MS-SMB2 3.3.5.2.7).

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

/// Requests in one message at most: far above any client's, and a bound on the work one message can ask for.
pub const MAX_COMPONENTS: usize = 1024;

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// SMB1: only its NEGOTIATE is understood.
    Smb1,
    /// Plain SMB2.
    Smb2,
    /// Encrypted.
    Transform,
    /// Compressed: never negotiated, so a violation.
    Compression,
}

impl Protocol {
    /// Looks at the first four bytes.
    ///
    /// # Errors
    /// Truncated, or none of SMB's ids.
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
    /// A component that has been cut out before (a parked request's own bytes).
    ///
    /// # Errors
    /// A malformed header.
    pub fn new(bytes: Bytes) -> Result<Component, Malformed> {
        let header = Header::parse(&bytes)?;
        Ok(Component { header, bytes })
    }
}

/// Cuts a plain SMB2 message into its requests. The flags' rules are not looked at.
///
/// # Errors
/// A malformed header, a NextCommand that is not aligned or leaves no room for two headers, too many requests.
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
