//! Information levels: what QUERY_DIRECTORY, QUERY_INFO and SET_INFO carry (MS-FSCC 2.4 and 2.5).
//!
//! Encoders take what is known of a file and make the bytes; parsers take bytes and say what is to be set. Neither
//! acts.

pub mod access;
pub mod directory;
pub mod file;
pub mod set;
pub mod volume;

use crate::wire::utf16;
use outlast_fsa::status::NtStatus;

/// What a query of one information level gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The bytes, at most as many as the client has room for.
    pub bytes: Vec<u8>,
    /// Variable-length data was cut off: the status is STATUS_BUFFER_OVERFLOW.
    pub overflow: bool,
}

impl Answer {
    /// STATUS_SUCCESS, or STATUS_BUFFER_OVERFLOW where data was cut off.
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

    /// The same for a level without a variable part.
    fn fixed(bytes: Vec<u8>, limit: usize) -> Result<Answer, NtStatus> {
        let fixed = bytes.len();
        Answer::cut(bytes, fixed, limit)
    }
}

/// Length of a string in UTF-16LE as the length fields have it, in bytes.
fn utf16_len(text: &str) -> u32 {
    u32::try_from(utf16::len(text)).unwrap_or(u32::MAX)
}

/// A path beneath the share as clients write it: `\dir\file`; the root is `\`.
fn client_path(path: &str) -> String {
    format!("\\{}", path.replace('/', "\\"))
}
