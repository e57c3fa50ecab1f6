//! The log: appending, committing, and making room.

use crate::superblock::{Flag, Identity, Superblock};
use crate::{AppendError, Error, Memory};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// The most meta bytes of a record.
pub const MAX_META: usize = 16 << 20;
/// The most data bytes of a record.
pub const MAX_DATA: usize = 16 << 20;
/// The smallest memory a log can be made in.
pub const MIN_MEMORY: u64 = 20 << 10;

/// A position in the log: bytes since it was formatted. All that lies before it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// What a record is to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The whole object; nothing before it counts any more.
    Snapshot = 1,
    /// A change to it.
    Delta = 2,
    /// There is no such object any more.
    End = 3,
}

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Whose record it is.
    pub object: u64,
    /// Snapshot or delta: of an ended object nothing is read back.
    pub kind: Kind,
    /// What was appended as `meta`.
    pub meta: Bytes,
    /// What was appended as `data`.
    pub data: Bytes,
}

/// What a log holds.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The superblock in force.
    pub superblock: Superblock,
    /// The records that count, in the order they were appended.
    pub records: Vec<Replayed>,
}

/// The checkpoint log. One thread owns it; the bytes it hands out may go anywhere.
pub struct Log {
    superblock: Superblock,
}

#[expect(unused_variables, reason = "bodies follow")]
impl Log {
    /// Makes a log in the memory; what was in it is gone.
    pub fn format(memory: Arc<dyn Memory>, identity: Identity) -> Result<Log, Error> {
        unimplemented!()
    }
    /// Reads what a log holds, copying it; a server may be writing to it meanwhile.
    pub fn inspect(memory: &dyn Memory) -> Result<Contents, Error> {
        unimplemented!()
    }
    /// Opens a log. Nothing is written until [`Log::begin_epoch`], which must come before the first append.
    pub fn open(memory: Arc<dyn Memory>) -> Result<(Log, Contents), Error> {
        unimplemented!()
    }
    /// Begins a new epoch after a recovery.
    pub fn begin_epoch(&mut self, boot_id: [u8; 16]) -> Result<(), Error> {
        unimplemented!()
    }
    /// Appends a record; its data comes back as bytes over the log.
    pub fn append(
        &mut self,
        object: u64,
        kind: Kind,
        meta: &[u8],
        data: &[&[u8]],
    ) -> Result<Bytes, AppendError> {
        unimplemented!()
    }
    /// Commits all that was appended, as a group; then frees what it can at the tail.
    pub fn commit(&mut self) -> Lsn {
        unimplemented!()
    }
    /// Meta and data bytes that the next ordinary append may have, whatever their split. The reserve is not counted unless [`Log::use_reserve`] is on.
    pub fn room(&self) -> u64 {
        unimplemented!()
    }
    /// The most bytes of meta and data that one record may have.
    pub fn max_record(&self) -> u64 {
        unimplemented!()
    }
    /// Whether appends may dip into the reserve: relocation, points 3 and 4, close.
    pub fn use_reserve(&mut self, yes: bool) {
        unimplemented!()
    }
    /// Sets the size of the reserve (bytes; at first an eighth of the ring).
    pub fn set_reserve(&mut self, bytes: u64) {
        unimplemented!()
    }
    /// When free space is short: the object that holds the tail back.
    pub fn wants_relocation(&self) -> Option<u64> {
        unimplemented!()
    }
    /// Sets the flag.
    pub fn set_flag(&mut self, flag: Flag) {
        unimplemented!()
    }
    /// Records the service time up to which it may have been used.
    pub fn set_clock_anchor(&mut self, anchor: Duration) {
        unimplemented!()
    }
    /// The superblock in force.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }
}
