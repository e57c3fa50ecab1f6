//! Interrupts a copy after every part of every batch, and continues it by the same server or by another one.

use super::*;
use crate::random::Random;
use crate::sink::Batch;
use crate::{Home, Identity, Kind, Log, MIN_MEMORY, Relocation, Replayed, VecMemory};

const LEN: usize = MIN_MEMORY as usize;

fn of(host: u8, boot: u8) -> Incarnation {
    Incarnation {
        host: [host; 16],
        boot: [boot; 16],
    }
}

/// The content of a log.
fn said(memory: &dyn Memory) -> (Flag, u64, Vec<Replayed>) {
    let contents = Log::inspect(memory).expect("a log");
    let superblock = contents.superblock;
    (superblock.flag, superblock.term, contents.records)
}

/// A server, and the copy of its log on the other machine.
struct Pair {
    random: Random,
    memory: Arc<VecMemory>,
    log: Log,
    copied: Arc<VecMemory>,
    copy: Copy,
    objects: Vec<u64>,
    next_object: u64,
    /// Each commit: its end, and the live records.
    commits: Vec<(u64, Vec<Replayed>)>,
    /// Commits of this position and after it have not been acknowledged.
    acknowledged: u64,
    term: u64,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let memory = Arc::new(VecMemory::new(LEN));
        let identity = Identity {
            instance: [7; 16],
            incarnation: of(1, 1),
        };
        let mut log = Log::format(memory.clone(), identity).unwrap();
        log.set_term(1);
        log.set_flag(Flag::NonElectiveReboot);
        let copied = Arc::new(VecMemory::new(LEN));
        let copy = Copy::open(copied.clone(), of(2, 1)).unwrap();
        let mut pair = Pair {
            random: Random(seed),
            memory,
            log,
            copied,
            copy,
            objects: Vec::new(),
            next_object: 1,
            commits: Vec::new(),
            acknowledged: 0,
            term: 1,
        };
        pair.attach();
        pair.commit();
        pair
    }

    /// Attaches the copy as a link does: where it ends, or from the beginning.
    fn attach(&mut self) {
        let beginning = Beginning::new(LEN as u64, self.copy.beginning());
        if self.log.attach(Home::Partner, &beginning).is_err() {
            self.copy.begin_anew().unwrap();
            self.acknowledged = 0;
            let blank = Beginning::new(LEN as u64, Vec::new());
            self.log.attach(Home::Partner, &blank).unwrap();
        }
    }

    fn commit(&mut self) {
        let head = self.log.commit().0;
        self.commits.push((head, said(&*self.memory).2));
    }

    fn work(&mut self) {
        for _ in 0..self.random.below(3) + 1 {
            let meta = vec![self.random.below(256) as u8; self.random.below(60) as usize];
            let data = vec![self.random.below(256) as u8; self.random.below(400) as usize];
            let (object, kind) = match self.random.below(4) {
                0 if self.objects.len() < 3 => (self.next_object, Kind::Snapshot),
                _ => match self.objects.first() {
                    Some(object) => (*object, Kind::Delta),
                    None => (self.next_object, Kind::Snapshot),
                },
            };
            let appended = self.log.append(object, kind, &meta, &[&data]);
            if appended.is_ok() && kind == Kind::Snapshot {
                self.objects.push(object);
                self.next_object += 1;
            }
        }
        self.commit();
        while let Some(Relocation { object, .. }) = self.log.wants_relocation(0, 0) {
            self.log.use_reserve(true);
            let room = self.log.append(object, Kind::Snapshot, b"again", &[]);
            self.log.use_reserve(false);
            self.commit();
            if room.is_err() {
                break;
            }
        }
    }

    /// Checks that the other machine would take over an acknowledged state, or a later one.
    fn check(&self) {
        let found = match Log::inspect(&*self.copied) {
            Ok(found) => found.records,
            Err(Error::Blank) if self.acknowledged == 0 => return,
            Err(error) => panic!("{error}"),
        };
        let mut states = self.commits.iter();
        let known = states.any(|(head, records)| *head >= self.acknowledged && *records == found);
        assert!(known, "a state that never was, or one that is too old");
    }

    /// Ships one batch, or the first parts of it. Returns false if there was none.
    fn ship(&mut self, is_cut: bool) -> bool {
        let Some(Batch { writes }) = self.log.next_batch(Home::Partner) else {
            return false;
        };
        let all = writes.len() as u64;
        let arriving = if is_cut {
            self.random.below(all + 1)
        } else {
            all
        };
        for (at, bytes) in writes.iter().take(arriving as usize) {
            self.copy.write(*at, bytes).unwrap();
            self.check();
        }
        if is_cut {
            self.reconnect();
            return true;
        }
        self.copy.complete().unwrap();
        self.log.batch_done(Home::Partner);
        let durable = self.log.durable(Home::Partner).unwrap().0;
        let heads = self.commits.iter().map(|(head, _)| *head);
        self.acknowledged = heads.filter(|head| *head <= durable).max().unwrap_or(0);
        self.check();
        true
    }

    /// Reconnects the link. The other machine's process may have crashed, too, or this one's.
    fn reconnect(&mut self) {
        match self.random.below(4) {
            0 => self.copy = Copy::open(self.copied.clone(), of(2, 1)).unwrap(),
            1 => {
                // In another boot of that machine its copy is invalid.
                self.copy = Copy::open(self.copied.clone(), of(2, 9)).unwrap();
                assert_eq!(Standing::of(&*self.copied).unwrap(), None);
                self.copy = Copy::open(self.copied.clone(), of(2, 1)).unwrap();
                self.acknowledged = 0;
            }
            2 => {
                let (log, contents) = Log::open(self.memory.clone()).unwrap();
                self.log = log;
                self.objects = contents.records.iter().map(|it| it.object).collect();
                self.objects.sort_unstable();
                self.objects.dedup();
                self.log.begin_epoch(of(1, 1)).unwrap();
                self.log.set_flag(Flag::NonElectiveReboot);
            }
            _ => {}
        }
        self.attach();
        self.commit();
    }

    /// The other machine takes over its copy, and this one becomes its partner, with its own log.
    fn take_over(&mut self) {
        let newer = self.copied.clone();
        if Standing::of(&*newer).unwrap().is_none() {
            return;
        }
        std::mem::swap(&mut self.memory, &mut self.copied);
        self.term += 1;
        // The memory of the former server must hold nothing back.
        let (log, contents) = Log::open(newer.clone()).unwrap();
        self.log = log;
        self.log.set_term(self.term);
        self.log.begin_epoch(of(1, 1)).unwrap();
        adopt(&*newer);
        self.log.set_flag(Flag::NonElectiveReboot);
        let objects = contents.records.iter().map(|it| it.object);
        self.objects = objects.collect();
        self.objects.sort_unstable();
        self.objects.dedup();
        self.commits.clear();
        self.acknowledged = 0;
        self.copy = Copy::open(self.copied.clone(), of(2, 1)).unwrap();
        self.attach();
        self.commit();
    }
}

#[test]
fn a_copy_is_a_log_at_every_instant() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut pair = Pair::new(seed);
        for _ in 0..200 {
            match pair.random.below(12) {
                0 => drop(pair.ship(true)),
                1 => pair.take_over(),
                _ => pair.work(),
            }
            while pair.random.below(4) > 0 && pair.ship(false) {}
        }
        while pair.ship(false) {}
        assert!(pair.log.is_shipped(Home::Partner));
        assert_eq!(said(&*pair.copied), said(&*pair.memory));
        assert!(
            pair.log.committed().0 > 2 * (MIN_MEMORY - RING_AT),
            "it goes round"
        );
    }
}

#[test]
fn a_server_that_hands_over_continues_as_a_copy_from_its_position() {
    let mut pair = Pair::new(1);
    for _ in 0..5 {
        pair.work();
    }
    pair.log.set_flag(Flag::ElectiveTakeover);
    while pair.ship(false) {}
    let left = pair.log.committed().0;
    pair.memory.load(0);
    std::mem::swap(&mut pair.memory, &mut pair.copied);
    let (mut log, _) = Log::open(pair.memory.clone()).unwrap();
    log.set_term(2);
    log.begin_epoch(of(2, 1)).unwrap();
    adopt(&*pair.memory);
    let copy = Copy::open(pair.copied.clone(), of(1, 1)).unwrap();
    let beginning = Beginning::new(LEN as u64, copy.beginning());
    log.attach(Home::Partner, &beginning).unwrap();
    assert_eq!(
        log.durable(Home::Partner).map(|it| it.0),
        Some(left - 1),
        "only the superblock is missing"
    );
    // In another boot the copy is invalid.
    let mut copy = Copy::open(pair.copied.clone(), of(1, 2)).unwrap();
    assert_eq!(Standing::of(&*pair.copied).unwrap(), None);
    assert!(copy.superblock().is_none());
    assert_eq!(copy.complete().unwrap(), Lsn(0));
}

#[test]
fn what_no_batch_writes_is_refused() {
    let mut pair = Pair::new(1);
    while pair.ship(false) {}
    let image = pair.copied.to_vec();
    for (at, len) in [
        (8192, 8),
        (RECEIPT_AT, 44),
        (RING_AT - 1, 2),
        (0, 8),
        (4096, 64),
        (MIN_MEMORY, 1),
        (u64::MAX, 2),
    ] {
        assert!(
            pair.copy.write(at, &vec![1; len]).is_err(),
            "{len} bytes at {at}"
        );
    }
    assert_eq!(pair.copied.to_vec(), image);
    for (tail, head) in [(8, 0), (0, 4), (0, u64::MAX / 8 * 8), (0, MIN_MEMORY * 2)] {
        let mark = Mark {
            sequence: 99,
            instance: [7; 16],
            tail,
            head,
            chain: 0,
            wiped: 0,
        };
        pair.copy.write(MARKS[0], &mark.to_bytes()).unwrap();
        assert!(pair.copy.complete().is_err(), "{tail} to {head}");
    }
}

#[test]
fn the_output_names_the_owner_of_the_state() {
    let mut pair = Pair::new(1);
    while pair.ship(false) {}
    let standing = Standing::of(&*pair.copied).unwrap().unwrap();
    assert_eq!(standing.received_in, Some(of(2, 1)));
    assert_eq!(standing.superblock.term, 1);
    assert!(standing.is_of(of(2, 1)) && !standing.is_of(of(2, 2)));
    let own = Standing::of(&*pair.memory).unwrap().unwrap();
    assert!(own.is_of(of(1, 1)) && !own.is_of(of(1, 2)) && own.received_in.is_none());
    pair.log.persist_with_flag(Flag::ElectiveReboot).unwrap();
    let saved = Standing::of(&*pair.memory).unwrap().unwrap();
    assert!(saved.is_of(of(1, 2)));
}
