//! Shipping of the log's bytes to a sink, and records that refer to the data of other records.

use super::{Log, Lsn};
use crate::layout::RING_AT;
use crate::sink::{Batch, Present, Shipper, Window};
use crate::{Error, Memory};
use bytes::Bytes;

/// What is to hold the log's bytes besides its own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// A file on a medium that survives the machine.
    Sink,
    /// The memory of another machine.
    Partner,
}

/// What the bytes are shipped by, for each home.
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

    /// How far the tail may move, which would be moved to `tail`.
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

    /// From now on the log's bytes are shipped to this home: one that has this log already, or a blank one. Nobody
    /// writes to it but as [`Log::next_batch`] says, and what was ever written to it is on its medium. The tail follows
    /// no faster than it does.
    ///
    /// # Errors
    /// [`Error::AnotherLog`], [`Error::SinkAhead`], or what is wrong with it. It is left as it is.
    pub fn attach(&mut self, home: Home, memory: &dyn Memory) -> Result<(), Error> {
        *self.shippers.of_mut(home) = None;
        let shipper = Shipper::attach(home, memory, &self.present())?;
        *self.shippers.of_mut(home) = Some(shipper);
        Ok(())
    }

    /// From now on the log's bytes are not shipped to this home.
    pub fn detach(&mut self, home: Home) {
        *self.shippers.of_mut(home) = None;
        if home == Home::Sink && self.superblock.shipped {
            self.superblock.shipped = false;
            self.write_superblock();
        }
        self.move_tail();
    }

    /// What is to be written there next; `None` while a batch is under way, and when all that is committed is there.
    pub fn next_batch(&mut self, home: Home) -> Option<Batch> {
        let mut shipper = self.shippers.of_mut(home).take()?;
        let batch = shipper.next(&self.present());
        *self.shippers.of_mut(home) = Some(shipper);
        batch
    }

    /// The batch under way is on the medium. Frees what only waited for that.
    pub fn batch_done(&mut self, home: Home) {
        let Some(shipper) = self.shippers.of_mut(home) else {
            return;
        };
        shipper.done();
        if home == Home::Sink && shipper.is_recoverable() && !self.superblock.shipped {
            // Not before: a sink that is still blank would be taken for one that was lost. The sink's copy says so
            // already.
            self.superblock.shipped = true;
            self.superblock.write(&*self.memory, self.slot);
        }
        self.move_tail();
    }

    /// What is before this would be found again in that home; `None`: the log is not shipped there.
    pub fn durable(&self, home: Home) -> Option<Lsn> {
        let shipper = self.shippers.of(home)?;
        Some(Lsn(shipper.durable()))
    }

    /// Is all of the log, its superblock too, in that home?
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
