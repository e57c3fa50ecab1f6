//! What a supervisor says of its pair, for the workers: memory that they share.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::MemfdFlags;

use crate::control::PairStatus;

/// Where the text is; before it are its length, and whether the partner is in step.
const TEXT_AT: u64 = 16;
/// Longest text.
const TEXT_MAX: u64 = 64 << 10;
/// How often it is read when the supervisor is writing it.
const ATTEMPTS: usize = 3;

/// The page.
#[derive(Clone, Debug)]
pub struct Page(Arc<File>);

impl Page {
    /// One that says nothing yet.
    ///
    /// # Errors
    /// There can be none.
    pub fn new() -> io::Result<Page> {
        let page = rustix::fs::memfd_create("outlast-pair", MemfdFlags::CLOEXEC)?;
        Ok(Page::from(page))
    }

    /// Says it.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, status: &PairStatus) -> io::Result<()> {
        let text = serde_json::to_vec(status)?;
        let words = [text.len() as u64, u64::from(status.in_step)].map(u64::to_ne_bytes);
        self.0.write_all_at(&text, TEXT_AT)?;
        self.0.write_all_at(words.as_flattened(), 0)
    }

    /// The partner is in step. What cannot be read is not.
    #[must_use]
    pub fn in_step(&self) -> bool {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, 8).is_ok() && u64::from_ne_bytes(word) == 1
    }

    /// All of it, if it has been written.
    #[must_use]
    pub fn read(&self) -> Option<PairStatus> {
        (0..ATTEMPTS).find_map(|_| {
            let mut word = [0; 8];
            self.0.read_exact_at(&mut word, 0).ok()?;
            let len = u64::from_ne_bytes(word).min(TEXT_MAX);
            let mut text = vec![0; usize::try_from(len).ok()?];
            self.0.read_exact_at(&mut text, TEXT_AT).ok()?;
            serde_json::from_slice(&text).ok()
        })
    }
}

impl From<OwnedFd> for Page {
    fn from(fd: OwnedFd) -> Page {
        Page(Arc::new(fd.into()))
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Page {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
