//! Keeps a time until which all local changes of watched directories are known to have been reported.
//!
//! A server that is down misses what local processes change. After a recovery the file system is asked whether a
//! watched directory has changed since a recorded time: the wall time of a turn that had read all events of inotify
//! until then. The server's own operations change directories too, so the time is recorded again soon after each of
//! them.

use std::time::Duration;

use outlast_fsa::fileop::FileTime;

use super::clock::Time;

/// The delay after an effect on files before the time is recorded again. It is longer than the granularity of the
/// kernel's change times.
const QUIET: Duration = Duration::from_millis(50);

/// The recorded time, and the one to record next.
#[derive(Debug)]
pub struct Watched {
    /// All local changes until then have been reported; `None`: nothing is watched.
    reported: Option<FileTime>,
    recorded: FileTime,
    /// The last effect on files, or local change, during service.
    last_effect: Option<Duration>,
    /// When to record the time next.
    due: Option<Duration>,
    is_due: bool,
}

impl Watched {
    /// Makes the state from the recorded time.
    #[must_use]
    pub fn recorded(recorded: FileTime) -> Watched {
        Watched {
            reported: None,
            recorded,
            last_effect: None,
            due: None,
            is_due: false,
        }
    }

    /// Notes that a directory begins to be watched: earlier changes in it do not count.
    pub fn begin(&mut self, time: Time) {
        self.reported = Some(time.wall);
        self.is_due = true;
    }

    /// Notes that every local change until now has been reported, if anything is watched.
    pub fn reported(&mut self, time: Time, is_watching: bool) {
        self.is_due |= is_watching && self.reported.is_none();
        self.reported = is_watching.then_some(time.wall);
        if self.due.is_some_and(|due| due <= time.now) {
            self.is_due = true;
            let is_late = |last: Duration| last + QUIET > time.now;
            self.due = (self.last_effect.is_some_and(is_late)).then(|| time.now + QUIET);
        }
    }

    /// Notes that files have been changed.
    pub fn effect(&mut self, now: Duration) {
        self.last_effect = Some(now);
        self.due.get_or_insert(now + QUIET);
    }

    /// The latest time at which [`Watched::reported`] has to be called.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.reported.and(self.due)
    }

    /// Returns whether the time has to be recorded with the next commit.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Returns the time to record, if it differs, and if it is due or `with_clock` (the clock is recorded anyway).
    pub fn advance(&mut self, with_clock: bool) -> Option<FileTime> {
        let wanted = std::mem::take(&mut self.is_due) || with_clock;
        let reported = self
            .reported
            .filter(|reported| wanted && *reported != self.recorded)?;
        self.recorded = reported;
        Some(reported)
    }
}

#[cfg(test)]
mod tests;
