//! Parses CLOSE requests and encodes the responses (MS-SMB2 2.2.15, 2.2.16).

use bytes::BufMut;
use nom::number::complete::{le_u16, le_u32};

use super::body::{fields, file_id, fixed};
use super::{Component, FileId, Malformed};
use outlast_fsa::fileop::FileTime;

/// SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB.
const POSTQUERY_ATTRIB: u16 = 0x0001;

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB: the response must contain the attributes.
    pub postquery_attrib: bool,
    /// FileId.
    pub file_id: FileId,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (flags, _reserved, file_id) = fields(fixed(component, 24)?, (le_u16, le_u32, file_id))?;
        Ok(Request {
            postquery_attrib: flags & POSTQUERY_ATTRIB != 0,
            file_id,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The attributes, if they were requested.
    pub attributes: Option<Attributes>,
}

/// Attributes of the file that was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// CreationTime.
    pub creation_time: FileTime,
    /// LastAccessTime.
    pub last_access_time: FileTime,
    /// LastWriteTime.
    pub last_write_time: FileTime,
    /// ChangeTime.
    pub change_time: FileTime,
    /// AllocationSize in bytes.
    pub allocation_size: u64,
    /// EndofFile in bytes.
    pub end_of_file: u64,
    /// FileAttributes.
    pub file_attributes: u32,
}

impl Response {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(60);
        match &self.attributes {
            Some(attributes) => {
                out.put_u16_le(POSTQUERY_ATTRIB);
                out.put_u32_le(0);
                out.put_u64_le(attributes.creation_time);
                out.put_u64_le(attributes.last_access_time);
                out.put_u64_le(attributes.last_write_time);
                out.put_u64_le(attributes.change_time);
                out.put_u64_le(attributes.allocation_size);
                out.put_u64_le(attributes.end_of_file);
                out.put_u32_le(attributes.file_attributes);
            }
            None => out.put_bytes(0, 58),
        }
    }
}
