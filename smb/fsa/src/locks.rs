//! Decides which byte-range locks and accesses conflict (MS-FSA 2.1.4.10, 2.1.5.8, 2.1.5.9).

use serde::{Deserialize, Serialize};

/// A byte-range lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// First byte.
    pub offset: u64,
    /// Length in bytes; a lock of length 0 lies between two bytes.
    pub length: u64,
    /// Exclusive, else shared.
    pub exclusive: bool,
}

/// Returns whether two ranges overlap. A range of length 0 lies between two bytes, and overlaps only a range with bytes
/// on both sides of it.
fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    let end = |(offset, length): (u64, u64)| u128::from(offset) + u128::from(length);
    match (a.1, b.1) {
        (0, 0) => false,
        (0, _) => a.0 > b.0 && u128::from(a.0) < end(b),
        (_, 0) => b.0 > a.0 && u128::from(b.0) < end(a),
        _ => u128::from(a.0) < end(b) && u128::from(b.0) < end(a),
    }
}

/// Returns whether `held` conflicts with `wanted`. `own`: both belong to the same open, which may lock a range shared
/// that it has locked exclusively.
#[must_use]
pub fn excludes(held: &Lock, wanted: &Lock, own: bool) -> bool {
    if !overlap((held.offset, held.length), (wanted.offset, wanted.length)) {
        return false;
    }
    wanted.exclusive || (held.exclusive && !own)
}

/// Returns whether `held` forbids a read of the range.
#[must_use]
pub fn forbids_read(held: &Lock, offset: u64, length: u64, own: bool) -> bool {
    held.exclusive && !own && length > 0 && overlap((held.offset, held.length), (offset, length))
}

/// Returns whether `held` forbids a write to the range. A shared lock forbids it even to the open that holds it.
#[must_use]
pub fn forbids_write(held: &Lock, offset: u64, length: u64, own: bool) -> bool {
    !(held.exclusive && own) && length > 0 && overlap((held.offset, held.length), (offset, length))
}

/// Returns whether a lock may have this range: its last byte must have an offset below 2^64 (MS-FSA 2.1.5.8).
#[must_use]
pub fn is_range(offset: u64, length: u64) -> bool {
    length == 0 || offset.checked_add(length - 1).is_some()
}

#[cfg(test)]
mod tests;
