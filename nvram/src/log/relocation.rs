//! Chooses the object to relocate, so that the tail can move, or the next replay is short.

use super::Log;

/// The part of a ring, but at most [`SUPERSEDED_BYTES`], that superseded records may take before live ones are copied
/// for that reason alone.
pub(super) const SUPERSEDED_PART: u64 = 8;
/// Bytes of superseded records that a replay may have to walk over: they are verified, at some 10 GB/s.
const SUPERSEDED_BYTES: u64 = 32 << 20;
/// The number of superseded records before live ones are copied for that reason alone: a replay takes some 50 ns for
/// each.
const SUPERSEDED_RECORDS: u64 = 16 << 10;
/// The number of deltas to replay before an object is copied for that reason alone: they take 10 ms at most.
const DELTAS: u64 = 4 << 10;
/// The factor by which all of this is less before a planned end: copying is part of the end then, and is done once.
const RENEWAL: u64 = 16;

/// An object to relocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Its id.
    pub object: u64,
    /// Whether room is needed; otherwise relocation only makes the next replay shorter.
    pub for_room: bool,
}

impl Log {
    /// Returns the object to relocate: to write again at the head, as a snapshot of one record or several, then its
    /// queued bytes.
    ///
    /// It is the object whose base holds the tail, while less than half of the ring is free, or less than `room` bytes
    /// are free in one piece, or less than `free` in all; also when superseded records are more than twice as many as
    /// live ones, so that a replay would walk over many. Otherwise it is an object with more deltas than state, when
    /// there are many deltas in all, so that a replay would apply many.
    ///
    /// `None` also if relocation would not help: it has been done and not committed, or bytes that no live object needs
    /// hold the tail (a worker's, an outgoing frame's), or few records in the ring are superseded.
    pub fn wants_relocation(&mut self, room: u64, free: u64) -> Option<Relocation> {
        let used = self.used();
        let is_short =
            used > self.superblock.ring_len / 2 || self.room() < room || self.free() < free;
        // Without a gain of a quarter of the used space, or a good part of the ring, copying would never end.
        let gain = used.saturating_sub(self.live());
        let for_room = is_short && gain >= (used / 4).min(self.superblock.ring_len / 16);
        if for_room && let Some(object) = self.object_at_tail() {
            return Some(Relocation { object, for_room });
        }
        let object = self
            .makes_replay_long(1)
            .or_else(|| self.is_wiping().then(|| self.object_at_tail()).flatten())?;
        let for_room = false;
        Some(Relocation { object, for_room })
    }

    /// Returns the object to relocate before a planned end, so that the next replay has next to nothing to do.
    pub fn wants_renewal(&mut self) -> Option<u64> {
        self.makes_replay_long(RENEWAL)
    }

    /// Returns the object that makes a replay long; `part` divides the thresholds of normal operation.
    fn makes_replay_long(&mut self, part: u64) -> Option<u64> {
        if self.objects.deltas() > DELTAS / part
            && let Some(object) = self.objects.busiest()
        {
            return Some(object);
        }
        self.has_many_superseded(part)
            .then(|| self.object_at_tail())
            .flatten()
    }

    /// Returns whether the superseded records that a replay would walk over exceed the live ones, and also this part of
    /// the threshold. Live records are copied to save that.
    fn has_many_superseded(&self, part: u64) -> bool {
        let live = self.live();
        let floor = SUPERSEDED_BYTES.min(self.superblock.ring_len / SUPERSEDED_PART) / part;
        let superseded = (self.position - self.last.tail).saturating_sub(live);
        let live_records = self.objects.snapshot_records() + self.held.records();
        let superseded_records = (self.ordinal - self.passed).saturating_sub(live_records);
        superseded > floor.max(2 * live)
            || superseded_records > (SUPERSEDED_RECORDS / part).max(live_records)
    }

    /// Returns the object that has to be relocated for the tail to move.
    fn object_at_tail(&self) -> Option<u64> {
        let base = self.objects.first_base()?;
        // An object's live records lie behind its base. Where the sink holds the tail, waiting helps.
        if self.held.any_before(base.position) || self.last.tail > self.tail {
            return None;
        }
        self.objects.at_the_tail()
    }
}
