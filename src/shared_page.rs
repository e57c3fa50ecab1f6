//! Memory that a supervisor and its workers share: a memfd, accessed by system calls.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::MemfdFlags;

/// The shared memory.
#[derive(Clone, Debug)]
pub struct SharedPage(Arc<File>);

impl SharedPage {
    /// Makes a page of zeros with this many bytes; `name` is shown in /proc.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn new(name: &str, len: u64) -> io::Result<SharedPage> {
        let page = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&page, len)?;
        Ok(SharedPage::from(page))
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// It is shorter.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    /// Reads words; zeros if the memory is shorter.
    #[must_use]
    pub fn words<const N: usize>(&self, at: u64) -> [u64; N] {
        let mut words = [[0; 8]; N];
        match self.read(at, words.as_flattened_mut()) {
            Ok(()) => words.map(u64::from_ne_bytes),
            Err(_) => [0; N],
        }
    }

    /// Writes words.
    ///
    /// # Errors
    /// As [`SharedPage::write`].
    pub fn set_words<const N: usize>(&self, at: u64, words: [u64; N]) -> io::Result<()> {
        self.write(at, words.map(u64::to_ne_bytes).as_flattened())
    }
}

impl From<OwnedFd> for SharedPage {
    fn from(page: OwnedFd) -> SharedPage {
        SharedPage(Arc::new(page.into()))
    }
}

impl AsFd for SharedPage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SharedPage {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
