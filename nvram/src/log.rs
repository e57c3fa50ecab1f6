//! Implements the log: appends and commits records, and frees space.

mod cost;
mod following;
mod objects;
mod relocation;
mod room;
mod shipping;
pub(crate) mod suspect;
mod wiping;

use crate::extent::{Held, Place};
use crate::layout::{
    HANDLED_AT, HEAD_AT, HEADER_LEN, Header, RING_AT, TAIL_AT, position_at, ring_len, whole_len,
    word,
};
use crate::replay::{Counted, Replay, first_previous, replay};
use crate::sink::{self, Commit};
use crate::superblock::{Flag, Identity, Incarnation, Superblock, VERSION};
use crate::{AppendError, Error, Memory, VecMemory};
use bytes::{Bytes, BytesMut};
pub use cost::ReplayCost;
pub use following::{Followed, Follower};
use objects::Objects;
pub use relocation::Relocation;
pub use shipping::Home;
use shipping::Shippers;
use std::sync::Arc;
use std::time::Duration;
pub use suspect::{Handled, Suspect};

/// The most meta bytes of a record.
pub const MAX_META: usize = 16 << 20;
/// The most data bytes of a record.
pub const MAX_DATA: usize = 16 << 20;
/// The smallest memory a log can be made in.
pub const MIN_MEMORY: u64 = 16 << 10;

/// A record takes at most this part of the ring, so that it fits wherever the head is.
const RECORD_PART: u64 = 3;
/// The part of the ring that is kept as the reserve, unless it is set.
const RESERVE_PART: u64 = 8;
/// The number of bytes of data that are copied and checksummed at a time: a part of the processor's first cache.
const PIECE: usize = 8 << 10;
/// How often `inspect` starts again when a server writes meanwhile.
const INSPECT_ATTEMPTS: usize = 100;

/// A position in the log: bytes since it was formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The role of a record for its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The whole object; nothing before it is live any more.
    Snapshot = 1,
    /// A change to it.
    Delta = 2,
    /// The object has ended.
    End = 3,
    /// The beginning of a snapshot of several records: once it is complete, nothing before this is live any more.
    Begin = 4,
    /// A part of the snapshot that has begun; deltas may lie between.
    Part = 5,
    /// Its last record.
    Complete = 6,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] = [
        Kind::Snapshot,
        Kind::Delta,
        Kind::End,
        Kind::Begin,
        Kind::Part,
        Kind::Complete,
    ];
}

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The object of the record.
    pub object: u64,
    /// Never [`Kind::End`]: nothing of an ended object is read back.
    pub kind: Kind,
    /// What was appended as `meta`: a copy, which holds no part of the log.
    pub meta: Bytes,
    /// What was appended as `data`, over the log as [`Log::append`] returned it.
    pub data: Bytes,
}

/// The content of a log.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The superblock in force.
    pub superblock: Superblock,
    /// The first position that was read.
    pub tail: Lsn,
    /// The end of what was committed.
    pub head: Lsn,
    /// Records from tail to head.
    pub walked: u64,
    /// The operation that was in progress when the process before ended.
    pub handled: Option<Handled>,
    /// The operation for which deaths are counted.
    pub suspect: Option<Suspect>,
    /// The live records, in the order in which they were appended.
    pub records: Vec<Replayed>,
}

/// The checkpoint log. One thread owns it; the bytes it returns may go to any.
pub struct Log {
    memory: Arc<dyn Memory>,
    superblock: Superblock,
    /// The slot that holds the superblock in force.
    slot: usize,
    /// Whether an epoch of this process has begun.
    begun: bool,
    /// Where the next record goes.
    position: u64,
    /// The commit word.
    committed: u64,
    /// The tail word.
    tail: u64,
    /// The position that the tail has to pass, so that everything before it is wiped.
    wipe_to: u64,
    /// Checksum of the last record.
    previous: u32,
    /// The tail, with its checksum, that is possible though a sink holds it.
    last: Commit,
    /// The number of records appended so far, padding not counted.
    ordinal: u64,
    /// The number of those before `last.tail`.
    passed: u64,
    reserve: u64,
    reserve_in_use: bool,
    /// The position to which the present round of relocation moves the tail; it is over if the tail is there.
    round_end: u64,
    objects: Objects,
    held: Held,
    /// What the log's bytes are shipped to.
    shippers: Shippers,
}

impl Log {
    /// Makes a log in the memory, with flag [`Flag::Clean`] and epoch 1. Its previous content is lost. The memory is
    /// blank until this is done.
    ///
    /// # Errors
    /// [`Error::TooSmall`].
    pub fn format(memory: Arc<dyn Memory>, identity: Identity) -> Result<Log, Error> {
        if memory.len() < MIN_MEMORY {
            return Err(Error::TooSmall {
                bytes: memory.len(),
                least: MIN_MEMORY,
            });
        }
        let mut superblock = Superblock {
            version: VERSION,
            instance: identity.instance,
            incarnation: identity.incarnation,
            epoch: 1,
            recoveries: 0,
            flag: Flag::Clean,
            clock_anchor: Duration::ZERO,
            shipped: false,
            persisted: false,
            term: 0,
            sequence: 0,
            memory_len: memory.len(),
            ring_len: ring_len(memory.len()),
        };
        Superblock::erase(&*memory)?;
        suspect::clear(&*memory);
        memory.store(TAIL_AT, word(0));
        memory.store(HEAD_AT, word(0));
        superblock.write(&*memory, 1);
        let replay = Replay {
            slot: 1,
            tail: 0,
            head: 0,
            previous: first_previous(&superblock),
            walked: 0,
            records: Vec::new(),
            superblock,
        };
        let (mut log, _) = Log::resume(memory, replay);
        log.begun = true;
        Ok(log)
    }

    /// Reads the content of a log from a copy: a server may be writing to the memory meanwhile.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn inspect(memory: &dyn Memory) -> Result<Contents, Error> {
        let stamp = || {
            let superblock = Superblock::read(memory);
            (
                superblock.map(|(it, _)| it.sequence).ok(),
                memory.load(TAIL_AT),
                sink::sequence(memory),
            )
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Checked before anything is copied.
            if memory.len() < MIN_MEMORY {
                return Err(Error::TooSmall {
                    bytes: memory.len(),
                    least: MIN_MEMORY,
                });
            }
            let before = stamp();
            let copy = if sink::is_sink(memory) {
                sink::private_copy(memory)
            } else {
                Ok(copy_of_committed(memory))
            };
            match copy.and_then(|copy| Ok((replay(&copy)?, copy))) {
                // Space was reused while it was being copied, or the superblock was written.
                Err(_) if attempts < INSPECT_ATTEMPTS && stamp() != before => {}
                Err(error) => return Err(error),
                Ok((replay, copy)) => return Ok(Log::resume(Arc::new(copy), replay).1),
            }
        }
    }

    /// Returns the commit position of a log to which a server may be writing.
    ///
    /// # Errors
    /// There is no log, or it is damaged.
    pub fn head_of(memory: &dyn Memory) -> Result<Lsn, Error> {
        Superblock::read_own(memory)?;
        position_at(memory, HEAD_AT).map(Lsn)
    }

    /// Opens a log. Nothing is written until [`Log::begin_epoch`], which must precede the first append, or one of the
    /// `set_` functions.
    ///
    /// Nothing else may write to the memory, and no bytes that an earlier `Log` over the same memory returned may still
    /// be held.
    ///
    /// # Errors
    /// [`Error::Blank`] if no log was ever made in it; otherwise it is damaged, and left unchanged.
    pub fn open(memory: Arc<dyn Memory>) -> Result<(Log, Contents), Error> {
        if memory.len() < MIN_MEMORY {
            return Err(Error::TooSmall {
                bytes: memory.len(),
                least: MIN_MEMORY,
            });
        }
        let replay = replay(&*memory)?;
        Ok(Log::resume(memory, replay))
    }

    /// Returns the live committed records of the objects that `wanted` names, in order, as copies that hold no part of
    /// the log.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn read_back(&self, wanted: impl Fn(u64) -> bool) -> Result<Vec<Replayed>, Error> {
        let counted = replay(&*self.memory)?.records.into_iter();
        let of_them = counted.filter(|record| wanted(record.header.object));
        let copy = |at: u64, len: u32| {
            let mut bytes = BytesMut::zeroed(len as usize);
            self.memory.read(at, &mut bytes);
            bytes.freeze()
        };
        let read = |Counted { kind, header, .. }| {
            let at = self.address(header.position) + HEADER_LEN as u64;
            Replayed {
                object: header.object,
                kind,
                meta: copy(at, header.meta_len),
                data: copy(at + u64::from(header.meta_len), header.data_len),
            }
        };
        Ok(of_them.map(read).collect())
    }

    /// Makes the log and its contents from a replay.
    fn resume(memory: Arc<dyn Memory>, replay: Replay) -> (Log, Contents) {
        let mut log = Log {
            slot: replay.slot,
            begun: false,
            position: replay.head,
            committed: replay.head,
            tail: replay.tail,
            wipe_to: 0,
            previous: replay.previous,
            last: Commit {
                tail: replay.tail,
                head: replay.head,
                chain: replay.previous,
            },
            ordinal: replay.walked,
            passed: 0,
            reserve: replay.superblock.ring_len / RESERVE_PART,
            reserve_in_use: false,
            round_end: 0,
            objects: Objects::default(),
            held: Held::default(),
            shippers: Shippers::default(),
            superblock: replay.superblock,
            memory,
        };
        let metas_len = replay
            .records
            .iter()
            .map(|record| record.header.meta_len as usize)
            .sum();
        // One allocation for the metas of all records.
        let mut metas = BytesMut::zeroed(metas_len);
        let mut records = Vec::with_capacity(replay.records.len());
        for Counted {
            kind,
            header,
            ordinal,
        } in replay.records
        {
            let at = log.address(header.position) + HEADER_LEN as u64;
            let mut meta = metas.split_to(header.meta_len as usize);
            log.memory.read(at, &mut meta);
            let data = log.pin(
                at + u64::from(header.meta_len),
                header.data_len as usize,
                &header,
                ordinal,
            );
            log.objects.note(kind, &header, ordinal);
            records.push(Replayed {
                object: header.object,
                kind,
                meta: meta.freeze(),
                data,
            });
        }
        log.objects.apply_commit();
        let contents = Contents {
            walked: replay.walked,
            handled: suspect::handled(&*log.memory),
            suspect: suspect::suspect(&*log.memory),
            superblock: log.superblock.clone(),
            tail: Lsn(log.tail),
            head: Lsn(log.committed),
            records,
        };
        (log, contents)
    }

    /// Begins a new epoch, after a recovery and before anything is appended. A record that the process before this one
    /// appended and did not commit cannot be mistaken for the successor of one that is appended now.
    ///
    /// # Errors
    /// [`Error::NoEpochsLeft`].
    pub fn begin_epoch(&mut self, incarnation: Incarnation) -> Result<(), Error> {
        let epoch = self
            .superblock
            .epoch
            .checked_add(1)
            .ok_or(Error::NoEpochsLeft)?;
        self.superblock.epoch = epoch;
        self.superblock.recoveries = self.superblock.recoveries.saturating_add(1);
        self.superblock.incarnation = incarnation;
        self.superblock.persisted = false;
        self.write_superblock();
        self.begun = true;
        Ok(())
    }

    /// The epochs that follow are of this epoch of a pair's arbiter. It is on record with the next superblock.
    pub fn set_term(&mut self, term: u64) {
        self.superblock.term = term;
    }

    /// Appends a record: `meta`, and the parts of `data` one after the other, which come back as one piece over the
    /// log. It counts from the next [`Log::commit`] on.
    ///
    /// An object begins with a snapshot of one record. Its space, and that of any held bytes, is kept as
    /// `docs/log-format.md` describes.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was written.
    pub fn append(
        &mut self,
        object: u64,
        kind: Kind,
        meta: &[u8],
        data: &[&[u8]],
    ) -> Result<Bytes, AppendError> {
        let data_len: usize = data.iter().map(|part| part.len()).sum();
        let len = meta.len() as u64 + data_len as u64;
        if meta.len() > MAX_META || data_len > MAX_DATA || len > self.max_record() {
            return Err(AppendError::TooLarge {
                bytes: len,
                most: self.max_record(),
            });
        }
        if !self.begun {
            return Err(AppendError::NoEpoch);
        }
        if kind != Kind::Snapshot && !self.objects.is_live(object) {
            return Err(AppendError::NoObject { object });
        }
        if matches!(kind, Kind::Part | Kind::Complete) && !self.objects.is_copied(object) {
            return Err(AppendError::NoCopy { object });
        }
        let whole_len = whole_len(len);
        let to_end = self.to_end();
        let skipped = if whole_len > to_end { to_end } else { 0 };
        if skipped + whole_len > self.free() {
            return Err(AppendError::Full {
                needed: skipped + whole_len,
                room: self.free(),
            });
        }
        if matches!(kind, Kind::Snapshot | Kind::Begin) && self.objects.is_known(object) {
            self.begin_round();
        }
        if skipped > 0 {
            self.skip(skipped);
        }

        let at = self.address(self.position);
        let data_at = at + (HEADER_LEN + meta.len()) as u64;
        let header = Header {
            previous: self.previous,
            position: self.position,
            object,
            epoch: self.superblock.epoch,
            kind: Some(kind),
            meta_len: meta.len() as u32,
            data_len: data_len as u32,
            data_checksum: self.write_data(data_at, data),
        };
        let (bytes, checksum) = header.seal(meta);
        self.memory.write(at, &bytes);
        self.memory.write(at + HEADER_LEN as u64, meta);
        self.previous = checksum;
        self.position += whole_len;

        let ordinal = self.ordinal;
        self.ordinal += 1;
        self.objects.note(kind, &header, ordinal);
        Ok(self.pin(data_at, data_len, &header, ordinal))
    }

    /// Writes the parts one after the other, and returns their checksum. Copy and checksum take turns by small pieces,
    /// so that the processor's first cache has what the second of them reads.
    fn write_data(&self, mut at: u64, parts: &[&[u8]]) -> u32 {
        let mut checksum = 0;
        for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
            self.memory.write(at, piece);
            checksum = crc32c::crc32c_append(checksum, piece);
            at += piece.len() as u64;
        }
        checksum
    }

    /// Commits everything appended, as a group, by one store; then frees space at the tail. Returns the end of what is
    /// committed.
    pub fn commit(&mut self) -> Lsn {
        if self.position != self.committed {
            self.memory.store(HEAD_AT, word(self.position));
            self.committed = self.position;
            self.objects.apply_commit();
        }
        let end = Place {
            position: self.committed,
            ordinal: self.ordinal,
        };
        let needed = [self.objects.first_base(), self.held.release()];
        let tail = needed.into_iter().flatten().fold(end, Place::min);
        self.passed = self.passed.max(tail.ordinal);
        self.last = Commit {
            tail: tail.position.max(self.last.tail),
            head: self.committed,
            chain: self.previous,
        };
        self.move_tail();
        Lsn(self.committed)
    }

    /// Frees space at the tail.
    fn move_tail(&mut self) {
        let tail = self.shippers.hold(self.last.tail);
        if tail > self.tail {
            // After the commit word that superseded the records in this space, and before anything is written there.
            self.memory.store(TAIL_AT, word(tail));
            self.wipe(self.tail, tail);
            self.tail = tail;
        }
    }

    /// The largest number of bytes of meta and data that one record may have in this log.
    pub fn max_record(&self) -> u64 {
        let most = self.superblock.ring_len / RECORD_PART - HEADER_LEN as u64;
        most.min((MAX_META + MAX_DATA) as u64)
    }

    /// The number of records appended since the log was opened, and of those it held then.
    pub fn records(&self) -> u64 {
        self.ordinal
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u64 {
        self.superblock.ring_len
    }

    /// Bytes of the memory that it is in.
    pub fn memory_len(&self) -> u64 {
        self.superblock.memory_len
    }

    /// Bytes of the ring from the tail to the last record.
    pub fn used(&self) -> u64 {
        self.position - self.tail
    }

    /// Sets the flag.
    pub fn set_flag(&mut self, flag: Flag) {
        self.superblock.flag = flag;
        self.superblock.persisted = false;
        self.write_superblock();
    }

    /// Writes everything committed to the medium of the memory, then sets the flag, then writes that: the flag on the
    /// medium is true of the state on the medium, whatever the machine does next.
    ///
    /// # Errors
    /// The medium's.
    pub fn persist_with_flag(&mut self, flag: Flag) -> Result<(), Error> {
        let len = usize::try_from(self.memory.len()).unwrap_or(usize::MAX);
        self.memory.persist_range(0, len)?;
        self.superblock.flag = flag;
        self.superblock.persisted = true;
        self.write_superblock();
        self.persist_superblock()
    }

    /// Writes the superblock to the medium and waits for it.
    ///
    /// # Errors
    /// The medium's.
    pub fn persist_superblock(&self) -> Result<(), Error> {
        self.memory.persist_range(0, HEAD_AT as usize)
    }

    /// Records the service time that may have been used at most (kept in microseconds).
    pub fn set_clock_anchor(&mut self, anchor: Duration) {
        self.superblock.clock_anchor = anchor;
        self.superblock.persisted = false;
        self.write_superblock();
    }

    /// The superblock in force.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    fn write_superblock(&mut self) {
        self.superblock.write(&*self.memory, self.slot);
        let mut shippers = std::mem::take(&mut self.shippers);
        shippers.superblock_changed(&self.present());
        self.shippers = shippers;
    }

    fn address(&self, position: u64) -> u64 {
        RING_AT + position % self.superblock.ring_len
    }

    /// Continues at the beginning of the ring. Where not even a header fits, a reader of the log knows that there is no
    /// record.
    fn skip(&mut self, len: u64) {
        if len >= HEADER_LEN as u64 {
            let padding = Header::padding(self.previous, self.position, self.superblock.epoch, len);
            let (bytes, checksum) = padding.seal(&[]);
            self.memory.write(self.address(self.position), &bytes);
            self.previous = checksum;
        }
        self.position += len;
    }

    /// Makes the data of a record into bytes over the log, which keep the tail from passing it.
    fn pin(&mut self, at: u64, len: usize, header: &Header, ordinal: u64) -> Bytes {
        if len == 0 {
            return Bytes::new();
        }
        let place = Place {
            position: header.position,
            ordinal,
        };
        let object_len = self.objects.held_len(header.object);
        let memory = &self.memory;
        self.held.pin(memory, (at, len), place, header, &object_len)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("superblock", &self.superblock)
            .field("tail", &self.tail)
            .field("committed", &self.committed)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// A private copy of a memory, as far as its log is committed.
fn copy_of_committed(memory: &dyn Memory) -> VecMemory {
    let copy = VecMemory::new(memory.len() as usize);
    // The tail first: a server may overwrite what lies before it after this.
    copy.copy_range(memory, TAIL_AT, 8);
    copy.copy_range(memory, HEAD_AT, 8);
    copy.copy_range(memory, HANDLED_AT, 16);
    copy.copy_range(memory, 0, HEAD_AT);
    let ring_len = ring_len(memory.len());
    if let (Ok(tail), Ok(head)) = (position_at(&copy, TAIL_AT), position_at(&copy, HEAD_AT)) {
        let used = head.saturating_sub(tail).min(ring_len);
        let from = tail % ring_len;
        let first = used.min(ring_len - from);
        copy.copy_range(memory, RING_AT + from, first);
        copy.copy_range(memory, RING_AT, used - first);
    }
    copy
}

#[cfg(test)]
mod tests;
