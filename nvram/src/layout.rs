//! Defines the layout of the memory and of a record's header (`docs/log-format.md`).

use crate::superblock::{u32_at, u64_at};
use crate::{Error, Kind, Memory};

/// The commit word: the end of what is committed. Each word is alone in its cache lines.
pub(crate) const HEAD_AT: u64 = 8192;
/// The tail word: the first position that may be read back.
pub(crate) const TAIL_AT: u64 = 8192 + 128;
/// The operation in progress, and the deaths that it has caused ([`crate::log::suspect`]).
pub(crate) const HANDLED_AT: u64 = 8192 + 256;
pub(crate) const DEATHS_AT: u64 = HANDLED_AT + 8;
/// The ring: from here to the end of the memory, in whole units of [`ALIGN`].
pub(crate) const RING_AT: u64 = 12288;
/// Every record begins at a multiple of this.
pub(crate) const ALIGN: u64 = 8;
/// The highest position that a word can hold.
pub(crate) const POSITION_MAX: u64 = (u64::MAX >> 8) * ALIGN;
/// Bytes of a record before its meta.
pub(crate) const HEADER_LEN: usize = 44;
/// The kind of a record that fills the ring up to its end.
const PADDING: u8 = 0;

/// The ring's length in a memory of `memory_len` bytes.
pub(crate) fn ring_len(memory_len: u64) -> u64 {
    memory_len.saturating_sub(RING_AT) / ALIGN * ALIGN
}

/// Encodes a position as a word: the position in units of [`ALIGN`], and a check byte that a change of any one byte
/// breaks.
pub(crate) fn word(position: u64) -> u64 {
    let units = position / ALIGN;
    units << 8 | u64::from(check(units))
}

/// The position in the word at `at`.
pub(crate) fn position_at(memory: &dyn Memory, at: u64) -> Result<u64, Error> {
    let word = memory.load(at);
    let units = word >> 8;
    let position = units.checked_mul(ALIGN);
    match position {
        Some(position) if word as u8 == check(units) => Ok(position),
        _ => Err(Error::WordDamaged {
            which: if at == HEAD_AT { "commit" } else { "tail" },
        }),
    }
}

fn check(units: u64) -> u8 {
    units
        .to_le_bytes()
        .into_iter()
        .fold(0xa5, |check, byte| check ^ byte)
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Checksum of the record before it, which makes the chain.
    pub previous: u32,
    /// Its position, which is also its sequence number.
    pub position: u64,
    pub object: u64,
    pub epoch: u32,
    /// `None`: padding, whose data are neither written nor read.
    pub kind: Option<Kind>,
    pub meta_len: u32,
    pub data_len: u32,
    /// Checksum of the data, which the record's own checksum does not cover.
    pub data_checksum: u32,
}

impl Header {
    /// Makes padding that ends `whole_len` bytes from its beginning.
    pub(crate) fn padding(previous: u32, position: u64, epoch: u32, whole_len: u64) -> Header {
        Header {
            previous,
            position,
            object: 0,
            epoch,
            kind: None,
            meta_len: 0,
            data_len: (whole_len - HEADER_LEN as u64) as u32,
            data_checksum: 0,
        }
    }

    /// Bytes from its beginning to that of the next record.
    pub(crate) fn whole_len(&self) -> u64 {
        whole_len(u64::from(self.meta_len) + u64::from(self.data_len))
    }

    /// Bytes of meta that the record's checksum covers.
    pub(crate) fn checked_meta_len(&self) -> usize {
        self.kind.map_or(0, |_| self.meta_len as usize)
    }

    /// Bytes of data that [`Header::data_checksum`] covers.
    pub(crate) fn checked_data_len(&self) -> usize {
        self.kind.map_or(0, |_| self.data_len as usize)
    }

    /// The bytes of a record with this meta, and its checksum, which they begin with.
    pub(crate) fn seal(&self, meta: &[u8]) -> ([u8; HEADER_LEN], u32) {
        let mut bytes = self.to_bytes();
        let checksum = checksum(&bytes, meta);
        bytes[..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Encodes the header, with room for the checksum at the beginning.
    fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[4..8].copy_from_slice(&self.previous.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.object.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[28] = self.kind.map_or(PADDING, |kind| kind as u8);
        bytes[32..36].copy_from_slice(&self.meta_len.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.data_len.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.data_checksum.to_le_bytes());
        bytes
    }

    /// Decodes a header and the checksum before it. `None`: no log has such a header.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Option<(Header, u32)> {
        let kind = match bytes[28] {
            PADDING => None,
            kind => Some(Kind::ALL.into_iter().find(|known| *known as u8 == kind)?),
        };
        if bytes[29..32] != [0; 3] {
            return None;
        }
        let header = Header {
            previous: u32_at(bytes, 4),
            position: u64_at(bytes, 8),
            object: u64_at(bytes, 16),
            epoch: u32_at(bytes, 24),
            kind,
            meta_len: u32_at(bytes, 32),
            data_len: u32_at(bytes, 36),
            data_checksum: u32_at(bytes, 40),
        };
        Some((header, u32_at(bytes, 0)))
    }
}

/// The first byte of a record that its checksum covers.
pub(crate) const CHECKED_FROM: usize = 4;

/// The checksum of a record: of its header, which has the checksum of its data, and of its meta.
pub(crate) fn checksum(header: &[u8; HEADER_LEN], meta: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[CHECKED_FROM..]), meta)
}

/// Bytes that a record with these lengths of meta and data takes.
pub(crate) fn whole_len(payload_len: u64) -> u64 {
    (HEADER_LEN as u64 + payload_len).next_multiple_of(ALIGN)
}
