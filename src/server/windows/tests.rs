use super::*;
use proptest::prelude::*;

/// A receive stream of such pieces.
fn stream(pieces: &[&[u8]]) -> VecDeque<Bytes> {
    pieces
        .iter()
        .map(|piece| Bytes::copy_from_slice(piece))
        .collect()
}

fn length(received: &VecDeque<Bytes>) -> usize {
    received.iter().map(Bytes::len).sum()
}

#[test]
fn a_message_lacks_what_its_header_says() {
    let mut framing = Framing::default();
    let mut look = |pieces: &[&[u8]]| {
        let received = stream(pieces);
        framing.look(&received, length(&received));
        framing.missing(length(&received))
    };
    assert_eq!(look(&[]), 0);
    assert_eq!(look(&[&[0, 0]]), 0, "its header is incomplete");
    assert_eq!(look(&[&[0, 0], &[1, 0]]), 256);
    assert_eq!(look(&[&[0, 0], &[1, 0, 7, 7]]), 254);
    let whole = [vec![0, 0, 1, 0], vec![7; 256]].concat();
    assert_eq!(look(&[&whole]), 0);
    assert_eq!(look(&[&whole, &[0, 0, 0]]), 0);
    assert_eq!(look(&[&whole, &[0, 0, 0], &[9, 7]]), 8);
}

#[test]
fn what_is_consumed_moves_the_messages_up() {
    let mut framing = Framing::default();
    let small = [0, 0, 0, 2, 7, 7];
    let received = stream(&[&small, &small, &[0, 0, 0, 3, 7]]);
    framing.look(&received, length(&received));
    assert_eq!((framing.whole, framing.missing(17)), (12, 2));
    framing.consumed(6);
    assert_eq!((framing.whole, framing.missing(11)), (6, 2));
    framing.consumed(6);
    let received = stream(&[&[0, 0, 0, 3, 7], &[7]]);
    framing.look(&received, 6);
    assert_eq!(framing.missing(6), 1);
}

#[test]
fn a_malformed_message_lacks_nothing() {
    let mut framing = Framing::default();
    framing.look(&stream(&[&[0x72, 1, 2, 3, 4]]), 5);
    assert_eq!(framing.missing(5), 0);
}

#[test]
fn messages_wait_in_the_order_in_which_they_began() {
    let mut windows = Windows::default();
    for conn in [5, 3, 9, 3] {
        windows.wait(conn);
    }
    let order = |windows: &Windows| windows.waiting.values().copied().collect::<Vec<_>>();
    assert_eq!(order(&windows), [5, 3, 9]);
    windows.forget(5);
    windows.wait(5);
    assert_eq!(order(&windows), [3, 9, 5]);
    assert!(windows.is_waiting(9) && !windows.is_waiting(7));
}

#[test]
fn a_message_is_in_progress_that_needs_no_more_room() {
    let mut framing = Framing::default();
    let mut is_in_progress = |pieces: &[&[u8]], promised| {
        let received = stream(pieces);
        let queued = length(&received);
        framing.look(&received, queued);
        framing.is_in_progress(Holding { queued, promised })
    };
    let begun = [0, 0, 0, 9, 7];
    assert!(!is_in_progress(&[], 100));
    assert!(!is_in_progress(&[&begun], 7));
    assert!(is_in_progress(&[&begun], 8));
    assert!(is_in_progress(&[&begun, &[7; 8]], 0));
    assert!(is_in_progress(&[&begun, &[7; 8], &begun], 0));
}

/// A connection: its account, the bytes of its whole messages and of the next one, what it holds.
type Connection = (usize, Framing, Holding);

fn connection() -> impl Strategy<Value = Connection> {
    let whole = prop_oneof![3 => Just(0_usize), 1 => 1..9_usize];
    let numbers = (0..3_usize, whole, 0..50_usize, 0..50_usize, 0..50_usize);
    numbers.prop_map(|(account, whole, next, beyond, promised)| {
        let queued = whole + beyond.min(next.saturating_sub(1));
        let framing = Framing { whole, next };
        (account, framing, Holding { queued, promised })
    })
}

proptest! {
    #[test]
    fn the_accounts_that_are_served_are_those_that_a_scan_finds(
        mut connections in prop::collection::vec(connection(), 1..12),
        grants in prop::collection::vec((any::<prop::sample::Index>(), 0..60_usize), 0..20),
    ) {
        let accounts = [
            Principal::Unknown,
            Principal::Guest,
            Principal::User("alice".into()),
        ];
        let mut served = Served::default();
        for (account, framing, holding) in &connections {
            served.note(&accounts[*account], framing, *holding);
        }
        for (which, promised) in grants {
            let (account, framing, holding) = which.get_mut(&mut connections);
            // The right edge never moves left.
            holding.promised = holding.promised.max(promised);
            served.note(&accounts[*account], framing, *holding);
            for (number, account) in accounts.iter().enumerate() {
                let scanned = connections.iter().any(|(of, framing, holding)| {
                    *of == number && framing.is_in_progress(*holding)
                });
                prop_assert_eq!(served.contains(account), scanned);
            }
        }
    }
}
