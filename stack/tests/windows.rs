//! Tests the receive windows of several connections, which share the room of the journal.

mod hand;

use hand::{Bench, config};
use outlast_stack::{Config, ConnId, Holding, Lost};
use proptest::prelude::*;

const KIB: usize = 1 << 10;
/// The window scale that 128 KiB need.
const SHIFT: u8 = 2;

/// Room for 256 KiB, 64 of which are left for grants.
fn shared() -> Config {
    Config {
        receive_buffer: 16 * KIB,
        largest_window: 128 * KIB,
        receive_total: 256 * KIB,
        receive_reserve: 64 * KIB,
        receive_least: 4 * KIB,
        ..config()
    }
}

/// A stack with this many connections, from the client ports 1000, 1001, ...
fn connected(connections: u16) -> (Bench, Vec<ConnId>) {
    let mut bench = Bench::new(shared());
    let mut conns = Vec::new();
    for client in 0..connections {
        let mut syn = bench.syn(1000 + client);
        syn.scale = Some(0);
        let answer = bench.exchange(&syn);
        let mut ack = bench.seg(0, 0);
        ack.client = 1000 + client;
        ack.ack = Some(answer[0].seq.wrapping_add(1));
        bench.exchange(&ack);
        conns.extend(bench.log.records.last().map(|(conn, ..)| *conn));
    }
    bench.events();
    (bench, conns)
}

fn promised(bench: &Bench, conn: ConnId) -> usize {
    bench.stack.holding(conn).promised
}

#[test]
fn a_grant_is_announced_at_once_and_as_far_as_there_is_room() {
    let (mut bench, conns) = connected(3);
    for (conn, expected) in conns.iter().zip([128, 100, 0]) {
        let before = promised(&bench, *conn);
        let left = bench.stack.receive_left();
        bench.stack.grant(*conn, 1 << 30, &mut bench.log);
        assert_eq!(
            bench.stack.receive_left(),
            left - (promised(&bench, *conn) - before)
        );
        let sent = bench.poll();
        let now = promised(&bench, *conn);
        assert!(now >= expected * KIB && now <= before + left, "{now}");
        assert_eq!(sent.len(), usize::from(now > before));
        assert!(
            sent.iter()
                .all(|seg| usize::from(seg.window) == now >> SHIFT)
        );
    }
    assert_eq!(bench.stack.receive_left(), 0);
}

/// A grant may be exactly what a message lacks.
#[test]
fn a_grant_of_less_than_a_segment_is_announced() {
    let (mut bench, conns) = connected(1);
    let iss = bench.stack.status()[0].snd_nxt;
    for offset in 0..4 {
        let mut seg = bench.data(offset * 1000, 1000);
        seg.ack = Some(iss);
        bench.exchange(&seg);
    }
    let before = promised(&bench, conns[0]);
    bench.stack.grant(conns[0], before + 100, &mut bench.log);
    assert_eq!(bench.poll().len(), 1);
    assert_eq!(promised(&bench, conns[0]), before + 100);
}

#[test]
fn what_is_granted_is_not_granted_again_by_itself() {
    let (mut bench, conns) = connected(1);
    bench.stack.grant(conns[0], 40 * KIB, &mut bench.log);
    bench.poll();
    assert_eq!(promised(&bench, conns[0]), 40 * KIB);
    let iss = bench.stack.status()[0].snd_nxt;
    for offset in 0..40 {
        let mut seg = bench.data(offset * 1024, KIB);
        seg.ack = Some(iss);
        bench.exchange(&seg);
        bench.stack.consume(conns[0], KIB, &mut bench.log);
        bench.poll();
    }
    assert!(promised(&bench, conns[0]) <= 16 * KIB);
}

#[test]
fn with_many_connections_each_gets_less_but_never_less_than_the_least() {
    let (bench, conns) = connected(40);
    assert!(conns.iter().all(|conn| promised(&bench, *conn) >= 4 * KIB));
    assert!(bench.stack.receive_left() >= 64 * KIB);
}

#[test]
fn what_a_connection_held_is_free_when_it_is_gone() {
    let (mut bench, conns) = connected(2);
    bench.stack.grant(conns[0], 100 * KIB, &mut bench.log);
    bench.poll();
    let left = bench.stack.receive_left();
    bench.stack.abort(conns[0], &mut bench.log);
    assert_eq!(bench.stack.receive_left(), left + 100 * KIB);
    bench.stack.abort(conns[1], &mut bench.log);
    assert_eq!(bench.stack.receive_left(), 256 * KIB);
    assert_eq!(bench.stack.receive_room(), 256 * KIB);
}

/// A step with one of the connections.
#[derive(Debug, Clone)]
enum Step {
    /// The peer sends this many bytes, or as many as its window permits.
    Data(usize),
    /// The same without the first byte.
    Gap(usize),
    Consume(usize),
    Grant(usize),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..3000).prop_map(Step::Data),
        1 => (2usize..3000).prop_map(Step::Gap),
        3 => (1usize..20_000).prop_map(Step::Consume),
        2 => (0usize..200_000).prop_map(Step::Grant),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    /// Law 7: the sum of queued and offered bytes stays within the room, except for the rounding of each window;
    /// nothing within a window is dropped; no edge moves left.
    #[test]
    fn every_promised_byte_has_room(steps in proptest::collection::vec((0usize..4, step()), 1..200)) {
        let (mut bench, conns) = connected(4);
        let unit = 1 << SHIFT;
        for (at, step) in steps {
            let conn = conns[at];
            let status = |bench: &Bench| {
                let all = bench.stack.status();
                all.into_iter().find(|status| status.conn == conn).unwrap()
            };
            let before = status(&bench);
            let edge = before.rcv_nxt.wrapping_add(before.rcv_wnd);
            let mut seg = bench.data(0, 0);
            (seg.client, seg.seq, seg.ack) = (1000 + at as u16, before.rcv_nxt, Some(before.snd_nxt));
            match step {
                Step::Data(len) => {
                    let len = len.min(before.rcv_wnd as usize);
                    seg.data = vec![7; len];
                    bench.exchange(&seg);
                    let came = status(&bench).rcv_nxt.wrapping_sub(before.rcv_nxt);
                    prop_assert!(came as usize >= len, "{came} of {len}");
                }
                Step::Gap(len) => {
                    let len = len.min(before.rcv_wnd as usize);
                    seg.seq = seg.seq.wrapping_add(1);
                    seg.data = vec![7; len.saturating_sub(1)];
                    bench.exchange(&seg);
                }
                Step::Consume(bytes) => bench.stack.consume(conn, bytes, &mut bench.log),
                Step::Grant(bytes) => bench.stack.grant(conn, bytes, &mut bench.log),
                Step::Crash => {
                    bench.crash();
                    bench.resume(Lost::Nothing);
                }
            }
            bench.poll();
            let after = status(&bench);
            let moved = after.rcv_nxt.wrapping_add(after.rcv_wnd).wrapping_sub(edge);
            prop_assert!(moved < 1 << 31, "the edge moves left");
            let held: usize = conns.iter().map(|conn| bench.stack.holding(*conn).sum()).sum();
            prop_assert_eq!(held, bench.stack.usage().receive_held);
            prop_assert!(held <= 256 * KIB + conns.len() * 17 * unit, "{}", held);
            prop_assert_eq!(bench.stack.usage().in_window_dropped, 0);
            let Holding { queued, promised } = bench.stack.holding(conn);
            prop_assert_eq!((queued, promised), (after.queued_bytes, after.rcv_wnd as usize));
        }
    }
}
