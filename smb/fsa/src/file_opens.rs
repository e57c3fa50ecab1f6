//! Indexes the opens of one stream of a file by oplock, lease, lock and share mode, so that a conflict with an
//! operation is found without a walk over all opens.

use crate::Holder;
use crate::access;
use crate::fileop::OpenId;
use crate::lease::LeaseId;
use crate::open::FileOpen;
use crate::oplock::OplockLevel;
use crate::sharing::Sharing;
use std::collections::{BTreeMap, BTreeSet};

type OpenSet = BTreeSet<(Holder, OpenId)>;

/// The opens of one lease.
#[derive(Debug, Default, PartialEq, Eq)]
struct Leased {
    opens: usize,
    /// The number of opens that do more than access attributes.
    using: usize,
}

/// The opens of one stream of a file, including those that the server is about to close.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileOpens {
    all: OpenSet,
    /// The opens that hold an oplock, by its level.
    oplocks: BTreeMap<OplockLevel, OpenSet>,
    /// The leases, each with the number of its opens.
    leases: BTreeMap<LeaseId, Leased>,
    delete_pending: OpenSet,
    /// The opens that hold byte-range locks.
    locking: OpenSet,
    /// The number of opens of each share mode: few modes exist.
    sharing: BTreeMap<Sharing, usize>,
    /// The number of opens that do more than access attributes.
    using: usize,
}

impl FileOpens {
    /// A file without opens.
    #[must_use]
    pub const fn new() -> FileOpens {
        FileOpens {
            all: BTreeSet::new(),
            oplocks: BTreeMap::new(),
            leases: BTreeMap::new(),
            delete_pending: BTreeSet::new(),
            locking: BTreeSet::new(),
            sharing: BTreeMap::new(),
            using: 0,
        }
    }

    /// Adds an open.
    pub fn add(&mut self, id: (Holder, OpenId), granted_access: u32, file: &FileOpen) {
        self.all.insert(id);
        if file.oplock != OplockLevel::None {
            self.oplocks.entry(file.oplock).or_default().insert(id);
        }
        if file.delete_pending || file.file_delete_pending {
            self.delete_pending.insert(id);
        }
        if !file.locks.is_empty() {
            self.locking.insert(id);
        }
        let sharing = Sharing::of(granted_access, file.share_access);
        *self.sharing.entry(sharing).or_default() += 1;
        let using = usize::from(!access::only_looks(granted_access));
        self.using += using;
        if let Some(lease) = &file.lease {
            let leased = self.leases.entry(lease.id).or_default();
            leased.opens += 1;
            leased.using += using;
        }
    }

    /// Removes an open, with the same arguments as those of [`FileOpens::add`].
    pub fn remove(&mut self, id: (Holder, OpenId), granted_access: u32, file: &FileOpen) {
        self.all.remove(&id);
        if let Some(holders) = self.oplocks.get_mut(&file.oplock) {
            holders.remove(&id);
            if holders.is_empty() {
                self.oplocks.remove(&file.oplock);
            }
        }
        self.delete_pending.remove(&id);
        self.locking.remove(&id);
        let sharing = Sharing::of(granted_access, file.share_access);
        if let Some(count) = self.sharing.get_mut(&sharing) {
            *count -= 1;
            if *count == 0 {
                self.sharing.remove(&sharing);
            }
        }
        let using = usize::from(!access::only_looks(granted_access));
        self.using -= using;
        if let Some(lease) = &file.lease
            && let Some(leased) = self.leases.get_mut(&lease.id)
        {
            leased.opens -= 1;
            leased.using -= using;
            if leased.opens == 0 {
                self.leases.remove(&lease.id);
            }
        }
    }

    /// Returns whether the file has no open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Iterates over all opens, by connection and then in the order of their creation, as the methods below do.
    pub fn all(&self) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.all.iter().copied()
    }

    /// Iterates over the opens that hold an oplock of this level.
    pub fn with_oplock(&self, level: OplockLevel) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.oplocks.get(&level).into_iter().flatten().copied()
    }

    /// Returns the highest oplock level that an open holds.
    #[must_use]
    pub fn highest_oplock(&self) -> OplockLevel {
        let highest = self.oplocks.last_key_value();
        highest.map_or(OplockLevel::None, |(level, _)| *level)
    }

    /// Iterates over the opens that mark the stream or the file as delete-pending.
    pub fn delete_pending(&self) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.delete_pending.iter().copied()
    }

    /// Iterates over the opens that hold byte-range locks.
    pub fn locking(&self) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.locking.iter().copied()
    }

    /// Returns whether an open with this share mode would have a sharing violation with an existing open.
    #[must_use]
    pub fn exclude(&self, wanted: Sharing) -> bool {
        self.sharing.keys().any(|held| held.excludes(wanted))
    }

    /// Iterates over the leases of the file.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.leases.keys().copied()
    }

    /// Returns whether an open outside of `lease` does more than access attributes.
    #[must_use]
    pub fn is_used_beside(&self, lease: Option<LeaseId>) -> bool {
        let leased = lease.and_then(|lease| self.leases.get(&lease));
        self.using > leased.map_or(0, |leased| leased.using)
    }
}
