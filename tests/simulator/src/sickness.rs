//! Simulates two shares on two file systems, of which the second one is *sick* for a while, under durability `power`:
//! its syncs fail, operations on it fail, and what is done on it once more fails, also midway; or a sync of it does not
//! end. The first share must not be affected: no request on it is refused, and nothing of it is lost.
//!
//! The clients of the second share receive the error of the disk, or IO_DEVICE_ERROR while the server has isolated the
//! share. They send a refused request again, until the share is well. So their operations are limited as those of
//! clients whose share is missing ([`crate::away`]): a refused request has not been done in part.
//!
//! One case is left out. A worker that died in the middle of an operation may have done it. If the share is isolated
//! when the next worker begins, the client receives an error, and an operation that cannot be repeated would have
//! another answer the second time. So a redo at the start does not fail while such a request is not answered.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::away;
use crate::player::{SECOND_SHARE, SHARE};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::status;
use crate::workload::{Op, Verb};

/// The delay after which a client sends a refused request again.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The errors of a sick disk: EIO, ENOSPC, EDQUOT, EMFILE.
pub const STATUSES: [u32; 4] = [
    status::IO_DEVICE_ERROR,
    status::DISK_FULL,
    status::QUOTA_EXCEEDED,
    status::TOO_MANY_OPENED_FILES,
];

/// The way in which a file system is sick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its syncs fail, and so do some other operations.
    Fails,
    /// A sync does not end.
    Hangs,
}

/// The time in which the second file system is sick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sickness {
    /// The way.
    pub how: How,
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub until: Duration,
}

/// Returns whether this seed has two file systems if its durability is `power`.
#[must_use]
pub fn is_of(seed: u64) -> bool {
    matches!(seed % 32, 0 | 7 | 17 | 23 | 24)
}

/// Draws the first client of the second share, if there is one. The clients before it use the first share.
#[must_use]
pub fn first_of_second_share(seed: u64, clients: usize) -> Option<usize> {
    let mut random = Random::new(seed, "shares");
    (is_of(seed) && clients > 1).then(|| 1 + random.index(clients - 1))
}

impl Sickness {
    fn of(seed: u64) -> Sickness {
        let mut random = Random::new(seed, "sickness");
        let from = Duration::from_millis(*random.pick(&[500, 5000, 9000, 12_000]));
        let how = match random.percent(75) {
            true => How::Fails,
            false => How::Hangs,
        };
        // A sync that does not end ends before an oplock break does (35 s).
        let lasts: &[u64] = match how {
            How::Fails => &[2, 12, 25],
            How::Hangs => &[22, 30],
        };
        let until = from + Duration::from_secs(*random.pick(lasts));
        Sickness { how, from, until }
    }

    /// Returns whether operations and syncs fail at this time.
    #[must_use]
    pub fn fails_at(&self, now: Duration) -> bool {
        self.how == How::Fails && (self.from..self.until).contains(&now)
    }

    /// Returns the end of a sync that would end at `due`.
    #[must_use]
    pub fn end_of_sync(&self, now: Duration, due: Duration) -> Duration {
        let hangs = self.how == How::Hangs && (self.from..self.until).contains(&now);
        if hangs { due.max(self.until) } else { due }
    }
}

impl Scenario {
    /// Puts the shares on two file systems, if the seed says so.
    pub(crate) fn with_two_file_systems(mut self) -> Scenario {
        let Some(first) = self
            .rules
            .first_of_second_share
            .filter(|_| self.kind.is_mixed())
        else {
            return self;
        };
        let uses_second_share = |op: &Op| op.client >= first;
        let stays = |op: &Op| !op.shared && away::is_refused_as_whole(op);
        self.ops.retain(|op| !uses_second_share(op) || stays(op));
        for op in self.ops.iter_mut().filter(|op| uses_second_share(op)) {
            away::delete_nothing(op);
            op.failure = None;
        }
        for profile in self.profiles.iter_mut().skip(first) {
            profile.depth = 1;
        }
        if let Some(power) = &mut self.power {
            // Consistency points, 10 s apart, must occur among the requests.
            power.pause = power.pause.max(Duration::from_millis(700));
        }
        self.sickness = Some(Sickness::of(self.seed));
        self
    }

    /// Returns whether a client uses the second share.
    #[must_use]
    pub fn uses_second_share(&self, client: usize) -> bool {
        let first = self.rules.first_of_second_share;
        self.sickness.is_some() && first.is_some_and(|first| client >= first)
    }

    /// Returns the share that a client uses.
    #[must_use]
    pub fn share_of(&self, client: usize) -> &'static str {
        match self.uses_second_share(client) {
            true => SECOND_SHARE,
            false => SHARE,
        }
    }

    /// Returns whether one of these requests of clients of the second share cannot be repeated: if it had been done
    /// already, it would be answered differently the second time.
    #[must_use]
    pub fn is_in_doubt(&self, under_way: &BTreeMap<usize, bool>) -> bool {
        let mut ops = self.ops.iter();
        ops.any(|op| {
            under_way.contains_key(&op.id)
                && self.uses_second_share(op.client)
                && !op.verbs.iter().all(can_be_repeated)
        })
    }
}

fn can_be_repeated(verb: &Verb) -> bool {
    !matches!(
        verb,
        Verb::Create { .. }
            | Verb::Write { offset: None, .. }
            | Verb::Rename { .. }
            | Verb::Link { .. }
            | Verb::Copy { .. }
    )
}
