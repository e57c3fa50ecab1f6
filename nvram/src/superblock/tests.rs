//! Pages of a mapping come to the medium in any order, and a power cut leaves whatever had.

use super::*;
use crate::memory::paged::{Paged, mixed};
use crate::{MIN_MEMORY, VecMemory};

/// Every superblock page is as it is or as it was.
fn look(now: &[u8], medium: &[u8]) {
    for mix in 0..4 {
        let left = mixed(now, medium, |page| page < 2 && mix >> page & 1 == 1);
        let found = Superblock::read(&left).map(|(superblock, _)| superblock.sequence);
        assert!(matches!(found, Ok(1) | Err(Error::Blank)), "{found:?}");
    }
}

#[test]
fn a_power_cut_while_a_half_made_log_goes_leaves_no_damage() {
    let mut superblock = Superblock {
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
        sequence: 0,
        memory_len: MIN_MEMORY,
        ring_len: crate::layout::ring_len(MIN_MEMORY),
    };
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
