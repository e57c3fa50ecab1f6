//! Encodes and parses the information classes of QUERY_DIRECTORY, QUERY_INFO and SET_INFO (MS-FSCC 2.4 and 2.5).
//!
//! Encoders turn metadata into bytes; parsers turn bytes into the values to set. Neither has effects.

pub mod access;
pub mod directory;
pub mod ea;
pub mod file;
pub mod set;
pub mod streams;
pub mod volume;

use crate::wire::{pad, utf16};
use outlast_fsa::status::NtStatus;

/// The result of a query of one information class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The bytes, at most as many as fit the client's buffer.
    pub bytes: Vec<u8>,
    /// Variable-length data was cut off: the status is STATUS_BUFFER_OVERFLOW.
    pub overflow: bool,
}

impl Answer {
    /// Returns STATUS_SUCCESS, or STATUS_BUFFER_OVERFLOW if data was cut off.
    #[must_use]
    pub fn status(&self) -> NtStatus {
        if self.overflow {
            NtStatus::BUFFER_OVERFLOW
        } else {
            NtStatus::SUCCESS
        }
    }

    /// Cuts `bytes` to `limit`. A limit below `fixed`, the length of the level's fixed part, is INFO_LENGTH_MISMATCH
    /// (MS-SMB2 3.3.5.20.1, 3.3.5.20.2).
    fn cut(mut bytes: Vec<u8>, fixed: usize, limit: usize) -> Result<Answer, NtStatus> {
        if limit < fixed {
            return Err(NtStatus::INFO_LENGTH_MISMATCH);
        }
        let overflow = bytes.len() > limit;
        bytes.truncate(limit);
        Ok(Answer { bytes, overflow })
    }

    /// Makes the answer of an information class without a variable part.
    fn fixed(bytes: Vec<u8>, limit: usize) -> Result<Answer, NtStatus> {
        let fixed = bytes.len();
        Answer::cut(bytes, fixed, limit)
    }
}

/// Returns the length of a string in UTF-16LE, in bytes, for a length field.
fn utf16_len(text: &str) -> u32 {
    u32::try_from(utf16::len(text)).unwrap_or(u32::MAX)
}

/// Returns a path within the share in the clients' notation: `\dir\file`; the root is `\`.
fn client_path(path: &str) -> String {
    format!("\\{}", path.replace('/', "\\"))
}

/// Begins an entry of a list at a multiple of `alignment`. The entry before it, at `last`, gets its NextEntryOffset,
/// and `last` becomes the new entry's place.
fn begin_entry(bytes: &mut Vec<u8>, last: &mut Option<usize>, alignment: usize) {
    pad(bytes, 0, alignment);
    let start = bytes.len();
    if let Some(last) = last.replace(start) {
        // The offset is within the buffer, whose length is a u32 on the wire.
        let next = u32::try_from(start - last).unwrap_or(0).to_le_bytes();
        if let Some(field) = bytes.get_mut(last..last + 4) {
            field.copy_from_slice(&next);
        }
    }
}
