//! Outages, planned or not: what is restored, how the peer is woken, and which of its segments are still accepted.

mod hand;

use std::collections::BTreeSet;

use hand::{Bench, IRS, MS, SECOND, Seg, config};
use outlast_stack::{Config, Event, Lost};

#[test]
fn after_a_crash_any_acknowledgement_of_committed_bytes_is_valid() {
    let mut bench = Bench::plain();
    bench.stack.send(bench.conn, &[&[1; 500]], &mut bench.log);
    bench.crash();
    bench.resume(Lost::Nothing);
    bench.exchange(&bench.seg(0, 500));
    assert_eq!(bench.stack.send_queued(bench.conn), 0);
}

/// The largest window that the peer has offered is not recorded; an acknowledgement that it sent before our last bytes
/// is still accepted.
//= rfc5961 5.2a
#[test]
fn after_a_crash_data_with_an_older_acknowledgement_is_accepted() {
    let mut bench = Bench::plain();
    bench.send(2000);
    bench.exchange(&bench.shut(1000));
    bench.crash();
    bench.resume(Lost::Nothing);
    let answer = bench.exchange(&bench.data(0, 10));
    assert_eq!(bench.theirs(answer[0].ack), 10);
}

#[test]
fn after_a_crash_a_byte_taken_from_a_probe_may_be_acknowledged() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.shut(0));
    bench.send(10);
    assert_eq!(bench.wait(10 * SECOND)[0].data.len(), 1);
    bench.crash();
    bench.resume(Lost::Nothing);
    bench.exchange(&bench.shut(1));
    assert_eq!(bench.stack.send_queued(bench.conn), 9);
}

//= rfc7323 5.4a, 5.4c, 5.4d, 5.4b, 4.1b
#[test]
fn our_timestamps_continue_after_a_crash() {
    let mut bench = Bench::established(config(), None, true);
    let first = bench.send(10)[0].timestamp.unwrap().0;
    bench.now += SECOND;
    let before = bench.send(10)[0].timestamp.unwrap().0;
    assert_eq!(before.wrapping_sub(first), 1000, "milliseconds");
    bench.crash();
    let after = bench.resume(Lost::Nothing)[0].timestamp.unwrap().0;
    assert!(after.wrapping_sub(before) < 1000);
}

//= rfc6069 4.2c
#[test]
fn the_listener_works_after_a_restore_under_load() {
    let mut bench = Bench::new(Config {
        max_half_open: 10,
        ..config()
    });
    for client in 2000..2010 {
        bench.exchange(&bench.syn(client));
    }
    bench.crash();
    let again = bench.resume(Lost::Frames);
    assert_eq!(
        again.iter().filter(|seg| seg.syn).count(),
        10,
        "every SYN-ACK again"
    );
    assert!(
        bench.others.iter().all(|frame| frame[12..14] != [8, 0]),
        "no ICMP: it would abort the connect"
    );
    // A handshake completes although half-open connections fill the backlog.
    bench.events();
    let answer = bench.exchange(&bench.syn(1000));
    bench.iss = answer[0].seq;
    bench.exchange(&bench.seg(0, 0));
    assert!(
        bench
            .events()
            .iter()
            .any(|event| matches!(event, Event::Accepted(_)))
    );
}

//= rfc7323 2.4b
#[test]
fn a_planned_outage_shuts_the_windows_and_opens_them_again() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(0, 1000));
    bench.stack.drain(true);
    bench.stack.consume(bench.conn, 1000, &mut bench.log);
    let before = bench.stack.status()[0].rcv_wnd;
    let answer = bench.exchange(&bench.data(1000, 1000));
    assert!(
        answer
            .iter()
            .all(|seg| u32::from(seg.window) == before - 1000),
        "the edge stands still"
    );
    assert!(!bench.stack.drained());
    let mut last = Vec::new();
    while !bench.stack.drained() {
        last = bench.wait(SECOND);
    }
    assert_eq!((bench.theirs(last[0].ack), last[0].window), (2000, 0));
    // Segments within the old window are accepted.
    let late = bench.exchange(&bench.data(2000, 1000));
    assert_eq!((bench.theirs(late[0].ack), late[0].window), (3000, 0));
    bench.crash();
    let back = bench.resume(Lost::Nothing);
    assert_eq!((back.len(), bench.theirs(back[0].ack)), (1, 3000));
    assert!(back[0].window > 0);
    bench.stack.drain(true);
    while !bench.stack.drained() {
        bench.wait(SECOND);
    }
    bench.stack.drain(false);
    assert!(bench.poll()[0].window > 0);
}

#[test]
fn a_planned_outage_acknowledges_at_once_what_has_come() {
    let mut bench = Bench::plain();
    assert_eq!(bench.exchange(&bench.data(0, 100)), []);
    bench.stack.drain(true);
    let answer = bench.poll();
    assert_eq!((answer.len(), bench.theirs(answer[0].ack)), (1, 100));
    // Segments that arrive meanwhile are acknowledged too: the outage waits for that.
    let answer = bench.exchange(&bench.data(100, 100));
    assert_eq!((answer.len(), bench.theirs(answer[0].ack)), (1, 200));
}

/// Clients wait until all windows are shut, so a client that has sent nothing for a while is not asked to stop.
#[test]
fn a_planned_outage_leaves_the_window_of_an_idle_connection() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(0, 100));
    bench.wait(SECOND);
    bench.now += 2 * SECOND;
    bench.poll();
    bench.stack.drain(true);
    let mut sent = Vec::new();
    while !bench.stack.drained() {
        sent.extend(bench.wait(SECOND));
    }
    assert_eq!(sent, []);
    // What it sends nevertheless is received.
    let answer = bench.exchange(&bench.data(100, 100));
    assert_eq!((answer.len(), bench.theirs(answer[0].ack)), (1, 200));
}

/// A peer that delays its acknowledgements does not delay its data: the drain waits for the shortest round trip.
#[test]
fn a_planned_outage_does_not_wait_for_delayed_acknowledgements() {
    let mut bench = Bench::plain();
    for sent in (100..=2000).step_by(100) {
        bench.send(100);
        bench.now += 40 * MS;
        bench.exchange(&bench.seg(0, sent));
    }
    let begun = bench.now;
    bench.stack.drain(true);
    while !bench.stack.drained() {
        bench.wait(SECOND);
    }
    assert!(bench.now - begun < 20 * MS, "{:?}", bench.now - begun);
}

//= rfc6069 4.2a, 4.2b
#[test]
fn a_sending_client_is_woken_once_and_once_more() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(0, 1000));
    bench.wait(SECOND);
    // Received and recorded, but the acknowledgement promised in this turn is not sent.
    bench.ingest(&bench.data(1000, 1000));
    bench.ingest(&bench.data(2000, 1000));
    bench.ingest(&bench.data(3000, 1000));
    bench.crash();
    bench.others.clear();
    assert_eq!(
        bench.resume(Lost::Frames),
        [],
        "an advancing acknowledgement waits a round trip"
    );
    assert_eq!(bench.icmp(), 32);
    let quoted = |frame: &Vec<u8>| {
        u32::from_be_bytes(frame[14 + 20 + 8 + 20 + 4..][..4].try_into().unwrap())
    };
    let messages = bench.others.iter().filter(|frame| frame[12..14] == [8, 0]);
    let sent = IRS.wrapping_add(1 + 1000);
    assert_eq!(
        messages.filter(|frame| quoted(frame) == sent).count(),
        16,
        "the last acknowledgement sent"
    );
    let ack = bench.wait(5 * MS);
    assert_eq!(bench.theirs(ack[0].ack), 4000);
    let again = bench.wait(SECOND);
    assert_eq!((bench.icmp(), bench.theirs(again[0].ack)), (64, 4000));
    assert_eq!(bench.wait(10 * SECOND), []);
    assert_eq!(bench.icmp(), 64);
}

#[test]
fn unacknowledged_bytes_go_out_again_at_once() {
    let mut bench = Bench::plain();
    bench.send(3000);
    bench.crash();
    let again = bench.resume(Lost::Nothing);
    assert_eq!(again.iter().map(|seg| seg.data.len()).sum::<usize>(), 3000);
    assert_eq!(bench.ours(again[1].seq), 0);
}

/// The window is announced in a segment of its own, since the peer may ignore the window of a segment it already has.
#[test]
fn a_return_is_announced_at_snd_nxt_before_anything_is_sent_again() {
    let mut bench = Bench::plain();
    bench.send(3000);
    bench.stack.drain(true);
    while !bench.stack.drained() {
        bench.wait(SECOND);
    }
    bench.crash();
    let back = bench.resume(Lost::Nothing);
    assert!(back.len() > 1 && back[0].data.is_empty());
    assert_eq!(bench.ours(back[0].seq), 3000);
    assert!(back[0].window > 0);
}

/// Our FIN is sent again after each return, and the peer acknowledges each copy. The first acknowledgement ends the
/// connection; the others must not be answered by a reset, but any other segment is.
#[test]
fn late_acknowledgements_of_our_fin_are_not_reset() {
    let mut bench = Bench::plain();
    let mut fin = bench.data(0, 10);
    fin.fin = true;
    bench.exchange(&fin);
    assert!(bench.close()[0].fin);
    for _ in 0..2 {
        bench.crash();
        assert!(bench.resume(Lost::Nothing).iter().any(|seg| seg.fin));
    }
    let last_ack = bench.seg(11, 1);
    assert_eq!(bench.exchange(&last_ack), []);
    assert_eq!(bench.state(), "CLOSED");
    for late in [&last_ack, &fin, &last_ack] {
        assert_eq!(bench.exchange(late), []);
    }
    assert!(bench.exchange(&bench.seg(12, 1))[0].rst, "beyond the FIN");
    assert!(bench.exchange(&bench.seg(11, 2))[0].rst, "never sent");
    bench.now += 60 * SECOND;
    assert!(bench.exchange(&last_ack)[0].rst, "too late");
}

/// The peer's congestion window may be a single segment then.
#[test]
fn after_a_return_each_segment_is_acknowledged_at_once() {
    let mut bench = Bench::plain();
    bench.crash();
    bench.resume(Lost::Nothing);
    for offset in 0..16 {
        assert_eq!(bench.exchange(&bench.data(offset * 100, 100)).len(), 1);
    }
    assert_eq!(bench.exchange(&bench.data(1600, 100)), []);
}

/// A client that waits must not wait until a thousand idle ones have been sent their windows.
#[test]
fn of_many_connections_those_in_use_are_resumed_first() {
    let mut bench = Bench::new(config());
    let mut acks = Vec::new();
    for client in 2000..2200 {
        bench.iss = bench.exchange(&bench.syn(client))[0].seq;
        acks.push(Seg {
            client,
            ..bench.seg(0, 0)
        });
        bench.ingest(&acks[acks.len() - 1]);
    }
    let conns: Vec<_> = bench.stack.connections().map(|(conn, ..)| conn).collect();
    bench.stack.send(conns[150], &[&[1; 500]], &mut bench.log);
    bench.poll();
    // the same acknowledgement with another window: the latest record
    bench.exchange(&Seg {
        window: 40_000,
        ..acks[170].clone()
    });
    bench.crash();
    let first: Vec<u16> = clients(&bench.resume(Lost::Nothing));
    assert!(first.len() < 100, "{}", first.len());
    assert_eq!(first[0], 2150, "what it has to send again");
    assert_eq!(first[2], 2170, "its announcement follows");
    let mut all: BTreeSet<u16> = first.into_iter().collect();
    while all.len() < 200 {
        assert_eq!(bench.stack.next_deadline(), Some(bench.now), "{all:?}");
        all.extend(clients(&bench.poll()));
    }
}

fn clients(sent: &[Seg]) -> Vec<u16> {
    sent.iter().map(|seg| seg.client).collect()
}

/// What a server may find that has kept frames until it had the connections: the one before it has answered some.
#[test]
fn kept_segments_of_a_recorded_connection_are_duplicates_at_worst() {
    let mut bench = Bench::plain();
    bench.exchange(&bench.data(0, 10));
    bench.crash();
    bench.resume(Lost::Frames);
    let [old, new] = [bench.data(0, 10), bench.data(10, 7)];
    bench.ingest_kept(&[old.clone(), old, new.clone(), new]);
    let answers = bench.wait(SECOND);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(bench.theirs(answers[0].ack), 17);
}

#[test]
fn kept_segments_of_other_connections_are_ignored_unless_a_syn_is_the_last() {
    let mut bench = Bench::plain();
    bench.crash();
    bench.resume(Lost::Nothing);
    let of = |client: u16, seg: Seg| Seg { client, ..seg };
    let ended = of(2000, bench.syn(2000));
    let kept = [
        ended.clone(),
        of(2000, bench.data(0, 10)),
        bench.syn(3000),
        of(4000, bench.data(0, 10)),
        bench.syn(3000),
        // Another one on the same ports.
        of(5000, bench.seg(0, 0)),
        bench.syn(5000),
    ];
    bench.ingest_kept(&kept);
    let answers = bench.poll();
    assert!(answers.iter().all(|answer| answer.syn), "{answers:?}");
    let clients: BTreeSet<u16> = answers.iter().map(|answer| answer.client).collect();
    assert_eq!(clients, BTreeSet::from([3000, 5000]));
    // The same frames are answered if they arrive now.
    assert!(bench.exchange(&kept[3])[0].rst);
    assert!(bench.exchange(&ended)[0].syn);
}
