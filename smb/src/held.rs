//! What connections hold, and how much of it they may: each within its own limit, all together within a total.

use crate::config::Limits;
use crate::server::{ConnId, Smb};
use crate::state::{Open, Parked, Target};
use serde::Serialize;

/// Bytes of an open or a waiting request in a snapshot, besides what is counted one by one.
const FIXED: usize = 192;
/// Bytes of a byte-range lock.
const LOCK: usize = 24;
/// Bytes of a notice besides its name, and of a lock sequence.
const SMALL: usize = 16;

/// What one connection holds, or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Opens.
    pub opens: usize,
    /// Byte-range locks.
    pub locks: usize,
    /// Requests that wait.
    pub pending: usize,
    /// Directory watches.
    pub watches: usize,
    /// Bytes all this takes in a snapshot, about.
    pub bytes: usize,
}

impl Held {
    pub(crate) fn of_open(open: &Open) -> Held {
        let mut held = Held {
            opens: 1,
            bytes: FIXED,
            ..Held::default()
        };
        match &open.target {
            Target::Pipe(pipe) => held.bytes += pipe.size(),
            Target::File(file) => {
                let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
                let notices = file.watch.iter().flat_map(|watch| &watch.notices);
                held.locks = file.locks.len();
                held.watches = usize::from(file.watch.is_some());
                held.bytes += file.path.len()
                    + file.handle.bytes.len()
                    + text(&file.cursor.pattern)
                    + text(&file.cursor.after)
                    + file.locks.len() * LOCK
                    + file.lock_sequences.len() * SMALL
                    + notices
                        .map(|notice| notice.name.len() + SMALL)
                        .sum::<usize>();
            }
        }
        held
    }

    pub(crate) fn of_parked(parked: &Parked) -> Held {
        let answers: usize = parked
            .work
            .answers
            .iter()
            .map(|answer| answer.body.len() + FIXED)
            .sum();
        Held {
            pending: 1,
            bytes: FIXED + parked.message.len() + answers,
            ..Held::default()
        }
    }

    pub(crate) fn add(&mut self, other: Held) {
        self.each(other, |own, other| *own += other);
    }

    pub(crate) fn subtract(&mut self, other: Held) {
        self.each(other, |own, other| *own -= other);
    }

    fn each(&mut self, other: Held, mut f: impl FnMut(&mut usize, usize)) {
        let Held {
            opens,
            locks,
            pending,
            watches,
            bytes,
        } = other;
        f(&mut self.opens, opens);
        f(&mut self.locks, locks);
        f(&mut self.pending, pending);
        f(&mut self.watches, watches);
        f(&mut self.bytes, bytes);
    }

    /// The limits of one connection.
    pub(crate) fn most_of_one(limits: &Limits) -> Held {
        Held {
            opens: limits.opens,
            locks: limits.total.locks,
            pending: limits.pending,
            watches: limits.watches,
            // a connection is written again in one record
            bytes: limits.total.bytes / 2,
        }
    }

    /// Is this, with `more` of it, within what one may have (`most`) and the total allows? Three quarters of the total are for
    /// whoever comes first; of the last one each of `connections` has a part, so that nobody can take everything.
    fn allows(self, more: Held, all: Held, most: Held, total: Held, connections: usize) -> bool {
        let fits = |own: usize, more: usize, all: usize, most: usize, total: usize| {
            let shared = total - total / 4;
            let part = total / 4 / connections.max(1);
            more == 0
                || own.saturating_add(more) <= most
                    && (all.saturating_add(more) <= shared
                        || own.saturating_add(more) <= part && all.saturating_add(more) <= total)
        };
        fits(self.opens, more.opens, all.opens, most.opens, total.opens)
            && fits(self.locks, more.locks, all.locks, most.locks, total.locks)
            && fits(
                self.pending,
                more.pending,
                all.pending,
                most.pending,
                total.pending,
            )
            && fits(
                self.watches,
                more.watches,
                all.watches,
                most.watches,
                total.watches,
            )
            && fits(self.bytes, more.bytes, all.bytes, most.bytes, total.bytes)
    }
}

impl Smb {
    /// May this connection take that much more?
    pub(crate) fn may_take(&self, conn: ConnId, more: Held) -> bool {
        let limits = &self.config.limits;
        self.files.held(conn).allows(
            more,
            self.files.held_by_all(),
            Held::most_of_one(limits),
            limits.total,
            self.connections.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(opens: usize) -> Held {
        Held {
            opens,
            ..Held::default()
        }
    }

    #[test]
    fn the_last_quarter_is_everyones() {
        let allows = |own, all| opens(own).allows(opens(1), opens(all), opens(60), opens(80), 5);
        assert!(allows(59, 59), "within the shared part");
        assert!(!allows(60, 60), "the connection's own limit");
        assert!(
            !allows(30, 60),
            "the shared part is full, and it has more than its part"
        );
        assert!(allows(3, 60) && !allows(4, 60), "its part is 80 / 4 / 5");
        assert!(!allows(0, 80), "all of it is taken");
    }
}
