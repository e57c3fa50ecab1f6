//! Simulates the sink of durability `power`: a file that is written in batches. A batch's writes and its flush are
//! steps and take time; a power cut leaves any sectors of the writes that are not flushed, independently of their
//! order.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outlast::server::medium::Medium;
use outlast::server::open::Sink;
use outlast_nvram::sink::Batch;
use outlast_nvram::{Memory, VecMemory};

use crate::clock::Clock;
use crate::fuse::{Fuse, Step};
use crate::log_format::{self, Entry, Mark};
use crate::mutation::Mutation;
use crate::random::Random;

/// Bytes that reach the medium as one.
const SECTOR: u64 = 512;

/// The file of the sink, which outlives servers. Clones share it.
#[derive(Clone)]
pub struct SinkFile(Rc<RefCell<Inner>>);

struct Inner {
    fuse: Fuse,
    clock: Clock,
    random: Random,
    mutation: Option<Mutation>,
    /// What is certainly on the medium.
    medium: VecMemory,
    /// The writes since the last flush, in order.
    written: Vec<(u64, Vec<u8>)>,
    /// The time at which the present batch is on the medium.
    due: Option<Duration>,
    /// The batch was reported to be on the medium, though it is not (a mutation).
    is_lie: bool,
    shipped: Shipped,
}

/// The records that have reached the medium, for a follower.
#[derive(Default)]
pub struct Shipped {
    /// The position up to which they were read. `None`: from the tail on.
    head: Option<u64>,
    /// They were read from the tail on.
    pub from_tail: bool,
    /// The records.
    pub entries: Vec<Entry>,
}

impl SinkFile {
    /// Makes a blank sink.
    #[must_use]
    pub fn new(
        len: usize,
        fuse: Fuse,
        clock: Clock,
        seed: u64,
        mutation: Option<Mutation>,
    ) -> SinkFile {
        SinkFile(Rc::new(RefCell::new(Inner {
            fuse,
            clock,
            random: Random::new(seed, "sink"),
            mutation,
            medium: VecMemory::new(len),
            written: Vec::new(),
            due: None,
            is_lie: false,
            shipped: Shipped::default(),
        })))
    }

    /// Opens the sink for the next server.
    #[must_use]
    pub fn open(&self) -> Sink {
        Sink {
            image: Arc::new(self.0.borrow().medium.image()),
            medium: Box::new(self.clone()),
            name: "the sink".to_owned(),
            in_use: true,
        }
    }

    /// Returns the time at which the present batch is on the medium.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.0.borrow().due
    }

    /// Takes the records that have reached the medium since the last call.
    #[must_use]
    pub fn take_shipped(&self) -> Shipped {
        let shipped = &mut self.0.borrow_mut().shipped;
        let head = shipped.head;
        std::mem::replace(
            shipped,
            Shipped {
                head,
                ..Shipped::default()
            },
        )
    }

    /// Cuts the writes of a killed server off at some place of a batch. Those before it are on the medium when the next
    /// server begins.
    pub fn killed(&self, random: &mut Random) {
        let mut inner = self.0.borrow_mut();
        let whole = random.index(inner.written.len() + 1);
        let mut written = std::mem::take(&mut inner.written).into_iter();
        for (at, bytes) in written.by_ref().take(whole) {
            inner.medium.write(at, &bytes);
        }
        if let Some((at, bytes)) = written.next() {
            let sectors = sectors(at, &bytes);
            let some = random.index(sectors.len() + 1);
            for (at, sector) in &sectors[..some] {
                inner.medium.write(*at, sector);
            }
        }
        inner.end();
    }

    /// Simulates a power cut.
    pub fn cut(&self, random: &mut Random) {
        let mut inner = self.0.borrow_mut();
        for (at, bytes) in std::mem::take(&mut inner.written) {
            let whole = random.percent(40);
            for (at, sector) in sectors(at, &bytes) {
                if whole || random.percent(50) {
                    inner.medium.write(at, sector);
                }
            }
        }
        if inner.mutation == Some(Mutation::ChecksumsIgnored) {
            log_format::correct_checksums(&inner.medium);
        }
        inner.end();
    }
}

/// Splits bytes into those of each sector.
fn sectors(at: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let (mut at, mut rest, mut sectors) = (at, bytes, Vec::new());
    while !rest.is_empty() {
        let to_boundary = (SECTOR - at % SECTOR) as usize;
        let (sector, others) = rest.split_at(to_boundary.min(rest.len()));
        sectors.push((at, sector));
        at += sector.len() as u64;
        rest = others;
    }
    sectors
}

impl Inner {
    /// Forgets all writes in progress.
    fn end(&mut self) {
        self.written.clear();
        self.due = None;
        self.is_lie = false;
        self.shipped = Shipped::default();
    }

    fn write(&mut self, at: u64, bytes: &Bytes) {
        if self.fuse.crashes_at(Step::Medium) {
            self.fuse.crash();
        }
        self.written.push((at, bytes.to_vec()));
    }

    /// Brings all writes to the medium.
    fn flush(&mut self) {
        let crashes = self.fuse.crashes_at(Step::Flush);
        if !crashes || self.random.percent(50) {
            for (at, bytes) in std::mem::take(&mut self.written) {
                self.medium.write(at, &bytes);
                if let Some(mark) = Mark::written(at, &bytes) {
                    self.follow(mark);
                }
            }
        }
        if crashes {
            self.fuse.crash();
        }
        self.due = None;
    }

    fn follow(&mut self, mark: Mark) {
        let Shipped {
            head,
            from_tail,
            entries,
        } = &mut self.shipped;
        if let Some(head) = head {
            log_format::entries(&self.medium, *head, mark.head, entries);
        } else {
            let mut all = Vec::new();
            log_format::entries(&self.medium, mark.tail, mark.head, &mut all);
            *entries = log_format::relevant(all);
            *from_tail = true;
        }
        *head = Some(mark.head);
    }
}

impl Medium for SinkFile {
    fn begin(&mut self, batch: Batch) {
        let mut inner = self.0.borrow_mut();
        inner.is_lie = false;
        for (at, bytes) in &batch.writes {
            inner.write(*at, bytes);
        }
        let Inner { clock, random, .. } = &mut *inner;
        let due = clock.when_done(random);
        inner.due = Some(due);
    }

    fn poll(&mut self) -> bool {
        let mut inner = self.0.borrow_mut();
        match inner.due {
            Some(due) if due <= inner.clock.now() => inner.flush(),
            Some(_) => return inner.is_lie || inner.mutation == Some(Mutation::SinkNotAwaited),
            None => {}
        }
        true
    }

    fn wait(&mut self) {
        let mut inner = self.0.borrow_mut();
        let Some(due) = inner.due else { return };
        if matches!(
            inner.mutation,
            Some(Mutation::SinkNotAwaited | Mutation::IntentNotAwaited)
        ) {
            inner.is_lie = true;
            return;
        }
        inner.clock.wait_until(due);
        inner.flush();
    }
}
