//! Sending: windows, probes, congestion, retransmission.

mod hand;

use std::time::Duration;

use hand::{Bench, MS, SECOND, Seg, config};
use outlast_stack::{Config, Event, Trouble};

/// An acknowledgement of `acked` bytes with a window.
fn window(bench: &Bench, acked: u32, window: u16) -> Seg {
    Seg {
        window,
        ..bench.seg(0, acked)
    }
}

fn bytes(sent: &[Seg]) -> usize {
    sent.iter().map(|seg| seg.data.len()).sum()
}

/// Begin and end of each segment, as offsets.
fn ranges(bench: &Bench, sent: &[Seg]) -> Vec<(i32, i32)> {
    let range = |seg: &Seg| {
        let from = bench.ours(seg.seq);
        (from, from + seg.data.len() as i32)
    };
    sent.iter().map(range).collect()
}

//= rfc9293 MUST-17, MUST-60
#[test]
fn the_last_of_the_data_is_not_held_back() {
    let mut bench = Bench::plain();
    assert_eq!(bytes(&bench.send(10)), 10);
    let more = bench.send(20);
    assert_eq!(ranges(&bench, &more), [(10, 30)]);
}

//= rfc9293 MUST-61, SHLD-27, SHLD-28
#[test]
fn what_is_queued_together_makes_full_segments_and_the_last_is_pushed() {
    let mut bench = Bench::plain();
    for len in [600, 700, 1200] {
        bench
            .stack
            .send(bench.conn, &[&vec![1; len]], &mut bench.log);
    }
    let sent = bench.poll();
    assert_eq!(
        ranges(&bench, &sent),
        [(0, 1000), (1000, 2000), (2000, 2500)]
    );
    let pushed: Vec<bool> = sent.iter().map(|seg| seg.psh).collect();
    assert_eq!(pushed, [false, false, true]);
}

//= rfc9293 SHLD-13
#[test]
fn nothing_is_urgent() {
    let mut bench = Bench::plain();
    let mut sent = bench.send(5000);
    sent.extend(bench.close());
    assert!(sent.len() > 5 && sent.iter().all(|seg| seg.urgent.is_none()));
}

//= rfc9293 MUST-38
//= rfc7323 2.4d
//= rfc5681 2a
#[test]
fn small_windows_are_not_filled_piece_by_piece() {
    let mut bench = Bench::plain();
    bench.exchange(&window(&bench, 0, 0));
    bench.send(8000);
    // The largest window was 50,000 bytes: half of it, or a full segment, is worth sending.
    for open in [1, 400, 999] {
        assert_eq!(bench.exchange(&window(&bench, 0, open)), [], "{open}");
    }
    let sent = bench.exchange(&window(&bench, 0, 2500));
    assert_eq!(ranges(&bench, &sent), [(0, 1000), (1000, 2000)]);
    // A peer whose window is never large gets half of it.
    let mut bench = Bench::new(config());
    bench.connect(None, false, 600);
    assert_eq!(bytes(&bench.send(5000)), 600);
    assert_eq!(bench.exchange(&window(&bench, 600, 200)), []);
    assert_eq!(bytes(&bench.exchange(&window(&bench, 600, 300))), 300);
}

//= rfc9293 MUST-34, SHLD-15, SHLD-16, SHLD-17, MUST-35
//= rfc7323 2.4a
#[test]
fn a_window_that_shrinks_is_respected_and_outlived() {
    let timeout = 100 * SECOND;
    let patient = Config {
        user_timeout: timeout,
        ..config()
    };
    let mut bench = Bench::established(patient, None, false);
    assert_eq!(bytes(&bench.send(20_000)), 10_000);
    // From 50,000 bytes to 3000: nothing new is sent; the old data is sent again.
    assert_eq!(bench.exchange(&window(&bench, 0, 3000)), []);
    let mut again = Vec::new();
    for _ in 0..4 {
        again.extend(bench.wait(10 * SECOND));
    }
    let ranges = ranges(&bench, &again);
    assert!(ranges.contains(&(0, 1000)), "{ranges:?}");
    assert!(ranges.iter().all(|(_, end)| *end <= 10_000), "{ranges:?}");
    let sent = bench.exchange(&window(&bench, 1000, 2000));
    let within = |seg: &Seg| bench.ours(seg.seq) + (seg.data.len() as i32) <= 3000;
    assert!(sent.iter().all(within), "{sent:?}");
    // To nothing, with data outstanding beyond: probed for as long as the peer answers.
    bench.exchange(&window(&bench, 3000, 0));
    let start = bench.now;
    while bench.now - start < timeout * 5 {
        let probe = bench.wait(100 * SECOND);
        assert_eq!(probe.len(), 1, "{:?}", bench.events());
        assert_eq!(bench.ours(probe[0].seq), 3000);
        bench.exchange(&window(&bench, 3000, 0));
    }
    let mut acked = 3000;
    while acked < 20_000 {
        let sent = bench.exchange(&window(&bench, acked, 50_000));
        let sent = if sent.is_empty() {
            bench.wait(100 * SECOND)
        } else {
            sent
        };
        let end = ranges_end(&bench, &sent);
        acked = acked.max(end);
    }
    bench.exchange(&bench.seg(0, 20_000));
    assert_eq!(bench.stack.send_queued(bench.conn), 0);
}

fn ranges_end(bench: &Bench, sent: &[Seg]) -> u32 {
    let ends = ranges(bench, sent).into_iter().map(|(_, end)| end);
    ends.max().unwrap_or(0).max(0) as u32
}

//= rfc9293 MUST-36, MUST-37, SHLD-29, SHLD-30
#[test]
fn a_closed_window_is_probed_as_long_as_the_peer_answers() {
    let timeout = 100 * SECOND;
    let patient = Config {
        user_timeout: timeout,
        ..config()
    };
    let mut bench = Bench::established(patient, None, false);
    bench.exchange(&window(&bench, 0, 0));
    bench.send(3000);
    let start = bench.now;
    let mut gaps: Vec<Duration> = Vec::new();
    let mut last = start;
    while last - start < timeout * 5 {
        let probe = bench.wait(100 * SECOND);
        assert_eq!(ranges(&bench, &probe), [(0, 1)]);
        gaps.push(bench.now - last);
        last = bench.now;
        bench.exchange(&window(&bench, 0, 0));
    }
    // The handshake measured no round trip, so the timeout is at its minimum.
    assert_eq!(gaps[0], 200 * MS);
    let doubled = gaps
        .windows(2)
        .all(|pair| pair[1] == (pair[0] * 2).min(60 * SECOND));
    assert!(doubled, "{gaps:?}");
    // Silence ends it.
    while bench.state() != "CLOSED" {
        bench.wait(100 * SECOND);
    }
    assert!(bench.now - last > timeout / 2);
}

//= rfc9293 MUST-18
//= rfc6298 3a, 3b, 2.3a
#[test]
fn what_was_sent_twice_is_not_measured() {
    // Sent again by a loss probe, and by a timeout.
    for sack in [true, false] {
        let syn = Seg {
            sack_permitted: sack,
            ..Bench::new(config()).syn(1000)
        };
        let (mut bench, _) = Bench::open(config(), &syn);
        bench.send(1000);
        bench.now += 40 * MS;
        bench.exchange(&bench.seg(0, 1000));
        // A handshake of no time, then 40 ms: RFC 6298, (2.3).
        let measured = Some(5000);
        assert_eq!(bench.stack.status()[0].srtt_us, measured);
        bench.send(1000);
        let again = bench.wait(10 * SECOND);
        assert_eq!(ranges(&bench, &again), [(1000, 2000)]);
        bench.now += 90 * MS;
        bench.exchange(&bench.seg(0, 2000));
        assert_eq!(bench.stack.status()[0].srtt_us, measured);
        bench.send(1000);
        bench.now += 90 * MS;
        bench.exchange(&bench.seg(0, 3000));
        assert!(bench.stack.status()[0].srtt_us > measured);
    }
}

//= rfc9293 MUST-19
//= rfc5681 3.1a, 3.1e, 3.1h, 2a
//= rfc6298 5.4
//= rfc9438 4.10b
#[test]
fn a_window_of_ten_segments_doubles_each_round_trip_and_falls_to_one_by_a_timeout() {
    let mut bench = Bench::plain();
    let mut sent = bytes(&bench.send(48_000));
    assert_eq!(sent, 10_000);
    bench.now += 10 * MS;
    for acked in (1000..=10_000).step_by(1000) {
        sent += bytes(&bench.exchange(&bench.seg(0, acked)));
    }
    assert_eq!(sent, 30_000, "two for each acknowledged");
    // No acknowledgement returns: a tail loss probe, then timeouts, one segment each.
    let probe = bench.wait(10 * SECOND);
    assert_eq!(ranges(&bench, &probe), [(30_000, 31_000)]);
    for _ in 0..3 {
        let again = bench.wait(100 * SECOND);
        assert_eq!(ranges(&bench, &again), [(10_000, 11_000)]);
    }
    let again = bench.exchange(&bench.seg(0, 11_000));
    assert_eq!(ranges(&bench, &again), [(11_000, 12_000), (12_000, 13_000)]);
}

//= rfc9293 SHLD-9, SHLD-10, MUST-47
#[test]
fn the_application_is_notified_of_missing_acknowledgements() {
    let mut bench = Bench::plain();
    bench.events();
    bench.send(1000);
    let mut times_sent = 1;
    while bench.events().is_empty() {
        times_sent += bench.wait(100 * SECOND).len();
    }
    // The first, a loss probe, three retransmissions.
    assert_eq!(times_sent, 5);
    assert_eq!(bench.state(), "ESTABLISHED");
    bench.exchange(&bench.seg(0, 1000));
    bench.send(1000);
    while times_sent < 15 {
        times_sent += bench.wait(100 * SECOND).len();
    }
    let trouble = Event::Trouble(bench.conn, Trouble::Unacknowledged);
    let events = bench.events();
    let count = events.iter().filter(|event| **event == trouble).count();
    assert_eq!(count, 1, "once for each time: {events:?}");
}

//= rfc5681 4.1a
#[test]
fn after_a_pause_a_burst_is_no_larger_than_the_initial_window() {
    let mut bench = Bench::plain();
    let mut acked = 0;
    for _ in 0..4 {
        let sent = bytes(&bench.send(40_000)) as u32;
        bench.now += MS;
        for _ in 0..sent / 1000 {
            acked += 1000;
            bench.exchange(&bench.seg(0, acked));
        }
        while bench.stack.send_queued(bench.conn) > 0 {
            acked += 1000;
            bench.exchange(&bench.seg(0, acked));
        }
    }
    assert!(bytes(&bench.send(40_000)) > 20_000);
    bench.exchange(&bench.seg(0, acked + 40_000));
    bench.exchange(&bench.seg(0, acked + 40_000));
    bench.now += 10 * SECOND;
    assert_eq!(bytes(&bench.send(40_000)), 10_000);
}

//= rfc9438 5.8a
#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut bench = Bench::plain();
    let before = bench.stack.status()[0].cwnd;
    for count in 1..=500 {
        bench.send(100);
        bench.now += MS;
        bench.exchange(&bench.seg(0, count * 100));
    }
    assert_eq!(bench.stack.status()[0].cwnd, before);
}

//= rfc7323 4.1a
#[test]
fn an_echoed_timestamp_measures_only_with_news() {
    let mut bench = Bench::established(config(), None, true);
    let sent = bench.send(1000);
    // Sent again, so the segment itself is not measured; the echo is.
    let again = bench.wait(10 * SECOND);
    let echo = again[0].timestamp.unwrap().0;
    assert!(echo > sent[0].timestamp.unwrap().0);
    bench.now += 80 * MS;
    let mut duplicate = bench.seg(0, 0);
    duplicate.timestamp = Some((10, echo.wrapping_sub(5000)));
    bench.exchange(&duplicate);
    assert_eq!(bench.stack.status()[0].srtt_us, Some(0));
    let mut news = bench.seg(0, 1000);
    news.timestamp = Some((10, echo));
    bench.exchange(&news);
    assert_eq!(
        bench.stack.status()[0].srtt_us,
        Some(10_000),
        "an eighth of 80 ms"
    );
}
