//! Parses LOCK requests (MS-SMB2 2.2.26).

use nom::Parser;
use nom::multi::count;
use nom::number::complete::{le_u16, le_u32, le_u64};
use serde::{Deserialize, Serialize};

use super::body::{Parsed, fields, file_id, fixed};
use super::{Component, FileId, Malformed};

/// SMB2_LOCKFLAG_* (2.2.26.1).
#[allow(missing_docs)]
pub mod flags {
    pub const SHARED_LOCK: u32 = 0x0000_0001;
    pub const EXCLUSIVE_LOCK: u32 = 0x0000_0002;
    pub const UNLOCK: u32 = 0x0000_0004;
    pub const FAIL_IMMEDIATELY: u32 = 0x0000_0010;
}

/// SMB2_LOCK_ELEMENT (2.2.26.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Bits of [`flags`].
    pub flags: u32,
}

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// LockSequenceNumber (4 bits): the use of the bucket.
    pub lock_sequence_number: u8,
    /// LockSequenceIndex (28 bits): the bucket, 1 to 64; 0: none.
    pub lock_sequence_index: u32,
    /// FileId.
    pub file_id: FileId,
    /// Locks, at least one.
    pub locks: Vec<Element>,
}

impl Request {
    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let body = fixed(component, 48)?;
        let (lock_count, lock_sequence, file_id) = fields(body, (le_u16, le_u32, file_id))?;
        // 3.3.5.14: LockCount 0 is an invalid parameter.
        if lock_count == 0 {
            return Err(Malformed::LockCount(lock_count));
        }
        let elements = body.get(22..).ok_or(Malformed::Truncated)?;
        if elements.len() < usize::from(lock_count) * 24 {
            return Err(Malformed::LockCount(lock_count));
        }
        Ok(Request {
            lock_sequence_number: (lock_sequence & 0xF) as u8,
            lock_sequence_index: lock_sequence >> 4,
            file_id,
            locks: fields(elements, count(element, lock_count.into()))?,
        })
    }
}

fn element(input: &[u8]) -> Parsed<'_, Element> {
    let (rest, (offset, length, flags, _reserved)) =
        (le_u64, le_u64, le_u32, le_u32).parse(input)?;
    Ok((
        rest,
        Element {
            offset,
            length,
            flags,
        },
    ))
}
