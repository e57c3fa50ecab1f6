//! Simulates a share whose directory is missing for a while: in some scenarios a life of the server after the first
//! begins without it. The path does not exist, or leads to another directory, as when a file system is not mounted.
//! Requests for the share are refused meanwhile (MS-SMB2 3.3.5.7: a TREE_CONNECT with BAD_NETWORK_NAME; other requests
//! with IO_DEVICE_ERROR), nothing is served from the other directory, and all opens are still open when the share is
//! back.
//!
//! The other directory is refused only if the share's own is on record, so it appears only after an operation.
//!
//! The clients of such a scenario use files of their own and send one request at a time, so that a refused request can
//! be sent again before anything else. For the same reason no request may be done in part: there are no compounds but
//! CREATE and CLOSE, no deletions (a CLOSE whose deletion fails is answered with the error, but has closed the file),
//! and no directory listings, of which a part may have arrived.

use std::time::Duration;

use outlast_fsa::fileop::FileKey;

use crate::clock::Speed;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::workload::{DELETE_ON_CLOSE, Op, Verb};

/// The delay after which a client sends a refused request again.
pub const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The share's own directory.
pub const OWN: FileKey = FileKey {
    dev: 1,
    ino: 1,
    birth_ns: 1,
};

/// The directory at the same path while the share's file system is not mounted.
pub const OTHER: FileKey = FileKey {
    dev: 2,
    ino: 1,
    birth_ns: 1,
};

/// What the share's path leads to while its directory is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Nothing.
    Nothing,
    /// An empty directory of another file system.
    Another,
}

/// A time without the share, at the beginning of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// What the path leads to instead.
    pub instead: Instead,
    /// Its length: less than the time for which the server repeats a redo (`src/server/retrying.rs`).
    pub lasts: Duration,
}

/// Returns whether this seed's scenario has such times: one of twelve usual scenarios and one of eight small ones has,
/// if its durability is `process`.
#[must_use]
pub fn is_of(seed: u64) -> bool {
    matches!(seed % 32, 7 | 17 | 24)
}

impl Away {
    /// Returns the missing share of a life, if there is one.
    #[must_use]
    pub fn of(scenario: &Scenario, life: u32) -> Option<Away> {
        let mut random = Random::at_step(scenario.seed, life.into(), "away");
        (scenario.has_outages_of_share && life > 0 && random.percent(80)).then(|| Away {
            instead: *random.pick(&[Instead::Nothing, Instead::Another]),
            lasts: Duration::from_millis(*random.pick(&[1, 30, 300])),
        })
    }
}

impl Scenario {
    /// Lets the share be missing in later lives, if the seed says so.
    pub(crate) fn with_outages_of_share(mut self) -> Scenario {
        self.has_outages_of_share = is_of(self.seed) && self.kind.is_mixed();
        if self.has_outages_of_share {
            self.ops.retain(|op| !op.shared && is_refused_as_whole(op));
            for op in &mut self.ops {
                delete_nothing(op);
            }
            // A compound must be refused as a whole, so its processing must not be interrupted.
            self.speed = Speed::Fast;
            for profile in &mut self.profiles {
                profile.depth = 1;
            }
        }
        self
    }
}

/// Returns whether a missing share refuses either all components of this request or none.
pub(crate) fn is_refused_as_whole(op: &Op) -> bool {
    let mut rest = op.verbs.iter().skip(1);
    let has_parts = |verb: &Verb| matches!(verb, Verb::Dispose { .. } | Verb::Walk { .. });
    rest.all(|verb| matches!(verb, Verb::Close { .. })) && !op.verbs.iter().any(has_parts)
}

/// Removes FILE_DELETE_ON_CLOSE from the CREATEs of a request.
pub(crate) fn delete_nothing(op: &mut Op) {
    for verb in &mut op.verbs {
        if let Verb::Create { options, .. } = verb {
            *options &= !DELETE_ON_CLOSE;
        }
    }
}
