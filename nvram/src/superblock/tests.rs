//! Pages of a mapping come to the medium in any order, and a power cut leaves whatever had.

use super::*;
use crate::{MIN_MEMORY, VecMemory};
use std::sync::Mutex;

const PAGE: usize = 4096;

/// A mapping, and what of it is on the medium for certain. After each store every superblock page is looked at as it is or was.
struct Pages {
    memory: VecMemory,
    medium: Mutex<Vec<u8>>,
}

impl Pages {
    fn look(&self) {
        let (now, before) = (self.memory.to_vec(), self.medium.lock().unwrap().clone());
        for mix in 0..4 {
            let mut left = before.clone();
            for page in [0, 1].into_iter().filter(|page| mix >> page & 1 == 1) {
                let range = page * PAGE..(page + 1) * PAGE;
                left[range.clone()].copy_from_slice(&now[range]);
            }
            let found = Superblock::read(&VecMemory::from_bytes(&left));
            let found = found.map(|(superblock, _)| superblock.sequence);
            assert!(matches!(found, Ok(1) | Err(Error::Blank)), "{found:?}");
        }
    }
}

impl Memory for Pages {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
        self.look();
    }

    fn store(&self, at: u64, word: u64) {
        self.memory.store(at, word);
        self.look();
    }

    fn load(&self, at: u64) -> u64 {
        self.memory.load(at)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.memory.read(at, into);
    }

    fn persist_range(&self, at: u64, len: usize) -> Result<(), Error> {
        let range = at as usize..at as usize + len;
        self.memory
            .read(at, &mut self.medium.lock().unwrap()[range]);
        Ok(())
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.memory.slice(at, len) }
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
        let medium = Mutex::new(memory.to_vec());
        let pages = Pages { memory, medium };
        Superblock::erase(&pages).unwrap();
        assert!(matches!(Superblock::read(&pages), Err(Error::Blank)));
    }
}
