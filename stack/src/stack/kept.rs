//! Receives frames that were kept until this server had the connections.

use std::collections::HashSet;
use std::time::Duration;

use super::Stack;
use crate::tcp::segment::Received;
use crate::{Journal, RxFrame};

impl Stack {
    /// Takes frames that were kept until this server had the connections, in their order. The server before this one
    /// may have processed any of them.
    ///
    /// A segment of a recorded connection is a duplicate in the worst case, and TCP expects those. A segment of another
    /// connection is ignored: since nothing is sent before it is recorded, that connection has ended, and its client
    /// has had the answer. The exception is a SYN that its client has sent last: it may be new.
    pub fn ingest_kept(
        &mut self,
        frames: &[RxFrame<'_>],
        now: Duration,
        journal: &mut dyn Journal,
    ) {
        let are_due = self.are_due(frames);
        for (frame, is_due) in frames.iter().zip(are_due) {
            if is_due {
                self.ingest(*frame, now, journal);
            }
        }
    }

    /// Returns of each frame whether it may still be unanswered.
    fn are_due(&self, frames: &[RxFrame<'_>]) -> Vec<bool> {
        let mut continued = HashSet::new();
        let newest_first = frames.iter().rev().map(|frame| {
            let Some(segment) = self.link.segment_in(frame) else {
                return true;
            };
            let sockets = (segment.path.local, segment.path.remote);
            if self.sockets.contains_key(&sockets) {
                return true;
            }
            let is_syn = Received::parse(segment.tcp).is_some_and(|received| received.opens());
            if !is_syn {
                continued.insert(sockets);
            }
            is_syn && !continued.contains(&sockets)
        });
        let mut are_due: Vec<bool> = newest_first.collect();
        are_due.reverse();
        are_due
    }
}
