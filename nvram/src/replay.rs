//! Replay: reads a log from tail to head.

mod counting;

use crate::layout::{CHECKED_FROM, HEAD_AT, HEADER_LEN, Header, RING_AT, TAIL_AT, position_at};
use crate::superblock::Superblock;
use crate::{Error, Memory};
pub(crate) use counting::{Counted, Counting};

/// The result of a replay.
pub(crate) struct Replay {
    pub superblock: Superblock,
    /// The slot the superblock was read from.
    pub slot: usize,
    pub tail: u64,
    pub head: u64,
    /// Checksum of the last record: the next one's `previous`.
    pub previous: u32,
    /// Records between tail and head.
    pub walked: u64,
    /// The live records.
    pub records: Vec<Counted>,
}

/// The first checksum of the chain in a log with this superblock, before the first record.
pub(crate) fn first_previous(superblock: &Superblock) -> u32 {
    crc32c::crc32c(&superblock.instance)
}

/// Reads and verifies a log that no process writes to meanwhile.
pub(crate) fn replay(memory: &dyn Memory) -> Result<Replay, Error> {
    let (superblock, slot) = Superblock::read_own(memory)?;
    let tail = position_at(memory, TAIL_AT)?;
    let head = position_at(memory, HEAD_AT)?;
    if head
        .checked_sub(tail)
        .is_none_or(|used| used > superblock.ring_len)
    {
        return Err(Error::Damaged {
            position: head,
            what: "the commit word and the tail word do not belong together",
        });
    }
    let Walked {
        counting,
        records: walked,
        previous,
    } = walk(memory, &superblock, tail, head)?;
    let records = counting.live_records()?;
    Ok(Replay {
        superblock,
        slot,
        tail,
        head,
        previous,
        walked,
        records,
    })
}

/// The content of a position of the ring.
enum Place {
    /// So many bytes before the end of the ring: too few for a header. The next record lies beyond.
    End(u64),
    /// A record, and its checksum.
    Record(Header, u32),
}

/// Reads the header there; `None`: there is no record.
fn look(memory: &dyn Memory, superblock: &Superblock, position: u64) -> Option<Place> {
    let offset = position % superblock.ring_len;
    let to_end = superblock.ring_len - offset;
    if to_end < HEADER_LEN as u64 {
        return Some(Place::End(to_end));
    }
    let mut bytes = [0; HEADER_LEN];
    memory.read(RING_AT + offset, &mut bytes);
    let (header, checksum) = Header::from_bytes(&bytes)?;
    Some(Place::Record(header, checksum))
}

/// A log that was read from its tail to its head.
pub(crate) struct Walked {
    /// Its records, as far as they may be live.
    pub counting: Counting,
    /// The number of its records.
    pub records: u64,
    /// The last one's checksum.
    pub previous: u32,
}

/// Reads the records from `tail` to `head`, and verifies them as a chain.
pub(crate) fn walk(
    memory: &dyn Memory,
    superblock: &Superblock,
    tail: u64,
    head: u64,
) -> Result<Walked, Error> {
    let mut counting = Counting::default();
    let mut records = 0;
    let mut position = tail;
    let mut last: Option<(u32, u32)> = None;
    while position < head {
        let damaged = |what| Error::Damaged { position, what };
        let place = look(memory, superblock, position);
        let (header, checksum) = match place.ok_or_else(|| damaged("not a record"))? {
            Place::End(rest) => {
                position += rest;
                continue;
            }
            Place::Record(header, checksum) => (header, checksum),
        };
        let offset = position % superblock.ring_len;
        let to_end = superblock.ring_len - offset;
        let len = header.whole_len();
        if header.position != position {
            return Err(damaged("a record of another place"));
        }
        if len > to_end.min(head - position) || (header.kind.is_none() && len != to_end) {
            return Err(damaged("a record of impossible length"));
        }
        let (checked, data) = checked_parts(memory, RING_AT + offset, &header);
        if crc32c::crc32c(checked) != checksum || crc32c::crc32c(data) != header.data_checksum {
            return Err(damaged("wrong checksum"));
        }
        let (previous, epoch) = last.unwrap_or((header.previous, 1));
        if header.previous != previous {
            return Err(damaged("not the successor of the record before it"));
        }
        if !(epoch..=superblock.epoch).contains(&header.epoch) {
            return Err(damaged("a record of another epoch"));
        }
        last = Some((checksum, header.epoch));
        if let Some(kind) = header.kind {
            counting.push(kind, header, records);
            records += 1;
        }
        position += len;
    }
    if position != head {
        return Err(Error::Damaged {
            position: head,
            what: "the commit word is not at the end of a record",
        });
    }
    let previous = last.map_or_else(|| first_previous(superblock), |(checksum, _)| checksum);
    Ok(Walked {
        counting,
        records,
        previous,
    })
}

/// The bytes that the two checksums of the record at this address cover: its own, and that of its data.
fn checked_parts<'a>(memory: &'a dyn Memory, at: u64, header: &Header) -> (&'a [u8], &'a [u8]) {
    let own = HEADER_LEN - CHECKED_FROM + header.checked_meta_len();
    let len = own + header.checked_data_len();
    // SAFETY: nothing writes to this memory now (contract of `replay`).
    unsafe { memory.slice(at + CHECKED_FROM as u64, len) }.split_at(own)
}

/// The checksum of the record that ends at `position`, in a log that has been verified from `tail` to `head`; `None` if
/// none ends there.
pub(crate) fn chain_at(
    memory: &dyn Memory,
    superblock: &Superblock,
    (tail, head): (u64, u64),
    mut position: u64,
) -> Option<u32> {
    let mut at = tail;
    while at < head && at <= position {
        match look(memory, superblock, at)? {
            Place::End(rest) => {
                if at == position {
                    position += rest;
                }
                at += rest;
            }
            Place::Record(header, _) if at == position => return Some(header.previous),
            Place::Record(header, _) => at += header.whole_len(),
        }
    }
    None
}
