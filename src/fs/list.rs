//! Listing a directory: the order of the folded names, and a cursor that is the last name returned. So a listing goes on where it was
//! after a restart, and whatever changed meanwhile.

use std::os::fd::{AsFd, OwnedFd};

use outlast_smb::fileop::{DirEntry, Metadata};
use outlast_smb::pattern::{Pattern, fold, has_wildcard};
use outlast_smb::status::NtStatus;
use rustix::fs::{FileType, OFlags};

use super::OpenFile;
use super::attributes::{self, file_type, metadata};
use super::errno::status;
use super::lookup::{Lookup, read_names};
use super::names;
use super::path::{Root, disk_path, fd_path, stat, stat_entry};

/// The names of a directory as they were when the listing began, in order.
pub struct Listing(Vec<Name>);

struct Name {
    folded: String,
    shown: String,
    /// On disk, where that is not what is shown.
    disk: Option<Box<[u8]>>,
}

impl Name {
    fn new(disk: &[u8]) -> Name {
        let shown = names::from_disk(disk);
        Name {
            folded: fold(&shown),
            disk: (shown.as_bytes() != disk).then(|| disk.into()),
            shown,
        }
    }

    fn disk(&self) -> &[u8] {
        self.disk.as_deref().unwrap_or(self.shown.as_bytes())
    }
}

impl Listing {
    fn read(dir: &OwnedFd) -> Result<Listing, NtStatus> {
        let mut all = Vec::new();
        rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))
            .and_then(|_| read_names(dir, |name| all.push(Name::new(name))))
            .map_err(|error| match error {
                rustix::io::Errno::BADF => NtStatus::ACCESS_DENIED,
                error => status(error),
            })?;
        all.sort_unstable_by(|a, b| (&a.folded, &a.shown).cmp(&(&b.folded, &b.shown)));
        Ok(Listing(all))
    }

    fn after(&self, last: &str) -> &[Name] {
        let folded = fold(last);
        let start = self
            .0
            .partition_point(|n| (n.folded.as_str(), n.shown.as_str()) <= (folded.as_str(), last));
        self.0.get(start..).unwrap_or(&[])
    }
}

/// At most `limit` entries after the name `after` that match; and whether there are more. Runs with the account's rights.
///
/// Symbolic links are listed as what they lead to, not at all if that is nothing or outside the share. Entries that vanish meanwhile are
/// left out.
///
/// # Errors
/// ACCESS_DENIED if the directory was not opened for listing; as `getdents64`.
pub fn query(
    root: &Root,
    lookup: &mut Lookup,
    open: &mut OpenFile,
    pattern: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<(Vec<DirEntry>, bool), NtStatus> {
    if !open.is_dir {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if after.is_none() {
        // A scan from the start sees the directory as it is now.
        open.listing = None;
        if !has_wildcard(pattern) && pattern != "." && pattern != ".." {
            return Ok((
                one(root, lookup, open, pattern)?.into_iter().collect(),
                false,
            ));
        }
    }
    if open.listing.is_none() {
        open.listing = Some(Listing::read(&open.fd)?);
    }
    let Some(listing) = &open.listing else {
        return Ok((Vec::new(), false));
    };
    let matcher = Pattern::new(pattern);
    let dots: &[&str] = match after {
        None => &[".", ".."],
        Some(".") => &[".."],
        Some(_) => &[],
    };
    let rest = match after {
        None | Some("." | "..") => listing.0.as_slice(),
        Some(last) => listing.after(last),
    };
    let mut found = Vec::new();
    for &dot in dots.iter().filter(|dot| matcher.matches(dot)) {
        if found.len() >= limit as usize {
            return Ok((found, true));
        }
        if let Some(metadata) = dot_metadata(root, open, dot) {
            found.push(entry(dot, metadata));
        }
    }
    for name in rest.iter().filter(|name| matcher.matches(&name.shown)) {
        if found.len() >= limit as usize {
            return Ok((found, true));
        }
        if let Some(metadata) = entry_metadata(root, open, name.disk(), &name.shown) {
            found.push(entry(&name.shown, metadata));
        }
    }
    Ok((found, false))
}

/// A pattern without wildcards is one name: no need to read the directory for it.
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
    // The share's root has nothing above it that a client may see.
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
