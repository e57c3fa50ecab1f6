//! Grants receive windows: every byte that a client may send has room in the log that is set aside for it (law 7).
//!
//! The stack opens each window as far as many connections can have it. A message that has begun needs more: it is
//! processed when it is complete, so it gets the room to finish, and some more for the next one. Messages are granted
//! room in the order in which they began. Room is shared by accounts, for the reason that [`super::turns`] gives: an
//! account with a message in progress leaves enough room for the largest message of another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use outlast_smb::Principal;
use outlast_stack::Holding;

use super::files::FileSystem;
use super::inbound;
use super::machine::{Machine, UNAUTHENTICATED_MESSAGE};

/// The log's length divided by this may be queued or promised, over all connections.
const WINDOWS_PART: u64 = 8;

/// The same where effects on files are recorded, which need room as well.
const WINDOWS_PART_BESIDE_EFFECTS: u64 = 10;

/// Bytes that a connection may hold however many there are: a few requests.
pub const LEAST: usize = 4 << 10;

/// Bytes to which a connection's window is opened without a grant while there is much room.
pub const AUTOMATIC: usize = 64 << 10;

/// Bytes of the largest window that is ever offered.
pub const LARGEST: usize = 16 << 20;

/// Bytes of the largest message with its direct-TCP header: this room remains for accounts that have been granted
/// nothing.
pub const RESERVE: usize = outlast_smb::wire::frame::MAX_MESSAGE + outlast_smb::wire::frame::LEN;

/// A message of this length belongs to a stream of large ones: the window reaches beyond it.
const BULK: usize = AUTOMATIC;

/// Bytes beyond the end of such a message, at most: what arrives during a turn.
const LOOKAHEAD_MAX: usize = 4 << 20;

/// The part of the remaining room, one in so many, that is offered beyond the end of a message.
const LOOKAHEAD_PART: usize = 8;

/// The boundaries of messages in the bytes that a client has sent and that are not consumed.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// Bytes of the complete messages at the front.
    whole: usize,
    /// Bytes of the next message, if its header has been received; otherwise of the header.
    next: usize,
}

impl Framing {
    /// Examines the received bytes, `queued` of them.
    fn look(&mut self, received: &VecDeque<Bytes>, queued: usize) {
        while let Some(next) = inbound::length_at(received, self.whole) {
            self.next = next;
            if self.whole + next > queued {
                return;
            }
            self.whole += next;
        }
        self.next = 0;
    }

    /// Bytes that the message in progress lacks; 0 if none has begun.
    fn missing(&self, queued: usize) -> usize {
        (self.whole + self.next).saturating_sub(queued)
    }

    /// Returns whether a message will be consumed without more room: it is complete, or everything it lacks is offered.
    fn is_in_progress(&self, holding: Holding) -> bool {
        let missing = self.missing(holding.queued);
        self.whole > 0 || (missing > 0 && missing <= holding.promised)
    }

    /// Notes that the oldest bytes have been consumed.
    pub(super) fn consumed(&mut self, bytes: usize) {
        self.whole = self.whole.saturating_sub(bytes);
    }
}

/// The messages that lack bytes, and the connections to examine.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Connections that have received something.
    news: BTreeSet<u64>,
    /// Connections whose message waits for room, in the order in which these messages began.
    waiting: BTreeMap<u64, u64>,
    /// Their places in that order.
    places: BTreeMap<u64, u64>,
    next_place: u64,
}

impl Windows {
    /// This connection has received something.
    pub(super) fn received(&mut self, conn: u64) {
        self.news.insert(conn);
    }

    /// Returns whether a connection's message waits for room.
    pub(super) fn is_waiting(&self, conn: u64) -> bool {
        self.places.contains_key(&conn)
    }

    /// Returns whether any connection's message waits for room.
    pub(super) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn wait(&mut self, conn: u64) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.places.entry(conn) {
            entry.insert(self.next_place);
            self.waiting.insert(self.next_place, conn);
            self.next_place += 1;
        }
    }

    /// Ends the wait: the message has room, or the connection has closed.
    pub(super) fn forget(&mut self, conn: u64) {
        if let Some(place) = self.places.remove(&conn) {
            self.waiting.remove(&place);
        }
        self.news.remove(&conn);
    }
}

/// The accounts that have a message in progress, while room is granted. One scan of all connections finds them; a grant
/// brings messages into progress, and nothing else happens to messages meanwhile.
#[derive(Debug, Default)]
struct Served(BTreeSet<Principal>);

impl Served {
    /// Notes a connection: in a scan, or when it has been granted room.
    fn note(&mut self, owner: &Principal, framing: &Framing, holding: Holding) {
        if framing.is_in_progress(holding) {
            self.0.insert(owner.clone());
        }
    }

    /// Returns whether a message of this account is in progress.
    fn contains(&self, owner: &Principal) -> bool {
        self.0.contains(owner)
    }
}

/// The result of an attempt to grant room.
enum Granted {
    /// The message has all the room it needs.
    Yes,
    /// The account has its share; others may go first.
    AccountWaits,
    /// There is no room; no later message goes first.
    AllWait,
}

/// Bytes that may be queued or promised, over all connections, in a log of this length.
pub fn room_for_received(log_bytes: u64, has_effects: bool) -> usize {
    let part = match has_effects {
        true => WINDOWS_PART_BESIDE_EFFECTS,
        false => WINDOWS_PART,
    };
    usize::try_from(log_bytes / part).unwrap_or(usize::MAX)
}

impl<F: FileSystem> Machine<F> {
    /// Grants room to messages that have begun, and acknowledges what was received of them: no reply follows yet.
    pub(super) fn grant_windows(&mut self, now: Duration) {
        for conn in std::mem::take(&mut self.windows.news) {
            self.look_at_framing(conn);
        }
        let waiting: Vec<u64> = self.windows.waiting.values().copied().collect();
        // It is not needed as long as there is room.
        let mut served = None;
        for conn in waiting {
            match self.grant_room(conn, &mut served) {
                Granted::Yes => self.windows.forget(conn),
                Granted::AccountWaits => self.note_shortage(now),
                Granted::AllWait => return self.note_shortage(now),
            }
        }
    }

    fn look_at_framing(&mut self, conn: u64) {
        let (Some(client), Some(received)) =
            (self.clients.get_mut(&conn), self.stack.received(conn))
        else {
            return;
        };
        let queued = self.stack.received_len(conn);
        client.framing.look(received, queued);
        if client.framing.missing(queued) > 0 {
            self.windows.wait(conn);
            self.stack.acknowledge(conn, &mut self.journal);
        }
    }

    fn grant_room(&mut self, conn: u64, served: &mut Option<Served>) -> Granted {
        let Some(client) = self.clients.get(&conn).filter(|client| !client.leaving) else {
            return Granted::Yes;
        };
        let holding = self.stack.holding(conn);
        let length = client.framing.next;
        let missing = client.framing.missing(holding.queued);
        let most = UNAUTHENTICATED_MESSAGE + outlast_smb::wire::frame::LEN;
        let too_long = length > most && !self.smb.has_session(conn);
        if missing == 0 || too_long {
            return Granted::Yes;
        }
        let need = missing.saturating_sub(holding.promised);
        let left = self.stack.receive_left();
        let reserve = self.stack.config().receive_reserve;
        if need > 0 && left < need + reserve {
            // If no message of the account is in progress, room is granted down to the last byte: what others have
            // received beyond a message's end waits for room itself.
            let served = served.get_or_insert_with(|| self.served());
            if served.contains(self.journal.owner(conn)) {
                return Granted::AccountWaits;
            }
            if left < need {
                return Granted::AllWait;
            }
        }
        let spare = left.saturating_sub(need + reserve) / LOOKAHEAD_PART;
        let ahead = if length >= BULK {
            spare.min(LOOKAHEAD_MAX)
        } else {
            0
        };
        if missing + ahead > holding.promised {
            self.stack.grant(conn, missing + ahead, &mut self.journal);
            if let Some(served) = served {
                self.note_progress(conn, served);
            }
        }
        Granted::Yes
    }

    fn served(&self) -> Served {
        let mut served = Served::default();
        for conn in self.clients.keys() {
            self.note_progress(*conn, &mut served);
        }
        served
    }

    fn note_progress(&self, conn: u64, served: &mut Served) {
        if let Some(client) = self.clients.get(&conn) {
            let (owner, holding) = (self.journal.owner(conn), self.stack.holding(conn));
            served.note(owner, &client.framing, holding);
        }
    }
}

#[cfg(test)]
mod tests;
