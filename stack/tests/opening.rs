//! Tests the handshake: the options of the SYNs, and SYN-RECEIVED.

mod hand;

use hand::{Bench, IRS, SECOND, Seg, config};
use outlast_stack::{Config, Event, Lost, Why};

fn syn() -> Seg {
    Bench::new(config()).syn(1000)
}

fn longest(sent: &[Seg]) -> usize {
    sent.iter().map(|seg| seg.data.len()).max().unwrap()
}

//= rfc9293 MUST-14, MUST-16, MUST-67, SHLD-5, SHLD-28
//= rfc6691 2a, 2b
//= rfc1191 3.1a, 3.1b
//= rfc8201 5.4b
//= rfc1122 3.3.2a, 3.3.3a
#[test]
fn segments_are_as_long_as_both_sides_allow() {
    for (mtu, peer_mss, timestamps, expected) in [
        (1500, Some(1000), false, 1000),
        (1500, Some(9000), false, 1460),
        (1500, Some(9000), true, 1448),
        (1500, Some(1000), true, 988),
        (9000, Some(9000), false, 8960),
        (9000, Some(65_535), false, 8960),
    ] {
        let syn = Seg {
            mss: peer_mss,
            timestamp: timestamps.then_some((1, 0)),
            ..syn()
        };
        let (mut bench, syn_ack) = Bench::open(Config { mtu, ..config() }, &syn);
        assert_eq!(syn_ack.mss, Some(mtu as u16 - 40));
        assert_eq!(longest(&bench.send(14_000)), expected);
    }
}

//= rfc9293 MUST-15
#[test]
fn without_the_option_the_mss_is_536() {
    let (mut bench, _) = Bench::open(config(), &Seg { mss: None, ..syn() });
    assert_eq!(longest(&bench.send(5000)), 536);
}

//= rfc9293 MUST-65
//= rfc2018 2a
#[test]
fn options_of_syns_are_in_syns_alone() {
    let (mut bench, syn_ack) = Bench::open(config(), &syn());
    assert!(syn_ack.mss.is_some());
    let mut sent = bench.send(5000);
    bench.ingest(&bench.data(10, 10));
    sent.extend(bench.poll());
    sent.extend(bench.close());
    sent.extend(bench.wait(SECOND));
    let none = |seg: &Seg| seg.mss.is_none() && seg.scale.is_none() && !seg.sack_permitted;
    assert!(sent.len() > 6 && sent.iter().all(none));
}

/// Our window as the peer reads it.
fn offered(seg: &Seg, shift: u8) -> u32 {
    u32::from(seg.window) << shift
}

//= rfc7323 2.2a, 2.2c, 2.3c, 2.3d, 2.2d, 2.3f, 2.3g
#[test]
fn windows_are_scaled_if_both_say_so() {
    let large = Config {
        receive_buffer: 4 << 20,
        ..config()
    };
    let (mut bench, syn_ack) = Bench::open(
        large.clone(),
        &Seg {
            scale: Some(3),
            ..syn()
        },
    );
    let shift = syn_ack.scale.unwrap();
    assert!(shift > 0 && shift <= 14);
    assert_eq!(
        offered(&syn_ack, 0),
        65_535 >> shift << shift,
        "a SYN's window is not scaled"
    );
    bench.exchange(&bench.data(0, 1000));
    let answer = bench.wait(SECOND);
    assert!(offered(&answer[0], shift) > 4_000_000);

    let (mut bench, syn_ack) = Bench::open(
        large,
        &Seg {
            scale: None,
            ..syn()
        },
    );
    assert_eq!((syn_ack.scale, syn_ack.window), (None, 65_535));
    bench.exchange(&bench.data(0, 1000));
    assert!(offered(&bench.wait(SECOND)[0], 0) <= 65_535);
    assert_eq!(bench.stack.status()[0].snd_wnd, 50_000, "nor scaled");

    // A window that needs no scaling says so.
    let scaled = Seg {
        scale: Some(3),
        ..syn()
    };
    let (_, syn_ack) = Bench::open(config(), &scaled);
    assert_eq!(syn_ack.scale, Some(0));
}

//= rfc9293 MUST-1, REC-1
//= rfc7323 2.3a, 2.3b
//= rfc5681 3.1c
#[test]
fn the_largest_windows_are_large() {
    // More than a sign bit in the field, and a shift beyond the largest.
    for (scale, expected) in [
        (None, 65_535),
        (Some(0), 65_535),
        (Some(14), 65_535 << 14),
        (Some(40), 65_535 << 14),
    ] {
        let (mut bench, _) = Bench::open(config(), &Seg { scale, ..syn() });
        let mut seg = bench.seg(0, 0);
        seg.window = 65_535;
        bench.exchange(&seg);
        assert_eq!(bench.stack.status()[0].snd_wnd, expected);
        let sent: usize = bench.send(40_000).iter().map(|seg| seg.data.len()).sum();
        assert_eq!(sent, 10_000, "the congestion window is the limit");
    }
}

//= rfc9293 SHLD-2
#[test]
fn a_reset_in_syn_received_is_not_reported() {
    let mut bench = Bench::new(config());
    bench.iss = bench.exchange(&bench.syn(1000))[0].seq;
    let mut rst = bench.data(0, 5);
    (rst.rst, rst.ack) = (true, None);
    assert_eq!(bench.exchange(&rst), []);
    let events = bench.events();
    assert!(
        matches!(events[..], [Event::Closed(_, Why::NeverOpened)]),
        "{events:?}"
    );
    assert!(bench.exchange(&bench.syn(1000))[0].syn, "still listening");
}

#[test]
fn a_peer_that_restarts_gets_through_a_half_open_connection() {
    let mut bench = Bench::new(config());
    bench.iss = bench.exchange(&bench.syn(1000))[0].seq;
    let mut again = bench.syn(1000);
    again.seq = IRS.wrapping_sub(1_000_000);
    let answer = bench.exchange(&again);
    let expected = (bench.iss.wrapping_add(1), Some(IRS.wrapping_add(1)), false);
    assert_eq!((answer[0].seq, answer[0].ack, answer[0].syn), expected);
    // RFC 9293, section 3.5.1: the answer of a peer in SYN-SENT.
    let mut rst = bench.seg(0, 0);
    (rst.rst, rst.ack) = (true, None);
    assert_eq!(bench.exchange(&rst), []);
    let answer = bench.exchange(&again);
    assert!(answer[0].syn && answer[0].ack == Some(again.seq.wrapping_add(1)));
}

#[test]
fn a_zero_window_in_a_syn_is_respected() {
    let mut bench = Bench::new(config());
    let shut = Seg {
        window: 0,
        ..bench.syn(1000)
    };
    bench.iss = bench.exchange(&shut)[0].seq;
    let ack = Seg {
        window: 0,
        ..bench.seg(0, 0)
    };
    assert_eq!(bench.exchange(&ack), []);
    bench.conn = bench.log.records[0].0;
    assert_eq!(bench.send(3000), []);
    assert_eq!(longest(&bench.exchange(&bench.seg(0, 0))), 1000);
}

//= rfc9293 MUST-42, MUST-22
#[test]
fn a_port_is_listened_on_whatever_its_connections_do() {
    let mut bench = Bench::new(config());
    for client in 1000..1003 {
        let answer = bench.exchange(&bench.syn(client));
        assert!(answer[0].syn && answer[0].client == client);
    }
    let mut gaps = Vec::new();
    let mut last = bench.now;
    while bench.wait(100 * SECOND).len() == 3 {
        gaps.push((bench.now - last).as_secs());
        last = bench.now;
    }
    assert_eq!(gaps, [1, 2, 4, 8, 16], "SYN-ACKs back off as data does");
}

//= rfc9293 MUST-12
#[test]
fn how_a_connection_ends_is_reported() {
    let (mut bench, _) = Bench::open(config(), &syn());
    bench.events();
    let mut fin = bench.seg(0, 0);
    fin.fin = true;
    bench.exchange(&fin);
    assert_eq!(bench.events(), [Event::PeerFinished(bench.conn)]);
    let (mut bench, _) = Bench::open(config(), &syn());
    bench.events();
    let mut rst = bench.seg(0, 0);
    rst.rst = true;
    bench.exchange(&rst);
    assert_eq!(bench.events(), [Event::Closed(bench.conn, Why::Reset)]);
}

//= rfc9293 SHLD-4
#[test]
fn a_syn_with_a_later_timestamp_ends_time_wait() {
    // Columns: whether the connection used timestamps; the new SYN's timestamp and its distance from the last sequence
    // number; whether it is accepted.
    for (before, tsval, offset, accepted) in [
        (true, Some(11), -50_000, true),
        (true, Some(10), 1, true),
        (true, Some(10), -1, false),
        (true, Some(9), 50_000, false),
        (true, None, 50_000, true),
        (true, None, -1, false),
        (false, Some(1), -50_000, true),
        (false, None, 50_000, true),
        (false, None, -1, false),
    ] {
        let (mut bench, _) = Bench::open(
            config(),
            &Seg {
                timestamp: before.then_some((1, 0)),
                ..syn()
            },
        );
        bench.close();
        let mut fin = bench.seg(0, 1);
        fin.fin = true;
        bench.exchange(&fin);
        assert_eq!(bench.state(), "TIME-WAIT");
        let mut again = bench.syn(1000);
        again.seq = fin.seq.wrapping_add_signed(offset);
        again.timestamp = tsval.map(|tsval| (tsval, 0));
        let answer = bench.exchange(&again);
        let opened = answer.iter().any(|seg| seg.syn);
        assert_eq!(opened, accepted, "{before} {tsval:?} {offset}");
    }
}

//= rfc9293 MUST-29, MUST-24
#[test]
fn keep_alives_can_be_turned_off() {
    let off = Config {
        keep_alive_idle: None,
        ..config()
    };
    let (mut bench, _) = Bench::open(off, &syn());
    assert_eq!(bench.wait(1_000_000 * SECOND), []);
    assert_eq!(bench.state(), "ESTABLISHED");
    let (mut bench, _) = Bench::open(config(), &syn());
    let idle = config().keep_alive_idle.unwrap();
    assert_eq!(bench.wait(idle - SECOND), []);
    for _ in 1..config().keep_alive_probes {
        assert_eq!(bench.wait(100 * SECOND).len(), 1);
    }
    bench.exchange(&bench.seg(0, 0));
    assert_eq!(
        bench.wait(idle - SECOND),
        [],
        "the probes are counted from zero again"
    );
    assert_eq!(bench.state(), "ESTABLISHED");
}

//= rfc9293 MUST-26, MUST-27, SHLD-12
#[test]
fn keep_alives_wait_for_silence() {
    let often = Config {
        keep_alive_idle: Some(5 * SECOND),
        ..config()
    };
    let (mut bench, _) = Bench::open(often, &syn());
    // Something outstanding: only retransmissions are sent.
    bench.send(100);
    for _ in 0..8 {
        let again = bench.wait(40 * SECOND);
        assert_eq!((bench.ours(again[0].seq), again[0].data.len()), (0, 100));
    }
    bench.exchange(&bench.seg(0, 100));
    let heard = bench.now;
    let probe = bench.wait(40 * SECOND);
    assert_eq!((bench.ours(probe[0].seq), probe[0].data.len()), (99, 0));
    assert_eq!(bench.now - heard, 5 * SECOND);
}

//= rfc9293 SHLD-11
#[test]
fn the_defaults_of_limits_and_timers() {
    let Config {
        user_timeout,
        hop_limit,
        dscp,
        ..
    } = Config::default();
    assert!(user_timeout >= 100 * SECOND);
    assert_eq!((hop_limit, dscp), (64, 0));
}

#[test]
fn a_syn_ack_that_nobody_answers_is_sent_again_after_a_crash() {
    let mut bench = Bench::new(config());
    let first = bench.exchange(&bench.syn(1000));
    bench.crash();
    let again = bench.resume(Lost::Nothing);
    assert_eq!(again, first);
}

//= rfc7323 3.2a, 3.2b, 3.2c, 3.2g, 5.4b, 5.2b
#[test]
fn timestamps_are_in_every_segment_or_in_none() {
    for agreed in [true, false] {
        let syn = Seg {
            timestamp: agreed.then_some((1, 0)),
            ..syn()
        };
        let (mut bench, syn_ack) = Bench::open(config(), &syn);
        let mut sent = vec![syn_ack];
        sent.extend(bench.send(3000));
        sent.extend(bench.wait(SECOND));
        sent.extend(bench.exchange(&bench.data(100, 10)));
        bench.exchange(&bench.seg(0, 3000));
        sent.extend(bench.wait(1000 * SECOND));
        bench.crash();
        sent.extend(bench.resume(Lost::Nothing));
        sent.extend(bench.close());
        bench.stack.abort(bench.conn, &mut bench.log);
        sent.extend(bench.poll());
        assert!(sent.iter().any(|seg| seg.rst) && sent.len() > 8);
        assert!(sent.iter().all(|seg| seg.timestamp.is_some() == agreed));
        let clock: Vec<u32> = sent
            .iter()
            .flat_map(|seg| seg.timestamp)
            .map(|(tsval, _)| tsval)
            .collect();
        let goes_on = |pair: &[u32]| pair[1].wrapping_sub(pair[0]) as i32 >= 0;
        assert!(clock.windows(2).all(goes_on), "{clock:?}");
        assert!(
            sent.iter()
                .flat_map(|seg| seg.timestamp)
                .all(|(_, tsecr)| tsecr <= 10 && tsecr > 0)
        );
    }
}

//= rfc7323 3.2f
#[test]
fn timestamps_that_were_not_agreed_upon_are_ignored() {
    let (mut bench, _) = Bench::open(config(), &syn());
    for (offset, tsval) in [(0, 1000), (10, 1), (20, 0x8000_0000)] {
        let mut seg = bench.data(offset, 10);
        seg.timestamp = Some((tsval, 7));
        bench.exchange(&seg);
    }
    assert_eq!(bench.stack.status()[0].queued_bytes, 30);
}

//= rfc7323 5.5a
#[test]
fn a_timestamp_is_forgotten_after_24_days() {
    let off = Config {
        keep_alive_idle: None,
        ..config()
    };
    for (days, taken) in [(23, false), (25, true)] {
        let (mut bench, _) = Bench::open(
            off.clone(),
            &Seg {
                timestamp: Some((1, 0)),
                ..syn()
            },
        );
        bench.exchange(&bench.data(0, 10));
        assert_eq!(bench.wait(SECOND).len(), 1);
        bench.wait(days * 24 * 3600 * SECOND);
        let mut old = bench.data(10, 10);
        old.timestamp = Some((9, 0));
        bench.exchange(&old);
        assert_eq!(bench.stack.status()[0].queued_bytes == 20, taken);
        if taken {
            // TS.Recent is now this one.
            let mut older = bench.data(20, 10);
            older.timestamp = Some((8, 0));
            bench.exchange(&older);
            assert_eq!(bench.stack.status()[0].queued_bytes, 20);
        }
    }
}

//= rfc7323 5.2e, 5.2f
#[test]
fn the_timestamp_of_a_reset_does_not_matter() {
    for offset in [0, 5] {
        let (mut bench, _) = Bench::open(
            config(),
            &Seg {
                timestamp: Some((1, 0)),
                ..syn()
            },
        );
        let mut rst = bench.seg(offset, 0);
        (rst.rst, rst.timestamp) = (true, Some((offset * 1000, 0)));
        let answer = bench.exchange(&rst);
        if offset == 0 {
            assert_eq!(bench.state(), "CLOSED");
        } else {
            // Challenged; its timestamp is ignored.
            assert_eq!(answer[0].timestamp.unwrap().1, 10);
        }
    }
}

//= rfc5681 3.1d
//= rfc6298 5.7
#[test]
fn after_a_syn_ack_that_was_lost_one_segment_is_sent_with_three_seconds_to_go() {
    for lost in [false, true] {
        let mut bench = Bench::new(config());
        let mut syn = bench.syn(1000);
        // Without SACK there is no loss probe.
        syn.sack_permitted = false;
        bench.iss = bench.exchange(&syn)[0].seq;
        if lost {
            assert!(bench.wait(2 * SECOND)[0].syn);
        }
        bench.exchange(&bench.seg(0, 0));
        bench.conn = bench.log.records[0].0;
        let sent = bench.send(20_000);
        let start = bench.now;
        bench.wait(10 * SECOND);
        let (segments, seconds) = if lost { (1, 3.0) } else { (10, 0.2) };
        assert_eq!(sent.len(), segments);
        assert_eq!((bench.now - start).as_secs_f64(), seconds);
    }
}

//= rfc7323 5.2c, 5.2d
#[test]
fn a_reset_echoes_the_timestamp_of_what_it_answers() {
    let mut bench = Bench::new(config());
    let stray = Seg {
        timestamp: Some((77, 5)),
        ..bench.seg(0, 0)
    };
    let answer = bench.exchange(&stray);
    assert!(answer[0].rst && answer[0].timestamp == Some((0, 77)));
    let answer = bench.exchange(&bench.seg(0, 0));
    assert!(answer[0].rst && answer[0].timestamp.is_none());
    // A wrong acknowledgement of a SYN-ACK.
    bench.timestamps = true;
    let syn = Seg {
        timestamp: Some((1, 0)),
        ..syn()
    };
    bench.iss = bench.exchange(&syn)[0].seq;
    let answer = bench.exchange(&bench.seg(0, 77));
    assert!(answer[0].rst && answer[0].ack.is_none());
    assert_eq!(answer[0].timestamp, Some((0, 10)));
}

//= rfc7323 3.2i
#[test]
fn what_a_syn_echoes_means_nothing() {
    let answer = |echo| {
        let syn = Seg {
            timestamp: Some((1, echo)),
            ..syn()
        };
        let (mut bench, syn_ack) = Bench::open(config(), &syn);
        (syn_ack, bench.send(1000), bench.stack.status()[0].srtt_us)
    };
    assert_eq!(answer(0), answer(0x1234_5678));
}
