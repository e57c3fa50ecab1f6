//! Keeps the clients' opens, and a bounded number of descriptors of their files.
//!
//! An open keeps the data by which its file is found. After a recovery no descriptor is open; an operation that needs
//! one opens the file again, by its handle or else by its path, and checks its identity. When there are too many
//! descriptors, the least recently used are closed. A handle leads to a file wherever it was moved, but a path does
//! not: where there are no handles (without CAP_DAC_READ_SEARCH, or on a file system that has none), a local process
//! that renames a file would take it from its client. There, descriptors are closed only when the kernel has no more.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use outlast_fsa::access;
use outlast_fsa::fileop::{Actor, FileHandle, FileKey, FileOp, Metadata, OpenId, ShareId, Times};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;
use outlast_smb::OpenInfo;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::data::Content;
use super::errno::{open_status, status};
use super::path::{Root, disk_path, stat};
use super::streams::{self, Stream};
use super::{Fs, attributes, find_root, handle, names, times};

/// The largest number of descriptors of files, whatever the process may have: each keeps an inode in the kernel's
/// memory, and the kernel closes them one by one when a worker dies.
const DESCRIPTORS_MAX: usize = 16_384;
/// Descriptors left for other purposes: TAP, log, shares, sockets, temporary ones during an operation. At most half of
/// all.
const RESERVE: usize = 256;
/// The number of descriptors that are considered for closing: the files of some have lost their names, and closing
/// these would lose the files.
const CANDIDATES: usize = 8;
/// How often an operation that found no free descriptor is tried again, each time with half of the others closed.
const ATTEMPTS: usize = 4;

/// The data by which the file of an open is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The account for which it was opened.
    pub actor: Actor,
    /// The path of its file beneath the share, updated by our own renames only.
    pub path: String,
    /// The name of the named stream that is open, as on disk.
    pub stream: Option<String>,
    /// Its path if the rename that was under way at a crash was done.
    pub moved_to: Option<String>,
    /// The file's identity.
    pub key: FileKey,
    /// Its handle.
    pub handle: FileHandle,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether its data may be read.
    pub readable: bool,
    /// Whether its data may be written.
    pub writable: bool,
    /// The times that operations on it do not change.
    pub stopped: Times,
}

impl Known {
    /// Makes it from the record of an open. The rights were checked when it was first opened, and the client keeps
    /// them.
    #[must_use]
    pub fn from_record(open: OpenInfo) -> Known {
        let (path, stream) = stream::split(&open.path);
        let moved_to = open.moved_to.map(|path| stream::split(&path).0.to_owned());
        Known {
            actor: open.actor,
            path: path.to_owned(),
            stream: stream.map(str::to_owned),
            moved_to,
            key: open.key,
            handle: open.handle,
            is_dir: open.is_dir,
            readable: open.granted_access & access::READS != 0,
            writable: open.granted_access & access::WRITES != 0 && !open.is_dir,
            stopped: open.stopped,
        }
    }

    /// Its share.
    #[must_use]
    pub fn share(&self) -> ShareId {
        self.actor.share
    }

    fn flags(&self) -> OFlags {
        // Extended attributes are reached by the path of the descriptor.
        if self.stream.is_some() {
            return OFlags::PATH;
        }
        match (self.readable, self.writable) {
            (true, _) if self.is_dir => OFlags::RDONLY | OFlags::DIRECTORY,
            (true, true) => OFlags::RDWR,
            (true, false) => OFlags::RDONLY,
            (false, true) => OFlags::WRONLY,
            (false, false) => OFlags::PATH,
        }
    }

    fn is(&self, fd: &OwnedFd) -> Result<bool, Errno> {
        Ok(attributes::key(&stat(fd)?) == self.key)
    }
}

/// An open with an open descriptor.
pub struct OpenFile {
    known: Known,
    /// The descriptor; O_PATH if no access to data was requested. The writer thread also holds it while it writes.
    pub fd: Arc<OwnedFd>,
    used: u64,
    /// Whether the file is found again wherever it is moved.
    lasts: bool,
}

impl Deref for OpenFile {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

impl OpenFile {
    /// Its current attributes, from the file system.
    ///
    /// # Errors
    /// As `statx`.
    pub fn metadata(&self) -> Result<Metadata, NtStatus> {
        let metadata = self.file_metadata()?;
        match self.as_stream() {
            None => Ok(metadata),
            Some(stream) => Ok(streams::metadata(metadata, stream.length()?)),
        }
    }

    /// As [`OpenFile::metadata`]; also of a named stream that a local process has removed.
    pub(super) fn last_metadata(&self) -> Result<Metadata, NtStatus> {
        match self.metadata() {
            Err(NtStatus::FILE_CLOSED) if self.stream.is_some() => {
                Ok(streams::metadata(self.file_metadata()?, 0))
            }
            metadata => metadata,
        }
    }

    /// The current attributes of its file, also of one with a named stream that is open.
    pub(super) fn file_metadata(&self) -> Result<Metadata, NtStatus> {
        let stat = stat(&self.fd).map_err(status)?;
        let dos = attributes::read(self.fd.as_fd());
        let name = names::split(&self.path).map_or("", |(_, name)| name);
        Ok(attributes::metadata(&stat, &dos, name))
    }

    /// The named stream that is open.
    pub(super) fn as_stream(&self) -> Option<Stream<'_>> {
        let name = self.stream.as_deref()?;
        Some(Stream::new(self.fd.as_fd(), name))
    }

    /// Its content.
    pub(super) fn content(&self) -> Content<'_> {
        match self.as_stream() {
            Some(stream) => Content::Stream(stream),
            None => Content::File(self.fd.as_fd()),
        }
    }

    /// Returns whether the file has a name: closing the descriptor of one without would lose it.
    fn has_name(&self) -> bool {
        stat(&self.fd).is_ok_and(|stat| stat.stx_nlink > 0)
    }
}

/// All opens.
pub struct Opens {
    open: HashMap<OpenId, OpenFile>,
    /// The opens whose descriptors are closed.
    closed: HashMap<OpenId, Known>,
    /// The open ones that can be found again, by last use.
    order: BTreeMap<u64, OpenId>,
    uses: u64,
    /// The largest number of descriptors.
    limit: usize,
}

impl Default for Opens {
    /// Without opens, and with as many descriptors as the process may have.
    fn default() -> Opens {
        let all = getrlimit(Resource::Nofile).current;
        let all = all.map_or(usize::MAX, |all| usize::try_from(all).unwrap_or(usize::MAX));
        Opens::limited(all.saturating_sub(RESERVE.min(all / 2)))
    }
}

impl Opens {
    /// Without opens, and with at most this many descriptors.
    #[must_use]
    pub fn limited(limit: usize) -> Opens {
        Opens {
            open: HashMap::new(),
            closed: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            // a copy within the server takes two
            limit: limit.clamp(2, DESCRIPTORS_MAX),
        }
    }

    /// Adds an open whose file has just been opened. `lasts`: it is found again wherever it is moved.
    pub fn insert(&mut self, id: OpenId, known: Known, fd: OwnedFd, lasts: bool) {
        self.forget(id);
        self.make_room();
        let file = OpenFile {
            known,
            fd: Arc::new(fd),
            used: 0,
            lasts,
        };
        if file.stopped.access {
            times::stop_access(&file);
        }
        self.open.insert(id, file);
        self.touch(id);
    }

    /// Adds an open whose file is opened when it is used.
    pub fn remember(&mut self, id: OpenId, known: Known) {
        self.forget(id);
        self.closed.insert(id, known);
    }

    /// Ends an open.
    pub fn forget(&mut self, id: OpenId) {
        self.closed.remove(&id);
        if let Some(file) = self.open.remove(&id) {
            self.order.remove(&file.used);
        }
    }

    /// Returns an open with an open descriptor.
    ///
    /// # Errors
    /// FILE_CLOSED: there is none.
    pub fn get(&self, id: OpenId) -> Result<&OpenFile, NtStatus> {
        self.open.get(&id).ok_or(NtStatus::FILE_CLOSED)
    }

    /// Returns the data of an open.
    pub(super) fn known_mut(&mut self, id: OpenId) -> Option<&mut Known> {
        let open = self.open.get_mut(&id).map(|file| &mut file.known);
        open.or_else(|| self.closed.get_mut(&id))
    }

    /// Every open.
    pub fn all(&self) -> impl Iterator<Item = &Known> {
        let open = self.open.values().map(|file| &file.known);
        open.chain(self.closed.values())
    }

    /// The number of open descriptors.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.open.len()
    }

    /// Updates the path of all opens of a file that was renamed.
    pub fn moved(&mut self, share: ShareId, key: FileKey, from: &str, to: &str) {
        let open = self.open.values_mut().map(|file| &mut file.known);
        for known in open.chain(self.closed.values_mut()) {
            if known.key == key && known.share() == share && known.path == from {
                to.clone_into(&mut known.path);
            }
        }
    }

    /// Updates the name of all opens of a named stream that was renamed.
    pub(super) fn stream_moved(&mut self, key: FileKey, from: &str, to: &str) {
        let open = self.open.values_mut().map(|file| &mut file.known);
        for known in open.chain(self.closed.values_mut()) {
            if known.key == key && known.stream.as_deref() == Some(from) {
                known.stream = Some(to.to_owned());
            }
        }
    }

    /// Returns whether an open is of a named stream.
    pub(super) fn is_of_stream(&self, id: OpenId) -> bool {
        let open = self.open.get(&id).map(|file| &file.known);
        let known = open.or_else(|| self.closed.get(&id));
        known.is_some_and(|known| known.stream.is_some())
    }

    /// Marks an open as used; false if its descriptor is closed.
    fn touch(&mut self, id: OpenId) -> bool {
        let Some(file) = self.open.get_mut(&id) else {
            return false;
        };
        self.order.remove(&file.used);
        self.uses += 1;
        file.used = self.uses;
        if file.lasts {
            self.order.insert(file.used, id);
        }
        true
    }

    /// Closes the least recently used, until there is room for one more.
    fn make_room(&mut self) {
        for _ in 0..CANDIDATES {
            let oldest = self.order.first_key_value().map(|(_, id)| *id);
            let Some(id) = oldest.filter(|_| self.open.len() >= self.limit) else {
                return;
            };
            if !self.shut(id) {
                self.touch(id);
            }
        }
    }

    /// Closes a descriptor, unless that would lose its file.
    fn shut(&mut self, id: OpenId) -> bool {
        if !self.open.get(&id).is_some_and(OpenFile::has_name) {
            return false;
        }
        if let Some(file) = self.open.remove(&id) {
            self.order.remove(&file.used);
            self.closed.insert(id, file.known);
        }
        true
    }

    /// Closes the descriptors of a share's files, which have become useless. Returns the opens.
    pub(super) fn shut_all(&mut self, share: ShareId) -> Vec<OpenId> {
        let open = self.open.iter();
        let of_share = open.filter(|(_, file)| file.share() == share);
        let ids: Vec<OpenId> = of_share.map(|(id, _)| *id).collect();
        for id in &ids {
            if let Some(file) = self.open.remove(id) {
                self.order.remove(&file.used);
                self.closed.insert(*id, file.known);
            }
        }
        ids
    }

    /// Frees descriptors when the kernel has none left: closes half of the open ones, those that cannot be found again
    /// last. False: there was none to close.
    fn spare(&mut self) -> bool {
        let mut all: Vec<(bool, u64, OpenId)> = self
            .open
            .iter()
            .map(|(id, file)| (!file.lasts, file.used, *id))
            .collect();
        all.sort_unstable();
        let wanted = all.len().div_ceil(2);
        let shut = all.into_iter().filter(|(_, _, id)| self.shut(*id));
        shut.take(wanted).count() > 0
    }
}

/// The opens that an operation uses. A CREATE uses none: it makes one.
fn used(op: &FileOp) -> impl Iterator<Item = OpenId> {
    let (first, second) = match op {
        FileOp::Create(_) => (None, None),
        FileOp::CopyChunks { source, target, .. } => (Some(*source), Some(*target)),
        op => (Some(op.open()), None),
    };
    first.into_iter().chain(second)
}

impl Fs {
    /// Runs an operation that may need descriptors; if there is none left, again, with others closed.
    pub(super) fn with_descriptors<T>(
        &mut self,
        mut what: impl FnMut(&mut Fs) -> Result<T, NtStatus>,
    ) -> Result<T, NtStatus> {
        for _ in 0..ATTEMPTS {
            match what(self) {
                Err(NtStatus::TOO_MANY_OPENED_FILES) if self.opens.spare() => {}
                other => return other,
            }
        }
        what(self)
    }

    /// Opens the files that an operation uses, where they are not open.
    ///
    /// # Errors
    /// FILE_CLOSED if a file is certainly deleted, which is logged once; any other error applies to this attempt only,
    /// and the open stays.
    pub(super) fn ready(&mut self, op: &FileOp) -> Result<(), NtStatus> {
        for id in used(op) {
            if self.is_ready(id)? {
                continue;
            }
            let known = self.opens.closed.get(&id).map(|known| known.path.clone());
            self.opens.forget(id);
            // The file of a close may have been deleted by that close, before a crash.
            if !matches!(op, FileOp::Close { .. }) {
                let path = known.unwrap_or_default();
                log::warn!("{path}: cannot be opened again, it was deleted");
            }
            return Err(NtStatus::FILE_CLOSED);
        }
        Ok(())
    }

    /// Opens the file of an open, if it is not open. False: it is certainly deleted.
    ///
    /// # Errors
    /// FILE_CLOSED if there is no such open; any other error applies to this attempt only.
    pub(super) fn is_ready(&mut self, id: OpenId) -> Result<bool, NtStatus> {
        if self.opens.touch(id) {
            return Ok(true);
        }
        let known = self.opens.closed.get(&id).cloned();
        let known = known.ok_or(NtStatus::FILE_CLOSED)?;
        let Some(fd) = self.find_again(&known)? else {
            return Ok(false);
        };
        let lasts = find_root(&self.roots, known.share())?.keeps(&known);
        self.opens.insert(id, known, fd, lasts);
        Ok(true)
    }

    /// Opens a file by its handle, otherwise by its path. `None`: it is certainly deleted.
    fn find_again(&mut self, known: &Known) -> Result<Option<OwnedFd>, NtStatus> {
        let root = find_root(&self.roots, known.share())?;
        let mut is_refused = false;
        if let Some(mount) = root.mount.as_ref().filter(|_| root.features.handles) {
            let flags = known.flags() | OFlags::NONBLOCK;
            match handle::open(mount.as_fd(), &known.handle, flags) {
                Ok(fd) if known.is(&fd).map_err(status)? => return Ok(Some(fd)),
                // The server's own rights do not suffice, so the file exists.
                Err(Errno::ACCESS) => is_refused = true,
                Err(error) if !leaves_the_path(error) => return Err(open_status(error)),
                Ok(_) | Err(_) => {}
            }
        }
        let paths = [Some(&known.path), known.moved_to.as_ref()];
        for path in paths.into_iter().flatten() {
            let found = self.open_by_path(known, path)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if is_refused {
            return Err(NtStatus::ACCESS_DENIED);
        }
        match find_root(&self.roots, known.share())?.has_device(known) {
            true => Ok(None),
            // Its file system is not mounted, or is another one now.
            false => Err(NtStatus::IO_DEVICE_ERROR),
        }
    }

    /// Opens the file at a path, if it is the right one; with the server's own rights, or with the account's where
    /// these do not suffice (NFS).
    fn open_by_path(&mut self, known: &Known, path: &str) -> Result<Option<OwnedFd>, NtStatus> {
        let disk = disk_path(path)?;
        let mut opened = find_root(&self.roots, known.share())?.open_disk(&disk, known.flags());
        if let Err(Errno::ACCESS | Errno::PERM) = opened {
            let (_, _assumed) = self.account(&known.actor)?;
            opened = find_root(&self.roots, known.share())?.open_disk(&disk, known.flags());
        }
        match opened {
            Ok(fd) => Ok(known.is(&fd).map_err(status)?.then_some(fd)),
            Err(error) if is_another(error) => Ok(None),
            Err(error) => Err(open_status(error)),
        }
    }
}

/// Returns whether an error of `open_by_handle_at` leaves the path to try: the file does not exist (ESTALE), or handles
/// cannot be used (EPERM: no right; others: not on this file system).
fn leaves_the_path(error: Errno) -> bool {
    matches!(
        error,
        Errno::STALE | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL
    )
}

/// Returns whether an error of `openat2` says that the path leads to nothing, or to another kind of file than was
/// opened.
pub(super) fn is_another(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::XDEV | Errno::LOOP | Errno::NXIO
    )
}

impl Root {
    /// Returns whether a file is found again by its handle, wherever it is moved.
    pub(super) fn keeps(&self, known: &Known) -> bool {
        self.by_handle == Some(known.key.dev) && !known.handle.bytes.is_empty()
    }

    /// Returns whether the path of a file still leads to its file system.
    fn has_device(&self, known: &Known) -> bool {
        let mut path = known.path.as_str();
        loop {
            let disk = disk_path(path).unwrap_or_default();
            if let Ok(dir) = self.open_disk(&disk, OFlags::PATH)
                && let Ok(stat) = stat(&dir)
                && attributes::key(&stat).dev == known.key.dev
            {
                return true;
            }
            match names::split(path) {
                Some((parent, _)) => path = parent,
                None => return false,
            }
        }
    }
}
