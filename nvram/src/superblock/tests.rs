//! Tests superblocks when the pages of a mapping reach the medium in any order, and a power cut leaves any subset.

use super::*;
use crate::memory::paged::{PAGE, Paged, mixed};
use crate::{MIN_MEMORY, VecMemory};
use std::sync::{Arc, Mutex};

/// Checks that every superblock page is the current or the previous one.
fn look(now: &[u8], medium: &[u8]) {
    for mix in 0..4 {
        let left = mixed(now, medium, |page| page < 2 && mix >> page & 1 == 1);
        let found = Superblock::read(&left).map(|(superblock, _)| superblock.sequence);
        assert!(matches!(found, Ok(1) | Err(Error::Blank)), "{found:?}");
    }
}

fn new_superblock() -> Superblock {
    Superblock {
        version: VERSION,
        instance: [1; 16],
        incarnation: Incarnation {
            host: [3; 16],
            boot: [2; 16],
        },
        epoch: 1,
        recoveries: 0,
        flag: Flag::Clean,
        clock_anchor: Duration::ZERO,
        shipped: false,
        persisted: false,
        term: 0,
        sequence: 0,
        memory_len: MIN_MEMORY,
        ring_len: crate::layout::ring_len(MIN_MEMORY),
    }
}

#[test]
fn a_power_cut_while_a_half_made_log_goes_leaves_no_damage() {
    let mut superblock = new_superblock();
    for torn in SLOTS {
        let memory = VecMemory::new(MIN_MEMORY as usize);
        superblock.sequence = 0;
        superblock.write(&memory, 1);
        memory.write(torn + 100, &[0xff; 8]);
        let pages = Paged::new(memory, look);
        Superblock::erase(&pages).unwrap();
        assert!(matches!(Superblock::read(&pages), Err(Error::Blank)));
    }
}

/// The slot in each page, at one instant.
type Instant = [Vec<u8>; 2];

fn slots_of(memory: &VecMemory) -> Instant {
    SLOTS.map(|at| {
        let mut slot = vec![0; SLOT_LEN];
        memory.read(at, &mut slot);
        slot
    })
}

/// Writes a superblock and is killed after `kill_after` stores. Returns the slots after each of them.
fn write_killed(
    memory: &VecMemory,
    superblock: &mut Superblock,
    kill_after: u64,
) -> (VecMemory, Vec<Instant>) {
    let present = Superblock::read(memory).map_or(1, |(_, slot)| slot);
    let memory = memory.image();
    let instants = Arc::new(Mutex::new(Vec::new()));
    let seen = instants.clone();
    memory.freeze_after(kill_after);
    memory.watch(Box::new(move |now| {
        seen.lock().unwrap().push(slots_of(now));
    }));
    superblock.write(&memory, present);
    let instants = std::mem::take(&mut *instants.lock().unwrap());
    (memory.image(), instants)
}

/// Each page reaches the medium as it is at an instant of its own.
#[test]
fn a_power_cut_while_superblocks_are_written_leaves_whole_or_blank_ones() {
    let blank = VecMemory::new(2 * PAGE);
    let mut superblock = new_superblock();
    let (made, first) = write_killed(&blank, &mut superblock, u64::MAX);
    let stores_of_a_write = first.len() as u64;
    for kill_after in 0..=stores_of_a_write {
        let mut superblock = superblock.clone();
        let (killed, second) = write_killed(&made, &mut superblock, kill_after);
        assert!(Superblock::read(&killed).is_ok());
        let (_, third) = write_killed(&killed, &mut superblock, u64::MAX);
        let history: Vec<&Instant> = first.iter().chain(&second).chain(&third).collect();
        for page_0 in &history {
            for page_1 in &history {
                let medium = VecMemory::new(2 * PAGE);
                medium.write(SLOTS[0], &page_0[0]);
                medium.write(SLOTS[1], &page_1[1]);
                let found = Superblock::read(&medium);
                assert!(matches!(found, Ok(_) | Err(Error::Blank)), "{found:?}");
            }
        }
    }
}
