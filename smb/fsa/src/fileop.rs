//! Defines the contract between the SMB core and the file system: an operation ([`FileOp`]), what must be on record
//! before it is performed ([`Intent`], point 2), and its result ([`Outcome`], point 3).
//!
//! The file system offers two calls. `prepare(op) -> Intent` examines the file and changes nothing. `perform(op,
//! intent) -> Outcome` is idempotent given the intent: the same call performs an operation and redoes it after a crash,
//! and the client receives the same response.

use crate::Pieces;
use crate::ea::Ea;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Windows file time: 100 ns units since 1601-01-01 UTC (MS-DTYP 2.3.3). 0 means "not set" in requests.
pub type FileTime = u64;

/// Identifies an open and is never reused: the persistent half of the FileId (MS-SMB2 2.2.14.1).
pub type OpenId = u64;

/// Index of a share in the configuration's list of shares.
pub type ShareId = u32;

/// The account that an operation is performed for; the file system adopts that account's rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The share: the operation accesses no file outside of its directory.
    pub share: ShareId,
    /// The login's name; `None` for guest and anonymous.
    pub user: Option<String>,
}

/// Identifies a file independently of its name: file system, inode and birth time (an inode number may be reused within
/// a second).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct FileKey {
    /// The file system. Derived from its UUID where it has one, so that it stays the same when it is mounted as another
    /// device.
    pub dev: u64,
    /// The inode number, `st_ino`.
    pub ino: u64,
    /// Birth time in ns since 1970 where the file system has it, else 0.
    pub birth_ns: i64,
}

/// The file handle that `name_to_handle_at` returns, to reopen the file after a restart; empty where the file system
/// has none.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileHandle {
    /// `handle_type`.
    pub kind: i32,
    /// `f_handle`.
    pub bytes: Vec<u8>,
}

/// A file's metadata as SMB reports them (MS-FSCC 2.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Identity.
    pub key: FileKey,
    /// Creation time: from the DOS-attribute xattr, else birth time, else the oldest of the others.
    pub creation_time: FileTime,
    /// `st_atime`.
    pub last_access_time: FileTime,
    /// `st_mtime`.
    pub last_write_time: FileTime,
    /// `st_ctime`.
    pub change_time: FileTime,
    /// Length in bytes (0 for directories).
    pub end_of_file: u64,
    /// Bytes allocated on disk.
    pub allocation_size: u64,
    /// FILE_ATTRIBUTE_* (MS-FSCC 2.6); DIRECTORY set for directories, NORMAL if nothing else is.
    pub attributes: u32,
    /// Hard links.
    pub links: u32,
    /// Is a directory.
    pub is_dir: bool,
}

/// CreateDisposition (MS-SMB2 2.2.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// FILE_SUPERSEDE: replace if it exists, else create.
    Supersede,
    /// FILE_OPEN: open or fail.
    Open,
    /// FILE_CREATE: create or fail.
    Create,
    /// FILE_OPEN_IF: open or create.
    OpenIf,
    /// FILE_OVERWRITE: open and truncate, or fail.
    Overwrite,
    /// FILE_OVERWRITE_IF: open and truncate, or create.
    OverwriteIf,
}

/// CreateAction (MS-SMB2 2.2.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateAction {
    /// FILE_SUPERSEDED (0).
    Superseded,
    /// FILE_OPENED (1).
    Opened,
    /// FILE_CREATED (2).
    Created,
    /// FILE_OVERWRITTEN (3).
    Overwritten,
}

/// Open or create a file or directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateOp {
    /// The id that the open will have; also the stamp on a file that it creates.
    pub open: OpenId,
    /// Path within the share with the case that the client used; components joined by '/', no leading or trailing
    /// slash; "" is the share's root. A colon and a name at the end name a stream ([`crate::stream`]).
    pub path: String,
    /// CreateDisposition.
    pub disposition: Disposition,
    /// FILE_DIRECTORY_FILE was given.
    pub must_be_dir: bool,
    /// FILE_NON_DIRECTORY_FILE was given.
    pub must_be_file: bool,
    /// FILE_OPEN_REPARSE_POINT was given.
    pub open_reparse: bool,
    /// Reads data (FILE_READ_DATA or FILE_EXECUTE in the requested access, generic bits mapped, MAXIMUM_ALLOWED
    /// excluded).
    pub read_data: bool,
    /// Writes data (FILE_WRITE_DATA or FILE_APPEND_DATA).
    pub write_data: bool,
    /// Deletes (DELETE access, or delete on close): the account must have the right to do so.
    pub delete: bool,
    /// MAXIMUM_ALLOWED was requested: open with all rights that the account has.
    pub maximum_allowed: bool,
    /// FILE_ATTRIBUTE_* for a new (or overwritten) file.
    pub attributes: u32,
    /// Initial allocation in bytes.
    pub allocation_size: u64,
    /// The extended attributes of a new (or overwritten) file.
    pub eas: Vec<Ea>,
}

/// The result of `prepare` for a [`CreateOp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateIntent {
    /// The path with the case of the directory entries (the last component as given, if it does not exist).
    pub path: String,
    /// The directory that contains the last component; for the share's root, the root itself.
    pub directory: FileKey,
    /// The existing file, if any; for a named stream, the existing stream.
    pub existing: Option<Metadata>,
    /// For a named stream, its file, if that exists.
    pub base: Option<Metadata>,
    /// FILE_* rights (MS-DTYP 2.4.3 file mask) that the account has on the existing file, or would have on a new one.
    pub maximal_access: u32,
}

/// The result of a [`CreateOp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// CreateAction.
    pub action: CreateAction,
    /// The file's metadata after the operation.
    pub metadata: Metadata,
    /// The handle to reopen it with after a restart.
    pub handle: FileHandle,
    /// The path with the case of the directory entries.
    pub path: String,
    /// For a named stream: the file was created, too.
    pub made_file: bool,
}

/// The position of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteAt {
    /// A byte offset.
    Offset(u64),
    /// The end of the file (offset 0xFFFFFFFFFFFFFFFF, or an append-only open).
    End,
}

/// A set of a file's times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// LastAccessTime.
    pub access: bool,
    /// LastWriteTime.
    pub write: bool,
    /// ChangeTime.
    pub change: bool,
}

impl Times {
    /// Returns these times and those of `own` that are not among `others`.
    #[must_use]
    pub fn with(self, own: Times, others: Times) -> Times {
        Times {
            access: self.access || own.access && !others.access,
            write: self.write || own.write && !others.write,
            change: self.change || own.change && !others.change,
        }
    }
}

/// The times that an operation keeps at their previous values, because its open has stopped their updates (MS-FSA
/// 2.1.4.17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTimes {
    /// LastWriteTime.
    pub write: Option<FileTime>,
    /// ChangeTime.
    pub change: Option<FileTime>,
}

/// FileBasicInformation to set (MS-FSCC 2.4.7): `None` keeps a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBasic {
    /// CreationTime.
    pub creation_time: Option<FileTime>,
    /// LastAccessTime.
    pub last_access_time: Option<FileTime>,
    /// LastWriteTime.
    pub last_write_time: Option<FileTime>,
    /// ChangeTime.
    pub change_time: Option<FileTime>,
    /// FILE_ATTRIBUTE_*.
    pub attributes: Option<u32>,
    /// The times that operations by this open no longer update: those that are set, and those given as -1.
    pub stop: Times,
    /// The times that they update again: those given as -2.
    pub resume: Times,
}

impl SetBasic {
    /// Returns the times whose updates are stopped after this request; `stopped`: those before it.
    #[must_use]
    pub fn stopped(&self, stopped: Times) -> Times {
        self.stop.with(stopped, self.resume)
    }
}

/// One range of FSCTL_SRV_COPYCHUNK (MS-SMB2 2.2.31.1.1), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// SourceOffset.
    pub source_offset: u64,
    /// TargetOffset.
    pub target_offset: u64,
    /// Length.
    pub length: u32,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Name as on disk ("." and ".." included where the pattern matches).
    pub name: String,
    /// Attributes.
    pub metadata: Metadata,
    /// FileId: st_ino.
    pub file_id: u64,
}

/// A file operation. `open` names the open it acts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // fields repeat the names of MS-SMB2's requests
pub enum FileOp {
    /// Opens or creates a file or a stream. Outcome: `Created`.
    Create(CreateOp),
    /// Closes an open. `delete`: unlinks the file first (delete on close, last open). `path`: its current path.
    /// `write_time`: sets mtime first. Outcome: `Closed` (the metadata just before).
    Close {
        open: OpenId,
        delete: Option<DeleteTarget>,
    },
    /// Calls fsync. Outcome: `Unit`.
    Flush { open: OpenId },
    /// Reads up to `length` bytes. Outcome: `Data` (empty at end of file).
    Read {
        open: OpenId,
        offset: u64,
        length: u32,
    },
    /// Writes all of `data`. Outcome: `Written`.
    Write {
        open: OpenId,
        at: WriteAt,
        data: Pieces,
        write_through: bool,
    },
    /// Lists entries after `after` (exclusive, in the order of the folded names; `None`: from the start) that match
    /// `pattern` (MS-FSA 2.1.4.4, case-insensitive), at most `limit`. Outcome: `Entries`.
    QueryDirectory {
        open: OpenId,
        pattern: String,
        after: Option<String>,
        limit: u32,
    },
    /// Outcome: `Metadata`.
    Stat { open: OpenId },
    /// Reads the file system's sizes. Outcome: `Volume`.
    QueryVolume { open: OpenId },
    /// Outcome: `Unit`.
    SetBasic { open: OpenId, basic: SetBasic },
    /// Outcome: `Unit`.
    SetEndOfFile { open: OpenId, end_of_file: u64 },
    /// Preallocates, or truncates if the size is smaller than the file. Outcome: `Unit`.
    SetAllocation { open: OpenId, allocation_size: u64 },
    /// Renames to a path within the share. Outcome: `Renamed`.
    Rename {
        open: OpenId,
        from: String,
        to: String,
        replace: bool,
    },
    /// Creates a hard link. Outcome: `Unit`.
    Link {
        open: OpenId,
        to: String,
        replace: bool,
    },
    /// Checks that the file may be deleted (rights, read-only attribute, directory empty) and changes nothing. Outcome:
    /// `Unit`.
    CheckDelete { open: OpenId, path: String },
    /// Makes a self-relative security descriptor (MS-DTYP 2.4.6) from owner, group and mode or ACL. `information`:
    /// SECURITY_INFORMATION. Outcome: `Data`.
    QuerySecurity { open: OpenId, information: u32 },
    /// Outcome: `Unit`.
    SetSecurity {
        open: OpenId,
        information: u32,
        #[serde(with = "as_bytes")]
        descriptor: Bytes,
    },
    /// Copies ranges on the server. Outcome: `Copied`.
    CopyChunks {
        source: OpenId,
        target: OpenId,
        chunks: Vec<Chunk>,
    },
    /// FSCTL_SET_ZERO_DATA, in bytes [from, beyond). Outcome: `Unit`.
    ZeroData {
        open: OpenId,
        from: u64,
        beyond: u64,
    },
    /// FSCTL_SET_SPARSE. Outcome: `Unit`.
    SetSparse { open: OpenId, sparse: bool },
    /// FSCTL_QUERY_ALLOCATED_RANGES. Outcome: `Ranges`.
    QueryAllocatedRanges {
        open: OpenId,
        offset: u64,
        length: u64,
    },
    /// Begins to watch a directory for local changes (reported through `Smb::changed`). Outcome: `Unit`.
    Watch { open: OpenId, recursive: bool },
    /// Lists the streams of a file. Outcome: `Streams`.
    QueryStreams { open: OpenId },
    /// Removes the named streams and the extended attributes of a file, as an overwriting create does. Outcome: `Unit`.
    Strip { open: OpenId },
    /// Reads the extended attributes of a file. Outcome: `Eas`.
    QueryEas { open: OpenId },
    /// Sets extended attributes; those without a value are removed. Outcome: `Unit`.
    SetEas { open: OpenId, eas: Vec<Ea> },
}

/// Serializes `Bytes` as a sequence of bytes.
mod as_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Bytes::from)
    }
}

/// Borrows the id of the open that an operation acts on, shared or exclusive as the operation itself.
macro_rules! open_of {
    ($op:expr) => {
        match $op {
            FileOp::Create(CreateOp { open, .. })
            | FileOp::Close { open, .. }
            | FileOp::Flush { open }
            | FileOp::Read { open, .. }
            | FileOp::Write { open, .. }
            | FileOp::QueryDirectory { open, .. }
            | FileOp::Stat { open }
            | FileOp::QueryVolume { open }
            | FileOp::SetBasic { open, .. }
            | FileOp::SetEndOfFile { open, .. }
            | FileOp::SetAllocation { open, .. }
            | FileOp::Rename { open, .. }
            | FileOp::Link { open, .. }
            | FileOp::CheckDelete { open, .. }
            | FileOp::QuerySecurity { open, .. }
            | FileOp::SetSecurity { open, .. }
            | FileOp::CopyChunks { target: open, .. }
            | FileOp::ZeroData { open, .. }
            | FileOp::SetSparse { open, .. }
            | FileOp::QueryAllocatedRanges { open, .. }
            | FileOp::Watch { open, .. }
            | FileOp::QueryStreams { open }
            | FileOp::Strip { open }
            | FileOp::QueryEas { open }
            | FileOp::SetEas { open, .. } => open,
        }
    };
}

impl FileOp {
    /// Returns the open that it acts on: for `Create` the one that it will make, for `CopyChunks` the target.
    #[must_use]
    pub fn open(&self) -> OpenId {
        *open_of!(self)
    }

    /// Makes it act on another open. The source of a copy stays the same.
    pub fn set_open(&mut self, another: OpenId) {
        *open_of!(self) = another;
    }

    /// Returns the same operation without its data, which belong to the message.
    #[must_use]
    pub fn without_data(&self) -> FileOp {
        let mut op = self.clone();
        match &mut op {
            FileOp::Write { data, .. } => *data = Pieces::default(),
            FileOp::SetSecurity { descriptor, .. } => *descriptor = Bytes::new(),
            FileOp::SetEas { eas, .. } => eas.clear(),
            _ => {}
        }
        op
    }

    /// Returns whether it changes a file's data or metadata through its open, and thus updates the file's times.
    #[must_use]
    pub fn moves_times(&self) -> bool {
        matches!(
            self,
            FileOp::Write { .. }
                | FileOp::SetBasic { .. }
                | FileOp::SetEndOfFile { .. }
                | FileOp::SetAllocation { .. }
                | FileOp::SetSecurity { .. }
                | FileOp::CopyChunks { .. }
                | FileOp::ZeroData { .. }
                | FileOp::SetSparse { .. }
                | FileOp::SetEas { .. }
        )
    }

    /// Returns whether it changes a file, so that its intent must be on record. An operation that only reads is
    /// repeated after a crash.
    #[must_use]
    pub fn has_effect(&self) -> bool {
        !matches!(
            self,
            FileOp::Close { delete: None, .. }
                | FileOp::Flush { .. }
                | FileOp::Read { .. }
                | FileOp::QueryDirectory { .. }
                | FileOp::Stat { .. }
                | FileOp::QueryVolume { .. }
                | FileOp::CheckDelete { .. }
                | FileOp::QuerySecurity { .. }
                | FileOp::QueryAllocatedRanges { .. }
                | FileOp::Watch { .. }
                | FileOp::QueryStreams { .. }
                | FileOp::QueryEas { .. }
        )
    }
}

/// The directory entry that a close with delete unlinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTarget {
    /// Path beneath the share.
    pub path: String,
    /// The file that must be there; another file of that name is not deleted.
    pub key: FileKey,
}

impl Intent {
    /// Borrows [`Intent::itself`] exclusively.
    pub fn itself_mut(&mut self) -> &mut Intent {
        match self {
            Intent::Keeping { intent, .. } => intent.itself_mut(),
            intent => intent,
        }
    }

    /// Iterates over the keys of the files that it refers to.
    pub fn keys_mut(&mut self) -> impl Iterator<Item = &mut FileKey> {
        let (one, other) = match self.itself_mut() {
            Intent::Create(create) => {
                let base = create.base.as_mut().map(|found| &mut found.key);
                let existing = create.existing.as_mut().map(|found| &mut found.key);
                return [Some(&mut create.directory), existing, base]
                    .into_iter()
                    .flatten();
            }
            Intent::Rename {
                source, replaced, ..
            } => (Some(source), replaced.as_mut()),
            Intent::Close { metadata, .. } => (Some(&mut metadata.key), None),
            Intent::None
            | Intent::Write { .. }
            | Intent::RenameStream { .. }
            | Intent::CopyChunks { .. }
            | Intent::Keeping { .. } => (None, None),
        };
        [one, other, None].into_iter().flatten()
    }
}

/// What must be on record before an operation is performed, besides the request's own bytes: a part of the state just
/// before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Intent {
    /// Nothing: the operation is idempotent by itself, or has no effect.
    None,
    /// For `Create`.
    Create(CreateIntent),
    /// For `Write`: the offset in bytes, resolved.
    Write { offset: u64 },
    /// For `Rename` and `Link`: the file that gets the new name, and the one that it replaces.
    Rename {
        source: FileKey,
        is_dir: bool,
        from: String,
        to: String,
        replaced: Option<FileKey>,
    },
    /// For `Rename` of a named stream: its new path, and what it holds, which has both names or neither for a moment.
    RenameStream { to: String, data: Vec<u8> },
    /// For `Close` with delete: metadata just before, for the reply. `digest`: of the content of a named stream, which
    /// has no identity of its own.
    Close {
        metadata: Metadata,
        digest: Option<u64>,
    },
    /// For `CopyChunks` with overlap in one file: the source bytes of each chunk.
    CopyChunks { source: Vec<Vec<u8>> },
    /// For an operation that changes a file through an open that has stopped the updates of times: the times that it
    /// must restore, and the intent itself.
    Keeping {
        times: KeptTimes,
        intent: Box<Intent>,
    },
}

impl Intent {
    /// Returns the intent itself, without the times to keep.
    #[must_use]
    pub fn itself(&self) -> &Intent {
        match self {
            Intent::Keeping { intent, .. } => intent.itself(),
            intent => intent,
        }
    }
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Unit,
    Created(Created),
    Closed(Metadata),
    Data(Bytes),
    /// Bytes written, and the file's size afterwards.
    Written {
        count: u32,
        offset: u64,
    },
    /// `more`: further entries follow.
    Entries {
        entries: Vec<DirEntry>,
        more: bool,
    },
    Metadata(Metadata),
    Volume(Volume),
    /// The new path as on disk, and the directory that contains its last component.
    Renamed {
        path: String,
        directory: FileKey,
    },
    /// Bytes written per chunk.
    Copied {
        written: Vec<u32>,
    },
    /// (offset, length) in bytes.
    Ranges(Vec<(u64, u64)>),
    /// The attributes of the open, and the extended attributes of the file.
    Eas {
        metadata: Metadata,
        eas: Vec<Ea>,
    },
    /// The streams of a file, the default one first.
    Streams(Vec<StreamEntry>),
}

/// A stream in a list of a file's streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its full name, with its type: "::$DATA" for the default stream.
    pub name: String,
    /// Length in bytes.
    pub end_of_file: u64,
    /// Bytes allocated on disk.
    pub allocation_size: u64,
}

/// A file system's sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Total bytes.
    pub total_bytes: u64,
    /// Bytes available to an ordinary account.
    pub available_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Allocation unit in bytes.
    pub unit_bytes: u32,
    /// A serial number derived from f_fsid.
    pub serial: u32,
    /// The creation time of the share's directory.
    pub creation_time: FileTime,
    /// Files may have extended attributes, and named streams in them.
    pub extended_attributes: bool,
}

/// A change in a directory, for CHANGE_NOTIFY (MS-FSCC 2.4.42).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The share.
    pub share: ShareId,
    /// Path within the share of the changed file.
    pub path: String,
    /// It is a directory.
    pub is_dir: bool,
    /// The kind of change.
    pub kind: ChangeKind,
}

/// Kinds of change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// FILE_ACTION_ADDED.
    Added,
    /// FILE_ACTION_REMOVED.
    Removed,
    /// FILE_ACTION_MODIFIED (FILE_NOTIFY_CHANGE_* that applies: size, last write, attributes, security).
    Modified(u32),
    /// Renamed from `path` to this path.
    RenamedTo(String),
    /// Events were lost: anything beneath the path may have changed.
    Overflow,
}
