//! Counts the resources of connections and enforces their limits: one for each connection, and a total for all. The
//! log's bytes are limited by account (`crate::accounts`).

use crate::config::Limits;
use crate::server::{ConnId, Smb};
use crate::state::{Open, Target};
use serde::Serialize;

/// The resources of one connection, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Opens.
    pub opens: usize,
    /// Byte-range locks.
    pub locks: usize,
    /// Waiting requests.
    pub pending: usize,
    /// Directory watches.
    pub watches: usize,
    /// Bytes of the log that a state takes. Here they occur only in requests for more; `crate::accounts` counts them.
    pub bytes: usize,
}

impl Held {
    /// One waiting request.
    pub(crate) const OF_PARKED: Held = Held {
        opens: 0,
        locks: 0,
        pending: 1,
        watches: 0,
        bytes: 0,
    };

    /// Makes a request for bytes alone.
    pub(crate) fn bytes(bytes: usize) -> Held {
        Held {
            bytes,
            ..Held::default()
        }
    }

    pub(crate) fn of_open(open: &Open) -> Held {
        let mut held = Held {
            opens: 1,
            ..Held::default()
        };
        if let Target::File(file) = &open.target {
            held.locks = file.locks.len();
            held.watches = usize::from(file.watch.is_some());
        }
        held
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

    /// Returns the limits of one connection, which has none for bytes.
    pub(crate) fn most_of_one(limits: &Limits) -> Held {
        Held {
            opens: limits.opens,
            locks: limits.total.locks,
            pending: limits.pending,
            watches: limits.watches,
            bytes: 0,
        }
    }

    /// Returns whether these resources plus `more` are within the limit of one connection (`most`) and within the
    /// total. Three quarters of the total are first come, first served; the last quarter is divided among the
    /// `connections`, so that no client can take everything.
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
    }
}

impl Smb {
    /// Returns whether this connection may take `more` resources, and its account the bytes among them.
    pub(crate) fn may_take(&self, conn: ConnId, more: Held) -> bool {
        let limits = &self.config.limits;
        self.files.held(conn).allows(
            more,
            self.files.held_by_all(),
            Held::most_of_one(limits),
            limits.total,
            self.connections.len(),
        ) && (more.bytes == 0 || self.accounts.has_room(conn, more.bytes, limits.total.bytes))
    }
}

#[cfg(test)]
mod tests;
