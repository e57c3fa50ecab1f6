//! Defines the memory of a log, and one for tests and simulation that can be copied at every store.

#[cfg(test)]
pub(crate) mod paged;

use crate::Error;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Bytes that survive the process (or simulate it). Once a log is made over a memory, only that log writes to it.
///
/// Every address is an offset from the start. An access outside `len()`, or a word that is not aligned to 8, is an
/// error of the caller and panics.
pub trait Memory: Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Returns whether the length is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes with plain stores.
    fn write(&self, at: u64, bytes: &[u8]);

    /// Makes one aligned atomic store: every write before it is in the memory before it, every write after it is after
    /// it.
    fn store(&self, at: u64, word: u64);

    /// Makes one aligned atomic load; writes before that word was stored are seen.
    fn load(&self, at: u64) -> u64;

    /// Copies bytes out, also while another process may be changing them.
    fn read(&self, at: u64, into: &mut [u8]);

    /// Writes these bytes to the medium, if there is one, and waits for it.
    ///
    /// # Errors
    /// The medium's.
    fn persist_range(&self, _at: u64, _len: usize) -> Result<(), Error> {
        Ok(())
    }

    /// Returns the bytes in place; the address is stable for the life of the memory.
    ///
    /// # Safety
    /// These bytes must not be written as long as the slice is held.
    unsafe fn slice(&self, at: u64, len: usize) -> &[u8];
}

/// Addresses that this process may read and write until their owner is dropped; every [`Memory`] is based on them.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    start: NonNull<u8>,
    len: u64,
}

// SAFETY: a region is an address range; the contract of `Memory`, which is the same on every thread, governs access.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// # Safety
    /// `start` must be aligned to 8, and `len` bytes from it valid for reads, and for writes if any are made, as long
    /// as the region is used.
    pub(crate) unsafe fn new(start: NonNull<u8>, len: u64) -> Region {
        Region { start, len }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn address(&self, at: u64, len: usize) -> *mut u8 {
        let end = at.checked_add(len as u64);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} bytes at {at} are outside a memory of {} bytes",
            self.len
        );
        // SAFETY: within the region, as just checked.
        unsafe { self.start.as_ptr().add(at as usize) }
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        assert!(at.is_multiple_of(8), "the word at {at} is not aligned");
        let address = self.address(at, 8).cast::<u64>();
        // SAFETY: valid and aligned to 8 (the start is, by the contract of `new`); words of the log are only ever
        // accessed through here and `write` by the one thread that owns the log.
        unsafe { AtomicU64::from_ptr(address) }
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        let to = self.address(at, bytes.len());
        // SAFETY: `to` is valid for these bytes; `bytes` cannot overlap them, since slices of the memory are held only
        // where no process writes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    pub(crate) fn store(&self, at: u64, word: u64) {
        let target = self.word(at);
        // A release store alone would let later plain writes move before it: freed space must not be overwritten before
        // the tail word says so.
        target.store(word.to_le(), Ordering::Release);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn load(&self, at: u64) -> u64 {
        u64::from_le(self.word(at).load(Ordering::Acquire))
    }

    pub(crate) fn read(&self, at: u64, into: &mut [u8]) {
        let from = self.address(at, into.len());
        // SAFETY: `from` is valid for these bytes; `into` is a unique borrow and so not part of the memory.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// # Safety
    /// As [`Memory::slice`]; and the region must outlive `'a`.
    pub(crate) unsafe fn slice<'a>(&self, at: u64, len: usize) -> &'a [u8] {
        let from = self.address(at, len);
        // SAFETY: valid by the contract of `new`, not written by the contract of this function.
        unsafe { std::slice::from_raw_parts(from, len) }
    }
}

/// A function that is called after each store with the whole memory, as a killed process would leave it.
pub type Watcher = Box<dyn FnMut(&VecMemory) + Send>;

/// Memory of this process, for tests and simulation.
///
/// A *store* here is a word of at most 8 bytes: longer writes are torn between words, as a kill would tear them.
pub struct VecMemory {
    words: Box<[AtomicU64]>,
    len: u64,
    stores: AtomicU64,
    frozen_after: AtomicU64,
    watcher: Mutex<Option<Watcher>>,
    is_watched: AtomicBool,
}

impl VecMemory {
    /// Zeroed memory of `len` bytes.
    pub fn new(len: usize) -> VecMemory {
        VecMemory {
            words: (0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect(),
            len: len as u64,
            stores: AtomicU64::new(0),
            frozen_after: AtomicU64::new(u64::MAX),
            watcher: Mutex::new(None),
            is_watched: AtomicBool::new(false),
        }
    }

    /// Memory with these bytes.
    pub fn from_bytes(bytes: &[u8]) -> VecMemory {
        let memory = VecMemory::new(bytes.len());
        memory.region().write(0, bytes);
        memory
    }

    /// What it holds now, as bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// Another memory with the same content, as the next process would find it: neither frozen nor watched.
    pub fn image(&self) -> VecMemory {
        VecMemory::from_bytes(&self.to_vec())
    }

    /// Copies `len` bytes at `at` from the same place of another memory; this is no store in the sense above.
    pub(crate) fn copy_range(&self, from: &dyn Memory, at: u64, len: u64) {
        // In pieces that stay in the cache.
        let mut piece = vec![0; len.min(256 << 10) as usize];
        let mut done = 0;
        while done < len {
            let part = &mut piece[..(len - done).min(256 << 10) as usize];
            from.read(at + done, part);
            self.region().write(at + done, part);
            done += part.len() as u64;
        }
    }

    /// Stores made so far (those that a frozen memory ignored are counted too).
    pub fn stores(&self) -> u64 {
        self.stores.load(Ordering::Relaxed)
    }

    /// Ignores every write after the `stores`-th store: the process was killed there, although it continues.
    pub fn freeze_after(&self, stores: u64) {
        self.frozen_after.store(stores, Ordering::Relaxed);
    }

    /// Calls `watcher` after each store from now on.
    pub fn watch(&self, watcher: Watcher) {
        *self.watcher.lock().expect("no watcher panicked") = Some(watcher);
        self.is_watched.store(true, Ordering::Relaxed);
    }

    fn region(&self) -> Region {
        let start = NonNull::from(&*self.words).cast::<u8>();
        // SAFETY: the box is aligned to 8, lives as long as `self`, never moves, and may be written through a shared
        // reference, being atomics.
        unsafe { Region::new(start, self.len) }
    }

    /// Counts a store and returns whether it is made.
    fn counted(&self) -> bool {
        self.stores.fetch_add(1, Ordering::Relaxed) < self.frozen_after.load(Ordering::Relaxed)
    }

    fn watched(&self) {
        if !self.is_watched.load(Ordering::Relaxed) {
            return;
        }
        if let Some(watcher) = self.watcher.lock().expect("no watcher panicked").as_mut() {
            watcher(self);
        }
    }
}

impl Memory for VecMemory {
    fn len(&self) -> u64 {
        self.len
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let is_whole = self.frozen_after.load(Ordering::Relaxed) == u64::MAX;
        if is_whole && !self.is_watched.load(Ordering::Relaxed) && !bytes.is_empty() {
            // The words of a write cannot be distinguished.
            let words = (at % 8 + bytes.len() as u64).div_ceil(8);
            self.stores.fetch_add(words, Ordering::Relaxed);
            return self.region().write(at, bytes);
        }
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let to_boundary = 8 - (at % 8) as usize;
            let (word, others) = rest.split_at(to_boundary.min(rest.len()));
            if self.counted() {
                self.region().write(at, word);
            }
            self.watched();
            at += word.len() as u64;
            rest = others;
        }
    }

    fn store(&self, at: u64, word: u64) {
        if self.counted() {
            self.region().store(at, word);
        }
        self.watched();
    }

    fn load(&self, at: u64) -> u64 {
        self.region().load(at)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.region().read(at, into);
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller keeps writers away, and the words live as long as `self`.
        unsafe { self.region().slice(at, len) }
    }
}
