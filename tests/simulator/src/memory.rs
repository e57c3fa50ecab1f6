//! The NVRAM: stores are steps, and a crash tears the one it comes at.

use std::sync::{Mutex, PoisonError};

use outlast_nvram::{Memory, VecMemory};

use crate::fuse::{Fuse, Step};
use crate::log_format::{self, HEAD_AT};
use crate::random::Random;

/// Memory that outlives servers.
pub struct Nvram {
    memory: VecMemory,
    fuse: Fuse,
    inner: Mutex<Inner>,
}

struct Inner {
    random: Random,
    /// Records committed and not yet taken by whoever follows the log.
    committed: Vec<log_format::Entry>,
    head: u64,
}

impl Nvram {
    /// Blank memory of `len` bytes.
    #[must_use]
    pub fn new(len: usize, fuse: Fuse, seed: u64) -> Nvram {
        Nvram {
            memory: VecMemory::new(len),
            fuse,
            inner: Mutex::new(Inner {
                random: Random::new(seed, "torn stores"),
                committed: Vec::new(),
                head: 0,
            }),
        }
    }

    /// What was committed since the last call, record by record.
    pub fn take_committed(&self) -> Vec<log_format::Entry> {
        std::mem::take(&mut self.inner().committed)
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores that a kill cuts short: those of a prefix, or, as the processor is free to order them, any words of them.
    fn tear(&self, at: u64, bytes: &[u8]) {
        let mut inner = self.inner();
        let random = &mut inner.random;
        if random.percent(70) {
            let len = random.index(bytes.len() + 1);
            self.memory.write(at, &bytes[..len]);
            return;
        }
        let mut at = at;
        for word in bytes.chunks(8) {
            if random.percent(50) {
                self.memory.write(at, word);
            }
            at += word.len() as u64;
        }
    }
}

impl Memory for Nvram {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        if self.fuse.is_dead() {
            return;
        }
        if self.fuse.strikes(Step::Write) {
            self.tear(at, bytes);
            self.fuse.blow();
        }
        self.memory.write(at, bytes);
    }

    fn store(&self, at: u64, word: u64) {
        if self.fuse.is_dead() {
            return;
        }
        self.fuse.step(Step::Store);
        self.memory.store(at, word);
        if at == HEAD_AT {
            let mut inner = self.inner();
            let head = log_format::position(word);
            // A log that is being formatted begins again.
            let from = if head < inner.head { head } else { inner.head };
            log_format::entries(&self.memory, from, head, &mut inner.committed);
            inner.head = head;
        }
    }

    fn load(&self, at: u64) -> u64 {
        self.memory.load(at)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.memory.read(at, into);
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.memory.slice(at, len) }
    }
}
