//! Parses TREE_CONNECT requests and encodes the responses (MS-SMB2 2.2.9, 2.2.10).

use bytes::BufMut;
use nom::number::complete::le_u16;

use super::body::{buffer, fields, fixed};
use super::{Component, Malformed, utf16};

/// SMB2_SHARE_TYPE_DISK.
pub const SHARE_TYPE_DISK: u8 = 0x01;
/// SMB2_SHARE_TYPE_PIPE.
pub const SHARE_TYPE_PIPE: u8 = 0x02;
/// SMB2_SHARE_CAP_CONTINUOUS_AVAILABILITY.
pub const SHARE_CAP_CONTINUOUS_AVAILABILITY: u32 = 0x0000_0010;
/// SMB2_SHAREFLAG_NO_CACHING: clients must not keep offline copies.
pub const SHAREFLAG_NO_CACHING: u32 = 0x0000_0030;
/// SMB2_SHAREFLAG_ENCRYPT_DATA.
pub const SHAREFLAG_ENCRYPT_DATA: u32 = 0x0000_8000;

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags (3.1.1).
    pub flags: u16,
    /// `\\server\share`.
    pub path: String,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (flags, offset, length) = fields(fixed(component, 9)?, (le_u16, le_u16, le_u16))?;
        let path = buffer(component, 9, offset.into(), length.into())?;
        Ok(Request {
            flags,
            path: utf16::decode(&path)?,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// ShareType.
    pub share_type: u8,
    /// ShareFlags.
    pub share_flags: u32,
    /// Capabilities.
    pub capabilities: u32,
    /// MaximalAccess.
    pub maximal_access: u32,
}

impl Response {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(16);
        out.put_u8(self.share_type);
        out.put_u8(0);
        out.put_u32_le(self.share_flags);
        out.put_u32_le(self.capabilities);
        out.put_u32_le(self.maximal_access);
    }
}
