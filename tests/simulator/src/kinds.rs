//! Defines the special kinds of scenarios: each overrides a part of what the seed determines for all scenarios.

use std::time::Duration;

use crate::limits::Limits;
use crate::random::Random;
use crate::rules::Rules;
use crate::scenario::{Scenario, Size};
use crate::workload::{limits, uploads};

/// The kind of a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A little of everything.
    #[default]
    Mixed,
    /// Several clients upload at once, on a log that is too small for them.
    Uploads {
        /// The client that reads meanwhile, and takes the replies only at intervals.
        reader: Option<usize>,
    },
    /// The clients reach every limit.
    Limits(Limits),
}

/// The interval at which a slow reader takes its replies.
pub const READER_PAUSE: Duration = Duration::from_millis(700);

impl Kind {
    /// Returns the limits of the scenario, if this is its kind.
    #[must_use]
    pub fn limits(self) -> Option<Limits> {
        match self {
            Kind::Limits(limits) => Some(limits),
            _ => None,
        }
    }

    /// Returns whether the clients' messages compete for the room that is reserved for receive windows.
    #[must_use]
    pub fn shares_room(self) -> bool {
        matches!(self, Kind::Uploads { .. })
    }

    /// Returns whether clients do a little of everything.
    #[must_use]
    pub fn is_mixed(self) -> bool {
        matches!(self, Kind::Mixed)
    }

    /// Returns the interval at which a client takes its replies.
    #[must_use]
    pub fn pause_of(self, client: usize) -> Duration {
        match self {
            Kind::Uploads { reader } if reader == Some(client) => READER_PAUSE,
            _ => Duration::ZERO,
        }
    }
}

impl Scenario {
    /// Changes the scenario into one of the seed's kind.
    pub(crate) fn of_kind(self, size: Size) -> Scenario {
        // Of four small scenarios (every fourth scenario is small), one is of each special kind; of six usual ones,
        // too.
        let pick = match size {
            Size::Small => self.seed / 4 % 4 == 3,
            Size::Usual => self.seed % 8 == 5,
        };
        if pick {
            return self.with_uploads(size);
        }
        let pick = match size {
            Size::Small => self.seed / 4 % 4 == 1,
            Size::Usual => self.seed % 8 == 6,
        };
        if pick { self.with_limits(size) } else { self }
    }

    fn with_uploads(self, size: Size) -> Scenario {
        let mut random = Random::new(self.seed, "uploads");
        let (clients, length) = match size {
            Size::Small => (3, 2),
            Size::Usual => (3 + random.index(6), 3 + random.index(4)),
        };
        let reader = random.percent(40).then(|| random.index(clients));
        let mut profiles = self.clients(clients);
        for profile in &mut profiles {
            profile.depth = 4 + random.index(5);
        }
        Scenario {
            ops: uploads::generate(self.seed, clients, length, reader),
            profiles,
            kind: Kind::Uploads { reader },
            nvram_bytes: *random.pick(&[72, 88, 104]) << 10,
            ..self
        }
    }

    fn with_limits(self, size: Size) -> Scenario {
        let mut random = Random::new(self.seed, "limits");
        let (clients, length) = match size {
            Size::Small => (2, 1),
            Size::Usual => (3, 3 + random.index(4)),
        };
        let limits = Limits {
            sessions: 1 + random.index(2),
            trees: 2 + random.index(2),
            opens: 3 + random.index(2),
            locks: 3,
            pending: 2 + random.index(2),
            watches: 1 + random.index(2),
            newcomer: clients - 1,
        };
        Scenario {
            ops: limits::generate(self.seed, clients, length, limits),
            profiles: self.clients(clients),
            kind: Kind::Limits(limits),
            rules: Rules {
                limits: Some(limits),
                ..self.rules
            },
            ..self
        }
    }
}
