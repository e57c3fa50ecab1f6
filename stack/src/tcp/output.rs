//! Output processing of a connection (RFC 9293, section 3.8; RFC 6675, 6298, 8985 and 1122).

use std::time::Duration;

use super::conn::{Conn, Context, LossProbe, Revival, SYN_ACK_TIMEOUTS, Wire, largest_mss};
use super::record::{Record, State};
use super::segment::Header;
use crate::event::{Event, Trouble, Why, push_once};
use crate::{Config, Seq};

/// RFC 8985, section 7.2: what a peer's delayed acknowledgement may add when a single segment is outstanding.
const PEER_DELAYED_ACK: Duration = Duration::from_millis(200);
/// The number of unsuccessful retransmissions after which the application is notified (R1 of RFC 9293, section 3.8.3).
//= rfc9293 SHLD-10
const R1: u32 = 3;
/// The shortest time before a loss probe is sent.
const LOSS_PROBE_MIN: Duration = Duration::from_millis(10);
/// Silence after which a client that was woken (RFC 6069) is woken once more.
const REVIVAL_REPEAT: Duration = Duration::from_millis(250);
/// Silence of a peer, after a segment of it was refused for lack of room, before it is woken (RFC 6069); also the
/// interval at which the room is checked. No sender's timer is shorter (Linux: 200 ms).
pub(super) const REFUSED_SILENCE: Duration = Duration::from_millis(250);
/// The number of segments that are each acknowledged at once when the peer's congestion window may be a single segment.
const QUICK_ACKS: u32 = 16;
/// The round-trip time assumed after a return, when none has been measured.
const REVIVAL_ROUND_TRIP: Duration = Duration::from_millis(2);

impl Conn {
    /// Runs the timers and sends what may be sent. Called before the commit; the frames leave after it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        if !self.revive_if_silent(cx.now, wire) {
            return;
        }
        self.run_timers(cx, wire);
        match self.durable.state {
            State::Closed => return,
            State::SynReceived => {
                self.send_syn_ack(cx, wire);
                // RFC 9293, section 3.10.7.4, first step: a peer that has restarted answers this acknowledgement with a
                // reset.
                if self.live.ack_now {
                    self.send_ack(cx, wire);
                }
                return;
            }
            _ => {}
        }
        if self.live.window_update {
            self.live.ack_now = true;
        }
        if std::mem::take(&mut self.live.announce) {
            self.send_ack(cx, wire);
        }
        // SACK blocks go on acknowledgements alone, so that data segments keep their size.
        if self.live.ack_now && !self.live.assembler.is_empty() {
            let copies = if self.durable.options.sack {
                1
            } else {
                self.live.duplicates.max(1)
            };
            for _ in 0..copies {
                self.send_ack(cx, wire);
            }
        }
        self.transmit(cx, wire);
        if self.live.ack_now {
            self.send_ack(cx, wire);
        }
    }

    /// Returns the time of the next timer event.
    pub(crate) fn deadline(&self, config: &Config) -> Option<Duration> {
        let live = &self.live;
        if let Some(hold) = live.revival.and_then(|revival| revival.hold_until) {
            return Some(hold);
        }
        [
            live.retransmit_at,
            live.ack_at,
            live.time_wait_until,
            live.revival.and_then(|revival| revival.repeat_at),
            live.call_at,
            self.keep_alive_at(config),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    //= rfc9293 MUST-24, MUST-26, MUST-27
    fn keep_alive_at(&self, config: &Config) -> Option<Duration> {
        let idle = matches!(
            self.durable.state,
            State::Established | State::CloseWait | State::FinWait2
        ) && self.durable.snd_end() == self.durable.snd_una;
        let silence = config.keep_alive_idle.filter(|_| idle)?;
        Some(
            self.live.last_heard
                + silence
                + config.keep_alive_interval * self.live.keep_alive_tries,
        )
    }

    fn run_timers(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        let now = cx.now;
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if due(self.live.time_wait_until) {
            return self.closed(cx, Why::Finished);
        }
        if due(self.live.ack_at) {
            self.delayed_ack();
        }
        if due(self.live.call_at) {
            self.wake_refused(cx, wire);
        }
        if due(self.live.retransmit_at) {
            self.live.retransmit_at = None;
            self.retransmit(cx, wire);
        }
        if !self.is_closed() && due(self.keep_alive_at(cx.config)) {
            self.keep_alive(cx, wire);
        }
    }

    /// The delayed-acknowledgement timer expired. RFC 5681, section 4.2 assumes a second segment: a peer that sends no
    /// other full segment meanwhile may have a congestion window of one segment, and would then send only one every 40
    /// ms.
    fn delayed_ack(&mut self) {
        let owed = self.durable.rcv_nxt.since(self.durable.last_ack_sent);
        if owed >= self.live.rcv_mss {
            self.live.quick_acks = QUICK_ACKS;
        }
        self.live.ack_now = true;
    }

    fn retransmit(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        let una = self.durable.snd_una;
        if self.durable.state == State::SynReceived {
            if self.live.syn_ack_timeouts >= SYN_ACK_TIMEOUTS {
                return self.closed(cx, Why::NeverOpened);
            }
            self.live.syn_ack_timeouts += 1;
            self.live.rtt.back_off();
            self.live.syn_ack_due = true;
            return;
        }
        //= rfc9293 MUST-20/R2, MUST-21
        // RFC 9293, section 3.8.3: R2.
        if cx.now.saturating_sub(self.live.last_progress) > cx.config.user_timeout {
            return self.closed(cx, Why::TimedOut);
        }
        if self.flight() == 0 {
            return self.probe_window(cx, wire);
        }
        if self.live.loss_probe == LossProbe::Armed {
            return self.probe_loss(cx, wire);
        }
        let flight = self.flight();
        //= rfc5681 3.1i
        if self.live.rtt.backed_off() == 0 {
            self.live.cubic.timeout(flight);
        }
        self.live.rtt.back_off();
        //= rfc9293 SHLD-9
        if self.live.rtt.backed_off() == R1 {
            push_once(cx.events, Event::Trouble(self.id, Trouble::Unacknowledged));
        }
        self.live.loss_probe = LossProbe::Idle;
        self.live.loss.all_lost(una, self.live.snd_nxt);
        self.live.force = true;
    }

    /// Sends a window probe: one byte beyond a window too small to use (RFC 9293, section 3.8.6.1). SND.NXT stays, so
    /// that the byte is sent again with the bytes that follow it.
    //= rfc9293 MUST-36, SHLD-30
    fn probe_window(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        let una = self.durable.snd_una;
        if self.durable.snd_end() == una {
            return;
        }
        self.live.snd_possible = self.live.snd_possible.max(una + 1);
        self.live.rtt.back_off();
        self.send_range(una, 1, cx, wire);
        self.live.retransmit_at = Some(cx.now + self.live.rtt.rto());
    }

    /// Sends a loss probe (RFC 8985, section 7.3): a new segment if there is one, else the last one again.
    //= rfc8985 7.3a, 7.3b
    fn probe_loss(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        let (una, nxt, mss) = (self.durable.snd_una, self.live.snd_nxt, self.live.mss);
        let fresh = self
            .durable
            .data_end()
            .min(self.durable.snd_edge())
            .since(nxt)
            .min(mss);
        let again = fresh == 0;
        let end = nxt + fresh;
        self.live.loss_probe = LossProbe::Sent { end, again };
        self.live.measured = false;
        if !again {
            self.send_range(nxt, fresh, cx, wire);
            self.live.snd_nxt = end;
        } else {
            let from = (nxt - mss).max(una);
            self.live.timed = None;
            self.send_range(from, nxt.since(from), cx, wire);
        }
        self.live.retransmit_at = Some(cx.now + self.live.rtt.rto());
    }

    /// Sends a keep-alive probe (RFC 9293, section 3.8.4): SEG.SEQ = SND.NXT - 1.
    //= rfc9293 MUST-29, SHLD-12
    fn keep_alive(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        if self.live.keep_alive_tries >= cx.config.keep_alive_probes {
            return self.closed(cx, Why::TimedOut);
        }
        self.live.keep_alive_tries += 1;
        let header = self.header(self.live.snd_nxt - 1, cx);
        wire.segment(
            &self.durable.path,
            &header.emit(),
            Vec::new(),
            self.live.mss,
        );
    }

    fn send_syn_ack(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        if !std::mem::take(&mut self.live.syn_ack_due) {
            return;
        }
        let durable = &self.durable;
        let mut header = Header::new(
            durable.path.local.port(),
            durable.path.remote.port(),
            durable.iss,
        );
        header.syn = true;
        header.ack = Some(durable.rcv_nxt);
        //= rfc7323 2.2c
        // RFC 7323, section 2.2: the window of a SYN is not scaled.
        header.window = durable.rcv_wnd().min(0xffff) as u16;
        //= rfc9293 MUST-14, SHLD-5, MUST-65
        header.mss = Some(largest_mss(&durable.path, cx.config.mtu).min(0xffff) as u16);
        header.window_scale = durable.options.window_scale.map(|(_, ours)| ours);
        header.sack_permitted = durable.options.sack;
        header.timestamp = self.timestamps(cx.now);
        wire.segment(&durable.path, &header.emit(), Vec::new(), self.live.mss);
        //= rfc6298 3a
        //= rfc9293 MUST-18
        // Karn's rule: only a handshake whose SYN-ACK went out once is measured.
        let again = std::mem::replace(&mut self.live.syn_ack_sent, true);
        self.live.timed = (!again).then_some((self.durable.iss + 1, cx.now));
        self.live.retransmit_at = Some(cx.now + self.live.rtt.rto());
    }

    fn send_ack(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        // RFC 9293, section 3.8.6: the peer may have shrunk its window to the left of SND.NXT. It would ignore an
        // acknowledgement beyond what it now offers, and both sides would wait for ever.
        let seq = self.live.snd_nxt.min(self.durable.snd_edge());
        let mut header = self.header(seq, cx);
        if self.durable.options.sack {
            header.sack = self.live.assembler.blocks(self.durable.rcv_nxt);
        }
        wire.segment(
            &self.durable.path,
            &header.emit(),
            Vec::new(),
            self.live.mss,
        );
    }

    /// The header of a segment that acknowledges; the window that it offers is recorded before it leaves (law 8).
    fn header(&mut self, seq: Seq, cx: &mut Context<'_>) -> Header {
        if self.durable.last_ack_sent != self.durable.rcv_nxt || self.live.window_update {
            let promise = self.promise_now(cx, self.durable.rcv_nxt, self.durable.received_len);
            self.emit(cx, Record::Promised(promise), &[]);
        }
        self.live.promise_unsent = false;
        self.live.window_update = false;
        self.live.ack_now = false;
        self.live.ack_at = None;
        self.live.duplicates = 0;
        let durable = &self.durable;
        let mut header = Header::new(durable.path.local.port(), durable.path.remote.port(), seq);
        header.ack = Some(durable.rcv_nxt);
        if !self.live.window_shut {
            //= rfc7323 2.3c
            header.window = (durable.rcv_wnd() >> durable.rcv_shift()).min(0xffff) as u16;
        }
        header.timestamp = self.timestamps(cx.now);
        header
    }

    /// Sends `[from, from + len)` of the sequence space: queued bytes, and the FIN if it lies within.
    fn send_range(&mut self, from: Seq, len: usize, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        let end = self.durable.data_end();
        let to = from + len;
        let payload = self
            .durable
            .unacked
            .slices(from.since(self.durable.snd_una), end.min(to).since(from));
        let mut header = self.header(from, cx);
        header.fin = self.durable.fin_queued && to > end;
        //= rfc9293 MUST-61, SHLD-27
        header.psh = to >= end && !payload.is_empty();
        wire.segment(&self.durable.path, &header.emit(), payload, self.live.mss);
        self.live.last_sent = cx.now;
    }

    /// Sends lost bytes again, then new ones, as far as the windows allow.
    fn transmit(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        //= rfc5681 4.1a
        if self.flight() == 0 {
            self.live.cubic.unused(cx.now);
            if cx.now.saturating_sub(self.live.last_sent) > self.live.rtt.rto() {
                self.live.cubic.idle();
            }
        }
        let mss = self.live.mss;
        let burst = (wire.super_frame(&self.durable.path) / mss * mss).max(mss);
        self.live.cwnd_limited = false;
        loop {
            let una = self.durable.snd_una;
            let pipe = self.live.loss.pipe(una, self.live.snd_nxt, mss);
            let allowed = self.live.cubic.cwnd().saturating_sub(pipe);
            let sent = match self.live.loss.next_lost(una) {
                Some((from, to)) => self.resend(from, to, allowed, burst, cx, wire),
                None => self.send_new(allowed, burst, cx, wire),
            };
            if !sent {
                break;
            }
        }
        self.live.force = false;
        self.arm(cx.now);
    }

    fn resend(
        &mut self,
        from: Seq,
        to: Seq,
        allowed: usize,
        burst: usize,
        cx: &mut Context<'_>,
        wire: &mut dyn Wire,
    ) -> bool {
        let mss = self.live.mss;
        let whole = to.since(from);
        let len = if std::mem::take(&mut self.live.force) {
            whole.min(mss)
        } else {
            //= rfc9293 MUST-34, SHLD-15, SHLD-16
            // RFC 9293, section 3.8.6: a window that shrank is respected, except by probes. A FIN needs no room.
            let data = self.durable.data_end().min(to).since(from);
            let len = if self.durable.snd_edge().since(from) >= data {
                whole
            } else {
                self.durable.snd_edge().since(from)
            };
            self.fit(len, allowed, burst)
        };
        if len == 0 {
            return false;
        }
        self.live.timed = None;
        self.send_range(from, len, cx, wire);
        self.live.loss.retransmitted(from + len);
        true
    }

    fn send_new(
        &mut self,
        allowed: usize,
        burst: usize,
        cx: &mut Context<'_>,
        wire: &mut dyn Wire,
    ) -> bool {
        let mss = self.live.mss;
        let from = self.live.snd_nxt;
        let end = self.durable.data_end();
        let left = end.since(from);
        let usable = left.min(self.durable.snd_edge().since(from));
        let mut len = self.fit(usable, allowed, burst);
        // Large frames cost little: with two of them on their way an acknowledgement will make room for another.
        let busy = self.live.loss.recovery().is_none() && self.flight() >= 2 * burst;
        if busy && burst > mss && len < left && len < burst / 2 {
            return false;
        }
        if len < left {
            //= rfc9293 MUST-38, SHLD-28
            // RFC 9293, section 3.8.6.2.1: full segments, or half the largest window seen, unless it is the last of the
            // data.
            let half = self.live.snd_wnd_max as usize / 2;
            len = match len / mss * mss {
                0 if len >= half.max(1) => len,
                full => full,
            };
        }
        let fin = self.durable.fin_queued && from <= end && len == left;
        if len == 0 && !fin {
            return false;
        }
        let len = len + usize::from(fin);
        //= rfc6298 3b
        self.live.timed.get_or_insert((from + len, cx.now));
        self.send_range(from, len, cx, wire);
        self.live.snd_nxt = from + len;
        true
    }

    /// How much of `len` one frame may carry with `allowed` bytes left in the congestion window: whole segments if not
    /// all.
    fn fit(&mut self, len: usize, allowed: usize, burst: usize) -> usize {
        let mss = self.live.mss;
        let mut fits = len.min(burst);
        if fits > allowed {
            self.live.cwnd_limited = true;
            fits = allowed / mss * mss;
        }
        fits
    }

    /// One timer serves retransmission, loss probe and window probe.
    fn arm(&mut self, now: Duration) {
        if self.live.retransmit_at.is_some() || self.durable.snd_end() == self.durable.snd_una {
            return;
        }
        let rto = self.live.rtt.rto();
        let mut wait = rto;
        let flight = self.flight();
        let in_flight = matches!(self.live.loss_probe, LossProbe::Sent { .. });
        if !in_flight {
            self.live.loss_probe = LossProbe::Idle;
        }
        //= rfc8985 7.2a, 7.2d, 7.3c, 7.3d
        // RFC 8985, sections 7.2 and 7.3.
        if flight > 0
            && !in_flight
            && self.live.measured
            && self.live.loss.recovery().is_none()
            && self.durable.options.sack
            && let Some(srtt) = self.live.rtt.srtt()
        {
            let single = if flight <= self.live.mss {
                PEER_DELAYED_ACK
            } else {
                Duration::ZERO
            };
            wait = wait.min((srtt * 2).max(LOSS_PROBE_MIN) + single);
            self.live.loss_probe = LossProbe::Armed;
        }
        self.live.retransmit_at = Some(now + wait);
    }

    /// Restarts the connection after an outage: unacknowledged bytes are sent again, and the peer is sent its window.
    ///
    /// `lost`: frames of the peer may be lost, so its retransmission timer has been backed off.
    pub(crate) fn resume(&mut self, lost: bool, now: Duration, wire: &mut dyn Wire) {
        // In a segment of its own, at SND.NXT: what is sent again lies before that, and the peer need not look at its
        // window (RFC 9293, section 3.10.7.4, fifth step: SND.WL1).
        self.live.announce = self.durable.state != State::SynReceived;
        self.live.quick_acks = QUICK_ACKS;
        //= rfc6069 4.2b, 4.2c
        // RFC 6069 is for synchronized connections: the message aborts a connect.
        if lost && self.peer_may_send() {
            wire.revive(&self.durable.path, self.last_acks());
            // An acknowledgement that advances, or may, waits a round trip: with an old timestamp it makes bbr stall.
            let advances = self.last_acks() != [self.durable.rcv_nxt; 2];
            self.live.revival = Some(Revival {
                hold_until: advances.then(|| now + REVIVAL_ROUND_TRIP),
                repeat_at: Some(now + REVIVAL_REPEAT),
            });
        }
    }

    /// What the peer's SND.UNA may be.
    fn last_acks(&self) -> [Seq; 2] {
        [self.durable.last_ack_sent, self.durable.prior_ack_sent]
    }

    /// Wakes the peer (RFC 6069) once more if it has stayed silent; false while segments are held back.
    fn revive_if_silent(&mut self, now: Duration, wire: &mut dyn Wire) -> bool {
        let Some(revival) = &mut self.live.revival else {
            return true;
        };
        if revival.hold_until.is_some_and(|until| now < until) {
            return false;
        }
        revival.hold_until = None;
        match revival.repeat_at {
            Some(at) if at <= now => {
                wire.revive(&self.durable.path, self.last_acks());
                self.live.ack_now = true;
                self.live.revival = None;
            }
            Some(_) => {}
            None => self.live.revival = None,
        }
        true
    }

    /// Wakes a peer whose segment was refused, once there is room again. Its retransmission timer has backed off
    /// meanwhile, and it would stay silent for up to a minute and more, as after an outage.
    fn wake_refused(&mut self, cx: &mut Context<'_>, wire: &mut dyn Wire) {
        self.live.call_at = None;
        if !self.peer_may_send() {
            return;
        }
        if cx.draining || cx.journal.room(self.id) < self.live.rcv_mss {
            self.live.call_at = Some(cx.now + REFUSED_SILENCE);
            return;
        }
        wire.revive(&self.durable.path, self.last_acks());
    }

    /// Planned outage: returns whether nothing has arrived for two round trips (at least `least`; `unmeasured` if no
    /// round trip has been measured), and all that arrived is acknowledged. SRTT would not do: it counts the peer's
    /// delayed acknowledgements, which delay no data.
    pub(crate) fn is_quiet(&self, least: Duration, unmeasured: Duration, now: Duration) -> bool {
        let round_trip = self.live.rtt.least();
        let quiet = round_trip.map_or(unmeasured, |round_trip| least.max(round_trip * 2));
        let owes = self.live.ack_now || self.durable.last_ack_sent != self.durable.rcv_nxt;
        !self.peer_may_send() || (!owes && now.saturating_sub(self.live.last_data) >= quiet)
    }

    /// Returns whether nothing has arrived for `idle`, and neither side waits for an acknowledgement.
    pub(crate) fn is_idle(&self, idle: Duration, now: Duration) -> bool {
        let owes = self.live.ack_now || self.durable.last_ack_sent != self.durable.rcv_nxt;
        !owes && self.durable.unacked.len() == 0 && now.saturating_sub(self.live.last_data) >= idle
    }

    /// Returns whether there is nothing to send again, and nothing that waits for the application.
    pub(crate) fn has_nothing_queued(&self) -> bool {
        let durable = &self.durable;
        durable.unacked.len() == 0 && durable.received_len == 0 && !durable.fin_queued
    }

    /// Announces a window of 0, or the old one again.
    pub(crate) fn shut_window(&mut self, shut: bool) {
        if self.live.window_shut != shut && self.peer_may_send() {
            self.live.ack_now = true;
        }
        self.live.window_shut = shut;
    }
}
