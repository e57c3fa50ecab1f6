//! Whose turn it is (start-time fair queuing, Goyal and others, 1996): of the one thread no client gets much more than another who has
//! something to be done, however it cuts its requests. Nothing here survives, or has to.
//!
//! What a request takes is reckoned, not measured: the machine reads no clock.

use outlast_smb::fileop::FileOp;

/// What something takes, in bytes that could have been read from a file and sent in that time.
pub type Cost = u64;

/// A step of a request, besides what it moves.
pub const STEP: Cost = 64 << 10;

/// A client's message is worked on at a stretch for so long, and so far may a client be ahead of the others when it is its turn.
pub const SLICE: Cost = 1 << 20;

/// Listing looks at many files for few bytes.
const LISTING: Cost = 1 << 20;

/// The disk takes its time, and everyone waits for it.
const FLUSH: Cost = 4 << 20;

/// What an operation takes besides its step, and besides the bytes that come with the request or go with the reply.
#[must_use]
pub fn cost(op: &FileOp) -> Cost {
    match op {
        FileOp::QueryDirectory { .. } => LISTING,
        FileOp::Flush { .. } => FLUSH,
        FileOp::CopyChunks { chunks, .. } => {
            chunks.iter().map(|chunk| Cost::from(chunk.length)).sum()
        }
        _ => 0,
    }
}

/// The time of the queue: what whoever is furthest behind has been given.
#[derive(Debug, Default)]
pub struct Turns {
    now: Cost,
}

impl Turns {
    /// A pass begins, for clients who have been given so much.
    pub fn begin(&mut self, given: impl Iterator<Item = Cost>) {
        if let Some(least) = given.min() {
            self.now = self.now.max(least);
        }
    }

    /// Is it the turn of a client who has been given so much?
    #[must_use]
    pub fn is_due(&self, given: Cost) -> bool {
        given <= self.now + SLICE
    }

    /// What a client has been given, after `cost`. What it did not ask for while it had nothing to do is not made up for.
    #[must_use]
    pub fn charge(&self, given: Cost, cost: Cost) -> Cost {
        given.max(self.now) + cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clients who always have something to be done, with requests that take so much: what each has been given after many passes.
    fn share(costs: [Cost; 2]) -> [Cost; 2] {
        let mut turns = Turns::default();
        let (mut given, mut done) = ([0; 2], [0; 2]);
        for _ in 0..10_000 {
            turns.begin(given.into_iter());
            for client in 0..2 {
                if turns.is_due(given[client]) {
                    given[client] = turns.charge(given[client], costs[client]);
                    done[client] += costs[client];
                }
            }
        }
        done
    }

    #[test]
    fn clients_get_the_same_however_large_their_requests() {
        for other in [1, STEP, SLICE, 16 * SLICE] {
            let [one, two] = share([STEP, other]);
            assert!(
                one.abs_diff(two) <= 17 * SLICE + other,
                "{STEP} and {other}: {one} and {two}"
            );
        }
    }

    #[test]
    fn nothing_is_saved_up() {
        let mut turns = Turns::default();
        turns.begin([100 * SLICE].into_iter());
        let late = turns.charge(0, STEP);
        assert_eq!(late, 100 * SLICE + STEP);
        assert!(turns.is_due(late));
    }
}
