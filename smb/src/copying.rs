//! Copies a connection's state piece by piece, while it changes.
//!
//! The copy begins with a [`Checkpoint`] of all that is small ([`Smb::copy_begin`]). Its pieces follow as records
//! ([`Record::Copied`]), each with the value of that moment, and any other records of the connection come between.
//! Whoever applies all of them has the connection's state when the last piece is there. Why:
//!
//! * A record about something that is not copied yet changes nothing, or something that the piece overwrites when it
//!   comes.
//! * A record about something that is copied, or that was made since the copy began, finds the very same value.
//! * A record about many things at once (the connection's end, a session's, a tree's, a close) treats each by itself,
//!   but for one: whether a session that has ended is forgotten depends on the message in progress and on the requests
//!   that wait. So sessions are copied after those. Until then the copy may forget one too soon, and its piece brings
//!   it back.

use crate::record::{Piece, Record};
use crate::server::{ConnId, Smb};
use crate::state::{Checkpoint, Connection};
use outlast_fsa::fileop::OpenId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// How far the copy of a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cursor {
    /// The message in progress comes next.
    #[default]
    Work,
    /// The requests that wait, after this AsyncId.
    Parked(Option<u64>),
    /// The opens after this one.
    Opens(Option<OpenId>),
    /// The sessions after this one.
    Sessions(Option<u64>),
}

impl Smb {
    /// The beginning of a copy: the connection without its message in progress, waiting requests, opens and sessions.
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

    /// The next piece of a copy; `None`: all of it is there.
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

/// What comes after `after`, which moves on to it.
fn next<'a, T>(map: &'a BTreeMap<u64, T>, after: &mut Option<u64>) -> Option<(u64, &'a T)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let (id, value) = map.range((from, Bound::Unbounded)).next()?;
    *after = Some(*id);
    Some((*id, value))
}

#[cfg(test)]
mod tests;
