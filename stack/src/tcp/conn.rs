//! Implements a connection: its durable state, its volatile state, and the functions that input and output share.

use std::time::Duration;

use bytes::Bytes;

use super::assembler::Assembler;
use super::cubic::Cubic;
use super::loss::Loss;
use super::record::{Checkpoint, Record, State};
use super::rtt::Rtt;
use super::segment::Header;
use super::tcb::Durable;
use super::window::Allowance;
use crate::event::{ConnStatus, Event, Standing, Trouble, Why, push_once};
use crate::frame::{IcmpError, IcmpKind};
use crate::{Config, ConnId, Journal, Path, Seq};

/// Twice the maximum segment lifetime (RFC 9293, section 3.4.2), which is 30 s as in most stacks.
//= rfc9293 MUST-13
pub(super) const TIME_WAIT: Duration = Duration::from_secs(60);
/// RFC 9293, section 3.8.6.3 asks for less than 500 ms.
//= rfc9293 MUST-40, SHLD-18
//= rfc5681 4.2a
pub(super) const DELAYED_ACK: Duration = Duration::from_millis(40);
/// The number of timeouts after which a handshake is given up: 63 s after its beginning.
//= rfc9293 MUST-23
pub(super) const SYN_ACK_TIMEOUTS: u32 = 5;
/// Challenge ACKs of one connection per second of service time (RFC 5961, section 7).
//= rfc5961 7a, 7b
const CHALLENGES_PER_SECOND: u32 = 10;
/// Bytes of a TCP header without options.
const HEADER_LEN: usize = 20;
/// Bytes of the timestamp option with its padding.
const TIMESTAMP_LEN: usize = 12;
/// The smallest segment size assumed of a path (RFC 9293, section 3.7.1).
pub(super) const MSS_MIN: usize = 88;

/// What input and output of a connection use besides the connection itself.
pub(crate) struct Context<'a> {
    pub(crate) now: Duration,
    pub(crate) config: &'a Config,
    pub(crate) journal: &'a mut dyn Journal,
    pub(crate) events: &'a mut Vec<Event>,
    /// Resets to send after the commit.
    pub(crate) resets: &'a mut Vec<(Path, Header)>,
    /// No right edge moves (planned outage).
    pub(crate) draining: bool,
    /// The window that the peer may be offered from the room that all connections share.
    pub(crate) allowance: Allowance,
    /// Bytes of out-of-order segments that this connection may hold.
    pub(crate) out_of_order_limit: usize,
    /// Out-of-order segments dropped for lack of room.
    pub(crate) out_of_order_dropped: &'a mut u64,
    /// In-order segments within the window that were dropped for lack of room.
    pub(crate) in_window_dropped: &'a mut u64,
}

/// Where segments go: the link layer, or a test.
pub(crate) trait Wire {
    /// Sends a segment; the device cuts a payload longer than `mss`.
    fn segment(&mut self, path: &Path, header: &[u8], payload: Vec<Bytes>, mss: usize);
    /// The largest payload that the device cuts into segments, in bytes; 0 if it does not.
    fn super_frame(&self, path: &Path) -> usize;
    /// Sends messages that make the peer's TCP undo its back-off (RFC 6069); its SND.UNA is one of `quoted`.
    fn revive(&mut self, path: &Path, quoted: [Seq; 2]);
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) durable: Durable,
    pub(crate) live: Live,
}

/// The volatile part of a connection, which is made afresh after a crash.
#[derive(Debug)]
pub(crate) struct Live {
    /// SND.NXT: behind the highest byte sent, or possibly sent before a crash.
    pub(super) snd_nxt: Seq,
    /// The highest valid acknowledgement, even if SND.NXT is lower: bytes up to here may have been sent before a crash,
    /// or as a window probe.
    pub(super) snd_possible: Seq,
    /// The largest window that the peer has offered since the start.
    pub(super) snd_wnd_max: u32,
    /// How far behind SND.UNA an acknowledgement may lie: MAX.SND.WND. After a return, when that is not known, the
    /// largest window that the peer can have offered.
    pub(super) old_ack_max: u32,
    /// Payload bytes of a full segment we send.
    pub(super) mss: usize,
    pub(super) loss: Loss,
    pub(super) cubic: Cubic,
    pub(super) rtt: Rtt,
    /// The segment whose round trip is measured: its end, and when it was sent.
    pub(super) timed: Option<(Seq, Duration)>,
    /// When data was last sent, and when the peer last acknowledged some.
    pub(super) last_sent: Duration,
    pub(super) last_progress: Duration,
    /// The congestion window held data back at the last transmission.
    pub(super) cwnd_limited: bool,
    /// Retransmission, loss probe or window probe.
    pub(super) retransmit_at: Option<Duration>,
    pub(super) loss_probe: LossProbe,
    /// A round trip has been measured since the last loss probe.
    pub(super) measured: bool,
    /// Send one segment whatever the windows say.
    pub(super) force: bool,
    pub(crate) syn_ack_due: bool,
    /// The SYN-ACK has been sent; how often it timed out.
    pub(super) syn_ack_sent: bool,
    pub(super) syn_ack_timeouts: u32,

    pub(crate) assembler: Assembler,
    /// Largest segment seen, at most what we offered: what "full-sized" means of the peer's segments.
    pub(super) rcv_mss: usize,
    /// Right edge that the application has granted ([`Conn::grant`]).
    pub(super) granted: Seq,
    pub(super) ack_now: bool,
    /// The number of segments still to be acknowledged at once, each: after a return the peer's congestion window may
    /// be a single segment.
    pub(super) quick_acks: u32,
    /// An acknowledgement at SND.NXT has to leave before anything else.
    pub(super) announce: bool,
    pub(super) ack_at: Option<Duration>,
    /// Duplicate acknowledgements owed to a peer without SACK, which counts them.
    pub(super) duplicates: u32,
    /// The recorded promise may not have been given to the device yet.
    pub(super) promise_unsent: bool,
    /// The right edge should move although nothing else requires an acknowledgement.
    pub(super) window_update: bool,
    /// A window of 0 is announced until the planned outage is over.
    pub(super) window_shut: bool,
    pub(super) last_data: Duration,
    /// When a segment was last refused for lack of room in the log.
    pub(super) refused_at: Option<Duration>,
    /// When to wake the peer if it stays silent after a refusal and there is room again.
    pub(super) call_at: Option<Duration>,
    pub(super) ts_recent_at: Duration,

    pub(super) last_heard: Duration,
    pub(super) keep_alive_tries: u32,
    pub(super) time_wait_until: Option<Duration>,
    pub(super) challenges: (u64, u32),
    pub(super) revival: Option<Revival>,
    /// The number of its latest record among those that the stack has applied: how recently it was in use before the
    /// recovery.
    pub(crate) applied: u64,
    /// When `Stack` will look at the connection next.
    pub(crate) armed: Option<Duration>,
    /// The connection is on the list of those to poll.
    pub(crate) dirty: bool,
}

/// State of the tail loss probe (RFC 8985, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LossProbe {
    /// The timer is for a probe.
    Armed,
    /// The timer is for a retransmission.
    Idle,
    /// A probe is outstanding; no other is sent before it is answered.
    Sent {
        /// TLP.end_seq: the end of the probe.
        end: Seq,
        /// TLP.is_retrans: it repeated data, so there was a loss unless the peer reports that it arrived twice.
        again: bool,
    },
}

/// Waking (RFC 6069) of a client that was sending when the outage began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Revival {
    /// Time until which segments are held back: one round trip between the ICMP messages and an advancing
    /// acknowledgement.
    pub(super) hold_until: Option<Duration>,
    /// Time at which it is woken once more if it has stayed silent.
    pub(super) repeat_at: Option<Duration>,
}

impl Live {
    /// Makes the volatile part of a connection, which may have sent everything it was allowed to.
    pub(crate) fn new(durable: &Durable, link_mtu: usize, now: Duration) -> Live {
        let mss = segment_size(durable, link_mtu);
        let snd_end = durable.snd_end();
        // The first SYN-ACK is sent like a retransmission, whatever the peer's window.
        let snd_nxt = match durable.state {
            State::SynReceived => snd_end,
            _ => snd_end.min(durable.snd_edge()).max(durable.snd_una),
        };
        let mut loss = Loss::new(durable.snd_una);
        if snd_nxt > durable.snd_una {
            loss.all_lost(durable.snd_una, snd_nxt);
        }
        Live {
            snd_nxt,
            snd_possible: snd_end,
            snd_wnd_max: durable.snd_wnd,
            old_ack_max: 0xffff << durable.snd_shift(),
            mss,
            loss,
            cubic: Cubic::new(mss),
            rtt: Rtt::default(),
            timed: None,
            last_sent: now,
            last_progress: now,
            cwnd_limited: false,
            retransmit_at: None,
            loss_probe: LossProbe::Idle,
            measured: true,
            force: false,
            syn_ack_due: durable.state == State::SynReceived,
            syn_ack_sent: false,
            syn_ack_timeouts: 0,
            assembler: Assembler::default(),
            rcv_mss: MSS_MIN,
            granted: durable.rcv_edge,
            ack_now: false,
            quick_acks: 0,
            announce: false,
            ack_at: None,
            duplicates: 0,
            promise_unsent: true,
            window_update: false,
            window_shut: false,
            last_data: now,
            refused_at: None,
            call_at: None,
            ts_recent_at: now,
            last_heard: now,
            keep_alive_tries: 0,
            time_wait_until: (durable.state == State::TimeWait).then(|| now + TIME_WAIT),
            challenges: (0, 0),
            revival: None,
            applied: 0,
            armed: None,
            dirty: false,
        }
    }
}

/// Payload bytes of a full segment on a path that takes IP packets of `mtu` bytes.
//= rfc9293 MUST-16
//= rfc6691 2b
fn segment_size(durable: &Durable, mtu: usize) -> usize {
    let options = if durable.options.timestamps {
        TIMESTAMP_LEN
    } else {
        0
    };
    let path = largest_mss(&durable.path, mtu);
    // RFC 6691, section 2: the MSS option does not count options, the sender does.
    (usize::from(durable.options.peer_mss).min(path)).max(MSS_MIN) - options
}

/// The MSS we announce (RFC 9293, section 3.7.1).
//= rfc9293 MUST-67
//= rfc6691 2a
pub(crate) fn largest_mss(path: &Path, mtu: usize) -> usize {
    let ip = if path.remote.is_ipv6() { 40 } else { 20 };
    mtu.saturating_sub(ip + HEADER_LEN).max(MSS_MIN)
}

impl Conn {
    pub(crate) fn new(id: ConnId, checkpoint: &Checkpoint, link_mtu: usize, now: Duration) -> Conn {
        let durable = Durable::restore(checkpoint);
        let live = Live::new(&durable, link_mtu, now);
        Conn { id, durable, live }
    }

    /// Appends a record and applies it. Nothing else changes the durable state of a running connection.
    pub(super) fn emit(&mut self, cx: &mut Context<'_>, record: Record, data: &[&[u8]]) {
        let bytes = cx.journal.append(self.id, &record, data);
        self.durable.apply(&record, bytes);
    }

    /// Closes the connection; `Stack` removes it when it sees the state.
    pub(crate) fn closed(&mut self, cx: &mut Context<'_>, why: Why) {
        let why = if self.durable.state == State::SynReceived {
            Why::NeverOpened
        } else {
            why
        };
        self.emit(cx, Record::Closed, &[]);
        cx.events.push(Event::Closed(self.id, why));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.durable.state == State::Closed
    }

    /// Bytes and FIN sent, not acknowledged.
    pub(super) fn flight(&self) -> usize {
        self.live.snd_nxt.since(self.durable.snd_una)
    }

    /// The timestamp clock: milliseconds of service time, so it continues across an outage.
    //= rfc7323 5.4a, 5.4c, 5.4d, 5.4b
    fn tsval(&self, now: Duration) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.durable.ts_offset)
    }

    /// TSval and TSecr of what is sent now (RFC 7323, section 3.2), if the SYNs agreed on timestamps.
    //= rfc7323 3.2b, 3.2c, 3.2g
    pub(super) fn timestamps(&self, now: Duration) -> Option<(u32, u32)> {
        let both = (self.tsval(now), self.durable.ts_recent);
        self.durable.options.timestamps.then_some(both)
    }

    /// The peer has not finished.
    pub(super) fn peer_may_send(&self) -> bool {
        matches!(
            self.durable.state,
            State::Established | State::FinWait1 | State::FinWait2
        )
    }

    pub(crate) fn send(&mut self, cx: &mut Context<'_>, parts: &[&[u8]]) {
        if !matches!(self.durable.state, State::Established | State::CloseWait) {
            return;
        }
        // The data carries the acknowledgement that is due.
        if self.durable.last_ack_sent != self.durable.rcv_nxt {
            self.live.ack_now = true;
        }
        let promise = self.promise(cx, self.durable.rcv_nxt, self.durable.received_len);
        self.emit(cx, Record::Sent { promise }, parts);
        if promise.is_some() {
            self.live.window_update = false;
        }
    }

    /// Half-close: queues our FIN behind the data.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        if matches!(self.durable.state, State::Established | State::CloseWait) {
            self.emit(cx, Record::FinQueued, &[]);
        }
    }

    /// Aborts the connection (RFC 9293, section 3.10.5).
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>) {
        if self.durable.state != State::TimeWait {
            let path = self.durable.path;
            let mut header = Header::new(path.local.port(), path.remote.port(), self.live.snd_nxt);
            header.rst = true;
            header.ack = Some(self.durable.rcv_nxt);
            header.timestamp = self.timestamps(cx.now);
            cx.resets.push((path, header));
        }
        self.closed(cx, Why::Aborted);
    }

    /// Acknowledges a segment that proves nothing, at a limited rate (RFC 5961, section 7).
    pub(super) fn challenge(&mut self, now: Duration) {
        let second = now.as_secs();
        if self.live.challenges.0 != second {
            self.live.challenges = (second, 0);
        }
        if self.live.challenges.1 < CHALLENGES_PER_SECOND {
            self.live.challenges.1 += 1;
            self.live.ack_now = true;
        }
    }

    /// Handles an ICMP error about a segment of ours. It is believed only if that segment is outstanding (RFC 5927,
    /// section 4.1).
    ///
    /// No error ends the connection. RFC 9293, section 3.9.2.2 would let hard errors do so; RFC 5927, section 5.2
    /// treats them as soft ones, since anyone may forge them.
    //= rfc9293 MUST-54, MUST-56, SHLD-25, SHLD-26
    //= rfc8201 4d
    pub(crate) fn icmp(&mut self, error: &IcmpError, cx: &mut Context<'_>) {
        let seq = Seq(error.seq);
        if seq < self.durable.snd_una || seq >= self.live.snd_nxt {
            return;
        }
        match error.kind {
            IcmpKind::TooBig { mtu } => self.too_big(mtu),
            IcmpKind::Unreachable { kind, code } => {
                let trouble = Trouble::Icmp { kind, code };
                push_once(cx.events, Event::Trouble(self.id, trouble));
            }
        }
    }

    /// Limits the segment size to a path that takes IP packets of `mtu` bytes.
    fn too_big(&mut self, mtu: usize) {
        // RFC 1191, section 3 and RFC 8200, section 5: no link takes less.
        //= rfc1191 3c
        //= rfc8201 4b
        let floor = if self.durable.path.remote.is_ipv6() {
            1280
        } else {
            576
        };
        let mss = segment_size(&self.durable, mtu.max(floor));
        //= rfc1191 3b, 3d, 3e, 6.4a, 6.4b
        //= rfc8201 4a, 4c, 5.4a
        if mss < self.live.mss {
            let (una, nxt) = (self.durable.snd_una, self.live.snd_nxt);
            self.live.mss = mss;
            self.live.cubic.shrink_mss(mss);
            self.live.loss.too_big(una, nxt);
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            snd_una: self.durable.snd_una,
            rcv_nxt: self.durable.rcv_nxt,
            refused_at: self.live.refused_at,
        }
    }

    pub(crate) fn status(&self) -> ConnStatus {
        let durable = &self.durable;
        ConnStatus {
            conn: self.id,
            client: durable.path.remote,
            server: durable.path.local,
            state: durable.state.name(),
            snd_una: durable.snd_una.0,
            snd_nxt: self.live.snd_nxt.0,
            snd_wnd: durable.snd_wnd,
            rcv_nxt: durable.rcv_nxt.0,
            rcv_wnd: durable.rcv_wnd() as u32,
            unacked_bytes: durable.unacked.len(),
            queued_bytes: durable.received_len,
            srtt_us: self.live.rtt.srtt().map(|srtt| srtt.as_micros() as u64),
            cwnd: self.live.cubic.cwnd(),
        }
    }
}
