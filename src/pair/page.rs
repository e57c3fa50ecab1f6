//! Shares a supervisor's report about its pair with the workers, in a page of memory.

use std::io;
use std::os::fd::OwnedFd;

use crate::control::PairStatus;
use crate::shared_page::SharedPage;

/// The offset of the text. Before it are its length, whether the partner is in step, the number of the worker's last
/// executed request, and the tenure.
const TEXT_AT: u64 = 64;
const IN_STEP_AT: u64 = 8;
const ANSWERED_AT: u64 = 16;
const TENURE_AT: u64 = 24;
/// The longest text.
const TEXT_MAX: u64 = 64 << 10;
/// The number of attempts to read it while the supervisor is writing.
const ATTEMPTS: usize = 3;

/// The epoch and the state of a serving node, if each node has an NVRAM of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The arbiter's epoch.
    pub epoch: u64,
    /// The epoch of the state that it resumes; `None`: it has no state to resume.
    pub resumes: Option<u64>,
}

/// The page.
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
    /// The kernel provides no memory.
    pub fn write(&self, status: &PairStatus) -> io::Result<()> {
        let text = serde_json::to_vec(status)?;
        self.0.write(TEXT_AT, &text)?;
        let words = [text.len() as u64, u64::from(status.in_step)];
        self.0.set_words(0, words)
    }

    /// Returns whether the partner is in step; an unreadable page says no.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.0.words(IN_STEP_AT) == [1]
    }

    /// Records that the worker's requests up to this number are executed. Their results have been written before.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn answer(&self, number: u64) -> io::Result<()> {
        self.0.set_words(ANSWERED_AT, [number])
    }

    /// Returns the number of the last executed request.
    #[must_use]
    pub fn answered(&self) -> u64 {
        let [number] = self.0.words(ANSWERED_AT);
        number
    }

    /// Writes the tenure.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn set_tenure(&self, tenure: Tenure) -> io::Result<()> {
        let resumes = tenure.resumes.map_or([0, 0], |of| [1, of]);
        self.0
            .set_words(TENURE_AT, [tenure.epoch, resumes[0], resumes[1]])
    }

    /// Reads the tenure.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        let [epoch, resumes, of] = self.0.words(TENURE_AT);
        Tenure {
            epoch,
            resumes: (resumes == 1).then_some(of),
        }
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

    /// Returns the memory that workers inherit.
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
