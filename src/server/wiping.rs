//! Decides when the log is wiped of the keys of sessions that have ended.

use std::time::Duration;

use outlast_nvram::Log;

/// How long the keys of an ended session may stay in the log. The wiping that follows copies all that is alive, so it
/// serves all sessions that have ended meanwhile.
const KEPT: Duration = Duration::from_secs(60);
/// Between two turns of the copying, on a server that has nothing else to do.
const PAUSE: Duration = Duration::from_millis(10);

/// What is known of keys that nobody needs any more.
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
    /// At a start: the server before may have had something to wipe.
    pub fn at_start() -> Wiping {
        Wiping {
            has_ended: true,
            due: None,
            turn: Duration::ZERO,
        }
    }

    /// A session has ended, or a connection with all of its own.
    pub fn session_ended(&mut self) {
        self.has_ended = true;
    }

    /// A turn at `now`, before its last commit: wiping begins when it is due.
    pub fn turn(&mut self, now: Duration, log: &mut Log) {
        self.turn = now;
        if std::mem::take(&mut self.has_ended) {
            self.due.get_or_insert(now + KEPT);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            log.give_up();
        }
    }

    /// When the next turn is due for it.
    pub fn deadline(&self, log: &Log) -> Option<Duration> {
        let copying = log.is_giving_up().then(|| self.turn + PAUSE);
        copying.or(self.due)
    }
}

#[cfg(test)]
mod tests;
