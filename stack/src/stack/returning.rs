//! Resumes the connections after an outage, in groups: those with work in progress first.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use super::{LinkWire, Lost, Stack};
use crate::tcp::conn::{Conn, Live};
use crate::{ConnId, Journal, TxFrame};

/// The number of connections that one [`poll`](Stack::poll) resumes. Each is sent a frame, or more; with thousands of
/// connections the first would wait until the frames of all are sent.
const RESUMED_PER_POLL: usize = 64;

/// The connections that have not been resumed yet.
#[derive(Default)]
pub(super) struct Returning {
    conns: VecDeque<ConnId>,
    /// Frames of the peers may be lost.
    lost: bool,
}

impl Returning {
    /// Returns whether there are any.
    pub(super) fn is_any(&self) -> bool {
        !self.conns.is_empty()
    }
}

impl Stack {
    /// Starts reading and sending frames. Called once, when every object is restored, also after a fresh start. The
    /// frames to send at once are put into `out`: our addresses are announced, unacknowledged bytes are sent again,
    /// clients that were sending are woken (RFC 6069, once per recovery), and every client is sent its window. Of many
    /// connections, those follow by the next calls of [`poll`](Stack::poll) that have nothing queued, or on which
    /// nothing has happened lately. As with `poll`, the frames leave after the next commit.
    pub fn resume(
        &mut self,
        now: Duration,
        lost: Lost,
        journal: &mut dyn Journal,
        out: &mut Vec<TxFrame>,
    ) {
        self.now = self.now.max(now);
        self.open = true;
        out.extend(self.link.announce());
        let mut conns: Vec<&Conn> = self.conns.values().collect();
        conns.sort_by_key(|conn| (conn.has_nothing_queued(), Reverse(conn.live.applied)));
        self.returning = Returning {
            conns: conns.iter().map(|conn| conn.id).collect(),
            lost: lost == Lost::Frames,
        };
        self.timers.clear();
        self.dirty.clear();
        self.usage.out_of_order = 0;
        for target in self.conns.values_mut() {
            target.live = Live::new(&target.durable, self.link.mtu(), self.now);
        }
        self.poll(now, journal, out);
    }

    /// Resumes the next group of connections.
    pub(super) fn resume_some(&mut self, out: &mut Vec<TxFrame>) {
        for _ in 0..RESUMED_PER_POLL {
            let Some(conn) = self.returning.conns.pop_front() else {
                return;
            };
            let mut wire = LinkWire {
                link: &self.link,
                out,
            };
            // It may have ended meanwhile.
            if let Some(target) = self.conns.get_mut(&conn) {
                target.resume(self.returning.lost, self.now, &mut wire);
                self.mark_dirty(conn);
            }
        }
    }
}
