//! Counts every step of the server, and crashes the server at the planned ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The kind of a step. A crash at a step occurs before its effect, or leaves a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Plain stores to the NVRAM: a part of a record, a superblock.
    Write,
    /// Plain stores to the uncommitted part of the ring: a crash here leaves the same as one at the next step.
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

/// The payload with which a server that crashes unwinds.
#[derive(Debug)]
pub struct Crash;

/// Counts steps and ends the server at the planned ones. Clones share it: memory, file system and network have one
/// each.
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
    /// Plans crashes at these steps, counted from 1 over all lives of the server, in order. Steps that are past are
    /// ignored.
    pub fn plan(&self, crashes: &[u64]) {
        let steps = self.steps();
        let mut later = lock(&self.0.later);
        *later = crashes.iter().copied().filter(|at| *at > steps).collect();
        let next = later.pop_front().unwrap_or(u64::MAX);
        self.0.next.store(next, Ordering::Relaxed);
    }

    /// Returns the number of steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Returns the kinds of the steps, from the first on.
    #[must_use]
    pub fn take_kinds(&self) -> Vec<Step> {
        std::mem::take(&mut lock(&self.0.kinds))
    }

    /// Notes that the server takes a frame from its device, so that a crash at the last step leaves something else than
    /// one after it.
    pub fn takes_frame(&self) {
        if let Some(last @ Step::FreeWrite) = lock(&self.0.kinds).last_mut() {
            *last = Step::Write;
        }
    }

    /// Counts a step. Returns whether the server crashes at it: the caller then leaves a part of the effect, if it has
    /// parts, and calls [`Fuse::crash`].
    #[must_use]
    pub fn crashes_at(&self, step: Step) -> bool {
        let count = self.0.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let crashes = count >= self.0.next.load(Ordering::Relaxed);
        lock(&self.0.kinds).push(step);
        if crashes {
            log::debug!("step {count}, {step:?}: the server crashes here");
        } else {
            log::trace!("step {count}, {step:?}");
        }
        crashes
    }

    /// Ends the server here.
    pub fn crash(&self) -> ! {
        self.0.dead.store(true, Ordering::Relaxed);
        let next = lock(&self.0.later).pop_front().unwrap_or(u64::MAX);
        self.0.next.store(next, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new(Crash))
    }

    /// Counts a step that has no parts, and ends the server if it crashes at it.
    pub fn step(&self, step: Step) {
        if self.crashes_at(step) {
            self.crash();
        }
    }

    /// Returns whether the server has crashed: it then changes nothing, although it still unwinds.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Plans no more crashes.
    pub fn disarm(&self) {
        self.0.next.store(u64::MAX, Ordering::Relaxed);
    }

    /// Begins the next server's life.
    pub fn replace(&self) {
        self.0.dead.store(false, Ordering::Relaxed);
    }
}

impl Default for Fuse {
    /// Makes a fuse without a planned crash.
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
