//! Case-insensitive lookup in large directories, without reading the directory each time.
//!
//! The remembered names of a directory are correct because the kernel reports its changes (inotify; the events of a
//! call are queued before that call returns) and the events are read before each use. File systems that change without
//! this kernel's knowledge (network, FUSE) are read each time.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use outlast_fsa::fileop::FileKey;
use outlast_fsa::pattern::{fold, same_name};
use outlast_fsa::short_name::{may_be_computed, short_name};
use outlast_fsa::status::NtStatus;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::attributes::key;
use super::errno::{parent_status, status};
use super::magic::{BCACHEFS, BTRFS, EXT4, F2FS, OVERLAYFS, TMPFS, XFS, ZFS, magic};
use super::names;
use super::path::{fd_path, stat};

/// The number of names from which on a directory is remembered; smaller ones are read each time.
const WORTH_KEEPING_NAMES: usize = 64;
/// The number of names that are remembered in all; beyond it, the least recently used directory is forgotten.
const KEPT_NAMES_MAX: usize = 400_000;
/// File systems that change only through this kernel. The layers beneath an overlayfs must not be changed.
const LOCAL_FILE_SYSTEMS: [u64; 8] = [EXT4, XFS, BTRFS, TMPFS, F2FS, BCACHEFS, ZFS, OVERLAYFS];

/// Size of a batch of directory entries or events, in bytes.
const BATCH_BYTES: usize = 32 * 1024;

struct Directory {
    watch: i32,
    /// Names on disk by folded name; several if they differ only in case.
    names: HashMap<String, Vec<Vec<u8>>>,
    count: usize,
    used: u64,
}

/// The remembered directories.
pub struct Lookup {
    events: Option<OwnedFd>,
    directories: HashMap<FileKey, Directory>,
    by_watch: HashMap<i32, FileKey>,
    uses: u64,
}

impl Default for Lookup {
    /// Makes an empty one. Without inotify every search reads the directory.
    fn default() -> Lookup {
        Lookup {
            events: inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
                .inspect_err(|error| {
                    log::warn!("no inotify, large directories will be slow: {error}")
                })
                .ok(),
            directories: HashMap::new(),
            by_watch: HashMap::new(),
            uses: 0,
        }
    }
}

impl Lookup {
    /// Finds the name on disk that equals `name` except for case, in a directory that may be open with O_PATH: the
    /// first in byte order if there are several.
    ///
    /// # Errors
    /// If the directory cannot be read for another reason than its permissions.
    pub fn find(&mut self, dir: BorrowedFd<'_>, name: &str) -> Result<Option<Vec<u8>>, NtStatus> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, c".", flags, Mode::empty()) {
            Ok(fd) => self.find_in(&fd, name),
            // The directory may be searched but not read: only exact names can be found.
            Err(Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(error) => Err(parent_status(error)),
        }
    }

    /// The same in a directory open for reading.
    ///
    /// # Errors
    /// As `getdents64`.
    pub fn find_in(&mut self, fd: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>, NtStatus> {
        self.follow_events();
        self.uses += 1;
        let key = key(&stat(fd).map_err(status)?);
        if let Some(known) = self.directories.get_mut(&key) {
            known.used = self.uses;
            return Ok(known.find(name));
        }
        let mut found = Found::new(name);
        let mut count = 0;
        rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(0)).map_err(status)?;
        read_names(fd, |entry| {
            count += 1;
            found.look_at(entry);
        })
        .map_err(status)?;
        if (WORTH_KEEPING_NAMES..=KEPT_NAMES_MAX / 2).contains(&count) {
            self.keep(key, fd);
        }
        Ok(found.best())
    }

    /// Watches the directory, then reads it, so that no change is missed in between.
    fn keep(&mut self, key: FileKey, fd: &OwnedFd) {
        let Some(events) = &self.events else { return };
        let is_local = magic(fd).is_ok_and(|magic| LOCAL_FILE_SYSTEMS.contains(&magic));
        if !is_local {
            return;
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        let Ok(watch) = inotify::add_watch(events, fd_path(fd.as_fd()), flags) else {
            return;
        };
        let mut directory = Directory {
            watch,
            names: HashMap::new(),
            count: 0,
            used: self.uses,
        };
        let read = rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(0))
            .and_then(|_| read_names(fd, |name| directory.add(name)));
        self.by_watch.insert(watch, key);
        self.directories.insert(key, directory);
        if read.is_err() {
            self.drop_directory(key);
        }
        while self.directories.values().map(|d| d.count).sum::<usize>() > KEPT_NAMES_MAX {
            let oldest = self.directories.iter().min_by_key(|(_, d)| d.used);
            let Some(oldest) = oldest.map(|(&key, _)| key) else {
                return;
            };
            self.drop_directory(oldest);
        }
    }

    fn drop_directory(&mut self, key: FileKey) {
        if let Some(directory) = self.directories.remove(&key) {
            self.by_watch.remove(&directory.watch);
            if let Some(events) = &self.events {
                // Fails if the directory is removed, and the watch with it.
                let _ = inotify::remove_watch(events, directory.watch);
            }
        }
    }

    /// The number of remembered directories.
    #[cfg(test)]
    pub fn known(&self) -> usize {
        self.directories.len()
    }

    fn follow_events(&mut self) {
        let Some(events) = &self.events else { return };
        if self.directories.is_empty() {
            return;
        }
        let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
        let mut reader = inotify::Reader::new(events, &mut buffer);
        let mut lost = false;
        let mut gone = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    lost = true;
                    break;
                }
            };
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                lost = true;
                continue;
            }
            let Some(&key) = self.by_watch.get(&event.wd()) else {
                continue;
            };
            if what.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
                gone.push(key);
                continue;
            }
            let (Some(name), Some(directory)) = (event.file_name(), self.directories.get_mut(&key))
            else {
                continue;
            };
            directory.remove(name.to_bytes());
            if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                directory.add(name.to_bytes());
            }
        }
        if lost {
            gone = self.directories.keys().copied().collect();
        }
        for key in gone {
            self.drop_directory(key);
        }
    }
}

/// The entry for a name: the one that equals it except for case, otherwise the one with this 8.3 name. The first in
/// byte order if there are several.
struct Found<'a> {
    name: &'a str,
    may_be_short: bool,
    long: Option<Vec<u8>>,
    short: Option<Vec<u8>>,
}

impl<'a> Found<'a> {
    fn new(name: &'a str) -> Found<'a> {
        Found {
            name,
            may_be_short: may_be_computed(name),
            long: None,
            short: None,
        }
    }

    fn look_at(&mut self, entry: &[u8]) {
        let shown = names::from_disk(entry);
        let best = if same_name(&shown, self.name) {
            &mut self.long
        } else if self.may_be_short && same_name(&short_name(&shown), self.name) {
            &mut self.short
        } else {
            return;
        };
        if best.as_deref().is_none_or(|best| entry < best) {
            *best = Some(entry.to_vec());
        }
    }

    fn best(self) -> Option<Vec<u8>> {
        self.long.or(self.short)
    }
}

impl Directory {
    fn find(&self, name: &str) -> Option<Vec<u8>> {
        let same = self.names.get(&fold(name));
        if let Some(found) = same.and_then(|names| names.iter().min()) {
            return Some(found.clone());
        }
        let mut found = Found::new(name);
        if found.may_be_short {
            self.names
                .values()
                .flatten()
                .for_each(|entry| found.look_at(entry));
        }
        found.best()
    }

    fn add(&mut self, name: &[u8]) {
        let same = self.names.entry(fold(&names::from_disk(name))).or_default();
        if !same.iter().any(|n| n == name) {
            same.push(name.to_vec());
            self.count += 1;
        }
    }

    fn remove(&mut self, name: &[u8]) {
        let folded = fold(&names::from_disk(name));
        if let Some(same) = self.names.get_mut(&folded) {
            let before = same.len();
            same.retain(|n| n != name);
            self.count -= before - same.len();
            if same.is_empty() {
                self.names.remove(&folded);
            }
        }
    }
}

/// Calls `each` with every name in an open directory, except ".", ".." and the server's own, from its current offset.
///
/// # Errors
/// As `getdents64`.
pub fn read_names(fd: &OwnedFd, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !names::is_private(name) {
            each(name);
        }
    }
    Ok(())
}
