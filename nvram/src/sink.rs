//! Keeps a copy of the log on a medium that survives the machine: what to write there, in which order, and how to read
//! it back (`docs/log-format.md`). No I/O: a [`Batch`] says which bytes go where; the caller says when they are on the
//! medium.
//!
//! One batch is under way at a time, and its writes may reach the medium in any order, torn at 512 bytes. So nothing in
//! it is used before it is whole, and it overwrites nothing that the last whole batch needs.
//! counted on before it is whole, and it overwrites nothing that the last whole one needs.

pub(crate) mod wiping;

use crate::layout::{ALIGN, HEAD_AT, POSITION_MAX, RING_AT, TAIL_AT, word};
use crate::log::{Home, suspect};
use crate::replay::{Walked, chain_at, walk};
use crate::superblock::{SLOT_LEN, SLOTS, Superblock, array_at, u32_at, u64_at};
use crate::{Error, Memory, VecMemory};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// Where the two mark slots begin: sectors of their own.
pub(crate) const MARKS: [u64; 2] = [8704, 9216];
pub(crate) const MARK_LEN: usize = 64;
const MARK_MAGIC: u64 = u64::from_le_bytes(*b"OUTLMARK");
const MARK_CHECKSUM_AT: usize = MARK_LEN - 4;

/// Bytes wiped with a batch, at most, unless the batch itself is longer.
const WIPED_AT_A_TIME: u64 = 1 << 20;

/// A mark: the log from `tail` to `head` is in the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub sequence: u64,
    pub instance: [u8; 16],
    pub tail: u64,
    pub head: u64,
    /// Checksum of the last record before `head`.
    pub chain: u32,
    /// What was given up before this has been wiped.
    pub wiped: u64,
}

impl Mark {
    pub(crate) fn to_bytes(self) -> [u8; MARK_LEN] {
        let mut bytes = [0; MARK_LEN];
        bytes[..8].copy_from_slice(&MARK_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.instance);
        bytes[32..40].copy_from_slice(&self.tail.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.head.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.chain.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.wiped.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..MARK_CHECKSUM_AT]);
        bytes[MARK_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn commit(&self) -> Commit {
        Commit {
            tail: self.tail,
            head: self.head,
            chain: self.chain,
        }
    }

    fn from_bytes(bytes: &[u8; MARK_LEN]) -> Option<Mark> {
        let checksum = crc32c::crc32c(&bytes[..MARK_CHECKSUM_AT]);
        (u64_at(bytes, 0) == MARK_MAGIC && checksum == u32_at(bytes, MARK_CHECKSUM_AT)).then(|| {
            Mark {
                sequence: u64_at(bytes, 8),
                instance: array_at(bytes, 16),
                tail: u64_at(bytes, 32),
                head: u64_at(bytes, 40),
                chain: u32_at(bytes, 48),
                wiped: u64_at(bytes, 52),
            }
        })
    }
}

/// The marks that are whole, the newest first, each with its slot.
pub(crate) fn marks(sink: &dyn Memory) -> Vec<(Mark, usize)> {
    let mut found: Vec<(Mark, usize)> = MARKS
        .into_iter()
        .enumerate()
        .filter_map(|(slot, at)| {
            let mut bytes = [0; MARK_LEN];
            sink.read(at, &mut bytes);
            Some((Mark::from_bytes(&bytes)?, slot))
        })
        .collect();
    found.sort_by_key(|(mark, _)| std::cmp::Reverse(mark.sequence));
    found
}

/// Returns whether this memory is a sink's, not a log's. A sink has marks and no commit word.
pub(crate) fn is_sink(memory: &dyn Memory) -> bool {
    memory.load(HEAD_AT) == 0 && MARKS.into_iter().any(|at| memory.load(at) == MARK_MAGIC)
}

/// A number that changes with every batch of records.
pub(crate) fn sequence(memory: &dyn Memory) -> Option<u64> {
    marks(memory).first().map(|(mark, _)| mark.sequence)
}

/// The superblock in a sink.
///
/// # Errors
/// [`Error::Blank`]: nothing was ever shipped to it whole; otherwise the sink is damaged.
pub fn superblock(sink: &dyn Memory) -> Result<Superblock, Error> {
    let (superblock, _) = Superblock::read_own(sink)?;
    Ok(superblock)
}

/// Makes of `into` the log that a sink holds, as [`crate::Log::open`] reads it. Until it is whole, `into` is blank; the
/// sink is left unchanged. Nothing may write to either meanwhile.
///
/// # Errors
/// [`Error::Blank`], or the sink is damaged: then `into` is left unchanged, too.
pub fn restore(sink: &dyn Memory, into: &dyn Memory) -> Result<(), Error> {
    let mut superblock = superblock(sink)?;
    if into.len() != sink.len() {
        return Err(Error::LengthChanged {
            formatted: sink.len(),
            found: into.len(),
        });
    }
    let mark = newest_whole(sink, &superblock)?;
    Superblock::erase(into)?;
    for (at, len) in pieces(&superblock, mark.tail, mark.head) {
        copy(sink, into, at, len);
    }
    suspect::clear(into);
    into.store(TAIL_AT, word(mark.tail));
    into.store(HEAD_AT, word(mark.head));
    superblock.write(into, 1);
    Ok(())
}

/// Makes a private log of a sink to which another process may be writing.
pub(crate) fn private_copy(sink: &dyn Memory) -> Result<VecMemory, Error> {
    let image = VecMemory::new(sink.len() as usize);
    image.copy_range(sink, 0, RING_AT);
    let superblock = superblock(&image)?;
    for (mark, _) in marks(&image) {
        for (at, len) in pieces(&superblock, mark.tail, mark.head) {
            image.copy_range(sink, at, len);
        }
    }
    let log = VecMemory::new(sink.len() as usize);
    restore(&image, &log)?;
    Ok(log)
}

/// Returns the newest mark whose log verifies from tail to head. The mark before it was whole on the medium before the
/// newest was begun.
fn newest_whole(sink: &dyn Memory, superblock: &Superblock) -> Result<Mark, Error> {
    let mut problem = Error::Damaged {
        position: 0,
        what: "the sink has no whole mark",
    };
    for (mark, _) in marks(sink) {
        match verify(sink, superblock, &mark) {
            Ok(()) => return Ok(mark),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn verify(sink: &dyn Memory, superblock: &Superblock, mark: &Mark) -> Result<(), Error> {
    let damaged = |what| Error::Damaged {
        position: mark.head,
        what,
    };
    if mark.instance != superblock.instance {
        return Err(damaged("a mark of another log"));
    }
    let used = mark.head.checked_sub(mark.tail);
    let aligned = (mark.head | mark.tail).is_multiple_of(ALIGN) && mark.head <= POSITION_MAX;
    if !aligned || mark.wiped > mark.tail || used.is_none_or(|used| used > superblock.ring_len) {
        return Err(damaged("a mark whose head and tail do not belong together"));
    }
    let Walked {
        counting, previous, ..
    } = walk(sink, superblock, mark.tail, mark.head)?;
    if mark.tail != mark.head && previous != mark.chain {
        return Err(damaged("the log does not end as its mark says"));
    }
    counting.live_records().map(drop)
}

/// The places in the memory that hold the ring from `from` to `to`, as (offset, length).
fn pieces(superblock: &Superblock, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
    let ring_len = superblock.ring_len;
    let len = to.saturating_sub(from).min(ring_len);
    let offset = from % ring_len;
    let first = len.min(ring_len - offset);
    [(RING_AT + offset, first), (RING_AT, len - first)]
        .into_iter()
        .filter(|(_, len)| *len > 0)
}

fn copy(from: &dyn Memory, into: &dyn Memory, at: u64, len: u64) {
    let mut piece = vec![0; len.min(256 << 10) as usize];
    let mut done = 0;
    while done < len {
        let part = &mut piece[..(len - done).min(256 << 10) as usize];
        from.read(at + done, part);
        into.write(at + done, part);
        done += part.len() as u64;
    }
}

/// Writes that have to reach the medium, in any order, before the next batch is requested.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Each with its offset in the sink.
    pub writes: Vec<(u64, Bytes)>,
}

impl Batch {
    /// Length of all writes in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.writes
            .iter()
            .map(|(_, bytes)| bytes.len() as u64)
            .sum()
    }

    /// Returns whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A part of the memory that is not written as long as this is held: the tail does not pass it.
pub(crate) struct Window {
    pub memory: Arc<dyn Memory>,
    pub at: u64,
    pub len: usize,
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `Shipper::hold` or `Log::keep` keeps the tail, and with it every writer, away.
        unsafe { self.memory.slice(self.at, self.len) }
    }
}

/// What the batch under way writes.
enum UnderWay {
    Erasure,
    /// Superseded records before this position are wiped.
    Wiping(u64),
    Records {
        mark: Mark,
        wiped: u64,
    },
    Superblock,
}

impl Present<'_> {
    /// Returns whether this mark describes the log's own past, and is still in its ring. The mark of a batch that was
    /// cut off does not, nor one of another copy of the log.
    fn is_own_past(&self, mark: &Mark) -> bool {
        mark.instance == self.superblock.instance
            && mark.tail >= self.tail
            && if mark.head == self.commit.head {
                mark.chain == self.commit.chain
            } else {
                let bounds = (self.tail, self.commit.head);
                chain_at(&**self.memory, self.superblock, bounds, mark.head) == Some(mark.chain)
            }
    }
}

/// The state of the sink, and what to ship next.
pub(crate) struct Shipper {
    home: Home,
    /// The mark that is on the medium, with all it speaks of.
    mark: Mark,
    mark_slot: usize,
    /// There is no such mark yet.
    unmarked: bool,
    /// There is no superblock of this log yet, so nothing would be found.
    unnamed: bool,
    /// The highest sequence of a mark that was ever begun.
    sequence: u64,
    /// The superblock slot that was written last.
    slot: usize,
    /// The sink's superblocks belong to another log, or to one that has diverged.
    erase: bool,
    /// Superseded records before this position have been wiped.
    wiped: u64,
    /// Records between these positions, superseded by another server, may not have been wiped.
    unwiped: Option<(u64, u64)>,
    /// Superblocks to ship, each after the records of its commit and before all others.
    superblocks: VecDeque<(Commit, Superblock)>,
    under_way: Option<UnderWay>,
}

/// Makes a batch that makes a sink blank, so that its log is not recovered any more.
#[must_use]
pub fn erasure() -> Batch {
    let blank = Bytes::from_static(&[0; SLOT_LEN]);
    Batch {
        writes: SLOTS.map(|at| (at, blank.clone())).to_vec(),
    }
}

/// What a mark says of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Commit {
    /// Records before this position are superseded.
    pub tail: u64,
    pub head: u64,
    /// Checksum of the last record.
    pub chain: u32,
}

/// The current state of the log.
pub(crate) struct Present<'a> {
    pub memory: &'a Arc<dyn Memory>,
    pub superblock: &'a Superblock,
    /// The tail word.
    pub tail: u64,
    /// The last commit.
    pub commit: Commit,
}

impl Shipper {
    /// Continues a sink that has the log's own past, or starts it afresh. Nothing writes to it meanwhile, and
    /// everything written to it before is on the medium.
    ///
    /// # Errors
    /// It holds what must not be overwritten, or is damaged.
    pub(crate) fn attach(
        home: Home,
        sink: &dyn Memory,
        log: &Present<'_>,
    ) -> Result<Shipper, Error> {
        if sink.len() != log.superblock.memory_len {
            return Err(Error::LengthChanged {
                formatted: log.superblock.memory_len,
                found: sink.len(),
            });
        }
        let (known, erase) = match Superblock::read(sink) {
            Ok(known) => (Some(known), true),
            Err(Error::Blank) => (None, false),
            // It holds no server's state.
            Err(Error::OlderVersion { clean: true, .. }) => (None, true),
            Err(error) => return Err(error),
        };
        let mut shipper = Shipper {
            home,
            mark: Mark {
                sequence: 0,
                instance: log.superblock.instance,
                tail: log.tail,
                head: log.tail,
                chain: 0,
                wiped: log.tail,
            },
            mark_slot: 1,
            unmarked: true,
            unnamed: true,
            sequence: 0,
            slot: 1,
            erase,
            wiped: log.tail,
            unwiped: None,
            superblocks: VecDeque::new(),
            under_way: None,
        };
        let marks = marks(sink);
        shipper.sequence = marks.first().map_or(0, |(mark, _)| mark.sequence);
        let mut after = log.commit;
        let ring_len = log.superblock.ring_len;
        if let Some((superblock, slot)) = known {
            if superblock.instance != log.superblock.instance {
                if superblock.flag != crate::Flag::Clean {
                    return Err(Error::AnotherLog);
                }
            } else if let Some((mark, mark_slot)) =
                marks.iter().find(|(mark, _)| log.is_own_past(mark))
            {
                shipper.mark = *mark;
                shipper.mark_slot = *mark_slot;
                shipper.unmarked = false;
                shipper.unnamed = false;
                shipper.slot = slot;
                shipper.erase = false;
                // The log has passed records before the mark's tail that the mark does not know to be wiped, and the
                // power may have been cut in between.
                let from = mark.wiped.max(mark.head.saturating_sub(ring_len));
                shipper.unwiped = (from < log.tail).then_some((from, log.tail));
                after = mark.commit();
            } else if superblock.epoch > log.superblock.epoch
                || marks.iter().any(|(mark, _)| mark.head > log.commit.head)
                // Only the arbiter determines whether the content is current, so the partner that has it begins a new
                // copy.
                || home == Home::Partner
            {
                return Err(Error::SinkAhead);
            } else {
                // The log overwrote the whole ring without this sink.
                let from = log.commit.head.saturating_sub(ring_len);
                shipper.unwiped = (from < log.tail).then_some((from, log.tail));
            }
        }
        shipper
            .superblocks
            .push_back((after, log.superblock.clone()));
        Ok(shipper)
    }

    /// The position that the tail must not pass: the records that the mark on the medium needs are not overwritten
    /// there before the next mark is whole, and the log is at most one ring long. Nor does the tail pass records that
    /// have not been wiped in the sink, since their places are read from the log.
    pub(crate) fn hold(&self) -> u64 {
        self.wiped
    }

    /// The position up to which the log would be recovered.
    pub(crate) fn durable(&self) -> u64 {
        match self.superblocks.front() {
            _ if self.unnamed => 0,
            Some((after, _)) => self.mark.head.min(after.head.saturating_sub(1)),
            None => self.mark.head,
        }
    }

    /// Returns whether the log would be recovered from the sink.
    pub(crate) fn is_recoverable(&self) -> bool {
        self.superblocks.is_empty() && !self.unmarked && !self.erase
    }

    /// Returns whether there is nothing left to ship.
    pub(crate) fn is_idle(&self, committed: u64) -> bool {
        self.under_way.is_none()
            && self.superblocks.is_empty()
            && self.mark.head == committed
            && self.mark.tail == self.wiped
            && self.unwiped.is_none()
    }

    pub(crate) fn superblock_changed(&mut self, log: &Present<'_>) {
        // One that was to be shipped at this position is replaced, if its shipping has not begun.
        let begun = usize::from(matches!(self.under_way, Some(UnderWay::Superblock)));
        let last = self.superblocks.back().map(|(after, _)| *after);
        if self.superblocks.len() > begun && last == Some(log.commit) {
            self.superblocks.pop_back();
        }
        self.superblocks
            .push_back((log.commit, log.superblock.clone()));
    }

    /// The next batch; `None` while one is under way, and when there is nothing to ship.
    pub(crate) fn next(&mut self, log: &Present<'_>) -> Option<Batch> {
        if self.under_way.is_some() {
            return None;
        }
        if std::mem::take(&mut self.erase) {
            self.under_way = Some(UnderWay::Erasure);
            return Some(erasure());
        }
        // Alone, since the next records may be written there.
        if let Some((from, to)) = self.unwiped.take() {
            self.under_way = Some(UnderWay::Wiping(self.wiped));
            let writes = wiping::all(log.superblock, from, to);
            return Some(Batch { writes });
        }
        let commit = match self.superblocks.front() {
            Some((after, _)) => *after,
            None => log.commit,
        };
        // A mark alone, where room is short and the tail has moved without a record.
        let full = self.mark.head - self.mark.tail > log.superblock.ring_len / 2;
        // The first mark is shipped before the superblock, even for an empty log: a superblock without a mark would be
        // damage.
        let behind = self.unmarked || self.mark.head < commit.head;
        if behind || (full && self.mark.tail < commit.tail) {
            return Some(self.records(log, commit));
        }
        let Some((_, superblock)) = self.superblocks.front() else {
            return self.wiping(log);
        };
        let superblock = Superblock {
            // A partner's copy is a log, and no sink is at its side.
            shipped: self.home == Home::Sink,
            persisted: false,
            ..superblock.clone()
        };
        self.slot = 1 - self.slot;
        self.under_way = Some(UnderWay::Superblock);
        Some(Batch {
            writes: vec![(
                SLOTS[self.slot],
                Bytes::copy_from_slice(&superblock.to_bytes()),
            )],
        })
    }

    fn records(&mut self, log: &Present<'_>, commit: Commit) -> Batch {
        self.sequence += 1;
        let mark = Mark {
            sequence: self.sequence,
            instance: log.superblock.instance,
            // Records that an earlier mark has superseded may be wiped, although the tail word, which waits for that,
            // says otherwise.
            tail: commit.tail.max(self.mark.tail),
            head: commit.head,
            chain: commit.chain,
            wiped: self.wiped,
        };
        let len = mark.head - self.mark.head;
        let most = WIPED_AT_A_TIME.max(len);
        let (zeroes, wiped) = wiping::metas(log, self.wiped, self.mark.tail, most);
        let ring = pieces(log.superblock, self.mark.head, mark.head).map(|(at, len)| {
            let window = Window {
                memory: log.memory.clone(),
                at,
                len: len as usize,
            };
            (at, Bytes::from_owner(window))
        });
        let marked = (
            MARKS[1 - self.mark_slot],
            Bytes::copy_from_slice(&mark.to_bytes()),
        );
        let writes = ring.chain(zeroes).chain([marked]).collect();
        self.under_way = Some(UnderWay::Records { mark, wiped });
        Batch { writes }
    }

    /// Wipes records that the mark on the medium no longer needs, if that has not been done.
    fn wiping(&mut self, log: &Present<'_>) -> Option<Batch> {
        if self.wiped == self.mark.tail {
            return None;
        }
        let (writes, wiped) = wiping::metas(log, self.wiped, self.mark.tail, WIPED_AT_A_TIME);
        self.under_way = Some(UnderWay::Wiping(wiped));
        Some(Batch { writes })
    }

    /// Notes that the batch under way is on the medium.
    pub(crate) fn done(&mut self) {
        match self.under_way.take() {
            Some(UnderWay::Records { mark, wiped }) => {
                self.mark = mark;
                self.mark_slot = 1 - self.mark_slot;
                self.unmarked = false;
                self.wiped = wiped;
            }
            Some(UnderWay::Wiping(wiped)) => self.wiped = wiped,
            Some(UnderWay::Superblock) => {
                self.unnamed = false;
                self.superblocks.pop_front();
            }
            Some(UnderWay::Erasure) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
