//! Decides whether the partner of the serving worker is in step, without executing the decisions.
//!
//! A bit of the record at the arbiter says whether the partner may take over with its copy. While the bit may be set,
//! no output may leave that the partner lacks: output waits for the partner from before the request to set the bit
//! until it is known to be cleared. The supervisor writes the bit; each request has a number, and is done when it is
//! answered.

use std::time::Duration;

/// The time after which output waits again for a partner that was too slow.
const PAUSE: Duration = Duration::from_secs(1);
/// Output begins to wait for a partner that lacks at most this many bytes.
const NEAR: u64 = 1 << 20;

/// The inputs of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The end of the committed log.
    pub committed: u64,
    /// The end of the partner's copy of it; `None`: the partner is not connected.
    pub received: Option<u64>,
    /// The partner has delayed output, or has been disconnected, for longer than allowed.
    pub is_overdue: bool,
    /// The number of the last request that was answered.
    pub answered: u64,
    /// The bit on record, as of that answer.
    pub in_step: bool,
    /// The configuration or the operator wants a partner in step.
    pub is_wanted: bool,
    /// The time.
    pub now: Duration,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Request the supervisor to put the bit on record.
    Ask {
        /// The number of the request.
        number: u64,
        /// The bit.
        in_step: bool,
    },
    /// Set the log's flag to the bit on record.
    Flag {
        /// The bit.
        in_step: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The bit is set.
    InStep,
    /// The bit must be cleared.
    Clearing(u64),
    /// The bit is not set, and output does not wait.
    Alone { since: Duration },
    /// Output waits again. The partner may still lack earlier output.
    Filling { from: u64 },
    /// The bit must be set.
    Raising(u64),
}

/// The leader's state about its partner.
#[derive(Clone, Debug)]
pub struct Mirror {
    state: State,
    /// The number of the last request.
    number: u64,
}

impl Mirror {
    /// Makes the state of a new worker. `in_step`: the bit on record; `first`: its requests have higher numbers than
    /// this.
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

    /// Returns whether output must wait for the partner.
    #[must_use]
    pub fn is_required(&self) -> bool {
        !matches!(self.state, State::Alone { .. })
    }

    /// Returns whether the partner has everything that was sent, and the bit is on record.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.state == State::InStep
    }

    /// Returns whether the supervisor's answer is outstanding.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Clearing(_) | State::Raising(_))
    }

    /// Decides by the facts; must be called again until it returns `None`.
    pub fn turn(&mut self, facts: &Facts) -> Option<Action> {
        match self.state {
            State::InStep | State::Raising(_) if facts.is_overdue => Some(self.clear()),
            State::InStep if !facts.is_wanted => Some(self.clear()),
            // The supervisor has executed a request of an earlier worker late.
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
            // The bit is not set and need not be cleared.
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
