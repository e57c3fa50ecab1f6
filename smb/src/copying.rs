//! Copies a connection's state piece by piece while it changes.
//!
//! The copy begins with a [`Checkpoint`] of the small parts ([`Smb::copy_begin`]). The pieces follow as records
//! ([`Record::Copied`]), each with the value at that moment, interleaved with other records of the connection. A reader
//! that applies all of them has the connection's state after the last piece, for these reasons:
//!
//! * A record about a part that is not copied yet changes nothing, or changes what its piece overwrites later.
//! * A record about a part that is copied, or was made since the copy began, is applied to an equal value.
//! * A record about many things at once (the connection's end, a session's, a tree's, a close) treats each
//!   independently, with one exception: whether an ended session is removed depends on the message in progress and on
//!   the waiting requests. Sessions are therefore copied after those. Until then the copy may remove a session too
//!   early, and its piece restores it.

use crate::record::{Piece, Record};
use crate::server::{ConnId, Smb};
use crate::state::{Checkpoint, Connection};
use outlast_fsa::fileop::OpenId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The progress of the copy of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cursor {
    /// The message in progress comes next.
    #[default]
    Work,
    /// The waiting requests after this AsyncId come next.
    Parked(Option<u64>),
    /// The opens after this one come next.
    Opens(Option<OpenId>),
    /// The sessions after this one come next.
    Sessions(Option<u64>),
}

impl Smb {
    /// Begins a copy: returns the connection without its message in progress, waiting requests, opens and sessions.
    #[must_use]
    pub fn copy_begin(&self, conn: ConnId) -> Option<Checkpoint> {
        let Connection {
            client,
            gone,
            negotiation,
            credits,
            sessions: _,
            opens: _,
            work: _,
            parked: _,
        } = self.connections.get(&conn)?;
        Some(Checkpoint(Connection {
            client: *client,
            gone: *gone,
            negotiation: negotiation.clone(),
            credits: credits.clone(),
            ..Connection::new(*client)
        }))
    }

    /// Returns the next piece of a copy; `None`: it is complete.
    #[must_use]
    pub fn copy_next(&self, conn: ConnId, cursor: &mut Cursor) -> Option<Record> {
        let piece = self.connections.get(&conn)?.next_piece(cursor)?;
        Some(Record::Copied(Box::new(piece)))
    }
}

impl Connection {
    fn next_piece(&self, cursor: &mut Cursor) -> Option<Piece> {
        if *cursor == Cursor::Work {
            *cursor = Cursor::Parked(None);
            if let Some(work) = &self.work {
                return Some(Piece::Work(work.clone()));
            }
        }
        if let Cursor::Parked(after) = cursor {
            if let Some((id, parked)) = next(&self.parked, after) {
                return Some(Piece::Parked(id, parked.clone()));
            }
            *cursor = Cursor::Opens(None);
        }
        if let Cursor::Opens(after) = cursor {
            if let Some((_, open)) = next(&self.opens, after) {
                return Some(Piece::Open(open.clone()));
            }
            *cursor = Cursor::Sessions(None);
        }
        let Cursor::Sessions(after) = cursor else {
            return None;
        };
        let (id, session) = next(&self.sessions, after)?;
        Some(Piece::Session(id, session.clone()))
    }
}

/// Returns the entry after `after`, and advances `after` to it.
fn next<'a, T>(map: &'a BTreeMap<u64, T>, after: &mut Option<u64>) -> Option<(u64, &'a T)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let (id, value) = map.range((from, Bound::Unbounded)).next()?;
    *after = Some(*id);
    Some((*id, value))
}

#[cfg(test)]
mod tests;
