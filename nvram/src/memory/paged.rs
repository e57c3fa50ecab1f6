//! Simulates, for tests, a mapping whose pages reach the medium in any order, as a power cut leaves them.

use super::{Memory, VecMemory};
use crate::Error;
use std::sync::Mutex;

/// The unit in which bytes reach the medium.
pub const PAGE: usize = 4096;

/// A mapping, and the part of it that is certainly on the medium. Any other page may be there: after each store, and
/// before and after each write to the medium, `look` is called with the content of the memory and of the medium.
pub struct Paged<F> {
    pub memory: VecMemory,
    pub medium: Mutex<Vec<u8>>,
    look: F,
}

impl<F: Fn(&[u8], &[u8])> Paged<F> {
    /// Makes a mapping that is completely on the medium.
    pub fn new(memory: VecMemory, look: F) -> Paged<F> {
        Paged {
            medium: Mutex::new(memory.to_vec()),
            memory,
            look,
        }
    }

    /// Writes everything back, as the kernel may.
    pub fn write_back(&self) {
        *self.medium.lock().unwrap() = self.memory.to_vec();
    }

    fn look(&self) {
        (self.look)(&self.memory.to_vec(), &self.medium.lock().unwrap());
    }
}

/// The medium with those pages of the memory for which `is_there` is true.
pub fn mixed(now: &[u8], medium: &[u8], mut is_there: impl FnMut(usize) -> bool) -> VecMemory {
    let mut left = medium.to_vec();
    for page in (0..left.len() / PAGE).filter(|page| is_there(*page)) {
        let range = page * PAGE..(page + 1) * PAGE;
        left[range.clone()].copy_from_slice(&now[range]);
    }
    VecMemory::from_bytes(&left)
}

impl<F: Fn(&[u8], &[u8]) + Send + Sync + 'static> Memory for Paged<F> {
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
        self.look();
        let range = at as usize..at as usize + len;
        self.memory
            .read(at, &mut self.medium.lock().unwrap()[range]);
        self.look();
        Ok(())
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller's contract, passed on.
        unsafe { self.memory.slice(at, len) }
    }
}
