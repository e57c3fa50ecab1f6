//! The opens of one file, and their sums: what stands in an operation's way is known without asking
//! each of them, however many there are.

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
    /// How many do more than look at attributes.
    using: usize,
}

/// The opens of one file. Those that are about to be closed by the server are among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileOpens {
    all: OpenSet,
    /// Holders of oplocks.
    oplocks: BTreeMap<OplockLevel, OpenSet>,
    /// Leases, and how many of their opens there are.
    leases: BTreeMap<LeaseId, Leased>,
    delete_pending: OpenSet,
    /// Holders of byte-range locks.
    locking: OpenSet,
    /// How many share the file in this way: there are few ways.
    sharing: BTreeMap<Sharing, usize>,
    /// How many do more than look at attributes.
    using: usize,
}

impl FileOpens {
    /// A file that nobody has open.
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

    /// Puts in an open.
    pub fn add(&mut self, id: (Holder, OpenId), granted_access: u32, file: &FileOpen) {
        self.all.insert(id);
        if file.oplock != OplockLevel::None {
            self.oplocks.entry(file.oplock).or_default().insert(id);
        }
        if file.delete_pending {
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

    /// Takes out what [`FileOpens::add`] has put in of an open.
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

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them, in the order they were made within a connection; so are those below.
    pub fn all(&self) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.all.iter().copied()
    }

    /// Those that hold an oplock of this level.
    pub fn with_oplock(&self, level: OplockLevel) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.oplocks.get(&level).into_iter().flatten().copied()
    }

    /// The highest oplock one of them holds.
    #[must_use]
    pub fn highest_oplock(&self) -> OplockLevel {
        let highest = self.oplocks.last_key_value();
        highest.map_or(OplockLevel::None, |(level, _)| *level)
    }

    /// Those that carry the mark of a file that is deleted at its last close.
    pub fn delete_pending(&self) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.delete_pending.iter().copied()
    }

    /// Those that hold byte-range locks.
    pub fn locking(&self) -> impl Iterator<Item = (Holder, OpenId)> + '_ {
        self.locking.iter().copied()
    }

    /// Is there one that an open which shares in this way cannot be beside?
    #[must_use]
    pub fn exclude(&self, wanted: Sharing) -> bool {
        self.sharing.keys().any(|held| held.excludes(wanted))
    }

    /// Leases of the file.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.leases.keys().copied()
    }

    /// Does one of them, but for those of a lease, do more than look at attributes?
    #[must_use]
    pub fn is_used_beside(&self, lease: Option<LeaseId>) -> bool {
        let leased = lease.and_then(|lease| self.leases.get(&lease));
        self.using > leased.map_or(0, |leased| leased.using)
    }
}
