//! Opening and creating.
//!
//! A new file is prepared without a name (O_TMPFILE) or under a private one, stamped with the id of the open, and then
//! gets its name by a call that does not replace. So a redo finds either nothing, or its own file (by the stamp), or
//! another one. Where the file system has no extended attributes, an empty file or a directory of the same owner counts
//! as our own.

use std::os::fd::{AsFd, OwnedFd};

use outlast_fsa::access as right;
use outlast_fsa::attributes as flag;
use outlast_fsa::fileop::{
    CreateAction, CreateIntent, CreateOp, Created, Disposition, Metadata, OpenId,
};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;
use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Statx,
    StatxAttributes, XattrFlags,
};
use rustix::io::Errno;

use super::attributes::{self, Dos, file_type, is_dir, key, metadata};
use super::errno::{open_status, status};
use super::lookup::Lookup;
use super::path::{Entry, Root, fd_path, may_access, stat, stat_entry};
use super::streams::{self, Stream};
use super::{ea, handle, names};

/// The rights that every open of a reachable file has.
pub const ALWAYS: u32 =
    right::READ_CONTROL | right::SYNCHRONIZE | right::READ_ATTRIBUTES | right::READ_EA;

/// The extended attribute with the id of the open that created a file.
const STAMP: &str = "user.outlast.stamp";

/// Finds out what a create will meet. Runs with the account's rights.
///
/// # Errors
/// As MS-FSA 2.1.5.1.
pub fn prepare(
    root: &Root,
    lookup: &mut Lookup,
    uid: u32,
    op: &CreateOp,
) -> Result<CreateIntent, NtStatus> {
    let (path, stream) = stream::split(&op.path);
    ea::check(&op.eas)?;
    if !op.eas.is_empty() && !root.features.xattrs {
        return Err(NtStatus::EAS_NOT_SUPPORTED);
    }
    if let Some(name) = stream
        && (!root.features.xattrs || !streams::has_room_for(name))
    {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let located = root.locate(path, lookup)?;
    let Some(file) = located.file else {
        let path = match stream {
            None => located.path,
            Some(stream) => stream::join(&located.path, stream),
        };
        return prepare_new(root, op, path);
    };
    let stat = stat(&file).map_err(status)?;
    let dos = attributes::read(file.as_fd());
    let name = names::split(&located.path).map_or("", |(_, name)| name);
    let existing = metadata(&stat, &dos, name);
    if stream.is_none() {
        check_existing(op, &existing)?;
    }
    let maximal_access = maximal_access(root, &file, &stat, &dos, uid, &located.path);
    let mut needed = 0;
    if op.read_data {
        needed |= right::READ_DATA;
    }
    if op.write_data || overwrites(op.disposition) {
        needed |= right::WRITE_DATA;
    }
    // The share's root cannot be deleted, but clients open it with such access; only the deletion is refused.
    if op.delete && !path.is_empty() {
        needed |= right::DELETE;
    }
    if needed & !maximal_access != 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if overwrites(op.disposition) && stream.is_none() {
        // MS-FSA 2.1.5.1.2: a hidden or system file is not overwritten by one without these attributes.
        let guarded = attributes::kept_attributes(&stat, &dos) & (flag::HIDDEN | flag::SYSTEM);
        if guarded & !op.attributes != 0 {
            return Err(NtStatus::ACCESS_DENIED);
        }
    }
    let found = CreateIntent {
        directory: root.directory_of(&located.path)?,
        path: located.path,
        existing: Some(existing),
        base: None,
        maximal_access,
    };
    match stream {
        None => Ok(found),
        Some(name) => streams::operations::prepare(root, &file, op, name, found),
    }
}

/// MS-FSA 2.1.5.1.2: checks whether an existing file fits the request.
fn check_existing(op: &CreateOp, existing: &Metadata) -> Result<(), NtStatus> {
    if op.disposition == Disposition::Create {
        return Err(NtStatus::OBJECT_NAME_COLLISION);
    }
    if existing.is_dir && op.must_be_file {
        return Err(NtStatus::FILE_IS_A_DIRECTORY);
    }
    if !existing.is_dir && op.must_be_dir {
        return Err(NtStatus::NOT_A_DIRECTORY);
    }
    if existing.is_dir && overwrites(op.disposition) {
        return Err(NtStatus::OBJECT_NAME_COLLISION);
    }
    Ok(())
}

fn prepare_new(root: &Root, op: &CreateOp, path: String) -> Result<CreateIntent, NtStatus> {
    // MS-FSA 2.1.5.1: there is no file of that name.
    if matches!(op.disposition, Disposition::Open | Disposition::Overwrite) {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    if root.read_only {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if op.must_be_dir && op.attributes & flag::TEMPORARY != 0 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let entry = root.entry(stream::split(&path).0)?;
    may_access(entry.dir.as_fd(), Access::WRITE_OK | Access::EXEC_OK).map_err(status)?;
    Ok(CreateIntent {
        path,
        directory: key(&stat(&entry.dir).map_err(status)?),
        existing: None,
        base: None,
        maximal_access: right::FILE_ALL_ACCESS,
    })
}

fn overwrites(disposition: Disposition) -> bool {
    matches!(
        disposition,
        Disposition::Supersede | Disposition::Overwrite | Disposition::OverwriteIf
    )
}

/// The rights on a file of the account that the thread runs as.
fn maximal_access(
    root: &Root,
    file: &OwnedFd,
    stat: &Statx,
    dos: &Dos,
    uid: u32,
    path: &str,
) -> u32 {
    let may = |access| may_access(file.as_fd(), access).is_ok();
    let is_dir = is_dir(stat);
    let data = is_dir || file_type(stat) == FileType::RegularFile;
    let mut rights = ALWAYS;
    if data && may(Access::READ_OK) {
        rights |= right::READ_DATA;
        // Clients set no execute bits: a readable program may be executed.
        if !is_dir {
            rights |= right::EXECUTE;
        }
    }
    if is_dir && may(Access::EXEC_OK) {
        rights |= right::EXECUTE;
    }
    if root.read_only {
        return rights;
    }
    let owner = uid == 0 || uid == stat.stx_uid;
    if may(Access::WRITE_OK) {
        rights |= right::WRITE_EA | right::WRITE_ATTRIBUTES;
        // MS-FSA 2.1.5.1.2.1: the attribute READONLY denies writing data, not attributes or deletion.
        let read_only = attributes::kept_attributes(stat, dos) & flag::READONLY != 0;
        if data && (is_dir || !read_only) {
            rights |= right::WRITE_DATA | right::APPEND_DATA;
            // A file has no children, but FILE_ALL_ACCESS (MS-SMB2 2.2.13.1.1) includes the right to delete them.
            if !is_dir || may(Access::EXEC_OK) {
                rights |= right::DELETE_CHILD;
            }
        }
    }
    if owner {
        rights |= right::WRITE_ATTRIBUTES | right::WRITE_DAC | right::WRITE_OWNER;
    }
    if may_delete(root, stat, uid, path).is_ok() {
        rights |= right::DELETE;
    }
    rights
}

/// Returns whether a file is immutable or append-only.
fn is_fixed(stat: &Statx) -> bool {
    let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    stat.stx_attributes.intersects(fixed)
}

/// Checks whether the account may delete this name: its directory and the sticky bit decide.
///
/// # Errors
/// ACCESS_DENIED if not, or if it is the share's root.
pub fn may_delete(root: &Root, file: &Statx, uid: u32, path: &str) -> Result<(), NtStatus> {
    if root.read_only {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let entry = root.entry(path)?;
    let dir = stat(&entry.dir).map_err(status)?;
    // chattr(1): neither such a file nor one in such a directory can be deleted, by any account.
    if is_fixed(file) || is_fixed(&dir) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let sticky = u32::from(dir.stx_mode) & libc::S_ISVTX != 0;
    let theirs = sticky && uid != 0 && uid != file.stx_uid && uid != dir.stx_uid;
    let write = Access::WRITE_OK | Access::EXEC_OK;
    if theirs || may_access(entry.dir.as_fd(), write).is_err() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(())
}

/// Opens or creates as the intent says. Runs with the account's rights.
///
/// # Errors
/// As MS-FSA 2.1.5.1; OBJECT_NAME_NOT_FOUND if the intent's file is missing.
pub fn perform(
    root: &Root,
    uid: u32,
    op: &CreateOp,
    intent: &CreateIntent,
) -> Result<(OwnedFd, Created), NtStatus> {
    let (path, stream) = stream::split(&intent.path);
    let (fd, action, made_file) = match (intent.base.as_ref().or(intent.existing.as_ref()), stream)
    {
        (Some(file), Some(name)) => {
            let fd = open_again(root, path, file)?;
            let action = streams::operations::perform(&fd, op, intent, name)?;
            (fd, action, false)
        }
        (Some(existing), None) => {
            let fd = open_existing(root, op, path)?;
            if key(&stat(&fd).map_err(status)?) != existing.key {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            let action = overwrite(&fd, op)?;
            (fd, action, false)
        }
        (None, None) => {
            let (fd, action) = create(root, uid, op, path)?;
            (fd, action, false)
        }
        (None, Some(name)) => create_with_stream(root, uid, op, intent, (path, name))?,
    };
    let stat = stat(&fd).map_err(status)?;
    let name = names::split(path).map_or("", |(_, name)| name);
    let file = metadata(&stat, &attributes::read(fd.as_fd()), name);
    let created = Created {
        action,
        metadata: match stream {
            None => file,
            Some(name) => streams::metadata(file, Stream::new(fd.as_fd(), name).length()?),
        },
        handle: handle::of(fd.as_fd()),
        path: intent.path.clone(),
        made_file,
    };
    Ok((fd, created))
}

/// Opens the file of a named stream.
fn open_again(root: &Root, path: &str, file: &Metadata) -> Result<OwnedFd, NtStatus> {
    let fd = root.open_path(path, OFlags::PATH)?;
    match key(&stat(&fd).map_err(status)?) == file.key {
        true => Ok(fd),
        false => Err(NtStatus::OBJECT_NAME_NOT_FOUND),
    }
}

/// Creates a file with a named stream, which it has before it gets its name. If a local process has made the file
/// meanwhile, the stream is created in that. Returns whether it has created the file.
fn create_with_stream(
    root: &Root,
    uid: u32,
    op: &CreateOp,
    intent: &CreateIntent,
    (path, name): (&str, &str),
) -> Result<(OwnedFd, CreateAction, bool), NtStatus> {
    let file = CreateOp {
        disposition: Disposition::Create,
        must_be_file: true,
        allocation_size: 0,
        ..op.clone()
    };
    let fd = match create(root, uid, &file, path) {
        Ok((fd, _)) => fd,
        Err(NtStatus::OBJECT_NAME_COLLISION) => {
            let fd = root.open_path(path, OFlags::PATH)?;
            let action = streams::operations::perform(&fd, op, intent, name)?;
            return Ok((fd, action, false));
        }
        Err(status) => return Err(status),
    };
    // Its own stream, which it may lack where a file gets its name first.
    match Stream::new(fd.as_fd(), name).create() {
        Ok(()) | Err(NtStatus::OBJECT_NAME_COLLISION) => {}
        Err(status) => return Err(status),
    }
    let flags = OFlags::PATH;
    Ok((
        root.open_path(path, flags).unwrap_or(fd),
        CreateAction::Created,
        true,
    ))
}

/// Opens an existing file with the requested access, and no more rights than that needs.
fn open_existing(root: &Root, op: &CreateOp, path: &str) -> Result<OwnedFd, NtStatus> {
    let looked = root.open_path(path, OFlags::PATH)?;
    let stat = stat(&looked).map_err(status)?;
    let write = op.write_data || overwrites(op.disposition);
    let attempts: &[OFlags] = match file_type(&stat) {
        FileType::Directory if op.read_data => &[OFlags::RDONLY],
        FileType::Directory if op.maximum_allowed => &[OFlags::RDONLY, OFlags::PATH],
        FileType::Directory => &[OFlags::PATH],
        FileType::RegularFile => match (op.read_data, write, op.maximum_allowed) {
            (true, true, _) => &[OFlags::RDWR],
            (true, false, true) => &[OFlags::RDWR, OFlags::RDONLY],
            (true, false, false) => &[OFlags::RDONLY],
            (false, true, true) => &[OFlags::RDWR, OFlags::WRONLY],
            (false, true, false) => &[OFlags::WRONLY],
            (false, false, true) => &[OFlags::RDWR, OFlags::RDONLY, OFlags::WRONLY, OFlags::PATH],
            (false, false, false) => &[OFlags::PATH],
        },
        // FIFOs, sockets and devices are visible and can be deleted, but their data cannot be opened.
        _ if op.read_data || write => return Err(NtStatus::ACCESS_DENIED),
        _ => &[OFlags::PATH],
    };
    let mut refused = NtStatus::ACCESS_DENIED;
    for &flags in attempts {
        if flags == OFlags::PATH {
            return Ok(looked);
        }
        match root.open_path(path, flags) {
            Ok(fd) => {
                // Meanwhile the name may have become another file's, even a FIFO's.
                let now = super::path::stat(&fd).map_err(status)?;
                if key(&now) != key(&stat) {
                    return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
                }
                return Ok(fd);
            }
            Err(
                error @ (NtStatus::ACCESS_DENIED
                | NtStatus::MEDIA_WRITE_PROTECTED
                | NtStatus::SHARING_VIOLATION),
            ) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Empties the file if the disposition says so. Repeating it changes nothing.
fn overwrite(fd: &OwnedFd, op: &CreateOp) -> Result<CreateAction, NtStatus> {
    let action = match op.disposition {
        Disposition::Supersede => CreateAction::Superseded,
        Disposition::Overwrite | Disposition::OverwriteIf => CreateAction::Overwritten,
        Disposition::Open | Disposition::OpenIf | Disposition::Create => {
            return Ok(CreateAction::Opened);
        }
    };
    rustix::fs::ftruncate(fd, 0).map_err(status)?;
    streams::remove_all(fd.as_fd())?;
    ea::remove_all(fd.as_fd())?;
    set_initial_attributes(fd, op).map_err(status)?;
    Ok(action)
}

/// Sets attributes and allocation of a new or overwritten file (MS-FSA 2.1.5.1.1: ARCHIVE is always set), and gives it
/// the named stream that the request opens, and the extended attributes.
fn set_initial_attributes(fd: &OwnedFd, op: &CreateOp) -> Result<(), Errno> {
    if let Some(name) = stream::split(&op.path).1 {
        Stream::new(fd.as_fd(), name).empty()?;
    }
    if !op.eas.is_empty() {
        ea::put(fd.as_fd(), &op.eas)?;
    }
    let stat = stat(fd)?;
    let wanted = if is_dir(&stat) {
        op.attributes & !flag::ARCHIVE
    } else {
        op.attributes | flag::ARCHIVE
    };
    attributes::write(fd.as_fd(), &stat, Some(wanted), None)?;
    if op.allocation_size > 0 && !is_dir(&stat) {
        allocate(fd, op.allocation_size)?;
    }
    Ok(())
}

/// Reserves room without changing the file's length, where the file system can.
///
/// # Errors
/// As `fallocate`, in particular ENOSPC.
pub fn allocate(fd: impl AsFd, bytes: u64) -> Result<(), Errno> {
    match rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

fn create(
    root: &Root,
    uid: u32,
    op: &CreateOp,
    path: &str,
) -> Result<(OwnedFd, CreateAction), NtStatus> {
    if root.read_only {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let entry = root.entry(path)?;
    let made = if op.must_be_dir {
        create_dir(&entry, op)
    } else {
        match create_unnamed(&entry, op) {
            // No O_TMPFILE on this file system (or an old kernel without it: open(2)), or no way to link the unnamed
            // file.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
                create_private(&entry, op)
            }
            other => other,
        }
    };
    match made {
        Ok(fd) => return Ok((fd, CreateAction::Created)),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(open_status(error)),
    }
    // Our own, from before a crash, or another one.
    if is_ours(root, &entry, path, op.open, uid) {
        if gets_its_name_first(root) && !op.must_be_dir {
            finish(root, op, path)?;
        }
        let again = CreateOp {
            disposition: Disposition::Open,
            ..op.clone()
        };
        return Ok((open_existing(root, &again, path)?, CreateAction::Created));
    }
    if op.disposition == Disposition::Create {
        return Err(NtStatus::OBJECT_NAME_COLLISION);
    }
    // A local process was faster, so the file exists.
    let fd = open_existing(root, op, path)?;
    let found_dir = is_dir(&stat(&fd).map_err(status)?);
    if found_dir != op.must_be_dir
        && (op.must_be_dir || op.must_be_file || overwrites(op.disposition))
    {
        return Err(NtStatus::OBJECT_NAME_COLLISION);
    }
    let action = overwrite(&fd, op)?;
    Ok((fd, action))
}

const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIR_MODE: Mode = Mode::from_raw_mode(0o777);

fn create_unnamed(entry: &Entry, op: &CreateOp) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&entry.dir, c".", flags, FILE_MODE)?;
    stamp(&fd, op.open)?;
    set_initial_attributes(&fd, op)?;
    rustix::fs::linkat(
        CWD,
        fd_path(fd.as_fd()),
        &entry.dir,
        entry.name.as_slice(),
        AtFlags::SYMLINK_FOLLOW,
    )?;
    // To the kernel the descriptor is still that of a file without a name (its path, its watchers): open it by the
    // name.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let named = rustix::fs::openat(&entry.dir, entry.name.as_slice(), flags, Mode::empty());
    match named {
        Ok(named) if key(&stat(&named)?) == key(&stat(&fd)?) => Ok(named),
        _ => Ok(fd),
    }
}

pub(super) fn create_private(entry: &Entry, op: &CreateOp) -> Result<OwnedFd, Errno> {
    let private = names::private(op.open);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&entry.dir, private.as_str(), flags, FILE_MODE);
    let fd = match open() {
        // Left by an attempt before a crash; ids are never used again, so it cannot be another's.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(&entry.dir, private.as_str(), AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    let finished = stamp(&fd, op.open).and_then(|()| set_initial_attributes(&fd, op));
    let finished = match finished.and_then(|()| publish(entry, &private)) {
        Err(Errno::INVAL | Errno::NOSYS) => return publish_by_link(entry, op, &private, fd),
        finished => finished,
    };
    if let Err(error) = finished {
        // A file that cannot be removed stays hidden, and a redo tries again.
        let _ = rustix::fs::unlinkat(&entry.dir, private.as_str(), AtFlags::empty());
        return Err(error);
    }
    Ok(fd)
}

/// Publishes by a link, where no rename fails on an existing name.
///
/// The descriptor is closed before the private name is removed, and the file is opened by the new name: to FUSE the two
/// names are two files, each with a length of its own in the kernel's cache, and a file that is deleted while it is
/// open is hidden.
fn publish_by_link(
    entry: &Entry,
    op: &CreateOp,
    private: &str,
    fd: OwnedFd,
) -> Result<OwnedFd, Errno> {
    let (dir, name) = (&entry.dir, entry.name.as_slice());
    let made = key(&stat(&fd)?);
    drop(fd);
    let linked = rustix::fs::linkat(dir, private, dir, name, AtFlags::empty());
    rustix::fs::unlinkat(dir, private, AtFlags::empty())?;
    match linked {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => return create_named(entry, op),
        linked => linked?,
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let named = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    // Another process has replaced it meanwhile.
    if key(&stat(&named)?) != made {
        return Err(Errno::EXIST);
    }
    Ok(named)
}

/// Returns whether files are made by [`create_named`].
fn gets_its_name_first(root: &Root) -> bool {
    !root.features.hard_links && !root.features.rename_noreplace
}

/// Finishes a [`create_named`] that a crash has interrupted.
fn finish(root: &Root, op: &CreateOp, path: &str) -> Result<(), NtStatus> {
    match root.open_path(path, OFlags::RDWR) {
        Ok(fd) => {
            let stamped = stamp(&fd, op.open);
            stamped
                .and_then(|()| set_initial_attributes(&fd, op))
                .map_err(status)
        }
        // It is READONLY, which is set last.
        Err(NtStatus::ACCESS_DENIED) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates a file under its final name, and stamps it then, where there are no links either.
fn create_named(entry: &Entry, op: &CreateOp) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&entry.dir, entry.name.as_slice(), flags, FILE_MODE)?;
    stamp(&fd, op.open)?;
    set_initial_attributes(&fd, op)?;
    Ok(fd)
}

fn create_dir(entry: &Entry, op: &CreateOp) -> Result<OwnedFd, Errno> {
    let private = names::private(op.open);
    let make = || rustix::fs::mkdirat(&entry.dir, private.as_str(), DIR_MODE);
    match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(&entry.dir, private.as_str(), AtFlags::REMOVEDIR)?;
            make()?;
        }
        other => other?,
    }
    let finish = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&entry.dir, private.as_str(), flags, Mode::empty())?;
        stamp(&fd, op.open)?;
        set_initial_attributes(&fd, op)?;
        match publish(entry, &private) {
            Err(Errno::INVAL | Errno::NOSYS) => publish_dir(entry, &private)?,
            published => published?,
        }
        Ok(fd)
    };
    finish().inspect_err(|_| {
        // A directory that cannot be removed stays hidden, and a redo tries again.
        let _ = rustix::fs::unlinkat(&entry.dir, private.as_str(), AtFlags::REMOVEDIR);
    })
}

/// Gives a file with a private name its final one, if that is free.
fn publish(entry: &Entry, private: &str) -> Result<(), Errno> {
    let name = entry.name.as_slice();
    rustix::fs::renameat_with(
        &entry.dir,
        private,
        &entry.dir,
        name,
        RenameFlags::NOREPLACE,
    )
}

/// Publishes a directory where no rename fails on an existing name: it replaces an empty directory at most.
fn publish_dir(entry: &Entry, private: &str) -> Result<(), Errno> {
    let name = entry.name.as_slice();
    match stat_entry(&entry.dir, name) {
        Err(Errno::NOENT) => {}
        found => return found.and(Err(Errno::EXIST)),
    }
    match rustix::fs::renameat(&entry.dir, private, &entry.dir, name) {
        // Made meanwhile by another process.
        Err(Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => Err(Errno::EXIST),
        other => other,
    }
}

/// The stamp: the open's id, and the inode number, so that a copy with its extended attributes does not count.
fn stamp_of(open: OpenId, ino: u64) -> [u8; 16] {
    let mut stamp = [0; 16];
    let (id, inode) = stamp.split_at_mut(8);
    id.copy_from_slice(&open.to_le_bytes());
    inode.copy_from_slice(&ino.to_le_bytes());
    stamp
}

fn stamp(fd: &OwnedFd, open: OpenId) -> Result<(), Errno> {
    let stamp = stamp_of(open, stat(fd)?.stx_ino);
    match rustix::fs::fsetxattr(fd, STAMP, &stamp, XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

/// Returns whether a file that this open made may lack the stamp.
fn has_no_stamp(root: &Root, error: Errno) -> bool {
    match error {
        Errno::OPNOTSUPP | Errno::NOSYS => true,
        // It gets its name before its stamp.
        Errno::NODATA => gets_its_name_first(root),
        _ => false,
    }
}

/// Returns whether the file of this name was made by this open.
fn is_ours(root: &Root, entry: &Entry, path: &str, open: OpenId, uid: u32) -> bool {
    let Ok(itself) = stat_entry(&entry.dir, &entry.name) else {
        return false;
    };
    let Ok(fd) = root.open_path(path, OFlags::PATH) else {
        return false;
    };
    // The target of a symbolic link was not made by us under this name.
    if !stat(&fd).is_ok_and(|s| key(&s) == key(&itself)) {
        return false;
    }
    let mut found = [0; 16];
    match rustix::fs::getxattr(fd_path(fd.as_fd()), STAMP, &mut found) {
        Ok(16) => found == stamp_of(open, itself.stx_ino),
        Err(error) if has_no_stamp(root, error) => {
            itself.stx_uid == uid && (is_dir(&itself) || itself.stx_size == 0)
        }
        _ => false,
    }
}
