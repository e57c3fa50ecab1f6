//! Fair scheduling of the single thread across accounts (start-time fair queuing, Goyal and others, 1996): while
//! several accounts have work, they get equal parts of the thread, and so do the connections of one account, however
//! they divide their requests.
//!
//! A client can open many connections, but needs credentials for each account: so a client with many connections, or
//! one that logs in as guest or anonymously, gets the part of one account. This state is not durable.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast_smb::Principal;

/// How long a client's message is processed at a stretch, and how far a client may be ahead of the others when it is
/// its turn.
pub const SLICE: Duration = Duration::from_millis(1);

/// A queue of clients or accounts, ordered by the time that each has been given.
#[derive(Debug, Default)]
struct Queue {
    /// The time given to the one furthest behind.
    now: Duration,
}

impl Queue {
    /// Begins a pass, in which the one furthest behind has been given `least`.
    fn begin(&mut self, least: Duration) {
        self.now = self.now.max(least);
    }

    fn is_due(&self, given: Duration) -> bool {
        given <= self.now + SLICE
    }

    /// Charges time. Turns that were not used while there was nothing to do are not made up for.
    fn charge(&self, given: Duration, spent: Duration) -> Duration {
        given.max(self.now) + spent
    }
}

/// An account that has work, or recently had.
#[derive(Debug, Default)]
struct Account {
    given: Duration,
    /// Its connections.
    queue: Queue,
}

/// The accounts, and their connections.
#[derive(Debug, Default)]
pub struct Turns {
    accounts: BTreeMap<Principal, Account>,
    queue: Queue,
}

impl Turns {
    /// Begins a pass, for connections that have work: the account of each, and the time it has been given.
    pub fn begin(&mut self, ready: &[(Principal, Duration)]) {
        // an account that is not ahead of the others is treated as a new one
        let now = self.queue.now;
        self.accounts.retain(|_, account| account.given > now);
        let mut behind: BTreeMap<&Principal, Duration> = BTreeMap::new();
        for (principal, given) in ready {
            let least = behind.entry(principal).or_insert(*given);
            *least = (*least).min(*given);
        }
        let accounts = behind.into_iter().map(|(principal, least)| {
            let account = self.accounts.entry(principal.clone()).or_default();
            account.queue.begin(least);
            account.given
        });
        if let Some(least) = accounts.min() {
            self.queue.begin(least);
        }
    }

    /// Returns whether it is the turn of a connection that has been given this much time.
    #[must_use]
    pub fn is_due(&self, principal: &Principal, given: Duration) -> bool {
        self.accounts
            .get(principal)
            .is_none_or(|account| self.queue.is_due(account.given) && account.queue.is_due(given))
    }

    /// Charges the time spent on a connection; returns what it has been given by now.
    pub fn charge(&mut self, principal: &Principal, given: Duration, spent: Duration) -> Duration {
        let account = self.accounts.entry(principal.clone()).or_default();
        account.given = self.queue.charge(account.given, spent);
        account.queue.charge(given, spent)
    }
}

#[cfg(test)]
mod tests;
