//! Follows a log that another process writes: reads what that process has committed, a little later, and takes over the
//! log when that process has ended.
//!
//! A follower does not keep the writer from reusing space. If it falls behind the tail, so that the next record has
//! been overwritten, it starts again from the tail. A record is copied before its checksum is verified, so a record
//! that the writer overwrites meanwhile is detected.
//!
//! The data of a record are neither copied nor read: they stay in place until the take-over. Data that the follower
//! still holds then lie behind the tail, because its state and that of the writer are the same. The take-over checks
//! this, and verifies these data by their own checksum.

use super::{Contents, Kind, Log, Lsn, suspect};
use crate::extent::Place;
use crate::layout::{HEAD_AT, HEADER_LEN, Header, TAIL_AT, checksum, position_at};
use crate::replay::{Replay, first_previous};
use crate::sink::Commit;
use crate::superblock::Superblock;
use crate::{Error, Memory};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// A record read by a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The object of the record.
    pub object: u64,
    /// The role of the record for its object.
    pub kind: Kind,
    /// A complete snapshot of the object has been returned before. [`Kind::Begin`] and [`Kind::Part`] add nothing then.
    pub is_known: bool,
    /// A copy of what was appended as `meta`.
    pub meta: Bytes,
    /// What was appended as `data`. It must not be read before [`Follower::take_over`].
    pub data: Bytes,
}

/// Follows a log.
#[derive(Debug)]
pub struct Follower {
    /// The log that will be taken over. Nothing is written to it before.
    log: Log,
    /// Checksum of the last record; `None` if none has been read.
    chain: Option<u32>,
    /// Epoch of the last record.
    epoch: u32,
    /// The position from which on the follower has the complete state: the head when it began.
    whole_from: u64,
}

impl Follower {
    /// Starts at the tail. One process may write to the log meanwhile.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn begin(memory: Arc<dyn Memory>) -> Result<Follower, Error> {
        let (superblock, slot) = Superblock::read_own(&*memory)?;
        let tail = position_at(&*memory, TAIL_AT)?;
        let whole_from = position_at(&*memory, HEAD_AT)?;
        let nothing_read = Replay {
            previous: first_previous(&superblock),
            superblock,
            slot,
            tail,
            head: tail,
            walked: 0,
            records: Vec::new(),
        };
        let (log, _) = Log::resume(memory, nothing_read);
        Ok(Follower {
            log,
            chain: None,
            epoch: 1,
            whole_from,
        })
    }

    /// The position up to which it has read.
    pub fn position(&self) -> Lsn {
        Lsn(self.log.position)
    }

    /// Returns whether it has the complete state at its position. An object may be known in part before that, since
    /// records before its last snapshot may lie behind the tail.
    pub fn is_whole(&self) -> bool {
        self.log.position >= self.whole_from
    }

    /// Reads at most `most` records, and no further than `limit` if that lies ahead: the end of a commit. False if
    /// there are more.
    ///
    /// # Errors
    /// [`Error::FellBehind`]: start again. Otherwise the log is damaged.
    pub fn advance(
        &mut self,
        most: usize,
        limit: Option<Lsn>,
        each: &mut dyn FnMut(Followed),
    ) -> Result<bool, Error> {
        let head = position_at(&*self.log.memory, HEAD_AT)?;
        let limit = limit.map(|limit| limit.0);
        let until = limit.filter(|limit| *limit > self.log.position);
        let until = until.map_or(head, |limit| limit.min(head));
        let mut read = 0;
        while self.log.position < until && read < most {
            match self.read_next(head) {
                Ok(followed) => followed.into_iter().for_each(&mut *each),
                Err(error) => return Err(self.classify_failure(error)),
            }
            read += 1;
        }
        self.log.held.release();
        let is_there = self.log.position == head;
        if is_there {
            self.log.committed = head;
            self.log.objects.apply_commit();
        }
        Ok(is_there)
    }

    /// Decides why a record could not be read: it was overwritten, or it is damaged.
    fn classify_failure(&self, error: Error) -> Error {
        // Keeps the reads of the record before the read of the tail word.
        fence(Ordering::Acquire);
        match position_at(&*self.log.memory, TAIL_AT) {
            Ok(tail) if tail <= self.log.position => error,
            Ok(_) => Error::FellBehind,
            Err(word) => word,
        }
    }

    /// Reads the next record, or the padding at the end of the ring. `None`: the fold does not need it.
    fn read_next(&mut self, head: u64) -> Result<Option<Followed>, Error> {
        let position = self.log.position;
        let damaged = |what| Error::Damaged { position, what };
        let to_end = self.log.to_end();
        if to_end < HEADER_LEN as u64 {
            self.log.position += to_end;
            return Ok(None);
        }
        let at = self.log.address(position);
        let mut bytes = [0; HEADER_LEN];
        self.log.memory.read(at, &mut bytes);
        let (header, recorded) =
            Header::from_bytes(&bytes).ok_or_else(|| damaged("not a record"))?;
        let len = header.whole_len();
        if header.position != position {
            return Err(damaged("a record of another place"));
        }
        if len > to_end.min(head - position) || (header.kind.is_none() && len != to_end) {
            return Err(damaged("a record of impossible length"));
        }
        let is_successor = self.chain.is_none_or(|chain| chain == header.previous);
        if !is_successor || header.epoch < self.epoch {
            return Err(damaged("not the successor of the record before it"));
        }
        let meta_at = at + HEADER_LEN as u64;
        let mut meta = BytesMut::zeroed(header.checked_meta_len());
        self.log.memory.read(meta_at, &mut meta);
        if checksum(&bytes, &meta) != recorded {
            return Err(damaged("wrong checksum"));
        }
        self.chain = Some(recorded);
        self.epoch = header.epoch;
        self.log.position += len;
        let taken = header
            .kind
            .map(|kind| self.take(kind, &header, meta.freeze(), meta_at));
        Ok(taken.flatten())
    }

    fn take(&mut self, kind: Kind, header: &Header, meta: Bytes, meta_at: u64) -> Option<Followed> {
        let ordinal = self.log.ordinal;
        self.log.ordinal += 1;
        let object = header.object;
        let objects = &mut self.log.objects;
        let is_known = objects.is_known(object);
        // Records before an object's first snapshot that the tail has not passed do not count.
        let counts = match kind {
            Kind::Snapshot | Kind::Begin => true,
            Kind::Delta | Kind::End => objects.is_live(object),
            Kind::Part | Kind::Complete => objects.is_copied(object),
        };
        if !counts {
            return None;
        }
        objects.note(kind, header, ordinal);
        let data = match kind {
            Kind::End => Bytes::new(),
            _ => {
                let data_at = meta_at + u64::from(header.meta_len);
                self.log
                    .pin(data_at, header.data_len as usize, header, ordinal)
            }
        };
        Some(Followed {
            object,
            kind,
            is_known,
            meta,
            data,
        })
    }

    /// Takes over the log. All of it has been read, and no process writes to it any more. The contents have no records:
    /// the follower has returned them.
    ///
    /// # Errors
    /// [`Error::FellBehind`]: it has not been read to its end. Otherwise the log cannot be taken over, and
    /// [`Log::open`] opens it.
    pub fn take_over(self) -> Result<(Log, Contents), Error> {
        let mut log = self.log;
        let (superblock, slot) = Superblock::read(&*log.memory)?;
        let tail = position_at(&*log.memory, TAIL_AT)?;
        let head = position_at(&*log.memory, HEAD_AT)?;
        if head != log.position {
            return Err(Error::FellBehind);
        }
        log.objects.apply_commit();
        let base = log.objects.first_base();
        let is_whole = superblock.instance == log.superblock.instance
            && superblock.memory_len == log.superblock.memory_len
            && self.epoch <= superblock.epoch
            && tail <= head
            && base.is_none_or(|base| base.position >= tail)
            && !log.held.any_before(tail)
            && log.objects.all_known();
        if !is_whole {
            return Err(Error::Damaged {
                position: head,
                what: "the follower's state differs from the log",
            });
        }
        if let Some(position) = log.held.first_damaged() {
            let what = "wrong checksum of the data";
            return Err(Error::Damaged { position, what });
        }
        let end = Place {
            position: head,
            ordinal: log.ordinal,
        };
        let needed = [base, log.held.release()].into_iter().flatten();
        log.passed = needed.fold(end, Place::min).ordinal;
        log.superblock = superblock;
        log.slot = slot;
        log.tail = tail;
        log.committed = head;
        log.previous = self.chain.unwrap_or(log.previous);
        log.last = Commit {
            tail,
            head,
            chain: log.previous,
        };
        let contents = Contents {
            walked: log.ordinal - log.passed,
            handled: suspect::handled(&*log.memory),
            suspect: suspect::suspect(&*log.memory),
            superblock: log.superblock.clone(),
            tail: Lsn(tail),
            head: Lsn(head),
            records: Vec::new(),
        };
        Ok((log, contents))
    }
}
