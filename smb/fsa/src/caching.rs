//! What a client may cache, by an oplock of one open or by a lease of several (MS-FSA 2.1.5.18, MS-SMB2 3.3.1.12), and
//! which operations of others end it.

use serde::{Deserialize, Serialize};

/// A set of READ, HANDLE and WRITE caching.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Caching(u8);

impl Caching {
    /// Nothing.
    pub const NONE: Caching = Caching(0);
    /// SMB2_LEASE_READ_CACHING (MS-SMB2 2.2.13.2.8).
    pub const READ: Caching = Caching(1);
    /// SMB2_LEASE_HANDLE_CACHING.
    pub const HANDLE: Caching = Caching(2);
    /// SMB2_LEASE_WRITE_CACHING.
    pub const WRITE: Caching = Caching(4);
    /// READ and HANDLE.
    pub const READ_HANDLE: Caching = Caching(3);
    /// READ and WRITE.
    pub const READ_WRITE: Caching = Caching(5);
    /// All of it.
    pub const ALL: Caching = Caching(7);

    /// From LeaseState. Bits that mean nothing are left out.
    #[must_use]
    pub fn from_bits(bits: u32) -> Caching {
        Caching(bits as u8 & Caching::ALL.0)
    }

    /// As LeaseState.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.into()
    }

    /// Is anything of `other` in it?
    #[must_use]
    pub fn has(self, other: Caching) -> bool {
        self.0 & other.0 != 0
    }

    /// Is all of it in `other`?
    #[must_use]
    pub fn is_within(self, other: Caching) -> bool {
        self.0 & !other.0 == 0
    }

    /// It without `other`.
    #[must_use]
    pub fn without(self, other: Caching) -> Caching {
        Caching(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Caching) -> Caching {
        Caching(self.0 & other.0)
    }

    /// What is in one of them.
    #[must_use]
    pub fn or(self, other: Caching) -> Caching {
        Caching(self.0 | other.0)
    }

    /// A state that can be granted (MS-FSA 2.1.5.18.1, .2): all others are none.
    #[must_use]
    fn valid(self) -> Caching {
        match self.has(Caching::READ) {
            true => self,
            false => Caching::NONE,
        }
    }
}

/// Which of the two a client caches by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An oplock: it is broken to READ or to nothing.
    Oplock,
    /// A lease.
    Lease,
}

/// A CREATE that meets what others cache.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// It cannot be beside another open of the file, as long as that is there.
    pub violates_sharing: bool,
    /// It replaces what the file contains.
    pub overwrites: bool,
    /// It has waited for a break already.
    pub has_waited: bool,
}

impl Opening {
    /// What must have been given up before the file is opened: the handles that a client keeps open though its program
    /// has closed them, if they are in the way; else what it has not written yet (MS-FSA 2.1.4.12).
    fn waits_for(self) -> Caching {
        match self.violates_sharing {
            true => Caching::HANDLE,
            false => Caching::WRITE,
        }
    }

    /// What a holder of `held` has to break to; `None`: it keeps that.
    #[must_use]
    pub fn breaks(self, held: Caching, kind: Kind) -> Option<Caching> {
        let mut to = held.without(self.waits_for());
        if self.overwrites && (!self.violates_sharing || to != held) {
            // Old data are worth nothing afterwards.
            to = Caching::NONE;
        }
        if to == held {
            return None;
        }
        Some(match kind {
            Kind::Oplock => to.and(Caching::READ),
            Kind::Lease => to,
        })
    }

    /// Does it wait for a holder of `held`? `breaking`: the break of a lease is not acknowledged yet.
    #[must_use]
    pub fn waits(self, held: Caching, breaking: bool) -> bool {
        let to_break = self.breaks(held, Kind::Lease).is_some();
        to_break && held.has(self.waits_for()) || breaking && (!to_break || self.has_waited)
    }
}

/// The other opens of a file that is opened: those of the same lease are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// There is one that does more than look at attributes, or that caches anything.
    pub any: bool,
    /// One of them has an oplock.
    pub oplock: bool,
    /// One of their leases caches handles.
    pub handle_lease: bool,
    /// One of them caches writes.
    pub writer: bool,
    /// There are byte-range locks.
    pub locked: bool,
}

/// What is granted of what is wanted (MS-FSA 2.1.5.18).
#[must_use]
pub fn grant(wanted: Caching, kind: Kind, others: Others) -> Caching {
    let wanted = wanted.valid();
    if others.locked || others.writer {
        return Caching::NONE;
    }
    let shared = match others.any {
        true => wanted.without(Caching::WRITE),
        false => wanted,
    };
    match kind {
        // An oplock of level II cannot be beside a lease that caches handles.
        Kind::Oplock if others.handle_lease => Caching::NONE,
        Kind::Lease if others.oplock => shared.without(Caching::HANDLE),
        _ => shared,
    }
}

#[cfg(test)]
mod tests;
