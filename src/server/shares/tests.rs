use super::*;

/// Fills an account with as many pieces of this size as it may hold, and returns their bytes.
fn filled(shares: &mut Shares, principal: &Principal, piece: u64) -> u64 {
    let mut got = 0;
    while shares.has_room(principal, piece) {
        shares.add(principal, piece);
        got += piece;
    }
    got
}

#[test]
fn one_gets_half_and_the_next_half_of_the_rest() {
    let mut shares = Shares::new(1000);
    let users = ["alice", "bob"].map(|name| Principal::User(name.into()));
    assert_eq!(filled(&mut shares, &Principal::Guest, 10), 500);
    assert_eq!(filled(&mut shares, &users[0], 10), 250);
    assert_eq!(filled(&mut shares, &users[1], 10), 130);
    assert!(
        !shares.has_room(&Principal::Guest, 0),
        "not even a small one"
    );
}

#[test]
fn where_nothing_waits_the_largest_may() {
    let mut shares = Shares::new(1000);
    assert!(shares.has_room(&Principal::Guest, 5000));
    shares.add(&Principal::Guest, 1);
    assert!(!shares.has_room(&Principal::Guest, 5000));
}
