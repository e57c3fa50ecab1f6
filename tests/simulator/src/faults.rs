//! Simulates a disk with bad places, and one that fails for a while.
//!
//! *Bad places* are offsets and names: each access to one fails with its error and changes nothing. So the judge knows
//! how such a request is answered, wherever the server crashes. Half of them fail before the intent is on record, the
//! others after it.
//!
//! A disk that *fails for a while* does so during the redo after a power cut: a call of the redo fails, at once or in
//! the middle of its changes. The server then refuses to start, and is started again.

use outlast_fsa::fileop::{FileOp, WriteAt};
use outlast_fsa::status::NtStatus;

use crate::random::Random;
use crate::status;

/// EIO, ENOSPC, EDQUOT, EMFILE, ESTALE, and the error of a name service that fails.
pub const STATUSES: [u32; 6] = [
    status::IO_DEVICE_ERROR,
    status::DISK_FULL,
    status::QUOTA_EXCEEDED,
    status::TOO_MANY_OPENED_FILES,
    status::FILE_CLOSED,
    status::ACCESS_DENIED,
];

/// The calls of a redo that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A file is opened again.
    Open,
    /// An operation is done once more; it may fail after some of its changes.
    Perform,
    /// The marker is set.
    Mark,
    /// The marker is read.
    ReadMarker,
}

/// The first bad offset; all files are shorter.
const FROM: u64 = 1 << 24;
/// The distance between bad offsets.
const STEP: u64 = 1 << 16;
/// The prefix of bad names.
const NAME: &str = "bad";

/// Picks a bad offset.
#[must_use]
pub fn offset(random: &mut Random) -> u64 {
    FROM + STEP * random.below(STATUSES.len() as u64)
}

/// Picks a bad name.
#[must_use]
pub fn name(random: &mut Random) -> String {
    format!("{NAME}{}", random.index(STATUSES.len()))
}

fn number_at(offset: u64) -> Option<usize> {
    usize::try_from(offset.checked_sub(FROM)? / STEP).ok()
}

fn number_of(path: &str) -> Option<usize> {
    let name = path.rsplit('/').next()?;
    name.strip_prefix(NAME)?.parse().ok()
}

/// Returns the error at an offset, if that is a bad one.
#[must_use]
pub fn at(offset: u64) -> Option<u32> {
    STATUSES.get(number_at(offset)?).copied()
}

/// Returns the error of a name, if that is a bad one.
#[must_use]
pub fn of(path: &str) -> Option<u32> {
    STATUSES.get(number_of(path)?).copied()
}

/// Checks whether an operation uses a bad place. `before`: its intent is not on record yet.
///
/// # Errors
/// The error of the place.
pub fn meet(op: &FileOp, before: bool) -> Result<(), NtStatus> {
    let number = match op {
        FileOp::Create(create) => number_of(&create.path),
        FileOp::Write {
            at: WriteAt::Offset(offset),
            ..
        }
        | FileOp::Read { offset, .. } => number_at(*offset),
        FileOp::SetEndOfFile { end_of_file, .. } => number_at(*end_of_file),
        _ => None,
    };
    let found = number.filter(|number| number.is_multiple_of(2) == before);
    match found.and_then(|number| STATUSES.get(number)) {
        Some(status) => Err(NtStatus(*status)),
        None => Ok(()),
    }
}
