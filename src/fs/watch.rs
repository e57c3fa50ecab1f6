//! Watches directories for clients, to report changes made by others (inotify).

use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use outlast_fsa::fileop::{Change, ChangeKind, FileTime, OpenId, ShareId};
use outlast_fsa::notify::filter;
use outlast_fsa::status::NtStatus;
use outlast_smb::WatchInfo;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, Statx};
use rustix::io::Errno;

use super::attributes::to_file_time;
use super::errno::status;
use super::names;
use super::opens::OpenFile;
use super::path::{Root, disk_path, fd_path, stat, stat_entry};

/// The largest number of directories watched for one open; changes beyond it in a larger tree are missed, which is
/// logged.
const DIRECTORIES_PER_OPEN_MAX: usize = 8192;
/// The largest number of changes kept until they are read; beyond it they are lost, and that is reported.
const PENDING_MAX: usize = 65_536;
const BATCH_BYTES: usize = 32 * 1024;

/// The largest number of entries checked after a restart for missed changes, for all watches together; beyond it a
/// change is assumed.
const LOOKED_AT_MAX: usize = 8192;
/// The kernel's change times are those of its last tick (at most 10 ms apart), and a change may have waited to be read
/// from inotify.
const SLACK: FileTime = 20 * 10_000;

/// Changes of an entry that do not change its directory.
const OF_ENTRIES: u32 = filter::ATTRIBUTES
    | filter::SIZE
    | filter::LAST_WRITE
    | filter::LAST_ACCESS
    | filter::CREATION
    | filter::SECURITY;

/// One directory as watched for one open.
#[derive(Clone)]
struct Place {
    open: OpenId,
    share: ShareId,
    /// The share's directory.
    root: Rc<OwnedFd>,
    path: String,
    recursive: bool,
}

/// All watched directories.
pub struct Watcher {
    events: OwnedFd,
    places: HashMap<i32, Vec<Place>>,
    by_open: HashMap<OpenId, HashSet<i32>>,
    pending: Vec<Change>,
    /// Entries checked for missed changes.
    looked_at: usize,
}

/// The first half of a rename, until the second is read.
struct MovedFrom {
    cookie: u32,
    is_dir: bool,
    places: Vec<(ShareId, String)>,
}

impl Watcher {
    /// Makes a watcher without directories.
    ///
    /// # Errors
    /// The account's limit of inotify instances is reached.
    pub fn new() -> anyhow::Result<Watcher> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let events = inotify::init(flags).map_err(|error| {
            anyhow::anyhow!("inotify: {error} (see /proc/sys/fs/inotify/max_user_instances)")
        })?;
        Ok(Watcher {
            events,
            places: HashMap::new(),
            by_open: HashMap::new(),
            pending: Vec::new(),
            looked_at: 0,
        })
    }

    /// A descriptor that is readable when something has happened.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Begins to watch an open directory; does nothing if it is watched in this way already.
    ///
    /// # Errors
    /// ACCESS_DENIED if the account may not read it; INSUFFICIENT_RESOURCES at the kernel's limit.
    pub fn watch(
        &mut self,
        id: OpenId,
        root: &Root,
        open: &OpenFile,
        recursive: bool,
    ) -> Result<(), NtStatus> {
        let known = self.places.values().flatten();
        if known
            .filter(|place| place.open == id)
            .any(|place| place.recursive || !recursive)
        {
            return Ok(());
        }
        let place = Place {
            open: id,
            share: root.share,
            root: Rc::clone(&root.dir),
            path: open.path.clone(),
            recursive,
        };
        self.add(open.fd.as_fd(), place.clone())
            .map_err(|error| match error {
                Errno::NOSPC => NtStatus::INSUFFICIENT_RESOURCES,
                error => status(error),
            })?;
        if recursive {
            self.add_beneath(&place, None);
        }
        Ok(())
    }

    fn add(&mut self, dir: BorrowedFd<'_>, place: Place) -> Result<(), Errno> {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR;
        let watch = inotify::add_watch(&self.events, fd_path(dir), flags)?;
        self.by_open.entry(place.open).or_default().insert(watch);
        let places = self.places.entry(watch).or_default();
        places.retain(|old| old.open != place.open);
        places.push(place);
        Ok(())
    }

    /// Watches all directories beneath one. `found`: collects existing entries, for a directory that has just appeared.
    fn add_beneath(&mut self, top: &Place, mut found: Option<&mut Vec<Change>>) {
        let mut todo = vec![top.path.clone()];
        while let Some(path) = todo.pop() {
            let Some(dir) = open_dir(&top.root, &path) else {
                continue;
            };
            if path != top.path {
                let watched = self.by_open.get(&top.open).map_or(0, HashSet::len);
                if watched >= DIRECTORIES_PER_OPEN_MAX {
                    log::warn!(
                        "{path:?}: too many directories beneath a watched one; changes in it will not be seen"
                    );
                    return;
                }
                let place = Place {
                    path: path.clone(),
                    ..top.clone()
                };
                if let Err(error) = self.add(dir.as_fd(), place) {
                    log::warn!("{path:?} cannot be watched: {error}");
                    continue;
                }
            }
            let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
            let mut entries = RawDir::new(&dir, &mut buffer);
            while let Some(Ok(entry)) = entries.next() {
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || names::is_private(name) {
                    continue;
                }
                let path = names::join(&path, &names::from_disk(name));
                let is_dir = entry.file_type() == FileType::Directory;
                if let Some(found) = &mut found {
                    found.push(Change {
                        share: top.share,
                        path: path.clone(),
                        is_dir,
                        kind: ChangeKind::Added,
                    });
                }
                if is_dir {
                    todo.push(path);
                }
            }
        }
    }

    /// Returns whether a watched directory may have changed after this time without an event. The change times tell: of
    /// the directory for names that were added or removed, of its entries for other watched changes, and so on beneath
    /// it. It is watched already, so nothing is missed in between.
    pub fn may_have_changed(
        &mut self,
        id: OpenId,
        open: &OpenFile,
        watch: WatchInfo,
        since: FileTime,
    ) -> bool {
        if !self.by_open.contains_key(&id) {
            return true;
        }
        let is_late = |stat: &Statx| to_file_time(&stat.stx_ctime) > since.saturating_sub(SLACK);
        let looks_at_entries = watch.filter & OF_ENTRIES != 0;
        let mut todo = vec![String::new()];
        while let Some(path) = todo.pop() {
            let Some(dir) = open_dir(&open.fd, &path) else {
                return true;
            };
            if stat(&dir).map_or(true, |stat| is_late(&stat)) {
                return true;
            }
            if !looks_at_entries && !watch.recursive {
                continue;
            }
            let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
            let mut entries = RawDir::new(&dir, &mut buffer);
            while let Some(entry) = entries.next() {
                self.looked_at += 1;
                let Ok(entry) = entry else { return true };
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || names::is_private(name) {
                    continue;
                }
                let changed = || stat_entry(&dir, name).map_or(true, |stat| is_late(&stat));
                if self.looked_at > LOOKED_AT_MAX || looks_at_entries && changed() {
                    return true;
                }
                if watch.recursive && entry.file_type() == FileType::Directory {
                    todo.push(names::join(&path, &names::from_disk(name)));
                }
            }
        }
        false
    }

    /// Ends the watching of one open. Returns whether subdirectories were included; `None`: it watched nothing.
    pub fn forget(&mut self, open: OpenId) -> Option<bool> {
        let first = self.by_open.get(&open).and_then(|all| all.iter().next());
        let places = first.and_then(|watch| self.places.get(watch));
        let place = places.and_then(|places| places.iter().find(|place| place.open == open));
        let recursive = place.map(|place| place.recursive);
        for watch in self.by_open.remove(&open).unwrap_or_default() {
            let Some(places) = self.places.get_mut(&watch) else {
                continue;
            };
            places.retain(|place| place.open != open);
            if places.is_empty() {
                self.places.remove(&watch);
                // Fails if the directory is removed, and the watch with it.
                let _ = inotify::remove_watch(&self.events, watch);
            }
        }
        recursive
    }

    /// Reads events and keeps them for [`Watcher::take`].
    pub fn collect(&mut self) {
        let mut new = self.read();
        let room = PENDING_MAX.saturating_sub(self.pending.len());
        if new.len() > room {
            new = self.overflow();
        }
        self.pending.append(&mut new);
    }

    /// Returns the changes up to the last [`Watcher::collect`], each once.
    pub fn take(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.pending);
        changes.dedup();
        changes
    }

    /// Notes that changes may have been missed.
    pub fn missed(&mut self, change: Change) {
        self.pending.push(change);
    }

    /// Reads events and drops them.
    pub fn discard(&mut self) {
        self.read();
    }

    /// Reports lost changes for every directory.
    fn overflow(&self) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for place in self.places.values().flatten() {
            let change = Change {
                share: place.share,
                path: place.path.clone(),
                is_dir: true,
                kind: ChangeKind::Overflow,
            };
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
        changes
    }

    fn read(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.places.is_empty() {
            return changes;
        }
        let mut moved: Option<MovedFrom> = None;
        for event in self.read_events() {
            if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.extend(self.overflow());
                continue;
            }
            if event.flags.contains(ReadFlags::IGNORED) {
                self.drop_watch(event.watch);
                continue;
            }
            let Some(name) = event.name else { continue };
            let Some(places) = self.places.get(&event.watch).cloned() else {
                continue;
            };
            let is_dir = event.flags.contains(ReadFlags::ISDIR);
            let mut paths: Vec<(ShareId, String)> = Vec::new();
            if !names::is_private(&name) {
                let shown = names::from_disk(&name);
                for place in &places {
                    let path = (place.share, names::join(&place.path, &shown));
                    if !paths.contains(&path) {
                        paths.push(path);
                    }
                }
            }
            let pair = moved
                .take_if(|m| m.cookie == event.cookie && event.flags.contains(ReadFlags::MOVED_TO));
            if let Some(alone) = moved.take() {
                self.moved_away(alone, &mut changes);
            }
            let kind = if event.flags.contains(ReadFlags::MOVED_FROM) {
                moved = Some(MovedFrom {
                    cookie: event.cookie,
                    is_dir,
                    places: paths,
                });
                continue;
            } else if event
                .flags
                .intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
            {
                self.appeared(pair, &places, paths, is_dir, &mut changes);
                continue;
            } else if event.flags.contains(ReadFlags::DELETE) {
                ChangeKind::Removed
            } else if event.flags.contains(ReadFlags::MODIFY) {
                ChangeKind::Modified(filter::SIZE | filter::LAST_WRITE)
            } else {
                ChangeKind::Modified(
                    filter::ATTRIBUTES | filter::LAST_WRITE | filter::CREATION | filter::SECURITY,
                )
            };
            push_all(&mut changes, paths, is_dir, &kind);
        }
        if let Some(alone) = moved {
            self.moved_away(alone, &mut changes);
        }
        changes
    }

    /// Handles an entry that was created or moved here; `pair` is the source of the move, if that is watched too.
    fn appeared(
        &mut self,
        pair: Option<MovedFrom>,
        places: &[Place],
        paths: Vec<(ShareId, String)>,
        is_dir: bool,
        changes: &mut Vec<Change>,
    ) {
        let mut from = pair.map_or_else(Vec::new, |pair| pair.places);
        for (share, path) in paths {
            match from.iter().position(|(s, _)| *s == share) {
                Some(index) => {
                    let (_, old) = from.remove(index);
                    if is_dir {
                        self.rebase(share, &old, &path);
                    }
                    changes.push(Change {
                        share,
                        path: old,
                        is_dir,
                        kind: ChangeKind::RenamedTo(path),
                    });
                }
                None => {
                    push_all(
                        changes,
                        vec![(share, path.clone())],
                        is_dir,
                        &ChangeKind::Added,
                    );
                    let recursive = places
                        .iter()
                        .filter(|p| is_dir && p.recursive && p.share == share);
                    for place in recursive {
                        let sub = Place {
                            path: path.clone(),
                            ..place.clone()
                        };
                        let Some(dir) = open_dir(&sub.root, &sub.path) else {
                            continue;
                        };
                        if self.add(dir.as_fd(), sub.clone()).is_ok() {
                            self.add_beneath(&sub, Some(changes));
                        }
                    }
                }
            }
        }
        push_all(changes, from, is_dir, &ChangeKind::Removed);
    }

    /// Handles an entry that was moved to an unwatched place.
    fn moved_away(&mut self, moved: MovedFrom, changes: &mut Vec<Change>) {
        if moved.is_dir {
            for (share, path) in &moved.places {
                self.drop_beneath(*share, path);
            }
        }
        push_all(changes, moved.places, moved.is_dir, &ChangeKind::Removed);
    }

    /// Changes the path of a watched directory, and of all beneath it.
    fn rebase(&mut self, share: ShareId, from: &str, to: &str) {
        for place in self.places.values_mut().flatten() {
            if place.share == share
                && let Some(rest) = place.path.strip_prefix(from)
                && (rest.is_empty() || rest.starts_with('/'))
            {
                place.path = format!("{to}{rest}");
            }
        }
    }

    fn drop_beneath(&mut self, share: ShareId, path: &str) {
        let mut empty = Vec::new();
        for (&watch, places) in &mut self.places {
            places.retain(|place| {
                let beneath = place.recursive
                    && place.share == share
                    && place
                        .path
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                if beneath && let Some(watches) = self.by_open.get_mut(&place.open) {
                    watches.remove(&watch);
                }
                !beneath
            });
            if places.is_empty() {
                empty.push(watch);
            }
        }
        for watch in empty {
            self.places.remove(&watch);
            // Fails if the directory is removed, and the watch with it.
            let _ = inotify::remove_watch(&self.events, watch);
        }
    }

    fn drop_watch(&mut self, watch: i32) {
        for place in self.places.remove(&watch).unwrap_or_default() {
            if let Some(watches) = self.by_open.get_mut(&place.open) {
                watches.remove(&watch);
            }
        }
    }

    fn read_events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); BATCH_BYTES];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => events.push(Event {
                    watch: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map(|name| name.to_bytes().to_vec()),
                }),
                Err(Errno::INTR) => {}
                Err(_) => return events,
            }
        }
    }
}

struct Event {
    watch: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Option<Vec<u8>>,
}

fn push_all(
    changes: &mut Vec<Change>,
    paths: Vec<(ShareId, String)>,
    is_dir: bool,
    kind: &ChangeKind,
) {
    changes.extend(paths.into_iter().map(|(share, path)| Change {
        share,
        path,
        is_dir,
        kind: kind.clone(),
    }));
}

fn open_dir(root: &OwnedFd, path: &str) -> Option<OwnedFd> {
    let disk = disk_path(path).ok()?;
    let disk: &[u8] = if disk.is_empty() { b"." } else { &disk };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, disk, flags, Mode::empty(), resolve).ok()
}
