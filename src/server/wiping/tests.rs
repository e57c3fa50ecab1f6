use std::sync::Arc;

use outlast_nvram::{Identity, Incarnation, Kind, VecMemory};

use super::*;

const SECRET: [u8; 16] = *b"a session's key!";

fn log(memory: &Arc<VecMemory>) -> Log {
    let identity = Identity {
        instance: [1; 16],
        incarnation: Incarnation {
            host: [2; 16],
            boot: [3; 16],
        },
    };
    Log::format(memory.clone(), identity).unwrap()
}

fn holds_secret(memory: &VecMemory) -> bool {
    memory.to_vec().windows(16).any(|bytes| bytes == SECRET)
}

/// Relocates what the log wants to relocate, as the machine does.
fn relocate(log: &mut Log) {
    while let Some(wanted) = log.wants_relocation(0, 0) {
        log.append(wanted.object, Kind::Snapshot, b"nothing secret", &[])
            .unwrap();
        log.commit();
    }
}

#[test]
fn a_key_is_wiped_a_minute_after_its_session() {
    let memory = Arc::new(VecMemory::new(1 << 20));
    let mut log = log(&memory);
    let mut wiping = Wiping::at_start();
    for object in [1, 2] {
        log.append(object, Kind::Snapshot, b"a connection", &[])
            .unwrap();
    }
    log.append(2, Kind::Delta, &SECRET, &[b"data"]).unwrap();
    log.commit();
    wiping.session_ended();
    wiping.turn(Duration::from_secs(5), &mut log);
    let due = wiping.deadline(&log).unwrap();
    assert_eq!(due, Duration::from_secs(5) + KEPT);
    relocate(&mut log);
    assert!(holds_secret(&memory), "there was no need to copy");
    wiping.turn(due, &mut log);
    assert_eq!(wiping.deadline(&log), Some(due + PAUSE));
    relocate(&mut log);
    wiping.turn(due, &mut log);
    assert_eq!(wiping.deadline(&log), None, "until the next session ends");
    assert!(!holds_secret(&memory));
    drop(log);
    let (_, contents) = Log::open(memory).unwrap();
    assert_eq!(contents.records.len(), 2);
}

#[test]
fn a_log_that_nobody_takes_up_is_empty() {
    let memory = Arc::new(VecMemory::new(1 << 20));
    let mut log = log(&memory);
    log.append(1, Kind::Snapshot, &SECRET, &[&SECRET]).unwrap();
    log.commit();
    log.erase();
    assert!(!holds_secret(&memory));
    let (_, contents) = Log::open(memory).unwrap();
    assert_eq!(contents.records, []);
}
