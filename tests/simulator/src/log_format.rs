//! The log as `docs/log-format.md` draws it, read by code that is not the server's.

use bytes::Bytes;
use outlast_nvram::Memory;

/// Where the commit word is.
pub const HEAD_AT: u64 = 8192;
/// Where the tail word is.
pub const TAIL_AT: u64 = 8320;
/// Where the ring begins.
pub const RING_AT: u64 = 12_288;
const HEADER_LEN: u64 = 40;

/// A record.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its object.
    pub object: u64,
    /// 1 snapshot, 2 delta, 3 end.
    pub kind: u8,
    /// Meta.
    pub meta: Bytes,
    /// Data.
    pub data: Bytes,
}

/// The position a commit or tail word holds.
#[must_use]
pub fn position(word: u64) -> u64 {
    (word >> 8) * 8
}

/// A position as a word.
#[must_use]
pub fn word(position: u64) -> u64 {
    let units = position / 8;
    let check = units
        .to_le_bytes()
        .into_iter()
        .fold(0xa5, |check, byte| check ^ byte);
    units << 8 | u64::from(check)
}

/// Are these the bytes of a record's header, as they are written?
#[must_use]
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.len() as u64 == HEADER_LEN
}

/// The position a header says it is at.
#[must_use]
pub fn position_of(header: &[u8]) -> u64 {
    header[8..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The records from one position to another.
///
/// # Panics
/// What lies there is not a chain of records.
pub fn entries(memory: &dyn Memory, from: u64, to: u64, into: &mut Vec<Entry>) {
    let ring_len = (memory.len() - RING_AT) / 8 * 8;
    let mut at = from;
    while at < to {
        let place = at % ring_len;
        if ring_len - place < HEADER_LEN {
            at += ring_len - place;
            continue;
        }
        let mut header = [0; HEADER_LEN as usize];
        memory.read(RING_AT + place, &mut header);
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight"));
        assert_eq!(long(8), at, "a committed record does not know its place");
        let (meta_len, data_len) = (word(32) as usize, word(36) as usize);
        let whole = (HEADER_LEN + meta_len as u64 + data_len as u64).next_multiple_of(8);
        assert!(at + whole <= to, "a committed record is cut off");
        if header[28] != 0 {
            let mut bytes = vec![0; meta_len + data_len];
            memory.read(RING_AT + place + HEADER_LEN, &mut bytes);
            let mut meta = Bytes::from(bytes);
            let data = meta.split_off(meta_len);
            into.push(Entry {
                object: long(16),
                kind: header[28],
                meta,
                data,
            });
        }
        at += whole;
    }
}
