//! Defines the records of the log: one type with every change of durable state.
//!
//! Object 0 is the server's own; every other object is a client connection, TCP and SMB together, or a generation of
//! effects on files ([`super::consistency`]).

use std::borrow::Cow;
use std::time::Duration;

use outlast_fsa::fileop::{FileKey, FileTime, ShareId};
use outlast_smb::Entropy;
use outlast_stack::addressing::{self, Acquired};
use serde::{Deserialize, Serialize};

use super::clock::Anchor;
use super::effect::{Effect, Identity};
use super::sizes;

/// The object of the state that belongs to no connection.
pub const GLOBAL: u64 = 0;

/// The meaning of one record. Received and sent bytes are the record's data part, not in here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record<'a> {
    /// Snapshot of object 0.
    Global(Global),
    /// Delta of object 0: the service time that may be shown at most.
    ClockUpTo(Duration),
    /// Delta of object 0: ids below this may have been used.
    IdsUpTo(u64),
    /// Snapshot of a connection.
    Client {
        /// Its TCP control block, without the queued bytes: those follow as `Tcp` records. `None` when TCP has closed
        /// it and its files are still being closed.
        tcp: Option<Cow<'a, outlast_stack::Checkpoint>>,
        /// Its SMB state; `None` until the handshake is complete.
        smb: Option<Cow<'a, outlast_smb::Checkpoint>>,
    },
    /// The beginning of a snapshot of a connection that takes several records; more of it follows as `Smb` records.
    Copy {
        /// Its SMB state, without what those records hold ([`outlast_smb::copying`]).
        smb: Cow<'a, outlast_smb::Checkpoint>,
    },
    /// The last record of such a snapshot.
    Copied {
        /// As in `Client`; its queued bytes follow too.
        tcp: Option<Cow<'a, outlast_stack::Checkpoint>>,
    },
    /// Delta of a connection's TCP.
    Tcp(Cow<'a, outlast_stack::Record>),
    /// Delta of a connection's SMB state.
    Smb(Cow<'a, outlast_smb::Record>),
    /// End of a connection, or of a generation.
    Closed,
    /// Snapshot of a generation of effects on files.
    Generation {
        /// The number of its first effect.
        first: u64,
        /// The boot of the kernel under which files show every recorded effect.
        boot_id: [u8; 16],
        /// The shares' names, by the ids that its effects have.
        shares: Vec<String>,
    },
    /// Delta of a generation: an effect. The data of a write are the record's data.
    Effect(Cow<'a, Effect>),
    /// Delta of a generation: a file that a power cut removed was made again.
    Remade {
        /// The file it was.
        from: FileKey,
        /// The file it is now.
        now: Cow<'a, Identity>,
    },
    /// Delta of object 0: every local change of watched directories until this wall time has been reported.
    WatchedUntil(FileTime),
    /// Delta of object 0: the directory of a share has been found.
    Root {
        /// The share.
        share: ShareId,
        /// Its directory.
        key: FileKey,
    },
    /// Delta of a generation: a sync of the file systems has failed after its effects were done. The kernel may have
    /// dropped what was to be written, so a later sync proves nothing about them before they are done once more.
    Unsynced,
    /// Delta of object 0: the name service's answer about a local account.
    Account {
        /// Its name.
        name: String,
        /// `None`: there is no such account.
        ids: Option<Ids>,
    },
    /// Delta of object 0: a change of what the network has assigned.
    Address {
        /// The change.
        record: addressing::Record,
        /// The moment of the change.
        anchor: Anchor,
    },
}

impl Record<'_> {
    /// The kind of record, without its content (which may hold keys).
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Record::Global(_) => "global",
            Record::ClockUpTo(_) => "clock",
            Record::IdsUpTo(_) => "ids",
            Record::Client { .. } => "client",
            Record::Copy { .. } => "copy",
            Record::Copied { .. } => "copied",
            Record::Tcp(_) => "tcp",
            Record::Smb(_) => "smb",
            Record::Closed => "closed",
            Record::Generation { .. } => "generation",
            Record::Effect(_) => "effect",
            Record::Remade { .. } => "remade",
            Record::WatchedUntil(_) => "watched",
            Record::Root { .. } => "root",
            Record::Unsynced => "unsynced",
            Record::Account { .. } => "account",
            Record::Address { .. } => "address",
        }
    }
}

/// The state that belongs to no connection.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Global {
    /// High-water mark of service time.
    pub clock_up_to: Duration,
    /// Ids below this may have been used.
    pub ids_up_to: u64,
    /// The secret for initial sequence numbers and timestamp offsets (RFC 6528).
    pub secret: [u8; 32],
    /// ServerGuid (MS-SMB2 2.2.4).
    pub guid: [u8; 16],
    /// Every local change of watched directories until this wall time has been reported; 0 if that is not known.
    pub watched_until: FileTime,
    /// The shares, by the ids that they have in this run.
    pub roots: Vec<Root>,
    /// Local accounts as the name service last knew them, the most recently recorded one last.
    pub accounts: Vec<(String, Ids)>,
    /// The addresses that the network has assigned.
    pub acquired: Acquired,
    /// The moment of the last change of them.
    pub anchor: Option<Anchor>,
}

/// The ids of a local account that matter for files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

impl Ids {
    /// Upper bound of the bytes that an account takes in the log.
    pub(super) fn size(&self, name: &str) -> usize {
        const INTEGER: usize = 5;
        (4 + self.groups.len()) * INTEGER + name.len()
    }
}

/// A share, and its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The share's name.
    pub name: String,
    /// A hash of the configured path ([`outlast_smb::Share::directory`]).
    pub directory: u64,
    /// The directory's key; `None`: it has not been found yet.
    pub key: Option<FileKey>,
}

impl Global {
    /// Makes the state of a new log.
    #[must_use]
    pub fn new(entropy: &mut dyn Entropy) -> Global {
        let mut global = Global {
            clock_up_to: Duration::ZERO,
            ids_up_to: 1,
            secret: [0; 32],
            guid: [0; 16],
            watched_until: 0,
            roots: Vec::new(),
            accounts: Vec::new(),
            acquired: Acquired::default(),
            anchor: None,
        };
        entropy.fill(&mut global.secret);
        entropy.fill(&mut global.guid);
        global
    }

    /// The directory of a share with this name and path.
    #[must_use]
    pub fn root(&self, name: &str, directory: u64) -> Option<FileKey> {
        let mut roots = self.roots.iter();
        let root = roots.find(|root| root.name == name && root.directory == directory);
        root.and_then(|root| root.key)
    }

    /// Notes an answer of the name service. If there are too many accounts, those noted first are dropped.
    pub fn note_account(&mut self, name: &str, ids: Option<Ids>) {
        self.accounts.retain(|(known, _)| known != name);
        self.accounts.extend(ids.map(|ids| (name.to_owned(), ids)));
        let mut room = sizes::ACCOUNTS;
        let newest = self.accounts.iter().rev();
        let kept = newest.take_while(|(name, ids)| {
            let size = ids.size(name);
            room.checked_sub(size)
                .inspect(|left| room = *left)
                .is_some()
        });
        let dropped = self.accounts.len() - kept.count();
        self.accounts.drain(..dropped);
    }

    /// Applies a change of what the network has assigned.
    pub fn note_address(&mut self, record: &addressing::Record, anchor: Anchor) {
        self.acquired.apply(record);
        self.anchor = Some(anchor);
    }

    /// Notes that the share has this directory.
    pub fn note_root(&mut self, share: ShareId, key: FileKey) {
        if let Some(root) = self.roots.get_mut(share as usize) {
            root.key = Some(key);
        }
    }
}

impl std::fmt::Debug for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Global")
            .field("clock_up_to", &self.clock_up_to)
            .field("ids_up_to", &self.ids_up_to)
            .finish_non_exhaustive()
    }
}
