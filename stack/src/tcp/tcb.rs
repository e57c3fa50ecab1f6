//! Defines the durable part of a transmission control block, which is the fold of its records.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::record::{Checkpoint, Options, Promise, Record, State};
use super::send_queue::SendQueue;
use crate::{Path, Seq};

/// The durable state of a connection. Only [`Durable::apply`] changes it; the fields are described at [`Checkpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    pub(crate) path: Path,
    pub(crate) state: State,
    pub(crate) options: Options,
    pub(crate) ts_offset: u32,
    pub(crate) iss: Seq,
    pub(crate) irs: Seq,
    pub(crate) snd_una: Seq,
    pub(crate) snd_wnd: u32,
    pub(crate) snd_wl1: Seq,
    pub(crate) snd_wl2: Seq,
    pub(crate) rcv_nxt: Seq,
    pub(crate) rcv_edge: Seq,
    pub(crate) last_ack_sent: Seq,
    pub(crate) prior_ack_sent: Seq,
    pub(crate) ts_recent: u32,
    pub(crate) fin_queued: bool,
    /// In-order bytes the application has not consumed.
    pub(crate) received: VecDeque<Bytes>,
    /// Length of `received` in bytes.
    pub(crate) received_len: usize,
    /// Bytes from `snd_una` on that have not been acknowledged.
    pub(crate) unacked: SendQueue,
}

impl Durable {
    /// Returns everything but the queued bytes.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let Durable {
            path,
            state,
            options,
            ts_offset,
            iss,
            irs,
            snd_una,
            snd_wnd,
            snd_wl1,
            snd_wl2,
            rcv_nxt,
            rcv_edge,
            last_ack_sent,
            prior_ack_sent,
            ts_recent,
            fin_queued,
            received: _, // re-appended by relocation
            received_len: _,
            unacked: _,
        } = self;
        Checkpoint {
            path: *path,
            state: *state,
            options: *options,
            ts_offset: *ts_offset,
            iss: *iss,
            irs: *irs,
            snd_una: *snd_una,
            snd_wnd: *snd_wnd,
            snd_wl1: *snd_wl1,
            snd_wl2: *snd_wl2,
            rcv_nxt: *rcv_nxt,
            rcv_edge: *rcv_edge,
            last_ack_sent: *last_ack_sent,
            prior_ack_sent: *prior_ack_sent,
            ts_recent: *ts_recent,
            fin_queued: *fin_queued,
        }
    }

    /// Makes the state that a snapshot describes, with both queues empty.
    pub(crate) fn restore(checkpoint: &Checkpoint) -> Durable {
        let Checkpoint {
            path,
            state,
            options,
            ts_offset,
            iss,
            irs,
            snd_una,
            snd_wnd,
            snd_wl1,
            snd_wl2,
            rcv_nxt,
            rcv_edge,
            last_ack_sent,
            prior_ack_sent,
            ts_recent,
            fin_queued,
        } = *checkpoint;
        Durable {
            path,
            state,
            options,
            ts_offset,
            iss,
            irs,
            snd_una,
            snd_wnd,
            snd_wl1,
            snd_wl2,
            rcv_nxt,
            rcv_edge,
            last_ack_sent,
            prior_ack_sent,
            ts_recent,
            fin_queued,
            received: VecDeque::new(),
            received_len: 0,
            unacked: SendQueue::default(),
        }
    }

    /// Applies a record. Nothing else changes the durable state.
    pub(crate) fn apply(&mut self, record: &Record, data: Bytes) {
        match record {
            Record::Opened(checkpoint) => *self = Durable::restore(checkpoint),
            Record::Established => {
                self.state = State::Established;
                self.snd_una = self.iss + 1;
            }
            Record::Received { ts_recent, promise } => {
                self.rcv_nxt += data.len();
                self.push_received(data);
                self.note_timestamp(*ts_recent);
                self.note_promise(*promise);
            }
            Record::Promised(promise) => self.note_promise(Some(*promise)),
            Record::Consumed(bytes) => self.drop_received(*bytes as usize),
            Record::Sent { promise } => {
                self.unacked.push(data);
                self.note_promise(*promise);
            }
            Record::Acked {
                snd_una,
                snd_wnd,
                snd_wl1,
                snd_wl2,
                ts_recent,
            } => {
                let acked = snd_una.since(self.snd_una);
                if self.fin_queued && acked > self.unacked.len() {
                    self.fin_acked();
                }
                self.unacked.drop_front(acked);
                self.snd_una = *snd_una;
                self.snd_wnd = *snd_wnd;
                self.snd_wl1 = *snd_wl1;
                self.snd_wl2 = *snd_wl2;
                self.note_timestamp(*ts_recent);
            }
            Record::PeerFinished => {
                self.rcv_nxt += 1;
                self.state = match self.state {
                    State::Established => State::CloseWait,
                    State::FinWait1 => State::Closing,
                    State::FinWait2 => State::TimeWait,
                    other => other,
                };
            }
            Record::FinQueued => {
                self.fin_queued = true;
                self.state = match self.state {
                    State::Established => State::FinWait1,
                    State::CloseWait => State::LastAck,
                    other => other,
                };
            }
            Record::Moved(mac) => self.path.remote_mac = *mac,
            Record::RequeuedReceived => self.push_received(data),
            Record::RequeuedSent => self.unacked.push(data),
            Record::Closed => self.state = State::Closed,
        }
    }

    /// RFC 9293, section 3.10.7.4, fifth step: "if our FIN is now acknowledged".
    fn fin_acked(&mut self) {
        self.fin_queued = false;
        self.state = match self.state {
            State::FinWait1 => State::FinWait2,
            State::Closing => State::TimeWait,
            State::LastAck => State::Closed,
            other => other,
        };
    }

    fn push_received(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.received_len += data.len();
            self.received.push_back(data);
        }
    }

    fn drop_received(&mut self, bytes: usize) {
        let mut left = bytes.min(self.received_len);
        self.received_len -= left;
        while let Some(front) = self.received.front_mut() {
            if left < front.len() {
                front.advance(left);
                break;
            }
            left -= front.len();
            self.received.pop_front();
        }
    }

    fn note_timestamp(&mut self, ts_recent: Option<u32>) {
        if let Some(ts_recent) = ts_recent {
            self.ts_recent = ts_recent;
        }
    }

    fn note_promise(&mut self, promise: Option<Promise>) {
        if let Some(Promise { edge, next }) = promise {
            if next {
                self.prior_ack_sent = self.last_ack_sent;
            }
            self.last_ack_sent = self.rcv_nxt;
            self.rcv_edge = self.rcv_edge.max(edge);
        }
    }

    /// Sequence number behind the committed bytes, our SYN and FIN included: the highest valid acknowledgement.
    pub(crate) fn snd_end(&self) -> Seq {
        let syn = usize::from(self.state == State::SynReceived);
        self.data_end() + syn + usize::from(self.fin_queued)
    }

    /// Sequence number behind the committed bytes: that of our FIN, if it is queued.
    pub(crate) fn data_end(&self) -> Seq {
        self.snd_una + self.unacked.len()
    }

    /// Right edge of the window the peer offers.
    pub(crate) fn snd_edge(&self) -> Seq {
        self.snd_una + self.snd_wnd as usize
    }

    /// Bytes the peer may still send within the window offered.
    pub(crate) fn rcv_wnd(&self) -> usize {
        self.rcv_edge.since(self.rcv_nxt)
    }

    /// Shift of the windows we send.
    pub(crate) fn rcv_shift(&self) -> u8 {
        self.options.window_scale.map_or(0, |(_, ours)| ours)
    }

    /// Shift of the windows the peer sends.
    pub(crate) fn snd_shift(&self) -> u8 {
        self.options.window_scale.map_or(0, |(peer, _)| peer)
    }
}
