//! A share whose directory is not there for a while: in some scenarios a life of the server after the first one begins
//! without it. The path leads nowhere, or to another directory, as when a file system is not mounted. Requests for the
//! share are refused meanwhile (MS-SMB2 3.3.5.7: a TREE_CONNECT with BAD_NETWORK_NAME; other requests with
//! IO_DEVICE_ERROR), nothing is served from the other directory, and all that was open is open when the share is back.
//!
//! Another directory is not served if the one before is on record, so it takes that place only after an operation.
//!
//! The clients of such a scenario use files of their own and send one request at a time, so that a request that was
//! refused can be sent again before anything else. For the same reason nothing in it is done in part: there are no
//! compounds but CREATE and CLOSE, and no deletions (a CLOSE whose deletion fails is answered with the error, but has
//! closed the file).

use std::time::Duration;

use outlast_fsa::fileop::FileKey;

use crate::clock::Speed;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::workload::{DELETE_ON_CLOSE, Op, Verb};

/// After so long a client asks again.
pub const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The directory that is served.
pub const OWN: FileKey = FileKey {
    dev: 1,
    ino: 1,
    birth_ns: 1,
};

/// One that has its path while its file system is not mounted.
pub const OTHER: FileKey = FileKey {
    dev: 2,
    ino: 1,
    birth_ns: 1,
};

/// What the share's path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Nothing.
    Nothing,
    /// An empty directory of another file system.
    Another,
}

/// A time without the share, from the beginning of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// What is there instead.
    pub instead: Instead,
    /// How long: less than the server tries to do again what was under way (`src/server/retrying.rs`).
    pub lasts: Duration,
}

/// Are there such times in this seed's scenario? In one of twelve usual scenarios and one of eight small ones, where the
/// durability is `process`.
#[must_use]
pub fn is_of(seed: u64) -> bool {
    matches!(seed % 32, 7 | 17 | 24)
}

impl Away {
    /// The one of a life.
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
    /// The share is away for a while in later lives, if it is so in this seed.
    pub(crate) fn with_outages_of_share(mut self) -> Scenario {
        self.has_outages_of_share = is_of(self.seed) && self.kind.is_mixed();
        if self.has_outages_of_share {
            self.ops.retain(|op| !op.shared && is_refused_as_whole(op));
            for op in &mut self.ops {
                delete_nothing(op);
            }
            // A compound is refused as a whole, or not at all.
            self.speed = Speed::Fast;
            for profile in &mut self.profiles {
                profile.depth = 1;
            }
        }
        self
    }
}

/// Returns whether a share that is away refuses all of this request, or nothing.
fn is_refused_as_whole(op: &Op) -> bool {
    let mut rest = op.verbs.iter().skip(1);
    let deletes = |verb: &Verb| matches!(verb, Verb::Dispose { .. });
    rest.all(|verb| matches!(verb, Verb::Close { .. })) && !op.verbs.iter().any(deletes)
}

/// Takes FILE_DELETE_ON_CLOSE from the files that a request opens.
fn delete_nothing(op: &mut Op) {
    for verb in &mut op.verbs {
        if let Verb::Create { options, .. } = verb {
            *options &= !DELETE_ON_CLOSE;
        }
    }
}
