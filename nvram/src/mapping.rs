//! Maps a file as the memory of a log: it is created completely, and locked against a second server.

use crate::memory::Region;
use crate::superblock::{MAGIC, SLOTS};
use crate::{Error, FileProblem, MIN_MEMORY, Memory};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{CWD, FallocateFlags, FlockOperation, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// A mapped file. The lock is held, and the mapping lasts, until it is dropped.
///
/// Memory errors and a file cut short by another program raise SIGBUS; the file is allocated in full when it is made,
/// so a full disk does not.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
    writable: bool,
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl Mapping {
    /// Makes a zeroed file of `size` bytes, allocated in full, readable only by its owner; locks and maps it. The file
    /// gets its name when it is whole.
    ///
    /// # Errors
    /// [`Error::File`]; what was made so far is removed.
    pub fn create(path: &Path, size: u64) -> Result<Mapping, Error> {
        create(path, size).map_err(|problem| at(path, problem))
    }

    /// Locks and maps an existing file, which must have `size` bytes.
    ///
    /// # Errors
    /// [`Error::File`]; [`FileProblem::Missing`] if there is none yet.
    pub fn open(path: &Path, size: u64) -> Result<Mapping, Error> {
        open(path, size).map_err(|problem| at(path, or_foreign(path, problem)))
    }

    /// Maps an existing file, as [`Mapping::open`] does, while another server has it locked and writes to it. Nothing
    /// may be written before [`Mapping::lock`].
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn follow(path: &Path, size: u64) -> Result<Mapping, Error> {
        follow(path, size).map_err(|problem| at(path, or_foreign(path, problem)))
    }

    /// Locks a file that has been followed: its server is gone.
    ///
    /// # Errors
    /// [`Error::File`], [`FileProblem::Locked`] while it is not.
    pub fn lock(&self) -> Result<(), Error> {
        lock(&self.file).map_err(|problem| at(&self.path, problem))
    }

    /// Maps an existing file read-only, also while a server has it locked and writes to it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open_read_only(path: &Path) -> Result<Mapping, Error> {
        open_read_only(path).map_err(|problem| at(path, or_foreign(path, problem)))
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself. The mapping sees what is written to it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes the file, its content and its name to the medium.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn persist(&self) -> Result<(), Error> {
        let directory = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        let synced = self
            .file
            .sync_all()
            .and_then(|()| File::open(directory.unwrap_or(Path::new(".")))?.sync_all());
        synced.map_err(|error| at(&self.path, from_io("writing it to the medium", error)))
    }

    fn region(&self) -> Region {
        let start =
            NonNull::new(self.map.as_mut_ptr()).unwrap_or(NonNull::<u64>::dangling().cast());
        // SAFETY: the mapping is aligned to a page and lasts as long as `self`; `write` and `store` check that it is
        // writable.
        unsafe { Region::new(start, self.map.len() as u64) }
    }

    fn writable_region(&self) -> Region {
        assert!(self.writable, "{} is mapped read-only", self.path.display());
        self.region()
    }
}

impl Memory for Mapping {
    fn len(&self) -> u64 {
        self.region().len()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.writable_region().write(at, bytes);
    }

    fn store(&self, at: u64, word: u64) {
        self.writable_region().store(at, word);
    }

    fn load(&self, at: u64) -> u64 {
        self.region().load(at)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.region().read(at, into);
    }

    fn persist_range(&self, from: u64, len: usize) -> Result<(), Error> {
        let synced = self.map.flush_range(from as usize, len);
        synced.map_err(|error| at(&self.path, from_io("writing it to the medium", error)))
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller keeps writers away, and the mapping lasts as long as `self`.
        unsafe { self.region().slice(at, len) }
    }
}

fn create(path: &Path, size: u64) -> Result<Mapping, FileProblem> {
    if size < MIN_MEMORY {
        return Err(FileProblem::TooSmall {
            bytes: size,
            least: MIN_MEMORY,
        });
    }
    if path.symlink_metadata().is_ok() {
        return Err(FileProblem::Exists);
    }
    let unfinished = unfinished_name(path)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&unfinished)
        .map_err(|error| from_io("making it", error))?;
    lock(&file)?;
    // Another server may have finished this very file and given it its name between our open and our lock.
    let ours = file
        .metadata()
        .map_err(|error| from_io("reading its metadata", error))?;
    match fs::symlink_metadata(&unfinished) {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
        _ => return Err(FileProblem::Locked),
    }
    let finished = allocate(&file, size).and_then(|()| {
        rustix::fs::renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE)
            .map_err(|error| from_io("naming it", error.into()))
    });
    if let Err(problem) = finished {
        // The problem above is the one to report; the next attempt completes a file that is left over.
        let _ = fs::remove_file(&unfinished);
        return Err(problem);
    }
    map(path, file, true)
}

/// The name of a file until it is whole.
fn unfinished_name(path: &Path) -> Result<PathBuf, FileProblem> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(FileProblem::NotAFile)?);
    name.push(".unfinished");
    Ok(path.with_file_name(name))
}

/// Gives the file `size` zeroes, every block of it allocated.
fn allocate(file: &File, size: u64) -> Result<(), FileProblem> {
    let problem = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            FileProblem::DiskFull { bytes: size }
        }
        _ => from_io("allocating it", error),
    };
    file.set_len(0).map_err(problem)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(problem)?;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        // Some file systems cannot; there the zeroes written below allocate it.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(problem(error.into())),
    }
    fill_with_zeroes(file, size).map_err(problem)
}

/// Writes `size` zeroes from the file's beginning: what was there is gone, and every block is allocated.
///
/// # Errors
/// As `write`.
pub fn fill_with_zeroes(file: &File, size: u64) -> io::Result<()> {
    let zeroes = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let piece = (size - at).min(zeroes.len() as u64);
        file.write_all_at(&zeroes[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

fn open(path: &Path, size: u64) -> Result<Mapping, FileProblem> {
    let file = open_private(path)?;
    lock(&file)?;
    check_length(&file, size)?;
    map(path, file, true)
}

fn follow(path: &Path, size: u64) -> Result<Mapping, FileProblem> {
    let file = open_private(path)?;
    check_length(&file, size)?;
    map(path, file, true)
}

/// Opens a regular file to which only its owner, root or this account, has access.
fn open_private(path: &Path) -> Result<File, FileProblem> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|error| from_io("opening it", error))?;
    private_file(&file)?;
    Ok(file)
}

/// Checks that it has this length, and that every block is allocated.
fn check_length(file: &File, size: u64) -> Result<(), FileProblem> {
    let found = file
        .metadata()
        .map_err(|error| from_io("reading its metadata", error))?
        .len();
    if found != size {
        return Err(FileProblem::SizeDiffers {
            found,
            configured: size,
        });
    }
    if found < MIN_MEMORY {
        return Err(FileProblem::TooSmall {
            bytes: found,
            least: MIN_MEMORY,
        });
    }
    match has_hole(file, size).map_err(|error| from_io("looking for holes", error))? {
        true => Err(FileProblem::Sparse),
        false => Ok(()),
    }
}

fn open_read_only(path: &Path) -> Result<Mapping, FileProblem> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|error| from_io("opening it", error))?;
    let found = file
        .metadata()
        .map_err(|error| from_io("reading its metadata", error))?;
    if !found.is_file() {
        return Err(FileProblem::NotAFile);
    }
    if found.len() < MIN_MEMORY {
        return Err(FileProblem::TooSmall {
            bytes: found.len(),
            least: MIN_MEMORY,
        });
    }
    if is_foreign(path) {
        return Err(FileProblem::Foreign);
    }
    map(path, file, false)
}

/// Reports a file of another program as such: it has the wrong mode or length, too, and the remedy for those would
/// spoil it.
fn or_foreign(path: &Path, problem: FileProblem) -> FileProblem {
    match problem {
        FileProblem::OpenToOthers { .. }
        | FileProblem::Owner { .. }
        | FileProblem::SizeDiffers { .. }
        | FileProblem::TooSmall { .. }
        | FileProblem::Sparse
            if is_foreign(path) =>
        {
            FileProblem::Foreign
        }
        problem => problem,
    }
}

/// Returns whether the file holds another program's content. It does not if it is a log, a sink, or was never written
/// to; if it cannot be read, that is unknown.
#[must_use]
pub fn is_foreign(path: &Path) -> bool {
    let is_ours = |word: u64| [MAGIC, 0].contains(&word);
    File::open(path)
        .and_then(|file| first_words(&file))
        .is_ok_and(|words| !words.is_empty() && !words.into_iter().any(is_ours))
}

/// The words where superblocks begin, as far as the file reaches.
fn first_words(file: &File) -> io::Result<Vec<u64>> {
    let mut words = Vec::new();
    for at in SLOTS {
        let mut word = [0; 8];
        if file.read_at(&mut word, at)? > 0 {
            words.push(u64::from_le_bytes(word));
        }
    }
    Ok(words)
}

/// Checks that a file is regular, and that only its owner, root or this account, has access.
fn private_file(file: &File) -> Result<(), FileProblem> {
    let found = file
        .metadata()
        .map_err(|error| from_io("reading its metadata", error))?;
    if !found.is_file() {
        return Err(FileProblem::NotAFile);
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileProblem::OpenToOthers { mode });
    }
    let account = rustix::process::geteuid().as_raw();
    if ![0, account].contains(&found.uid()) {
        return Err(FileProblem::Owner { owner: found.uid() });
    }
    Ok(())
}

fn lock(file: &File) -> Result<(), FileProblem> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(FileProblem::Locked),
        Err(error) => Err(from_io("locking it", error.into())),
    }
}

/// The file system type of tmpfs (statfs(2)).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Returns whether some of the file is not allocated: a store there could find the disk full. File systems that do not
/// know report that everything is data.
fn has_hole(file: &File, size: u64) -> io::Result<bool> {
    // tmpfs examines each page, 5 ms for 256 MiB, while clients wait; and its block count has nothing but the file's
    // pages.
    if rustix::fs::fstatfs(file)?.f_type == TMPFS_MAGIC {
        return Ok(file.metadata()?.blocks() * 512 < size);
    }
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0)) {
        Ok(hole) => Ok(hole < size),
        Err(Errno::INVAL | Errno::NXIO) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn map(path: &Path, file: File, writable: bool) -> Result<Mapping, FileProblem> {
    // A mapping keeps its file description open, and thus locked, until the kernel has removed it, long after a process
    // has died. So the lock and the mapping use two open file descriptions (flock(2)).
    let mapped = OpenOptions::new()
        .read(true)
        .write(writable)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|error| from_io("opening it again", error))?;
    let options = MmapOptions::new();
    let map = if writable {
        options.map_raw(&mapped)
    } else {
        options.map_raw_read_only(&mapped)
    };
    Ok(Mapping {
        map: map.map_err(|error| from_io("mapping it", error))?,
        writable,
        path: path.to_path_buf(),
        file,
    })
}

fn from_io(doing: &'static str, error: io::Error) -> FileProblem {
    match (error.kind(), doing) {
        (io::ErrorKind::NotFound, "making it") => FileProblem::NoDirectory,
        (io::ErrorKind::NotFound, _) => FileProblem::Missing,
        (io::ErrorKind::AlreadyExists, _) => FileProblem::Exists,
        (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem, _) => {
            FileProblem::Denied
        }
        (io::ErrorKind::IsADirectory, _) => FileProblem::NotAFile,
        _ => FileProblem::Io { doing, error },
    }
}

fn at(path: &Path, problem: FileProblem) -> Error {
    Error::File {
        path: path.to_path_buf(),
        problem,
    }
}

#[cfg(test)]
mod tests;
