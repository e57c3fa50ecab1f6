//! Parses SESSION_SETUP requests and encodes the responses (MS-SMB2 2.2.5, 2.2.6).

use bytes::{BufMut, Bytes};
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

use super::body::{buffer, fields, fixed};
use super::{Component, Malformed};

/// SMB2_SESSION_FLAG_BINDING in a request: bind to a session of another connection.
pub const FLAG_BINDING: u8 = 0x01;
/// SMB2_SESSION_FLAG_IS_GUEST in a response.
pub const SESSION_FLAG_IS_GUEST: u16 = 0x0001;
/// SMB2_SESSION_FLAG_IS_NULL in a response: anonymous.
pub const SESSION_FLAG_IS_NULL: u16 = 0x0002;
/// SMB2_SESSION_FLAG_ENCRYPT_DATA in a response.
pub const SESSION_FLAG_ENCRYPT_DATA: u16 = 0x0004;

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags.
    pub flags: u8,
    /// SecurityMode: [`super::negotiate::SIGNING_ENABLED`], [`super::negotiate::SIGNING_REQUIRED`].
    pub security_mode: u8,
    /// Capabilities.
    pub capabilities: u32,
    /// PreviousSessionId: a session of this client to end, 0 if none.
    pub previous_session_id: u64,
    /// The security token.
    pub security_buffer: Bytes,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (flags, security_mode, capabilities, _channel, offset, length, previous_session_id) =
            fields(
                fixed(component, 25)?,
                (le_u8, le_u8, le_u32, le_u32, le_u16, le_u16, le_u64),
            )?;
        Ok(Request {
            flags,
            security_mode,
            capabilities,
            previous_session_id,
            security_buffer: buffer(component, 25, offset.into(), length.into())?,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// SessionFlags.
    pub session_flags: u16,
    /// The security token, at most 64 KiB.
    pub security_buffer: Bytes,
}

impl Response {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(9);
        out.put_u16_le(self.session_flags);
        out.put_u16_le(72);
        out.put_u16_le(self.security_buffer.len() as u16);
        out.extend_from_slice(&self.security_buffer);
    }
}
