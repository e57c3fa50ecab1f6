//! RFC 9293, section 3.8.6: a peer may shrink its window. Acknowledgements must stay within it, so that the peer
//! accepts them.

mod hand;

use hand::Bench;

#[test]
fn an_acknowledgement_is_not_beyond_a_window_that_was_shrunk() {
    let mut bench = Bench::plain();
    assert!(!bench.send(8000).is_empty());
    // The peer received 1000 bytes and accepts no more, although it had offered to.
    let shrunk = bench.shut(1000);
    bench.exchange(&shrunk);
    for (offset, window, edge) in [(0, 0, 1000), (2000, 500, 1500), (4000, 50_000, 8000)] {
        let mut data = bench.data(offset, 1000);
        data.ack = shrunk.ack;
        data.window = window;
        bench.ingest(&data);
        data = bench.data(offset + 1000, 1000);
        data.ack = shrunk.ack;
        data.window = window;
        let answers = bench.exchange(&data);
        let ack = answers
            .iter()
            .find(|answer| answer.data.is_empty())
            .expect("an acknowledgement");
        assert_eq!(bench.theirs(ack.ack), offset as i32 + 2000);
        assert_eq!(bench.ours(ack.seq), edge);
    }
}
