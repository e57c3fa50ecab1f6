//! Wiping of superseded records: the secrets (session keys) in their meta stay neither in the log's memory nor in its
//! sink.

use super::{Present, pieces};
use crate::Memory;
use crate::layout::{HEADER_LEN, Header, RING_AT};
use crate::superblock::Superblock;
use bytes::Bytes;

/// The number of bytes written at a time.
const PIECE: u64 = 64 << 10;
static ZEROES: [u8; PIECE as usize] = [0; PIECE as usize];

/// A medium writes whole pages, so bytes between two places in one page are wiped with them.
const PAGE: u64 = 4096;

/// Makes writes that zero this many bytes.
pub(crate) fn zeroes(at: u64, len: u64) -> impl Iterator<Item = (u64, Bytes)> {
    let zeroes = Bytes::from_static(&ZEROES);
    (0..len.div_ceil(PIECE)).map(move |piece| {
        let done = piece * PIECE;
        let len = PIECE.min(len - done);
        (at + done, zeroes.slice(..len as usize))
    })
}

/// Makes writes that zero the whole ring between two positions.
pub(super) fn all(superblock: &Superblock, from: u64, to: u64) -> Vec<(u64, Bytes)> {
    let pieces = pieces(superblock, from, to);
    pieces.flat_map(|(at, len)| zeroes(at, len)).collect()
}

/// The metas of the records between two positions that have been verified or appended, and not overwritten since.
pub(crate) struct Metas<'a> {
    pub memory: &'a dyn Memory,
    pub ring_len: u64,
    pub position: u64,
    pub to: u64,
}

/// The meta of a record.
pub(crate) struct Meta {
    /// Its place in the memory.
    pub at: u64,
    pub len: u64,
    /// The position after the record.
    pub end: u64,
}

impl Iterator for Metas<'_> {
    type Item = Meta;

    fn next(&mut self) -> Option<Meta> {
        let to_end = self.ring_len - self.position % self.ring_len;
        if to_end < HEADER_LEN as u64 {
            self.position += to_end;
        }
        if self.position >= self.to {
            return None;
        }
        let at = RING_AT + self.position % self.ring_len;
        let mut bytes = [0; HEADER_LEN];
        self.memory.read(at, &mut bytes);
        let Some((header, _)) = Header::from_bytes(&bytes) else {
            debug_assert!(false, "what the tail has passed was verified or appended");
            return None;
        };
        self.position += header.whole_len();
        Some(Meta {
            at: at + HEADER_LEN as u64,
            len: header.meta_len.into(),
            end: self.position,
        })
    }
}

/// Makes writes that zero the meta of the records between two positions, as far as `most` bytes allow. Returns the
/// position up to which they do.
pub(super) fn metas(log: &Present<'_>, from: u64, to: u64, most: u64) -> (Vec<(u64, Bytes)>, u64) {
    let records = Metas {
        memory: &**log.memory,
        ring_len: log.superblock.ring_len,
        position: from,
        to,
    };
    // Beginning and end of each place.
    let mut places: Vec<(u64, u64)> = Vec::new();
    let (mut wiped, mut bytes) = (to, 0);
    for Meta { at, len, end } in records {
        let is_near = |(_, before): &&mut (u64, u64)| (*before..*before + PAGE).contains(&at);
        if let Some((_, before)) = places.last_mut().filter(is_near) {
            bytes += at + len - *before;
            *before = at + len;
        } else {
            bytes += PAGE + len;
            places.push((at, at + len));
        }
        if bytes >= most && end < to {
            wiped = end;
            break;
        }
    }
    let places = places.into_iter();
    let writes = places.flat_map(|(at, end)| zeroes(at, end - at)).collect();
    (writes, wiped)
}
