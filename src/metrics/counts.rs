//! Counts the events of the machine. All counts are words, which can be copied into shared memory.

use std::time::Duration;

use outlast_smb::Answered;

use super::histogram::{self, Observed};
use crate::server::fault::Point;

/// The number of SMB2 commands with counts of their own; the last counts are for unknown codes.
pub(super) const COMMANDS: usize = 20;
/// Upper bounds of the buckets of latencies, in microseconds.
const LATENCIES_US: [u64; 15] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 5_000_000,
];

const POINTS: usize = 0;
const COMMITS: usize = POINTS + 4;
const RECEIVED: usize = COMMITS + 1;
const SENT: usize = RECEIVED + 2;
const EVICTIONS: usize = SENT + 2;
const COMMAND: usize = EVICTIONS + Eviction::ALL.len();
/// The words of one command: responses, those with an error, bytes of requests, bytes of responses, and the latencies.
const LATENCY: usize = 4;
const COMMAND_LEN: usize = LATENCY + histogram::len(&LATENCIES_US);
/// The number of words of all counts.
pub(super) const LEN: usize = COMMAND + COMMANDS * COMMAND_LEN;

/// The reason why a client was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It did not authenticate within limits.auth_timeout_seconds.
    NotLoggedIn,
    /// More than limits.max_unauthenticated clients were unauthenticated.
    TooManyUnauthenticated,
    /// A new connection needed its place.
    PlaceNeeded,
    /// The state of all connections exceeded its room.
    StateTooLarge,
    /// It stalled: it neither read its replies nor finished its message.
    Stalled,
    /// It was idle for limits.idle_timeout_seconds.
    Idle,
    /// `outlast disconnect`.
    Disconnected,
    /// It sent an invalid message, or a too long one before its authentication.
    Malformed,
    /// It violated the protocol.
    Protocol,
}

impl Eviction {
    /// All reasons.
    pub const ALL: [Eviction; 9] = [
        Eviction::NotLoggedIn,
        Eviction::TooManyUnauthenticated,
        Eviction::PlaceNeeded,
        Eviction::StateTooLarge,
        Eviction::Stalled,
        Eviction::Idle,
        Eviction::Disconnected,
        Eviction::Malformed,
        Eviction::Protocol,
    ];

    /// Returns its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Eviction::NotLoggedIn => "not_logged_in",
            Eviction::TooManyUnauthenticated => "too_many_unauthenticated",
            Eviction::PlaceNeeded => "place_needed",
            Eviction::StateTooLarge => "state_too_large",
            Eviction::Stalled => "stalled",
            Eviction::Idle => "idle",
            Eviction::Disconnected => "disconnected",
            Eviction::Malformed => "malformed",
            Eviction::Protocol => "protocol",
        }
    }
}

/// The counts. They only rise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(Box<[u64; LEN]>);

impl Default for Counts {
    fn default() -> Counts {
        Counts(Box::new([0; LEN]))
    }
}

impl From<[u64; LEN]> for Counts {
    fn from(words: [u64; LEN]) -> Counts {
        Counts(Box::new(words))
    }
}

impl Counts {
    /// Returns the words for a copy.
    pub(super) fn words(&self) -> &[u64; LEN] {
        &self.0
    }

    fn add(&mut self, at: usize, n: u64) {
        if let Some(word) = self.0.get_mut(at) {
            *word = word.wrapping_add(n);
        }
    }

    fn get(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// Counts that the machine has passed one of the four points.
    pub fn pass(&mut self, point: Point) {
        let number = match point {
            Point::One => 0,
            Point::Two => 1,
            Point::Three => 2,
            Point::Four => 3,
            Point::Object => return,
        };
        self.add(POINTS + number, 1);
    }

    /// Returns how often each of the four points was passed.
    #[must_use]
    pub fn points(&self) -> [u64; 4] {
        std::array::from_fn(|number| self.get(POINTS + number))
    }

    /// Counts commits.
    pub fn commit(&mut self, commits: u64) {
        self.add(COMMITS, commits);
    }

    /// Returns the number of commits of the log.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.get(COMMITS)
    }

    /// Counts a received frame.
    pub fn receive(&mut self, bytes: usize) {
        self.add(RECEIVED, 1);
        self.add(RECEIVED + 1, bytes as u64);
    }

    /// Returns the numbers of received frames and bytes.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.get(RECEIVED), self.get(RECEIVED + 1))
    }

    /// Counts a sent frame.
    pub fn send(&mut self, bytes: usize) {
        self.add(SENT, 1);
        self.add(SENT + 1, bytes as u64);
    }

    /// Returns the numbers of sent frames and bytes.
    #[must_use]
    pub fn sent(&self) -> (u64, u64) {
        (self.get(SENT), self.get(SENT + 1))
    }

    /// Counts a dropped client.
    pub fn evict(&mut self, why: Eviction) {
        self.add(EVICTIONS + why as usize, 1);
    }

    /// Returns the number of clients that were dropped for this reason.
    #[must_use]
    pub fn evictions(&self, why: Eviction) -> u64 {
        self.get(EVICTIONS + why as usize)
    }

    /// Counts an answered request.
    pub fn answer(&mut self, answered: &Answered) {
        let at = at(answered.command);
        self.add(at, 1);
        self.add(at + 1, answered.is_error.into());
        self.add(at + 2, answered.request_bytes as u64);
        self.add(at + 3, answered.reply_bytes as u64);
    }

    /// Returns the numbers of responses of one command, of those with an error, of bytes of its requests, and of bytes
    /// of its responses.
    #[must_use]
    pub fn answers(&self, command: u16) -> [u64; 4] {
        std::array::from_fn(|n| self.get(at(command) + n))
    }

    /// Counts the latency of a message whose last command was this one.
    pub fn take(&mut self, command: u16, latency: Duration) {
        let at = at(command) + LATENCY;
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(words) = self.0.get_mut(at..at + histogram::len(&LATENCIES_US)) {
            histogram::observe(words, &LATENCIES_US, us);
        }
    }

    pub(super) fn latencies(&self, command: u16) -> Observed {
        let at = at(command) + LATENCY;
        let words = self.0.get(at..at + histogram::len(&LATENCIES_US));
        histogram::read(
            words.unwrap_or(&[0; histogram::len(&LATENCIES_US)]),
            &LATENCIES_US,
            1e6,
        )
    }
}

/// Returns the index of a command's first word.
fn at(command: u16) -> usize {
    COMMAND + usize::from(command).min(COMMANDS - 1) * COMMAND_LEN
}

#[cfg(test)]
mod tests;
