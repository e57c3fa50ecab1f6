//! Renaming, linking and deleting. Each operation identifies its file by identity, so that repeating it has no further
//! effect.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use outlast_fsa::attributes as flag;
use outlast_fsa::fileop::{DeleteTarget, FileKey, Intent};
use outlast_fsa::status::NtStatus;
use rustix::fs::{AtFlags, CWD, FileType, OFlags, RenameFlags, Statx};
use rustix::io::Errno;

use super::attributes::{self, file_type, is_dir, key};
use super::create::may_delete;
use super::errno::status;
use super::lookup::{Lookup, read_names};
use super::names;
use super::opens::{OpenFile, is_another};
use super::path::{Entry, Root, disk_path, fd_path, stat, stat_entry};

/// Finds out what a rename or a link will meet. `in_use`: is this file open?
///
/// # Errors
/// OBJECT_NAME_COLLISION; ACCESS_DENIED for a target that cannot be replaced; OBJECT_NAME_NOT_FOUND if the source has
/// no name any more.
pub fn prepare(
    root: &Root,
    lookup: &mut Lookup,
    open: &OpenFile,
    from: Option<&str>,
    to: &str,
    replace: bool,
    in_use: impl Fn(&FileKey) -> bool,
) -> Result<Intent, NtStatus> {
    if root.read_only {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let linking = from.is_none();
    if linking && open.is_dir {
        return Err(NtStatus::FILE_IS_A_DIRECTORY);
    }
    let from = name_of(root, open.fd.as_fd(), &open.key, from.unwrap_or(&open.path))?
        .ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let (parent, last) = names::split(to).ok_or(NtStatus::ACCESS_DENIED)?;
    if from.is_empty() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let parent = root.locate_dir(parent, lookup)?;
    let found = root.locate_in(&parent, last, lookup)?;
    let as_given = names::join(&parent.path, &names::as_shown(last));
    let intent = |to, replaced| Intent::Rename {
        source: open.key,
        is_dir: open.is_dir,
        from,
        to,
        replaced,
    };
    let Some(existing) = found.file else {
        return Ok(intent(as_given, None));
    };
    let stat = stat(&existing).map_err(status)?;
    let existing_key = key(&stat);
    if existing_key == open.key {
        // Another case of its own name, or a hard link to it.
        if linking && !replace {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        return Ok(intent(as_given, None));
    }
    if !replace {
        return Err(NtStatus::OBJECT_NAME_COLLISION);
    }
    // MS-FSA 2.1.5.15.11: a directory, a read-only file and an open file are not replaced.
    let attributes = attributes::kept_attributes(&stat, &attributes::read(existing.as_fd()));
    if is_dir(&stat) || attributes & flag::READONLY != 0 || in_use(&existing_key) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(intent(found.path, Some(existing_key)))
}

/// The identity of the file at the path; `None`: there is none, or it is outside the share.
fn identity(root: &Root, path: &str) -> Result<Option<FileKey>, NtStatus> {
    let Ok(disk) = disk_path(path) else {
        return Ok(None);
    };
    match root.open_disk(&disk, OFlags::PATH) {
        Ok(fd) => Ok(Some(key(&stat(&fd).map_err(status)?))),
        Err(error) if is_another(error) => Ok(None),
        Err(error) => Err(status(error)),
    }
}

/// Returns whether this file is the one at the path, or the target of a link there. A dangling symbolic link may have
/// got a target since it was opened.
fn has_path(root: &Root, path: &str, file: &FileKey) -> Result<bool, NtStatus> {
    if identity(root, path)? == Some(*file) {
        return Ok(true);
    }
    // A parent that could not be examined would have been an error above.
    let Ok(entry) = root.entry(path) else {
        return Ok(false);
    };
    Ok(look(&entry)?.as_ref().map(key) == Some(*file))
}

/// The path under which an open file can be found: the given one if it is still there, otherwise the kernel's.
///
/// A file with several links may have been opened again by its handle, and then the kernel may return any of them: the
/// intended one must exist.
fn name_of(
    root: &Root,
    fd: BorrowedFd<'_>,
    key: &FileKey,
    path: &str,
) -> Result<Option<String>, NtStatus> {
    let there = has_path(root, path, key);
    if there == Ok(true) {
        return Ok(Some(path.to_owned()));
    }
    let known = stat(fd).map_err(status)?;
    if (is_dir(&known) || known.stx_nlink <= 1)
        && let Some(path) = root.current_path(fd)
        && has_path(root, &path, key)?
    {
        return Ok(Some(path));
    }
    there.map(|_| None)
}

/// The metadata of an entry itself; `None`: there is none.
fn look(entry: &Entry) -> Result<Option<Statx>, NtStatus> {
    match stat_entry(&entry.dir, &entry.name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(status(error)),
    }
}

/// The intent of a rename.
pub struct Move<'a> {
    /// The file that is renamed.
    pub source: FileKey,
    /// Its former name.
    pub from: &'a str,
    /// Its new name.
    pub to: &'a str,
    /// The file that had the new name.
    pub replaced: Option<FileKey>,
}

/// Renames as the intent says.
///
/// # Errors
/// OBJECT_NAME_NOT_FOUND if the source has no name any more; OBJECT_NAME_COLLISION if another file has the new name
/// meanwhile; as `rename`.
pub fn rename(root: &Root, fd: BorrowedFd<'_>, intent: &Move<'_>) -> Result<(), NtStatus> {
    let to = root.entry(intent.to)?;
    let at_target = look(&to)?;
    if at_target.as_ref().map(key) == Some(intent.source)
        || identity(root, intent.to)? == Some(intent.source)
    {
        if intent.from != intent.to && has_path(root, intent.from, &intent.source)? {
            // Both names are links to the file, which rename(2) leaves alone: the old one is removed.
            let from = root.entry(intent.from)?;
            return match rustix::fs::unlinkat(&from.dir, from.name.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                // A directory has one link: a file system without regard to case shows it under both names.
                Err(Errno::ISDIR | Errno::PERM) => move_entry(&from, &to, false),
                Err(error) => Err(status(error)),
            };
        }
        // We did it before a crash.
        return Ok(());
    }
    let from =
        name_of(root, fd, &intent.source, intent.from)?.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let from = root.entry(&from)?;
    let replaces = match (at_target, intent.replaced) {
        (None, _) => false,
        (Some(there), Some(meant))
            if key(&there) == meant || identity(root, intent.to)? == Some(meant) =>
        {
            true
        }
        (Some(_), _) => return Err(NtStatus::OBJECT_NAME_COLLISION),
    };
    move_entry(&from, &to, replaces)
}

/// The NTSTATUS for an error of a call with two names.
fn two_names_status(error: Errno) -> NtStatus {
    match error {
        Errno::XDEV => NtStatus::NOT_SAME_DEVICE,
        other => status(other),
    }
}

fn move_entry(from: &Entry, to: &Entry, replaces: bool) -> Result<(), NtStatus> {
    let (old, new) = (from.name.as_slice(), to.name.as_slice());
    if replaces {
        return rustix::fs::renameat(&from.dir, old, &to.dir, new).map_err(two_names_status);
    }
    match rustix::fs::renameat_with(&from.dir, old, &to.dir, new, RenameFlags::NOREPLACE) {
        // The file system does not support it, or a directory is moved beneath itself, as the next call reports. The
        // name was free just now.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::renameat(&from.dir, old, &to.dir, new).map_err(two_names_status)
        }
        other => other.map_err(two_names_status),
    }
}

/// Links as the intent says. `private`: a temporary name for a link that replaces.
///
/// # Errors
/// As [`rename`].
pub fn link(
    root: &Root,
    fd: BorrowedFd<'_>,
    intent: &Move<'_>,
    private: &str,
) -> Result<(), NtStatus> {
    let to = root.entry(intent.to)?;
    let there = look(&to)?.as_ref().map(key);
    if there == Some(intent.source) {
        return Ok(());
    }
    // A file that was opened by its handle may be in no directory that the kernel's cache knows, and the sandbox then
    // permits no link (EXDEV). Opened by its name, it is in one.
    let named = disk_path(intent.from)?;
    let named = root.open_disk(&named, OFlags::PATH).ok();
    let named = named.filter(|named| stat(named).is_ok_and(|stat| key(&stat) == intent.source));
    let fd = named.as_ref().map_or(fd, AsFd::as_fd);
    let link_as =
        |name: &[u8]| rustix::fs::linkat(CWD, fd_path(fd), &to.dir, name, AtFlags::SYMLINK_FOLLOW);
    match (there, intent.replaced) {
        (None, _) => link_as(&to.name).map_err(two_names_status),
        (Some(there), Some(meant)) if there == meant => {
            // Left by an attempt before a crash, if it exists.
            let _ = rustix::fs::unlinkat(&to.dir, private, AtFlags::empty());
            link_as(private.as_bytes()).map_err(two_names_status)?;
            rustix::fs::renameat(&to.dir, private, &to.dir, to.name.as_slice()).map_err(|error| {
                let _ = rustix::fs::unlinkat(&to.dir, private, AtFlags::empty());
                status(error)
            })
        }
        _ => Err(NtStatus::OBJECT_NAME_COLLISION),
    }
}

/// Removes the file's name; does nothing if the name is missing or another file's. `links`: the number of its links
/// before the operation was begun.
///
/// # Errors
/// DIRECTORY_NOT_EMPTY; as `unlink`.
pub fn delete(
    root: &Root,
    fd: BorrowedFd<'_>,
    target: &DeleteTarget,
    links: u32,
) -> Result<(), NtStatus> {
    if root.read_only {
        return Err(NtStatus::ACCESS_DENIED);
    }
    // After a local rename it is deleted under its new name. But if one of several links is missing, this may have been
    // the one that we deleted before a crash.
    let path = match links <= 1 {
        true => name_of(root, fd, &target.key, &target.path)?,
        false => (identity(root, &target.path)? == Some(target.key)).then(|| target.path.clone()),
    };
    let Some(path) = path else {
        return Ok(());
    };
    let entry = root.entry(&path)?;
    let Some(itself) = look(&entry)? else {
        return Ok(());
    };
    // Of a symbolic link, the link is removed and not its target.
    let flags = if file_type(&itself) == FileType::Directory {
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    match rustix::fs::unlinkat(&entry.dir, entry.name.as_slice(), flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::EXIST) => Err(NtStatus::DIRECTORY_NOT_EMPTY),
        Err(error) => Err(status(error)),
    }
}

/// Checks whether a file may be deleted (MS-FSA 2.1.5.15.3).
///
/// # Errors
/// CANNOT_DELETE if it is read-only, DIRECTORY_NOT_EMPTY, ACCESS_DENIED.
pub fn check_delete(root: &Root, uid: u32, open: &OpenFile, path: &str) -> Result<(), NtStatus> {
    let stat = stat(&open.fd).map_err(status)?;
    let dos = attributes::read(open.fd.as_fd());
    if attributes::kept_attributes(&stat, &dos) & flag::READONLY != 0 {
        return Err(NtStatus::CANNOT_DELETE);
    }
    may_delete(root, &stat, uid, path)?;
    if open.is_dir {
        // Readable or not, only an empty one can be deleted; a directory that cannot be read is checked when it is
        // deleted.
        if let Ok(dir) = root.open_path(path, OFlags::RDONLY | OFlags::DIRECTORY)
            && !is_empty(&dir).map_err(status)?
        {
            return Err(NtStatus::DIRECTORY_NOT_EMPTY);
        }
    }
    Ok(())
}

fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    let mut empty = true;
    read_names(dir, |_| empty = false)?;
    Ok(empty)
}
