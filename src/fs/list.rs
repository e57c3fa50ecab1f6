//! Lists a directory in the order of the folded names. The cursor is the last name returned, so a listing continues
//! where it was after a restart, and whatever changed meanwhile.
//!
//! The next names are kept in order, as far as there is room for them ([`Listings`]). Dropped names are read again from
//! the cursor on, so a directory larger than the room is read several times.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::os::fd::{AsFd, OwnedFd};

use outlast_fsa::fileop::{DirEntry, Metadata, OpenId};
use outlast_fsa::pattern::{Pattern, fold, has_wildcard};
use outlast_fsa::status::NtStatus;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::attributes::{self, file_type, metadata};
use super::errno::status;
use super::lookup::{Lookup, read_names};
use super::names;
use super::opens::OpenFile;
use super::path::{Root, disk_path, fd_path, stat, stat_entry};

/// Bytes of memory for the names of all listings under way.
const LISTINGS_BYTES_MAX: usize = 16 << 20;
/// The part of it that each listing gets at least: enough names for several replies.
const WINDOW_BYTES_MIN: usize = 256 << 10;
/// Memory for a name besides its bytes: two pointers with their lengths, and the allocator's overhead of two pieces of
/// memory.
const NAME_OVERHEAD_BYTES: usize = 64;

/// A name of a directory.
#[derive(PartialEq, Eq)]
struct Name {
    folded: Box<str>,
    disk: Box<[u8]>,
}

impl Name {
    fn new(disk: &[u8], shown: &str) -> Name {
        Name {
            folded: fold(shown).into(),
            disk: disk.into(),
        }
    }

    fn shown(&self) -> String {
        names::from_disk(&self.disk)
    }

    fn bytes(&self) -> usize {
        NAME_OVERHEAD_BYTES + self.folded.len() + self.disk.len()
    }

    fn cmp_to(&self, cursor: &Cursor) -> Ordering {
        let folded = (*self.folded).cmp(&cursor.folded);
        folded.then_with(|| self.shown().cmp(&cursor.shown))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        let folded = self.folded.cmp(&other.folded);
        folded.then_with(|| self.shown().cmp(&other.shown()))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The name after which a listing continues.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    folded: String,
    shown: String,
}

impl Cursor {
    fn new(shown: &str) -> Cursor {
        Cursor {
            folded: fold(shown),
            shown: shown.to_owned(),
        }
    }
}

/// The next names in one listing, as they were when they were read.
struct Window {
    pattern: String,
    /// The name before them.
    after: Option<Cursor>,
    names: Vec<Name>,
    /// There are no more names after them.
    is_last: bool,
    bytes: usize,
    used: u64,
}

impl Window {
    /// Reads the first matching names after the cursor, up to this many bytes, but at least one.
    fn read(
        dir: &OwnedFd,
        pattern: &str,
        after: Option<&Cursor>,
        bytes_max: usize,
    ) -> Result<Window, NtStatus> {
        let matcher = Pattern::new(pattern);
        let mut first: BinaryHeap<Name> = BinaryHeap::new();
        let (mut bytes, mut is_last) = (0, true);
        let each = |disk: &[u8]| {
            let shown = names::from_disk(disk);
            if !matcher.matches(&shown) {
                return;
            }
            let name = Name::new(disk, &shown);
            let is_before = after.is_some_and(|after| name.cmp_to(after).is_le());
            // Names greater than the greatest of them were not kept once there was no room.
            let is_beyond = !is_last && first.peek().is_some_and(|greatest| name > *greatest);
            if is_before || is_beyond {
                return;
            }
            bytes += name.bytes();
            first.push(name);
            while bytes > bytes_max
                && first.len() > 1
                && let Some(greatest) = first.pop()
            {
                bytes -= greatest.bytes();
                is_last = false;
            }
        };
        rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))
            .and_then(|_| read_names(dir, each))
            .map_err(|error| match error {
                Errno::BADF => NtStatus::ACCESS_DENIED,
                error => status(error),
            })?;
        let mut names = first.into_vec();
        names.sort_unstable();
        names.shrink_to_fit();
        Ok(Window {
            pattern: pattern.to_owned(),
            after: after.cloned(),
            names,
            is_last,
            bytes,
            used: 0,
        })
    }

    /// Returns whether it has the next names after this cursor.
    fn shows(&self, pattern: &str, after: Option<&Cursor>) -> bool {
        let begins = self.after.as_ref() <= after;
        let last = self.names.last();
        let reaches = match (last, after) {
            (Some(last), Some(after)) => last.cmp_to(after).is_gt(),
            (last, None) => last.is_some(),
            (None, Some(_)) => false,
        };
        self.pattern == pattern && begins && (reaches || self.is_last)
    }

    fn rest(&self, after: Option<&Cursor>) -> &[Name] {
        let start = after.map_or(0, |after| {
            self.names
                .partition_point(|name| name.cmp_to(after).is_le())
        });
        self.names.get(start..).unwrap_or(&[])
    }
}

/// The names kept for the listings under way, within [`LISTINGS_BYTES_MAX`] in all; those of the least recently used
/// listing are dropped.
#[derive(Default)]
pub struct Listings {
    windows: HashMap<OpenId, Window>,
    bytes: usize,
    uses: u64,
    #[cfg(test)]
    pub(super) reads: u64,
}

impl Listings {
    /// Drops the names kept for an open.
    pub fn forget(&mut self, open: OpenId) {
        if let Some(window) = self.windows.remove(&open) {
            self.bytes -= window.bytes;
        }
    }

    /// Bytes of memory for the kept names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next names.
    fn window(
        &mut self,
        open: OpenId,
        dir: &OwnedFd,
        pattern: &str,
        after: Option<&Cursor>,
    ) -> Result<&Window, NtStatus> {
        let known = self.windows.get(&open);
        if !known.is_some_and(|window| window.shows(pattern, after)) {
            self.forget(open);
            let part = LISTINGS_BYTES_MAX / (self.windows.len() + 1);
            let window = Window::read(dir, pattern, after, part.max(WINDOW_BYTES_MIN))?;
            self.keep(open, window);
        }
        self.uses += 1;
        let window = self.windows.get_mut(&open);
        let window = window.ok_or(NtStatus::INTERNAL_ERROR)?;
        window.used = self.uses;
        Ok(window)
    }

    fn keep(&mut self, open: OpenId, window: Window) {
        #[cfg(test)]
        {
            self.reads += 1;
        }
        while self.bytes + window.bytes > LISTINGS_BYTES_MAX {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.used);
            let Some(oldest) = oldest.map(|(open, _)| *open) else {
                break;
            };
            self.forget(oldest);
        }
        self.bytes += window.bytes;
        self.windows.insert(open, window);
    }
}

/// The parameters of a listing.
pub struct Query<'a> {
    /// Its share.
    pub root: &'a Root,
    /// The open by which it is listed.
    pub open: OpenId,
    /// The directory.
    pub dir: &'a OpenFile,
    /// Pattern of the listed names.
    pub pattern: &'a str,
    /// The largest number of entries.
    pub limit: u32,
}

impl Query<'_> {
    /// Returns matching entries after the name `after`, and whether there are more. Runs with the account's rights.
    ///
    /// Symbolic links are listed as their targets, or as themselves if a target is missing or outside the share.
    /// Entries that disappear meanwhile are omitted.
    ///
    /// # Errors
    /// ACCESS_DENIED if the directory was not opened for listing; as `getdents64`.
    pub fn run(
        &self,
        lookup: &mut Lookup,
        listings: &mut Listings,
        after: Option<&str>,
    ) -> Result<(Vec<DirEntry>, bool), NtStatus> {
        let Query {
            root, dir, pattern, ..
        } = *self;
        if !dir.is_dir {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if after.is_none() {
            // A scan from the start sees the current directory.
            listings.forget(self.open);
            if !has_wildcard(pattern) && pattern != "." && pattern != ".." {
                let found = one(root, lookup, dir, pattern)?;
                return Ok((found.into_iter().collect(), false));
            }
        }
        let mut found = Vec::new();
        let matcher = Pattern::new(pattern);
        let dots: &[&str] = match after {
            None => &[".", ".."],
            Some(".") => &[".."],
            Some(_) => &[],
        };
        for &dot in dots.iter().filter(|dot| matcher.matches(dot)) {
            if found.len() >= self.limit as usize {
                return Ok((found, true));
            }
            if let Some(metadata) = dot_metadata(root, dir, dot) {
                found.push(entry(dot, metadata));
            }
        }
        let mut last = after
            .filter(|name| !matches!(*name, "." | ".."))
            .map(Cursor::new);
        loop {
            let window = listings.window(self.open, &dir.fd, pattern, last.as_ref())?;
            for name in window.rest(last.as_ref()) {
                if found.len() >= self.limit as usize {
                    return Ok((found, true));
                }
                let shown = name.shown();
                if let Some(metadata) = entry_metadata(root, dir, &name.disk, &shown) {
                    found.push(entry(&shown, metadata));
                }
            }
            match window.names.last() {
                Some(name) if !window.is_last => last = Some(Cursor::new(&name.shown())),
                _ => return Ok((found, false)),
            }
        }
    }
}

/// Lists a pattern without wildcards, which is one name, without reading the directory.
fn one(
    root: &Root,
    lookup: &mut Lookup,
    open: &OpenFile,
    name: &str,
) -> Result<Option<DirEntry>, NtStatus> {
    let Ok(disk) = names::to_disk(name) else {
        return Ok(None);
    };
    if !open.readable {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let exact = stat_entry(&open.fd, &disk).is_ok();
    let found = if exact {
        Some(disk)
    } else {
        lookup.find_in(&open.fd, name)?
    };
    Ok(found.and_then(|disk| {
        let shown = names::from_disk(&disk);
        let metadata = entry_metadata(root, open, &disk, &shown)?;
        Some(entry(&shown, metadata))
    }))
}

fn entry(name: &str, metadata: Metadata) -> DirEntry {
    DirEntry {
        name: name.to_owned(),
        file_id: metadata.key.ino,
        metadata,
    }
}

fn dot_metadata(root: &Root, open: &OpenFile, dot: &str) -> Option<Metadata> {
    let of = |fd: &OwnedFd| {
        let stat = stat(fd).ok()?;
        Some(metadata(&stat, &attributes::read(fd.as_fd()), dot))
    };
    if dot == ".."
        && let Ok(parent) = root.entry(&open.path)
    {
        return of(&parent.dir);
    }
    // A client may not see the parent of the share's root.
    of(&open.fd)
}

fn entry_metadata(root: &Root, dir: &OpenFile, disk: &[u8], shown: &str) -> Option<Metadata> {
    let itself = stat_entry(&dir.fd, disk).ok()?;
    if file_type(&itself) == FileType::Symlink {
        let path = disk_path(&names::join(&dir.path, shown)).ok()?;
        let target = root.open_disk(&path, OFlags::PATH).ok()?;
        let stat = stat(&target).ok()?;
        return Some(metadata(&stat, &attributes::read(target.as_fd()), shown));
    }
    let mut path = fd_path(dir.fd.as_fd()).into_bytes();
    path.push(b'/');
    path.extend_from_slice(disk);
    Some(metadata(&itself, &attributes::read_entry(path), shown))
}
