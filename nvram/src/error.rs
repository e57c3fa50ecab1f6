//! Errors of a log or its memory, in words for the person who has to correct them.

use std::io;
use std::path::PathBuf;

/// Why a log could not be made, read or opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memory has no room for a superblock and the smallest ring.
    #[error("{bytes} bytes are too few for a checkpoint log: the least is {least}")]
    TooSmall {
        /// Length of the memory.
        bytes: u64,
        /// The least that a log needs.
        least: u64,
    },
    /// Allocated, but no log was ever made in it (or its making was cut short): `Log::format` it.
    #[error("there is no checkpoint log in it yet")]
    Blank,
    /// Not a log of ours.
    #[error("not an Outlast checkpoint log: give another path, or remove it if it is not needed")]
    NotALog,
    /// Written by another version of Outlast.
    #[error(
        "format version {found} is unknown: this program knows versions up to {known}; start the Outlast that wrote it"
    )]
    UnknownVersion {
        /// The version found.
        found: u32,
        /// The version this program writes.
        known: u32,
    },
    /// Written by an earlier version of Outlast. If its flag is `clean` it holds no sessions and may be formatted.
    #[error(
        "its format version is {found}, but this program reads version {known} only: start the Outlast that wrote it \
         and end its sessions there (`outlast stop`); then this program formats the file"
    )]
    OlderVersion {
        /// The version found.
        found: u32,
        /// The version this program writes.
        known: u32,
        /// It holds no server's state.
        clean: bool,
    },
    /// Both superblock slots are damaged.
    #[error(
        "both superblocks are damaged; its sessions are lost; to start afresh, move the file away and keep it for \
         inspection"
    )]
    SuperblockDamaged,
    /// The memory is longer or shorter than the log that was made in it.
    #[error(
        "the log was made with {formatted} bytes, but there are {found}: the file was truncated or extended; restore \
         its length, or move it away to start afresh"
    )]
    LengthChanged {
        /// Length in the superblock.
        formatted: u64,
        /// Length of the memory.
        found: u64,
    },
    /// The committed part does not read back as it was written.
    #[error(
        "damaged at log position {position} ({what}); its sessions are lost; to start afresh, move the file away and \
         keep it for inspection"
    )]
    Damaged {
        /// Position in bytes since the log was formatted.
        position: u64,
        /// The kind of damage.
        what: &'static str,
    },
    /// A word that holds a position is damaged.
    #[error(
        "the {which} word is damaged; its sessions are lost; to start afresh, move the file away and keep it for \
         inspection"
    )]
    WordDamaged {
        /// Commit or tail.
        which: &'static str,
    },
    /// The epoch counter of 32 bits is exhausted.
    #[error(
        "this log has no epochs left: end its sessions (outlast stop) and remove it; the next start makes a new one"
    )]
    NoEpochsLeft,
    /// A sink to which some other log ships, or did.
    #[error(
        "another log's state is in it: give each nvram.path a sink of its own, or remove it if its sessions are no \
         longer needed"
    )]
    AnotherLog,
    /// The log is behind its own sink.
    #[error(
        "it is ahead of the log, which must be an old copy: remove that copy; the next start makes the log from the \
         sink"
    )]
    SinkAhead,
    /// The writer of a log has overwritten what its follower was to read next.
    #[error("the follower has fallen behind the log's tail; it starts again from there")]
    FellBehind,
    /// The file behind a mapping.
    #[error("{}: {problem}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: FileProblem,
    },
    /// Bytes that are not an encoding of the requested type.
    #[error("malformed record: {0}")]
    Malformed(String),
}

/// What is wrong with the file behind a mapping.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// Opened by another server.
    #[error("another server holds this file: stop it first, or give each server a file of its own")]
    Locked,
    /// The directory does not exist.
    #[error("its directory does not exist: create it, readable only by the server's account")]
    NoDirectory,
    /// The file does not exist.
    #[error("there is no such file")]
    Missing,
    /// The file appeared while it was being made.
    #[error("the file exists already")]
    Exists,
    /// Other accounts could read session keys.
    #[error("its mode is {mode:03o}, but it holds session keys: chmod 600 it")]
    OpenToOthers {
        /// Permission bits.
        mode: u32,
    },
    /// Its owner could read and change session keys.
    #[error(
        "it belongs to uid {owner}, not to root or the account this runs as: change its owner, or remove it"
    )]
    Owner {
        /// The owner's id.
        owner: u32,
    },
    /// A directory, device or pipe.
    #[error("not a regular file: give the path of a file")]
    NotAFile,
    /// A file of another program.
    #[error("not an Outlast checkpoint log: give another path, or remove it if it is not needed")]
    Foreign,
    /// The configured size is too small.
    #[error("{bytes} bytes are too few: give it {least} or more")]
    TooSmall {
        /// Size requested or found.
        bytes: u64,
        /// The least.
        least: u64,
    },
    /// The file is not as long as the configuration says.
    #[error(
        "it has {found} bytes, the configuration says {configured}: set the size to {found}, or end the sessions it \
         holds (outlast stop) and remove it; the next start makes a new one"
    )]
    SizeDiffers {
        /// Length of the file.
        found: u64,
        /// What was asked for.
        configured: u64,
    },
    /// Parts of the file are not allocated: writing to them could fail when the disk is full.
    #[error(
        "the file is sparse: end the sessions it holds (outlast stop) and remove it; the next start makes a new one"
    )]
    Sparse,
    /// No room for the file.
    #[error("the disk is full: {bytes} bytes are needed; make room or configure a smaller size")]
    DiskFull {
        /// Size requested.
        bytes: u64,
    },
    /// The account lacks the permission.
    #[error("permission denied: the server's account must own it and be able to write it")]
    Denied,
    /// Another error, in the kernel's words.
    #[error("{doing}: {error}")]
    Io {
        /// The action that failed.
        doing: &'static str,
        /// The kernel's error.
        error: io::Error,
    },
}

/// Why a record was not appended. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room now; there will be when objects are relocated or ended, or held bytes are dropped, and a commit has
    /// freed their space.
    #[error("the checkpoint log is full: {needed} bytes are needed, {room} are free")]
    Full {
        /// Bytes the record takes.
        needed: u64,
        /// Bytes that this append could have had.
        room: u64,
    },
    /// The record can never fit.
    #[error(
        "a record of {bytes} bytes is too large for this log: the most is {most}; configure a larger size"
    )]
    TooLarge {
        /// Bytes the record takes.
        bytes: u64,
        /// The most that one record may take ([`crate::Log::max_record`]).
        most: u64,
    },
    /// A delta or an end for an object that has no snapshot: recovery could not use it.
    #[error("object {object} has no snapshot in the log")]
    NoObject {
        /// The object named.
        object: u64,
    },
    /// A part or the completion of a snapshot that has not begun.
    #[error("no snapshot of object {object} is in progress")]
    NoCopy {
        /// The object named.
        object: u64,
    },
    /// The log was opened and [`crate::Log::begin_epoch`] has not been called.
    #[error("no epoch has begun since the log was opened")]
    NoEpoch,
}
