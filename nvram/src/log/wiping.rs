//! Wipes what is given up: secrets in the meta of records (session keys) do not stay in the memory.

use super::Log;
use crate::layout::{HEAD_AT, RING_AT, TAIL_AT};
use crate::sink::Batch;
use crate::sink::wiping::{Meta, Metas, zeroes};

impl Log {
    /// Has the tail pass all that is committed now, by relocation, little by little: what ended objects and replaced
    /// snapshots held is wiped then, in the sink before it is wiped here.
    pub fn give_up(&mut self) {
        self.give_up_to = self.committed;
    }

    /// Whether there is still something to pass.
    pub fn is_giving_up(&self) -> bool {
        self.tail < self.give_up_to
    }

    /// Empties a log whose state nobody takes up: with [`crate::Flag::Clean`], after the last commit. No bytes over it
    /// are held.
    pub fn erase(&mut self) {
        self.tail = self.committed;
        self.memory.store(TAIL_AT, self.memory.load(HEAD_AT));
        self.zero(RING_AT, self.superblock.ring_len);
    }

    /// What makes a sink's ring as empty as the log's own, after [`Log::erase`].
    pub fn erased(&self) -> Batch {
        Batch {
            writes: zeroes(RING_AT, self.superblock.ring_len).collect(),
        }
    }

    /// Overwrites the meta of the records between two positions, which the tail has just passed: the stores come after
    /// that of the tail word, so that a recovery never meets them.
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
