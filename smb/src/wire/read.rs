//! Parses READ requests and encodes the responses (MS-SMB2 2.2.19, 2.2.20).

use bytes::{BufMut, Bytes};
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

use super::body::{fields, file_id, fixed};
use super::{Component, FileId, Malformed};

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags (3.0.2 on).
    pub flags: u8,
    /// Length in bytes.
    pub length: u32,
    /// Offset in bytes.
    pub offset: u64,
    /// FileId.
    pub file_id: FileId,
    /// MinimumCount in bytes: fewer bytes are STATUS_END_OF_FILE.
    pub minimum_count: u32,
    /// Channel: 0; other values are for RDMA.
    pub channel: u32,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (_padding, flags, length, offset, file_id, minimum_count, channel, _remaining, _, _) =
            fields(
                fixed(component, 49)?,
                (
                    le_u8, le_u8, le_u32, le_u64, file_id, le_u32, le_u32, le_u32, le_u16, le_u16,
                ),
            )?;
        Ok(Request {
            flags,
            length,
            offset,
            file_id,
            minimum_count,
            channel,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The data that was read.
    pub data: Bytes,
}

impl Response {
    /// Appends the fixed part; the data follows it, at offset 80.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(17);
        out.put_u8(80);
        out.put_u8(0);
        out.put_u32_le(self.data.len() as u32);
        out.put_u32_le(0);
        out.put_u32_le(0);
    }
}
