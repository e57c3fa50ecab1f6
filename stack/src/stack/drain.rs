//! Planned outages: data in flight is acknowledged, then the windows are shut (patent, Fig. 2).

use std::time::Duration;

use super::Stack;
use crate::ConnId;
use crate::tcp::conn::Conn;

/// The shortest silence on a connection before its window is shut (or two round trips, if they take longer); the same
/// if no round trip has been measured; and the longest wait for such silence. Clients wait for as long.
const QUIET: Duration = Duration::from_millis(1);
const QUIET_UNMEASURED: Duration = Duration::from_millis(5);
const QUIET_LIMIT: Duration = Duration::from_secs(3);
/// A connection without progress for this time keeps its window. Clients wait until all windows are shut, and most of a
/// thousand connections are idle.
const IDLE: Duration = Duration::from_secs(1);

/// A planned outage under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    since: Duration,
    /// The windows of 0 are announced.
    shut: bool,
}

impl Stack {
    /// Begins or ends a planned outage. On: no right edge moves; once all that was in flight has arrived, windows of 0
    /// are announced on connections that moved within the last second, and [`drained`](Stack::drained) is true. Off:
    /// the windows are offered again.
    ///
    /// This is the only case in which a window is taken back (RFC 9293, section 3.8.6); what the peer still sends
    /// within its old window is accepted.
    pub fn drain(&mut self, on: bool) {
        if on {
            let since = self.now;
            self.drain.get_or_insert(Drain { since, shut: false });
            // No reply follows that could carry an acknowledgement.
            for conn in self.conns.keys().copied().collect::<Vec<_>>() {
                let target = self.conns.get_mut(&conn);
                if target.is_some_and(Conn::acknowledge) {
                    self.mark_dirty(conn);
                }
            }
        } else if self.drain.take().is_some() {
            self.shut_windows(false);
        }
    }

    /// Returns whether the windows of 0 have been handed to the caller of [`poll`](Stack::poll).
    pub fn drained(&self) -> bool {
        self.drain.is_some_and(|drain| drain.shut) && self.dirty.is_empty()
    }

    pub(super) fn shut_windows_when_quiet(&mut self) {
        let Some(drain) = self.drain.filter(|drain| !drain.shut) else {
            return;
        };
        let quiet = self
            .conns
            .values()
            .all(|conn| conn.is_quiet(QUIET, QUIET_UNMEASURED, self.now));
        if quiet || self.now.saturating_sub(drain.since) >= QUIET_LIMIT {
            self.drain = Some(Drain {
                shut: true,
                ..drain
            });
            self.shut_windows(true);
        }
    }

    fn shut_windows(&mut self, shut: bool) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            let target = self.conns.get_mut(&conn);
            let now = self.now;
            if let Some(target) = target.filter(|target| !(shut && target.is_idle(IDLE, now))) {
                target.shut_window(shut);
                self.mark_dirty(conn);
            }
        }
    }

    /// Returns when to check again whether all is quiet.
    pub(super) fn drain_deadline(&self) -> Option<Duration> {
        let is_waiting = self.drain.is_some_and(|drain| !drain.shut);
        is_waiting.then_some(self.now + QUIET / 2)
    }
}
