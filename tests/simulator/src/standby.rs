//! A worker that stands by: in every second scenario the server's own follower reads the log while the server is at
//! work, as far behind as the seed says, and the next life has its state instead of reading the log.

use std::sync::{Arc, Mutex, PoisonError};

use outlast::server::following::Follower;
use outlast_nvram::{Error, Memory};

use crate::log_format::HEAD_AT;
use crate::memory::Nvram;
use crate::mutation::Mutation;
use crate::random::Random;
use crate::scenario::Scenario;

/// It reads on after so many turns in a hundred.
const PACES: [u64; 3] = [3, 30, 100];

/// The follower of one scenario's server.
pub struct Standby {
    /// `None`: nobody stands by.
    pace: Option<u64>,
    /// It misses the last commit (a mutation).
    is_behind: bool,
    random: Random,
    follower: Option<Follower>,
}

impl Standby {
    /// Before the first life. Where the server is mutated by what becomes of its log between two lives, nobody stands
    /// by.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Standby {
        let mut random = Random::new(scenario.seed, "standby");
        let is_behind = scenario.mutation == Some(Mutation::FollowerBehind);
        let stands_by = random.percent(50) && scenario.mutation.is_none() || is_behind;
        Standby {
            pace: stands_by.then(|| *random.pick(&PACES)),
            is_behind,
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
        let memory: Arc<dyn Memory> = match self.is_behind {
            true => Arc::new(Behind::of(nvram.clone())),
            false => nvram.clone(),
        };
        self.follower = self
            .pace
            .map(|_| Follower::begin(memory, stack, smb).expect("the log can be followed"));
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

/// The memory, with the commit word of the commit before the last one.
struct Behind {
    nvram: Arc<Nvram>,
    /// The last two.
    heads: Mutex<[u64; 2]>,
}

impl Behind {
    fn of(nvram: Arc<Nvram>) -> Behind {
        let head = nvram.load(HEAD_AT);
        Behind {
            nvram,
            heads: Mutex::new([head; 2]),
        }
    }
}

impl Memory for Behind {
    fn len(&self) -> u64 {
        self.nvram.len()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.nvram.write(at, bytes);
    }

    fn store(&self, at: u64, word: u64) {
        self.nvram.store(at, word);
    }

    fn load(&self, at: u64) -> u64 {
        let word = self.nvram.load(at);
        if at != HEAD_AT {
            return word;
        }
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if heads[1] != word {
            *heads = [heads[1], word];
        }
        heads[0]
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.nvram.read(at, into);
    }

    fn persist_range(&self, at: u64, len: usize) -> Result<(), Error> {
        self.nvram.persist_range(at, len)
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.nvram.slice(at, len) }
    }
}
