//! Parses FLUSH requests (MS-SMB2 2.2.17).

use nom::number::complete::{le_u16, le_u32};

use super::body::{fields, file_id, fixed};
use super::{Component, FileId, Malformed};

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// FileId.
    pub file_id: FileId,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (_reserved1, _reserved2, file_id) =
            fields(fixed(component, 24)?, (le_u16, le_u32, file_id))?;
        Ok(Request { file_id })
    }
}
