use super::*;

const UNA: Seq = Seq(u32::MAX - 1500);

//= rfc6675 4a, 4b, 5a, 5g
#[test]
fn three_segments_above_a_hole_make_it_lost() {
    let nxt = UNA + 10_000;
    let mut loss = Loss::new(UNA);
    assert!(loss.sack(UNA + 1000, UNA + 3000));
    assert!(!loss.detect(UNA, nxt, 1000, true));
    assert_eq!(loss.pipe(UNA, nxt, 1000), 8000);
    assert!(loss.sack(UNA + 3000, UNA + 4000));
    assert!(loss.detect(UNA, nxt, 1000, true));
    assert!(!loss.detect(UNA, nxt, 1000, true), "once");
    assert_eq!(loss.next_lost(UNA), Some((UNA, UNA + 1000)));
    assert_eq!(loss.pipe(UNA, nxt, 1000), 6000);
    loss.retransmitted(UNA + 1000);
    assert_eq!(
        (loss.next_lost(UNA), loss.pipe(UNA, nxt, 1000)),
        (None, 7000)
    );
    loss.acked(nxt, 10_000, 1000, true);
    assert_eq!((loss.recovery(), loss.pipe(nxt, nxt, 1000)), (None, 0));
}

//= rfc5827 3.1c
#[test]
fn of_few_segments_all_but_one_must_have_come() {
    // Four short ones, 2500 bytes.
    let nxt = UNA + 2500;
    for (reports, enough) in [
        ([(500, 1200), (1900, 2500)], false),
        ([(500, 1200), (1200, 1900)], false),
        ([(500, 1200), (1700, 2500)], true),
    ] {
        let mut loss = Loss::new(UNA);
        for (from, to) in reports {
            loss.sack(UNA + from, UNA + to);
        }
        assert_eq!(loss.detect(UNA, nxt, 1000, false), enough, "{reports:?}");
        let first = enough.then_some((UNA, UNA + 500));
        assert_eq!(loss.next_lost(UNA), first);
    }
}

//= rfc6675 5h
#[test]
fn what_is_reported_beyond_a_recovery_is_remembered_at_its_end() {
    let mut loss = Loss::new(UNA);
    loss.sack(UNA + 1000, UNA + 4000);
    assert!(loss.detect(UNA, UNA + 5000, 1000, true));
    loss.sack(UNA + 6000, UNA + 9000);
    loss.acked(UNA + 5000, 5000, 1000, true);
    assert_eq!(loss.recovery(), None);
    assert!(loss.detect(UNA + 5000, UNA + 9000, 1000, true));
    assert_eq!(loss.next_lost(UNA + 5000), Some((UNA + 5000, UNA + 6000)));
}

//= rfc5827 3.1a, 3.1d
#[test]
fn few_outstanding_segments_lower_the_threshold() {
    let nxt = UNA + 2000;
    let mut loss = Loss::new(UNA);
    loss.sack(UNA + 1000, nxt);
    assert!(!loss.clone().detect(UNA, nxt, 1000, true));
    assert!(loss.detect(UNA, nxt, 1000, false));
}

#[test]
fn without_sack_a_partial_acknowledgement_shows_the_next_loss() {
    let nxt = UNA + 8000;
    let mut loss = Loss::new(UNA);
    for expected in [false, false, true, false] {
        loss.duplicate_ack();
        assert_eq!(loss.detect(UNA, nxt, 1000, true), expected);
    }
    assert_eq!(loss.next_lost(UNA), Some((UNA, UNA + 1000)));
    loss.retransmitted(UNA + 1000);
    loss.acked(UNA + 2000, 2000, 1000, false);
    assert_eq!(loss.next_lost(UNA + 2000), Some((UNA + 2000, UNA + 3000)));
    loss.acked(nxt, 6000, 1000, false);
    assert_eq!(loss.recovery(), None);
}

//= rfc2018 5c, 5.1b
#[test]
fn a_timeout_forgets_sack() {
    let nxt = UNA + 5000;
    let mut loss = Loss::new(UNA);
    loss.sack(UNA + 1000, UNA + 2000);
    loss.all_lost(UNA, nxt);
    assert_eq!(loss.pipe(UNA, nxt, 1000), 0);
    assert_eq!(loss.next_lost(UNA), Some((UNA, nxt)));
}
