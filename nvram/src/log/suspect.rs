//! What the server is at. That is on record outside the fold, in two words of the memory: if the worker dies of it, by
//! whatever signal, the next worker knows what it was, and how often that has happened.

use super::Log;
use crate::Memory;
use crate::layout::{DEATHS_AT, HANDLED_AT};

/// A word holds an object's id plus one in its lower bits. Above them one word has what is done to the object, the
/// other the deaths, and what was done above these.
const ID_BITS: u32 = 56;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
const DEATHS_BITS: u32 = 4;
const DEATHS_MASK: u64 = (1 << DEATHS_BITS) - 1;

/// Something that the worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handled {
    /// Whose object.
    pub object: u64,
    /// What is done to it: a number below 16, the caller's own.
    pub what: u8,
}

impl Handled {
    fn word(self) -> u64 {
        u64::from(self.what) << ID_BITS | ((self.object + 1) & ID_MASK)
    }
}

/// What workers were at when they died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// Of which object, and what was done to it.
    pub handled: Handled,
    /// Deaths in a row while a worker was at it.
    pub deaths: u8,
}

/// What was being done at the end of the process before.
pub(super) fn handled(memory: &dyn Memory) -> Option<Handled> {
    let word = memory.load(HANDLED_AT);
    Some(Handled {
        object: (word & ID_MASK).checked_sub(1)?,
        what: (word >> ID_BITS) as u8,
    })
}

/// What deaths are counted of.
pub(super) fn suspect(memory: &dyn Memory) -> Option<Suspect> {
    let word = memory.load(DEATHS_AT);
    let object = (word & ID_MASK).checked_sub(1)?;
    let above = word >> ID_BITS;
    Some(Suspect {
        handled: Handled {
            object,
            what: (above >> DEATHS_BITS) as u8,
        },
        deaths: (above & DEATHS_MASK) as u8,
    })
}

/// Nothing is handled, and no death counts.
pub(crate) fn clear(memory: &dyn Memory) {
    memory.store(HANDLED_AT, 0);
    memory.store(DEATHS_AT, 0);
}

impl Log {
    /// What is about to be done; `None`: that is done.
    pub fn handle(&self, handled: Option<Handled>) {
        let word = handled.map_or(0, Handled::word);
        if self.memory.load(HANDLED_AT) != word {
            self.memory.store(HANDLED_AT, word);
        }
    }

    /// What the process before this one was at when it died. Told once.
    pub fn take_handled(&self) -> Option<Handled> {
        let handled = handled(&*self.memory);
        self.handle(None);
        handled
    }

    /// Counts a death of what a process was at. Gives all of them in a row.
    pub fn count_death(&self, handled: Handled) -> u8 {
        let before = suspect(&*self.memory).filter(|suspect| suspect.handled == handled);
        let deaths = before.map_or(0, |suspect| suspect.deaths);
        let deaths = u64::from(deaths).saturating_add(1).min(DEATHS_MASK);
        let what = u64::from(handled.what);
        let word = (what << DEATHS_BITS | deaths) << ID_BITS | ((handled.object + 1) & ID_MASK);
        self.memory.store(DEATHS_AT, word);
        deaths as u8
    }

    /// What those say of that deaths are counted of is done, or its object has ended: its deaths count no more.
    pub fn acquit(&self, is_done: impl FnOnce(Handled) -> bool) {
        if suspect(&*self.memory).is_some_and(|suspect| is_done(suspect.handled)) {
            self.memory.store(DEATHS_AT, 0);
        }
    }
}
