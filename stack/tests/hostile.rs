//! Segments that no honest peer sends: never a panic, never a state that the records do not explain, never a
//! disturbance of another connection.

mod hand;

use hand::{Bench, Seg, config};
use outlast_stack::Lost;
use proptest::prelude::*;

/// Sequence numbers around the interesting places: RCV.NXT, the window's edge, far away.
fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..3000,
        2 => (0u32..3000).prop_map(|back| 0u32.wrapping_sub(back)),
        1 => 59_000u32..61_000,
        1 => any::<u32>(),
    ]
}

fn segment() -> impl Strategy<Value = Seg> {
    let flags = (
        any::<u8>(),
        prop_oneof![3 => Just(0u16), 3 => Just(50_000), 1 => any::<u16>()],
    );
    let options = (
        proptest::option::of((0u32..40, any::<u32>())),
        proptest::array::uniform3(proptest::option::of((offset(), offset()))),
        proptest::option::of(any::<u16>()),
        proptest::option::of(any::<u8>()),
    );
    (
        offset(),
        offset(),
        flags,
        options,
        0usize..1500,
        1000u16..1003,
    )
        .prop_map(
            |(seq, ack, (flags, window), (timestamp, mut sack, mss, scale), len, client)| {
                sack.sort_by_key(Option::is_none);
                Seg {
                    client,
                    seq,
                    ack: (flags & 1 == 0).then_some(ack),
                    syn: flags & 0b1110 == 0b1110,
                    fin: flags & 0b11_0000 == 0b11_0000,
                    rst: flags & 0b1111_0000 == 0b1100_0000,
                    window,
                    timestamp,
                    sack,
                    mss,
                    scale,
                    data: vec![3; len],
                    ..Seg::default()
                }
            },
        )
}

#[derive(Debug, Clone)]
enum Step {
    Segment(Seg),
    Wait(u64),
    Send(usize),
    Consume(usize),
    Close,
    Crash(bool),
    Relocate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => segment().prop_map(Step::Segment),
        2 => (0u64..2_000_000).prop_map(Step::Wait),
        3 => (0usize..5000).prop_map(Step::Send),
        3 => (0usize..5000).prop_map(Step::Consume),
        1 => Just(Step::Close),
        1 => any::<bool>().prop_map(Step::Crash),
        1 => Just(Step::Relocate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_segments_at_any_time(timestamps: bool, scaled: bool, steps in proptest::collection::vec(step(), 1..60)) {
        let mut bench = Bench::established(config(), scaled.then_some(3), timestamps);
        for step in steps {
            match step {
                Step::Segment(seg) => {
                    // Relative to the connection.
                    let base = bench.seg(seg.seq, 0);
                    let ack = seg.ack.map(|ack| bench.iss.wrapping_add(1).wrapping_add(ack));
                    let sack = seg.sack.map(|range| {
                        range.map(|(from, to)| (bench.iss.wrapping_add(from), bench.iss.wrapping_add(to)))
                    });
                    let sack = if sack[0].is_some() && seg.mss.is_some() { [sack[0], None, None] } else { sack };
                    let timestamp = if sack[2].is_some() { None } else { seg.timestamp };
                    bench.exchange(&Seg { port: base.port, seq: base.seq, ack, sack, timestamp, ..seg });
                }
                Step::Wait(micros) => {
                    bench.wait(std::time::Duration::from_micros(micros));
                }
                Step::Send(len) => {
                    bench.send(len);
                }
                Step::Consume(len) => {
                    bench.stack.consume(bench.conn, len, &mut bench.log);
                    bench.poll();
                }
                Step::Close => {
                    bench.close();
                }
                Step::Crash(lost) => {
                    bench.crash();
                    bench.resume(if lost { Lost::Frames } else { Lost::Nothing });
                    bench.check_fold();
                }
                Step::Relocate => bench.relocate(),
            }
        }
    }
}
