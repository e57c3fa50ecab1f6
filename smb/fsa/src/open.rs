//! Defines the state of one open of a file or directory (MS-FSA 2.1.1.6).

use crate::fileop::{FileHandle, FileKey, Times};
use crate::lease::Lease;
use crate::locks::Lock;
use crate::oplock::{Breaking, OplockLevel};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// The position of a directory listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The pattern that the listing began with; `None`: no listing has begun.
    pub pattern: Option<String>,
    /// The last name returned.
    pub after: Option<String>,
    /// All entries have been returned: NO_MORE_FILES.
    pub finished: bool,
    /// The number of entries returned since the listing began.
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

/// The directory watch of an open; its first CHANGE_NOTIFY begins it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// CompletionFilter: FILE_NOTIFY_CHANGE_*.
    pub filter: u32,
    /// SMB2_WATCH_TREE.
    pub recursive: bool,
    /// OutputBufferLength of the request that began it, in bytes: the limit of every response.
    pub most: u32,
    /// Notices that have not been reported yet.
    pub notices: VecDeque<Notice>,
    /// More changes occurred than are kept: NOTIFY_ENUM_DIR.
    pub overflow: bool,
}

/// The file half of an open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOpen {
    /// The file.
    pub key: FileKey,
    /// The handle to reopen it with after a restart.
    pub handle: FileHandle,
    /// Its current path within the share, '/' between components; a colon and the name of its stream at the end, unless
    /// that is the default one.
    pub path: String,
    /// The directory that contains the last component of the path.
    pub directory: FileKey,
    /// A directory.
    pub is_dir: bool,
    /// ShareAccess.
    pub share_access: u32,
    /// CreateOptions.
    pub create_options: u32,
    /// FILE_DELETE_ON_CLOSE was given.
    pub delete_on_close: bool,
    /// The stream is deleted at its last close, with the default stream the file; one of its opens carries this mark.
    pub delete_pending: bool,
    /// For an open of a named stream: the file is deleted when none of its streams is open any more.
    pub file_delete_pending: bool,
    /// FilePositionInformation (MS-FSCC 2.4.35), in bytes.
    pub position: u64,
    /// FileModeInformation, as set (MS-FSCC 2.4.26).
    pub mode: u32,
    /// The times that operations by this open do not update (MS-FSA 2.1.4.17).
    pub stopped: Times,
    /// Directory listing.
    pub cursor: Cursor,
    /// Directory watch.
    pub watch: Option<Watch>,
    /// The oplock that it holds.
    pub oplock: OplockLevel,
    /// The oplock break that awaits its acknowledgment.
    pub breaking: Option<Breaking>,
    /// The lease that it belongs to; then it has no oplock.
    pub lease: Option<Lease>,
    /// Byte-range locks, in the order in which they were granted.
    pub locks: Vec<Lock>,
    /// LockSequenceNumber by LockSequenceIndex (MS-SMB2 3.3.5.14).
    pub lock_sequences: BTreeMap<u32, u8>,
}

impl FileOpen {
    /// A file that has just been opened, without shared access and without options, in an unknown directory.
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
            file_delete_pending: false,
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
