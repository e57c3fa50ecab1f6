use std::sync::Arc;

use outlast_nvram::{Identity, VecMemory};
use outlast_stack::Journal as _;

use super::*;

const MEMORY: usize = 1 << 20;

fn log() -> Log {
    let identity = Identity {
        instance: [1; 16],
        boot_id: [2; 16],
    };
    let mut log = Log::format(Arc::new(VecMemory::new(MEMORY)), identity).expect("a log");
    log.begin_epoch([2; 16]).expect("an epoch");
    log
}

fn journal(log: Log, request_room: u64) -> Journal {
    let global = Global {
        clock_up_to: Duration::from_secs(3600),
        ids_up_to: 0,
        secret: [0; 32],
        guid: [0; 16],
    };
    Journal::new(Some(log), None, MEMORY as u64, request_room, global)
}

/// Appends records that nobody needs for long, up to this part of the ring, in hundredths.
fn fill(log: &mut Log, hundredths: u64) {
    while log.committed().0 % log.capacity() < log.capacity() * hundredths / 100 {
        log.append(1, Kind::Delta, b"delta", &[&[0; 1000]])
            .expect("room");
        log.commit();
    }
}

#[test]
fn room_is_made_while_there_is_room_for_a_request_and_for_nothing_besides() {
    let mut log = log();
    for (snapshot, end) in [(b"first", 40), (b"again", 70)] {
        log.append(1, Kind::Snapshot, snapshot, &[]).expect("room");
        fill(&mut log, end);
    }
    assert!(log.used() < log.capacity() / 2);
    let room = log.room();
    let mut journal = journal(log, room);
    journal.account(Shares::default(), Some(7));
    assert!(journal.can_work());
    assert_eq!(journal.room(7), 0, "nothing is received");
    assert_eq!(journal.wants_relocation(), Some(1));
}

#[test]
fn a_log_with_room_is_left_as_it_is() {
    let mut log = log();
    log.append(1, Kind::Snapshot, b"first", &[]).expect("room");
    fill(&mut log, 40);
    let most = log.max_record();
    assert_eq!(journal(log, most).wants_relocation(), None);
}

#[test]
fn nobody_but_the_favoured_gets_more_than_is_left() {
    let mut journal = journal(log(), 0);
    let limit = journal.buffer_limit() as usize;
    let free = journal.room(7);
    let mut received = Shares::new(limit as u64);
    received.add(&Principal::Guest, limit as u64 / 2);
    journal.account(received, Some(7));
    for (conn, owner) in [(7, Principal::Guest), (8, Principal::Guest)] {
        journal.belongs(conn, owner);
    }
    assert_eq!(journal.room(7), free);
    assert_eq!(journal.room(8), 0, "a guest's, of whom one has it all");
    assert_eq!(journal.room(9), limit / 4, "nobody's yet");
    journal.forget(8);
    assert_eq!(journal.room(8), limit / 4);
}
