//! Committed bytes the peer has not acknowledged, found by position without scanning.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// A queue of chunks, each with the position of its first byte in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SendQueue {
    chunks: VecDeque<(u64, Bytes)>,
    start: u64,
    end: u64,
}

impl SendQueue {
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            let at = self.end;
            self.end += data.len() as u64;
            self.chunks.push_back((at, data));
        }
    }

    /// Drops `bytes` at the front, at most all.
    pub(crate) fn drop_front(&mut self, bytes: usize) {
        self.start = (self.start + bytes as u64).min(self.end);
        while let Some((at, chunk)) = self.chunks.front_mut() {
            if *at + chunk.len() as u64 > self.start {
                chunk.advance((self.start - *at) as usize);
                *at = self.start;
                break;
            }
            self.chunks.pop_front();
        }
    }

    /// The bytes at `offset..offset + len` from the front, without copying; shorter where the queue ends.
    pub(crate) fn slices(&self, offset: usize, len: usize) -> Vec<Bytes> {
        let from = self.start + offset as u64;
        let to = (from + len as u64).min(self.end);
        let first = self
            .chunks
            .partition_point(|(at, chunk)| at + chunk.len() as u64 <= from);
        self.chunks
            .range(first..)
            .take_while(|(at, _)| *at < to)
            .map(|(at, chunk)| {
                let begin = from.saturating_sub(*at) as usize;
                let end = ((to - at) as usize).min(chunk.len());
                chunk.slice(begin..end)
            })
            .collect()
    }

    /// All chunks, front first.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.chunks.iter().map(|(_, chunk)| chunk)
    }
}

#[cfg(test)]
mod tests;
