//! Parses requests into types, and encodes typed responses. It has no effects; the code that has effects cannot parse.
//!
//! Offsets in a request are relative to its SMB2 header and are checked against its component of the message. Payloads
//! are slices of the message (`Bytes`), never copies.

mod body;
pub mod change_notify;
pub mod close;
pub mod compound;
pub mod create;
pub mod dialect;
pub mod error;
pub mod flush;
pub mod frame;
pub mod header;
pub mod ioctl;
pub mod lock;
pub mod malformed;
pub mod negotiate;
pub mod oplock_break;
pub mod query_directory;
pub mod query_info;
pub mod read;
pub mod request;
pub mod response;
pub mod session_setup;
pub mod set_info;
pub mod smb1;
pub mod transform;
pub mod tree_connect;
pub mod utf16;
pub mod write;

#[cfg(test)]
mod tests;

pub use compound::{Component, Protocol};
pub use dialect::Dialect;
pub use header::{Command, Flags, Header, Route};
pub use malformed::Malformed;
pub use request::Request;
pub use response::Response;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

/// An SMB2_FILEID (MS-SMB2 2.2.14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// Persistent half: the id of the open.
    pub persistent: u64,
    /// Volatile half.
    pub volatile: u64,
}

impl FileId {
    /// All ones: in a related request the file of the preceding one (MS-SMB2 3.3.5.2.7.2); in some IOCTLs no file.
    pub const ANY: FileId = FileId {
        persistent: u64::MAX,
        volatile: u64::MAX,
    };

    /// Length on the wire in bytes.
    pub const LEN: usize = 16;

    /// Appends the 16 bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u64_le(self.persistent);
        out.put_u64_le(self.volatile);
    }

    /// Parses the first 16 bytes, for FSCTL inputs; `None` if there are fewer.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<FileId> {
        body::file_id(bytes).ok().map(|(_, id)| id)
    }
}

/// Appends zeros up to the next multiple of `alignment` bytes, counted from `start`.
pub fn pad(out: &mut Vec<u8>, start: usize, alignment: usize) {
    let len = out.len().saturating_sub(start);
    out.resize(start + len.next_multiple_of(alignment), 0);
}

/// Encodes a response whose body is only a buffer: StructureSize 9, offset (16 bits), length (32 bits), the buffer at
/// 72 (QUERY_DIRECTORY, QUERY_INFO, CHANGE_NOTIFY: MS-SMB2 2.2.34, 2.2.36, 2.2.38).
fn encode_buffer(data: &Bytes, out: &mut Vec<u8>) {
    out.put_u16_le(9);
    out.put_u16_le(if data.is_empty() { 0 } else { 72 });
    out.put_u32_le(data.len() as u32);
    out.extend_from_slice(data);
}
