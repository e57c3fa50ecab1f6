//! The NVRAM: stores are steps, and a crash tears the one it comes at.

use std::sync::{Mutex, PoisonError};

use outlast_nvram::{Error, Memory, VecMemory};

use crate::fuse::{Fuse, Step};
use crate::log_format::{self, HEAD_AT, HINTS_AT, RING_AT, TAIL_AT};
use crate::mutation::Mutation;
use crate::random::Random;
use crate::scenario::Scenario;

/// Bytes of a mapping that are written to its file together.
const PAGE: usize = 4096;

/// Memory that outlives servers.
pub struct Nvram {
    memory: VecMemory,
    /// The power can be cut.
    power: bool,
    fuse: Fuse,
    inner: Mutex<Inner>,
}

struct Inner {
    seed: u64,
    /// Records committed and not yet taken by whoever follows the log.
    committed: Vec<log_format::Entry>,
    head: u64,
    /// What it held when the present server began.
    photo: Vec<u8>,
    /// The power was cut: what is committed next is read from the tail on.
    is_anew: bool,
    mutation: Option<Mutation>,
    /// Commits are not stored until this is over (a mutation).
    holds: Hold,
    /// The words that were to be stored.
    held: Vec<(u64, u64)>,
    /// What was overwritten since the last commit, and by the last group (a mutation).
    overwritten: Vec<(u64, Vec<u8>)>,
    last_group: Vec<(u64, Vec<u8>)>,
}

/// How long commits are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    /// Until the next commit.
    One,
    /// Until they are let go.
    All,
}

impl Nvram {
    /// The blank memory of a scenario.
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
                is_anew: false,
                mutation: scenario.mutation,
                holds: Hold::No,
                held: Vec::new(),
                overwritten: Vec::new(),
                last_group: Vec::new(),
            }),
        }
    }

    /// What was committed since the last call, record by record.
    pub fn take_committed(&self) -> Vec<log_format::Entry> {
        std::mem::take(&mut self.inner().committed)
    }

    /// The position of the last commit.
    pub fn head(&self) -> u64 {
        self.inner().head
    }

    /// The next commit is left out.
    pub fn leave_out_commit(&self) {
        self.inner().holds = Hold::One;
    }

    /// Commits wait from now on.
    pub fn hold_commits(&self) {
        self.inner().holds = Hold::All;
    }

    /// Commits that waited are made.
    pub fn let_commits_go(&self) {
        let held = {
            let mut inner = self.inner();
            inner.holds = Hold::No;
            std::mem::take(&mut inner.held)
        };
        for (at, word) in held {
            self.store(at, word);
        }
    }

    /// A server of another machine was at work meanwhile: what is committed next is read from the tail on.
    pub fn is_read_anew(&self) {
        let mut inner = self.inner();
        inner.committed.clear();
        inner.is_anew = true;
    }

    /// A new server finds what the one before left; a mutated one makes something else of it.
    pub fn change_hands(&self) {
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
        if mutation == Mutation::CommitFirst {
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

    /// The power was cut. The mapping is memory of the machine: of its file nothing comes back, or an older copy, or pages of any age.
    pub fn cut(&self, random: &mut Random) {
        let mut inner = self.inner();
        inner.committed.clear();
        inner.is_anew = true;
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

    /// What mutations make of plain stores.
    fn mutate_write(&self, at: u64, bytes: &[u8]) {
        let mutation = self.inner().mutation;
        match mutation {
            Some(Mutation::RecordsApart) if at >= RING_AT && log_format::is_header(bytes) => {
                self.store(HEAD_AT, log_format::word(log_format::position_of(bytes)));
            }
            Some(Mutation::CommitFirst) if at >= RING_AT => {
                let mut before = vec![0; bytes.len()];
                self.memory.read(at, &mut before);
                self.inner().overwritten.push((at, before));
            }
            _ => {}
        }
        if mutation == Some(Mutation::CommitFirst) {
            // The server went on: by now the records are there.
            self.inner().last_group.clear();
        }
    }

    /// Does a plain store reach anything that a recovery reads? It reads the superblocks and the ring from the tail to
    /// the head.
    fn kind_of_write(&self, at: u64, len: usize) -> Step {
        let ring_len = log_format::ring_len(&self.memory);
        let word = |at| log_format::position(self.memory.load(at));
        let (tail, head) = (word(TAIL_AT), word(HEAD_AT));
        let Some(place) = at.checked_sub(RING_AT) else {
            return Step::Write;
        };
        // From the head on to the end of the store, around the ring.
        let from_head = (place + ring_len - head % ring_len) % ring_len;
        let reach = from_head + len as u64;
        match head >= tail && reach <= ring_len - (head - tail) {
            true => Step::FreeWrite,
            false => Step::Write,
        }
    }

    /// Stores that a kill cuts short: those of a prefix, or, as the processor is free to order them, any words of them.
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
        if self.fuse.strikes(self.kind_of_write(at, bytes.len())) {
            self.tear(at, bytes);
            self.fuse.blow();
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
                // The tail must not pass a head that was left out; the next commit makes up for both.
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
        if at == TAIL_AT && self.inner().mutation == Some(Mutation::TailStands) {
            return;
        }
        self.memory.store(at, word);
        if at == HEAD_AT {
            let mut inner = self.inner();
            inner.last_group = std::mem::take(&mut inner.overwritten);
            let head = log_format::position(word);
            if std::mem::take(&mut inner.is_anew) {
                let tail = log_format::position(self.memory.load(TAIL_AT));
                let mut all = Vec::new();
                log_format::entries(&self.memory, tail, head, &mut all);
                inner.committed = log_format::those_that_count(all);
                inner.head = head;
                return;
            }
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

    fn persist_range(&self, at: u64, len: usize) -> Result<(), Error> {
        // Where the power is never cut nobody can tell.
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
        // SAFETY: the caller's promise, passed on.
        unsafe { self.memory.slice(at, len) }
    }
}
