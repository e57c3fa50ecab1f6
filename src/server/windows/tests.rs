use super::*;

/// A stream of such pieces, as it is received.
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
    assert_eq!(look(&[&[0, 0]]), 0, "its header has not come");
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
fn what_is_no_message_lacks_nothing() {
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
