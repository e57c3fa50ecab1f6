//! Reads the log as `docs/log-format.md` describes it, by code that is not the server's.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlast_nvram::Memory;

/// The address of the commit word.
pub const HEAD_AT: u64 = 8192;
/// The addresses of the server's hints: its present activity, and the number of its deaths.
pub const HINTS_AT: [u64; 2] = [8448, 8456];
/// The address of the tail word.
pub const TAIL_AT: u64 = 8320;
/// The address of the ring.
pub const RING_AT: u64 = 12_288;
const HEADER_LEN: u64 = 44;
/// The addresses of a sink's marks.
const MARKS_AT: [u64; 2] = [8704, 9216];
const MARK_LEN: usize = 64;

/// A mark: the extent of the records in a sink.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The position of the first record that counts.
    pub tail: u64,
    /// The end of the last commit.
    pub head: u64,
}

impl Mark {
    /// Returns the mark that is written to a sink, if these bytes are one.
    #[must_use]
    pub fn written(at: u64, bytes: &[u8]) -> Option<Mark> {
        let is_mark = MARKS_AT.contains(&at) && bytes.len() == MARK_LEN;
        is_mark.then(|| Mark {
            tail: long(bytes, 32),
            head: long(bytes, 40),
        })
    }
}

/// A record.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its object.
    pub object: u64,
    /// 1 snapshot, 2 delta, 3 end; 4 beginning, 5 part and 6 completion of a snapshot of several records.
    pub kind: u8,
    /// The meta data.
    pub meta: Bytes,
    /// The data.
    pub data: Bytes,
}

/// Returns the length of the ring in bytes.
#[must_use]
pub fn ring_len(memory: &dyn Memory) -> u64 {
    (memory.len() - RING_AT) / 8 * 8
}

/// Returns the position in a commit or tail word.
#[must_use]
pub fn position(word: u64) -> u64 {
    (word >> 8) * 8
}

/// Returns the word of a position.
#[must_use]
pub fn word(position: u64) -> u64 {
    let units = position / 8;
    let check = units
        .to_le_bytes()
        .into_iter()
        .fold(0xa5, |check, byte| check ^ byte);
    units << 8 | u64::from(check)
}

/// Returns whether these bytes are written as the header of a record.
#[must_use]
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.len() as u64 == HEADER_LEN
}

/// Returns the position that a header contains.
#[must_use]
pub fn position_of(header: &[u8]) -> u64 {
    header[8..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"))
}

fn short(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"))
}

/// Keeps those records from the tail on that count: of each object the last complete snapshot and the deltas after its
/// beginning, if the object has not ended. For a follower it also keeps the parts of a snapshot that is not complete
/// yet.
#[must_use]
pub fn relevant(entries: Vec<Entry>) -> Vec<Entry> {
    // Of each object: the beginning and completion of its last complete snapshot; and the beginning of one that may be
    // incomplete.
    let mut whole: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let mut begun = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        match entry.kind {
            1 => {
                begun.remove(&entry.object);
                whole.insert(entry.object, (index, index));
            }
            3 => {
                begun.remove(&entry.object);
                whole.remove(&entry.object);
            }
            4 => drop(begun.insert(entry.object, index)),
            6 => {
                if let Some(begin) = begun.remove(&entry.object) {
                    whole.insert(entry.object, (begin, index));
                }
            }
            _ => {}
        }
    }
    let counts = |(index, entry): &(usize, Entry)| {
        let Some((begin, complete)) = whole.get(&entry.object) else {
            return false;
        };
        let continues = begun.get(&entry.object).is_some_and(|begun| begun <= index);
        match entry.kind {
            4 => index == begin || continues,
            5 | 6 => (begin..=complete).contains(&index) || continues,
            _ => begin <= index,
        }
    };
    let entries = entries.into_iter().enumerate().filter(counts);
    entries.map(|(_, entry)| entry).collect()
}

/// Corrects the wrong checksums in a sink, from the newest mark's tail on. A server that finds it behaves as one that
/// does not verify checksums. Where a record is not at its place, the log ends for such a server.
pub fn correct_checksums(sink: &dyn Memory) {
    let mut marks = MARKS_AT.map(|at| {
        let mut bytes = [0; MARK_LEN];
        sink.read(at, &mut bytes);
        (long(&bytes, 8), at, bytes)
    });
    marks.sort_by_key(|(sequence, ..)| *sequence);
    let (_, at, mut mark) = marks[1];
    let ring_len = ring_len(sink);
    let (mut position, head) = (long(&mark, 32), long(&mark, 40));
    let mut previous = None;
    while position < head {
        let place = position % ring_len;
        if ring_len - place < HEADER_LEN {
            position += ring_len - place;
            continue;
        }
        let mut header = [0; HEADER_LEN as usize];
        sink.read(RING_AT + place, &mut header);
        let meta_end = HEADER_LEN + u64::from(short(&header, 32));
        let len = meta_end - HEADER_LEN + u64::from(short(&header, 36));
        if long(&header, 8) != position || HEADER_LEN + len > ring_len - place {
            break;
        }
        // The data of a padding are not written.
        let summed = if header[28] == 0 { 0 } else { len };
        let mut record = vec![0; (HEADER_LEN + summed) as usize];
        sink.read(RING_AT + place, &mut record);
        if let Some(previous) = previous {
            record[4..8].copy_from_slice(&u32::to_le_bytes(previous));
        }
        let own_end = if header[28] == 0 {
            HEADER_LEN
        } else {
            meta_end
        } as usize;
        let data_checksum = crc32c::crc32c(&record[own_end..]);
        record[40..44].copy_from_slice(&data_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&record[4..own_end]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
        sink.write(RING_AT + place, &record[..HEADER_LEN as usize]);
        previous = Some(checksum);
        position += (HEADER_LEN + len).next_multiple_of(8);
    }
    let Some(chain) = previous else { return };
    mark[40..48].copy_from_slice(&position.min(head).to_le_bytes());
    mark[48..52].copy_from_slice(&chain.to_le_bytes());
    let checksum = crc32c::crc32c(&mark[..MARK_LEN - 4]);
    mark[MARK_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
    sink.write(at, &mark);
}

/// Copies the records from a position up to `head`, alters their meta data, and corrects their checksums. `done`: the
/// position, and the checksum of the record before it, if that was copied.
///
/// # Panics
/// The ring does not contain a chain of records there.
pub fn copy_altered(
    from: &dyn Memory,
    to: &dyn Memory,
    done: &mut (u64, Option<u32>),
    head: u64,
    alter: impl Fn(&mut [u8]),
) {
    let ring_len = ring_len(from);
    let (position, previous) = done;
    while *position < head {
        let place = *position % ring_len;
        if ring_len - place < HEADER_LEN {
            *position += ring_len - place;
            continue;
        }
        let mut header = [0; HEADER_LEN as usize];
        from.read(RING_AT + place, &mut header);
        let own = long(&header, 8);
        assert_eq!(own, *position, "a committed record has a wrong position");
        let meta_end = HEADER_LEN + u64::from(short(&header, 32));
        let len = meta_end + u64::from(short(&header, 36));
        // The data of a padding do not count.
        let is_padding = header[28] == 0;
        let mut record = vec![0; if is_padding { HEADER_LEN } else { len } as usize];
        from.read(RING_AT + place, &mut record);
        if let Some(previous) = previous {
            record[4..8].copy_from_slice(&previous.to_le_bytes());
        }
        if !is_padding {
            alter(&mut record[HEADER_LEN as usize..meta_end as usize]);
        }
        let own_end = if is_padding { HEADER_LEN } else { meta_end };
        let checksum = crc32c::crc32c(&record[4..own_end as usize]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
        to.write(RING_AT + place, &record);
        *previous = Some(checksum);
        *position += len.next_multiple_of(8);
    }
}

/// Reads the records from one position to another.
///
/// # Panics
/// The ring does not contain a chain of records there.
pub fn entries(memory: &dyn Memory, from: u64, to: u64, into: &mut Vec<Entry>) {
    let ring_len = ring_len(memory);
    let mut at = from;
    while at < to {
        let place = at % ring_len;
        if ring_len - place < HEADER_LEN {
            at += ring_len - place;
            continue;
        }
        let mut header = [0; HEADER_LEN as usize];
        memory.read(RING_AT + place, &mut header);
        let own = long(&header, 8);
        assert_eq!(own, at, "a committed record has a wrong position");
        let (meta_len, data_len) = (short(&header, 32) as usize, short(&header, 36) as usize);
        let whole = (HEADER_LEN + meta_len as u64 + data_len as u64).next_multiple_of(8);
        assert!(at + whole <= to, "a committed record is cut off");
        if header[28] != 0 {
            let mut bytes = vec![0; meta_len + data_len];
            memory.read(RING_AT + place + HEADER_LEN, &mut bytes);
            let mut meta = Bytes::from(bytes);
            let data = meta.split_off(meta_len);
            into.push(Entry {
                object: long(&header, 16),
                kind: header[28],
                meta,
                data,
            });
        }
        at += whole;
    }
}
