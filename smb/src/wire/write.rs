//! Parses WRITE requests and encodes the responses (MS-SMB2 2.2.21, 2.2.22).

use bytes::BufMut;
use nom::number::complete::{le_u16, le_u32, le_u64};

use super::body::{buffer_in_pieces, fields, file_id, fixed};
use super::{Component, FileId, Malformed};
use outlast_fsa::Pieces;

/// Bytes of the request's body before its data.
pub(super) const FIXED_LEN: usize = 48;
/// StructureSize of the request: the fixed part, and a byte of the variable one.
const STRUCTURE_SIZE: u16 = 49;

/// SMB2_WRITEFLAG_WRITE_THROUGH (2.1 on).
pub const FLAG_WRITE_THROUGH: u32 = 0x0000_0001;
/// SMB2_WRITEFLAG_WRITE_UNBUFFERED (3.0.2 on).
pub const FLAG_WRITE_UNBUFFERED: u32 = 0x0000_0002;

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Offset in bytes; all ones: the end of the file.
    pub offset: u64,
    /// FileId.
    pub file_id: FileId,
    /// Channel: 0; other values are for RDMA.
    pub channel: u32,
    /// Flags.
    pub flags: u32,
    /// The data to write: a part of the message, in place.
    pub data: Pieces,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (data_offset, length, offset, file_id, channel, _remaining, _, _, flags) = fields(
            fixed(component, STRUCTURE_SIZE)?,
            (
                le_u16, le_u32, le_u64, file_id, le_u32, le_u32, le_u16, le_u16, le_u32,
            ),
        )?;
        Ok(Request {
            offset,
            file_id,
            channel,
            flags,
            data: buffer_in_pieces(component, STRUCTURE_SIZE, data_offset.into(), length)?,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Count: the number of bytes written.
    pub count: u32,
}

impl Response {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(17);
        out.put_u16_le(0);
        out.put_u32_le(self.count);
        out.put_u32_le(0);
        out.put_u32_le(0);
    }
}
