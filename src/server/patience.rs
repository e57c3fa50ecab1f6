//! Evicts idle, stalled and unauthenticated clients; where room or places are short, clients of the account that holds
//! most.
//!
//! A full log makes everyone slow (law 7), so a client that takes up room in it has to take the replies that wait for
//! it, and to send the rest of the message that it has begun. A client that does neither is dropped, soon if others
//! wait for that room.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use log::{info, warn};
use outlast_smb::Principal;
use outlast_stack::Standing;

use super::files::FileSystem;
use super::machine::{Client, Machine};
use super::work::UnderWay;
use crate::metrics::Eviction;
use crate::one_line::OneLine;

/// What has to come or be taken for a client to be going on, bytes; or all there is.
const ENOUGH: usize = 64 << 10;

/// Told to go, a client closes its side within this time, or is reset (its TCP would stay in FIN-WAIT-2 for good).
const FAREWELL: Duration = Duration::from_secs(60);

/// After an outage a client's retransmission timer may be backed off that far.
const AFTER_OUTAGE: Duration = Duration::from_secs(60);

/// What is borne of clients. In service time: an outage does not count.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without having logged in, whatever else it does.
    pub login: Duration,
    /// Without an open and without a request; `None`: for ever.
    pub idle: Option<Duration>,
    /// With replies that it does not take, or a message that it does not finish.
    pub stalled: Duration,
    /// The same while others wait for room in the log.
    pub stalled_in_crowd: Duration,
    /// Connections that have not logged in. With one more the oldest is dropped.
    pub strangers: usize,
    /// Connections that TCP takes. Some places are kept free.
    pub connections: usize,
    /// Bytes of replies that may wait for one client before no more of its requests are worked on.
    pub unread: usize,
}

impl Patience {
    /// How often clients are looked at.
    fn interval(self) -> Duration {
        self.login
            .min(self.idle.unwrap_or(self.login))
            .min(self.stalled)
            / 4
    }
}

/// Where a client was when it was last seen to be going on, or to owe nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    at: Duration,
    standing: Standing,
}

impl<F: FileSystem> Machine<F> {
    /// One more connection that has not logged in.
    pub(super) fn meet(&mut self, conn: u64) {
        self.strangers.insert(conn);
        while self.strangers.len() > self.patience.strangers
            && let Some(oldest) = self.strangers.pop_first()
        {
            let is_known = self.smb.has_session(oldest)
                || self
                    .clients
                    .get(&oldest)
                    .is_none_or(|client| client.leaving);
            if !is_known {
                info!("connection {oldest}: dropped: too many have not logged in");
                self.counting.counts.evict(Eviction::TooManyUnauthenticated);
                self.abort(oldest);
            }
        }
    }

    /// Keeps places free for new connections: the account that has most connections loses the one that has been idle
    /// for longest.
    pub(super) fn keep_a_place_free(&mut self) {
        let limit = self.patience.connections;
        let free = (limit / 16).clamp(1, 16);
        let taken = self.stack.connections().count();
        for _ in limit..taken + free {
            let Some(conn) = self.longest_idle() else {
                return;
            };
            let account = self.journal.owner(conn);
            info!(
                "connection {conn}: dropped: a newcomer needs its place, and most connections are of {account}"
            );
            self.counting.counts.evict(Eviction::PlaceNeeded);
            self.abort(conn);
        }
    }

    /// Of the account that has most connections, the one that has been idle for longest; one that has nothing open, if
    /// there is one.
    fn longest_idle(&self) -> Option<u64> {
        let stay = |(_, client): &(&u64, &Client)| !client.closed && !client.leaving;
        let staying = || self.clients.iter().filter(stay);
        let mut accounts: BTreeMap<&Principal, usize> = BTreeMap::new();
        for (conn, _) in staying() {
            *accounts.entry(self.journal.owner(*conn)).or_default() += 1;
        }
        let (largest, _) = accounts.into_iter().max_by_key(|(_, count)| *count)?;
        let own = staying().filter(|(conn, _)| self.journal.owner(**conn) == largest);
        let by_use = |(conn, client): &(&u64, &Client)| (!self.smb.is_idle(**conn), client.active);
        own.min_by_key(by_use).map(|(conn, _)| *conn)
    }

    /// Where more state is held than there is room for, the account that has most loses its largest connections.
    pub(super) fn part_with_the_largest(&mut self) {
        while let Some((conn, account)) = self.smb.to_part_with() {
            let is_at_work = |at: &UnderWay| at.work.conn() == conn;
            if self.under_way.as_ref().is_some_and(is_at_work) {
                return;
            }
            let (own, all) = (self.smb.durable_bytes(conn), self.smb.all_durable_bytes());
            warn!(
                "connection {conn}: dropped: the state of all connections is {all} bytes, more than there is room for, and {account} has \
                 most of it ({own} bytes on this connection); give nvram.size more if that is not hostile"
            );
            self.counting.counts.evict(Eviction::StateTooLarge);
            self.abort(conn);
        }
    }

    /// Drops the connections of a client, by its address with or without port, or of a user. Gives their number.
    pub fn disconnect(&mut self, whom: &str) -> usize {
        let of_client =
            |client: SocketAddr| client.to_string() == whom || client.ip().to_string() == whom;
        let of_user = |names: &str| {
            names
                .split(", ")
                .any(|name| name.eq_ignore_ascii_case(whom))
        };
        let dropped: Vec<(u64, SocketAddr)> = self
            .stack
            .status()
            .into_iter()
            .filter(|tcp| of_client(tcp.client) || of_user(&self.smb.status(tcp.conn).user))
            .map(|tcp| (tcp.conn, tcp.client))
            .collect();
        for (conn, client) in &dropped {
            info!(
                "connection {conn} of {client}: dropped by `outlast disconnect {}`",
                OneLine(whom)
            );
            self.counting.counts.evict(Eviction::Disconnected);
            self.abort(*conn);
        }
        dropped.len()
    }

    /// After an outage nobody is pressed for a while.
    pub(super) fn bear_with_all(&mut self, now: Duration) {
        self.unpressed_until = now + AFTER_OUTAGE;
    }

    /// Somebody waits for room in the log.
    pub(super) fn note_crowd(&mut self, now: Duration) {
        self.is_crowded = true;
        let soon = now + self.patience.stalled_in_crowd / 2;
        self.next_look = self.next_look.min(soon);
    }

    /// Closes the connections of clients that do not log in, or do nothing for too long; drops those that do not go on.
    pub(super) fn look_after_clients(&mut self, now: Duration) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + self.patience.interval();
        self.looked_at = now;
        let mut stalled = Vec::new();
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.dismiss_idler(conn, now);
            let since = self.stalled_for(conn, now);
            if since > self.patience.stalled {
                self.drop_stalled(conn, since);
            } else if since > self.patience.stalled_in_crowd {
                let held = self.stack.send_queued(conn) + self.stack.holding(conn).sum();
                stalled.push((held, conn, since));
            }
        }
        if std::mem::take(&mut self.is_crowded) && now >= self.unpressed_until {
            self.drop_largest(stalled);
        }
    }

    /// The first of those that hold most, until there is some room.
    fn drop_largest(&mut self, mut stalled: Vec<(usize, u64, Duration)>) {
        stalled.sort_unstable();
        let mut needed = self.journal.unread_limit() / 4;
        while needed > 0
            && let Some((held, conn, since)) = stalled.pop()
        {
            self.drop_stalled(conn, since);
            needed = needed.saturating_sub(held as u64);
        }
    }

    fn drop_stalled(&mut self, conn: u64, since: Duration) {
        info!(
            "connection {conn}: dropped: for {} s it has neither taken its replies nor finished its message",
            since.as_secs()
        );
        self.counting.counts.evict(Eviction::Stalled);
        self.abort(conn);
    }

    /// For how long a client has owed something and not gone on with it.
    fn stalled_for(&mut self, conn: u64, now: Duration) -> Duration {
        let (Some(client), Some(standing)) =
            (self.clients.get_mut(&conn), self.stack.standing(conn))
        else {
            return Duration::ZERO;
        };
        let at_work = |under_way: &UnderWay| under_way.work.conn() == conn;
        let has_replies = self.stack.send_queued(conn) > 0;
        let has_part = !client.look
            && !self.windows.is_waiting(conn)
            && !self.under_way.as_ref().is_some_and(at_work)
            && self.stack.received_len(conn) > 0;
        let goes_on = |mark: &Mark| {
            let taken = standing.snd_una.since(mark.standing.snd_una) >= ENOUGH;
            let come = standing.rcv_nxt.since(mark.standing.rcv_nxt) >= ENOUGH;
            // who is refused has tried
            let tried = standing.refused_at >= Some(mark.at);
            let answered = client.active > mark.at;
            answered || ((taken || !has_replies) && (come || tried || !has_part))
        };
        match client.mark {
            Some(mark) if (has_replies || has_part) && !goes_on(&mark) => {
                now.saturating_sub(mark.at)
            }
            _ => {
                client.mark = Some(Mark { at: now, standing });
                Duration::ZERO
            }
        }
    }

    fn dismiss_idler(&mut self, conn: u64, now: Duration) {
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        let idle = now.saturating_sub(client.active);
        // a session may have ended by another connection's request (PreviousSessionId)
        let unknown_since = match self.smb.has_session(conn) {
            true => None,
            false => Some(client.unknown_since.unwrap_or(now)),
        };
        client.unknown_since = unknown_since;
        let unknown = unknown_since.map(|since| now.saturating_sub(since));
        if client.leaving {
            if idle > FAREWELL {
                self.stack.abort(conn, &mut self.journal);
            }
            return;
        }
        let (why, since, eviction) = match (unknown, self.patience.idle) {
            (Some(unknown), _) if unknown > self.patience.login => {
                ("it has not logged in", unknown, Eviction::NotLoggedIn)
            }
            (None, Some(limit)) if idle > limit && self.smb.is_idle(conn) => {
                ("it is idle", idle, Eviction::Idle)
            }
            _ => return,
        };
        self.counting.counts.evict(eviction);
        info!("connection {conn}: closed: {why} for {} s", since.as_secs());
        client.active = now;
        self.leave(conn);
        self.stack.close(conn, &mut self.journal);
    }
}
