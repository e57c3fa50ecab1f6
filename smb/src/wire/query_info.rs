//! Parses QUERY_INFO requests and encodes the responses (MS-SMB2 2.2.37, 2.2.38).

use bytes::Bytes;
use nom::number::complete::{le_u8, le_u16, le_u32};

use super::body::{buffer, fields, file_id, fixed};
use super::{Component, FileId, Malformed};

/// SMB2_0_INFO_* (InfoType), also of SET_INFO.
#[allow(missing_docs)]
pub mod info_type {
    pub const FILE: u8 = 0x01;
    pub const FILESYSTEM: u8 = 0x02;
    pub const SECURITY: u8 = 0x03;
    pub const QUOTA: u8 = 0x04;
}

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// InfoType: one of [`info_type`].
    pub info_type: u8,
    /// FileInfoClass (MS-FSCC 2.4, 2.5).
    pub file_info_class: u8,
    /// OutputBufferLength in bytes.
    pub output_buffer_length: u32,
    /// AdditionalInformation: SECURITY_INFORMATION for security.
    pub additional_information: u32,
    /// Flags: for extended attributes.
    pub flags: u32,
    /// FileId.
    pub file_id: FileId,
    /// Input data: for quotas and extended attributes.
    pub input: Bytes,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (
            info_type,
            file_info_class,
            output_buffer_length,
            input_offset,
            _reserved,
            input_length,
            additional_information,
            flags,
            file_id,
        ) = fields(
            fixed(component, 41)?,
            (
                le_u8, le_u8, le_u32, le_u16, le_u16, le_u32, le_u32, le_u32, file_id,
            ),
        )?;
        Ok(Request {
            info_type,
            file_info_class,
            output_buffer_length,
            additional_information,
            flags,
            file_id,
            input: buffer(component, 41, input_offset.into(), input_length)?,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The information.
    pub data: Bytes,
}
