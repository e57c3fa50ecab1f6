//! Identifies a message's protocol, and splits compounded requests (MS-SMB2 3.3.5.2.7).

use bytes::Bytes;
use nom::number::complete::le_u32;
use outlast_fsa::Pieces;

use super::body::fields;
use super::{Command, Header, Malformed, header, write};

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
    /// Bytes at the beginning of a message that tell its protocol.
    pub const LEN: usize = 4;

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
    /// Header and body; of a WRITE that arrived in pieces, the fixed part of the body.
    pub bytes: Bytes,
    /// What follows `bytes`: of a WRITE that arrived in pieces, its data; of others nothing.
    pub rest: Pieces,
}

impl Component {
    /// Parses a component that was split off before (the bytes of a parked request).
    ///
    /// # Errors
    /// A malformed header.
    pub fn new(bytes: Bytes) -> Result<Component, Malformed> {
        Ok(Component::whole(Header::parse(&bytes)?, bytes))
    }

    fn whole(header: Header, bytes: Bytes) -> Component {
        Component {
            header,
            bytes,
            rest: Pieces::default(),
        }
    }

    /// A message of one request. What a large WRITE writes stays in pieces; any other request is small, or rare.
    fn of_pieces(header: Header, message: &Pieces) -> Component {
        if header.command != Command::WRITE || message.as_slice().len() < 2 {
            return Component::whole(header, message.together());
        }
        let fixed = header::LEN + write::FIXED_LEN;
        Component {
            header,
            bytes: message.slice(0..fixed).together(),
            rest: message.slice(fixed..message.len()),
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + self.rest.len()
    }

    /// Appends all its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        let rest = self.rest.as_slice().iter();
        rest.for_each(|piece| out.extend_from_slice(piece));
    }
}

/// Splits a plain SMB2 message into its requests. The rules for flags are not checked.
///
/// # Errors
/// A malformed header, a NextCommand that is unaligned or leaves no room for two headers, too many requests.
pub fn split(message: &Pieces) -> Result<Vec<Component>, Malformed> {
    let mut header = Header::parse(&message.slice(0..header::LEN).together())?;
    if header.next_command == 0 {
        return Ok(vec![Component::of_pieces(header, message)]);
    }
    let mut components = Vec::new();
    let mut rest = message.together();
    while header.next_command != 0 {
        if components.len() + 1 >= MAX_COMPONENTS {
            return Err(Malformed::TooManyComponents(MAX_COMPONENTS));
        }
        // 3.3.5.2.7: each request starts at an 8-byte boundary.
        let at = header.next_command as usize;
        if !at.is_multiple_of(8) || at < header::LEN || at > rest.len() {
            return Err(Malformed::NextCommand(header.next_command));
        }
        let following = rest.split_off(at);
        let next = Header::parse(&following)?;
        components.push(Component::whole(header, rest));
        (header, rest) = (next, following);
    }
    components.push(Component::whole(header, rest));
    Ok(components)
}
