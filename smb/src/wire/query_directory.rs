//! Parses QUERY_DIRECTORY requests and encodes the responses (MS-SMB2 2.2.33, 2.2.34).

use bytes::Bytes;
use nom::number::complete::{le_u8, le_u16, le_u32};

use super::body::{buffer, fields, file_id, fixed};
use super::{Component, FileId, Malformed, utf16};

/// SMB2_RESTART_SCANS.
pub const FLAG_RESTART_SCANS: u8 = 0x01;
/// SMB2_RETURN_SINGLE_ENTRY.
pub const FLAG_RETURN_SINGLE_ENTRY: u8 = 0x02;
/// SMB2_INDEX_SPECIFIED.
pub const FLAG_INDEX_SPECIFIED: u8 = 0x04;
/// SMB2_REOPEN.
pub const FLAG_REOPEN: u8 = 0x10;

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// FileInformationClass (MS-FSCC 2.4).
    pub file_information_class: u8,
    /// Flags.
    pub flags: u8,
    /// FileIndex.
    pub file_index: u32,
    /// FileId.
    pub file_id: FileId,
    /// The search pattern; empty: that of the preceding query.
    pub pattern: String,
    /// OutputBufferLength in bytes.
    pub output_buffer_length: u32,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (class, flags, file_index, file_id, offset, length, output_buffer_length) = fields(
            fixed(component, 33)?,
            (le_u8, le_u8, le_u32, file_id, le_u16, le_u16, le_u32),
        )?;
        let pattern = buffer(component, 33, offset.into(), length.into())?;
        Ok(Request {
            file_information_class: class,
            flags,
            file_index,
            file_id,
            pattern: utf16::decode(&pattern)?,
            output_buffer_length,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The entries.
    pub data: Bytes,
}
