//! Answers segments that belong to no connection (the state CLOSED, RFC 9293, section 3.10.7.1).

use std::collections::VecDeque;
use std::time::Duration;

use super::Stack;
use crate::tcp::conn::Conn;
use crate::tcp::segment::{Header, Received};
use crate::{ConnId, Path, Seq, State};

/// Resets per second of service time that answer segments of no connection.
const RESETS_PER_SECOND: u32 = 100;
/// The number of ended connections whose last numbers are kept.
const ENDED_MAX: usize = 256;
/// The time for which they are kept: two maximum segment lifetimes, as in TIME-WAIT.
const ENDED_LIFE: Duration = Duration::from_secs(60);

/// The resets of the current second, and the connections that ended lately.
///
/// After each return our FIN is sent again, and a peer in TIME-WAIT acknowledges each copy. The first acknowledgement
/// ends the connection; a reset in answer to the others would end the peer's TIME-WAIT too early (RFC 1337). The list
/// is not durable: a crash between two acknowledgements costs a reset, which no application sees.
#[derive(Default)]
pub(super) struct Closed {
    second: u64,
    resets: u32,
    ended: VecDeque<Ended>,
}

/// A connection that was closed by both sides, and the last sequence numbers of both.
struct Ended {
    at: Duration,
    path: Path,
    rcv_nxt: Seq,
    snd_una: Seq,
}

impl Closed {
    /// Notes that the peer has acknowledged our FIN in LAST-ACK.
    pub(super) fn note(&mut self, conn: &Conn, now: Duration) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended {
            at: now,
            path: conn.durable.path,
            rcv_nxt: conn.durable.rcv_nxt,
            snd_una: conn.durable.snd_una,
        });
    }

    /// Returns whether the segment says only what an ended connection has received already.
    fn is_late(&self, segment: &Received<'_>, path: &Path, now: Duration) -> bool {
        self.ended.iter().any(|ended| {
            (ended.path.local, ended.path.remote) == (path.local, path.remote)
                && now < ended.at + ENDED_LIFE
                && !segment.syn
                && segment.seq + segment.len() <= ended.rcv_nxt
                && segment.ack.is_some_and(|ack| ack <= ended.snd_una)
        })
    }

    /// Returns whether one more reset is permitted in this second, and counts it.
    fn permits_reset(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            (self.second, self.resets) = (now.as_secs(), 0);
        }
        let permitted = self.resets < RESETS_PER_SECOND;
        self.resets += u32::from(permitted);
        permitted
    }
}

impl Stack {
    /// Resets the peer, unless the segment is a late one of a connection that both sides have closed.
    pub(super) fn refuse(&mut self, segment: &Received<'_>, path: Path) {
        if !self.closed.permits_reset(self.now) || self.closed.is_late(segment, &path, self.now) {
            return;
        }
        let mut reset = Header::new(
            path.local.port(),
            path.remote.port(),
            segment.ack.unwrap_or_default(),
        );
        reset.rst = true;
        if segment.ack.is_none() {
            reset.ack = Some(segment.seq + segment.len());
        }
        //= rfc7323 5.2c, 5.2d
        reset.timestamp = segment.timestamp.map(|(tsval, _)| (0, tsval));
        self.resets.push((path, reset));
    }

    /// Removes a connection in the state CLOSED. `before`: its state before the last segment.
    pub(super) fn remove_closed(&mut self, conn: ConnId, before: State) {
        if let Some(gone) = self.conns.get(&conn)
            && before == State::LastAck
            && !gone.durable.fin_queued
        {
            self.closed.note(gone, self.now);
        }
        self.forget(conn);
    }
}
