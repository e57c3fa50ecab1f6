//! Which object is to be written again at the head, so that the tail moves on, or that the next replay is short.

use super::Log;

/// Of a ring this part, but [`GIVEN_UP_BYTES`] at most, may be given up before it is copied for that alone.
pub(super) const GIVEN_UP_PART: u64 = 8;
/// What a walk over bytes that were given up may take: they are verified, at some 10 GB/s.
const GIVEN_UP_BYTES: u64 = 32 << 20;
/// Records that may be given up before anything is copied for that alone: a walk takes some 50 ns for each.
const GIVEN_UP_RECORDS: u64 = 16 << 10;
/// Deltas that may have to be replayed before an object is copied for that alone: they take 10 ms at most.
const DELTAS: u64 = 4 << 10;
/// Before a planned end all of this is so many times less: copying then is a part of the end, and is done once.
const RENEWAL: u64 = 16;

/// An object that is to be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Which.
    pub object: u64,
    /// There is need of room; else it only makes the next replay shorter.
    pub for_room: bool,
}

impl Log {
    /// The object to write again at the head: a snapshot, of one record or of several, then its queued bytes.
    ///
    /// For one it is that whose base holds the tail back: while less than half of the ring is free, or less than
    /// `room` bytes are in one piece, or less than `free` in all; and when what was given up is more than twice what
    /// is live, so that a replay has much to walk over. For another it is one with more deltas than state, when there
    /// are many deltas in all, so that a replay has much to apply.
    ///
    /// `None` also if that would not help: it has been done and not been committed, or bytes that no live object counts on hold the tail
    /// (a worker's, an outgoing frame's), or little in the ring has been given up.
    pub fn wants_relocation(&mut self, room: u64, free: u64) -> Option<Relocation> {
        let used = self.used();
        let is_short =
            used > self.superblock.ring_len / 2 || self.room() < room || self.free() < free;
        // Unless a quarter of the space in use came free, or a good part of the ring, it would be endless copying for nothing.
        let gain = used.saturating_sub(self.live());
        let for_room = is_short && gain >= (used / 4).min(self.superblock.ring_len / 16);
        if for_room && let Some(object) = self.holds_the_tail() {
            return Some(Relocation { object, for_room });
        }
        let object = self
            .makes_replay_long(1)
            .or_else(|| self.is_giving_up().then(|| self.holds_the_tail()).flatten())?;
        let for_room = false;
        Some(Relocation { object, for_room })
    }

    /// The same before a planned end: the object to write again so that the next replay has next to nothing to do.
    pub fn wants_renewal(&mut self) -> Option<u64> {
        self.makes_replay_long(RENEWAL)
    }

    /// The object that makes a replay long, `part` times as soon as it is worth the while in operation.
    fn makes_replay_long(&mut self, part: u64) -> Option<u64> {
        if self.objects.deltas() > DELTAS / part
            && let Some(object) = self.objects.busiest()
        {
            return Some(object);
        }
        self.has_given_up_much(part)
            .then(|| self.holds_the_tail())
            .flatten()
    }

    /// Is what a replay would walk over for nothing more than what it is for, and more than the floor, of which this is
    /// the part? What is alive is copied to save that.
    fn has_given_up_much(&self, part: u64) -> bool {
        let live = self.live();
        let floor = GIVEN_UP_BYTES.min(self.superblock.ring_len / GIVEN_UP_PART) / part;
        let given_up = (self.position - self.last.tail).saturating_sub(live);
        let live_records = self.objects.snapshot_records() + self.held.records();
        let records_given_up = (self.ordinal - self.passed).saturating_sub(live_records);
        given_up > floor.max(2 * live)
            || records_given_up > (GIVEN_UP_RECORDS / part).max(live_records)
    }

    /// The object whose being written again lets the tail move on.
    fn holds_the_tail(&self) -> Option<u64> {
        let base = self.objects.first_base()?;
        // What an object counts on lies behind its base. And where it is the sink that holds the tail, waiting helps.
        if self.held.any_before(base.position) || self.last.tail > self.tail {
            return None;
        }
        self.objects.at_the_tail()
    }
}
