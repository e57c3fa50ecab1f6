//! Until when local changes of watched directories are known to have been told.
//!
//! A server that is away misses what local processes change. After a recovery the file system is asked whether a
//! watched directory has changed since a time on record: the wall time of a turn that had read all events of inotify
//! until then. The server's own operations change directories too, so that time is put on record again soon after each
//! of them.

use std::time::Duration;

use outlast_fsa::fileop::FileTime;

use super::clock::Time;

/// So long after an effect on files the time is put on record again. It is longer than the kernel's times of changes
/// are coarse.
const QUIET: Duration = Duration::from_millis(50);

/// The time that is on record, and the one that might be.
#[derive(Debug)]
pub struct Watched {
    /// All local changes until then have been told; `None`: nobody watches.
    told: Option<FileTime>,
    on_record: FileTime,
    /// The last effect on files, or local change, that came about in service.
    last_effect: Option<Duration>,
    /// When the time is to be put on record next.
    due: Option<Duration>,
    is_due: bool,
}

impl Watched {
    /// What is on record.
    #[must_use]
    pub fn on_record(on_record: FileTime) -> Watched {
        Watched {
            told: None,
            on_record,
            last_effect: None,
            due: None,
            is_due: false,
        }
    }

    /// A directory begins to be watched: what changed in it before does not count.
    pub fn begin(&mut self, time: Time) {
        self.told = Some(time.wall);
        self.is_due = true;
    }

    /// Every local change until now has been told, if anybody watches.
    pub fn told(&mut self, time: Time, is_watching: bool) {
        self.is_due |= is_watching && self.told.is_none();
        self.told = is_watching.then_some(time.wall);
        if self.due.is_some_and(|due| due <= time.now) {
            self.is_due = true;
            let is_late = |last: Duration| last + QUIET > time.now;
            self.due = (self.last_effect.is_some_and(is_late)).then(|| time.now + QUIET);
        }
    }

    /// Files have been changed.
    pub fn effect(&mut self, now: Duration) {
        self.last_effect = Some(now);
        self.due.get_or_insert(now + QUIET);
    }

    /// When [`Watched::told`] is to be called, at the latest.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.told.and(self.due)
    }

    /// Is the time to be put on record with the next commit?
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// The time to put on record: if there is another, and it is due or `with_clock`, the clock's being put on record
    /// anyway.
    pub fn advance(&mut self, with_clock: bool) -> Option<FileTime> {
        let wanted = std::mem::take(&mut self.is_due) || with_clock;
        let told = self.told.filter(|told| wanted && *told != self.on_record)?;
        self.on_record = told;
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time {
            now: Duration::from_millis(millis),
            wall: 1_000_000_000 + millis * 10_000,
        }
    }

    #[test]
    fn the_time_follows_every_effect_and_rests_then() {
        let mut watched = Watched::on_record(0);
        watched.effect(at(0).now);
        assert_eq!(watched.due(), None, "nobody watches");
        watched.told(at(1000), true);
        assert_eq!(watched.advance(false), Some(at(1000).wall), "it is due");
        // An effect every 10 ms, until 1500; the time on record is never much older.
        let mut on_record = at(1000).wall;
        for millis in (1010..1600).step_by(10) {
            watched.told(at(millis), true);
            on_record = watched.advance(false).unwrap_or(on_record);
            assert!(at(millis).wall - on_record <= 60 * 10_000, "{millis}");
            if millis <= 1500 {
                watched.effect(at(millis).now);
            }
        }
        // The last one came before it by more than the kernel's clock is coarse.
        assert!(on_record >= at(1530).wall);
        assert_eq!(watched.due(), None);
        watched.told(at(9000), true);
        assert_eq!(watched.advance(false), None);
        assert_eq!(watched.advance(true), Some(at(9000).wall));
        watched.told(at(9500), false);
        assert_eq!(watched.advance(true), None);
    }
}
