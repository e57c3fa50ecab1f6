//! State by event, one segment at a time (RFC 9293, 5961, 7323 and 1122).

mod hand;

use std::time::Duration;

use hand::{Bench, IRS, MS, PORT, SECOND, Seg, config};
use outlast_stack::{Config, Event, Lost, Record, Trouble, Why};

/// A bench in each synchronized state in which a peer's segment can arrive, with the number of our acknowledged bytes.
fn in_each_state() -> Vec<(&'static str, Bench)> {
    let mut close_wait = Bench::plain();
    let mut fin = close_wait.seg(0, 0);
    fin.fin = true;
    close_wait.exchange(&fin);
    let mut fin_wait_1 = Bench::plain();
    fin_wait_1.close();
    let mut fin_wait_2 = Bench::plain();
    fin_wait_2.close();
    fin_wait_2.exchange(&fin_wait_2.seg(0, 1));
    let mut last_ack = Bench::plain();
    last_ack.exchange(&fin);
    last_ack.close();
    let mut closing = Bench::plain();
    closing.close();
    closing.exchange(&fin);
    let all = vec![
        ("ESTABLISHED", Bench::plain()),
        ("CLOSE-WAIT", close_wait),
        ("FIN-WAIT-1", fin_wait_1),
        ("FIN-WAIT-2", fin_wait_2),
        ("LAST-ACK", last_ack),
        ("CLOSING", closing),
    ];
    for (name, bench) in &all {
        assert_eq!(bench.state(), *name);
    }
    all
}

/// The peer's next sequence number in a state, as an offset.
fn next(state: &str) -> u32 {
    u32::from(matches!(state, "CLOSE-WAIT" | "LAST-ACK" | "CLOSING"))
}

//= rfc5961 3.2a, 3.2b, 3.2c, 3.2d
#[test]
fn a_reset_counts_at_the_next_sequence_number_only() {
    for offset in [0i64, 1, 100, -1, 70_000] {
        for (state, mut bench) in in_each_state() {
            let mut rst = bench.seg((i64::from(next(state)) + offset) as u32, 0);
            rst.rst = true;
            bench.events();
            let answer = bench.exchange(&rst);
            match offset {
                0 => {
                    assert_eq!(
                        bench.events(),
                        [Event::Closed(bench.conn, Why::Reset)],
                        "{state}"
                    );
                    assert_eq!(answer, []);
                }
                1 | 100 => {
                    // RFC 5961, section 3.2: challenge ACK.
                    assert_eq!((bench.state(), answer.len()), (state, 1));
                    assert_eq!(bench.theirs(answer[0].ack), next(state) as i32);
                }
                _ => assert_eq!((bench.state(), answer.len()), (state, 0)),
            }
        }
    }
}

//= rfc5961 4.2a, 7a, 4.2b
#[test]
fn a_syn_is_challenged_at_a_limited_rate() {
    for (state, mut bench) in in_each_state() {
        let mut answers = 0;
        for offset in 0..50 {
            let mut syn = bench.seg(offset * 5000, 0);
            syn.syn = true;
            syn.ack = None;
            answers += bench.exchange(&syn).len();
            assert_eq!(bench.state(), state);
        }
        assert!((1..=10).contains(&answers), "{state}: {answers}");
        bench.now += SECOND;
        let mut syn = bench.seg(3, 0);
        syn.syn = true;
        assert_eq!(bench.exchange(&syn).len(), 1);
    }
}

//= rfc5961 4.2c
#[test]
fn a_peer_that_restarts_ends_the_old_connection_by_its_answer() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(0, 10));
    let mut syn = bench.syn(1000);
    syn.seq = syn.seq.wrapping_add(123_456);
    let challenge = bench.exchange(&syn);
    let rst = Seg {
        seq: challenge[0].ack.unwrap(),
        ack: None,
        rst: true,
        ..bench.seg(0, 0)
    };
    bench.exchange(&rst);
    assert_eq!(bench.state(), "CLOSED");
    assert!(bench.exchange(&syn)[0].syn);
}

//= rfc5961 5.2a
#[test]
fn an_acknowledgement_of_the_unsent_or_the_ancient_is_challenged() {
    for acked in [1000, 0u32.wrapping_sub(60_000)] {
        let mut bench = Bench::plain();
        bench.stack.send(bench.conn, &[&[1; 500]], &mut bench.log);
        bench.poll();
        let mut seg = bench.data(0, 10);
        seg.ack = Some(bench.iss.wrapping_add(1).wrapping_add(acked));
        let answer = bench.exchange(&seg);
        assert_eq!(answer.len(), 1);
        assert_eq!(bench.theirs(answer[0].ack), 0, "its data is dropped");
    }
}

//= rfc9293 MUST-12
#[test]
fn half_close() {
    let mut bench = Bench::plain();
    let mut fin = bench.data(0, 10);
    fin.fin = true;
    let answer = bench.exchange(&fin);
    assert_eq!(bench.theirs(answer[0].ack), 11);
    assert_eq!(bench.state(), "CLOSE-WAIT");
    assert!(bench.events().contains(&Event::PeerFinished(bench.conn)));
    let sent = bench.send(100);
    assert_eq!(
        (sent.len(), sent[0].data.len(), sent[0].fin),
        (1, 100, false)
    );
    bench.exchange(&bench.seg(11, 100));
    let sent = bench.close();
    assert!(sent[0].fin);
    assert_eq!((bench.ours(sent[0].seq), bench.state()), (100, "LAST-ACK"));
    bench.events();
    bench.exchange(&bench.seg(11, 101));
    assert_eq!(
        bench.events().last(),
        Some(&Event::Closed(bench.conn, Why::Finished))
    );
    assert_eq!(bench.state(), "CLOSED");
}

//= rfc9293 MUST-13
#[test]
fn simultaneous_close_and_time_wait() {
    let mut bench = Bench::plain();
    assert!(bench.close()[0].fin);
    let mut fin = bench.seg(0, 0);
    fin.fin = true;
    bench.exchange(&fin);
    assert_eq!(bench.state(), "CLOSING");
    bench.exchange(&bench.seg(1, 1));
    assert_eq!(bench.state(), "TIME-WAIT");
    bench.wait(50 * SECOND);
    // The peer's FIN again is answered, and the 2 MSL timer restarts.
    assert_eq!(bench.exchange(&fin).len(), 1);
    bench.wait(50 * SECOND);
    assert_eq!(bench.state(), "TIME-WAIT");
    // RFC 1337.
    let mut rst = bench.seg(1, 0);
    rst.rst = true;
    bench.exchange(&rst);
    assert_eq!(bench.state(), "TIME-WAIT");
    bench.wait(11 * SECOND);
    assert_eq!(bench.state(), "CLOSED");
}

#[test]
fn a_new_syn_ends_time_wait() {
    let mut bench = Bench::plain();
    bench.close();
    let mut fin = bench.seg(0, 1);
    fin.fin = true;
    bench.exchange(&fin);
    assert_eq!(bench.state(), "TIME-WAIT");
    let old = bench.syn(1000);
    assert!(!bench.exchange(&old)[0].syn);
    let mut new = bench.syn(1000);
    new.seq = IRS.wrapping_add(5000);
    let answer = bench.exchange(&new);
    assert!(answer[0].syn);
    assert_eq!(answer[0].ack, Some(IRS.wrapping_add(5001)));
    assert_ne!(answer[0].seq, bench.iss);
}

//= rfc7323 3.2d, 3.2e, 3.2g, 5.3a, 5.2a, 5.3b
#[test]
fn old_timestamps_are_refused() {
    let mut bench = Bench::established(config(), Some(7), true);
    let mut first = bench.data(0, 10);
    first.timestamp = Some((100, 0));
    bench.exchange(&first);
    let mut old = bench.data(10, 10);
    old.timestamp = Some((99, 0));
    let answer = bench.exchange(&old);
    assert_eq!(bench.theirs(answer[0].ack), 10);
    assert_eq!(answer[0].timestamp.unwrap().1, 100);
    let mut none = bench.data(10, 10);
    none.timestamp = None;
    assert_eq!(bench.exchange(&none), []);
    // The timestamp is looked at first: else what lies before the window would be answered.
    none.seq = none.seq.wrapping_sub(1000);
    assert_eq!(bench.exchange(&none), []);
    bench.crash();
    bench.resume(Lost::Nothing);
    let answer = bench.exchange(&old);
    assert_eq!(bench.theirs(answer[0].ack), 10, "TS.Recent survives");
    let mut new = bench.data(10, 10);
    new.timestamp = Some((101, 0));
    bench.exchange(&new);
    assert_eq!(bench.stack.status()[0].queued_bytes, 20);
}

#[test]
fn connections_are_limited() {
    let mut bench = Bench::new(Config {
        max_connections: 1,
        ..config()
    });
    bench.connect(None, false, 1000);
    assert_eq!(bench.exchange(&bench.syn(1001)), []);
}

#[test]
fn a_syn_ack_is_repeated_and_then_given_up() {
    let mut bench = Bench::new(config());
    let syn = bench.syn(1000);
    let first = bench.exchange(&syn);
    assert!(matches!(bench.log.records[0].1, Record::Opened(_)));
    assert_eq!(bench.exchange(&syn)[0].seq, first[0].seq);
    let mut tries = 0;
    while let Some(again) = bench.wait(70 * SECOND).first() {
        assert!(again.syn && again.seq == first[0].seq);
        tries += 1;
    }
    assert_eq!(tries, 5);
    assert_eq!(bench.stack.connections().count(), 0);
}

#[test]
fn a_wrong_acknowledgement_of_a_syn_is_reset() {
    let mut bench = Bench::new(config());
    bench.iss = bench.exchange(&bench.syn(1000))[0].seq;
    let wrong = bench.seg(0, 77);
    let answer = bench.exchange(&wrong);
    assert!(answer[0].rst && Some(answer[0].seq) == wrong.ack);
    bench.exchange(&bench.seg(0, 0));
    assert!(
        bench
            .events()
            .iter()
            .any(|event| matches!(event, Event::Accepted(_)))
    );
}

#[test]
fn closed_ports_reset_but_not_before_everything_is_restored() {
    let mut bench = Bench::new(config());
    let mut syn = bench.syn(1000);
    syn.port = 80;
    let answer = bench.exchange(&syn);
    assert!(answer[0].rst && answer[0].ack == Some(IRS.wrapping_add(1)));
    let stray = bench.data(0, 10);
    let answer = bench.exchange(&stray);
    assert!(answer[0].rst && Some(answer[0].seq) == stray.ack);
    assert!(
        (0..1000)
            .map(|_| bench.exchange(&stray).len())
            .sum::<usize>()
            <= 100
    );
    bench.crash();
    assert_eq!(bench.exchange(&stray), []);
    assert_eq!(bench.exchange(&bench.syn(1000)), []);
}

#[test]
fn acknowledgements_are_delayed_but_not_for_two_full_segments() {
    let mut bench = Bench::plain();
    assert_eq!(bench.exchange(&bench.data(0, 1000)), []);
    assert_eq!(bench.exchange(&bench.data(1000, 1000)).len(), 1);
    assert_eq!(bench.exchange(&bench.data(2000, 1000)), []);
    let late = bench.wait(SECOND);
    assert_eq!(bench.theirs(late[0].ack), 3000);
    bench.ingest(&bench.data(3000, 10));
    let reply = bench.send(5);
    assert_eq!(
        (reply.len(), bench.theirs(reply[0].ack)),
        (1, 3010),
        "it rides on the reply"
    );
    assert_eq!(bench.wait(100 * MS), []);
}

/// Such a peer's congestion window is a single segment: with delayed acknowledgements it would send 25 of them a
/// second.
//= rfc5681 4.2a
#[test]
fn flights_of_a_single_segment_are_acknowledged_at_once() {
    let mut bench = Bench::plain();
    assert_eq!(bench.exchange(&bench.data(0, 1000)), []);
    bench.wait(SECOND);
    for offset in (1000..10_000).step_by(1000) {
        assert_eq!(bench.exchange(&bench.data(offset, 1000)).len(), 1);
    }
}

#[test]
fn out_of_order_data_is_reported_and_joined() {
    let mut bench = Bench::plain();
    for (offset, blocks) in [(200, 1), (400, 2), (300, 1)] {
        let answer = bench.exchange(&bench.data(offset, 100));
        assert_eq!(bench.theirs(answer[0].ack), 0);
        assert_eq!(answer[0].sack.iter().flatten().count(), blocks);
    }
    let answer = bench.exchange(&bench.data(0, 200));
    assert_eq!(bench.theirs(answer[0].ack), 500);
    assert_eq!(answer[0].sack, [None; 3]);
    let queue: usize = bench
        .stack
        .received(bench.conn)
        .unwrap()
        .iter()
        .map(|part| part.len())
        .sum();
    assert_eq!(queue, 500);
}

#[test]
fn a_peer_with_a_full_window_is_probed_and_its_segments_are_processed() {
    let mut bench = Bench::plain();
    let shut = bench.shut(0);
    bench.exchange(&shut);
    assert_eq!(bench.send(3000), []);
    let mut last = bench.now;
    let mut gap = Duration::ZERO;
    for _ in 0..6 {
        let probe = bench.wait(100 * SECOND);
        assert_eq!(
            (probe.len(), probe[0].data.len(), bench.ours(probe[0].seq)),
            (1, 1, 0)
        );
        assert!(bench.now - last > gap, "backed off");
        gap = bench.now - last;
        last = bench.now;
        bench.exchange(&shut);
    }
    let sent = bench.exchange(&bench.seg(0, 0));
    assert_eq!(sent.iter().map(|seg| seg.data.len()).sum::<usize>(), 3000);
    // The byte of a probe may have been taken.
    bench.exchange(&bench.seg(0, 3000));
    bench.exchange(&bench.shut(3000));
    bench.send(10);
    bench.wait(100 * SECOND);
    bench.exchange(&bench.shut(3001));
    assert_eq!(bench.stack.send_queued(bench.conn), 9);
}

#[test]
fn our_full_window_answers_probes_and_opens_in_one_step() {
    let mut bench = Bench::established(
        Config {
            receive_buffer: 4000,
            ..config()
        },
        None,
        false,
    );
    for offset in [0, 1000, 2000, 3000] {
        bench.exchange(&bench.data(offset, 1000));
    }
    let answer = bench.exchange(&bench.data(4000, 1));
    assert_eq!((bench.theirs(answer[0].ack), answer[0].window), (4000, 0));
    bench.stack.consume(bench.conn, 300, &mut bench.log);
    assert_eq!(
        bench.poll(),
        [],
        "not worth it yet (RFC 9293, section 3.8.6.2.2)"
    );
    bench.stack.consume(bench.conn, 3700, &mut bench.log);
    let update = bench.poll();
    assert_eq!((update.len(), update[0].window), (1, 4000));
}

#[test]
fn a_full_log_drops_segments_unacknowledged() {
    let mut bench = Bench::plain();
    bench.log.room = Some(87);
    assert_eq!(bench.exchange(&bench.data(0, 1000)), []);
    assert_eq!(bench.wait(SECOND), []);
    let refused_at = |bench: &Bench| bench.stack.standing(bench.conn).unwrap().refused_at;
    assert!(refused_at(&bench).is_some());
    bench.log.room = None;
    bench.exchange(&bench.data(0, 1000));
    let answer = bench.wait(SECOND);
    assert_eq!(bench.theirs(answer[0].ack), 1000);
}

//= rfc6069 4.2b
#[test]
fn a_refused_peer_is_woken_when_there_is_room() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(0, 1000));
    bench.wait(SECOND);
    bench.log.room = Some(0);
    let refused = bench.data(1000, 1000);
    for _ in 0..3 {
        bench.exchange(&refused);
        bench.wait(200 * MS);
    }
    assert_eq!(bench.wait(10 * SECOND), []);
    assert_eq!(bench.icmp(), 0, "there is no room yet");
    bench.log.room = Some(1000);
    assert_eq!(bench.wait(250 * MS), []);
    assert_eq!(bench.icmp(), 32);
    bench.others.clear();
    assert_eq!(bench.wait(10 * SECOND), []);
    bench.exchange(&refused);
    assert_eq!(bench.icmp(), 0, "it has been woken once");
}

#[test]
fn of_a_segment_the_log_takes_what_it_has_room_for() {
    let mut bench = Bench::plain();
    bench.log.room = Some(600);
    let mut segment = bench.data(0, 1000);
    segment.fin = true;
    bench.exchange(&segment);
    let answer = bench.wait(SECOND);
    assert_eq!(bench.theirs(answer[0].ack), 600);
    bench.log.room = None;
    let answer = bench.exchange(&segment);
    assert_eq!(bench.theirs(answer[0].ack), 1001, "the rest, and the FIN");
}

#[test]
fn three_reported_segments_make_the_hole_be_sent_again() {
    let mut bench = Bench::plain();
    let sent = bench.send(8000);
    assert_eq!(sent.len(), 8);
    for count in 1..=3 {
        let mut dup = bench.seg(0, 0);
        let base = bench.iss.wrapping_add(1);
        dup.sack[0] = Some((
            base.wrapping_add(1000),
            base.wrapping_add(1000 + 1000 * count),
        ));
        let again = bench.exchange(&dup);
        match count {
            3 => assert_eq!(
                (again.len(), bench.ours(again[0].seq), again[0].data.len()),
                (1, 0, 1000)
            ),
            _ => assert_eq!(again, []),
        }
    }
}

//= rfc9293 MUST-19, MUST-20/R2, MUST-21
//= rfc6298 5.5, 5.6
#[test]
fn timeouts_back_off_and_end_at_the_user_timeout() {
    let mut bench = Bench::established(
        Config {
            user_timeout: 100 * SECOND,
            ..config()
        },
        None,
        false,
    );
    let start = bench.now;
    bench.send(100);
    let mut gaps = Vec::new();
    let mut last = bench.now;
    while !bench.wait(1000 * SECOND).is_empty() {
        gaps.push(bench.now - last);
        last = bench.now;
    }
    // The first may be a loss probe; from then on each wait is twice the one before, up to 60 s.
    assert!(
        gaps[2..]
            .windows(2)
            .all(|pair| pair[1] >= (pair[0] * 19 / 10).min(60 * SECOND)),
        "{gaps:?}"
    );
    assert!(last - start > 40 * SECOND && last - start <= 100 * SECOND);
    let expected = [
        Event::Trouble(bench.conn, Trouble::Unacknowledged),
        Event::Closed(bench.conn, Why::TimedOut),
    ];
    assert_eq!(bench.events(), expected);
}

//= rfc9293 MUST-29
#[test]
fn keep_alive_asks_and_gives_up_but_counts_no_outage() {
    let mut bench = Bench::plain();
    let probe = bench.wait(1000 * SECOND);
    assert_eq!((bench.ours(probe[0].seq), probe[0].data.len()), (-1, 0));
    bench.exchange(&bench.seg(0, 0));
    bench.crash();
    let idle = bench.config.keep_alive_idle.unwrap();
    bench.resume(Lost::Nothing);
    assert_eq!(bench.wait(idle - SECOND), [], "service time stood still");
    let mut probes = 0;
    while !bench.wait(1000 * SECOND).is_empty() {
        probes += 1;
    }
    assert_eq!(probes, bench.config.keep_alive_probes);
    assert_eq!(bench.events(), [Event::Closed(bench.conn, Why::TimedOut)]);
}

#[test]
fn keep_alive_probes_are_answered() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(0, 10));
    bench.wait(SECOND);
    for _ in 0..100 {
        assert_eq!(bench.exchange(&bench.seg(9, 0)).len(), 1);
    }
}

#[test]
fn abort_resets() {
    let mut bench = Bench::plain();
    bench.stack.abort(bench.conn, &mut bench.log);
    let sent = bench.poll();
    assert!(sent.len() == 1 && sent[0].rst && bench.ours(sent[0].seq) == 0);
    assert_eq!(bench.events(), [Event::Closed(bench.conn, Why::Aborted)]);
}

//= rfc9293 SHLD-14
//= rfc7323 2.3b, 2.3c, 2.4c
#[test]
fn windows_are_scaled_and_never_shrink() {
    let mut bench = Bench::established(
        Config {
            receive_buffer: 8 << 20,
            ..config()
        },
        Some(5),
        false,
    );
    let shift = 8;
    let mut edge = 0;
    let mut offset = 0;
    for step in 0..200usize {
        let len = 1 + step * 37 % 1400;
        let mut answer = bench.exchange(&bench.data(offset, len));
        offset += len as u32;
        if step % 7 == 0 {
            bench.stack.consume(bench.conn, 900, &mut bench.log);
        }
        answer.extend(bench.wait(50 * MS));
        for seg in answer {
            let new = bench.theirs(seg.ack) + (i32::from(seg.window) << shift);
            assert!(new >= edge, "{new} {edge}");
            edge = new;
        }
    }
    assert!(edge > 8_000_000);
    let mut seg = bench.seg(offset, 0);
    seg.window = 3;
    bench.exchange(&seg);
    assert_eq!(bench.stack.status()[0].snd_wnd, 3 << 5);
}

#[test]
fn a_segment_beyond_the_window_is_cut() {
    let mut bench = Bench::established(
        Config {
            receive_buffer: 1500,
            ..config()
        },
        None,
        false,
    );
    bench.exchange(&bench.data(0, 1000));
    bench.exchange(&bench.data(1000, 1000));
    assert_eq!(bench.stack.status()[0].queued_bytes, 1500);
}

#[test]
fn ports_beside_ours_are_untouched() {
    let mut bench = Bench::plain();
    let mut other = bench.data(0, 10);
    other.client = 1001;
    assert!(bench.exchange(&other)[0].rst);
    assert_eq!((bench.state(), PORT), ("ESTABLISHED", 445));
}
