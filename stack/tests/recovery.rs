//! Loss recovery: how losses are found, what is sent again, and the effect on the congestion window.

mod hand;

use std::time::Duration;

use hand::{Bench, MS, SECOND, Seg, config};

/// A bench that has sent `len` bytes in segments of 1000, with round trips of `rtt`.
fn sending(sack: bool, rtt: Duration, len: usize) -> Bench {
    let syn = Seg {
        sack_permitted: sack,
        ..Bench::new(config()).syn(1000)
    };
    let mut bench = Bench::new(config());
    bench.iss = bench.exchange(&syn)[0].seq;
    bench.now += rtt;
    bench.exchange(&bench.seg(0, 0));
    bench.conn = bench.log.records[0].0;
    assert_eq!(bench.send(len * 1000).len(), len.min(10));
    bench
}

/// An acknowledgement of `acked` bytes that reports `blocks` of ours as received.
fn sacked(bench: &Bench, acked: u32, blocks: &[(u32, u32)]) -> Seg {
    let base = bench.iss.wrapping_add(1);
    let mut seg = bench.seg(0, acked);
    for (slot, (from, to)) in seg.sack.iter_mut().zip(blocks) {
        *slot = Some((base.wrapping_add(*from), base.wrapping_add(*to)));
    }
    seg
}

/// Begin and end of each segment, in segments.
fn ranges(bench: &Bench, sent: &[Seg]) -> Vec<(i32, i32)> {
    let range = |seg: &Seg| {
        let from = bench.ours(seg.seq);
        (from / 1000, (from + seg.data.len() as i32) / 1000)
    };
    sent.iter().map(range).collect()
}

/// What has been sent, as an offset.
fn sent_up_to(bench: &Bench) -> u32 {
    bench.stack.status()[0].snd_nxt.wrapping_sub(bench.iss + 1)
}

fn cwnd(bench: &Bench) -> usize {
    bench.stack.status()[0].cwnd
}

//= rfc5681 3.2c, 3.2d, 3.2e, 3.2g, 4.3b
//= rfc6675 4a, 4c, 4d, 5a, 5d
//= rfc2018 5a, 5.1a
//= rfc9438 4.6c
#[test]
fn the_third_report_begins_a_recovery_and_the_first_two_let_new_data_out() {
    let mut bench = sending(true, 40 * MS, 20);
    for (count, expected) in [(1, [(10, 11)]), (2, [(11, 12)]), (3, [(0, 1)])] {
        assert_eq!(cwnd(&bench), 10_000);
        let again = bench.exchange(&sacked(&bench, 0, &[(1000, 1000 + 1000 * count)]));
        assert_eq!(ranges(&bench, &again), expected);
    }
    // Twelve were in flight.
    assert_eq!(cwnd(&bench), 7000);
    let more = bench.exchange(&sacked(&bench, 0, &[(1000, 5000)]));
    assert_eq!(more, [], "the rest of the window is full");
}

//= rfc5681 3.2c, 3.2d, 3.2e, 3.2h, 3.2i, 3.2j
//= rfc6582 3.2a, 3.2b, 3.2c
#[test]
fn without_sack_a_partial_acknowledgement_sends_the_next_hole() {
    let mut bench = sending(false, 40 * MS, 20);
    let duplicate = bench.seg(0, 0);
    for expected in [(10, 11), (11, 12), (0, 1)] {
        assert_eq!(cwnd(&bench), 10_000);
        let again = bench.exchange(&duplicate);
        assert_eq!(ranges(&bench, &again), [expected]);
    }
    assert_eq!(cwnd(&bench), 7000);
    // More duplicates: each a segment that has left the network.
    let mut new = 0;
    for _ in 3..11 {
        new += bench.exchange(&duplicate).len();
    }
    assert!(new > 0);
    let again = bench.exchange(&bench.seg(0, 4000));
    assert_eq!(ranges(&bench, &again)[0], (4, 5), "the next hole");
    bench.exchange(&bench.seg(0, sent_up_to(&bench)));
    assert_eq!(cwnd(&bench), 7000);
    for _ in 0..3 {
        bench.exchange(&bench.seg(0, sent_up_to(&bench)));
    }
    assert_eq!(bench.stack.send_queued(bench.conn), 0);
}

//= rfc6675 4b, 4g, 5g, 5i, 5j
//= rfc2018 5b, 8c
//= rfc8985 9.3a
#[test]
fn all_holes_are_sent_again_as_the_window_allows() {
    let mut bench = sending(true, 40 * MS, 20);
    // Lost: the first, the third, the sixth of ten.
    let mut again = ranges_of(&mut bench, &[(3000, 5000), (1000, 2000)]);
    again.extend(ranges_of(
        &mut bench,
        &[(6000, 10_000), (3000, 5000), (1000, 2000)],
    ));
    let old: Vec<_> = again.iter().filter(|(from, _)| *from < 10).collect();
    assert_eq!(old, [&(0, 1), &(2, 3), &(5, 6)], "{again:?}");
    assert_eq!(cwnd(&bench), 7000);
    assert_eq!(
        bench.stack.send_queued(bench.conn),
        20_000,
        "kept though reported"
    );
    // Up to the recovery point nothing reduces the window again.
    bench.exchange(&sacked(&bench, 5000, &[(6000, 10_000)]));
    bench.exchange(&bench.seg(0, 10_000));
    assert_eq!(cwnd(&bench), 7000);
}

fn ranges_of(bench: &mut Bench, blocks: &[(u32, u32)]) -> Vec<(i32, i32)> {
    let sent = bench.exchange(&sacked(bench, 0, blocks));
    ranges(bench, &sent)
}

//= rfc6675 5b, 5c, 4h
#[test]
fn three_reports_of_short_segments_are_a_loss() {
    let mut bench = sending(true, 40 * MS, 1);
    for len in [100, 100, 100, 3000] {
        bench.send(len);
    }
    let reports = [(1000, 1100), (1000, 1200), (1000, 1300)];
    for (report, expected) in reports.iter().zip([vec![], vec![], vec![(0, 1)]]) {
        assert_eq!(ranges_of(&mut bench, &[*report]), expected);
        // A report of nothing new does not count.
        assert_eq!(ranges_of(&mut bench, &[*report]), []);
    }
    // Nor do two before an advance and one after it.
    let mut bench = sending(true, 40 * MS, 2);
    for len in [100, 100, 100, 3000] {
        bench.send(len);
    }
    ranges_of(&mut bench, &[(2000, 2100)]);
    ranges_of(&mut bench, &[(2000, 2200)]);
    bench.exchange(&sacked(&bench, 1000, &[(2000, 2200)]));
    let sent = bench.exchange(&sacked(&bench, 1000, &[(2000, 2300)]));
    assert_eq!(sent, []);
}

//= rfc6675 5.1e
#[test]
fn after_a_timeout_what_is_reported_is_not_sent_again() {
    let mut bench = sending(true, 40 * MS, 10);
    // A probe, then the timeout, which sends the first segment again.
    bench.wait(10 * SECOND);
    let again = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &again), [(0, 1)]);
    let mut sent = bench.exchange(&sacked(&bench, 1000, &[(2000, 4000), (6000, 9000)]));
    sent.extend(bench.exchange(&sacked(&bench, 4000, &[(6000, 9000)])));
    assert_eq!(ranges(&bench, &sent), [(1, 2), (4, 5), (5, 6), (9, 10)]);
}

//= rfc5681 3.2f
#[test]
fn a_duplicate_that_reports_nothing_new_lets_nothing_out() {
    let mut bench = sending(true, 40 * MS, 20);
    let report = sacked(&bench, 0, &[(1000, 2000)]);
    assert_eq!(bench.exchange(&report).len(), 1);
    assert_eq!(bench.exchange(&report), []);
    assert_eq!(bench.exchange(&bench.seg(0, 0)), []);
}

//= rfc5681 4.3d
//= rfc8985 9.3b
#[test]
fn a_loss_of_what_was_sent_again_reduces_the_window_again() {
    let mut bench = sending(true, 40 * MS, 40);
    bench.exchange(&sacked(&bench, 0, &[(1000, 4000)]));
    assert_eq!(cwnd(&bench), 7000);
    let again = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &again), [(0, 1)]);
    assert_eq!(cwnd(&bench), 1000);
    // Slow start ends at 0.7 of 7, not at 7: from there the window no longer grows by 1000 bytes each.
    for acked in 1..10 {
        bench.exchange(&bench.seg(0, acked * 1000));
    }
    assert!((4900..6000).contains(&cwnd(&bench)), "{}", cwnd(&bench));
}

//= rfc5681 4.3a
#[test]
fn losses_in_two_windows_reduce_it_twice() {
    let mut bench = sending(true, 40 * MS, 40);
    bench.exchange(&sacked(&bench, 0, &[(1000, 4000)]));
    let first = cwnd(&bench);
    bench.exchange(&bench.seg(0, 10_000));
    let second = sent_up_to(&bench);
    bench.exchange(&sacked(&bench, 10_000, &[(11_000, second)]));
    assert!(cwnd(&bench) < first, "{} of {first}", cwnd(&bench));
}

//= rfc5681 3.1h, 3.1i
//= rfc6675 5.1a, 5.1b, 5.1d
//= rfc6582 4a
//= rfc2018 5c, 5.1b, 5d
#[test]
fn a_timeout_begins_at_the_left_edge_and_is_one_loss_however_often() {
    for sack in [true, false] {
        let mut bench = sending(sack, 40 * MS, 40);
        if sack {
            // Reported, but sent again: the peer may have dropped it.
            bench.exchange(&sacked(&bench, 0, &[(1000, 3000)]));
        }
        // A probe, perhaps; then timeouts.
        let mut last = Vec::new();
        for _ in 0..4 {
            last = bench.wait(100 * SECOND);
        }
        assert_eq!(ranges(&bench, &last), [(0, 1)]);
        assert_eq!(cwnd(&bench), 1000);
        // Duplicates of earlier segments do not count.
        for _ in 0..5 {
            bench.exchange(&bench.seg(0, 0));
        }
        assert_eq!(cwnd(&bench), 1000);
        let again = bench.exchange(&bench.seg(0, 1000));
        assert_eq!(ranges(&bench, &again), [(1, 2), (2, 3)]);
        // Slow start ends where it would have after one timeout: at 0.7 of what was in flight.
        for acked in 2..8 {
            bench.now += MS;
            bench.exchange(&bench.seg(0, acked * 1000));
        }
        assert!(cwnd(&bench) >= 7000, "{}", cwnd(&bench));
    }
}

//= rfc6298 2.2, 5.2, 5.3, 5a, 5.1
#[test]
fn nothing_is_sent_again_before_its_time() {
    // No loss probe without SACK. RTO is 100 ms + 4 x 50 ms.
    let rto = 300 * MS;
    let mut bench = sending(false, 100 * MS, 3);
    let start = bench.now;
    bench.now += 200 * MS;
    bench.exchange(&bench.seg(0, 1000));
    // The timer has restarted, with a second sample.
    let again = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &again), [(1, 2)]);
    assert!(
        bench.now - start >= 200 * MS + rto,
        "{:?}",
        bench.now - start
    );
    bench.exchange(&bench.seg(0, 3000));
    assert_eq!(bench.wait(60 * SECOND), [], "all is acknowledged");
    let mut bench = sending(false, 100 * MS, 3);
    let start = bench.now;
    bench.wait(10 * SECOND);
    assert_eq!(bench.now - start, rto);
}

/// How the peer answers a loss probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It received everything.
    Once,
    /// D-SACK: the probe arrived twice.
    Reported,
    /// The same by a peer without D-SACK: an acknowledgement, and another.
    Repeated,
}

//= rfc8985 7.2a, 7.2d, 7.3b, 7.3c, 7.3e, 7.4a, 7.4b, 7.4c, 7.3d, 8a
#[test]
fn the_end_of_what_was_sent_is_probed_for_once() {
    for (segments, patience, answer) in [
        (3, 80 * MS, Answer::Once),
        (3, 80 * MS, Answer::Reported),
        (3, 80 * MS, Answer::Repeated),
        (1, 120 * MS, Answer::Reported),
    ] {
        let mut bench = sending(true, 40 * MS, segments);
        let start = bench.now;
        let probe = bench.wait(10 * SECOND);
        let end = segments as i32;
        assert_eq!(ranges(&bench, &probe), [(end - 1, end)]);
        // Two round trips. A single segment waits for the peer's delayed acknowledgement, but not longer than RTO: 40 +
        // 4 x 20 ms, at least 200 ms.
        let expected = if segments == 1 { 200 * MS } else { patience };
        assert_eq!(bench.now - start, expected);
        let before = cwnd(&bench);
        let acked = end as u32 * 1000;
        match answer {
            Answer::Once => drop(bench.exchange(&bench.seg(0, acked))),
            Answer::Reported => {
                bench.exchange(&sacked(&bench, acked, &[(acked - 1000, acked)]));
            }
            Answer::Repeated => {
                bench.exchange(&bench.seg(0, acked));
                bench.exchange(&bench.seg(0, acked));
            }
        }
        assert_eq!(cwnd(&bench), before);
        // The acknowledgement of later data decides: the probe repaired a loss, or was unnecessary.
        bench.send(1000);
        bench.exchange(&bench.seg(0, acked + 1000));
        assert_eq!(cwnd(&bench) < before, answer == Answer::Once, "{answer:?}");
    }
    // There is no second probe: the timeout is next, and begins at the left edge.
    let mut bench = sending(true, 40 * MS, 3);
    bench.wait(10 * SECOND);
    let again = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &again), [(0, 1)]);
    // Nor is there one when a part is acknowledged, or all of it with no round trip measured.
    let mut bench = sending(true, 40 * MS, 3);
    bench.wait(10 * SECOND);
    bench.exchange(&bench.seg(0, 1000));
    let again = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &again), [(1, 2)]);
    let mut bench = sending(true, 40 * MS, 3);
    bench.wait(10 * SECOND);
    bench.exchange(&bench.seg(0, 3000));
    bench.exchange(&bench.seg(0, 3000));
    bench.send(3000);
    let again = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &again), [(3, 4)], "no measure yet");
    bench.exchange(&bench.seg(0, 6000));
    bench.send(1000);
    bench.now += 40 * MS;
    bench.exchange(&bench.seg(0, 7000));
    bench.send(3000);
    let probe = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &probe), [(9, 10)]);
}

//= rfc8985 7.3a
#[test]
fn a_probe_is_new_data_if_there_is_some() {
    let mut bench = sending(true, 40 * MS, 20);
    let probe = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &probe), [(10, 11)]);
}

//= rfc5827 3.1a, 3.1c, 3.1d
#[test]
fn few_segments_need_fewer_reports() {
    // Segments sent, of which the first is lost; reports that do not yet suffice.
    for (segments, in_vain) in [(2, 0), (3, 1), (4, 2), (6, 2)] {
        let mut bench = sending(true, 40 * MS, segments);
        for count in 1..=in_vain {
            let none = bench.exchange(&sacked(&bench, 0, &[(1000, 1000 + 1000 * count)]));
            assert_eq!(none, [], "{segments} {count}");
        }
        let again = bench.exchange(&sacked(&bench, 0, &[(1000, 2000 + 1000 * in_vain)]));
        assert_eq!(ranges(&bench, &again), [(0, 1)], "{segments}");
    }
}

//= rfc5827 3.1a, 3.1b, 3.1d
#[test]
fn few_segments_need_fewer_duplicates() {
    for (segments, in_vain) in [(2, 0), (3, 1), (4, 2), (6, 2)] {
        let mut bench = sending(false, 40 * MS, segments);
        let duplicate = bench.seg(0, 0);
        for _ in 0..in_vain {
            assert_eq!(bench.exchange(&duplicate), [], "{segments}");
        }
        let again = bench.exchange(&duplicate);
        assert_eq!(ranges(&bench, &again), [(0, 1)], "{segments}");
    }
}
