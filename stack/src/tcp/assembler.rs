//! Out-of-order data. Not saved: SACK may be reneged (RFC 2018, section 8).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Seq;

/// Pieces beyond which further ones are dropped: more than a full window of full segments; a peer that sends single bytes
/// cannot make us keep more.
const LIMIT: usize = 16 << 10;

/// Runs of received data above a hole, sorted and disjoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assembler {
    pieces: VecDeque<(Seq, Bytes)>,
    /// Position of the latest arrival: its range is reported first (RFC 2018, section 4).
    latest: Option<Seq>,
    /// Sequence number of the peer's FIN.
    fin: Option<Seq>,
}

impl Assembler {
    /// Keeps what is new of `data`, which begins at `seq`.
    pub(crate) fn insert(&mut self, seq: Seq, data: &[u8]) {
        let end = seq + data.len();
        let mut from = seq;
        let mut at = self
            .pieces
            .partition_point(|(begin, piece)| *begin + piece.len() <= seq);
        while from < end {
            let (next_from, next_end) = match self.pieces.get(at) {
                Some((begin, piece)) => (*begin, *begin + piece.len()),
                None => (end, end),
            };
            let to = next_from.min(end);
            if from < to
                && self.pieces.len() < LIMIT
                && let Some(fresh) = data.get(from.since(seq)..to.since(seq))
            {
                self.pieces
                    .insert(at, (from, Bytes::copy_from_slice(fresh)));
                at += 1;
            }
            from = from.max(next_end);
            at += 1;
        }
        self.latest = Some(seq);
    }

    pub(crate) fn insert_fin(&mut self, seq: Seq) {
        self.fin = Some(seq);
    }

    /// The FIN's turn has come.
    pub(crate) fn fin_at(&self, rcv_nxt: Seq) -> bool {
        self.fin == Some(rcv_nxt)
    }

    /// Takes what joins on to `rcv_nxt`, at most `room` bytes.
    pub(crate) fn take(&mut self, rcv_nxt: Seq, room: usize) -> Vec<Bytes> {
        let (mut next, mut room) = (rcv_nxt, room);
        let mut taken = Vec::new();
        while let Some((begin, piece)) = self.pieces.front() {
            if *begin > next {
                break;
            }
            let fresh = piece.slice(next.since(*begin).min(piece.len())..);
            if fresh.len() > room {
                break;
            }
            room -= fresh.len();
            next += fresh.len();
            if !fresh.is_empty() {
                taken.push(fresh);
            }
            self.pieces.pop_front();
        }
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// SACK blocks: the range with the latest arrival first (RFC 2018, section 4), then the lowest others.
    pub(crate) fn blocks(&self, rcv_nxt: Seq) -> [Option<(Seq, Seq)>; 3] {
        let mut blocks = [None; 3];
        if self.pieces.is_empty() {
            return blocks;
        }
        let latest = self.latest.unwrap_or_default();
        let mut others = 1;
        let mut run: Option<(Seq, Seq)> = None;
        let mut place = |(from, to): (Seq, Seq)| {
            if from <= rcv_nxt {
                // About to be delivered; waits for room only.
            } else if from <= latest && latest < to {
                blocks[0] = Some((from, to));
            } else if others < 3 {
                blocks[others] = Some((from, to));
                others += 1;
            }
        };
        for (begin, piece) in &self.pieces {
            let end = *begin + piece.len();
            run = match run {
                Some((from, to)) if to == *begin => Some((from, end)),
                done => {
                    if let Some(done) = done {
                        place(done);
                    }
                    Some((*begin, end))
                }
            };
        }
        if let Some(last) = run {
            place(last);
        }
        if blocks[0].is_none() {
            blocks.rotate_left(1);
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reports_the_latest_first() {
        let mut assembler = Assembler::default();
        let base = Seq(u32::MAX - 5);
        for at in [30, 10, 50, 20] {
            assembler.insert(base + at, &[0; 5]);
        }
        let blocks = assembler
            .blocks(base)
            .map(|block| block.map(|(from, to)| (from - base, to - base)));
        assert_eq!(blocks, [Some((20, 25)), Some((10, 15)), Some((30, 35))]);
        assembler.insert(base + 15, &[0; 5]);
        let blocks = assembler
            .blocks(base)
            .map(|block| block.map(|(from, to)| (from - base, to - base)));
        assert_eq!(blocks, [Some((10, 25)), Some((30, 35)), Some((50, 55))]);
    }

    proptest! {
        #[test]
        fn puts_any_order_together(cuts in proptest::collection::vec((0usize..500, 1usize..100), 1..60), base in any::<u32>()) {
            let stream: Vec<u8> = (0..500u32).map(|i| (i * 7) as u8).collect();
            let base = Seq(base);
            let mut assembler = Assembler::default();
            for (from, len) in &cuts {
                let to = (from + len).min(500);
                assembler.insert(base + *from, &stream[*from..to]);
            }
            assembler.insert(base, &stream[..1]);
            let got = assembler.take(base, usize::MAX).concat();
            let mut map = [false; 500];
            map[0] = true;
            for (from, len) in &cuts {
                map[*from..(from + len).min(500)].fill(true);
            }
            let reach = map.iter().position(|bit| !bit).unwrap_or(500);
            prop_assert_eq!(&got[..], &stream[..reach]);
        }
    }
}
