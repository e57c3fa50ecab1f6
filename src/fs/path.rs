//! Path resolution: from a client's path to a file beneath the share.
//!
//! Every walk is one `openat2` from the share's root with RESOLVE_BENEATH: symbolic links that stay inside are followed
//! (absolute ones by [`super::links`]), and no concurrent change can lead outside. A link that leads outside the share
//! or to nothing is opened itself: it is visible and can be deleted, but not read. Case does not matter: the name as
//! given is tried first, then the directory is searched.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use outlast_fsa::fileop::{FileKey, ShareId};
use outlast_fsa::status::NtStatus;
use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use super::attributes::{self, key};
use super::errno::{open_status, parent_status, status};
use super::features::{self, Features};
use super::lookup::Lookup;
use super::magic::{OVERLAYFS, magic};
use super::{handle, names, volume};

/// Longest path on disk in bytes (PATH_MAX, without the NUL).
const PATH_MAX: usize = 4095;

/// A share's directory, held open.
pub struct Root {
    /// The share.
    pub share: ShareId,
    /// Its path, for messages.
    pub path: PathBuf,
    /// O_PATH descriptor from which walks begin. Watches of its directories share it.
    pub dir: Rc<OwnedFd>,
    /// Readable descriptor that selects the mount for `open_by_handle_at`. `None` if the server may not read the
    /// directory.
    pub mount: Option<OwnedFd>,
    /// The magic number of its file system, if files there can be opened by handle.
    pub by_handle: Option<u64>,
    /// Its identity.
    pub key: FileKey,
    /// The features of its file system.
    pub features: Features,
    /// Nothing in it may be changed.
    pub read_only: bool,
    /// The account whose rights apply, if configured.
    pub run_as: Option<String>,
}

/// The result of resolving a path.
pub struct Located {
    /// The path with the case on disk; its last component as given if it does not exist.
    pub path: String,
    /// O_PATH descriptor of the file, symbolic links followed.
    pub file: Option<OwnedFd>,
}

/// A directory on the way to a path.
pub struct Directory {
    /// Its path with the case on disk.
    pub path: String,
    /// O_PATH descriptor of it.
    fd: OwnedFd,
}

/// The directory that contains, or will contain, an entry, and the entry's name in it.
pub struct Entry {
    /// O_PATH descriptor of the directory.
    pub dir: OwnedFd,
    /// Name on disk.
    pub name: Vec<u8>,
}

/// Opens a share's directory.
///
/// # Errors
/// The error of `open`, in words that name the path.
pub fn open_root(
    share: ShareId,
    path: &Path,
    read_only: bool,
    run_as: Option<String>,
) -> anyhow::Result<Root> {
    let open = |flags| {
        rustix::fs::open(
            path,
            flags | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let dir = open(OFlags::PATH).map_err(|error| match error {
        Errno::NOENT => anyhow::anyhow!("share directory {} does not exist", path.display()),
        Errno::NOTDIR => anyhow::anyhow!("share path {} is not a directory", path.display()),
        error => anyhow::anyhow!(
            "share directory {} cannot be opened: {error}",
            path.display()
        ),
    })?;
    let mount = open(OFlags::RDONLY).ok();
    let key = key(&stat(&dir)?);
    let by_handle = mount.as_ref().and_then(|mount| {
        let opened = handle::open(mount.as_fd(), &handle::of(dir.as_fd()), OFlags::PATH).ok()?;
        Some(attributes::key(&stat(&opened).ok()?).dev)
    });
    let features = features::probe(dir.as_fd(), read_only, by_handle.is_some())
        .with_context(|| format!("share directory {}", path.display()))?;
    let by_handle = by_handle.filter(|_| features.handles);
    Ok(Root {
        share,
        path: path.to_owned(),
        dir: Rc::new(dir),
        mount,
        by_handle,
        key,
        features,
        read_only,
        run_as,
    })
}

impl Root {
    /// The restrictions of its file system compared with ext4, XFS and btrfs: a sentence each, with the directory.
    pub fn weaker(&self) -> impl Iterator<Item = String> + use<'_> {
        let (path, kind) = (self.path.display(), &self.features.kind);
        let lines = self.features.weaker().into_iter();
        lines.map(move |line| format!("{path} ({kind}): {line}"))
    }

    /// Opens the target of a path on disk, never outside the share and never waiting (FIFOs, leases).
    ///
    /// # Errors
    /// As `openat2`.
    pub fn open_disk(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let opened = match open_beneath(self.dir.as_fd(), path, flags) {
            // An absolute link, or one that leads outside.
            Err(Errno::XDEV) => self.without_links(path).and_then(|path| {
                let path: &[u8] = if path.is_empty() { b"." } else { &path };
                open_beneath(self.dir.as_fd(), path, flags)
            }),
            other => other,
        };
        opened.or_else(|error| link_itself(self.dir.as_fd(), path, flags, error))
    }

    /// Opens the target of a name in a directory, as [`Root::open_disk`] does, without the walk to the directory.
    fn open_in(&self, dir: &Directory, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        match open_beneath(dir.fd.as_fd(), name, flags) {
            // A symbolic link that leaves the directory may stay in the share.
            Err(Errno::XDEV) => {
                let mut path = disk_path(&dir.path).map_err(|_| Errno::NAMETOOLONG)?;
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                self.open_disk(&path, flags)
            }
            other => other.or_else(|error| link_itself(dir.fd.as_fd(), name, flags, error)),
        }
    }

    /// Opens the path exactly as written.
    ///
    /// # Errors
    /// The status for the path's last component.
    pub fn open_path(&self, path: &str, flags: OFlags) -> Result<OwnedFd, NtStatus> {
        self.open_disk(&disk_path(path)?, flags)
            .map_err(open_status)
    }

    /// The directory that holds the path's last component (exactly as written), and that component.
    ///
    /// # Errors
    /// ACCESS_DENIED for the root itself; OBJECT_PATH_NOT_FOUND.
    pub fn entry(&self, path: &str) -> Result<Entry, NtStatus> {
        let (parent, name) = names::split(path).ok_or(NtStatus::ACCESS_DENIED)?;
        let name = names::to_disk(name)?;
        let dir = self
            .open_disk(&disk_path(parent)?, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(parent_status)?;
        Ok(Entry { dir, name })
    }

    /// The identity of the directory that contains the path's last component; for the root, its own.
    ///
    /// # Errors
    /// OBJECT_PATH_NOT_FOUND; as `statx`.
    pub fn directory_of(&self, path: &str) -> Result<FileKey, NtStatus> {
        let found = match path {
            "" => stat(&*self.dir),
            path => stat(&self.entry(path)?.dir),
        };
        Ok(key(&found.map_err(status)?))
    }

    /// Resolves a path without regard to case.
    ///
    /// # Errors
    /// OBJECT_PATH_NOT_FOUND if a component before the last is missing or is no directory; ACCESS_DENIED;
    /// OBJECT_NAME_INVALID.
    pub fn locate(&self, path: &str, lookup: &mut Lookup) -> Result<Located, NtStatus> {
        let disk = disk_path(path)?;
        match self.open_disk(&disk, OFlags::PATH) {
            Ok(file) => {
                return Ok(Located {
                    path: names::as_shown(path),
                    file: Some(file),
                });
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(status(error)),
        }
        let (parent, last) = names::split(path).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        let parent = self.locate_dir(parent, lookup)?;
        self.locate_in(&parent, last, lookup)
    }

    /// Resolves a directory's path without regard to case.
    ///
    /// # Errors
    /// OBJECT_PATH_NOT_FOUND; ACCESS_DENIED; OBJECT_NAME_INVALID.
    pub fn locate_dir(&self, path: &str, lookup: &mut Lookup) -> Result<Directory, NtStatus> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = |path: &str, fd| Directory {
            path: names::as_shown(path),
            fd,
        };
        match self.open_disk(&disk_path(path)?, flags) {
            Ok(fd) => return Ok(directory(path, fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(parent_status(error)),
        }
        let top = self.open_disk(b"", flags).map_err(parent_status)?;
        let mut found = directory("", top);
        for component in path.split('/') {
            let next = self.locate_in(&found, component, lookup)?;
            let fd = next.file.ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
            found = Directory {
                path: next.path,
                fd,
            };
        }
        Ok(found)
    }

    /// Resolves one name in a directory without regard to case.
    ///
    /// # Errors
    /// As [`Root::locate`].
    pub fn locate_in(
        &self,
        parent: &Directory,
        name: &str,
        lookup: &mut Lookup,
    ) -> Result<Located, NtStatus> {
        let exact = names::join(&parent.path, &names::as_shown(name));
        disk_path(&exact)?;
        match self.open_in(parent, &names::to_disk(name)?, OFlags::PATH) {
            Ok(file) => {
                return Ok(Located {
                    path: exact,
                    file: Some(file),
                });
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(parent_status(error)),
        }
        if let Some(other) = lookup.find(parent.fd.as_fd(), name)? {
            match self.open_in(parent, &other, OFlags::PATH) {
                Ok(file) => {
                    return Ok(Located {
                        path: names::join(&parent.path, &names::from_disk(&other)),
                        file: Some(file),
                    });
                }
                // Removed meanwhile, or a symbolic link to nothing.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(status(error)),
            }
        }
        Ok(Located {
            path: exact,
            file: None,
        })
    }

    /// The current path of an open file beneath this root; `None` if it has no name here.
    pub fn current_path(&self, fd: BorrowedFd<'_>) -> Option<String> {
        use std::os::unix::ffi::OsStrExt;
        let link = |fd: BorrowedFd<'_>| {
            rustix::fs::readlink(fd_path(fd), Vec::new()).map(std::ffi::CString::into_bytes)
        };
        let root = link(self.dir.as_fd()).ok()?;
        let file = link(fd).ok()?;
        let relative = Path::new(std::ffi::OsStr::from_bytes(&file))
            .strip_prefix(std::ffi::OsStr::from_bytes(&root))
            .ok()?;
        let shown: Vec<String> = relative
            .iter()
            .map(|component| names::from_disk(component.as_bytes()))
            .collect();
        Some(shown.join("/"))
    }
}

/// Calls `openat2` beneath a directory, again if a concurrent rename disturbed the walk.
///
/// # Errors
/// As `openat2`.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = if flags.contains(OFlags::PATH) {
        flags
    } else {
        flags | OFlags::NONBLOCK | OFlags::NOCTTY
    };
    let mut attempts = 0;
    loop {
        let opened = rustix::fs::openat2(
            dir,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        // openat2(2): EAGAIN when a rename elsewhere raced with the walk; also EINTR on network file systems.
        match opened {
            Err(Errno::AGAIN | Errno::INTR) if attempts < 8 => attempts += 1,
            other => return other,
        }
    }
}

/// Opens the symbolic link at a path that cannot be followed: to nothing, outside the share, in a circle. `error`: the
/// reason.
fn link_itself(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    error: Errno,
) -> Result<OwnedFd, Errno> {
    let is_unfollowed = matches!(error, Errno::NOENT | Errno::XDEV | Errno::LOOP);
    if !is_unfollowed || !flags.contains(OFlags::PATH) {
        return Err(error);
    }
    open_beneath(dir, path, flags | OFlags::NOFOLLOW).map_err(|_| error)
}

/// A client's path as bytes on disk.
///
/// # Errors
/// OBJECT_NAME_INVALID, NAME_TOO_LONG.
pub fn disk_path(path: &str) -> Result<Vec<u8>, NtStatus> {
    let mut disk = Vec::with_capacity(path.len());
    if path.is_empty() {
        return Ok(disk);
    }
    for component in path.split('/') {
        if !disk.is_empty() {
            disk.push(b'/');
        }
        disk.extend_from_slice(&names::to_disk(component)?);
        if disk.len() > PATH_MAX {
            return Err(NtStatus::NAME_TOO_LONG);
        }
    }
    Ok(disk)
}

/// A path to the open file itself, also for descriptors opened with O_PATH, which the `f…` calls refuse.
#[must_use]
pub fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Checks whether the account that the thread runs as has this access to an open file.
///
/// # Errors
/// As `access`: EACCES, and EROFS for writing.
pub fn may_access(fd: BorrowedFd<'_>, access: Access) -> Result<(), Errno> {
    // AT_EACCESS: by the file system ids, not the real ones.
    rustix::fs::accessat(CWD, fd_path(fd), access, AtFlags::EACCESS)
}

/// The fields that are needed for every file.
const STATX_MASK: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(volume::STATX_MASK);

/// `statx` of an open file.
///
/// # Errors
/// As `statx`.
pub fn stat(fd: impl AsFd) -> Result<Statx, Errno> {
    let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATX_MASK)?;
    volume::learn(fd.as_fd(), &stat);
    without_fleeting_birth(stat, fd)
}

/// `statx` of a directory's entry itself, symbolic links not followed.
///
/// # Errors
/// As `statx`.
pub fn stat_entry(dir: impl AsFd, name: &[u8]) -> Result<Statx, Errno> {
    let entry = rustix::fs::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, STATX_MASK)?;
    let is_mount = entry.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    if is_mount || !volume::is_known(&entry) {
        // It may be on another kind of file system than the directory.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        return stat(rustix::fs::openat(&dir, name, flags, Mode::empty())?);
    }
    without_fleeting_birth(entry, dir)
}

/// overlayfs reports the birth of the copy that it makes when a file is first written: there files are identified
/// without it.
fn without_fleeting_birth(mut stat: Statx, on: impl AsFd) -> Result<Statx, Errno> {
    // Its devices have no major number.
    if stat.stx_dev_major == 0 && magic(on)? == OVERLAYFS {
        stat.stx_mask &= !StatxFlags::BTIME.bits();
    }
    Ok(stat)
}
