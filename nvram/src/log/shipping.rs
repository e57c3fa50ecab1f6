//! Shipping of the log's bytes to a sink, and records that refer to the data of other records.

use super::{Log, Lsn};
use crate::layout::RING_AT;
use crate::sink::{Batch, Present, Shipper, Window};
use crate::{Error, Memory};
use bytes::Bytes;

impl Log {
    pub(super) fn present(&self) -> Present<'_> {
        Present {
            memory: &self.memory,
            superblock: &self.superblock,
            tail: self.tail,
            commit: self.last,
        }
    }

    /// Starts shipping the log's bytes to a sink: one that has this log already, or a blank one. Nothing else writes to
    /// it than [`Log::next_batch`] says, and everything written to it before is on the medium. The tail does not move
    /// faster than the sink.
    ///
    /// # Errors
    /// [`Error::AnotherLog`], [`Error::SinkAhead`], or damage of the sink, which is left unchanged.
    pub fn attach(&mut self, sink: &dyn Memory) -> Result<(), Error> {
        self.shipper = None;
        self.shipper = Some(Shipper::attach(sink, &self.present())?);
        Ok(())
    }

    /// Stops shipping.
    pub fn detach(&mut self) {
        self.shipper = None;
        if self.superblock.shipped {
            self.superblock.shipped = false;
            self.write_superblock();
        }
    }

    /// Returns the next batch to write to the sink; `None` while a batch is under way, and when everything committed is
    /// there.
    pub fn next_batch(&mut self) -> Option<Batch> {
        let mut shipper = self.shipper.take()?;
        let batch = shipper.next(&self.present());
        self.shipper = Some(shipper);
        batch
    }

    /// Notes that the batch is on the medium, and frees the space that waited for it.
    pub fn batch_done(&mut self) {
        let Some(shipper) = &mut self.shipper else {
            return;
        };
        shipper.done();
        if shipper.is_recoverable() && !self.superblock.shipped {
            // Not before: a sink that is still blank would be mistaken for a lost one. The sink's copy has this set
            // already.
            self.superblock.shipped = true;
            self.superblock.write(&*self.memory, self.slot);
        }
        self.move_tail();
    }

    /// The position up to which records would be recovered: in the sink, if there is one, otherwise what is committed.
    pub fn durable(&self) -> Lsn {
        Lsn(self
            .shipper
            .as_ref()
            .map_or(self.committed, Shipper::durable))
    }

    /// Returns whether all of the log, its superblock included, is in the sink (or there is none).
    pub fn is_shipped(&self) -> bool {
        self.shipper
            .as_ref()
            .is_none_or(|shipper| shipper.is_idle(self.committed))
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
        // In the ring since the tail last passed here, as they are held.
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

    /// The first position that can be read back.
    pub fn tail(&self) -> Lsn {
        Lsn(self.tail)
    }

    /// The end of what is appended: the next record is there, or after it.
    pub fn head(&self) -> Lsn {
        Lsn(self.position)
    }

    /// The end of what is committed.
    pub fn committed(&self) -> Lsn {
        Lsn(self.committed)
    }
}
