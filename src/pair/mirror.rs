//! In step or not: what the worker that serves decides about its partner, apart from how it does it.
//!
//! The record at the arbiter says whether the partner may take over what it has. So nothing is shown to anybody that
//! the partner lacks while the bit may be set: output waits for the partner from before the bit is asked for until
//! after it is known to be cleared. The supervisor writes the bit; each request has a number, and counts when it is
//! answered.

use std::time::Duration;

/// A partner that was too slow has so long before output waits for it again.
const PAUSE: Duration = Duration::from_secs(1);
/// A partner that lacks no more than this is waited for: bytes.
const NEAR: u64 = 1 << 20;

/// How things are.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The end of what the log has committed.
    pub committed: u64,
    /// The end of what the partner has of it; `None`: there is no connection.
    pub received: Option<u64>,
    /// The partner has kept output waiting, or has been away, for longer than it may.
    pub is_overdue: bool,
    /// The number of the last request that was answered.
    pub answered: u64,
    /// What is on record, as of that answer.
    pub in_step: bool,
    /// A partner in step is wanted.
    pub is_wanted: bool,
    /// The time.
    pub now: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the supervisor to put the bit on record.
    Ask {
        /// Of the request.
        number: u64,
        /// The bit.
        in_step: bool,
    },
    /// Set the log's flag to what the record says.
    Flag {
        /// The bit.
        in_step: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The bit is set.
    InStep,
    /// The bit is to be cleared.
    Clearing(u64),
    /// The bit is not set, and output waits for nobody.
    Alone { since: Duration },
    /// Output waits again. What was shown before this is not known to be there yet.
    Filling { from: u64 },
    /// The bit is to be set.
    Raising(u64),
}

/// The partner, as the leader sees it.
#[derive(Clone, Debug)]
pub struct Mirror {
    state: State,
    /// Of the last request.
    number: u64,
}

impl Mirror {
    /// A worker begins. `in_step`: what is on record; `first`: its requests have higher numbers than this.
    #[must_use]
    pub fn new(in_step: bool, first: u64) -> Mirror {
        Mirror {
            state: match in_step {
                true => State::InStep,
                false => State::Alone {
                    since: Duration::ZERO,
                },
            },
            number: first,
        }
    }

    /// Must output wait for the partner?
    #[must_use]
    pub fn is_required(&self) -> bool {
        !matches!(self.state, State::Alone { .. })
    }

    /// The partner has all that anybody was shown, and the record says so.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.state == State::InStep
    }

    /// The supervisor's answer is waited for.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Clearing(_) | State::Raising(_))
    }

    /// Takes the facts; to be called again until there is nothing to do.
    pub fn turn(&mut self, facts: &Facts) -> Option<Action> {
        match self.state {
            State::InStep | State::Raising(_) if facts.is_overdue => Some(self.clear()),
            State::InStep if !facts.is_wanted => Some(self.clear()),
            // A request of a worker before this one was carried out late.
            State::InStep if !facts.in_step => {
                self.state = State::Filling {
                    from: facts.committed,
                };
                None
            }
            State::Clearing(number) if facts.answered >= number && !facts.in_step => {
                self.state = State::Alone { since: facts.now };
                Some(Action::Flag { in_step: false })
            }
            State::Alone { since } => {
                let is_near = |received| facts.committed.saturating_sub(received) <= NEAR;
                let is_due = since.is_zero() || facts.now >= since + PAUSE;
                if facts.is_wanted && is_due && facts.received.is_some_and(is_near) {
                    self.state = State::Filling {
                        from: facts.committed,
                    };
                }
                None
            }
            // The bit is not set, so there is nothing to clear.
            State::Filling { .. }
                if facts.is_overdue || facts.received.is_none() || !facts.is_wanted =>
            {
                self.state = State::Alone { since: facts.now };
                None
            }
            State::Filling { from } if facts.received >= Some(from) => {
                self.number += 1;
                self.state = State::Raising(self.number);
                Some(Action::Ask {
                    number: self.number,
                    in_step: true,
                })
            }
            State::Raising(number) if facts.answered >= number && facts.in_step => {
                self.state = State::InStep;
                Some(Action::Flag { in_step: true })
            }
            _ => None,
        }
    }

    fn clear(&mut self) -> Action {
        self.number += 1;
        self.state = State::Clearing(self.number);
        Action::Ask {
            number: self.number,
            in_step: false,
        }
    }
}

#[cfg(test)]
mod tests;
