//! Where the server dies: every step of it is counted, and at the planned ones it ends there and then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a step is. A crash at a step comes before its effect, or leaves a part of it behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Plain stores to the NVRAM: a part of a record, a superblock.
    Write,
    /// One atomic store: a commit, a new tail.
    Store,
    /// A change of the file system.
    Operation,
    /// A frame leaves.
    Frame,
    /// A write to the sink, of a batch.
    Medium,
    /// The sink is flushed: a batch is on the medium.
    Flush,
    /// The file system is synced: a consistency point.
    Sync,
}

/// What a server that dies unwinds with.
#[derive(Debug)]
pub struct Crash;

/// Counts steps and ends the server at the planned ones. Clones share it: memory, file system and network hold one each.
#[derive(Clone, Debug)]
pub struct Fuse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    steps: AtomicU64,
    next: AtomicU64,
    dead: AtomicBool,
    later: Mutex<VecDeque<u64>>,
}

impl Fuse {
    /// Blows at these steps, counted from 1 and over all lives of the server, in order.
    #[must_use]
    pub fn new(blows: &[u64]) -> Fuse {
        let mut later: VecDeque<u64> = blows.iter().copied().collect();
        let next = later.pop_front().unwrap_or(u64::MAX);
        Fuse(Arc::new(Inner {
            steps: AtomicU64::new(0),
            next: AtomicU64::new(next),
            dead: AtomicBool::new(false),
            later: Mutex::new(later),
        }))
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Counts a step. True: the server dies at it; leave a part of its effect if there can be one, then [`Fuse::blow`].
    #[must_use]
    pub fn strikes(&self, step: Step) -> bool {
        let count = self.0.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let strikes = count >= self.0.next.load(Ordering::Relaxed);
        if strikes {
            log::debug!("step {count}, {step:?}: the server dies here");
        } else {
            log::trace!("step {count}, {step:?}");
        }
        strikes
    }

    /// The server ends here.
    pub fn blow(&self) -> ! {
        self.0.dead.store(true, Ordering::Relaxed);
        let next = self.later().pop_front().unwrap_or(u64::MAX);
        self.0.next.store(next, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new(Crash))
    }

    /// Counts a step without parts.
    pub fn step(&self, step: Step) {
        if self.strikes(step) {
            self.blow();
        }
    }

    /// What is dead changes nothing any more, though it is still being taken apart.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// No server dies any more.
    pub fn disarm(&self) {
        self.0.next.store(u64::MAX, Ordering::Relaxed);
    }

    /// The next server begins.
    pub fn replace(&self) {
        self.0.dead.store(false, Ordering::Relaxed);
    }

    fn later(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.0.later.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
