//! Decides which caching an oplock or a lease grants (MS-FSA 2.1.5.18, MS-SMB2 3.3.1.12), and which operations of other
//! opens break it.

use serde::{Deserialize, Serialize};

/// A set of READ, HANDLE and WRITE caching.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Caching(u8);

impl Caching {
    /// No caching.
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
    /// READ, HANDLE and WRITE.
    pub const ALL: Caching = Caching(7);

    /// Decodes a LeaseState. Undefined bits are ignored.
    #[must_use]
    pub fn from_bits(bits: u32) -> Caching {
        Caching(bits as u8 & Caching::ALL.0)
    }

    /// Encodes as a LeaseState.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.into()
    }

    /// Returns whether the two sets have an element in common.
    #[must_use]
    pub fn has(self, other: Caching) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns whether this is a subset of `other`.
    #[must_use]
    pub fn is_within(self, other: Caching) -> bool {
        self.0 & !other.0 == 0
    }

    /// Returns the difference of the two sets.
    #[must_use]
    pub fn without(self, other: Caching) -> Caching {
        Caching(self.0 & !other.0)
    }

    /// Returns the intersection of the two sets.
    #[must_use]
    pub fn and(self, other: Caching) -> Caching {
        Caching(self.0 & other.0)
    }

    /// Returns the union of the two sets.
    #[must_use]
    pub fn or(self, other: Caching) -> Caching {
        Caching(self.0 | other.0)
    }

    /// Returns the state if it can be granted (MS-FSA 2.1.5.18.1, .2), else [`Caching::NONE`].
    #[must_use]
    fn valid(self) -> Caching {
        match self.has(Caching::READ) {
            true => self,
            false => Caching::NONE,
        }
    }
}

/// The mechanism by which a client caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An oplock, which is broken to READ or to no caching.
    Oplock,
    /// A lease.
    Lease,
}

/// A CREATE of a file for which other opens hold caching.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// It has a sharing violation with another open of the file.
    pub violates_sharing: bool,
    /// It overwrites or supersedes the file.
    pub overwrites: bool,
    /// It has already waited for a break.
    pub has_waited: bool,
}

impl Opening {
    /// Returns the caching that must be relinquished before the file is opened: HANDLE upon a sharing violation,
    /// because a client may keep a handle open that its application has closed; else WRITE (MS-FSA 2.1.4.12).
    fn waits_for(self) -> Caching {
        match self.violates_sharing {
            true => Caching::HANDLE,
            false => Caching::WRITE,
        }
    }

    /// Returns the state to which `held` must be broken, or `None` if no break is needed.
    #[must_use]
    pub fn breaks(self, held: Caching, kind: Kind) -> Option<Caching> {
        let mut to = held.without(self.waits_for());
        if self.overwrites && (!self.violates_sharing || to != held) {
            // The data in the client's read cache become invalid.
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

    /// Returns whether the CREATE waits for the holder of `held`. `breaking`: a break of that lease awaits its
    /// acknowledgment.
    #[must_use]
    pub fn waits(self, held: Caching, breaking: bool) -> bool {
        let to_break = self.breaks(held, Kind::Lease).is_some();
        to_break && held.has(self.waits_for()) || breaking && (!to_break || self.has_waited)
    }
}

/// The other opens of a file that is opened, without those of the same lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// One of them does more than access attributes, or holds caching.
    pub any: bool,
    /// One of them has an oplock.
    pub oplock: bool,
    /// One of their leases holds HANDLE caching.
    pub handle_lease: bool,
    /// One of them holds WRITE caching.
    pub writer: bool,
    /// One of them holds byte-range locks.
    pub locked: bool,
}

/// Computes the caching that is granted out of the requested one (MS-FSA 2.1.5.18).
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
        // An oplock of level II cannot coexist with a lease that holds HANDLE caching.
        Kind::Oplock if others.handle_lease => Caching::NONE,
        Kind::Lease if others.oplock => shared.without(Caching::HANDLE),
        _ => shared,
    }
}

#[cfg(test)]
mod tests;
