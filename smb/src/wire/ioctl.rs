//! Parses IOCTL requests and encodes the responses (MS-SMB2 2.2.31, 2.2.32).

use bytes::{BufMut, Bytes};
use nom::number::complete::{le_u16, le_u32};

use super::body::{buffer, fields, file_id, fixed};
use super::{Component, FileId, Malformed};

/// SMB2_0_IOCTL_IS_FSCTL: the only kind.
pub const FLAG_IS_FSCTL: u32 = 0x0000_0001;

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// CtlCode.
    pub ctl_code: u32,
    /// FileId; [`FileId::ANY`] if the control acts on no file.
    pub file_id: FileId,
    /// Input data: a slice of the message.
    pub input: Bytes,
    /// MaxInputResponse in bytes.
    pub max_input_response: u32,
    /// MaxOutputResponse in bytes.
    pub max_output_response: u32,
    /// Flags: [`FLAG_IS_FSCTL`].
    pub flags: u32,
}

impl Request {
    const SIZE: u16 = 57;

    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (
            _reserved,
            ctl_code,
            file_id,
            input_offset,
            input_count,
            max_input_response,
            output_offset,
            output_count,
            max_output_response,
            flags,
            _reserved2,
        ) = fields(
            fixed(component, Self::SIZE)?,
            (
                le_u16, le_u32, file_id, le_u32, le_u32, le_u32, le_u32, le_u32, le_u32, le_u32,
                le_u32,
            ),
        )?;
        // OutputCount is 0 in every defined request; announced bytes must be present nevertheless.
        buffer(component, Self::SIZE, output_offset, output_count)?;
        Ok(Request {
            ctl_code,
            file_id,
            input: buffer(component, Self::SIZE, input_offset, input_count)?,
            max_input_response,
            max_output_response,
            flags,
        })
    }
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// CtlCode of the request.
    pub ctl_code: u32,
    /// FileId of the request.
    pub file_id: FileId,
    /// Output data.
    pub output: Bytes,
}

impl Response {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        // 64 bytes of header, 48 of body.
        const BUFFER: u32 = 112;
        out.put_u16_le(49);
        out.put_u16_le(0);
        out.put_u32_le(self.ctl_code);
        self.file_id.encode(out);
        out.put_u32_le(BUFFER);
        out.put_u32_le(0);
        out.put_u32_le(BUFFER);
        out.put_u32_le(self.output.len() as u32);
        out.put_u32_le(0);
        out.put_u32_le(0);
        out.extend_from_slice(&self.output);
    }
}
