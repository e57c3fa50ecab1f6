//! Encodes the ERROR response (MS-SMB2 2.2.2).

use bytes::{BufMut, Bytes};

/// An error response. The default one has no data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// ErrorData: for STATUS_BUFFER_TOO_SMALL the required length (32 bits), for STATUS_STOPPED_ON_SYMLINK the symbolic
    /// link.
    pub data: Bytes,
    /// The data are in an error context (SMB2_ERROR_ID_DEFAULT), as dialect 3.1.1 requires (2.2.2.1).
    pub in_context: bool,
}

impl Response {
    /// Appends the body.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let in_context = self.in_context && !self.data.is_empty();
        out.put_u16_le(9);
        out.put_u8(u8::from(in_context));
        out.put_u8(0);
        if self.data.is_empty() {
            out.put_u32_le(0);
            // 2.2.2, ErrorData: one byte even if ByteCount is zero.
            out.put_u8(0);
        } else if in_context {
            out.put_u32_le(self.data.len() as u32 + 8);
            out.put_u32_le(self.data.len() as u32);
            out.put_u32_le(0);
            out.extend_from_slice(&self.data);
        } else {
            out.put_u32_le(self.data.len() as u32);
            out.extend_from_slice(&self.data);
        }
    }
}
