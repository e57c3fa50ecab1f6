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
