//! Ships the log's bytes to its homes, and resolves records that refer to the data of other records.

use super::{Log, Lsn};
use crate::layout::RING_AT;
use crate::sink::{Batch, Present, Shipper, Window};
use crate::{Error, Memory};
use bytes::Bytes;

/// A further place for the log's bytes, besides its own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// A file on a medium that survives the machine.
    Sink,
    /// The memory of another machine.
    Partner,
}

/// The shipper of each home.
#[derive(Default)]
pub(super) struct Shippers {
    sink: Option<Shipper>,
    partner: Option<Shipper>,
}

impl Shippers {
    fn of(&self, home: Home) -> Option<&Shipper> {
        match home {
            Home::Sink => self.sink.as_ref(),
            Home::Partner => self.partner.as_ref(),
        }
    }

    fn of_mut(&mut self, home: Home) -> &mut Option<Shipper> {
        match home {
            Home::Sink => &mut self.sink,
            Home::Partner => &mut self.partner,
        }
    }

    /// Returns how far the tail may move towards `tail`.
    pub(super) fn hold(&self, tail: u64) -> u64 {
        let all = [&self.sink, &self.partner].into_iter().flatten();
        all.map(Shipper::hold).fold(tail, u64::min)
    }

    pub(super) fn superblock_changed(&mut self, present: &Present<'_>) {
        let all = [&mut self.sink, &mut self.partner].into_iter().flatten();
        all.for_each(|shipper| shipper.superblock_changed(present));
    }
}

impl Log {
    pub(super) fn present(&self) -> Present<'_> {
        Present {
            memory: &self.memory,
            superblock: &self.superblock,
            tail: self.tail,
            commit: self.last,
        }
    }

    /// Begins to ship the log's bytes to this home, which is blank or already has this log. Only batches of
    /// [`Log::next_batch`] may write to it, and all earlier writes are on its medium. The tail does not pass the
    /// position of the home.
    ///
    /// # Errors
    /// [`Error::AnotherLog`], [`Error::SinkAhead`], or the damage of the home. The home is unchanged.
    pub fn attach(&mut self, home: Home, memory: &dyn Memory) -> Result<(), Error> {
        *self.shippers.of_mut(home) = None;
        let shipper = Shipper::attach(home, memory, &self.present())?;
        *self.shippers.of_mut(home) = Some(shipper);
        Ok(())
    }

    /// Ends the shipping to this home.
    pub fn detach(&mut self, home: Home) {
        *self.shippers.of_mut(home) = None;
        if home == Home::Sink && self.superblock.shipped {
            self.superblock.shipped = false;
            self.write_superblock();
        }
        self.move_tail();
    }

    /// Returns the next batch to write there; `None` while a batch is in progress, and if everything committed is
    /// there.
    pub fn next_batch(&mut self, home: Home) -> Option<Batch> {
        let mut shipper = self.shippers.of_mut(home).take()?;
        let batch = shipper.next(&self.present());
        *self.shippers.of_mut(home) = Some(shipper);
        batch
    }

    /// Records that the batch in progress is on the medium. Frees the space that waited for it.
    pub fn batch_done(&mut self, home: Home) {
        let Some(shipper) = self.shippers.of_mut(home) else {
            return;
        };
        shipper.done();
        if home == Home::Sink && shipper.is_recoverable() && !self.superblock.shipped {
            // Not earlier: a blank sink would be mistaken for a lost one. The sink's copy of the superblock already has
            // the flag.
            self.superblock.shipped = true;
            self.superblock.write(&*self.memory, self.slot);
        }
        self.move_tail();
    }

    /// Returns the position up to which that home has the log; `None`: the log is not shipped there.
    pub fn durable(&self, home: Home) -> Option<Lsn> {
        let shipper = self.shippers.of(home)?;
        Some(Lsn(shipper.durable()))
    }

    /// Returns whether that home has the whole log and its superblock.
    pub fn is_shipped(&self, home: Home) -> bool {
        let shipper = self.shippers.of(home);
        shipper.is_some_and(|shipper| shipper.is_idle(self.committed))
    }

    /// Returns the position in the log of these bytes, if they are data of a record and held. A record may refer to
    /// them by it.
    pub fn position_of(&self, bytes: &[u8]) -> Option<Lsn> {
        let ring_len = self.superblock.ring_len;
        // SAFETY: no byte of the slice is read.
        let ring = unsafe { self.memory.slice(RING_AT, 0) };
        let offset = bytes.as_ptr().addr().checked_sub(ring.as_ptr().addr())? as u64;
        if offset.checked_add(bytes.len() as u64)? > ring_len {
            return None;
        }
        // The bytes are held, so they were written after the tail last passed their offset.
        let position = self.tail + (offset + ring_len - self.tail % ring_len) % ring_len;
        (position + bytes.len() as u64 <= self.position).then_some(Lsn(position))
    }

    /// Returns the bytes there, which are valid as long as an object keeps the tail from passing them. `None`: they are
    /// not in one piece of the log.
    pub fn bytes_at(&self, position: Lsn, len: usize) -> Option<Bytes> {
        let end = position.0.checked_add(len as u64)?;
        let offset = position.0 % self.superblock.ring_len;
        let in_one_piece = offset.checked_add(len as u64)? <= self.superblock.ring_len;
        if position.0 < self.tail || end > self.committed || !in_one_piece {
            return None;
        }
        let window = Window {
            memory: self.memory.clone(),
            at: RING_AT + offset,
            len,
        };
        Some(Bytes::from_owner(window))
    }

    /// Returns the first position that can be read.
    pub fn tail(&self) -> Lsn {
        Lsn(self.tail)
    }

    /// Returns the end of the appended records: the next record begins there, or after it.
    pub fn head(&self) -> Lsn {
        Lsn(self.position)
    }

    /// Returns the end of the committed records.
    pub fn committed(&self) -> Lsn {
        Lsn(self.committed)
    }
}
