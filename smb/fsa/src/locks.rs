//! Byte-range locks: which ranges and which accesses exclude one another (MS-FSA 2.1.4.10, 2.1.5.8, 2.1.5.9).

use serde::{Deserialize, Serialize};

/// A byte-range lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// First byte.
    pub offset: u64,
    /// Length in bytes; 0 is a lock between two bytes.
    pub length: u64,
    /// Exclusive, else shared.
    pub exclusive: bool,
}

/// Do two ranges overlap? A range of no bytes lies between two bytes, and overlaps only what has bytes on both sides of
/// it.
fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    let end = |(offset, length): (u64, u64)| u128::from(offset) + u128::from(length);
    match (a.1, b.1) {
        (0, 0) => false,
        (0, _) => a.0 > b.0 && u128::from(a.0) < end(b),
        (_, 0) => b.0 > a.0 && u128::from(b.0) < end(a),
        _ => u128::from(a.0) < end(b) && u128::from(b.0) < end(a),
    }
}

/// Does `held` stand in the way of `wanted`? `own`: both are of the same open, which may share what it holds with
/// itself.
#[must_use]
pub fn excludes(held: &Lock, wanted: &Lock, own: bool) -> bool {
    if !overlap((held.offset, held.length), (wanted.offset, wanted.length)) {
        return false;
    }
    wanted.exclusive || (held.exclusive && !own)
}

/// Does `held` forbid reading the range?
#[must_use]
pub fn forbids_read(held: &Lock, offset: u64, length: u64, own: bool) -> bool {
    held.exclusive && !own && length > 0 && overlap((held.offset, held.length), (offset, length))
}

/// Does `held` forbid writing the range? A shared lock forbids it to its own holder, too.
#[must_use]
pub fn forbids_write(held: &Lock, offset: u64, length: u64, own: bool) -> bool {
    !(held.exclusive && own) && length > 0 && overlap((held.offset, held.length), (offset, length))
}

/// Can a lock have this range: does its last byte have an offset (MS-FSA 2.1.5.8)?
#[must_use]
pub fn is_range(offset: u64, length: u64) -> bool {
    length == 0 || offset.checked_add(length - 1).is_some()
}

#[cfg(test)]
mod tests;
