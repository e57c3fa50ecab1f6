//! Computes the room for appends: the free part of the ring, less what relocation may need.
//!
//! Relocation copies the object at the tail, and then the next one. The tail moves far only when all objects whose
//! bases lie together have been copied, and where a sink holds it, only after the medium has the copies. These copies
//! are a *round*: it began at a position, and moves the tail to there. While it is in progress, the room for others
//! must not shrink by each copy: a copy takes room of the ring, but it need not be made a second time before the tail
//! has reached the end of the round.

use super::Log;
use crate::layout::{ALIGN, HEADER_LEN};

impl Log {
    /// The number of bytes of meta and data that the next append may have, however they are split; it includes the
    /// reserve only if that is in use.
    pub fn room(&self) -> u64 {
        let free = self.free();
        let to_end = self.to_end();
        // In one piece: before the end of the ring, or after it.
        let piece = free.min(to_end).max(free.saturating_sub(to_end));
        (piece / ALIGN * ALIGN)
            .saturating_sub(HEADER_LEN as u64)
            .min(self.max_record())
    }

    /// Sets whether appends may use the reserve: relocation, points 3 and 4, close.
    pub fn use_reserve(&mut self, yes: bool) {
        self.reserve_in_use = yes;
    }

    /// Sets the reserve in bytes. The default is an eighth of the ring, the most is half of it. Space for relocation is
    /// kept besides.
    pub fn set_reserve(&mut self, bytes: u64) {
        self.reserve = bytes.min(self.superblock.ring_len / 2);
    }

    /// Bytes that an append may take now, with the header. Bytes that are held as well take as much again, for their
    /// relocation.
    pub fn free(&self) -> u64 {
        let kept = if self.reserve_in_use {
            0
        } else {
            self.reserve + self.relocation_need()
        };
        (self.superblock.ring_len - self.used()).saturating_sub(kept)
    }

    /// Bytes that all objects take when they are relocated: their snapshots, about, and the held data.
    pub(super) fn live(&self) -> u64 {
        self.objects.snapshots_len() + self.held.len()
    }

    /// Bytes that relocation may need: for what lies before the end of the present round, and then for another round,
    /// which copies everything that is live, less the space that the present one frees.
    fn relocation_need(&self) -> u64 {
        let before = self.objects.before_len() + self.held.before_len();
        self.need_of_round(before, self.round_end)
    }

    /// As [`Log::relocation_need`], for a round that ends there, when `before` live bytes lie before its end.
    fn need_of_round(&self, before: u64, end: u64) -> u64 {
        let (live, freed) = (self.live(), end.saturating_sub(self.tail));
        // Between two rounds: everything live.
        (before + live.saturating_sub(freed)).min(live)
    }

    /// Begins a round with the record that is appended next, unless one is in progress.
    pub(super) fn begin_round(&mut self) {
        if self.round_end <= self.tail {
            self.end_round_at(self.position);
        }
    }

    /// Continues the round that was in progress when the log was opened: of all places where it may have begun, takes
    /// the one that leaves most room, and the last of these. To be called when a recovery has appended its own records.
    pub fn continue_round(&mut self) {
        let mut live: Vec<(u64, u64)> = self.objects.bases().chain(self.held.places()).collect();
        live.sort_unstable();
        let mut before = 0;
        let mut best = (u64::MAX, self.position);
        for (position, len) in live.into_iter().chain([(self.position, 0)]) {
            let need = self.need_of_round(before, position);
            if need <= best.0 {
                best = (need, position);
            }
            before += len;
        }
        self.end_round_at(best.1);
    }

    fn end_round_at(&mut self, position: u64) {
        self.round_end = position;
        self.objects.divide(position);
        self.held.divide(position);
    }

    /// Bytes from the next record to the end of the ring.
    pub(super) fn to_end(&self) -> u64 {
        self.superblock.ring_len - self.position % self.superblock.ring_len
    }
}
