//! Shares counts between a supervisor and its workers in memory: the serving worker writes its counts there, the
//! supervisor the returns, and each process can read all of it.

use std::io;
use std::os::fd::OwnedFd;

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{MemfdFlags, SealFlags};

use super::counts::{self, Counts};
use super::gauges::{self, Gauges};
use super::returns::{self, Return, Returns};
use crate::shared_page::SharedPage;

/// The environment variable with the descriptor.
pub const VARIABLE: &str = "OUTLAST_METRICS_FD";

/// The version of the page's layout: a worker of another version begins to count again, in a page of its own. The
/// length is part of it.
const LAYOUT: u64 = 1 << 32 | LEN as u64;
/// Length of a word in bytes.
const WORD: usize = size_of::<u64>();
const COUNTS_AT: usize = WORD;
const GAUGES_AT: usize = COUNTS_AT + counts::LEN * WORD;
const RETURNS_AT: usize = GAUGES_AT + gauges::LEN * WORD;
/// Length of the page in bytes.
const LEN: usize = RETURNS_AT + returns::LEN * WORD;

/// The page.
#[derive(Clone, Debug)]
pub struct Page(SharedPage);

impl Page {
    /// Makes a page in which all counts are zero.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn new() -> io::Result<Page> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("outlast-metrics", flags)?;
        rustix::fs::ftruncate(&memory, LEN as u64)?;
        // Access to a mapping of a file that has shrunk would end the process.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memory, seals)?;
        let page = SharedPage::from(memory);
        page.set_words(0, [LAYOUT])?;
        Ok(Page(page))
    }

    /// Takes the page that the supervisor has passed to this process; makes another one if its layout differs.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn inherited(memory: Option<OwnedFd>) -> io::Result<Page> {
        let page = memory.map(SharedPage::from);
        let page = page.filter(|page| page.words(0) == [LAYOUT]);
        page.map_or_else(Page::new, |page| Ok(Page(page)))
    }

    /// Returns the counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::from(self.0.words(COUNTS_AT as u64))
    }

    /// Returns the gauges.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges::from_words(self.0.words(GAUGES_AT as u64))
    }

    pub(super) fn returns(&self) -> Returns {
        Returns(self.0.words(RETURNS_AT as u64))
    }

    /// Returns the last returns, the latest first.
    #[must_use]
    pub fn last_returns(&self) -> Vec<Return> {
        self.returns().last()
    }

    /// Adds the return of a worker. Only the supervisor calls it.
    pub fn add_return(&self, new: Return) {
        let mut returns = self.returns();
        returns.add(new);
        // An error is ignored: no client depends on this memory.
        let _ = self.0.set_words(RETURNS_AT as u64, returns.0);
    }

    /// Makes the writer of the serving worker, which alone writes counts.
    ///
    /// # Errors
    /// The page cannot be mapped.
    pub fn writer(&self) -> io::Result<Writer> {
        // SAFETY: the memory is sealed against shrinking, and of all processes that have it only the serving worker
        // writes this part of it: the preceding one has ended and is reaped.
        let memory = unsafe { MmapOptions::new().len(LEN).map_mut(&self.0)? };
        Ok(Writer { memory })
    }

    /// Returns the memory that workers inherit.
    pub(crate) fn memory(&self) -> &SharedPage {
        &self.0
    }
}

/// The serving worker's side of the page.
#[derive(Debug)]
pub struct Writer {
    memory: MmapMut,
}

impl Writer {
    /// Replaces the counts.
    pub fn count(&mut self, counts: &Counts) {
        self.put(COUNTS_AT, counts.words());
    }

    /// Replaces the gauges.
    pub fn measure(&mut self, gauges: Gauges) {
        self.put(GAUGES_AT, &gauges.words());
    }

    fn put(&mut self, at: usize, words: &[u64]) {
        let room = self.memory.get_mut(at..).unwrap_or_default();
        for (into, word) in room.chunks_exact_mut(WORD).zip(words) {
            into.copy_from_slice(&word.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
