use std::sync::Mutex;

use outlast_nvram::{Identity, Incarnation, VecMemory};

use super::*;
use crate::server::contents::no_service;
use crate::server::record::{GLOBAL, Global, Record};

/// A memory in which another process commits more than a portion each time that one of its words is read.
struct Busy {
    memory: Arc<VecMemory>,
    writer: Mutex<Log>,
    records: [Vec<u8>; 2],
}

struct Zeros;

impl outlast_smb::Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl Busy {
    fn new() -> Busy {
        let memory = Arc::new(VecMemory::new(256 << 10));
        let identity = Identity {
            instance: [1; 16],
            incarnation: Incarnation {
                host: [2; 16],
                boot: [3; 16],
            },
        };
        let log = Log::format(memory.clone(), identity).unwrap();
        let snapshot = Record::Global(Global::new(&mut Zeros));
        let records = [snapshot, Record::IdsUpTo(1)].map(|record| {
            let mut bytes = Vec::new();
            codec::encode(&record, &mut bytes);
            bytes
        });
        Busy {
            memory,
            writer: Mutex::new(log),
            records,
        }
    }

    fn write_on(&self) {
        let mut log = self.writer.lock().unwrap();
        let [snapshot, delta] = &self.records;
        log.append(GLOBAL, Kind::Snapshot, snapshot, &[]).unwrap();
        for _ in 0..=PORTION {
            log.append(GLOBAL, Kind::Delta, delta, &[]).unwrap();
        }
        log.commit();
    }
}

impl Memory for Busy {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
    }

    fn store(&self, at: u64, word: u64) {
        self.memory.store(at, word);
    }

    fn load(&self, at: u64) -> u64 {
        self.write_on();
        self.memory.load(at)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.memory.read(at, into);
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller's contract, passed on.
        unsafe { self.memory.slice(at, len) }
    }
}

#[test]
fn a_log_that_does_not_rest_is_not_taken_over() {
    let stack = outlast_stack::Config::default();
    let mut follower = Follower::begin(Arc::new(Busy::new()), stack, no_service()).unwrap();
    assert!(!follower.advance(None).unwrap());
    let refused = follower.take_over().err().expect("there is always more");
    assert_eq!(refused.to_string(), "the log changes under the follower");
}
