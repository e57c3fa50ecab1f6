//! Computes the cost of a replay.

use super::Log;

/// The cost of a replay of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCost {
    /// The number of records from the tail to the head, all of which a replay reads.
    pub records: u64,
    /// The number of bytes from the tail to the head.
    pub bytes: u64,
    /// The number of deltas that a replay applies.
    pub deltas: u64,
}

impl Log {
    /// Returns the cost of a replay if the writer ended now.
    #[must_use]
    pub fn replay_cost(&self) -> ReplayCost {
        ReplayCost {
            records: self.ordinal - self.passed,
            bytes: self.position - self.last.tail,
            deltas: self.objects.deltas(),
        }
    }
}

#[cfg(test)]
mod tests;
