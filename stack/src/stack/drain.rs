//! Planned outages: what is in flight is acknowledged, then the windows are shut (patent, Fig. 2).

use std::time::Duration;

use super::Stack;
use crate::ConnId;

/// How long nothing must have come at least (two round trips, if they take longer), how long if no round
/// trip has been measured, and how long to wait for that at most. Clients wait for as long.
const QUIET: Duration = Duration::from_millis(1);
const QUIET_UNMEASURED: Duration = Duration::from_millis(5);
const QUIET_LIMIT: Duration = Duration::from_secs(3);
/// The window of a connection on which nothing has moved for so long stays as it is. Clients wait until
/// all are shut, and most of a thousand connections are idle.
const IDLE: Duration = Duration::from_secs(1);

/// A planned outage under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    since: Duration,
    /// The windows of 0 are announced.
    shut: bool,
}

impl Stack {
    /// Planned outage. On: no right edge moves any more; once all that was in flight has come, windows of 0 are
    /// announced where something has moved within the last second, and [`drained`](Stack::drained) is true. Off: the
    /// windows are offered again.
    ///
    /// A window of 0 takes back what was promised, the one time we do (RFC 9293, section 3.8.6); what the peer still
    /// sends within its old window is accepted all the same.
    pub fn drain(&mut self, on: bool) {
        if on {
            let since = self.now;
            self.drain.get_or_insert(Drain { since, shut: false });
            // No reply follows on which an acknowledgement could ride.
            for conn in self.conns.keys().copied().collect::<Vec<_>>() {
                if let Some(target) = self.conns.get_mut(&conn) {
                    target.acknowledge();
                    self.touch(conn);
                }
            }
        } else if self.drain.take().is_some() {
            self.shut_windows(false);
        }
    }

    /// The windows of 0 have been handed to [`poll`](Stack::poll)'s caller.
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
                self.touch(conn);
            }
        }
    }

    /// When to look again whether all is quiet.
    pub(super) fn drain_deadline(&self) -> Option<Duration> {
        let is_waiting = self.drain.is_some_and(|drain| !drain.shut);
        is_waiting.then_some(self.now + QUIET / 2)
    }
}
