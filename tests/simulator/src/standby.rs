//! Runs a standby worker: in every second scenario the server's own follower reads the log while the server runs, at a
//! distance that the seed determines, and the next life starts from its state instead of reading the log. Where the
//! follower reaches the position of one of the server's marks, the digests must be equal.

use std::sync::{Arc, Mutex, PoisonError};

use outlast::server::digest::{Mark, Place};
use outlast::server::following::Follower;
use outlast::server::machine::Machine;
use outlast::server::record::Record;
use outlast_nvram::{Error, Memory, VecMemory, codec};

use crate::log_format::{self, HEAD_AT, RING_AT, TAIL_AT};
use crate::memory::Nvram;
use crate::mutation::Mutation;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::volumes::Volumes;

/// The percentages of turns after which it reads on.
const PACES: [u64; 3] = [3, 30, 100];

/// The percentage of turns after which the server makes a mark.
const MARKS: u64 = 20;

/// The follower of one scenario's server.
pub struct Standby {
    /// The percentage of turns after which it reads on. `None`: there is no standby worker.
    pace: Option<u64>,
    mutation: Option<Mutation>,
    random: Random,
    follower: Option<Follower>,
    /// The server's last mark that has not been compared, and the place at which the next one begins.
    mark: Option<Mark>,
    next: Place,
}

impl Standby {
    /// Makes the standby worker of a scenario. Under a mutation that changes the log between two lives there is none.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Standby {
        let mut random = Random::new(scenario.seed, "standby");
        let mutation = scenario.mutation;
        let is_of_it = matches!(
            mutation,
            Some(Mutation::FollowerMissesLastCommit | Mutation::FollowerDiffers)
        );
        let stands_by = random.percent(50) && mutation.is_none() || is_of_it;
        Standby {
            pace: stands_by.then(|| *random.pick(&PACES)),
            mutation,
            random,
            follower: None,
            mark: None,
            next: Place::START,
        }
    }

    /// Begins to follow a life. The configurations are those of the next life.
    ///
    /// # Panics
    /// The log cannot be followed.
    pub fn begin(
        &mut self,
        nvram: &Arc<Nvram>,
        stack: outlast_stack::Config,
        smb: outlast_smb::Config,
    ) {
        let memory: Arc<dyn Memory> = match self.mutation {
            Some(Mutation::FollowerMissesLastCommit) => Arc::new(Behind::of(nvram.clone())),
            Some(Mutation::FollowerDiffers) => Arc::new(Altered::of(nvram.clone())),
            _ => nvram.clone(),
        };
        self.mark = None;
        self.follower = self
            .pace
            .map(|_| Follower::begin(memory, stack, smb).expect("the log can be followed"));
    }

    /// Reads on after a turn of the server, and compares the digests.
    ///
    /// # Panics
    /// The log cannot be followed, or the follower's state is not the server's.
    pub fn turn(&mut self, server: &Machine<Volumes>) {
        let (Some(pace), Some(follower)) = (self.pace, &mut self.follower) else {
            return;
        };
        if self.random.percent(MARKS) {
            let (mark, next) = server.mark(self.next);
            self.next = next.unwrap_or(Place::START);
            self.mark = Some(mark);
        }
        if !self.random.percent(pace) {
            return;
        }
        let limit = self.mark.as_ref().map(|mark| mark.position);
        follower.advance(limit).expect("the log can be followed");
        let agrees = self.mark.as_ref().and_then(|mark| follower.agrees(mark));
        if let Some(agrees) = agrees {
            assert!(agrees, "the follower's state is not the server's");
            self.mark = None;
        }
    }

    /// Returns whether there is a standby worker.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.follower.is_some()
    }

    /// Ends a life, and hands the follower to the next one. A follower that has read an altered log cannot continue
    /// with the real one.
    pub fn take(&mut self) -> Option<Follower> {
        let follower = self.follower.take();
        follower.filter(|_| self.mutation != Some(Mutation::FollowerDiffers))
    }
}

/// The view that a broken follower has of the memory.
trait Lens: Send + Sync + 'static {
    fn load(&self, nvram: &Nvram, at: u64) -> u64;

    fn read(&self, nvram: &Nvram, at: u64, into: &mut [u8]) {
        nvram.read(at, into);
    }
}

/// The memory, seen through a lens.
struct Seen<L> {
    nvram: Arc<Nvram>,
    lens: L,
}

impl<L: Lens> Memory for Seen<L> {
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
        self.lens.load(&self.nvram, at)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.lens.read(&self.nvram, at, into);
    }

    fn persist_range(&self, at: u64, len: usize) -> Result<(), Error> {
        self.nvram.persist_range(at, len)
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller guarantees what `Memory::slice` requires.
        unsafe { self.nvram.slice(at, len) }
    }
}

/// Shows the commit before the last one: it keeps the last two commit words.
struct Behind(Mutex<[u64; 2]>);

impl Behind {
    fn of(nvram: Arc<Nvram>) -> Seen<Behind> {
        let head = nvram.load(HEAD_AT);
        let lens = Behind(Mutex::new([head; 2]));
        Seen { nvram, lens }
    }
}

impl Lens for Behind {
    fn load(&self, nvram: &Nvram, at: u64) -> u64 {
        let word = nvram.load(at);
        if at != HEAD_AT {
            return word;
        }
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heads[1] != word {
            *heads = [heads[1], word];
        }
        heads[0]
    }
}

/// Shows a log with altered records.
struct Altered {
    /// The altered ring.
    copy: VecMemory,
    /// The position up to which it is altered, and the checksum of the last record before that.
    done: Mutex<(u64, Option<u32>)>,
}

impl Altered {
    fn of(nvram: Arc<Nvram>) -> Seen<Altered> {
        let tail = log_format::position(nvram.load(TAIL_AT));
        let lens = Altered {
            copy: VecMemory::new(nvram.len() as usize),
            done: Mutex::new((tail, None)),
        };
        Seen { nvram, lens }
    }
}

/// Alters a mark of service time, so that a follower computes a wrong sum. The record keeps its length.
fn alter(meta: &mut [u8]) {
    let Ok(Record::ClockUpTo(mark)) = codec::decode(meta) else {
        return;
    };
    let mut altered = Vec::new();
    let mark = mark + std::time::Duration::from_nanos(1);
    codec::encode(&Record::ClockUpTo(mark), &mut altered);
    if altered.len() == meta.len() {
        meta.copy_from_slice(&altered);
    }
}

impl Lens for Altered {
    fn load(&self, nvram: &Nvram, at: u64) -> u64 {
        let word = nvram.load(at);
        if at == HEAD_AT {
            let head = log_format::position(word);
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            log_format::copy_altered(nvram, &self.copy, &mut done, head, alter);
        }
        word
    }

    fn read(&self, nvram: &Nvram, at: u64, into: &mut [u8]) {
        match at < RING_AT {
            true => nvram.read(at, into),
            false => self.copy.read(at, into),
        }
    }
}
