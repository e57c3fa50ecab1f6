//! Whose turn it is (start-time fair queuing, Goyal and others, 1996): of the one thread no account gets much more than another that has
//! something to be done, and of those of one account no connection, however they cut their requests. Connections are to be had for
//! nothing, accounts are not: so who makes many of them, or comes as a guest or without a name, has the part of one. Nothing here survives,
//! or has to.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast_smb::Principal;

/// A client's message is worked on at a stretch for so long, and so far may a client be ahead of the others when it is its turn.
pub const SLICE: Duration = Duration::from_millis(1);

/// Those who take turns, by what each has been given.
#[derive(Debug, Default)]
struct Queue {
    /// What whoever is furthest behind has been given.
    now: Duration,
}

impl Queue {
    /// Of those who have something to be done the one furthest behind has been given so much.
    fn begin(&mut self, least: Duration) {
        self.now = self.now.max(least);
    }

    fn is_due(&self, given: Duration) -> bool {
        given <= self.now + SLICE
    }

    /// What was not asked for while there was nothing to do is not made up for.
    fn charge(&self, given: Duration, spent: Duration) -> Duration {
        given.max(self.now) + spent
    }
}

/// An account that has something to be done, or has lately had.
#[derive(Debug, Default)]
struct Account {
    given: Duration,
    /// Its connections.
    queue: Queue,
}

/// The accounts, and their connections, in turn.
#[derive(Debug, Default)]
pub struct Turns {
    accounts: BTreeMap<Principal, Account>,
    queue: Queue,
}

impl Turns {
    /// A pass begins, for connections that have something to be done: whose each is, and what it has been given.
    pub fn begin(&mut self, ready: &[(Principal, Duration)]) {
        // who is not ahead of the others begins again as one who comes new
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

    /// Is it the turn of a connection that has been given so much?
    #[must_use]
    pub fn is_due(&self, principal: &Principal, given: Duration) -> bool {
        self.accounts
            .get(principal)
            .is_none_or(|account| self.queue.is_due(account.given) && account.queue.is_due(given))
    }

    /// So much was spent on a connection; gives what it has been given by now.
    pub fn charge(&mut self, principal: &Principal, given: Duration, spent: Duration) -> Duration {
        let account = self.accounts.entry(principal.clone()).or_default();
        account.given = self.queue.charge(account.given, spent);
        account.queue.charge(given, spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections that always have something to be done: whose each is, and how long a request of it takes. Gives what each got, of
    /// ten seconds or somewhat more.
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
    fn nothing_is_saved_up() {
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
