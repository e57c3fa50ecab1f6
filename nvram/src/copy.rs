//! A copy of a partner's log in this machine's memory (durability `mirror`): it is written as the partner's batches
//! say, and is a log at every instant. Its words move when a batch is whole, and only then, so that a worker can follow
//! it and take it over as it does with a log of its own.
//!
//! A batch overwrites nothing that the last whole one needs ([`crate::sink`]), and its mark comes last. So a copy whose
//! batch was cut off, by the end of either process or of the link, is the log as of the batch before.
//!
//! Stores survive the process and not the machine. The *receipt* says in which boot of which machine the copy was
//! received; one of another boot is not known to be whole, and counts no more.

use crate::layout::{ALIGN, HEAD_AT, POSITION_MAX, RING_AT, TAIL_AT, position_at, word};
use crate::log::{Lsn, suspect};
use crate::replay::replay;
use crate::sink::wiping::zeroes;
use crate::sink::{MARK_LEN, MARKS, Mark, marks};
use crate::superblock::{SLOT_LEN, SLOTS, Superblock, array_at, u32_at, u64_at};
use crate::{Error, Flag, Incarnation, Memory};
use std::sync::Arc;

/// The receipt: a sector of its own.
const RECEIPT_AT: u64 = 9728;
const RECEIPT_LEN: usize = 44;
const RECEIPT_MAGIC: u64 = u64::from_le_bytes(*b"OUTLRCPT");
const RECEIPT_CHECKSUM_AT: usize = RECEIPT_LEN - 4;

/// Bytes from the beginning of the memory that say what a copy holds: superblocks and marks.
pub const BEGINNING_LEN: usize = RECEIPT_AT as usize;

/// What a memory holds, as far as its superblock says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its superblock.
    pub superblock: Superblock,
    /// It is a copy, received in this boot of this machine; `None`: it is the log of a server of this machine.
    pub received_in: Option<Incarnation>,
}

impl Standing {
    /// What the memory holds; `None`: nothing. A server may be writing to it meanwhile.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// Is it the newest state of its term, as far as this machine, in this boot, can know? Stores survive the process,
    /// and the machine only if all was brought onto the medium.
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

/// The log in this memory is this server's own from now on: its epoch has begun. What it was received by is gone, so
/// nothing takes it for a copy.
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

/// A copy under reception. Nobody else writes to its memory.
pub struct Copy {
    memory: Arc<dyn Memory>,
    incarnation: Incarnation,
}

impl Copy {
    /// Takes up the copy that the memory holds, if it was received in this boot; or a log that its server has left to
    /// the partner, which has begun with the same. Else it is begun anew.
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

    /// A log whose server has handed its state over is what the partner has begun with.
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

    /// Makes the memory blank, to take a copy from its beginning. What was in it is wiped: it held secrets.
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

    /// What the partner needs to know to go on where this copy is: [`BEGINNING_LEN`] bytes.
    #[must_use]
    pub fn beginning(&self) -> Vec<u8> {
        let mut bytes = vec![0; BEGINNING_LEN];
        self.memory.read(0, &mut bytes);
        bytes
    }

    /// Takes a part of a batch.
    ///
    /// # Errors
    /// No batch writes there.
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

    /// A batch is whole: the words follow its mark. Gives the copy's head.
    ///
    /// # Errors
    /// What it has made is no log: the copy counts no more.
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

    /// The superblock, when it has come.
    #[must_use]
    pub fn superblock(&self) -> Option<Superblock> {
        let (superblock, _) = Superblock::read_own(&*self.memory).ok()?;
        Some(superblock)
    }
}

fn damaged(position: u64, what: &'static str) -> Error {
    Error::Damaged { position, what }
}

/// What a partner has said its copy holds: its beginning, in a memory of its length.
pub struct Beginning {
    len: u64,
    bytes: Vec<u8>,
}

impl Beginning {
    /// Of so many bytes of memory. `bytes`: what [`Copy::beginning`] has given, or nothing.
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
