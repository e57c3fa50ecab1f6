//! Bytes over the log, and the count of their holders.

use crate::Memory;
use crate::layout::Header;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The data of one record.
struct Extent {
    memory: Arc<dyn Memory>,
    at: u64,
    len: usize,
    checksum: u32,
    /// The space of the record in the ring, header included.
    whole_len: u64,
    /// Sum of the `whole_len` of all held extents.
    held_len: Arc<AtomicU64>,
    /// The same for the object whose record it is.
    object_len: Arc<AtomicU64>,
    /// Bytes of it that are counted in `before_len`: all or none, or [`DROPPED`].
    before: AtomicU64,
    /// Sum of the `whole_len` of the held extents before the end of the log's round of relocation.
    before_len: Arc<AtomicU64>,
}

/// The pin has been dropped: nothing of the extent is counted any more.
const DROPPED: u64 = u64::MAX;

/// The owner of a `Bytes`, dropped with the last of its clones and slices, on whichever thread that is.
struct Pin(Arc<Extent>);

impl Extent {
    /// The data, while a pin is held.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the log does not let its tail pass this extent, and so does not write here, until `Held` finds its
        // pin dropped.
        unsafe { self.memory.slice(self.at, self.len) }
    }
}

impl AsRef<[u8]> for Pin {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        for len in [&self.0.held_len, &self.0.object_len] {
            len.fetch_sub(self.0.whole_len, Ordering::Relaxed);
        }
        let before = self.0.before.swap(DROPPED, Ordering::Relaxed);
        self.0.before_len.fetch_sub(before, Ordering::Relaxed);
    }
}

/// The place of a record: its position, and its number in the order of all records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub position: u64,
    pub ordinal: u64,
}

/// The extents of a log that may still be held, in the order of their positions.
#[derive(Default)]
pub(crate) struct Held {
    extents: VecDeque<(Place, Arc<Extent>)>,
    len: Arc<AtomicU64>,
    before_len: Arc<AtomicU64>,
}

impl Held {
    /// Makes `Bytes` of the `len` bytes at `at` of the memory. They belong to the record at `place`, which is beyond
    /// all others and has this header, and whose object counts `object_len`.
    pub(crate) fn pin(
        &mut self,
        memory: &Arc<dyn Memory>,
        (at, len): (u64, usize),
        place: Place,
        header: &Header,
        object_len: &Arc<AtomicU64>,
    ) -> Bytes {
        let whole_len = header.whole_len();
        for len in [&self.len, object_len] {
            len.fetch_add(whole_len, Ordering::Relaxed);
        }
        let extent = Arc::new(Extent {
            memory: memory.clone(),
            at,
            len,
            checksum: header.data_checksum,
            whole_len,
            held_len: self.len.clone(),
            object_len: object_len.clone(),
            before: AtomicU64::new(0),
            before_len: self.before_len.clone(),
        });
        self.extents.push_back((place, extent.clone()));
        Bytes::from_owner(Pin(extent))
    }

    /// Forgets extents that are no longer held, up to the first that is, and returns the place of that one's record.
    pub(crate) fn release(&mut self) -> Option<Place> {
        while let Some((place, extent)) = self.extents.front_mut() {
            // Exclusive access to the extent: the reads of its last holder on another thread are finished.
            if Arc::get_mut(extent).is_none() {
                return Some(*place);
            }
            self.extents.pop_front();
        }
        None
    }

    /// Returns whether a record before `position` has a held extent.
    pub(crate) fn any_before(&self, position: u64) -> bool {
        self.extents
            .iter()
            .take_while(|(place, _)| place.position < position)
            .any(|(_, extent)| Arc::strong_count(extent) > 1)
    }

    /// The position of the first record with held data that do not match their checksum. Nothing may write to the
    /// memory meanwhile.
    pub(crate) fn first_damaged(&self) -> Option<u64> {
        let mut held = (self.extents.iter()).filter(|(_, extent)| Arc::strong_count(extent) > 1);
        held.find(|(_, extent)| crc32c::crc32c(extent.bytes()) != extent.checksum)
            .map(|(place, _)| place.position)
    }

    /// The number of records whose bytes may be held.
    pub(crate) fn records(&self) -> u64 {
        self.extents.len() as u64
    }

    /// Bytes of the ring taken by held records.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Bytes of the ring taken by those before the position of the last [`Held::divide`].
    pub(crate) fn before_len(&self) -> u64 {
        self.before_len.load(Ordering::Relaxed)
    }

    /// Counts the held records before this position, none of which is appended later.
    pub(crate) fn divide(&self, position: u64) {
        for (place, extent) in &self.extents {
            let is_before = place.position < position;
            let now = if is_before { extent.whole_len } else { 0 };
            let held = |counted| (counted != DROPPED).then_some(now);
            // The last holder may drop the extent at any moment, on its own thread.
            let relaxed = Ordering::Relaxed;
            if let Ok(counted) = extent.before.fetch_update(relaxed, relaxed, held) {
                self.before_len.fetch_add(now, relaxed);
                self.before_len.fetch_sub(counted, relaxed);
            }
        }
    }

    /// The positions of the held records, and their bytes of the ring.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        let is_held = |extent: &Extent| extent.before.load(Ordering::Relaxed) != DROPPED;
        let held = self
            .extents
            .iter()
            .filter(move |(_, extent)| is_held(extent));
        held.map(|(place, extent)| (place.position, extent.whole_len))
    }
}
