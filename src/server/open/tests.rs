//! Tests power cuts while a log is made for the first time: no state exists to lose, and the next start must succeed.

use std::cell::Cell;
use std::rc::Rc;

use outlast_nvram::sink::Batch;
use outlast_nvram::{Home, Kind, VecMemory, codec};

use super::*;
use crate::server::record::Record;

mod pairs;

const LEN: usize = 64 << 10;
/// Where the words are, in `docs/log-format.md`.
const HEAD_AT: u64 = 8192;

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0 += 1;
        buffer.fill(self.0);
    }
}

/// A medium that finishes this many batches.
struct Brief {
    image: Arc<VecMemory>,
    left: Rc<Cell<u32>>,
    batch: Batch,
}

impl Medium for Brief {
    fn begin(&mut self, batch: Batch) {
        self.batch = batch;
    }

    fn poll(&mut self) -> bool {
        let Some(left) = self.left.get().checked_sub(1) else {
            return false;
        };
        self.left.set(left);
        for (at, bytes) in &self.batch.writes {
            self.image.write(*at, bytes);
        }
        true
    }

    fn wait(&mut self) {
        self.poll();
    }
}

fn incarnation(boot: u8) -> Incarnation {
    Incarnation {
        host: [7; 16],
        boot: [boot; 16],
    }
}

fn sink(image: &Arc<VecMemory>, batches: u32) -> Sink {
    Sink {
        image: image.clone(),
        medium: Box::new(Brief {
            image: image.clone(),
            left: Rc::new(Cell::new(batches)),
            batch: Batch::default(),
        }),
        name: "the sink".to_owned(),
        in_use: true,
    }
}

/// A first start under durability `power` that finishes this many batches. Returns the mapping and the sink.
fn begun(batches: u32) -> (Arc<VecMemory>, Arc<VecMemory>) {
    let (memory, image) = (VecMemory::new(LEN), VecMemory::new(LEN));
    let (memory, image) = (Arc::new(memory), Arc::new(image));
    let opened = open(
        memory.clone(),
        None,
        Some(sink(&image, batches)),
        incarnation(1),
        Company::Alone,
        &mut Counting(0),
    );
    let Opened {
        mut log, medium, ..
    } = opened.unwrap();
    let mut medium = medium.unwrap();
    let mut client = Vec::new();
    let record = Record::Client {
        tcp: None,
        smb: None,
    };
    codec::encode(&record, &mut client);
    log.append(1, Kind::Snapshot, &client, &[]).unwrap();
    log.commit();
    while let Some(batch) = log.next_batch(Home::Sink) {
        medium.begin(batch);
        if !medium.poll() {
            break;
        }
        log.batch_done(Home::Sink);
    }
    (memory, image)
}

fn again(memory: Arc<VecMemory>, image: &Arc<VecMemory>) -> Result<u32, String> {
    let opened = open(
        memory,
        None,
        Some(sink(image, 0)),
        incarnation(2),
        Company::Alone,
        &mut Counting(9),
    );
    opened
        .map(|opened| opened.log.superblock().epoch)
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn a_power_cut_before_the_sink_has_the_log_is_a_fresh_start() {
    // Two batches: the first mark, the superblock.
    for batches in 0..2 {
        let (memory, image) = begun(batches);
        let whole = Arc::new(memory.image());
        assert_eq!(again(whole, &image), Ok(1), "{batches} batches");
        // The page with the words did not reach the medium.
        memory.store(HEAD_AT, 0);
        assert_eq!(again(memory, &image), Ok(1), "{batches} batches");
    }
}

#[test]
fn a_missing_sink_is_noticed() {
    let (memory, image) = begun(9);
    assert_eq!(again(Arc::new(VecMemory::new(LEN)), &image), Ok(2));
    let lost = Arc::new(VecMemory::new(LEN));
    let refused = again(Arc::new(memory.image()), &lost).unwrap_err();
    assert!(refused.contains("put it back"), "{refused}");
    memory.store(HEAD_AT, 0);
    let refused = again(memory, &lost).unwrap_err();
    assert!(refused.contains("damaged"), "{refused}");
}

/// A mapping without a sink, as a server of boot 1 has left it.
fn left(leave: impl FnOnce(&mut Log)) -> Arc<VecMemory> {
    let memory = Arc::new(VecMemory::new(LEN));
    let opened = open(
        memory.clone(),
        None,
        None,
        incarnation(1),
        Company::Alone,
        &mut Counting(0),
    );
    let mut log = opened.unwrap().log;
    let mut client = Vec::new();
    let record = Record::Client {
        tcp: None,
        smb: None,
    };
    codec::encode(&record, &mut client);
    log.append(1, Kind::Snapshot, &client, &[]).unwrap();
    log.commit();
    leave(&mut log);
    memory
}

/// The number of connections that a start under another boot, or the same, recovers.
fn recovered(memory: Arc<VecMemory>, boot: u8) -> Result<usize, String> {
    let opened = open(
        memory,
        None,
        None,
        incarnation(boot),
        Company::Alone,
        &mut Counting(9),
    );
    opened
        .map(|opened| opened.state.clients())
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn after_another_boot_only_what_was_on_the_medium_before_its_flag_is_recovered() {
    let elective = Flag::ElectiveReboot;
    let persisted = left(|log| log.persist_with_flag(elective).unwrap());
    let only_flagged = left(|log| log.set_flag(elective));
    for memory in [&persisted, &only_flagged] {
        assert_eq!(
            recovered(Arc::new(memory.image()), 1),
            Ok(1),
            "the same boot"
        );
    }
    assert_eq!(recovered(Arc::new(persisted.image()), 2), Ok(1));
    assert_eq!(recovered(only_flagged, 2), Ok(0));
    assert_eq!(recovered(left(|_| ()), 2), Ok(0));
    // A damaged log does not prevent a start after another boot; during the same boot the cause is unknown.
    let damaged = || {
        let image = Arc::new(persisted.image());
        image.store(HEAD_AT, 0);
        image
    };
    assert_eq!(recovered(damaged(), 2), Ok(0));
    assert!(recovered(damaged(), 1).unwrap_err().contains("damaged"));
}
