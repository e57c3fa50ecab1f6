//! Selects the changes that a directory watch reports (MS-FSA 2.1.4.1, MS-FSCC 2.7.1).

use crate::fileop::{Change, ChangeKind};
use crate::open::{Notice, Watch};
use crate::{path, stream};

/// FILE_NOTIFY_CHANGE_* (MS-SMB2 2.2.35).
#[allow(missing_docs)]
pub mod filter {
    pub const FILE_NAME: u32 = 0x001;
    pub const DIR_NAME: u32 = 0x002;
    pub const ATTRIBUTES: u32 = 0x004;
    pub const SIZE: u32 = 0x008;
    pub const LAST_WRITE: u32 = 0x010;
    pub const LAST_ACCESS: u32 = 0x020;
    pub const CREATION: u32 = 0x040;
    pub const EA: u32 = 0x080;
    pub const SECURITY: u32 = 0x100;
    pub const STREAM_NAME: u32 = 0x200;
    pub const STREAM_SIZE: u32 = 0x400;
    pub const STREAM_WRITE: u32 = 0x800;
}

/// FILE_ACTION_* (MS-FSCC 2.7.1).
#[allow(missing_docs)]
pub mod action {
    pub const ADDED: u32 = 1;
    pub const REMOVED: u32 = 2;
    pub const MODIFIED: u32 = 3;
    pub const RENAMED_OLD_NAME: u32 = 4;
    pub const RENAMED_NEW_NAME: u32 = 5;
    pub const ADDED_STREAM: u32 = 6;
    pub const REMOVED_STREAM: u32 = 7;
    pub const MODIFIED_STREAM: u32 = 8;
}

/// The largest number of notices that one watch keeps. Beyond it the client receives NOTIFY_ENUM_DIR.
pub const MAX_NOTICES: usize = 1024;

/// Returns the notices of a change for a watch of `directory`.
#[must_use]
pub fn notices(watch: &Watch, directory: &str, change: &Change) -> Vec<Notice> {
    let name_filter = match stream::split(&change.path).1 {
        Some(_) => filter::STREAM_NAME,
        None if change.is_dir => filter::DIR_NAME,
        None => filter::FILE_NAME,
    };
    let (added, removed, modified) = match name_filter {
        filter::STREAM_NAME => (
            action::ADDED_STREAM,
            action::REMOVED_STREAM,
            action::MODIFIED_STREAM,
        ),
        _ => (action::ADDED, action::REMOVED, action::MODIFIED),
    };
    let seen = |changed: &str| {
        let name = path::below(changed, directory)?;
        (watch.recursive || !name.contains('/')).then(|| name.replace('/', "\\"))
    };
    let one = |action, name| vec![Notice { action, name }];
    match &change.kind {
        ChangeKind::Overflow => Vec::new(),
        ChangeKind::Modified(what) if what & watch.filter != 0 => {
            seen(&change.path).map_or(Vec::new(), |name| one(modified, name))
        }
        ChangeKind::Modified(_) => Vec::new(),
        _ if watch.filter & name_filter == 0 => Vec::new(),
        ChangeKind::Added => seen(&change.path).map_or(Vec::new(), |name| one(added, name)),
        ChangeKind::Removed => seen(&change.path).map_or(Vec::new(), |name| one(removed, name)),
        ChangeKind::RenamedTo(to) => {
            // Within one directory it is a rename; between two directories it is removed from one and added to the
            // other. There is no action for the rename of a stream.
            let same = path::parent(&change.path) == path::parent(to);
            let (old, new) = match same && name_filter != filter::STREAM_NAME {
                true => (action::RENAMED_OLD_NAME, action::RENAMED_NEW_NAME),
                false => (removed, added),
            };
            let old = seen(&change.path).map(|name| Notice { action: old, name });
            let new = seen(to).map(|name| Notice { action: new, name });
            old.into_iter().chain(new).collect()
        }
    }
}

#[cfg(test)]
mod tests;
