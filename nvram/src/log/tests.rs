//! Tests the log, killed at every store, against a model of it.

mod following;
mod leaving;
mod relocation;
mod replay;

use super::objects::MIN_DELTAS;
use super::*;
use crate::layout::position_at;
use crate::random::Random;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const IDENTITY: Identity = Identity {
    instance: [7; 16],
    incarnation: incarnation(9),
};

const fn incarnation(boot: u8) -> Incarnation {
    Incarnation {
        host: [5; 16],
        boot: [boot; 16],
    }
}

/// The object that should be relocated.
fn wanted(log: &mut Log, room: u64) -> Option<u64> {
    log.wants_relocation(room, 0).map(|wanted| wanted.object)
}

/// One record as the model remembers it.
type Entry = (Kind, Vec<u8>, Vec<u8>);
/// What replay has to find.
type Model = BTreeMap<u64, Vec<Entry>>;

fn fold(contents: &Contents) -> Model {
    let mut model = Model::new();
    for record in &contents.records {
        let entry = (record.kind, record.meta.to_vec(), record.data.to_vec());
        model.entry(record.object).or_default().push(entry);
    }
    model
}

/// The models of which a memory may hold any at this instant.
type Expected = Arc<Mutex<Vec<Model>>>;

/// A live object: its records, with the bytes of the log that its state keeps.
struct State {
    entries: Vec<(Entry, Bytes)>,
    /// What a snapshot that has begun would make live, once it is complete.
    copy: Option<Vec<(Entry, Bytes)>>,
}

impl State {
    fn note(&mut self, kind: Kind, entry: (Entry, Bytes)) {
        match kind {
            Kind::Begin => self.copy = Some(vec![entry]),
            Kind::Part => self.copy.as_mut().unwrap().push(entry),
            Kind::Complete => {
                self.entries = self.copy.take().unwrap();
                self.entries.push(entry);
            }
            _ => {
                self.entries.push(entry.clone());
                if let Some(copy) = &mut self.copy {
                    copy.push(entry);
                }
            }
        }
    }
}

struct Run {
    random: Random,
    memory: Arc<VecMemory>,
    log: Log,
    objects: BTreeMap<u64, State>,
    next_object: u64,
    expected: Expected,
    /// Bytes held by another owner (a worker, a frame), their expected content, and the number of steps for which they
    /// are still held.
    others: VecDeque<(Bytes, Vec<u8>)>,
    relocations: u64,
    copies: u64,
}

impl Run {
    fn new(seed: u64, memory_len: usize) -> Run {
        let memory = Arc::new(VecMemory::new(memory_len));
        let log = Log::format(memory.clone(), IDENTITY).unwrap();
        let expected = Arc::new(Mutex::new(vec![Model::new()]));
        Run {
            random: Random(seed),
            memory,
            log,
            objects: BTreeMap::new(),
            next_object: 0,
            expected,
            others: VecDeque::new(),
            relocations: 0,
            copies: 0,
        }
    }

    fn model(&self) -> Model {
        let entries = |state: &State| {
            state
                .entries
                .iter()
                .map(|(entry, _)| entry.clone())
                .collect()
        };
        self.objects
            .iter()
            .map(|(id, state)| (*id, entries(state)))
            .collect()
    }

    /// Appends to log and model. `false`: there was no room.
    fn append(&mut self, object: u64, kind: Kind, meta: Vec<u8>, data: Vec<u8>) -> bool {
        let split = self.random.below(data.len() as u64 + 1) as usize;
        let room = self.log.room();
        let bytes = match self
            .log
            .append(object, kind, &meta, &[&data[..split], &data[split..]])
        {
            Ok(bytes) => bytes,
            Err(AppendError::Full { .. }) => {
                let len = (meta.len() + data.len()) as u64;
                assert!(room == 0 || len > room, "room was promised");
                return false;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(bytes, data);
        if self.random.one_in(6) {
            self.others.push_back((bytes.clone(), data.clone()));
        }
        match kind {
            Kind::End => {
                self.objects.remove(&object);
            }
            Kind::Snapshot => {
                let entries = vec![((kind, meta, data), bytes)];
                let copy = None;
                self.objects.insert(object, State { entries, copy });
            }
            kind => {
                let state = self.objects.get_mut(&object).unwrap();
                state.note(kind, ((kind, meta, data), bytes));
            }
        }
        true
    }

    fn commit(&mut self) {
        let model = self.model();
        self.expected.lock().unwrap().push(model);
        self.log.commit();
        self.expected.lock().unwrap().remove(0);
    }

    fn any_object(&mut self) -> Option<u64> {
        let count = self.objects.len() as u64;
        if count == 0 {
            return None;
        }
        let nth = self.random.below(count) as usize;
        self.objects.keys().nth(nth).copied()
    }

    /// Relocates an object: writes a snapshot that includes the metas so far, then the queued data.
    fn relocate(&mut self, object: u64) -> bool {
        let entries = &self.objects[&object].entries;
        let data: Vec<Vec<u8>> = entries
            .iter()
            .map(|((_, _, data), _)| data.clone())
            .filter(|data| !data.is_empty())
            .collect();
        let needed: u64 = data.iter().map(|data| whole_len(data.len() as u64)).sum();
        self.log.use_reserve(true);
        // Twice the largest record: what may be lost at the end of the ring.
        if self.log.free() < needed + 600 {
            self.log.use_reserve(false);
            return false;
        }
        let meta = self.random.bytes(30);
        assert!(self.append(object, Kind::Snapshot, meta, Vec::new()));
        for data in data {
            assert!(self.append(object, Kind::Delta, Vec::new(), data));
        }
        self.log.use_reserve(false);
        self.relocations += 1;
        true
    }

    /// Continues a snapshot of several records, or begins one.
    fn copy(&mut self, object: u64) -> bool {
        let meta = self.random.bytes(40);
        let kind = match (&self.objects[&object].copy, self.random.below(4)) {
            (None, _) | (_, 0) => Kind::Begin,
            (Some(_), 1) => Kind::Part,
            _ => Kind::Complete,
        };
        self.copies += u64::from(kind == Kind::Complete);
        let data = if kind == Kind::Begin {
            Vec::new()
        } else {
            self.random.bytes(30)
        };
        self.append(object, kind, meta, data)
    }

    fn end(&mut self, object: u64) -> bool {
        self.log.use_reserve(true);
        let done = self.append(object, Kind::End, Vec::new(), Vec::new());
        self.log.use_reserve(false);
        done
    }

    fn step(&mut self) {
        let appended = match (self.random.below(20), self.any_object()) {
            (0..2, _) | (_, None) => {
                let object = self.next_object;
                self.next_object += 1;
                let (meta, data) = (self.random.bytes(60), self.random.bytes(20));
                self.append(object, Kind::Snapshot, meta, data)
            }
            (2, Some(object)) if self.objects.len() > 2 => self.end(object),
            (3, Some(object)) => {
                // State that is consumed: the object starts from a snapshot without its data.
                let meta = self.random.bytes(60);
                self.append(object, Kind::Snapshot, meta, Vec::new())
            }
            (4..8, Some(object)) => self.copy(object),
            (8..13, Some(object)) => {
                let meta = self.random.bytes(20);
                self.append(object, Kind::Delta, meta, Vec::new())
            }
            (_, Some(object)) => {
                let (meta, data) = (self.random.bytes(30), self.random.bytes(200));
                self.append(object, Kind::Delta, meta, data)
            }
        };
        if self.random.one_in(3) {
            self.commit();
        }
        if self.random.one_in(4) || !appended {
            self.drop_other();
        }
        if self.random.one_in(200) {
            self.log.set_flag(Flag::NonElectiveReboot);
        }
        if let Some(object) = wanted(&mut self.log, 0) {
            self.relocate(object);
        }
        if !appended {
            self.commit();
            // There is more live state than the log has room for: some client is disconnected.
            if self.others.is_empty()
                && let Some(object) = self.any_object()
            {
                assert!(self.end(object), "the reserve has room for an end");
                self.commit();
            }
        }
    }

    fn drop_other(&mut self) {
        if let Some((bytes, expected)) = self.others.pop_front() {
            assert_eq!(bytes, expected, "held bytes were overwritten");
        }
    }

    fn check(&self) {
        let entries = |state: &State| {
            let copy = state.copy.iter().flatten();
            state
                .entries
                .iter()
                .chain(copy)
                .cloned()
                .collect::<Vec<_>>()
        };
        for ((_, _, data), bytes) in self.objects.values().flat_map(entries) {
            assert_eq!(bytes, data, "bytes of the state were overwritten");
        }
        for (bytes, expected) in &self.others {
            assert_eq!(bytes, expected, "held bytes were overwritten");
        }
        let log = &self.log;
        let live = || log.objects.bases().chain(log.held.places());
        let sum = |end| live().filter(|(at, _)| *at < end).map(|(_, len)| len).sum();
        assert_eq!(log.live(), sum(u64::MAX), "what is live");
        let before: u64 = sum(log.round_end);
        let counted = log.objects.before_len() + log.held.before_len();
        assert_eq!(counted, before, "what lies before the end of the round");
    }

    /// Kills the process; the next one recovers.
    fn recover(&mut self) {
        self.check();
        self.others.clear();
        self.memory = Arc::new(self.memory.image());
        let (log, contents) = Log::open(self.memory.clone()).unwrap();
        assert_eq!(vec![fold(&contents)], *self.expected.lock().unwrap());
        self.log = log;
        self.objects.clear();
        for record in contents.records {
            let entry = (record.kind, record.meta.to_vec(), record.data.to_vec());
            self.objects
                .entry(record.object)
                .or_insert(State {
                    entries: Vec::new(),
                    copy: None,
                })
                .entries
                .push((entry, record.data));
        }
        self.log.begin_epoch(incarnation(1)).unwrap();
        self.log.continue_round();
    }
}

/// Opens what a kill at this instant would leave, and continues with it.
fn verify(memory: &VecMemory, expected: &Expected, count: u64) {
    let image = Arc::new(memory.image());
    let (mut log, contents) = Log::open(image.clone())
        .unwrap_or_else(|error| panic!("killed after store {count}: {error}"));
    let found = fold(&contents);
    assert!(
        expected.lock().unwrap().contains(&found),
        "killed after store {count}: not what was committed"
    );
    if !count.is_multiple_of(37) {
        return;
    }
    drop(contents);
    log.begin_epoch(incarnation(2)).unwrap();
    log.use_reserve(true);
    let mut model = found;
    for object in [u64::MAX, u64::MAX - 1] {
        // Uncommitted records of the killed process lie where these go.
        if log
            .append(object, Kind::Snapshot, b"after", &[b"the kill"])
            .is_ok()
        {
            model.insert(
                object,
                vec![(Kind::Snapshot, b"after".to_vec(), b"the kill".to_vec())],
            );
        }
        log.commit();
        let again = Log::inspect(&*image).unwrap();
        assert_eq!(fold(&again), model);
    }
}

//= patent fig5-consistent, claim-5, claim-26
#[test]
fn killed_at_every_store() {
    for seed in 1..=6 {
        let mut run = Run::new(seed, 12288 + 4096 + 8 * seed as usize);
        let mut laps = 0;
        let count = Arc::new(AtomicU64::new(0));
        for life in 0..4 {
            let (expected, counter) = (run.expected.clone(), count.clone());
            run.memory.watch(Box::new(move |memory| {
                verify(memory, &expected, counter.fetch_add(1, Ordering::Relaxed))
            }));
            for _ in 0..300 {
                run.step();
                run.check();
            }
            laps = run.log.position / run.log.capacity();
            if life < 3 {
                run.recover();
            }
        }
        assert!(laps > 10, "seed {seed}: only {laps} laps");
        assert!(
            run.relocations > 20,
            "seed {seed}: only {} relocations",
            run.relocations
        );
        assert!(run.copies > 20, "seed {seed}: only {} copies", run.copies);
        assert!(count.load(Ordering::Relaxed) > 10_000);
        assert_eq!(run.log.superblock().recoveries, 3);
    }
}

#[test]
fn killed_while_formatting() {
    for frozen_after in 0..200 {
        let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
        memory.freeze_after(frozen_after);
        Log::format(memory.clone(), IDENTITY).unwrap();
        match Log::open(Arc::new(memory.image())) {
            Ok((_, contents)) => assert!(contents.records.is_empty()),
            Err(Error::Blank) => assert!(frozen_after < memory.stores()),
            Err(error) => panic!("killed after store {frozen_after}: {error}"),
        }
        if frozen_after > memory.stores() {
            return;
        }
    }
    panic!("formatting takes more stores than expected");
}

#[test]
fn held_bytes_hold_the_tail() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    log.append(1, Kind::Snapshot, b"", &[]).unwrap();
    let held = log.append(1, Kind::Delta, b"", &[b"held"]).unwrap();
    let slice = held.slice(1..2);
    drop(held);
    log.append(1, Kind::End, b"", &[]).unwrap();
    log.append(2, Kind::Snapshot, b"", &[]).unwrap();
    log.commit();
    assert_eq!(log.tail, 48, "the record of the slice");
    let worker = std::thread::spawn(move || slice.len());
    assert_eq!(worker.join().unwrap(), 1);
    log.commit();
    assert_eq!(log.tail, 144, "the snapshot of object 2");
    assert_eq!(position_at(&*memory, TAIL_AT).unwrap(), log.tail);
}

#[test]
fn bytes_are_found_by_their_position_while_an_object_keeps_them() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    log.append(2, Kind::Snapshot, b"before them", &[]).unwrap();
    log.append(1, Kind::Snapshot, b"first", &[]).unwrap();
    let received = log.append(1, Kind::Delta, b"received", &[&[7; 200]]);
    let place = log.position_of(&received.unwrap()[100..]).unwrap();
    log.append(1, Kind::Snapshot, b"again", &[]).unwrap();
    log.commit();
    assert_eq!(log.bytes_at(place, 100).unwrap(), [7; 100][..]);
    drop(log);
    let (mut log, _) = Log::open(memory).unwrap();
    log.begin_epoch(incarnation(9)).unwrap();
    assert_eq!(log.bytes_at(place, 100).unwrap(), [7; 100][..]);
    log.append(2, Kind::End, b"", &[]).unwrap();
    log.commit();
    assert_eq!(log.bytes_at(place, 100), None, "the tail has passed them");
}

#[test]
fn the_base_is_kept_until_the_next_one_is_committed() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory, IDENTITY).unwrap();
    log.append(1, Kind::Snapshot, b"one", &[]).unwrap();
    log.commit();
    assert_eq!(log.tail, 0);
    log.append(1, Kind::Snapshot, b"two", &[]).unwrap();
    assert_eq!(log.tail, 0);
    log.commit();
    assert_eq!(log.tail, 48);
}

#[test]
fn the_reserve_is_used_only_on_request() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory, IDENTITY).unwrap();
    log.set_reserve(1000);
    log.append(1, Kind::Snapshot, b"", &[]).unwrap();
    while log.room() >= 100 {
        log.append(1, Kind::Delta, &[0; 100], &[]).unwrap();
    }
    assert!(matches!(
        log.append(1, Kind::Delta, &[0; 100], &[]),
        Err(AppendError::Full { .. })
    ));
    log.use_reserve(true);
    assert!(log.room() >= 700);
    log.append(1, Kind::Delta, &[0; 700], &[]).unwrap();
    log.append(1, Kind::End, b"", &[]).unwrap();
    log.commit();
    assert_eq!(log.used(), 0);
}

#[test]
fn impossible_appends_are_refused() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    let most = log.max_record();
    let large = vec![0; most as usize + 1];
    assert_eq!(
        log.append(1, Kind::Snapshot, b"", &[&large]),
        Err(AppendError::TooLarge {
            bytes: most + 1,
            most
        })
    );
    assert_eq!(
        log.append(1, Kind::Delta, b"", &[]),
        Err(AppendError::NoObject { object: 1 })
    );
    log.append(1, Kind::Snapshot, b"", &[&large[1..]]).unwrap();
    log.append(1, Kind::End, b"", &[]).unwrap();
    assert_eq!(
        log.append(1, Kind::Delta, b"", &[]),
        Err(AppendError::NoObject { object: 1 })
    );
    log.commit();
    let (mut log, _) = Log::open(memory).unwrap();
    assert_eq!(
        log.append(1, Kind::Snapshot, b"", &[]),
        Err(AppendError::NoEpoch)
    );
}

#[test]
fn the_largest_records_go_round_a_log_of_64_mib() {
    let memory = Arc::new(VecMemory::new(64 << 20));
    // The log is written through a mapping in real use; here stores are counted, so only a few are made.
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    log.use_reserve(true);
    let meta = vec![1; 10 << 20];
    let data = vec![2; 10 << 20];
    for lap in 0..8u8 {
        let bytes = log
            .append(1, Kind::Snapshot, &meta, &[&data[1..], &[lap]])
            .unwrap();
        assert_eq!(bytes[bytes.len() - 1], lap);
        log.commit();
    }
    let contents = Log::inspect(&*memory).unwrap();
    assert_eq!(contents.records.len(), 1);
    assert_eq!(
        (
            contents.records[0].meta.len(),
            contents.records[0].data.len()
        ),
        (10 << 20, 10 << 20)
    );
}

#[test]
fn inspected_while_a_server_writes() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize * 4));
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    log.append(1, Kind::Snapshot, b"", &[]).unwrap();
    log.commit();
    let done = Arc::new(AtomicU64::new(0));
    let (reader_memory, reader_done) = (memory.clone(), done.clone());
    let reader = std::thread::spawn(move || {
        let mut inspected = 0;
        while reader_done.load(Ordering::Relaxed) == 0 || inspected == 0 {
            let contents = Log::inspect(&*reader_memory).unwrap();
            assert_eq!(contents.records[0].kind, Kind::Snapshot);
            inspected += 1;
        }
    });
    for n in 0..20_000u32 {
        let kind = if n % 8 == 0 {
            Kind::Snapshot
        } else {
            Kind::Delta
        };
        log.append(1, kind, &n.to_le_bytes(), &[&[0; 90]]).unwrap();
        log.commit();
        if n % 500 == 0 {
            log.set_flag(Flag::NonElectiveReboot);
        }
    }
    done.store(1, Ordering::Relaxed);
    reader.join().unwrap();
}

#[test]
fn a_record_of_the_killed_process_is_no_successor() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    log.append(1, Kind::Snapshot, b"", &[]).unwrap();
    log.commit();
    log.append(1, Kind::Delta, b"first", &[]).unwrap();
    log.append(1, Kind::Delta, b"never committed", &[]).unwrap();
    let end = log.position;

    let memory = Arc::new(memory.image());
    let (mut log, _) = Log::open(memory.clone()).unwrap();
    log.begin_epoch(incarnation(0)).unwrap();
    // The same record as before, so that only the epoch distinguishes the chains.
    log.append(1, Kind::Delta, b"first", &[]).unwrap();
    log.commit();
    let position = log.committed;
    memory.store(HEAD_AT, word(end));
    let refused = Log::open(memory).unwrap_err();
    assert!(
        matches!(refused, Error::Damaged { position: at, .. } if at == position),
        "{refused}"
    );
}
