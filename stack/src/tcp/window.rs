//! Computes the receive window (RFC 9293, section 3.8.6). Every byte that is offered to a peer has room set aside for
//! it.
//!
//! A connection holds the bytes that it has queued for the application and those that its peer may still send. The sum
//! over all connections stays within [`Config::receive_total`]; a window grows as far as the others leave room.

use super::conn::{Conn, Context};
use super::record::{Promise, Record, State};
use crate::{Config, Seq};

/// The fraction (one part in so many) of the remaining room that a window takes without a grant. With many connections
/// each gets less, and some is always left for the next one.
const AUTOMATIC_PART: usize = 256;

/// The largest number of scale units by which a window is rounded up beyond its allowance.
const ROUNDING_UNITS: usize = 16;

/// What one connection may hold, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Without a grant: the window is opened up to this as the application consumes.
    pub(crate) automatic: usize,
    /// With grants: what the other connections do not hold.
    pub(crate) most: usize,
}

/// What a connection, or all together, hold of the room for received bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Bytes received in order that the application has not consumed.
    pub queued: usize,
    /// Bytes that peers may still send.
    pub promised: usize,
}

impl Holding {
    /// Bytes in all.
    pub fn sum(self) -> usize {
        self.queued + self.promised
    }

    /// One connection holds `after` instead of `before`.
    pub(crate) fn replace(&mut self, before: Holding, after: Holding) {
        self.queued = self.queued + after.queued - before.queued;
        self.promised = self.promised + after.promised - before.promised;
    }
}

impl Allowance {
    /// The allowance of a connection that holds `own` of what `all` hold together.
    pub(crate) fn new(config: &Config, all: Holding, own: Holding) -> Allowance {
        let left = config.receive_total.saturating_sub(all.sum());
        let spare = left.saturating_sub(config.receive_reserve);
        let part = (spare / AUTOMATIC_PART).max(config.receive_least);
        Allowance {
            automatic: part.min(config.receive_buffer),
            most: left + own.sum(),
        }
    }
}

impl Conn {
    /// What this connection holds of the shared room.
    pub(crate) fn holding(&self) -> Holding {
        let may_send = self.durable.state == State::SynReceived || self.peer_may_send();
        Holding {
            queued: self.durable.received_len,
            promised: if may_send { self.durable.rcv_wnd() } else { 0 },
        }
    }

    /// Returns the right edge that an acknowledgement of `rcv_nxt` offers when `queued` bytes wait for the application.
    ///
    /// It never moves left (RFC 9293, section 3.8.6), so it is rounded up to what the window field can express. It
    /// moves right only in worthwhile steps (section 3.8.6.2.2).
    //= rfc9293 SHLD-14, MUST-39
    //= rfc7323 2.4b
    fn next_edge(&self, cx: &Context<'_>, rcv_nxt: Seq, queued: usize) -> Seq {
        let Allowance { automatic, most } = cx.allowance;
        let held = self.durable.rcv_edge;
        let by_itself = rcv_nxt + automatic.saturating_sub(queued);
        let largest = (0xffff << self.durable.rcv_shift()).min(cx.config.window_max());
        let limit = rcv_nxt + most.saturating_sub(queued).min(largest);
        let free = by_itself.max(self.live.granted).min(limit);
        // A granted window may end at the end of a message, however short.
        let step = match self.live.granted > held {
            true => 1,
            false => self.live.rcv_mss.min(automatic / 2).max(1),
        };
        let edge = if !cx.draining && free.since(held) >= step {
            free
        } else {
            held
        };
        let unit = 1 << self.durable.rcv_shift();
        let rounded = rcv_nxt + edge.since(rcv_nxt).next_multiple_of(unit);
        // RFC 7323, section 2.4: rounding may shrink a window by less than a unit. Rounded up each time, one would
        // never close for a peer that sends less than a unit at a time.
        if rounded.since(limit) <= ROUNDING_UNITS * unit {
            rounded
        } else {
            edge
        }
    }

    /// Returns the promise of the acknowledgement that leaves after this turn's commit, if one is due.
    pub(super) fn promise(
        &mut self,
        cx: &Context<'_>,
        rcv_nxt: Seq,
        queued: usize,
    ) -> Option<Promise> {
        let due = self.live.ack_now || self.live.window_update;
        due.then(|| self.promise_now(cx, rcv_nxt, queued))
    }

    /// Returns the promise of an acknowledgement that leaves in any case.
    pub(super) fn promise_now(&mut self, cx: &Context<'_>, rcv_nxt: Seq, queued: usize) -> Promise {
        Promise {
            edge: self.next_edge(cx, rcv_nxt, queued),
            next: !std::mem::replace(&mut self.live.promise_unsent, true),
        }
    }

    /// Announces the window if it may grow by much: after bytes were consumed, or when the planned outage is over.
    pub(crate) fn reconsider_window(&mut self, cx: &Context<'_>) {
        let durable = &self.durable;
        let edge = self.next_edge(cx, durable.rcv_nxt, durable.received_len);
        let step = cx.allowance.automatic / 4;
        if self.peer_may_send() && edge.since(durable.rcv_edge) >= step.max(1) {
            self.live.window_update = true;
        }
    }

    /// Offers `window` more bytes, for which the application has room. They are offered at once and leave less for
    /// other connections.
    pub(crate) fn grant(&mut self, cx: &mut Context<'_>, window: usize) {
        let (rcv_nxt, queued) = (self.durable.rcv_nxt, self.durable.received_len);
        self.live.granted = self.durable.rcv_edge.max(rcv_nxt + window);
        if self.peer_may_send() && self.next_edge(cx, rcv_nxt, queued) > self.durable.rcv_edge {
            let promise = self.promise_now(cx, rcv_nxt, queued);
            self.emit(cx, Record::Promised(promise), &[]);
            self.live.ack_now = true;
        }
    }

    /// Acknowledges all received bytes at once, when no reply follows that could carry the acknowledgement. Returns
    /// whether there is one to send.
    pub(crate) fn acknowledge(&mut self) -> bool {
        self.live.ack_now |= self.durable.last_ack_sent != self.durable.rcv_nxt;
        self.live.ack_now
    }

    pub(crate) fn consume(&mut self, cx: &mut Context<'_>, bytes: usize) {
        let bytes = bytes.min(self.durable.received_len);
        if bytes > 0 {
            self.emit(cx, Record::Consumed(bytes as u32), &[]);
            self.reconsider_window(cx);
        }
    }
}
