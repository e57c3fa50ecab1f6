//! Decides when the keys of ended sessions are wiped from the log.

use std::time::Duration;

use outlast_nvram::Log;

/// How long the keys of an ended session may stay in the log. Wiping copies all live state, so one wiping serves all
/// sessions that have ended meanwhile.
const KEPT: Duration = Duration::from_secs(60);
/// The time between two turns of the copying, on an otherwise idle server.
const PAUSE: Duration = Duration::from_millis(10);

/// The state of the wiping.
#[derive(Debug)]
pub(super) struct Wiping {
    /// A session has ended since the last commit.
    has_ended: bool,
    /// When the log is wiped.
    due: Option<Duration>,
    /// The last turn.
    turn: Duration,
}

impl Wiping {
    /// The state at a start: the server before may have left something to wipe.
    pub fn at_start() -> Wiping {
        Wiping {
            has_ended: true,
            due: None,
            turn: Duration::ZERO,
        }
    }

    /// Notes that a session has ended, or a connection with all of its own.
    pub fn session_ended(&mut self) {
        self.has_ended = true;
    }

    /// Takes a turn at `now`, before its last commit: wiping begins when it is due.
    pub fn turn(&mut self, now: Duration, log: &mut Log) {
        self.turn = now;
        if std::mem::take(&mut self.has_ended) {
            self.due.get_or_insert(now + KEPT);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            log.start_wiping();
        }
    }

    /// When its next turn is due.
    pub fn deadline(&self, log: &Log) -> Option<Duration> {
        let copying = log.is_wiping().then(|| self.turn + PAUSE);
        copying.or(self.due)
    }
}

#[cfg(test)]
mod tests;
