//! Receives a copy of a partner's log in this machine's memory (durability `mirror`): the partner's batches write it,
//! and it is a valid log at every instant. Its head and tail words move only when a batch is complete, so that a worker
//! can follow it and take it over like a log of its own.
//!
//! A batch overwrites nothing that the last complete one needs ([`crate::sink`]), and its mark comes last. So a copy
//! whose batch was interrupted, by the end of either process or of the link, is the log as of the preceding batch.
//!
//! Stores survive the process but not the machine. The *receipt* contains the machine and the boot in which the copy
//! was received; a copy of another boot may be incomplete and is invalid.

use crate::layout::{ALIGN, HEAD_AT, POSITION_MAX, RING_AT, TAIL_AT, position_at, word};
use crate::log::{Lsn, suspect};
use crate::replay::replay;
use crate::sink::wiping::zeroes;
use crate::sink::{MARK_LEN, MARKS, Mark, marks};
use crate::superblock::{SLOT_LEN, SLOTS, Superblock, array_at, u32_at, u64_at};
use crate::{Error, Flag, Incarnation, Memory};
use std::sync::Arc;

/// The receipt has a sector of its own.
const RECEIPT_AT: u64 = 9728;
const RECEIPT_LEN: usize = 44;
const RECEIPT_MAGIC: u64 = u64::from_le_bytes(*b"OUTLRCPT");
const RECEIPT_CHECKSUM_AT: usize = RECEIPT_LEN - 4;

/// Length of the beginning of the memory that describes the content of a copy: superblocks and marks.
pub const BEGINNING_LEN: usize = RECEIPT_AT as usize;

/// The content of a memory according to its superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its superblock.
    pub superblock: Superblock,
    /// The machine and the boot in which the copy was received; `None`: it is the log of a server of this machine.
    pub received_in: Option<Incarnation>,
}

impl Standing {
    /// Reads the content of a memory; `None`: it is blank. A server may write to it meanwhile.
    ///
    /// # Errors
    /// The superblock is damaged, or of another version.
    pub fn of(memory: &dyn Memory) -> Result<Option<Standing>, Error> {
        match Superblock::read_own(memory) {
            Ok((superblock, _)) => Ok(Some(Standing {
                superblock,
                received_in: received_in(memory),
            })),
            Err(Error::Blank) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether this is the newest state of its term, as far as this machine can determine in this boot. Stores
    /// survive the process; they survive the machine only if all of them were written to the medium.
    #[must_use]
    pub fn is_of(&self, incarnation: Incarnation) -> bool {
        match self.received_in {
            Some(received_in) => received_in == incarnation,
            None => self.superblock.incarnation == incarnation || self.superblock.persisted,
        }
    }
}

fn received_in(memory: &dyn Memory) -> Option<Incarnation> {
    let mut bytes = [0; RECEIPT_LEN];
    memory.read(RECEIPT_AT, &mut bytes);
    let checksum = crc32c::crc32c(&bytes[..RECEIPT_CHECKSUM_AT]);
    let is_whole =
        u64_at(&bytes, 0) == RECEIPT_MAGIC && checksum == u32_at(&bytes, RECEIPT_CHECKSUM_AT);
    is_whole.then(|| Incarnation {
        host: array_at(&bytes, 8),
        boot: array_at(&bytes, 24),
    })
}

fn write_receipt(memory: &dyn Memory, incarnation: Incarnation) {
    let mut bytes = [0; RECEIPT_LEN];
    bytes[..8].copy_from_slice(&RECEIPT_MAGIC.to_le_bytes());
    bytes[8..24].copy_from_slice(&incarnation.host);
    bytes[24..40].copy_from_slice(&incarnation.boot);
    let checksum = crc32c::crc32c(&bytes[..RECEIPT_CHECKSUM_AT]);
    bytes[RECEIPT_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    memory.write(RECEIPT_AT, &bytes);
}

/// Makes the log in this memory this server's own, once its epoch has begun: erases marks and receipt, so that it is no
/// longer a copy.
pub fn adopt(memory: &dyn Memory) {
    forget_marks(memory);
    zero(memory, RECEIPT_AT, RECEIPT_LEN as u64);
}

fn forget_marks(memory: &dyn Memory) {
    for at in MARKS {
        zero(memory, at, MARK_LEN as u64);
    }
}

fn zero(memory: &dyn Memory, at: u64, len: u64) {
    for (at, zeroes) in zeroes(at, len) {
        memory.write(at, &zeroes);
    }
}

/// A copy that is being received. No other process writes to its memory.
pub struct Copy {
    memory: Arc<dyn Memory>,
    incarnation: Incarnation,
}

impl Copy {
    /// Continues the copy in the memory, if it was received in this boot, or turns a log into a copy that its server
    /// has handed over to the partner, which continues the same log. Otherwise begins a new copy.
    ///
    /// # Errors
    /// The memory's medium cannot be written to.
    pub fn open(memory: Arc<dyn Memory>, incarnation: Incarnation) -> Result<Copy, Error> {
        let mut copy = Copy {
            memory,
            incarnation,
        };
        match Standing::of(&*copy.memory) {
            Ok(Some(standing)) if standing.received_in == Some(incarnation) => {}
            Ok(Some(standing)) if copy.becomes_copy(&standing) => {}
            _ => copy.begin_anew()?,
        }
        Ok(copy)
    }

    /// Turns a log into a copy whose server has handed over its state, with which the partner has begun. Returns
    /// whether it did.
    fn becomes_copy(&self, standing: &Standing) -> bool {
        let superblock = &standing.superblock;
        let is_handed_over = standing.received_in.is_none()
            && superblock.incarnation == self.incarnation
            && superblock.flag == Flag::ElectiveTakeover;
        let Some(replay) = is_handed_over.then(|| replay(&*self.memory).ok()).flatten() else {
            return false;
        };
        let mark = Mark {
            sequence: 1,
            instance: superblock.instance,
            tail: replay.tail,
            head: replay.head,
            chain: replay.previous,
            wiped: replay.tail,
        };
        forget_marks(&*self.memory);
        self.memory.write(MARKS[0], &mark.to_bytes());
        write_receipt(&*self.memory, self.incarnation);
        true
    }

    /// Makes the memory blank, to receive a copy from its beginning. Wipes the former content, which contains secrets.
    ///
    /// # Errors
    /// The memory's medium cannot be written to.
    pub fn begin_anew(&mut self) -> Result<(), Error> {
        let memory = &*self.memory;
        Superblock::erase(memory)?;
        forget_marks(memory);
        for at in [HEAD_AT, TAIL_AT] {
            memory.store(at, word(0));
        }
        suspect::clear(memory);
        zero(memory, RING_AT, memory.len() - RING_AT);
        write_receipt(memory, self.incarnation);
        Ok(())
    }

    /// Returns the bytes from which the partner determines where to continue this copy: [`BEGINNING_LEN`] bytes.
    #[must_use]
    pub fn beginning(&self) -> Vec<u8> {
        let mut bytes = vec![0; BEGINNING_LEN];
        self.memory.read(0, &mut bytes);
        bytes
    }

    /// Writes a part of a batch.
    ///
    /// # Errors
    /// The range is not one that a batch writes.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let is_slot = |from: &u64, len: usize| at == *from && bytes.len() == len;
        let is_ring = at >= RING_AT
            && at
                .checked_add(bytes.len() as u64)
                .is_some_and(|end| end <= self.memory.len());
        if !is_ring
            && !SLOTS.iter().any(|from| is_slot(from, SLOT_LEN))
            && !MARKS.iter().any(|from| is_slot(from, MARK_LEN))
        {
            return Err(damaged(at, "no batch writes there"));
        }
        self.memory.write(at, bytes);
        Ok(())
    }

    /// Completes a batch: moves the words to the positions in its mark. Returns the copy's head.
    ///
    /// # Errors
    /// The result is not a valid log: the copy is invalid from now on.
    pub fn complete(&mut self) -> Result<Lsn, Error> {
        let memory = &*self.memory;
        let Some((mark, _)) = marks(memory).into_iter().next() else {
            return Ok(Lsn(0));
        };
        let ring_len = crate::layout::ring_len(memory.len());
        let used = mark.head.checked_sub(mark.tail);
        let is_aligned = (mark.head | mark.tail).is_multiple_of(ALIGN);
        let is_sound =
            is_aligned && mark.head <= POSITION_MAX && used.is_some_and(|used| used <= ring_len);
        if !is_sound {
            return Err(damaged(
                mark.head,
                "a mark whose head and tail do not belong together",
            ));
        }
        let head = position_at(memory, HEAD_AT)?;
        if mark.head < head {
            return Err(damaged(mark.head, "a mark behind the one before it"));
        }
        memory.store(TAIL_AT, word(mark.tail));
        memory.store(HEAD_AT, word(mark.head));
        Ok(Lsn(mark.head))
    }

    /// Returns the superblock, once it has been received.
    #[must_use]
    pub fn superblock(&self) -> Option<Superblock> {
        let (superblock, _) = Superblock::read_own(&*self.memory).ok()?;
        Some(superblock)
    }
}

fn damaged(position: u64, what: &'static str) -> Error {
    Error::Damaged { position, what }
}

/// The beginning of a partner's copy, as received from it, as a memory of the copy's length.
pub struct Beginning {
    len: u64,
    bytes: Vec<u8>,
}

impl Beginning {
    /// Makes the beginning of a copy with `len` bytes. `bytes`: the result of [`Copy::beginning`], or empty.
    #[must_use]
    pub fn new(len: u64, mut bytes: Vec<u8>) -> Beginning {
        bytes.truncate(BEGINNING_LEN);
        Beginning { len, bytes }
    }
}

impl Memory for Beginning {
    fn len(&self) -> u64 {
        self.len
    }

    fn write(&self, _at: u64, _bytes: &[u8]) {}

    fn store(&self, _at: u64, _word: u64) {}

    fn load(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        into.fill(0);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(known) = self.bytes.get(at..) {
            let len = known.len().min(into.len());
            into[..len].copy_from_slice(&known[..len]);
        }
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        at.checked_add(len)
            .and_then(|end| self.bytes.get(at..end))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
