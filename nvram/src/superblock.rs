//! Encodes the superblock: the identity of the log, and how its state must be recovered. Two slots hold it, written one
//! after the other.

use crate::layout::ring_len;
use crate::{Error, Memory};
use std::time::Duration;

/// The format version that this crate writes, and the only one whose state it recovers.
pub const VERSION: u32 = 4;

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"OUTLAST\n");
/// The places of the two slots, in pages of their own, so that damage to one page does not destroy both.
pub(crate) const SLOTS: [u64; 2] = [0, 4096];
/// Bytes of a slot.
pub(crate) const SLOT_LEN: usize = 128;
/// In every version of the format, magic, version and checksum are at these places of a slot.
const VERSION_AT: usize = 8;
/// Flag and sequence are at these places since version 1.
const FLAG_AT: usize = 12;
const SEQUENCE_AT: usize = 16;
const CHECKSUM_AT: usize = SLOT_LEN - 4;

/// Who recovers the state in the log. It is correct at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
//= patent claim-44
pub enum Flag {
    /// No server: a fresh start.
    Clean = 1,
    /// The same server, which died.
    NonElectiveReboot = 2,
    /// The same server, which ended after a drain: no redo.
    ElectiveReboot = 3,
    /// The holder of the lease.
    NonElectiveTakeover = 4,
    /// The partner, at once.
    ElectiveTakeover = 5,
}

impl Flag {
    const ALL: [Flag; 5] = [
        Flag::Clean,
        Flag::NonElectiveReboot,
        Flag::ElectiveReboot,
        Flag::NonElectiveTakeover,
        Flag::ElectiveTakeover,
    ];

    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Flag::Clean => "clean",
            Flag::NonElectiveReboot => "non-elective-reboot",
            Flag::ElectiveReboot => "elective-reboot",
            Flag::NonElectiveTakeover => "non-elective-takeover",
            Flag::ElectiveTakeover => "elective-takeover",
        }
    }
}

impl std::fmt::Display for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// One boot of one machine: stores to a mapping survive until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// The machine (`/etc/machine-id`); all zero if it has no identity.
    pub host: [u8; 16],
    /// The kernel's boot id.
    pub boot: [u8; 16],
}

/// The identity of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Drawn at random when the log is formatted.
    pub instance: [u8; 16],
    /// Host and boot at that time.
    pub incarnation: Incarnation,
}

/// The content of the superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Format version.
    pub version: u32,
    /// A random number drawn when the log was formatted.
    pub instance: [u8; 16],
    /// The host and the boot under which the current epoch began.
    pub incarnation: Incarnation,
    /// Raised by each recovery; 1 in a log just formatted.
    pub epoch: u32,
    /// Recoveries since the log was formatted.
    pub recoveries: u32,
    /// Who recovers the state.
    pub flag: Flag,
    /// The service time that may have been used at most.
    pub clock_anchor: Duration,
    /// The log is also in a sink, from which its state is recovered after a power cut.
    pub shipped: bool,
    /// Everything in the log was on its medium before this superblock was written: it survives the machine.
    pub persisted: bool,
    /// The epoch of a pair's arbiter under which the present epoch began; 0: under none.
    pub term: u64,
    /// Raised by each write of the superblock.
    pub(crate) sequence: u64,
    /// Length of the memory.
    pub(crate) memory_len: u64,
    /// Length of the ring.
    pub(crate) ring_len: u64,
}

impl Superblock {
    pub(crate) fn to_bytes(&self) -> [u8; SLOT_LEN] {
        let mut slot = [0; SLOT_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            slot[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&self.version.to_le_bytes());
        put(&(self.flag as u32).to_le_bytes());
        put(&self.sequence.to_le_bytes());
        put(&self.instance);
        put(&self.incarnation.boot);
        put(&self.epoch.to_le_bytes());
        put(&self.recoveries.to_le_bytes());
        put(&(self.clock_anchor.as_micros() as u64).to_le_bytes());
        put(&self.memory_len.to_le_bytes());
        put(&self.ring_len.to_le_bytes());
        put(&u32::from(self.shipped).to_le_bytes());
        put(&self.incarnation.host);
        put(&u32::from(self.persisted).to_le_bytes());
        put(&self.term.to_le_bytes());
        let checksum = crc32c::crc32c(&slot[..CHECKSUM_AT]);
        slot[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    /// Reads a slot whose magic and checksum are right. `None`: a value that was never written.
    fn from_bytes(slot: &[u8; SLOT_LEN]) -> Option<Superblock> {
        let flag = u32_at(slot, FLAG_AT);
        Some(Superblock {
            version: u32_at(slot, VERSION_AT),
            flag: Flag::ALL.into_iter().find(|known| *known as u32 == flag)?,
            sequence: u64_at(slot, SEQUENCE_AT),
            instance: array_at(slot, 24),
            incarnation: Incarnation {
                boot: array_at(slot, 40),
                host: array_at(slot, 92),
            },
            epoch: u32_at(slot, 56),
            recoveries: u32_at(slot, 60),
            clock_anchor: Duration::from_micros(u64_at(slot, 64)),
            memory_len: u64_at(slot, 72),
            ring_len: u64_at(slot, 80),
            shipped: bool_from(u32_at(slot, 88))?,
            persisted: bool_from(u32_at(slot, 108))?,
            term: u64_at(slot, 112),
        })
    }

    /// Reads the slot with the highest sequence of those that are whole, and returns its index too.
    pub(crate) fn read(memory: &dyn Memory) -> Result<(Superblock, usize), Error> {
        let (slot, index) = newest_slot(memory)?;
        let found = u32_at(&slot, VERSION_AT);
        if found < VERSION {
            return Err(Error::OlderVersion {
                found,
                known: VERSION,
                clean: u32_at(&slot, FLAG_AT) == Flag::Clean as u32,
            });
        }
        let superblock = Superblock::from_bytes(&slot).ok_or(Error::SuperblockDamaged)?;
        Ok((superblock, index))
    }

    /// Reads the superblock of a log that was made in this very memory. Its checksum is correct, but the fields that
    /// the log relies on are checked.
    pub(crate) fn read_own(memory: &dyn Memory) -> Result<(Superblock, usize), Error> {
        let (superblock, slot) = Superblock::read(memory)?;
        if superblock.memory_len != memory.len() {
            return Err(Error::LengthChanged {
                formatted: superblock.memory_len,
                found: memory.len(),
            });
        }
        if superblock.ring_len == 0 || superblock.ring_len != ring_len(memory.len()) {
            return Err(Error::SuperblockDamaged);
        }
        Ok((superblock, slot))
    }

    /// Writes both slots in turn, the one that does not hold the current superblock first: a whole one is there at
    /// every instant, and when this is done the damage of one slot loses nothing. A slot is blank while it is written:
    /// each of the two pages may reach the medium at any instant, so a power cut leaves slots that are whole or blank.
    pub(crate) fn write(&mut self, memory: &dyn Memory, present: usize) {
        self.sequence += 1;
        self.version = VERSION;
        let slot = self.to_bytes();
        for index in [1 - present, present] {
            memory.store(SLOTS[index], 0);
            memory.write(SLOTS[index] + 8, &slot[8..]);
            // It also orders the slot before the next one.
            memory.store(SLOTS[index], MAGIC);
        }
    }

    /// Makes the memory blank. A whole slot is erased last, when the other is erased on the medium too: otherwise a
    /// power cut could leave only a damaged one there.
    pub(crate) fn erase(memory: &dyn Memory) -> Result<(), Error> {
        let whole = newest_slot(memory).map_or(1, |(_, slot)| slot);
        for index in [1 - whole, whole] {
            memory.store(SLOTS[index], 0);
            memory.persist_range(SLOTS[index], SLOT_LEN)?;
        }
        Ok(())
    }
}

/// Returns the slot with the highest sequence of those that are whole, of any known version, and its index.
fn newest_slot(memory: &dyn Memory) -> Result<([u8; SLOT_LEN], usize), Error> {
    let mut best: Option<([u8; SLOT_LEN], usize)> = None;
    let mut ours = false;
    let mut nothing = true;
    for (index, at) in SLOTS.into_iter().enumerate() {
        let mut slot = [0; SLOT_LEN];
        memory.read(at, &mut slot);
        nothing &= u64_at(&slot, 0) == 0;
        if u64_at(&slot, 0) != MAGIC {
            continue;
        }
        ours = true;
        if crc32c::crc32c(&slot[..CHECKSUM_AT]) != u32_at(&slot, CHECKSUM_AT) {
            continue;
        }
        let found = u32_at(&slot, VERSION_AT);
        if !(1..=VERSION).contains(&found) {
            return Err(Error::UnknownVersion {
                found,
                known: VERSION,
            });
        }
        let sequence = |slot: &[u8; SLOT_LEN]| u64_at(slot, SEQUENCE_AT);
        let is_newer = |(other, _): &([u8; SLOT_LEN], usize)| sequence(other) < sequence(&slot);
        let can_be = found < VERSION || Superblock::from_bytes(&slot).is_some();
        if can_be && best.as_ref().is_none_or(is_newer) {
            best = Some((slot, index));
        }
    }
    match best {
        Some(best) => Ok(best),
        None if ours => Err(Error::SuperblockDamaged),
        None if nothing => Err(Error::Blank),
        None => Err(Error::NotALog),
    }
}

fn bool_from(word: u32) -> Option<bool> {
    match word {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Returns the bytes at a place that a fixed layout certainly has.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests;
