//! Tests that the state which a hostile network can cause is bounded, and that well-behaved clients are served.

mod hand;

use std::time::Duration;

use hand::{Bench, IRS, SECOND, Seg, config};
use outlast_stack::{Config, Event, Lost, Usage, Why};

fn flooded(max_half_open: usize, syns: u16) -> Bench {
    let mut bench = Bench::new(Config {
        max_half_open,
        receive_buffer: 1 << 20,
        ..config()
    });
    for client in 0..syns {
        let answer = bench.exchange(&bench.syn(2000 + client));
        assert!(answer.len() == 1 && answer[0].syn, "every SYN is answered");
    }
    bench
}

fn usage(bench: &Bench) -> Usage {
    bench.stack.usage()
}

/// A client's handshake, all options offered; `late`: how long its acknowledgement takes.
fn connect(bench: &mut Bench, client: u16, late: Duration) -> Vec<Seg> {
    let syn = Seg {
        client,
        scale: Some(7),
        mss: Some(1460),
        timestamp: Some((5, 0)),
        ..bench.syn(client)
    };
    let answer = bench.exchange(&syn);
    let [answer] = &answer[..] else {
        panic!("one SYN-ACK: {answer:?}")
    };
    assert!(answer.syn && answer.ack == Some(IRS.wrapping_add(1)));
    assert!(answer.scale.is_some() && answer.sack_permitted && answer.timestamp.is_some());
    bench.iss = answer.seq;
    bench.now += late;
    let ack = Seg {
        client,
        timestamp: Some((6, answer.timestamp.unwrap().0)),
        ..bench.seg(0, 0)
    };
    bench.exchange(&ack)
}

#[test]
fn nothing_is_kept_of_a_flood_of_syns() {
    let mut bench = flooded(10, 1000);
    assert_eq!(
        bench.log.records.len(),
        10,
        "a record for each connection that is kept, and no more"
    );
    assert_eq!(
        (usage(&bench).half_open, usage(&bench).cookies_sent),
        (10, 990)
    );
    assert_eq!(bench.events(), [], "no connection is displaced");
    // a client gets through meanwhile, with all its options
    assert_eq!(connect(&mut bench, 1000, SECOND / 2), []);
    let events = bench.events();
    let [Event::Accepted(conn)] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(usage(&bench).cookies_accepted, 1);
    let opened = bench.stack.checkpoint(conn).unwrap();
    assert_eq!((opened.options.peer_mss, opened.options.sack), (1440, true));
    assert_eq!(opened.options.window_scale.map(|(peer, _)| peer), Some(7));
    assert!(opened.options.timestamps);
    // and is served, also after a crash
    let data = Seg {
        data: vec![7; 100],
        timestamp: Some((7, 0)),
        ..bench.seg(0, 0)
    };
    bench.exchange(&data);
    bench.crash();
    bench.resume(Lost::Nothing);
    assert_eq!(bench.stack.received_len(conn), 100);
}

#[test]
fn a_crash_between_a_cookie_and_its_acknowledgement_resets_nobody() {
    let mut bench = flooded(0, 0);
    let answer = bench.exchange(&bench.syn(1000));
    bench.iss = answer[0].seq;
    assert_eq!(bench.log.records.len(), 0);
    bench.crash();
    bench.resume(Lost::Frames);
    assert_eq!(bench.exchange(&bench.seg(0, 0)), []);
    assert!(matches!(bench.events()[..], [Event::Accepted(_)]));
}

#[test]
fn what_is_no_cookie_is_reset() {
    let mut bench = flooded(0, 0);
    let answer = bench.exchange(&bench.syn(1000));
    bench.iss = answer[0].seq;
    for wrong in [1, 1 << 7, 1 << 20, 1 << 31] {
        let guess = Seg {
            ack: Some(bench.iss.wrapping_add(1) ^ wrong),
            ..bench.seg(0, 0)
        };
        let answer = bench.exchange(&guess);
        assert!(answer.len() == 1 && answer[0].rst, "{wrong:#x}: {answer:?}");
    }
    // too late
    bench.now += 200 * SECOND;
    assert!(bench.exchange(&bench.seg(0, 0))[0].rst);
    assert_eq!(bench.log.records.len(), 0);
}

#[test]
fn when_all_connections_are_taken_a_syn_is_dropped_and_time_wait_gives_way() {
    let mut bench = Bench::new(Config {
        max_connections: 2,
        ..config()
    });
    for client in [3001, 3002] {
        let answer = bench.exchange(&bench.syn(client));
        bench.iss = answer[0].seq;
        let ack = Seg {
            client,
            ..bench.seg(0, 0)
        };
        bench.exchange(&ack);
    }
    assert_eq!(bench.exchange(&bench.syn(3003)), [], "no room, no answer");
    assert_eq!(usage(&bench).refused, 1);
    // the second closes after us: TIME-WAIT is ours
    bench.conn = bench.stack.connections().last().unwrap().0;
    bench.close();
    let fin = Seg {
        client: 3002,
        fin: true,
        ..bench.seg(0, 1)
    };
    bench.exchange(&fin);
    assert_eq!(bench.state(), "TIME-WAIT");
    bench.events();
    let answer = bench.exchange(&bench.syn(3003));
    bench.iss = answer[0].seq;
    assert_eq!(
        usage(&bench).displaced,
        0,
        "a mere SYN displaces no connection"
    );
    let ack = Seg {
        client: 3003,
        ..bench.seg(0, 0)
    };
    bench.exchange(&ack);
    let events = bench.events();
    assert!(
        matches!(
            events[..],
            [Event::Closed(_, Why::Finished), Event::Accepted(_)]
        ),
        "{events:?}"
    );
    assert_eq!((usage(&bench).connections, usage(&bench).displaced), (2, 1));
}

#[test]
fn out_of_order_segments_are_bounded_and_each_connection_has_a_share() {
    let limit = 50_000;
    let mut bench = Bench::new(Config {
        max_out_of_order: limit,
        receive_buffer: 1 << 20,
        ..config()
    });
    bench.connect(Some(7), false, 50_000);
    let greedy: Vec<Seg> = (1..500).map(|i| bench.data(i * 120, 100)).collect();
    for seg in &greedy {
        bench.exchange(seg);
    }
    assert!(usage(&bench).out_of_order <= limit);
    assert!(usage(&bench).out_of_order > limit * 9 / 10);
    assert!(usage(&bench).out_of_order_dropped > 200);
    // another client loses a segment and is not the worse for it
    let answer = bench.exchange(&Seg {
        scale: Some(7),
        ..bench.syn(1001)
    });
    bench.iss = answer[0].seq;
    let other = |bench: &Bench, offset: u32| Seg {
        client: 1001,
        data: vec![7; 1000],
        ..bench.seg(offset, 0)
    };
    bench.exchange(&Seg {
        client: 1001,
        ..bench.seg(0, 0)
    });
    let dropped = usage(&bench).out_of_order_dropped;
    for i in 1..20 {
        bench.exchange(&other(&bench, i * 1000));
    }
    assert_eq!(usage(&bench).out_of_order_dropped, dropped);
    bench.exchange(&other(&bench, 0));
    let conn = bench.stack.connections().last().unwrap().0;
    assert_eq!(bench.stack.received_len(conn), 20_000);
    // the account of a connection that is gone is empty
    for conn in [bench.conn, conn] {
        bench.stack.abort(conn, &mut bench.log);
    }
    bench.poll();
    assert_eq!(usage(&bench).out_of_order, 0);
}
