use std::sync::Arc;

use super::*;
use crate::{Identity, Incarnation, Kind, VecMemory};

#[test]
fn the_cost_is_what_a_replay_finds() {
    let identity = Identity {
        instance: [7; 16],
        incarnation: Incarnation {
            host: [5; 16],
            boot: [9; 16],
        },
    };
    let memory = Arc::new(VecMemory::new(1 << 20));
    let mut log = Log::format(memory.clone(), identity).unwrap();
    assert_eq!(log.replay_cost(), ReplayCost::default());
    log.append(1, Kind::Snapshot, b"state", &[]).unwrap();
    for _ in 0..10 {
        log.append(1, Kind::Delta, b"change", &[b"bytes"]).unwrap();
    }
    log.commit();
    let cost = log.replay_cost();
    assert_eq!((cost.records, cost.deltas), (11, 10));
    assert_eq!(cost.bytes, log.used());
    let (replayed, contents) = Log::open(memory).unwrap();
    assert_eq!(contents.walked, cost.records);
    assert_eq!(replayed.replay_cost(), cost);

    // A snapshot supersedes the earlier records.
    log.append(1, Kind::Snapshot, b"state", &[]).unwrap();
    log.commit();
    assert_eq!(log.replay_cost().deltas, 0);
}
