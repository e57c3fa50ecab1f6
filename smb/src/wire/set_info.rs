//! Parses SET_INFO requests (MS-SMB2 2.2.39).

use bytes::Bytes;
use nom::number::complete::{le_u8, le_u16, le_u32};

use super::body::{buffer, fields, file_id, fixed};
use super::{Component, FileId, Malformed};

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// InfoType: one of [`super::query_info::info_type`].
    pub info_type: u8,
    /// FileInfoClass (MS-FSCC 2.4, 2.5).
    pub file_info_class: u8,
    /// AdditionalInformation: SECURITY_INFORMATION for security.
    pub additional_information: u32,
    /// FileId.
    pub file_id: FileId,
    /// The information to set.
    pub data: Bytes,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (info_type, file_info_class, length, offset, _reserved, additional, file_id) = fields(
            fixed(component, 33)?,
            (le_u8, le_u8, le_u32, le_u16, le_u16, le_u32, file_id),
        )?;
        Ok(Request {
            info_type,
            file_info_class,
            additional_information: additional,
            file_id,
            data: buffer(component, 33, offset.into(), length)?,
        })
    }
}
