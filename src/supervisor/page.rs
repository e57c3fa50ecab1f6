//! Memory that all workers of a supervisor share: there the worker that stands by says how it is, and the one that
//! serves says by which digest the other can check its state.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use outlast_nvram::codec;

use super::environment;
use crate::server::digest::Mark;
use crate::shared_page::SharedPage;

/// Names the descriptor of the [`Page`].
pub(super) const VARIABLE: &str = "OUTLAST_STANDBY_FD";
/// Where [`Standing`] is: its process id and its position.
const STANDING_AT: u64 = 0;
/// Where the worker that stands by counts comparisons.
const COMPARED_AT: u64 = 16;
/// Where the supervisor counts differences.
const DIFFERENCES_AT: u64 = 24;
/// Where the [`Mark`] is: its checksum, its length and itself.
const MARK_AT: u64 = 64;
/// Longest mark, with those.
const MARK_MAX: usize = 128;

/// The memory.
#[derive(Clone, Debug)]
pub struct Page(SharedPage);

/// How a worker stands by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its process id; 0: there is none.
    pub pid: u32,
    /// How far it has read the log, in bytes since that was formatted.
    pub position: u64,
}

/// What has come of comparisons since the supervisor began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Digests that were compared.
    pub digests: u64,
    /// Those that were not the same.
    pub differences: u64,
}

impl Page {
    /// One that says that nobody stands by.
    ///
    /// # Errors
    /// There can be none.
    pub(super) fn new() -> io::Result<Page> {
        SharedPage::new("outlast-standby", MARK_AT + MARK_MAX as u64).map(Page)
    }

    /// The one that the supervisor has given this process, if it has.
    pub(super) fn inherited(is_open: impl FnOnce(RawFd) -> bool) -> Option<Page> {
        environment::inherited(VARIABLE, is_open).map(Page::from)
    }

    /// How the worker stands by. A page that cannot be read says nothing.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let [pid, position] = self.0.words(STANDING_AT);
        Standing {
            pid: u32::try_from(pid).unwrap_or_default(),
            position,
        }
    }

    /// Says how the worker stands by.
    pub(super) fn stand(&self, standing: Standing) {
        self.put_words(STANDING_AT, [u64::from(standing.pid), standing.position]);
    }

    /// What has come of comparisons.
    #[must_use]
    pub fn compared(&self) -> Compared {
        let [digests, differences] = self.0.words(COMPARED_AT);
        Compared {
            digests,
            differences,
        }
    }

    /// Counts a comparison. The worker that stands by alone does that.
    pub(super) fn count_comparison(&self) {
        self.put_words(COMPARED_AT, [self.compared().digests + 1]);
    }

    /// Counts a difference. The supervisor alone does that.
    pub(super) fn count_difference(&self) {
        self.put_words(DIFFERENCES_AT, [self.compared().differences + 1]);
    }

    /// The last mark of the worker that serves. One that is just being written is none.
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

    /// Makes a mark; it replaces the one before.
    pub fn set_mark(&self, mark: &Mark) {
        let mut encoded = Vec::new();
        codec::encode(mark, &mut encoded);
        let mut bytes = crc32c::crc32c(&encoded).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&(encoded.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&encoded);
        self.put(MARK_AT, &bytes);
    }

    /// A worker begins to serve, which may have stood by until now: nobody stands by, and there is no mark.
    pub fn begin(&self) {
        self.stand(Standing::default());
        self.put(MARK_AT, &[0xFF; 8]);
    }

    // Memory: nothing that a client depends on is in it.

    fn put(&self, at: u64, bytes: &[u8]) {
        let _ = self.0.write(at, bytes);
    }

    fn put_words<const N: usize>(&self, at: u64, words: [u64; N]) {
        let _ = self.0.set_words(at, words);
    }

    /// The memory, to be inherited.
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
mod tests {
    use outlast_smb::copying::Cursor;

    use super::*;
    use crate::server::digest::Place;

    #[test]
    fn what_is_said_is_read() {
        let page = Page::new().unwrap();
        assert_eq!(page.standing(), Standing::default());
        assert_eq!(page.mark(), None);
        let standing = Standing {
            pid: 7,
            position: u64::MAX,
        };
        page.stand(standing);
        page.count_comparison();
        page.count_comparison();
        page.count_difference();
        let compared = Compared {
            digests: 2,
            differences: 1,
        };
        assert_eq!((page.standing(), page.compared()), (standing, compared));
        for cursor in [Cursor::Work, Cursor::Opens(Some(u64::MAX))] {
            let mark = Mark {
                from: Place {
                    object: u64::MAX,
                    cursor,
                },
                position: u64::MAX,
                digest: u64::MAX,
            };
            page.set_mark(&mark);
            assert_eq!(page.mark(), Some(mark));
        }
        page.put(MARK_AT + 9, &[1]);
        assert_eq!(page.mark(), None, "it is half written");
        page.set_mark(&Mark {
            from: Place::START,
            position: 1,
            digest: 2,
        });
        page.begin();
        assert_eq!((page.mark(), page.standing()), (None, Standing::default()));
        assert_eq!(page.compared(), compared);
    }
}
