//! Implements the arbiter `lock`: an open-file-description lock (fcntl(2), `F_OFD_SETLK`) on a file that both nodes
//! reach.
//!
//! The kernel, or the lock manager of a cluster file system, admits one node at a time. The lock belongs to an open
//! file description, which supervisor and workers of a node share: it ends when the last of them has ended, and not
//! before. The record is in the file itself, in two places, each written and synced in turn under the lock.
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 511, 512 to 1023 | the term, twice |
//! | 4096 (1 + n) to 511 more | node n: the machine and boot it was last started on |
//!
//! Byte 0 is locked by the holder, byte 1 + n by node n as long as it runs. A record is a line of text: a magic, the
//! version, the CRC-32C of what follows, and JSON; zeros follow it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use outlast_nvram::Incarnation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::arbiter::{Arbiter, ArbiterError, Running, Seen, Term};

const MAGIC: &str = "outlast-pair";
const VERSION: u32 = 1;
const RECORD_LEN: usize = 512;
const TERMS_AT: [u64; 2] = [0, RECORD_LEN as u64];
const NODE_LEN: u64 = 4096;
/// Bytes of a complete file: the terms, and a place for each of two nodes.
const FILE_LEN: u64 = 3 * NODE_LEN;
const HOLDER_BYTE: i64 = 0;

/// The term, and the number of times it has been written.
#[derive(Serialize, Deserialize)]
struct Numbered {
    sequence: u64,
    term: Term,
}

/// The arbiter of one node.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    /// Number of this node among the nodes: 0 or 1.
    own: usize,
    /// The lock that shows that this node runs. Only the supervisor holds it.
    _presence: File,
    /// The file for the holder's lock: workers inherit it.
    file: File,
    is_held: bool,
}

/// Why a record cannot be read.
enum Unreadable {
    Damaged,
    Version(u32),
}

impl LockFile {
    /// Opens or creates the file, for node number `own` (0 or 1), and records there that this node runs.
    ///
    /// # Errors
    /// The file cannot be used, or the node already runs.
    pub fn open(
        path: &Path,
        own: usize,
        incarnation: Incarnation,
    ) -> Result<LockFile, ArbiterError> {
        let presence = match open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(path).and_then(|()| open(path))
            }
            opened => opened,
        };
        let presence = presence.map_err(|error| unusable(path, "opened", &error))?;
        let byte = node_byte(own);
        if !try_lock(&presence, byte).map_err(|error| unusable(path, "locked", &error))? {
            return Err(ArbiterError::Wrong(format!(
                "{}: a server runs as this node already: end it, or give this one the other node's name (partner.node)",
                path.display()
            )));
        }
        let running = Running::new(incarnation);
        let file = open(path).map_err(|error| unusable(path, "opened", &error))?;
        let lock = LockFile {
            path: path.to_owned(),
            own,
            _presence: presence,
            file,
            is_held: false,
        };
        lock.term()?;
        let record = record(&running).map_err(|error| unusable(path, "written", &error))?;
        let written = lock.file.write_all_at(&record, node_at(own));
        written
            .and_then(|()| lock.file.sync_data())
            .map_err(|error| unusable(path, "written", &error))?;
        Ok(lock)
    }

    /// Returns the descriptor that every process that may send must hold open: as long as one of them lives, no other
    /// node is admitted.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn term(&self) -> Result<Numbered, ArbiterError> {
        let mut newest: Option<Numbered> = None;
        let mut version = None;
        for at in TERMS_AT {
            match self.read::<Numbered>(at)? {
                Ok(found)
                    if newest
                        .as_ref()
                        .is_none_or(|known| known.sequence < found.sequence) =>
                {
                    newest = Some(found);
                }
                Err(Unreadable::Version(other)) => version = Some(other),
                Ok(_) | Err(_) => {}
            }
        }
        let name = self.path.display();
        if let Some(version) = version {
            return Err(ArbiterError::Wrong(format!(
                "{name} is of version {version}, and this binary knows {VERSION}: run the newer binary on both nodes"
            )));
        }
        newest.ok_or_else(|| {
            ArbiterError::Wrong(format!(
                "{name} is damaged, so which node may serve is not known: end both nodes, remove the file, and start \
                 first the node that served last"
            ))
        })
    }

    fn read<T: DeserializeOwned>(&self, at: u64) -> Result<Result<T, Unreadable>, ArbiterError> {
        let mut bytes = [0; RECORD_LEN];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(parse(&bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Err(Unreadable::Damaged)),
            Err(error) => Err(unusable(&self.path, "read", &error)),
        }
    }

    /// Returns whether the name still leads to the open file: a file that replaced it has other locks.
    fn is_the_same(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn require_the_same(&self) -> Result<(), ArbiterError> {
        match self.is_the_same() {
            Ok(true) => Ok(()),
            Ok(false) => Err(ArbiterError::Lost(format!(
                "{} was removed or replaced while this node runs: end both nodes and start them again",
                self.path.display()
            ))),
            Err(error) => Err(unusable(&self.path, "looked at", &error)),
        }
    }
}

impl Arbiter for LockFile {
    fn look(&mut self) -> Result<Seen, ArbiterError> {
        self.require_the_same()?;
        let locked = |byte| {
            is_locked(&self.file, byte).map_err(|error| unusable(&self.path, "locked", &error))
        };
        let is_held = self.is_held || locked(HOLDER_BYTE)?;
        let partner_runs = locked(node_byte(1 - self.own))?;
        let partner = self.read::<Running>(node_at(1 - self.own))?;
        Ok(Seen {
            term: self.term()?.term,
            is_held,
            partner_runs,
            partner: partner.ok().and_then(|running| running.incarnation()),
        })
    }

    fn ask(&mut self) -> Result<Option<Term>, ArbiterError> {
        self.is_held = try_lock(&self.file, HOLDER_BYTE)
            .map_err(|error| unusable(&self.path, "locked", &error))?;
        if !self.is_held {
            return Ok(None);
        }
        let read = self.require_the_same().and_then(|()| self.term());
        match read {
            Ok(numbered) => Ok(Some(numbered.term)),
            Err(error) => {
                self.release();
                Err(error)
            }
        }
    }

    fn write(&mut self, term: &Term) -> Result<(), ArbiterError> {
        self.renew()?;
        let before = self.term()?;
        if term.epoch < before.term.epoch {
            return Err(ArbiterError::Lost(format!(
                "{}: epoch {} is over, it is {} now",
                self.path.display(),
                term.epoch,
                before.term.epoch
            )));
        }
        let numbered = Numbered {
            sequence: before.sequence + 1,
            term: term.clone(),
        };
        let write = || {
            let record = record(&numbered)?;
            for at in TERMS_AT {
                self.file.write_all_at(&record, at)?;
                self.file.sync_data()?;
            }
            Ok(())
        };
        write().map_err(|error: io::Error| unusable(&self.path, "written", &error))
    }

    fn renew(&mut self) -> Result<(), ArbiterError> {
        if !self.is_held {
            return Err(ArbiterError::Lost(format!(
                "{} is not locked by this node",
                self.path.display()
            )));
        }
        self.require_the_same()
    }

    fn release(&mut self) {
        self.is_held = false;
        // The lock also ends when every descriptor is closed, as at the end of the process; this way is for a node that
        // continues.
        if let Err(error) = set_lock(&self.file, libc::F_UNLCK, HOLDER_BYTE) {
            log::error!("{}", unusable(&self.path, "unlocked", &error));
        }
    }
}

fn node_byte(node: usize) -> i64 {
    HOLDER_BYTE + 1 + node as i64
}

fn node_at(node: usize) -> u64 {
    NODE_LEN * (1 + node as u64)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Makes the complete file, and then gives it its name.
fn make(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = path.with_file_name(name);
    let finish = || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.set_len(FILE_LEN)?;
        let record = record(&Numbered {
            sequence: 1,
            term: Term::first(),
        })?;
        for at in TERMS_AT {
            file.write_all_at(&record, at)?;
        }
        file.sync_all()?;
        match std::fs::hard_link(&unfinished, path) {
            // The other node has created it first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    };
    let finished = finish();
    let _ = std::fs::remove_file(&unfinished);
    finished?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn record<T: Serialize>(value: &T) -> io::Result<[u8; RECORD_LEN]> {
    let json = serde_json::to_string(value)?;
    let checksum = crc32c::crc32c(json.as_bytes());
    let line = format!("{MAGIC} {VERSION} {checksum:08x} {json}\n");
    let mut record = [0; RECORD_LEN];
    match record.get_mut(..line.len()) {
        Some(place) => place.copy_from_slice(line.as_bytes()),
        None => return Err(io::Error::other("the names of the nodes are too long")),
    }
    Ok(record)
}

fn parse<T: DeserializeOwned>(bytes: &[u8; RECORD_LEN]) -> Result<T, Unreadable> {
    let line = bytes.split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().splitn(4, ' ');
    let mut next = || words.next().ok_or(Unreadable::Damaged);
    let (magic, version, checksum, json) = (next()?, next()?, next()?, next()?);
    let version: u32 = version.parse().map_err(|_| Unreadable::Damaged)?;
    let sum = u32::from_str_radix(checksum, 16).map_err(|_| Unreadable::Damaged)?;
    if magic != MAGIC || sum != crc32c::crc32c(json.as_bytes()) {
        return Err(Unreadable::Damaged);
    }
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    serde_json::from_str(json).map_err(|_| Unreadable::Damaged)
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> ArbiterError {
    ArbiterError::Unavailable(format!(
        "partner.lock: {} cannot be {what}: {error}; it has to be on storage that both nodes reach",
        path.display()
    ))
}

fn flock(kind: libc::c_int, byte: i64) -> libc::flock {
    // SAFETY: flock is a plain C structure for which zeros are a value; `l_pid` has to be zero for these locks.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte;
    lock.l_len = 1;
    lock
}

fn set_lock(file: &File, kind: libc::c_int, byte: i64) -> io::Result<()> {
    let lock = flock(kind, byte);
    // SAFETY: F_OFD_SETLK reads one flock, which lives across the call; the descriptor is open.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Locks a byte. False: another open file has it locked.
fn try_lock(file: &File, byte: i64) -> io::Result<bool> {
    match set_lock(file, libc::F_WRLCK, byte) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether another open file has it locked.
fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, byte);
    // SAFETY: F_OFD_GETLK reads and writes one flock, which lives across the call; the descriptor is open.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK),
    }
}

#[cfg(test)]
mod tests;
