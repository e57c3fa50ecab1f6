//! Digests of the durable state, by which the standby worker checks that it has the state of the serving one (law 2).
//! Both digest the same few objects, as they are at the same position of the log.
//!
//! A digest covers what a snapshot would contain ([`super::copying`]): for a connection its SMB state, piece by piece,
//! its TCP state, and the number of queued bytes. It covers about [`BYTES`], and the next digest continues there.
//! Effects on files under durability `power` are not part of it.

use std::fmt;
use std::time::Duration;

use outlast_nvram::codec;
use outlast_smb::Smb;
use outlast_smb::copying::Cursor;
use outlast_stack::Stack;
use serde::{Deserialize, Serialize};

use super::files::FileSystem;
use super::machine::Machine;
use super::record::{GLOBAL, Global};

/// The approximate number of bytes that a digest covers: a fraction of a millisecond's work.
const BYTES: u64 = 64 << 10;
/// The time between two marks.
const PACE: Duration = Duration::from_secs(1);

/// The beginning of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The first object.
    pub object: u64,
    /// How much of its SMB state is left out.
    pub cursor: Cursor,
}

/// A digest of the serving worker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The beginning of the digest.
    pub from: Place,
    /// The end of a commit: the position of the log at which the state is digested.
    pub position: u64,
    /// The digest.
    pub digest: u64,
}

/// A state that can be digested.
#[derive(Clone, Copy)]
pub(super) struct State<'a> {
    pub stack: &'a Stack,
    pub smb: &'a Smb,
    pub global: &'a Global,
}

impl Place {
    /// The beginning of everything.
    pub const START: Place = Place::of(GLOBAL);

    const fn of(object: u64) -> Place {
        Place {
            object,
            cursor: Cursor::Work,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cursor {
            Cursor::Work => write!(f, "object {} and what comes after it", self.object),
            cursor => write!(f, "object {} from {cursor:?} on", self.object),
        }
    }
}

impl State<'_> {
    /// Returns the digest that begins there, and where the next one begins; `None`: the end is reached.
    pub fn digest(self, from: Place) -> (u64, Option<Place>) {
        let mut digest = Digest::default();
        let mut place = self.at_or_after(from);
        while let Some(at) = place
            && digest.len < BYTES
        {
            place = self.add(at, &mut digest);
        }
        // States that end at different places are different.
        digest.add(&place);
        (digest.value(), place)
    }

    /// The place, or the next one if its object does not exist.
    fn at_or_after(self, place: Place) -> Option<Place> {
        match self.next(place.object) {
            Some(object) if object == place.object => Some(place),
            next => next.map(Place::of),
        }
    }

    /// The first object from this one on.
    fn next(self, from: u64) -> Option<u64> {
        if from == GLOBAL {
            return Some(GLOBAL);
        }
        let next = [self.stack.next_from(from), self.smb.next_from(from)];
        next.into_iter().flatten().min()
    }

    /// Digests a part of an object, or all of it. Returns the place after it.
    fn add(self, at: Place, digest: &mut Digest) -> Option<Place> {
        let Place { object, mut cursor } = at;
        if object == GLOBAL {
            digest.add(self.global);
            return self.next(GLOBAL + 1).map(Place::of);
        }
        digest.add(&object);
        if cursor == Cursor::Work {
            digest.add(&self.stack.checkpoint(object));
            digest.add(&[
                self.stack.received_len(object) as u64,
                self.stack.send_queued(object) as u64,
            ]);
            digest.add(&self.smb.copy_begin(object));
        }
        loop {
            let Some(piece) = self.smb.copy_next(object, &mut cursor) else {
                return self.next(object.checked_add(1)?).map(Place::of);
            };
            digest.add(&piece);
            if digest.len >= BYTES {
                return Some(Place { object, cursor });
            }
        }
    }
}

/// Checksum and length of everything that was added.
#[derive(Default)]
struct Digest {
    checksum: u32,
    len: u64,
    encoded: Vec<u8>,
}

impl Digest {
    fn add(&mut self, value: &impl Serialize) {
        self.encoded.clear();
        codec::encode(value, &mut self.encoded);
        self.checksum = crc32c::crc32c_append(self.checksum, &self.encoded);
        self.len += self.encoded.len() as u64;
    }

    fn value(&self) -> u64 {
        self.len << 32 | u64::from(self.checksum)
    }
}

/// When and where the next mark is made.
#[derive(Debug)]
pub(super) struct Marks {
    next: Place,
    due: Duration,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks {
            next: Place::START,
            due: Duration::ZERO,
        }
    }
}

impl Marks {
    /// Returns whether a mark is due.
    pub fn are_due(&mut self, now: Duration) -> bool {
        let are_due = self.due <= now;
        if are_due {
            self.due = now + PACE;
        }
        are_due
    }

    /// Makes the next mark of a machine; in time the marks cover all of its state.
    pub fn make<F: FileSystem>(&mut self, machine: &Machine<F>) -> Mark {
        let (mark, next) = machine.mark(self.next);
        self.next = next.unwrap_or(Place::START);
        mark
    }
}

impl<F: FileSystem> Machine<F> {
    /// Makes a mark of the state from a place on, between two turns, and returns the place where the next one begins,
    /// if there is more.
    #[must_use]
    pub fn mark(&self, from: Place) -> (Mark, Option<Place>) {
        let state = State {
            stack: &self.stack,
            smb: &self.smb,
            global: self.journal.global(),
        };
        let (digest, next) = state.digest(from);
        let position = self.journal.committed().0;
        let mark = Mark {
            from,
            position,
            digest,
        };
        (mark, next)
    }
}

#[cfg(test)]
mod tests;
