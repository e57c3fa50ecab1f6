//! A disk with bad places, and one that fails for a while.
//!
//! *Bad places* are offsets and names: what touches one fails with its error, each time, and changes nothing. So the judge knows how such
//! a request is answered, wherever the server dies. Half of them are found before the intent is on record, the others after it.
//!
//! A disk that *fails for a while* does so when the server does again what a power cut took: it then refuses to start, visibly, and is
//! started again.

use outlast_fsa::fileop::{FileOp, WriteAt};
use outlast_fsa::status::NtStatus;

use crate::random::Random;
use crate::status;

/// EIO, ENOSPC, EDQUOT, EMFILE, ESTALE, and a name service that fails.
pub const STATUSES: [u32; 6] = [
    status::IO_DEVICE_ERROR,
    status::DISK_FULL,
    status::QUOTA_EXCEEDED,
    status::TOO_MANY_OPENED_FILES,
    status::FILE_CLOSED,
    status::ACCESS_DENIED,
];

/// Where bad places begin; no file comes near it.
const FROM: u64 = 1 << 24;
/// From one to the next.
const STEP: u64 = 1 << 16;
/// What bad names begin with.
const NAME: &str = "bad";

/// A bad place, picked.
#[must_use]
pub fn offset(random: &mut Random) -> u64 {
    FROM + STEP * random.below(STATUSES.len() as u64)
}

/// A bad name, picked.
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

/// The error at an offset, if that is a bad place.
#[must_use]
pub fn at(offset: u64) -> Option<u32> {
    STATUSES.get(number_at(offset)?).copied()
}

/// The error of a name, if that is a bad one.
#[must_use]
pub fn of(path: &str) -> Option<u32> {
    STATUSES.get(number_of(path)?).copied()
}

/// What an operation meets. `before`: before its intent is on record.
///
/// # Errors
/// The place's.
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
