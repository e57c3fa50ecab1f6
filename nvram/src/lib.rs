//! Implements a checkpoint log on memory that survives the process.
//!
//! Records of *objects* are appended to a ring, committed as a group by one store of a word, and read back by
//! [`Log::open`] after the process was killed at any instant. *The log is the buffer*: the data of a record is returned
//! as [`bytes::Bytes`] over the ring, and its space is reused only when these are no longer held. The crate knows
//! records and bytes, not their meaning.
//!
//! `docs/log-format.md` describes the format byte by byte, and the rules of the tail.

pub mod codec;
pub mod copy;
mod error;
mod extent;
mod layout;
mod log;
mod mapping;
mod memory;
#[cfg(test)]
mod random;
mod replay;
pub mod sink;
mod superblock;

pub use error::{AppendError, Error, FileProblem};
pub use log::ReplayCost;
pub use log::{
    Contents, Followed, Follower, Handled, Home, Kind, Log, Lsn, MAX_DATA, MAX_META, MIN_MEMORY,
    Relocation, Replayed, Suspect,
};
pub use mapping::{Mapping, fill_with_zeroes, is_foreign};
pub use memory::{Memory, VecMemory};
pub use superblock::{Flag, Identity, Incarnation, Superblock, VERSION};
