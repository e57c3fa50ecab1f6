//! A supervisor's report about its pair, in memory shared with the workers.

use std::io;
use std::os::fd::OwnedFd;

use crate::control::PairStatus;
use crate::shared_page::SharedPage;

/// The place of the text; before it are its length, and whether the partner is in step.
const TEXT_AT: u64 = 16;
/// The longest text, in bytes.
const TEXT_MAX: u64 = 64 << 10;
/// The number of attempts to read it while the supervisor is writing.
const ATTEMPTS: usize = 3;

/// The shared page.
#[derive(Clone, Debug)]
pub struct Page(SharedPage);

impl Page {
    /// Makes an empty page.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn new() -> io::Result<Page> {
        SharedPage::new("outlast-pair", TEXT_AT).map(Page)
    }

    /// Writes the report.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, status: &PairStatus) -> io::Result<()> {
        let text = serde_json::to_vec(status)?;
        self.0.write(TEXT_AT, &text)?;
        let words = [text.len() as u64, u64::from(status.in_step)];
        self.0.set_words(0, words)
    }

    /// Returns whether the partner is in step; an unreadable page says no.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.0.words(8) == [1]
    }

    /// Reads the report, if it has been written.
    #[must_use]
    pub fn read(&self) -> Option<PairStatus> {
        (0..ATTEMPTS).find_map(|_| {
            let [len] = self.0.words(0);
            let mut text = vec![0; usize::try_from(len.min(TEXT_MAX)).ok()?];
            self.0.read(TEXT_AT, &mut text).ok()?;
            serde_json::from_slice(&text).ok()
        })
    }

    /// The memory that workers inherit.
    #[must_use]
    pub fn memory(&self) -> &SharedPage {
        &self.0
    }
}

impl From<OwnedFd> for Page {
    fn from(page: OwnedFd) -> Page {
        Page(page.into())
    }
}
