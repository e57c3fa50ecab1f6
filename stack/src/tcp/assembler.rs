//! Reassembly of out-of-order data. It is not saved: SACK may be reneged (RFC 2018, section 8).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Seq;

/// The largest number of pieces; further ones are dropped. It is more than a full window of full segments, and bounds
/// what a peer that sends single bytes makes us keep.
const LIMIT: usize = 16 << 10;
/// Approximate memory overhead of a piece, in bytes.
const PIECE_OVERHEAD: usize = 96;

/// SACK blocks in one acknowledgement: as many as fit with the timestamp option.
const BLOCKS: usize = 3;

/// Runs of received data above a hole, sorted and disjoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assembler {
    pieces: VecDeque<(Seq, Bytes)>,
    /// Total length in bytes.
    bytes: usize,
    /// The latest arrivals, each of another run, the last one first.
    recent: VecDeque<(Seq, Seq)>,
    /// Sequence number of the peer's FIN.
    fin: Option<Seq>,
}

impl Assembler {
    /// Keeps the new part of `data`, which begins at `seq`.
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
                self.bytes += fresh.len();
                self.pieces
                    .insert(at, (from, Bytes::copy_from_slice(fresh)));
                at += 1;
            }
            from = from.max(next_end);
            at += 1;
        }
        self.note(seq, end);
    }

    /// Remembers the range just received, merged with adjacent ones.
    fn note(&mut self, from: Seq, to: Seq) {
        let mut new = (from, to);
        self.recent.retain(|old| {
            let apart = old.1 < new.0 || new.1 < old.0;
            if !apart {
                new = (new.0.min(old.0), new.1.max(old.1));
            }
            apart
        });
        self.recent.push_front(new);
        self.recent.truncate(BLOCKS);
    }

    pub(crate) fn insert_fin(&mut self, seq: Seq) {
        self.fin = Some(seq);
    }

    /// Returns whether the peer's FIN is next in order.
    pub(crate) fn fin_at(&self, rcv_nxt: Seq) -> bool {
        self.fin == Some(rcv_nxt)
    }

    /// Takes the bytes that join on to `rcv_nxt`, at most `room`.
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
            self.bytes -= piece.len();
            if !fresh.is_empty() {
                taken.push(fresh);
            }
            self.pieces.pop_front();
        }
        self.recent.retain(|(_, to)| *to > next);
        taken
    }

    /// Approximate memory used, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes + self.pieces.len() * PIECE_OVERHEAD
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Returns the SACK blocks: first the run with the latest arrival, then those reported most recently, then the
    /// lowest others as far as there is room (RFC 2018, section 4).
    //= rfc2018 4d, 4e, 4f
    pub(crate) fn blocks(&self, rcv_nxt: Seq) -> [Option<(Seq, Seq)>; BLOCKS] {
        let mut blocks = [None; BLOCKS];
        let mut free = blocks.iter_mut();
        let mut runs = self.runs();
        // A run that joins on is about to be delivered; it waits for room only.
        runs.retain(|(from, _)| *from > rcv_nxt);
        for (at, _) in &self.recent {
            let run = runs.iter().position(|(from, to)| from <= at && at < to);
            if let Some(run) = run
                && let Some(block) = free.next()
            {
                *block = Some(runs.remove(run));
            }
        }
        for (block, run) in free.zip(runs) {
            *block = Some(run);
        }
        blocks
    }

    /// Merges adjacent pieces, in order.
    fn runs(&self) -> Vec<(Seq, Seq)> {
        let mut runs: Vec<(Seq, Seq)> = Vec::new();
        for (begin, piece) in &self.pieces {
            let end = *begin + piece.len();
            match runs.last_mut() {
                Some((_, to)) if *to == *begin => *to = end,
                _ => runs.push((*begin, end)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests;
