//! A worker that stands by: in every second scenario the server's own follower reads the log while the server is at work,
//! as far behind as the seed says, and the next life has its state instead of reading the log.

use std::sync::Arc;

use outlast::server::following::Follower;

use crate::memory::Nvram;
use crate::random::Random;
use crate::scenario::Scenario;

/// It reads on after so many turns in a hundred.
const PACES: [u64; 3] = [3, 30, 100];

/// The follower of one scenario's server.
pub struct Standby {
    /// `None`: nobody stands by.
    pace: Option<u64>,
    random: Random,
    follower: Option<Follower>,
}

impl Standby {
    /// Before the first life. Where the server is mutated by what becomes of its log between two lives, nobody stands by.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Standby {
        let mut random = Random::new(scenario.seed, "standby");
        let stands_by = random.percent(50) && scenario.mutation.is_none();
        Standby {
            pace: stands_by.then(|| *random.pick(&PACES)),
            random,
            follower: None,
        }
    }

    /// A life has begun. The configurations are those of the next one.
    ///
    /// # Panics
    /// The log cannot be followed.
    pub fn begin(
        &mut self,
        nvram: &Arc<Nvram>,
        stack: outlast_stack::Config,
        smb: outlast_smb::Config,
    ) {
        self.follower = self
            .pace
            .map(|_| Follower::begin(nvram.clone(), stack, smb).expect("the log can be followed"));
    }

    /// After a turn of the server.
    ///
    /// # Panics
    /// The log cannot be followed.
    pub fn turn(&mut self) {
        let (Some(pace), Some(follower)) = (self.pace, &mut self.follower) else {
            return;
        };
        if self.random.percent(pace) {
            follower.advance().expect("the log can be followed");
        }
    }

    /// The life is over, and the follower is the next one's.
    pub fn take(&mut self) -> Option<Follower> {
        self.follower.take()
    }
}
