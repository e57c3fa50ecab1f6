//! Simulates the NVRAM: every store is a step, and a crash at a store tears it.

use std::sync::{Mutex, PoisonError};

use outlast_nvram::{Error, Memory, VecMemory};

use crate::fuse::{Fuse, Step};
use crate::log_format::{self, HEAD_AT, HINTS_AT, RING_AT, TAIL_AT};
use crate::mutation::Mutation;
use crate::random::Random;
use crate::scenario::Scenario;

/// Bytes of a mapping that are written to its file as one.
const PAGE: usize = 4096;

/// The memory of the log, which outlives servers.
pub struct Nvram {
    memory: VecMemory,
    /// The power can be cut.
    power: bool,
    fuse: Fuse,
    inner: Mutex<Inner>,
}

struct Inner {
    seed: u64,
    /// Committed records that the follower of the log has not taken yet.
    committed: Vec<log_format::Entry>,
    head: u64,
    /// The content at the beginning of the present life.
    photo: Vec<u8>,
    /// The power was cut, or another machine has served: the next commit is read from the tail on.
    from_tail: bool,
    mutation: Option<Mutation>,
    /// Which commits a mutation holds back.
    holds: Hold,
    /// The words that are held back.
    held: Vec<(u64, u64)>,
    /// The bytes overwritten since the last commit, and by the last group of records (for a mutation).
    overwritten: Vec<(u64, Vec<u8>)>,
    last_group: Vec<(u64, Vec<u8>)>,
}

/// The extent to which commits are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    /// Until the next commit.
    One,
    /// Until they are released.
    All,
}

impl Nvram {
    /// Makes the blank memory of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario, fuse: Fuse) -> Nvram {
        let len = scenario.nvram_bytes;
        Nvram {
            memory: VecMemory::new(len),
            power: scenario.power.is_some(),
            fuse,
            inner: Mutex::new(Inner {
                seed: scenario.seed,
                committed: Vec::new(),
                head: 0,
                photo: scenario.power.map_or_else(Vec::new, |_| vec![0; len]),
                from_tail: false,
                mutation: scenario.mutation,
                holds: Hold::No,
                held: Vec::new(),
                overwritten: Vec::new(),
                last_group: Vec::new(),
            }),
        }
    }

    /// Takes the records committed since the last call.
    pub fn take_committed(&self) -> Vec<log_format::Entry> {
        std::mem::take(&mut self.inner().committed)
    }

    /// Returns the position of the last commit.
    pub fn head(&self) -> u64 {
        self.inner().head
    }

    /// Omits the next commit.
    pub fn leave_out_commit(&self) {
        self.inner().holds = Hold::One;
    }

    /// Holds commits back from now on.
    pub fn hold_commits(&self) {
        self.inner().holds = Hold::All;
    }

    /// Makes the commits that were held back.
    pub fn release_commits(&self) {
        let held = {
            let mut inner = self.inner();
            inner.holds = Hold::No;
            std::mem::take(&mut inner.held)
        };
        for (at, word) in held {
            self.store(at, word);
        }
    }

    /// Restarts the follower: a server of another machine has run meanwhile, so the next commit is read from the tail
    /// on.
    pub fn read_from_tail(&self) {
        let mut inner = self.inner();
        inner.committed.clear();
        inner.from_tail = true;
    }

    /// Prepares the memory for a new server; a mutation may change the log.
    pub fn begin_life(&self) {
        let mut inner = self.inner();
        inner.holds = Hold::No;
        inner.held.clear();
        inner.overwritten.clear();
        if self.power {
            inner.photo = self.memory.to_vec();
        }
        let Some(mutation) = inner.mutation else {
            return;
        };
        if mutation == Mutation::CommitBeforeRecords {
            for (at, bytes) in std::mem::take(&mut inner.last_group) {
                self.memory.write(at, &bytes);
            }
        }
        if let Some(changed) = mutation
            .changes_log()
            .then(|| mutation.change_log(&self.memory))
        {
            let Some(changed) = changed else { return };
            self.memory.write(0, &changed.to_vec());
            inner.head = log_format::position(self.memory.load(HEAD_AT));
        }
    }

    /// Simulates a power cut. The mapping is memory of the machine: its file may have lost everything, or has an older
    /// copy, or pages of any age.
    pub fn cut(&self, random: &mut Random) {
        let mut inner = self.inner();
        inner.committed.clear();
        inner.from_tail = true;
        match random.below(3) {
            0 => self.memory.write(0, &vec![0; inner.photo.len()]),
            1 => self.memory.write(0, &inner.photo),
            _ => {
                for (at, page) in (0..).step_by(PAGE).zip(inner.photo.chunks(PAGE)) {
                    if random.percent(50) {
                        self.memory.write(at, page);
                    }
                }
            }
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies the mutations of plain stores.
    fn mutate_write(&self, at: u64, bytes: &[u8]) {
        let mutation = self.inner().mutation;
        match mutation {
            Some(Mutation::RecordsCommittedSingly)
                if at >= RING_AT && log_format::is_header(bytes) =>
            {
                self.store(HEAD_AT, log_format::word(log_format::position_of(bytes)));
            }
            Some(Mutation::CommitBeforeRecords) if at >= RING_AT => {
                let mut before = vec![0; bytes.len()];
                self.memory.read(at, &mut before);
                self.inner().overwritten.push((at, before));
            }
            _ => {}
        }
        if mutation == Some(Mutation::CommitBeforeRecords) {
            // The server has continued: by now the records are complete.
            self.inner().last_group.clear();
        }
    }

    /// Returns whether a plain store reaches anything that a recovery reads: the superblocks, and the ring from the
    /// tail to the head.
    fn kind_of_write(&self, at: u64, len: usize) -> Step {
        let ring_len = log_format::ring_len(&self.memory);
        let word = |at| log_format::position(self.memory.load(at));
        let (tail, head) = (word(TAIL_AT), word(HEAD_AT));
        let Some(place) = at.checked_sub(RING_AT) else {
            return Step::Write;
        };
        // The distance from the head to the end of the store, around the ring.
        let from_head = (place + ring_len - head % ring_len) % ring_len;
        let reach = from_head + len as u64;
        match head >= tail && reach <= ring_len - (head - tail) {
            true => Step::FreeWrite,
            false => Step::Write,
        }
    }

    /// Tears a store as a kill does: a prefix of it is left, or any of its words, as the processor may reorder them.
    fn tear(&self, at: u64, bytes: &[u8]) {
        let random = &mut Random::at_step(self.inner().seed, self.fuse.steps(), "torn stores");
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
        if self.fuse.crashes_at(self.kind_of_write(at, bytes.len())) {
            self.tear(at, bytes);
            self.fuse.crash();
        }
        self.mutate_write(at, bytes);
        self.memory.write(at, bytes);
    }

    fn store(&self, at: u64, word: u64) {
        if self.fuse.is_dead() {
            return;
        }
        {
            let mut inner = self.inner();
            let is_word = at == HEAD_AT || at == TAIL_AT;
            if inner.holds == Hold::All && is_word {
                inner.held.push((at, word));
                return;
            }
            if inner.holds == Hold::One && is_word {
                // The tail must not pass the head of the omitted commit; the next commit replaces both.
                if at == HEAD_AT && inner.held.is_empty() {
                    inner.held.push((at, word));
                    return;
                }
                if at == TAIL_AT {
                    return;
                }
                inner.held.clear();
                inner.holds = Hold::No;
            }
        }
        let is_hint = HINTS_AT.contains(&at);
        self.fuse.step(match is_hint {
            true => Step::Write,
            false => Step::Store,
        });
        if at == TAIL_AT && self.inner().mutation == Some(Mutation::TailNotRecorded) {
            return;
        }
        self.memory.store(at, word);
        if at == HEAD_AT {
            let mut inner = self.inner();
            inner.last_group = std::mem::take(&mut inner.overwritten);
            let head = log_format::position(word);
            if std::mem::take(&mut inner.from_tail) {
                let tail = log_format::position(self.memory.load(TAIL_AT));
                let mut all = Vec::new();
                log_format::entries(&self.memory, tail, head, &mut all);
                inner.committed = log_format::relevant(all);
                inner.head = head;
                return;
            }
            // A log that is formatted again starts from the beginning.
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

    fn persist_range(&self, at: u64, len: usize) -> Result<(), Error> {
        // Without power cuts this has no visible effect.
        if self.power && !self.fuse.is_dead() {
            self.fuse.step(Step::Medium);
            let from = at as usize / PAGE * PAGE;
            let to = (at as usize + len).next_multiple_of(PAGE);
            let inner = &mut *self.inner();
            let to = to.min(inner.photo.len());
            self.memory.read(from as u64, &mut inner.photo[from..to]);
        }
        Ok(())
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller guarantees what `Memory::slice` requires.
        unsafe { self.memory.slice(at, len) }
    }
}
