//! Parses CHANGE_NOTIFY requests and encodes the responses (MS-SMB2 2.2.35, 2.2.36).

use bytes::Bytes;
use nom::number::complete::{le_u16, le_u32};

use super::body::{fields, file_id, fixed};
use super::{Component, FileId, Malformed};

/// SMB2_WATCH_TREE.
const WATCH_TREE: u16 = 0x0001;

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// SMB2_WATCH_TREE: the watch includes subdirectories.
    pub watch_tree: bool,
    /// OutputBufferLength in bytes.
    pub output_buffer_length: u32,
    /// FileId.
    pub file_id: FileId,
    /// CompletionFilter: FILE_NOTIFY_CHANGE_*.
    pub completion_filter: u32,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (flags, output_buffer_length, file_id, completion_filter, _reserved) = fields(
            fixed(component, 32)?,
            (le_u16, le_u32, file_id, le_u32, le_u32),
        )?;
        Ok(Request {
            watch_tree: flags & WATCH_TREE != 0,
            output_buffer_length,
            file_id,
            completion_filter,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// FILE_NOTIFY_INFORMATION structures (MS-FSCC 2.7.1); empty with STATUS_NOTIFY_ENUM_DIR.
    pub data: Bytes,
}
