//! Shares a page between all workers of a supervisor: the standby worker reports its state there, and the serving
//! worker the digests to compare with.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use outlast_nvram::codec;

use super::environment;
use crate::server::digest::Mark;
use crate::shared_page::SharedPage;

/// The variable with the descriptor of the [`Page`].
pub(super) const VARIABLE: &str = "OUTLAST_STANDBY_FD";
/// The place of [`Standing`]: process id and position.
const STANDING_AT: u64 = 0;
/// The place of the standby worker's count of comparisons.
const COMPARED_AT: u64 = 16;
/// The place of the supervisor's count of differences.
const DIFFERENCES_AT: u64 = 24;
/// The place of the [`Mark`]: its checksum, its length and itself.
const MARK_AT: u64 = 64;
/// Length of the longest mark, with those.
const MARK_MAX: usize = 128;

/// The shared page.
#[derive(Clone, Debug)]
pub struct Page(SharedPage);

/// The state of the standby worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its process id; 0: there is no standby worker.
    pub pid: u32,
    /// The position up to which it has read the log, in bytes since that was formatted.
    pub position: u64,
}

/// The results of comparisons since the supervisor started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The number of digests compared.
    pub digests: u64,
    /// The number of those that differed.
    pub differences: u64,
}

impl Page {
    /// Makes a page without a standby worker.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub(super) fn new() -> io::Result<Page> {
        SharedPage::new("outlast-standby", MARK_AT + MARK_MAX as u64).map(Page)
    }

    /// Takes the page that the supervisor has passed to this process, if it has.
    pub(super) fn inherited(is_open: impl FnOnce(RawFd) -> bool) -> Option<Page> {
        environment::inherited(VARIABLE, is_open).map(Page::from)
    }

    /// Reads the state of the standby worker; an unreadable page has none.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let [pid, position] = self.0.words(STANDING_AT);
        Standing {
            pid: u32::try_from(pid).unwrap_or_default(),
            position,
        }
    }

    /// Writes the state of the standby worker.
    pub(super) fn stand(&self, standing: Standing) {
        self.put_words(STANDING_AT, [u64::from(standing.pid), standing.position]);
    }

    /// The results of comparisons.
    #[must_use]
    pub fn compared(&self) -> Compared {
        let [digests, differences] = self.0.words(COMPARED_AT);
        Compared {
            digests,
            differences,
        }
    }

    /// Counts a comparison. Only the standby worker does that.
    pub(super) fn count_comparison(&self) {
        self.put_words(COMPARED_AT, [self.compared().digests + 1]);
    }

    /// Counts a difference. Only the supervisor does that.
    pub(super) fn count_difference(&self) {
        self.put_words(DIFFERENCES_AT, [self.compared().differences + 1]);
    }

    /// The last mark of the serving worker. One that is being written does not count.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        let mut bytes = [0; MARK_MAX];
        self.0.read(MARK_AT, &mut bytes).ok()?;
        let (head, rest) = bytes.split_at(8);
        let word = |at: usize| {
            head.get(at..)?
                .first_chunk()
                .copied()
                .map(u32::from_ne_bytes)
        };
        let mark = rest.get(..word(4)? as usize)?;
        (crc32c::crc32c(mark) == word(0)?).then_some(())?;
        codec::decode(mark).ok()
    }

    /// Writes a mark, in place of the one before.
    pub fn set_mark(&self, mark: &Mark) {
        let mut encoded = Vec::new();
        codec::encode(mark, &mut encoded);
        let mut bytes = crc32c::crc32c(&encoded).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&(encoded.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&encoded);
        self.put(MARK_AT, &bytes);
    }

    /// Notes that a worker begins to serve, which may have been the standby worker: there is none then, and no mark.
    pub fn begin(&self) {
        self.stand(Standing::default());
        self.put(MARK_AT, &[0xFF; 8]);
    }

    // No client depends on this memory.

    fn put(&self, at: u64, bytes: &[u8]) {
        let _ = self.0.write(at, bytes);
    }

    fn put_words<const N: usize>(&self, at: u64, words: [u64; N]) {
        let _ = self.0.set_words(at, words);
    }

    /// The memory that workers inherit.
    pub(super) fn memory(&self) -> &SharedPage {
        &self.0
    }
}

impl From<OwnedFd> for Page {
    fn from(page: OwnedFd) -> Page {
        Page(page.into())
    }
}

#[cfg(test)]
mod tests;
