//! Which object the server is folding or copying. That is on record outside the fold, in two words of the memory: if
//! the worker dies of it, the next worker knows which object it was, and how often that has happened.

use super::Log;
use crate::Memory;
use crate::layout::{DEATHS_AT, HANDLED_AT};

/// A word holds an object's id plus one in its lower bits; deaths are counted above them.
const ID_BITS: u32 = 56;
const ID_MASK: u64 = (1 << ID_BITS) - 1;

/// An object that the worker was at when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// Its id.
    pub object: u64,
    /// Deaths in a row while a worker was at it.
    pub deaths: u8,
}

/// The object that was being handled at the end of the process before.
pub(super) fn handled(memory: &dyn Memory) -> Option<u64> {
    (memory.load(HANDLED_AT) & ID_MASK).checked_sub(1)
}

/// The object that deaths are counted of.
pub(super) fn suspect(memory: &dyn Memory) -> Option<Suspect> {
    let word = memory.load(DEATHS_AT);
    Some(Suspect {
        object: (word & ID_MASK).checked_sub(1)?,
        deaths: (word >> ID_BITS) as u8,
    })
}

/// Nothing is handled, and no death counts.
pub(crate) fn clear(memory: &dyn Memory) {
    memory.store(HANDLED_AT, 0);
    memory.store(DEATHS_AT, 0);
}

impl Log {
    /// The object that is about to be folded or copied; `None`: that is done.
    pub fn handle(&self, object: Option<u64>) {
        let word = object.map_or(0, |object| (object + 1) & ID_MASK);
        self.memory.store(HANDLED_AT, word);
    }

    /// The process before this one died by its own fault. Counts that as a death of the object it was at, and names it.
    pub fn count_death(&self) -> Option<Suspect> {
        let object = handled(&*self.memory)?;
        let before = suspect(&*self.memory).filter(|suspect| suspect.object == object);
        let deaths = before.map_or(0, |suspect| suspect.deaths).saturating_add(1);
        let word = u64::from(deaths) << ID_BITS | ((object + 1) & ID_MASK);
        self.memory.store(DEATHS_AT, word);
        self.handle(None);
        Some(Suspect { object, deaths })
    }

    /// The object was copied, or has ended: its deaths count no more.
    pub fn acquit(&self, object: u64) {
        if suspect(&*self.memory).is_some_and(|suspect| suspect.object == object) {
            self.memory.store(DEATHS_AT, 0);
        }
    }
}
