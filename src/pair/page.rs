//! What a supervisor says of its pair, for the workers: memory that they share.

use std::io;
use std::os::fd::OwnedFd;

use crate::control::PairStatus;
use crate::shared_page::SharedPage;

/// Where the text is; before it are its length, and whether the partner is in step.
const TEXT_AT: u64 = 16;
/// Longest text.
const TEXT_MAX: u64 = 64 << 10;
/// How often it is read when the supervisor is writing it.
const ATTEMPTS: usize = 3;

/// The page.
#[derive(Clone, Debug)]
pub struct Page(SharedPage);

impl Page {
    /// One that says nothing yet.
    ///
    /// # Errors
    /// There can be none.
    pub fn new() -> io::Result<Page> {
        SharedPage::new("outlast-pair", TEXT_AT).map(Page)
    }

    /// Says it.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, status: &PairStatus) -> io::Result<()> {
        let text = serde_json::to_vec(status)?;
        self.0.write(TEXT_AT, &text)?;
        let words = [text.len() as u64, u64::from(status.in_step)];
        self.0.set_words(0, words)
    }

    /// The partner is in step. What cannot be read is not.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.0.words(8) == [1]
    }

    /// All of it, if it has been written.
    #[must_use]
    pub fn read(&self) -> Option<PairStatus> {
        (0..ATTEMPTS).find_map(|_| {
            let [len] = self.0.words(0);
            let mut text = vec![0; usize::try_from(len.min(TEXT_MAX)).ok()?];
            self.0.read(TEXT_AT, &mut text).ok()?;
            serde_json::from_slice(&text).ok()
        })
    }

    /// The memory, to be inherited.
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
