//! The state of one open of a file or directory (MS-FSA 2.1.1.6).

use crate::fileop::{FileHandle, FileKey, Times};
use crate::lease::Lease;
use crate::locks::Lock;
use crate::oplock::{Breaking, OplockLevel};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Where a directory listing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The pattern the listing began with; `None`: no listing has begun.
    pub pattern: Option<String>,
    /// The last name returned.
    pub after: Option<String>,
    /// Everything has been returned: NO_MORE_FILES.
    pub finished: bool,
    /// Entries returned since the listing began.
    pub returned: u64,
}

/// One change as CHANGE_NOTIFY reports it (MS-FSCC 2.7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// FILE_ACTION_*.
    pub action: u32,
    /// Name beneath the watched directory, components joined by a backslash.
    pub name: String,
}

/// Directory watch of an open; begun by its first CHANGE_NOTIFY.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// CompletionFilter: FILE_NOTIFY_CHANGE_*.
    pub filter: u32,
    /// SMB2_WATCH_TREE.
    pub recursive: bool,
    /// OutputBufferLength of the request that began it, in bytes: no answer is longer.
    pub most: u32,
    /// What has not been reported yet.
    pub notices: VecDeque<Notice>,
    /// More happened than was kept: NOTIFY_ENUM_DIR.
    pub overflow: bool,
}

/// The file half of an open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOpen {
    /// Which file.
    pub key: FileKey,
    /// To open it again after a restart.
    pub handle: FileHandle,
    /// Where it is now, beneath the share, '/' between components.
    pub path: String,
    /// The directory that the last component of the path is an entry of.
    pub directory: FileKey,
    /// A directory.
    pub is_dir: bool,
    /// ShareAccess.
    pub share_access: u32,
    /// CreateOptions.
    pub create_options: u32,
    /// FILE_DELETE_ON_CLOSE was given.
    pub delete_on_close: bool,
    /// The file is deleted at its last close; one of its opens carries this mark.
    pub delete_pending: bool,
    /// FilePositionInformation (MS-FSCC 2.4.35), in bytes.
    pub position: u64,
    /// FileModeInformation that was set (MS-FSCC 2.4.26).
    pub mode: u32,
    /// Times that operations by this open do not move (MS-FSA 2.1.4.17).
    pub stopped: Times,
    /// Directory listing.
    pub cursor: Cursor,
    /// Directory watch.
    pub watch: Option<Watch>,
    /// Oplock held.
    pub oplock: OplockLevel,
    /// Break that is not acknowledged.
    pub breaking: Option<Breaking>,
    /// The lease it is part of; then it has no oplock.
    pub lease: Option<Lease>,
    /// Byte-range locks, in the order they were granted.
    pub locks: Vec<Lock>,
    /// LockSequenceNumber by LockSequenceIndex (MS-SMB2 3.3.5.14).
    pub lock_sequences: BTreeMap<u32, u8>,
}

impl FileOpen {
    /// A file that has just been opened, with no rights shared and no options, in a directory that is not known.
    #[must_use]
    pub fn new(key: FileKey, path: String, is_dir: bool) -> FileOpen {
        FileOpen {
            key,
            handle: FileHandle::default(),
            path,
            directory: FileKey::default(),
            is_dir,
            share_access: 0,
            create_options: 0,
            delete_on_close: false,
            delete_pending: false,
            position: 0,
            mode: 0,
            stopped: Times::default(),
            cursor: Cursor::default(),
            watch: None,
            oplock: OplockLevel::None,
            breaking: None,
            lease: None,
            locks: Vec::new(),
            lock_sequences: BTreeMap::new(),
        }
    }
}
