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

    /// Returns whether it is the turn of a connection that has been given so much.
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
mod tests {
    use super::*;

    /// Simulates connections that always have work: the account of each, and how long its requests take. Returns what
    /// each got, of ten seconds or somewhat more.
    fn share(connections: &[(Principal, Duration)]) -> Vec<Duration> {
        let mut turns = Turns::default();
        let mut given = vec![Duration::ZERO; connections.len()];
        let mut got = given.clone();
        while got.iter().sum::<Duration>() < Duration::from_secs(10) {
            let ready: Vec<_> = connections
                .iter()
                .zip(&given)
                .map(|((principal, _), given)| (principal.clone(), *given))
                .collect();
            turns.begin(&ready);
            for (at, (principal, takes)) in connections.iter().enumerate() {
                if turns.is_due(principal, given[at]) {
                    given[at] = turns.charge(principal, given[at], *takes);
                    got[at] += *takes;
                }
            }
        }
        got
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.into())
    }

    #[test]
    fn accounts_get_the_same_however_large_their_requests() {
        for micros in [10, 900, 20_000] {
            let takes = Duration::from_micros(micros);
            let got = share(&[
                (user("alice"), takes),
                (user("bob"), Duration::from_micros(100)),
            ]);
            let apart = got[0].abs_diff(got[1]);
            assert!(apart < Duration::from_millis(50), "{takes:?}: {got:?}");
        }
    }

    #[test]
    fn many_connections_of_an_account_share_its_part() {
        let takes = Duration::from_millis(3);
        let mut connections = vec![(user("alice"), takes)];
        connections.extend(std::iter::repeat_n((Principal::Guest, takes), 20));
        let got = share(&connections);
        assert!(got[0] > Duration::from_millis(4900), "{:?}", got[0]);
        for guest in &got[1..] {
            assert!(
                (200..300).contains(&guest.as_millis()),
                "guests have the same: {guest:?}"
            );
        }
    }

    #[test]
    fn unused_time_is_not_saved() {
        let mut turns = Turns::default();
        let hour = Duration::from_secs(3600);
        turns.begin(&[(user("alice"), Duration::ZERO)]);
        let given = turns.charge(&user("alice"), Duration::ZERO, hour);
        turns.begin(&[(user("alice"), given)]);
        turns.begin(&[(user("bob"), Duration::ZERO), (user("alice"), given)]);
        turns.charge(&user("bob"), Duration::ZERO, 2 * SLICE);
        assert!(!turns.is_due(&user("bob"), 2 * SLICE));
        assert!(turns.is_due(&user("alice"), given));
    }
}
