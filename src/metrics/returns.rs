//! Counts the returns, at which a worker began to serve after another one. The supervisor counts them.

use super::histogram::{self, Observed};

/// Upper bounds of the buckets of gaps, in microseconds.
const GAPS_US: [u64; 16] = [
    1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 5_000_000, 20_000_000,
];
const GAPS_LEN: usize = histogram::len(&GAPS_US);
/// The number of last returns that are kept individually.
const LAST: usize = 16;
/// The words of each: the begin of the gap, its length, and its cause.
const LAST_LEN: usize = 3;
const LAST_AT: usize = Cause::ALL.len() * GAPS_LEN;
/// The number of all words; the last one counts the returns.
pub(super) const LEN: usize = LAST_AT + LAST * LAST_LEN + 1;

/// How the preceding worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ended as planned.
    Planned,
    /// It was killed.
    Killed,
    /// It crashed.
    Crashed,
    /// It could not continue, and has logged the reason.
    Failed,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 4] = [Cause::Planned, Cause::Killed, Cause::Crashed, Cause::Failed];

    /// Returns its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cause::Planned => "planned",
            Cause::Killed => "killed",
            Cause::Crashed => "crashed",
            Cause::Failed => "failed",
        }
    }
}

/// One return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// The end of the preceding worker, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// The time from then until a worker served.
    pub gap_us: u64,
    /// How the preceding worker ended.
    pub cause: Cause,
}

/// All returns of one supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returns(pub [u64; LEN]);

impl Returns {
    pub(super) fn add(&mut self, new: Return) {
        let at = new.cause as usize * GAPS_LEN;
        if let Some(words) = self.0.get_mut(at..at + GAPS_LEN) {
            histogram::observe(words, &GAPS_US, new.gap_us);
        }
        let number = self.0[LEN - 1];
        self.0[LEN - 1] = number + 1;
        let at = LAST_AT + (number as usize % LAST) * LAST_LEN;
        if let Some(words) = self.0.get_mut(at..at + LAST_LEN) {
            words.copy_from_slice(&[new.began_unix_ms, new.gap_us, new.cause as u64]);
        }
    }

    /// Returns the last ones, the latest first.
    pub(super) fn last(&self) -> Vec<Return> {
        let number = self.0[LEN - 1] as usize;
        let numbers = (number.saturating_sub(LAST)..number).rev();
        let read = |number: usize| {
            let at = LAST_AT + (number % LAST) * LAST_LEN;
            let [began_unix_ms, gap_us, cause] = *self.0.get(at..)?.first_chunk()?;
            let cause = *Cause::ALL.get(usize::try_from(cause).ok()?)?;
            Some(Return {
                began_unix_ms,
                gap_us,
                cause,
            })
        };
        numbers.filter_map(read).collect()
    }

    pub(super) fn gaps(&self, cause: Cause) -> Observed {
        let at = cause as usize * GAPS_LEN;
        let words = self.0.get(at..at + GAPS_LEN).unwrap_or(&[0; GAPS_LEN]);
        histogram::read(words, &GAPS_US, 1e6)
    }
}

#[cfg(test)]
mod tests;
