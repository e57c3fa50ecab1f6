//! Where the server dies: every step of it is counted, and at the planned ones it ends there and then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a step is. A crash at a step comes before its effect, or leaves a part of it behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Plain stores to the NVRAM: a part of a record, a superblock.
    Write,
    /// Plain stores to the part of the ring where nothing committed lies: a server that dies here leaves what it
    /// leaves at the next step.
    FreeWrite,
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
    kinds: Mutex<Vec<Step>>,
}

impl Fuse {
    /// Sets the steps at which it blows, counted from 1 and over all lives of the server, in order. Those that are over
    /// do not count.
    pub fn plan(&self, blows: &[u64]) {
        let steps = self.steps();
        let mut later = lock(&self.0.later);
        *later = blows.iter().copied().filter(|at| *at > steps).collect();
        let next = later.pop_front().unwrap_or(u64::MAX);
        self.0.next.store(next, Ordering::Relaxed);
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// What the steps were, from the first one on.
    #[must_use]
    pub fn take_kinds(&self) -> Vec<Step> {
        std::mem::take(&mut lock(&self.0.kinds))
    }

    /// The server takes something from the world, so that a crash at the last step left more in it than one from now
    /// on.
    pub fn takes(&self) {
        if let Some(last @ Step::FreeWrite) = lock(&self.0.kinds).last_mut() {
            *last = Step::Write;
        }
    }

    /// Counts a step. True: the server dies at it; leave a part of its effect if there can be one, then [`Fuse::blow`].
    #[must_use]
    pub fn strikes(&self, step: Step) -> bool {
        let count = self.0.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let strikes = count >= self.0.next.load(Ordering::Relaxed);
        lock(&self.0.kinds).push(step);
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
        let next = lock(&self.0.later).pop_front().unwrap_or(u64::MAX);
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
}

impl Default for Fuse {
    /// One that never blows.
    fn default() -> Fuse {
        Fuse(Arc::new(Inner {
            steps: AtomicU64::new(0),
            next: AtomicU64::new(u64::MAX),
            dead: AtomicBool::new(false),
            later: Mutex::default(),
            kinds: Mutex::default(),
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
