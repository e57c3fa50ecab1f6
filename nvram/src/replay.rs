//! Reading a log back: the walk from tail to head, and which records count.

use crate::layout::{
    CHECKED_FROM, HEAD_AT, HEADER_LEN, Header, RING_AT, TAIL_AT, position_at, ring_len,
};
use crate::superblock::Superblock;
use crate::{Error, Kind, Memory};
use std::collections::HashMap;

/// All that a log says about itself.
pub(crate) struct Replay {
    pub superblock: Superblock,
    /// The slot the superblock was read from.
    pub slot: usize,
    pub tail: u64,
    pub head: u64,
    /// Checksum of the last record: the next one's `previous`.
    pub previous: u32,
    /// The headers of the records that count.
    pub records: Vec<Header>,
}

/// The chain's beginning in a log with this superblock, before the first record.
pub(crate) fn first_previous(superblock: &Superblock) -> u32 {
    crc32c::crc32c(&superblock.instance)
}

/// Reads and verifies a log that nobody writes to meanwhile.
pub(crate) fn replay(memory: &dyn Memory) -> Result<Replay, Error> {
    let (superblock, slot) = Superblock::read(memory)?;
    if superblock.memory_len != memory.len() {
        return Err(Error::LengthChanged {
            formatted: superblock.memory_len,
            found: memory.len(),
        });
    }
    // The superblock's checksum is right; but what is relied upon is checked.
    if superblock.ring_len == 0 || superblock.ring_len != ring_len(memory.len()) {
        return Err(Error::SuperblockDamaged);
    }
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
    let (headers, previous) = walk(memory, &superblock, tail, head)?;
    let records = those_that_count(headers)?;
    Ok(Replay {
        superblock,
        slot,
        tail,
        head,
        previous,
        records,
    })
}

/// What lies at a position of the ring.
enum Place {
    /// So many bytes before the ring's end: too few for a header. The next record lies beyond.
    End(u64),
    /// A record, and its checksum.
    Record(Header, u32),
}

/// Looks there; `None`: that is no record.
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

/// The headers from `tail` to `head`, verified as a chain, and the last one's checksum.
pub(crate) fn walk(
    memory: &dyn Memory,
    superblock: &Superblock,
    tail: u64,
    head: u64,
) -> Result<(Vec<Header>, u32), Error> {
    let mut headers = Vec::new();
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
        // SAFETY: nobody writes to this memory now (contract of `replay`).
        let checked =
            unsafe { memory.slice(RING_AT + offset + CHECKED_FROM as u64, header.checked_len()) };
        if crc32c::crc32c(checked) != checksum {
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
        if header.kind.is_some() {
            headers.push(header);
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
    Ok((headers, previous))
}

/// The checksum of the record that ends at `position`, in a log that has been verified from `tail` to `head`; `None` if none ends there.
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

/// An object's state is its last snapshot and the deltas after it, or nothing if it has ended.
pub(crate) fn those_that_count(mut headers: Vec<Header>) -> Result<Vec<Header>, Error> {
    let mut last: HashMap<u64, (Kind, u64)> = HashMap::new();
    for header in &headers {
        if let Some(kind @ (Kind::Snapshot | Kind::End)) = header.kind {
            last.insert(header.object, (kind, header.position));
        }
    }
    let mut orphan = None;
    headers.retain(|header| match last.get(&header.object) {
        Some((Kind::Snapshot, position)) => header.position >= *position,
        Some((_, end)) if header.position <= *end => false,
        // No snapshot before it: the tail never passes one that is needed.
        _ => {
            orphan.get_or_insert(header.position);
            false
        }
    });
    match orphan {
        Some(position) => Err(Error::Damaged {
            position,
            what: "a change to an object that has no snapshot",
        }),
        None => Ok(headers),
    }
}
