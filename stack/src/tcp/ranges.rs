//! Disjoint, ordered ranges of sequence numbers that the peer reported by SACK.

use crate::Seq;

/// The largest number of ranges kept; further ones are ignored, so that a peer cannot make us keep more.
const LIMIT: usize = 1024;

/// Sorted, disjoint, not adjacent `[from, to)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(Seq, Seq)>);

impl Ranges {
    /// Adds `[from, to)`; true if it added anything.
    pub(crate) fn insert(&mut self, from: Seq, to: Seq) -> bool {
        if to <= from {
            return false;
        }
        let first = self.0.partition_point(|(_, end)| *end < from);
        let last = self.0.partition_point(|(begin, _)| *begin <= to);
        let (mut merged_from, mut merged_to) = (from, to);
        if let Some(touched) = self
            .0
            .get(first..last)
            .filter(|touched| !touched.is_empty())
        {
            if let (Some(low), Some(high)) = (touched.first(), touched.last()) {
                if low.0 <= from && high.1 >= to && touched.len() == 1 {
                    return false;
                }
                merged_from = low.0.min(from);
                merged_to = high.1.max(to);
            }
        } else if self.0.len() >= LIMIT {
            return false;
        }
        self.0.splice(first..last, [(merged_from, merged_to)]);
        true
    }

    /// Forgets what lies below `seq`.
    pub(crate) fn drop_below(&mut self, seq: Seq) {
        let gone = self.0.partition_point(|(_, end)| *end <= seq);
        self.0.drain(..gone);
        if let Some(first) = self.0.first_mut() {
            first.0 = first.0.max(seq);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Seq, Seq)> {
        self.0.iter().copied()
    }

    /// Bytes covered in `[from, to)`.
    pub(crate) fn covered(&self, from: Seq, to: Seq) -> usize {
        self.iter()
            .map(|(begin, end)| end.min(to).since(begin.max(from)))
            .sum()
    }

    /// The first hole at or above `from` and below `to`.
    pub(crate) fn hole(&self, from: Seq, to: Seq) -> Option<(Seq, Seq)> {
        let mut start = from;
        let next = self.0.partition_point(|(_, end)| *end <= from);
        for (begin, end) in self.0.iter().skip(next) {
            if *begin > start {
                break;
            }
            start = *end;
        }
        let after = self.0.partition_point(|(begin, _)| *begin <= start);
        let end = self.0.get(after).map_or(to, |(begin, _)| begin.min(to));
        (start < end).then_some((start, end))
    }
}

#[cfg(test)]
mod tests;
