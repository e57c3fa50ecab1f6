//! Named streams, each in an extended attribute of its file.
//!
//! They are stored as Samba's module `streams_xattr` stores them, so that a share can be served by either: the stream
//! `s` is the attribute `user.DosStream.s:$DATA`, and a byte NUL follows its content. Its length is limited by the file
//! system: on ext4 all attributes of a file share one block (4 KiB), XFS, btrfs and tmpfs have up to 64 KiB for each. A
//! stream that would be longer is refused with DISK_FULL.
//!
//! A change of a stream is one call to the kernel, which does it completely or not at all. The rights of the account
//! are checked when the stream is opened; an open stream is read and written with the server's own rights, since the
//! kernel would check those of the account again for each call.

use std::os::fd::{BorrowedFd, OwnedFd};

use outlast_fsa::Pieces;
use outlast_fsa::fileop::{FileOp, Metadata, StreamEntry};
use outlast_fsa::fnv::fnv1a;
use outlast_fsa::pattern::same_name;
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::ea;
use super::errno::status;
use super::path::fd_path;
use super::set::OMIT;

pub(super) mod operations;

/// The names of the attributes: this, and the name and type of the stream.
const PREFIX: &str = "user.DosStream.";
/// The type of the streams.
const SUFFIX: &str = ":$DATA";
/// The byte that follows the content of a stream.
const END: u8 = 0;
/// The largest extended attribute of any file system, in bytes (XATTR_SIZE_MAX).
const VALUE_MAX: usize = 65_536;
/// The longest name of an extended attribute, in bytes.
const NAME_MAX: usize = 255;
/// The unit in which allocated bytes are reported.
const UNIT: u64 = 8;

/// A named stream of an open file.
pub struct Stream<'a> {
    file: BorrowedFd<'a>,
    name: &'a str,
}

/// The status for an error of a call for a stream. `missing`: there is no such stream.
fn stream_status(error: Errno, missing: NtStatus) -> NtStatus {
    match error {
        Errno::NODATA => missing,
        // It is longer than the file system permits, or than there is room for beside other attributes.
        Errno::TOOBIG | Errno::NOSPC => NtStatus::DISK_FULL,
        // This file system has no extended attributes.
        Errno::OPNOTSUPP => NtStatus::OBJECT_NAME_INVALID,
        error => status(error),
    }
}

impl<'a> Stream<'a> {
    /// The stream of this name, which need not exist.
    #[must_use]
    pub fn new(file: BorrowedFd<'a>, name: &'a str) -> Stream<'a> {
        Stream { file, name }
    }

    fn attribute(&self) -> String {
        format!("{PREFIX}{}{SUFFIX}", self.name)
    }

    /// Its content.
    ///
    /// # Errors
    /// FILE_CLOSED: it does not exist any more.
    pub fn read(&self) -> Result<Vec<u8>, NtStatus> {
        self.find()?.ok_or(NtStatus::FILE_CLOSED)
    }

    /// Its content; `None`: it does not exist.
    fn find(&self) -> Result<Option<Vec<u8>>, NtStatus> {
        let mut value = vec![0; VALUE_MAX];
        match rustix::fs::getxattr(fd_path(self.file), self.attribute(), &mut value) {
            Ok(length) => {
                value.truncate(length.saturating_sub(1));
                Ok(Some(value))
            }
            Err(Errno::NODATA) => Ok(None),
            Err(error) => Err(stream_status(error, NtStatus::FILE_CLOSED)),
        }
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// FILE_CLOSED: it does not exist any more.
    pub fn length(&self) -> Result<u64, NtStatus> {
        let length = rustix::fs::getxattr_query(fd_path(self.file), self.attribute());
        let length = length.map_err(|error| stream_status(error, NtStatus::FILE_CLOSED))?;
        Ok((length as u64).saturating_sub(1))
    }

    /// Gives it this content. It is created if it does not exist.
    ///
    /// # Errors
    /// DISK_FULL: it is too long.
    fn set(&self, content: &[u8]) -> Result<(), NtStatus> {
        self.set_if(content, XattrFlags::empty())
    }

    fn set_if(&self, content: &[u8], flags: XattrFlags) -> Result<(), NtStatus> {
        let value = [content, &[END]].concat();
        let set = rustix::fs::setxattr(fd_path(self.file), self.attribute(), &value, flags);
        set.map_err(|error| stream_status(error, NtStatus::FILE_CLOSED))
    }

    /// Creates it, without content.
    ///
    /// # Errors
    /// OBJECT_NAME_COLLISION: it exists.
    pub(super) fn create(&self) -> Result<(), NtStatus> {
        self.set_if(&[], XattrFlags::CREATE)
    }

    /// Empties it, or creates it.
    ///
    /// # Errors
    /// As `setxattr`.
    pub(super) fn empty(&self) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(fd_path(self.file), self.attribute(), &[END], flags)
    }

    /// Replaces its content by the result of `change`; one that does not exist any more is created again.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<u8>) -> Result<(), NtStatus>,
    ) -> Result<(), NtStatus> {
        let mut content = self.find()?.unwrap_or_default();
        let before = content.clone();
        change(&mut content)?;
        match content == before && !content.is_empty() {
            true => Ok(()),
            false => self.set(&content),
        }
    }

    /// Writes all pieces at an offset, as into a file.
    ///
    /// # Errors
    /// DISK_FULL: it would be too long.
    pub(super) fn write_at(
        &self,
        offset: u64,
        pieces: &[impl AsRef<[u8]>],
    ) -> Result<(), NtStatus> {
        self.change(|content| {
            let length: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
            if length == 0 {
                return Ok(());
            }
            let mut at = lengthen(content, offset, length)?;
            for piece in pieces {
                let piece = piece.as_ref();
                if let Some(place) = content.get_mut(at..at + piece.len()) {
                    place.copy_from_slice(piece);
                }
                at += piece.len();
            }
            Ok(())
        })
    }

    /// Removes it, if it exists.
    ///
    /// # Errors
    /// As `removexattr`.
    fn remove(&self) -> Result<(), NtStatus> {
        match rustix::fs::removexattr(fd_path(self.file), self.attribute()) {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(error) => Err(status(error)),
        }
    }

    /// Gives its content to the stream `to`, and removes it. Does nothing but complete an earlier attempt.
    fn rename(&self, to: &Stream<'_>, content: &[u8]) -> Result<(), NtStatus> {
        match to.set(content) {
            Ok(()) if to.name == self.name => Ok(()),
            Ok(()) => self.remove(),
            // There is no room for both; the content is on record.
            Err(NtStatus::DISK_FULL) => {
                self.remove()?;
                to.set(content).or_else(|status| {
                    self.set(content)?;
                    Err(status)
                })
            }
            Err(status) => Err(status),
        }
    }
}

/// Lengthens the content so that it has `length` bytes at `offset`; returns the offset.
fn lengthen(content: &mut Vec<u8>, offset: u64, length: usize) -> Result<usize, NtStatus> {
    let end = offset.saturating_add(length as u64);
    let end = usize::try_from(end).ok().filter(|end| *end < VALUE_MAX);
    let end = end.ok_or(NtStatus::DISK_FULL)?;
    if content.len() < end {
        content.resize(end, 0);
    }
    Ok(end - length)
}

/// The attributes of a file as those of a named stream of it.
#[must_use]
pub fn metadata(file: Metadata, length: u64) -> Metadata {
    use outlast_fsa::attributes as flag;
    let attributes = match file.attributes & !flag::DIRECTORY {
        0 => flag::NORMAL,
        attributes => attributes,
    };
    Metadata {
        end_of_file: length,
        allocation_size: length.next_multiple_of(UNIT),
        attributes,
        is_dir: false,
        ..file
    }
}

/// The names of the named streams of a file, in the order of the file system.
///
/// # Errors
/// As `listxattr`.
pub fn names(file: BorrowedFd<'_>) -> Result<Vec<String>, NtStatus> {
    let all = ea::all_names(file).map_err(status)?.into_iter();
    let streams = all.filter_map(|name| {
        let name = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        Some(name.to_owned())
    });
    Ok(streams.collect())
}

/// Finds a stream of a file, without regard to case. Returns its name on disk.
///
/// # Errors
/// As `listxattr`.
pub fn find(file: BorrowedFd<'_>, name: &str) -> Result<Option<String>, NtStatus> {
    let all = names(file)?;
    let exact = all.iter().find(|other| *other == name);
    let found = exact.or_else(|| all.iter().find(|other| same_name(other, name)));
    Ok(found.cloned())
}

/// Lists the streams of a file. `default`: the file itself; a directory has no default stream.
fn list(file: BorrowedFd<'_>, default: &Metadata) -> Result<Vec<StreamEntry>, NtStatus> {
    let mut entries = Vec::new();
    if !default.is_dir {
        entries.push(StreamEntry {
            name: ":".to_owned() + SUFFIX,
            end_of_file: default.end_of_file,
            allocation_size: default.allocation_size,
        });
    }
    for name in names(file)? {
        // Removed meanwhile by a local process.
        let Ok(length) = Stream::new(file, &name).length() else {
            continue;
        };
        entries.push(StreamEntry {
            name: stream::full_name(&name),
            end_of_file: length,
            allocation_size: length.next_multiple_of(UNIT),
        });
    }
    Ok(entries)
}

/// Removes all named streams of a file: it is overwritten (MS-FSA 2.1.5.1.2.1).
///
/// # Errors
/// As `removexattr`.
pub(super) fn remove_all(file: BorrowedFd<'_>) -> Result<(), NtStatus> {
    for name in names(file)? {
        Stream::new(file, &name).remove()?;
    }
    Ok(())
}

/// Returns whether the name of a stream fits into that of an extended attribute (XATTR_NAME_MAX).
pub(super) fn has_room_for(name: &str) -> bool {
    PREFIX.len() + name.len() + SUFFIX.len() <= NAME_MAX
}

/// Digests the content of a stream, to distinguish it from another of that name.
fn digest(content: &[u8]) -> u64 {
    fnv1a(content.iter().copied())
}

/// Updates LastWriteTime of a file one of whose streams has changed (MS-FSA 2.1.4.17), with the server's own rights.
fn note_written(file: BorrowedFd<'_>) -> Result<(), NtStatus> {
    let times = Timestamps {
        last_access: OMIT,
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        },
    };
    rustix::fs::utimensat(CWD, fd_path(file), &times, AtFlags::empty()).map_err(status)
}

/// Writes what a file has to the medium, by a descriptor that can do so.
fn sync(file: BorrowedFd<'_>) -> Result<(), NtStatus> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let readable: OwnedFd =
        rustix::fs::open(fd_path(file), flags, Mode::empty()).map_err(status)?;
    rustix::fs::fsync(&readable).map_err(status)
}

/// Returns whether an operation changes the content of its stream.
fn changes_content(op: &FileOp) -> bool {
    matches!(
        op,
        FileOp::Write { .. }
            | FileOp::SetEndOfFile { .. }
            | FileOp::SetAllocation { .. }
            | FileOp::ZeroData { .. }
    )
}

/// Reads a part of a stream.
fn part(content: &[u8], offset: u64, length: u32) -> &[u8] {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = content.get(from..).unwrap_or_default();
    rest.get(..length as usize).unwrap_or(rest)
}

/// Writes the data of a request to a stream.
fn write(stream: &Stream<'_>, offset: u64, data: &Pieces) -> Result<u32, NtStatus> {
    stream.write_at(offset, data.as_slice())?;
    u32::try_from(data.len()).map_err(|_| NtStatus::INVALID_PARAMETER)
}
