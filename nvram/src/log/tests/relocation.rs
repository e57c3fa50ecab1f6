//! Relocation: when, and of which object.

use super::*;
use crate::log::relocation::SUPERSEDED_PART;

#[test]
fn relocation_is_asked_of_the_object_at_the_tail() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory, IDENTITY).unwrap();
    log.append(5, Kind::Snapshot, b"", &[]).unwrap();
    log.append(6, Kind::Snapshot, b"", &[]).unwrap();
    while log.used() - log.live() <= log.capacity() / SUPERSEDED_PART {
        assert_eq!(wanted(&mut log, 0), None);
        log.append(6, Kind::Delta, &[0; 100], &[]).unwrap();
        log.commit();
    }
    assert_eq!(wanted(&mut log, 0), Some(5));
    log.append(5, Kind::Snapshot, b"", &[]).unwrap();
    assert_eq!(wanted(&mut log, 0), None, "not committed yet");
    log.commit();
    assert_eq!(wanted(&mut log, 0), Some(6));
    log.append(6, Kind::Snapshot, b"", &[]).unwrap();
    log.commit();
    assert_eq!(wanted(&mut log, 0), None);
    assert!(log.used() < 100);
}

/// Relocation is due as soon as the requested room is missing, and not only when half of the ring is full.
#[test]
fn relocation_is_asked_when_room_is_short() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory, IDENTITY).unwrap();
    log.append(5, Kind::Snapshot, b"", &[]).unwrap();
    for _ in 0..3 {
        log.append(5, Kind::Delta, &[0; 100], &[]).unwrap();
    }
    log.commit();
    assert!(log.used() < log.capacity() / 2);
    let room = log.room();
    assert_eq!(wanted(&mut log, room), None);
    assert_eq!(wanted(&mut log, room + 1), Some(5));
}

/// The bases of the objects lie side by side at the tail and their data lie far ahead: every object has to be relocated
/// before there is room.
#[test]
fn there_is_room_to_relocate_all_live_objects() {
    let memory = Arc::new(VecMemory::new(1 << 16));
    let mut log = Log::format(memory, IDENTITY).unwrap();
    let mut queues = vec![Vec::new(); 20];
    for object in 1..21 {
        log.append(object, Kind::Snapshot, b"", &[]).unwrap();
    }
    for object in (1..21).cycle() {
        if log.room() < 1000 {
            break;
        }
        // superseded records lie before live ones
        let superseded = log.used() < log.capacity() / 3;
        let data = log.append(object, Kind::Delta, b"", &[&[0; 500]]).unwrap();
        if !superseded {
            queues[object as usize - 1].push(data);
        }
    }
    log.commit();
    assert!(
        log.live() > log.capacity() / 5,
        "{} of {}",
        log.live(),
        log.capacity()
    );
    while log.room() < 1000 {
        let object = wanted(&mut log, 1000).expect("something can be done");
        let queue = &mut queues[object as usize - 1];
        log.use_reserve(true);
        log.append(object, Kind::Snapshot, b"", &[]).expect("room");
        for data in queue {
            *data = log.append(object, Kind::Delta, b"", &[data]).expect("room");
        }
        log.use_reserve(false);
        log.commit();
    }
}

#[test]
fn relocation_is_not_asked_for_nothing() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory, IDENTITY).unwrap();
    log.append(5, Kind::Snapshot, b"", &[]).unwrap();
    let mut queue = Vec::new();
    log.use_reserve(true);
    while log.used() <= log.capacity() * 3 / 4 {
        queue.push(log.append(5, Kind::Delta, b"", &[&[0; 100]]).unwrap());
    }
    log.use_reserve(false);
    log.commit();
    assert_eq!(wanted(&mut log, 0), None, "all of it is live");
    queue.truncate(queue.len() / 2);
    assert_eq!(wanted(&mut log, 0), Some(5));
    // A frame still holds what the object released: it would hold the tail whatever was relocated.
    let frame = queue.remove(0);
    queue.clear();
    log.append(5, Kind::Snapshot, b"", &[]).unwrap();
    log.commit();
    assert_eq!(wanted(&mut log, 0), None);
    assert!(log.used() > log.capacity() / 2);
    drop(frame);
    log.commit();
    assert!(log.used() < 100);
}

/// Law 7: a window that was offered keeps its room while objects are relocated one after another, and the tail does not
/// move before the last of them; also if the server dies between two of them.
#[test]
fn room_is_not_taken_by_a_round_of_relocation() {
    const OBJECTS: u64 = 8;
    for deaths in [false, true] {
        let mut memory = Arc::new(VecMemory::new(128 << 10));
        let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
        log.append(9, Kind::Snapshot, b"holds the tail", &[])
            .unwrap();
        let mut queues = Vec::new();
        for object in 1..=OBJECTS {
            log.append(object, Kind::Snapshot, &[0; 500], &[]).unwrap();
            queues.push(log.append(object, Kind::Delta, b"", &[&[0; 2000]]).unwrap());
        }
        for _ in 0..20 {
            log.append(9, Kind::Delta, &[0; 1000], &[]).unwrap();
        }
        log.commit();
        let (free, tail) = (log.free(), log.tail());
        for object in 1..=OBJECTS {
            if deaths {
                queues.clear();
                memory = Arc::new(memory.image());
                let (next, contents) = Log::open(memory.clone()).unwrap();
                let data = contents.records.into_iter().map(|record| record.data);
                queues = data.filter(|data| !data.is_empty()).collect();
                // In the order of the log: those that have not been copied come first.
                queues.rotate_right(object as usize - 1);
                log = next;
                log.begin_epoch(incarnation(1)).unwrap();
                log.continue_round();
            }
            log.use_reserve(true);
            log.append(object, Kind::Snapshot, &[0; 500], &[]).unwrap();
            let queue = &mut queues[object as usize - 1];
            *queue = log.append(object, Kind::Delta, b"", &[queue]).unwrap();
            log.use_reserve(false);
            log.commit();
            assert_eq!(log.tail(), tail);
            assert!(log.free() >= free, "{object}: {} of {free}", log.free());
        }
        log.append(9, Kind::End, b"", &[]).unwrap();
        log.commit();
        assert!(log.tail() > tail);
        assert!(log.free() >= free, "{} of {free}", log.free());
    }
}
