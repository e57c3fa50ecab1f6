//! Kinds of scenarios besides the usual one: what is particular to each is put over what the seed gives to all of them.

use std::time::Duration;

use crate::limits::Limits;
use crate::random::Random;
use crate::rules::Rules;
use crate::scenario::{Scenario, Size};
use crate::workload::{limits, uploads};

/// What clients are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A little of everything.
    #[default]
    Mixed,
    /// Several upload at once, on a log that is too small for them.
    Uploads {
        /// This one reads meanwhile, and takes what it has read only now and then.
        reader: Option<usize>,
    },
    /// They go to every limit.
    Limits(Limits),
}

/// How often a slow reader takes what has come.
pub const READER_PAUSE: Duration = Duration::from_millis(700);

impl Kind {
    /// The limits that matter.
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

    /// Do clients do a little of everything?
    #[must_use]
    pub fn is_mixed(self) -> bool {
        matches!(self, Kind::Mixed)
    }

    /// How long a client leaves untaken what it has read.
    #[must_use]
    pub fn pause_of(self, client: usize) -> Duration {
        match self {
            Kind::Uploads { reader } if reader == Some(client) => READER_PAUSE,
            _ => Duration::ZERO,
        }
    }
}

impl Scenario {
    /// The seed's kind of scenario.
    pub(crate) fn of_kind(self, size: Size) -> Scenario {
        // Of four small scenarios, which are every fourth, one is of each new kind; of four usual ones, too.
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
            nvram_bytes: *random.pick(&[64, 80, 96]) << 10,
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
