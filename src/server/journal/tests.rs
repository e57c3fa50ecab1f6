use std::sync::Arc;

use outlast_nvram::{Identity, VecMemory};
use outlast_stack::Journal as _;
use outlast_stack::addressing::Acquired;

use super::*;

const INCARNATION: outlast_nvram::Incarnation = outlast_nvram::Incarnation {
    host: [3; 16],
    boot: [2; 16],
};

const MEMORY: usize = 1 << 20;

fn log() -> Log {
    let identity = Identity {
        instance: [1; 16],
        incarnation: INCARNATION,
    };
    let mut log = Log::format(Arc::new(VecMemory::new(MEMORY)), identity).expect("a log");
    log.begin_epoch(INCARNATION).expect("an epoch");
    log
}

fn journal(log: Log, request_room: u64) -> Journal {
    let global = Global {
        clock_up_to: Duration::from_secs(3600),
        ids_up_to: 0,
        secret: [0; 32],
        guid: [0; 16],
        watched_until: 0,
        roots: Vec::new(),
        accounts: Vec::new(),
        acquired: Acquired::default(),
        anchor: None,
    };
    Journal::new(Some(log), None, MEMORY as u64, request_room, global)
}

/// Appends records that soon become superseded, up to this part of the ring, in hundredths.
fn fill(log: &mut Log, hundredths: u64) {
    while log.committed().0 % log.capacity() < log.capacity() * hundredths / 100 {
        log.append(1, Kind::Delta, b"delta", &[&[0; 1000]])
            .expect("room");
        log.commit();
    }
}

/// Law 7: room for received bytes is set aside; a request waits until there is room for both.
#[test]
fn a_request_waits_for_room_beside_what_is_set_aside() {
    let mut log = log();
    log.append(1, Kind::Snapshot, b"first", &[]).expect("room");
    log.commit();
    let free = log.free() as usize;
    let journal = journal(log, 1000);
    assert!(journal.can_work(0));
    let most = (free - 2000) / 34 * 16;
    assert!(journal.can_work(most));
    assert!(!journal.can_work(most + 100));
}

/// Law 7: what may be received beside a request has room, wherever the log's head is, and although nothing is freed
/// meanwhile: neither the reply, which waits for its client, nor what has been received.
#[test]
fn everything_that_is_set_aside_can_be_received() {
    const REQUEST: u64 = 10_000;
    const SEGMENT: usize = 1460;
    for filled in (0..90).step_by(3) {
        let mut log = log();
        for part in [filled / 2, filled] {
            // The tail is here.
            log.append(1, Kind::Snapshot, b"first", &[]).expect("room");
            fill(&mut log, part);
        }
        let mut journal = journal(log, REQUEST);
        let mut set_aside = MEMORY;
        while set_aside > 0 && !journal.can_work(set_aside) {
            set_aside = set_aside.saturating_sub(100);
        }
        let record = Record::ClockUpTo(Duration::ZERO);
        let reply = vec![0; REQUEST as usize / 2];
        let _reply = journal.put(1, Kind::Delta, &record, &[&reply]);
        let mut queue = Vec::new();
        for at in (0..set_aside).step_by(SEGMENT) {
            let segment = vec![0; SEGMENT.min(set_aside - at)];
            assert!(
                journal.room(1) >= segment.len(),
                "{filled}: {at} of {set_aside}"
            );
            queue.push(journal.put(1, Kind::Delta, &record, &[&segment]));
            journal.commit(Duration::ZERO);
        }
    }
}

#[test]
fn room_is_made_before_a_request_has_to_wait() {
    let mut log = log();
    for (snapshot, end) in [(b"first", 20), (b"again", 45)] {
        log.append(1, Kind::Snapshot, snapshot, &[]).expect("room");
        fill(&mut log, end);
    }
    assert!(log.used() < log.capacity() / 2);
    let set_aside = (log.free() as usize - 2000) / 34 * 16;
    let mut journal = journal(log, 1000);
    assert!(journal.can_work(set_aside));
    let wanted = journal.wants_relocation(set_aside).expect("room is made");
    assert_eq!((wanted.object, wanted.for_room), (1, true));
}

#[test]
fn a_log_with_room_is_left_as_it_is() {
    let mut log = log();
    log.append(1, Kind::Snapshot, b"first", &[]).expect("room");
    fill(&mut log, 10);
    assert_eq!(journal(log, 1000).wants_relocation(1000), None);
}

/// Law 6: an outage takes no time, but the service between two outages does.
#[test]
fn waits_end_however_often_the_server_dies() {
    let memory = Arc::new(VecMemory::new(MEMORY));
    let identity = Identity {
        instance: [1; 16],
        incarnation: INCARNATION,
    };
    let mut log = Log::format(memory.clone(), identity).expect("a log");
    let (begin, life) = (Duration::from_secs(3600), Duration::from_millis(500));
    let mut time = begin;
    for _ in 0..20 {
        log.begin_epoch(INCARNATION).expect("an epoch");
        let mut journal = journal(log, 1000);
        journal.global.clock_up_to = time;
        journal.clock = HighWater::recorded(time);
        journal.snapshot_global();
        journal.commit(time);
        let mut now = journal.counting_deadline();
        while now <= time + life {
            journal.count_time(now);
            journal.commit(now);
            now = journal.counting_deadline();
        }
        drop(journal);
        let (next, contents) = Log::open(memory.clone()).expect("a log");
        log = next;
        let records = crate::server::fold::decode(contents.records).expect("records");
        for (_, record, _) in records {
            match record {
                Record::ClockUpTo(mark) => time = mark,
                Record::Global(global) => time = global.clock_up_to,
                _ => {}
            }
        }
    }
    let lived = 20 * life;
    assert!(time - begin > lived / 2, "{:?} of {lived:?}", time - begin);
    assert!(time - begin <= lived + 20 * Duration::from_millis(4));
}
