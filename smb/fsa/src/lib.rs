//! Implements the semantics of file opens (MS-FSA) without a wire format and without sessions.
//!
//! It defines what the dialects and the file system have in common: file operations, intents and outcomes ([`fileop`]),
//! status codes, access rights, attributes, names. It also contains the rules by which opens of one file affect one
//! another: share modes, byte-range locks, oplocks, delete-pending links and change notification. The rules are
//! functions of the state of opens; a dialect keeps that state, puts its changes on record and notifies its clients.

pub mod access;
pub mod attributes;
pub mod caching;
pub mod ea;
pub mod file_opens;
pub mod fileop;
pub mod fnv;
pub mod lease;
pub mod link;
pub mod locks;
pub mod notify;
pub mod open;
pub mod oplock;
pub mod path;
pub mod pattern;
pub mod pieces;
pub mod sharing;
pub mod short_name;
pub mod status;
pub mod stream;

pub use fileop::{FileKey, OpenId};
pub use open::FileOpen;
pub use pieces::Pieces;
pub use status::NtStatus;

/// The dialect's object to which an open belongs: a client connection.
pub type Holder = u64;
