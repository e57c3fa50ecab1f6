//! Relocates objects to the head of the log, a little in each turn, so that the tail can move and a recovery has little
//! to replay.
//!
//! A connection is copied in several records, which may take several turns: the beginning, one record for each open,
//! waiting request and session ([`outlast_smb::copying`]), and at last, in one turn, its TCP state and queued bytes.
//! Until that turn's commit the previous snapshot is live.

use std::borrow::Cow;
use std::time::Duration;

use outlast_nvram::{Kind, Relocation};
use outlast_smb::copying::Cursor;

use super::files::FileSystem;
use super::machine::Machine;
use super::record::{GLOBAL, Record};
use super::set_aside::{self, doing};

/// The least number of units that are copied in a turn: about a millisecond's work.
pub const COPY_UNITS: u64 = 512;
/// The additional units for each record that has been appended since the turn before, so that copying keeps up with any
/// pace.
const UNITS_PER_RECORD: u64 = 2;
/// The number of bytes of a record that count as a unit, besides the record itself.
const BYTES_PER_UNIT: u64 = 1024;
/// The largest number of objects that are relocated before a planned end.
const RENEWALS: usize = 20_000;
/// How often an object may be named then that cannot be relocated.
const REFUSALS: usize = 16;

/// The state of the copying.
#[derive(Debug)]
pub(super) struct Copier {
    /// Units per turn.
    units: u64,
    /// The connection whose copy has begun, and its progress.
    under_way: Option<(u64, Cursor)>,
    /// The number of records when the last turn ended.
    records: u64,
}

impl Copier {
    /// Makes a copier with this many units per turn, for a log with this many records.
    pub fn new(units: u64, records: u64) -> Copier {
        Copier {
            units,
            under_way: None,
            records,
        }
    }

    /// Abandons the copy of an object that ends.
    pub fn forget(&mut self, object: u64) {
        self.under_way.take_if(|(of, _)| *of == object);
    }
}

impl<F: FileSystem> Machine<F> {
    /// Relocates the object that holds the log's tail, or would make a recovery long: a part of it in each turn, more
    /// when room is short.
    pub(super) fn relocate(&mut self, now: Duration) {
        let fresh = self.journal.records().saturating_sub(self.copier.records);
        let mut units = self.copier.units + UNITS_PER_RECORD * fresh;
        while units > 0 || !self.can_work() {
            let (object, cursor, at_once) = match self.copier.under_way.take() {
                Some((object, cursor)) => (object, Some(cursor), false),
                None => match self.next_to_copy(now) {
                    Some(wanted) => (wanted.object, None, wanted.for_room),
                    None => break,
                },
            };
            // A half-finished copy takes room after a crash until the tail has passed it: where room is short, the
            // whole copy is one commit.
            let limit = match at_once || !self.can_work() {
                true => u64::MAX,
                false => units,
            };
            let (spent, cursor) = self.copy(object, cursor, limit);
            units = units.saturating_sub(spent.max(1));
            self.copier.under_way = cursor.map(|cursor| (object, cursor));
            self.journal.commit(now);
        }
        self.copier.records = self.journal.records();
    }

    /// Before a planned end, relocates what would make the next recovery long, as far as there is room.
    pub(super) fn renew(&mut self, now: Duration) {
        let mut refused = 0;
        for _ in 0..RENEWALS {
            if !self.can_work() || refused > REFUSALS {
                return;
            }
            let (object, cursor) = match self.copier.under_way.take() {
                Some((object, cursor)) => (object, Some(cursor)),
                None => match self.journal.wants_renewal() {
                    Some(object) => (object, None),
                    None => return,
                },
            };
            if self.is_generation(object) {
                refused += 1;
                continue;
            }
            self.copy(object, cursor, u64::MAX);
            self.journal.commit(now);
        }
    }

    /// The next object that should be relocated and can be.
    fn next_to_copy(&mut self, now: Duration) -> Option<Relocation> {
        let set_aside = self.stack.receive_room();
        let wanted = self.journal.wants_relocation(set_aside)?;
        if !self.is_generation(wanted.object) {
            // A copy that only shortens recovery must not take the room that others have been promised.
            let fits = wanted.for_room
                || self
                    .journal
                    .has_room(set_aside, self.log_bytes(wanted.object) as u64);
            return fits.then_some(wanted);
        }
        // A generation with effects ends only by a consistency point, which is not begun only to shorten recovery.
        if (wanted.for_room || self.is_empty_generation(wanted.object))
            && self.relocate_generation(wanted.object, now)
        {
            return Some(wanted);
        }
        None
    }

    /// The approximate number of bytes of the log that a connection holds: its state, and what is queued.
    pub(super) fn log_bytes(&self, conn: u64) -> usize {
        let queued = self.stack.received_len(conn) + self.stack.send_queued(conn);
        self.smb.durable_bytes(conn) + queued
    }

    fn is_empty_generation(&self, object: u64) -> bool {
        let effects = self.effects.as_ref();
        effects.is_some_and(|of| of.generation == Some(object) && of.count == 0)
    }

    /// Continues an object's copy, or begins it. Returns the units used, and the progress if the copy is not complete.
    fn copy(&mut self, object: u64, cursor: Option<Cursor>, limit: u64) -> (u64, Option<Cursor>) {
        let begun = (self.journal.head(), self.journal.records());
        set_aside::handle(&mut *self.probe, self.journal.log(), object, doing::COPY);
        self.journal.make_room(true);
        let cursor = if object == GLOBAL {
            self.journal.snapshot_global();
            None
        } else if self.is_generation(object) {
            None
        } else {
            self.copy_connection(object, cursor, limit)
        };
        self.journal.make_room(false);
        // An operation may be under way in parallel to the loop.
        let under_way = self.under_way.as_ref();
        self.journal
            .handle(under_way.map(|under_way| under_way.work.handled()));
        if cursor.is_none() {
            self.journal
                .forget_deaths(|of| of.object == object && of.what == doing::COPY);
        }
        (self.units_since(begun), cursor)
    }

    fn copy_connection(&mut self, conn: u64, cursor: Option<Cursor>, limit: u64) -> Option<Cursor> {
        let begun = (self.journal.head(), self.journal.records());
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let Some(smb) = self.smb.copy_begin(conn) else {
                    self.copy_handshake(conn);
                    return None;
                };
                let smb = Cow::Owned(smb);
                self.journal
                    .put(conn, Kind::Begin, &Record::Copy { smb }, &[]);
                Cursor::default()
            }
        };
        while self.units_since(begun) < limit {
            let Some(piece) = self.smb.copy_next(conn, &mut cursor) else {
                let tcp = self.stack.checkpoint(conn).map(Cow::Owned);
                self.journal
                    .put(conn, Kind::Complete, &Record::Copied { tcp }, &[]);
                self.stack.relocate(conn, &mut self.journal);
                return None;
            };
            let piece = Record::Smb(Cow::Owned(piece));
            self.journal.put(conn, Kind::Part, &piece, &[]);
        }
        Some(cursor)
    }

    /// Copies a connection that SMB does not know yet.
    fn copy_handshake(&mut self, conn: u64) {
        let tcp = self.stack.checkpoint(conn).map(Cow::Owned);
        let record = Record::Client { tcp, smb: None };
        self.journal.put(conn, Kind::Snapshot, &record, &[]);
        self.stack.relocate(conn, &mut self.journal);
    }

    fn units_since(&self, (head, records): (outlast_nvram::Lsn, u64)) -> u64 {
        let bytes = self.journal.head().0 - head.0;
        self.journal.records() - records + bytes / BYTES_PER_UNIT
    }
}
