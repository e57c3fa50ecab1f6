//! Sequence numbers (RFC 9293, section 3.4): arithmetic modulo 2^32, comparison within half the space.

use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// A sequence number. Ordered within half the space, so not `Ord`: the relation is not transitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Seq(pub u32);

impl Seq {
    /// The later of the two.
    pub fn max(self, other: Seq) -> Seq {
        if other > self { other } else { self }
    }

    /// The earlier of the two.
    pub fn min(self, other: Seq) -> Seq {
        if other < self { other } else { self }
    }

    /// Bytes from `earlier` to here; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Seq) -> usize {
        (self - earlier).max(0) as usize
    }
}

impl Add<usize> for Seq {
    type Output = Seq;
    fn add(self, bytes: usize) -> Seq {
        Seq(self.0.wrapping_add(bytes as u32))
    }
}

impl AddAssign<usize> for Seq {
    fn add_assign(&mut self, bytes: usize) {
        *self = *self + bytes;
    }
}

impl Sub<usize> for Seq {
    type Output = Seq;
    fn sub(self, bytes: usize) -> Seq {
        Seq(self.0.wrapping_sub(bytes as u32))
    }
}

impl Sub for Seq {
    type Output = i32;
    fn sub(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

impl PartialOrd for Seq {
    fn partial_cmp(&self, other: &Seq) -> Option<Ordering> {
        (*self - *other).partial_cmp(&0)
    }
}

#[cfg(test)]
mod tests;
