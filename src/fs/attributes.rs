//! Maps a file's attributes and times to those of SMB, and stores them.
//!
//! What Linux does not store, the DOS attributes and a creation time that was set, is in the extended attribute
//! `user.DOSATTRIB` in Samba's format (`xattr_DOSATTRIB`, written in version 4, read in 3 and 4), so that a share can
//! be served by either. A file without it has ARCHIVE set (it has not been backed up yet), a directory nothing. Where
//! the file system has no extended attributes, READONLY is the absence of all write permission, as in Samba. Names that
//! begin with a period are HIDDEN, as in Samba.

use std::os::fd::BorrowedFd;

use outlast_fsa::attributes as flag;
use outlast_fsa::fileop::{FileKey, FileTime, Metadata};
use rustix::fs::{FileType, Statx, StatxFlags, StatxTimestamp, XattrFlags};
use rustix::io::Errno;

use super::path::{fd_path, stat};
use super::volume;

/// The stored attributes.
pub const STORED: u32 = flag::SETTABLE | flag::SPARSE_FILE;

const XATTR: &str = "user.DOSATTRIB";
/// More than any version of it needs, in bytes.
const BLOB_MAX: usize = 256;
/// Seconds from 1601-01-01 to 1970-01-01.
const EPOCH_SECONDS: i128 = 11_644_473_600;
/// `valid_flags` of Samba's format.
const VALID_ATTRIBUTES: u32 = 0x1;
const VALID_CREATE_TIME: u32 = 0x10;
/// The marker before a change time that was set.
const CHANGE: &[u8; 8] = b"OUTLASTc";

/// The content of the extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dos {
    /// The file system has no extended attributes.
    Unsupported,
    /// There is none, or it cannot be read.
    Absent,
    /// Its content.
    Kept(DosInfo),
}

/// The contents of the extended attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DosInfo {
    /// FILE_ATTRIBUTE_*, if valid.
    pub attributes: Option<u32>,
    /// Creation time, if set.
    pub creation_time: Option<FileTime>,
    /// Time of change, if set.
    pub change: Option<SetChange>,
}

/// A change time that a client has set: Linux has no way to set its own, `st_ctime`. It is valid until that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetChange {
    /// ChangeTime.
    pub time: FileTime,
    /// `st_ctime` when it was set, within [`NEAR_TICKS`].
    pub set_at: FileTime,
}

/// The attribute cannot hold the exact `st_ctime` that writing it will give the file, so one that is this near counts
/// as the same: in units of 100 ns, the 10 ms of the coarsest clock with which kernels stamp files.
const NEAR_TICKS: u64 = 100_000;

impl SetChange {
    fn counts(&self, changed: FileTime) -> bool {
        changed.abs_diff(self.set_at) <= NEAR_TICKS
    }
}

/// The identity of a file.
#[must_use]
pub fn key(stat: &Statx) -> FileKey {
    FileKey {
        dev: volume::of(stat),
        ino: stat.stx_ino,
        birth_ns: birth(stat).map_or(0, |t| {
            t.tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::from(t.tv_nsec))
        }),
    }
}

fn birth(stat: &Statx) -> Option<&StatxTimestamp> {
    (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then_some(&stat.stx_btime)
}

/// Returns whether it is a directory.
#[must_use]
pub fn is_dir(stat: &Statx) -> bool {
    file_type(stat) == FileType::Directory
}

/// The type of a file.
#[must_use]
pub fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Converts a Linux time: exact to 100 ns, 0 for times before 1601.
#[must_use]
pub fn to_file_time(time: &StatxTimestamp) -> FileTime {
    let ticks =
        (i128::from(time.tv_sec) + EPOCH_SECONDS) * 10_000_000 + i128::from(time.tv_nsec / 100);
    FileTime::try_from(ticks.max(0)).unwrap_or(FileTime::MAX)
}

/// Converts a Windows time: seconds and nanoseconds since 1970.
#[must_use]
pub fn from_file_time(time: FileTime) -> rustix::fs::Timespec {
    let seconds = i128::from(time / 10_000_000) - EPOCH_SECONDS;
    rustix::fs::Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: (time % 10_000_000 * 100) as _,
    }
}

/// A file's attributes, from all its data. `name` is its last component.
#[must_use]
pub fn metadata(stat: &Statx, dos: &Dos, name: &str) -> Metadata {
    let is_dir = is_dir(stat);
    let [accessed, written, changed] =
        [&stat.stx_atime, &stat.stx_mtime, &stat.stx_ctime].map(to_file_time);
    let kept = match dos {
        Dos::Kept(info) => *info,
        _ => DosInfo::default(),
    };
    let created = kept
        .creation_time
        .or_else(|| birth(stat).map(to_file_time))
        .unwrap_or_else(|| accessed.min(written).min(changed));
    let set_change = kept.change.filter(|change| change.counts(changed));
    let mut attributes = kept_attributes(stat, dos);
    if name.starts_with('.') && name != "." && name != ".." {
        attributes |= flag::HIDDEN;
    }
    if is_dir {
        attributes |= flag::DIRECTORY;
    } else if attributes == 0 {
        attributes = flag::NORMAL;
    }
    Metadata {
        key: key(stat),
        creation_time: created,
        last_access_time: accessed,
        last_write_time: written,
        change_time: set_change.map_or(changed, |change| change.time),
        end_of_file: if is_dir { 0 } else { stat.stx_size },
        allocation_size: if is_dir { 0 } else { stat.stx_blocks * 512 },
        attributes,
        links: stat.stx_nlink,
        is_dir,
    }
}

/// The attributes that belong to the file and not to its name or type.
#[must_use]
pub fn kept_attributes(stat: &Statx, dos: &Dos) -> u32 {
    let default = if is_dir(stat) { 0 } else { flag::ARCHIVE };
    match dos {
        Dos::Kept(info) => info.attributes.unwrap_or(default) & STORED,
        Dos::Absent => default,
        Dos::Unsupported if stat.stx_mode & 0o222 == 0 => default | flag::READONLY,
        Dos::Unsupported => default,
    }
}

/// Reads the extended attribute of an open file.
#[must_use]
pub fn read(fd: BorrowedFd<'_>) -> Dos {
    let mut buffer = [0; BLOB_MAX];
    let length = rustix::fs::getxattr(fd_path(fd), XATTR, &mut buffer);
    found(&buffer, length)
}

/// Reads the extended attribute of the file at a path, not following a symbolic link.
#[must_use]
pub fn read_entry(path: impl rustix::path::Arg) -> Dos {
    let mut buffer = [0; BLOB_MAX];
    let length = rustix::fs::lgetxattr(path, XATTR, &mut buffer);
    found(&buffer, length)
}

fn found(buffer: &[u8], length: Result<usize, Errno>) -> Dos {
    match length {
        Ok(length) => buffer
            .get(..length)
            .and_then(parse)
            .map_or(Dos::Absent, Dos::Kept),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Dos::Unsupported,
        Err(_) => Dos::Absent,
    }
}

/// Stores attributes and creation time of an open file, in addition to what is stored already; does nothing if that
/// changes nothing.
///
/// # Errors
/// As `setxattr` and `chmod`.
pub fn write(
    fd: BorrowedFd<'_>,
    stat: &Statx,
    attributes: Option<u32>,
    creation_time: Option<FileTime>,
) -> Result<(), Errno> {
    let path = fd_path(fd);
    let old = read(fd);
    if old == Dos::Unsupported {
        return write_mode(&path, stat, attributes);
    }
    let kept = match old {
        Dos::Kept(info) => info,
        _ => DosInfo::default(),
    };
    let now = kept_attributes(stat, &old);
    let new = attributes.map_or(now, |a| a & flag::SETTABLE | now & flag::SPARSE_FILE);
    store(&path, kept, now, new, creation_time)
}

/// Returns whether a file has the attribute SPARSE_FILE.
#[must_use]
pub fn is_sparse(fd: BorrowedFd<'_>) -> bool {
    match read(fd) {
        Dos::Kept(info) => info.attributes.unwrap_or(0) & flag::SPARSE_FILE != 0,
        Dos::Absent | Dos::Unsupported => false,
    }
}

/// Sets or clears the attribute SPARSE_FILE.
///
/// # Errors
/// As `setxattr`; nothing where the file system has no extended attributes.
pub fn write_sparse(fd: BorrowedFd<'_>, stat: &Statx, sparse: bool) -> Result<(), Errno> {
    let path = fd_path(fd);
    let old = read(fd);
    let kept = match old {
        Dos::Kept(info) => info,
        Dos::Absent => DosInfo::default(),
        Dos::Unsupported => return Ok(()),
    };
    let now = kept_attributes(stat, &old);
    let new = if sparse {
        now | flag::SPARSE_FILE
    } else {
        now & !flag::SPARSE_FILE
    };
    store(&path, kept, now, new, None)
}

fn store(
    path: &str,
    kept: DosInfo,
    now: u32,
    new: u32,
    creation_time: Option<FileTime>,
) -> Result<(), Errno> {
    if new == now && (creation_time.is_none() || creation_time == kept.creation_time) {
        return Ok(());
    }
    let blob = format(&DosInfo {
        attributes: Some(new),
        creation_time: creation_time.or(kept.creation_time),
        change: None,
    });
    rustix::fs::setxattr(path, XATTR, &blob, XattrFlags::empty())
}

/// Sets ARCHIVE, if it is not set: the file has been modified (MS-FSA 2.1.4.17).
///
/// # Errors
/// As `setxattr`.
pub fn note_modified(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = [0; BLOB_MAX];
    let kept = match rustix::fs::fgetxattr(fd, XATTR, &mut buffer) {
        // It is open with O_PATH.
        Err(Errno::BADF) => read(fd),
        length => found(&buffer, length),
    };
    match kept {
        Dos::Kept(info) => match info.attributes {
            Some(now) if now & flag::ARCHIVE == 0 => {
                store(&fd_path(fd), info, now, now | flag::ARCHIVE, None)
            }
            _ => Ok(()),
        },
        Dos::Absent | Dos::Unsupported => Ok(()),
    }
}

/// Sets the change time; does nothing where the file system has no extended attributes.
///
/// # Errors
/// As `setxattr`; EBUSY if other processes change the file so often that it does not last.
pub fn write_change(fd: BorrowedFd<'_>, time: FileTime) -> Result<(), Errno> {
    const ATTEMPTS: usize = 8;
    let path = fd_path(fd);
    let kept = match read(fd) {
        Dos::Kept(info) => info,
        Dos::Absent => DosInfo::default(),
        Dos::Unsupported => return Ok(()),
    };
    for _ in 0..ATTEMPTS {
        let change = SetChange {
            time,
            set_at: now(),
        };
        let blob = format(&DosInfo {
            change: Some(change),
            ..kept
        });
        rustix::fs::setxattr(path.as_str(), XATTR, &blob, XattrFlags::empty())?;
        if change.counts(to_file_time(&stat(fd)?.stx_ctime)) {
            return Ok(());
        }
    }
    Err(Errno::BUSY)
}

/// The wall clock.
fn now() -> FileTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let ticks =
        (i128::from(now.tv_sec) + EPOCH_SECONDS) * 10_000_000 + i128::from(now.tv_nsec / 100);
    FileTime::try_from(ticks.max(0)).unwrap_or(FileTime::MAX)
}

/// Expresses READONLY by permissions, where there is no other way.
fn write_mode(path: &str, stat: &Statx, attributes: Option<u32>) -> Result<(), Errno> {
    let Some(attributes) = attributes.filter(|_| !is_dir(stat)) else {
        return Ok(());
    };
    let mode = u32::from(stat.stx_mode) & 0o7777;
    let new = if attributes & flag::READONLY != 0 {
        mode & !0o222
    } else if mode & 0o222 == 0 {
        mode | 0o200
    } else {
        mode
    };
    if new == mode {
        return Ok(());
    }
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(new))
}

/// Samba's `xattr_DOSATTRIB`: an ASCII string ended by NUL (the attributes in hexadecimal in old versions), padding to
/// 2 bytes, version and again version as the union's selector (16 bits each), padding to 4, `valid_flags`, attributes,
/// then in version 3 `ea_size` (32 bits), `size`, `alloc_size`, `create_time`, `change_time` (64 bits each), in version
/// 4 `itime`, `create_time`; little-endian. Samba ignores the bytes after version 4: here, [`CHANGE`] and a
/// [`SetChange`].
fn parse(blob: &[u8]) -> Option<DosInfo> {
    let string = blob.iter().position(|&b| b == 0)? + 1;
    let version_at = string.next_multiple_of(2);
    let u16_at = |at: usize| Some(u16::from_le_bytes(*blob.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*blob.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*blob.get(at..)?.first_chunk()?));
    let version = u16_at(version_at)?;
    let info_at = (version_at + 4).next_multiple_of(4);
    let create_time_at = match version {
        3 => info_at + 8 + 4 + 8 + 8,
        4 => info_at + 8 + 8,
        _ => return None,
    };
    let change_at = (create_time_at + 8).next_multiple_of(4);
    let change = || {
        blob.get(change_at..)?.strip_prefix(CHANGE)?;
        Some(SetChange {
            time: u64_at(change_at + CHANGE.len())?,
            set_at: u64_at(change_at + CHANGE.len() + 8)?,
        })
    };
    let valid = u32_at(info_at)?;
    let attributes = u32_at(info_at + 4)?;
    Some(DosInfo {
        attributes: (valid & VALID_ATTRIBUTES != 0).then_some(attributes),
        creation_time: if valid & VALID_CREATE_TIME != 0 {
            u64_at(create_time_at)
        } else {
            None
        },
        change: change().filter(|_| version == 4),
    })
}

/// Version 4 of the format [`parse`] describes.
fn format(info: &DosInfo) -> Vec<u8> {
    let mut blob = vec![0, 0, 4, 0, 4, 0, 0, 0];
    let valid = info.attributes.map_or(0, |_| VALID_ATTRIBUTES)
        | info.creation_time.map_or(0, |_| VALID_CREATE_TIME);
    blob.extend(valid.to_le_bytes());
    blob.extend(info.attributes.unwrap_or(0).to_le_bytes());
    blob.extend(0_u64.to_le_bytes());
    blob.extend(info.creation_time.unwrap_or(0).to_le_bytes());
    if let Some(SetChange { time, set_at }) = info.change {
        blob.extend(CHANGE);
        blob.extend(time.to_le_bytes());
        blob.extend(set_at.to_le_bytes());
    }
    blob
}

#[cfg(test)]
mod tests;
