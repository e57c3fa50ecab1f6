//! Receiving: options, order, acknowledgements, urgent data.

mod hand;

use hand::{Bench, MS, SECOND, Seg, config};
use outlast_stack::{Config, Event, Lost, Why};

fn queued(bench: &Bench) -> Vec<u8> {
    let parts = bench.stack.received(bench.conn).unwrap();
    parts.iter().flat_map(|part| part.to_vec()).collect()
}

/// The SACK blocks of a segment, as offsets.
fn blocks(bench: &Bench, seg: &Seg) -> Vec<(i32, i32)> {
    let at = |seq: u32| bench.theirs(Some(seq));
    let present = seg.sack.iter().flatten();
    present.map(|(from, to)| (at(*from), at(*to))).collect()
}

//= rfc9293 MUST-5, MUST-6, MUST-7, MUST-64
//= rfc7323 2.2b
#[test]
fn options_of_every_kind_do_no_harm_in_any_segment() {
    const NOP: u8 = 1;
    const MSS: [u8; 4] = [2, 4, 2, 0];
    for options in [
        MSS.to_vec(),
        vec![3, 3, 7, NOP],
        vec![4, 2, NOP, NOP],
        // unknown, with a length
        vec![254, 6, 1, 2, 3, 4, NOP, NOP],
        // not aligned
        vec![NOP, 2, 4, 2, 0, NOP, NOP, NOP],
        // lengths of zero, one, and beyond the header; wrong for their kind
        vec![254, 0, 0, 0],
        vec![254, 1, 0, 0],
        vec![2, 0, 0, 0],
        vec![2, 40, 0, 0],
        vec![8, 4, 0, 0],
        vec![5, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![NOP, NOP, NOP, 254],
        vec![0, 255, 255, 255],
    ] {
        let mut bench = Bench::plain();
        let mut seg = bench.data(0, 10);
        seg.raw_options.clone_from(&options);
        bench.exchange(&seg);
        assert_eq!(queued(&bench).len(), 10, "{options:?}");
        let mut fin = bench.seg(10, 0);
        (fin.fin, fin.raw_options) = (true, options.clone());
        bench.exchange(&fin);
        assert_eq!(bench.state(), "CLOSE-WAIT", "{options:?}");
        assert_eq!(bench.stack.status()[0].snd_wnd, 50_000, "{options:?}");
        // SYN options in other segments are ignored.
        assert_eq!(bench.send(5000)[0].data.len(), 1000, "{options:?}");
        let mut bench = Bench::new(config());
        let mut syn = bench.syn(1000);
        syn.raw_options.clone_from(&options);
        let answer = bench.exchange(&syn);
        assert!(answer.len() == 1 && answer[0].syn, "{options:?}");
    }
}

//= rfc9293 MUST-4, MUST-64
#[test]
fn options_are_read_at_any_alignment_up_to_the_end_of_the_list() {
    let mut bench = Bench::new(config());
    let mut syn = Seg {
        mss: None,
        sack_permitted: false,
        ..bench.syn(1000)
    };
    // NOP, MSS 700, NOP, SACK permitted, NOP, NOP, timestamps, end of the list, and a window scale that does not count.
    syn.raw_options = vec![
        1, 2, 4, 2, 188, 1, 4, 2, 1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 0, 0, 3, 3, 3,
    ];
    let answer = bench.exchange(&syn);
    assert!(answer[0].sack_permitted && answer[0].scale.is_none());
    assert_eq!(answer[0].timestamp.unwrap().1, 5);
    bench.iss = answer[0].seq;
    bench.timestamps = true;
    bench.exchange(&bench.seg(0, 0));
    bench.conn = bench.log.records[0].0;
    assert_eq!(bench.send(5000)[0].data.len(), 700 - 12);
}

//= rfc9293 MUST-58, MUST-59
#[test]
fn all_that_was_received_is_acknowledged_at_once() {
    let mut bench = Bench::plain();
    for offset in (0..10_000).step_by(1000) {
        bench.ingest(&bench.data(offset, 1000));
    }
    let answer = bench.poll();
    assert_eq!((answer.len(), bench.theirs(answer[0].ack)), (1, 10_000));
}

//= rfc9293 SHLD-18, MUST-40, SHLD-19
//= rfc5681 4.2a, 4.2b
#[test]
fn acknowledgements_are_delayed_by_less_than_half_a_second_and_one_segment() {
    let mut bench = Bench::plain();
    // The size of a full segment is learned from the first one.
    bench.exchange(&bench.data(0, 1000));
    let came = bench.now;
    let answer = bench.wait(SECOND);
    assert_eq!(bench.theirs(answer[0].ack), 1000);
    assert!(bench.now > came && bench.now - came < 500 * MS);
    let mut acked = 1000;
    for count in 1..=100 {
        bench.stack.consume(bench.conn, 1000, &mut bench.log);
        let answer = bench.exchange(&bench.data(count * 1000, 1000));
        assert!(answer.len() <= 1);
        if let Some(ack) = answer.first() {
            acked = bench.theirs(ack.ack);
        }
        assert!((count as i32 + 1) * 1000 - acked < 2000);
    }
    // Small segments in a row do not postpone it.
    let came = bench.now;
    for offset in 0..50 {
        bench.now += 5 * MS;
        let answer = bench.exchange(&bench.data(101_000 + offset, 1));
        if !answer.is_empty() {
            break;
        }
    }
    assert!(bench.now - came < 100 * MS);
}

//= rfc9293 MUST-39, SHLD-14
#[test]
fn the_window_opens_in_worthwhile_steps_and_never_shrinks() {
    let small = Config {
        receive_buffer: 10_000,
        ..config()
    };
    let mut bench = Bench::established(small, None, false);
    let mut edge = 0;
    let mut note = |bench: &Bench, sent: &[Seg]| {
        for seg in sent {
            let new = bench.theirs(seg.ack) + i32::from(seg.window);
            assert!(new >= edge, "shrinks");
            assert!(
                new == edge || new - edge >= 1000 || edge == 0,
                "a small step"
            );
            edge = new;
        }
    };
    let mut offset = 0;
    for step in 0..200 {
        let room = bench.stack.status()[0].rcv_wnd.min(1000);
        let sent = bench.exchange(&bench.data(offset, room as usize));
        offset += room;
        note(&bench, &sent);
        bench
            .stack
            .consume(bench.conn, 100 + step * 7 % 500, &mut bench.log);
        let sent = bench.poll();
        note(&bench, &sent);
        let sent = bench.wait(50 * MS);
        note(&bench, &sent);
    }
    assert!(offset > 50_000);
}

/// It may be a probe of a window that has opened, by a peer that missed the update.
#[test]
fn an_empty_segment_beyond_rcv_nxt_is_answered_at_a_limited_rate() {
    let mut bench = Bench::plain();
    assert!(bench.exchange(&bench.seg(0, 0)).is_empty());
    let answer = bench.exchange(&bench.seg(1000, 0));
    assert_eq!(bench.theirs(answer[0].ack), 0);
    assert!(answer[0].window > 0);
    let answers: usize = (0..100)
        .map(|_| bench.exchange(&bench.seg(1000, 0)).len())
        .sum();
    assert!((5..20).contains(&answers), "{answers} in a second");
    bench.exchange(&bench.data(0, 1000));
    bench.wait(SECOND);
    assert!(bench.exchange(&bench.seg(1000, 0)).is_empty());
}

/// Neither its first nor its last byte is within the window.
#[test]
fn of_a_segment_beyond_the_window_on_both_sides_the_middle_is_accepted() {
    let small = Config {
        receive_buffer: 1000,
        ..config()
    };
    let mut bench = Bench::established(small, None, false);
    bench.exchange(&bench.data(0, 600));
    bench.exchange(&bench.data(0, 1500));
    let answer = bench.wait(SECOND);
    assert_eq!(bench.theirs(answer[0].ack), 1000);
}

//= rfc9293 MUST-66
#[test]
fn a_closed_window_stops_neither_resets_nor_urgent_segments() {
    let shut = || {
        let small = Config {
            receive_buffer: 2000,
            ..config()
        };
        let mut bench = Bench::established(small, None, false);
        bench.exchange(&bench.data(0, 1000));
        bench.exchange(&bench.data(1000, 1000));
        assert_eq!(bench.stack.status()[0].rcv_wnd, 0);
        bench.send(10);
        bench.events();
        bench
    };
    let mut bench = shut();
    let mut rst = bench.seg(2000, 0);
    rst.rst = true;
    bench.exchange(&rst);
    assert_eq!(bench.events(), [Event::Closed(bench.conn, Why::Reset)]);
    let mut bench = shut();
    let urgent = Seg {
        urgent: Some(5),
        ..bench.seg(2000, 10)
    };
    bench.exchange(&urgent);
    assert_eq!(
        bench.stack.send_queued(bench.conn),
        0,
        "its acknowledgement counts"
    );
}

//= rfc9293 MUST-31
#[test]
fn urgent_data_of_any_length_is_received_in_line() {
    let mut bench = Bench::plain();
    let mut stream = Vec::new();
    for (offset, pointer) in [(0, 1), (100, 100), (200, 60_000), (300, 0)] {
        let mut seg = bench.data(offset, 100);
        seg.urgent = Some(pointer);
        seg.data.fill(offset as u8);
        stream.extend_from_slice(&seg.data);
        bench.exchange(&seg);
    }
    assert_eq!(queued(&bench), stream);
}

//= rfc9293 SHLD-31
//= rfc2018 4d, 4e, 4f
//= rfc5681 3.2a, 3.2b, 4.2c
//= rfc6582 5a
#[test]
fn what_is_out_of_order_is_held_and_reported_latest_first() {
    let mut bench = Bench::plain();
    for (offset, expected) in [
        (3000, vec![(3000, 4000)]),
        (1000, vec![(1000, 2000), (3000, 4000)]),
        (5000, vec![(5000, 6000), (1000, 2000), (3000, 4000)]),
        (7000, vec![(7000, 8000), (5000, 6000), (1000, 2000)]),
        (2000, vec![(1000, 4000), (7000, 8000), (5000, 6000)]),
    ] {
        let answer = bench.exchange(&bench.data(offset, 1000));
        assert_eq!((answer.len(), bench.theirs(answer[0].ack)), (1, 0));
        assert_eq!(blocks(&bench, &answer[0]), expected);
    }
    let answer = bench.exchange(&bench.data(0, 1000));
    assert_eq!(bench.theirs(answer[0].ack), 4000);
    assert_eq!(blocks(&bench, &answer[0]), [(7000, 8000), (5000, 6000)]);
    assert_eq!(queued(&bench).len(), 4000);
}

//= rfc9293 MUST-45
//= rfc1122 3.2.1.3b, 3.3.4.2a
#[test]
fn every_segment_comes_from_the_address_it_was_asked_at() {
    let two = Config {
        addresses: vec![([10, 0, 0, 9].into(), 24), (hand::SERVER.into(), 24)],
        ..config()
    };
    let mut bench = Bench::established(two, None, false);
    bench.stack.send(bench.conn, &[&[1; 5000]], &mut bench.log);
    bench.stack.close(bench.conn, &mut bench.log);
    let mut out = Vec::new();
    bench.stack.poll(bench.now, &mut bench.log, &mut out);
    bench.stack.abort(bench.conn, &mut bench.log);
    bench.stack.poll(bench.now, &mut bench.log, &mut out);
    assert!(out.len() >= 6);
    for frame in out {
        assert_eq!(frame.header[26..30], hand::SERVER.octets());
    }
}

//= rfc2018 4a
#[test]
fn a_peer_without_sack_gets_duplicate_acknowledgements_and_no_blocks() {
    let (mut bench, _) = Bench::open(
        config(),
        &Seg {
            sack_permitted: false,
            ..Bench::new(config()).syn(1000)
        },
    );
    bench.ingest(&bench.data(1000, 1000));
    bench.ingest(&bench.data(2000, 1000));
    let answer = bench.poll();
    assert_eq!(answer.len(), 2, "one for each");
    assert!(
        answer
            .iter()
            .all(|seg| seg.sack == [None; 3] && bench.theirs(seg.ack) == 0)
    );
}

//= rfc7323 4.3a, 4.3b, 4.3c, 5.3c
#[test]
fn a_delayed_acknowledgement_echoes_the_earliest_timestamp() {
    let mut bench = Bench::established(config(), None, true);
    for offset in [0, 500] {
        let mut seg = bench.data(offset, 500);
        seg.timestamp = Some((20, 0));
        bench.exchange(&seg);
    }
    for (offset, tsval) in [(1000, 30), (1300, 40)] {
        let mut seg = bench.data(offset, 300);
        seg.timestamp = Some((tsval, 0));
        assert_eq!(bench.exchange(&seg), []);
    }
    let answer = bench.wait(SECOND);
    assert_eq!(
        (bench.theirs(answer[0].ack), answer[0].timestamp.unwrap().1),
        (1600, 30)
    );
    let mut seg = bench.data(1600, 400);
    seg.timestamp = Some((30, 0));
    bench.exchange(&seg);
    bench.wait(SECOND);
    // A segment beyond a hole does not count.
    let mut seg = bench.data(3000, 1000);
    seg.timestamp = Some((50, 0));
    assert_eq!(bench.exchange(&seg)[0].timestamp.unwrap().1, 30);
    // A segment that fills the hole does; the data it joins arrived before, and is not examined again.
    let mut seg = bench.data(2000, 1000);
    seg.timestamp = Some((60, 0));
    let answer = bench.exchange(&seg);
    assert_eq!(
        (bench.theirs(answer[0].ack), answer[0].timestamp.unwrap().1),
        (4000, 60)
    );
}

//= rfc2018 8b
#[test]
fn after_a_crash_nothing_is_reported_that_is_no_longer_held() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(1000, 1000));
    bench.exchange(&bench.data(5000, 1000));
    bench.crash();
    bench.resume(Lost::Nothing);
    let answer = bench.exchange(&bench.data(3000, 1000));
    assert_eq!(blocks(&bench, &answer[0]), [(3000, 4000)]);
}
