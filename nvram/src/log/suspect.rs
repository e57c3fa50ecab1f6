//! Records the operation that the server is performing, outside the fold in two words of the memory. If the worker dies
//! during the operation, by any signal, the next worker knows which it was, and how often that has happened.

use super::Log;
use crate::Memory;
use crate::layout::{DEATHS_AT, HANDLED_AT};

/// Both words hold an object's id plus one in their lower bits. Above it, one word has the kind of operation; the other
/// has the number of deaths, then the kind of operation.
const ID_BITS: u32 = 56;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
const DEATHS_BITS: u32 = 4;
const DEATHS_MASK: u64 = (1 << DEATHS_BITS) - 1;

/// An operation that the worker is performing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handled {
    /// The object operated on.
    pub object: u64,
    /// The kind of operation: a number below 16, defined by the caller.
    pub what: u8,
}

impl Handled {
    fn word(self) -> u64 {
        u64::from(self.what) << ID_BITS | ((self.object + 1) & ID_MASK)
    }
}

/// The operation during which workers died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// The operation.
    pub handled: Handled,
    /// The number of successive deaths during it.
    pub deaths: u8,
}

/// The operation that was in progress when the process before this one ended.
pub(super) fn handled(memory: &dyn Memory) -> Option<Handled> {
    let word = memory.load(HANDLED_AT);
    Some(Handled {
        object: (word & ID_MASK).checked_sub(1)?,
        what: (word >> ID_BITS) as u8,
    })
}

/// The operation for which deaths are counted.
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

/// Clears both: no operation is in progress, and no deaths are counted.
pub(crate) fn clear(memory: &dyn Memory) {
    memory.store(HANDLED_AT, 0);
    memory.store(DEATHS_AT, 0);
}

impl Log {
    /// Records the operation that is about to start; `None` when it is finished.
    pub fn handle(&self, handled: Option<Handled>) {
        let word = handled.map_or(0, Handled::word);
        if self.memory.load(HANDLED_AT) != word {
            self.memory.store(HANDLED_AT, word);
        }
    }

    /// Returns, once, the operation during which the process before this one died.
    pub fn take_handled(&self) -> Option<Handled> {
        let handled = handled(&*self.memory);
        self.handle(None);
        handled
    }

    /// Counts a death during an operation, and returns the number of successive ones.
    pub fn count_death(&self, handled: Handled) -> u8 {
        let before = suspect(&*self.memory).filter(|suspect| suspect.handled == handled);
        let deaths = before.map_or(0, |suspect| suspect.deaths);
        let deaths = u64::from(deaths).saturating_add(1).min(DEATHS_MASK);
        let what = u64::from(handled.what);
        let word = (what << DEATHS_BITS | deaths) << ID_BITS | ((handled.object + 1) & ID_MASK);
        self.memory.store(DEATHS_AT, word);
        deaths as u8
    }

    /// Forgets the counted deaths if `is_done` says that the operation is finished or its object has ended.
    pub fn forget_deaths(&self, is_done: impl FnOnce(Handled) -> bool) {
        if suspect(&*self.memory).is_some_and(|suspect| is_done(suspect.handled)) {
            self.memory.store(DEATHS_AT, 0);
        }
    }
}
