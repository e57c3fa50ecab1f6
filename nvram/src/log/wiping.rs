//! Wipes superseded records, so that secrets in their meta (session keys) do not stay in the memory.

use super::Log;
use crate::layout::{HEAD_AT, RING_AT, TAIL_AT};
use crate::sink::Batch;
use crate::sink::wiping::{Meta, Metas, zeroes};

impl Log {
    /// Starts moving the tail past everything committed now, by relocation in small steps. The records of ended objects
    /// and replaced snapshots are wiped then, first in the sink and then here.
    pub fn start_wiping(&mut self) {
        self.wipe_to = self.committed;
    }

    /// Returns whether the tail has still to move.
    pub fn is_wiping(&self) -> bool {
        self.tail < self.wipe_to
    }

    /// Empties a log whose state will not be recovered: with [`crate::Flag::Clean`], after the last commit. No bytes
    /// over it are held.
    pub fn erase(&mut self) {
        self.tail = self.committed;
        self.memory.store(TAIL_AT, self.memory.load(HEAD_AT));
        self.zero(RING_AT, self.superblock.ring_len);
    }

    /// The writes that make a sink's ring as empty as the log's own, after [`Log::erase`].
    pub fn erased(&self) -> Batch {
        Batch {
            writes: zeroes(RING_AT, self.superblock.ring_len).collect(),
        }
    }

    /// Overwrites the meta of the records between two positions that the tail has just passed. The stores follow that
    /// of the tail word, so that a recovery never sees them.
    pub(super) fn wipe(&self, from: u64, to: u64) {
        let records = Metas {
            memory: &*self.memory,
            ring_len: self.superblock.ring_len,
            position: from,
            to,
        };
        for Meta { at, len, .. } in records {
            self.zero(at, len);
        }
    }

    fn zero(&self, at: u64, len: u64) {
        for (at, zeroes) in zeroes(at, len) {
            self.memory.write(at, &zeroes);
        }
    }
}
