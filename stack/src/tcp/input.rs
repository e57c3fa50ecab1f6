//! Segment arrival (RFC 9293, section 3.10.7.4; RFC 5961; RFC 7323).

use std::time::Duration;

use super::conn::{Conn, Context, DELAYED_ACK, LossProbe, MSS_MIN, TIME_WAIT};
use super::loss::Recovery;
use super::output::REFUSED_SILENCE;
use super::record::{Record, State};
use super::segment::{Header, Received};
use crate::Seq;
use crate::event::{Event, Why, push_once};

/// RFC 7323, section 5.5: TS.Recent is invalid after 24 days.
const TIMESTAMP_LIFE: Duration = Duration::from_secs(24 * 24 * 3600);
/// The size of one record of joined out-of-order data, in bytes. It is small beside the log's ring, so that little is
/// wasted where a record does not fit before the end of the ring.
const JOINED_MAX: usize = 1 << 20;
/// The largest number of duplicate acknowledgements sent at once.
const DUPLICATES_MAX: u32 = 16;

impl Conn {
    /// Processes a segment that came from `mac`.
    pub(crate) fn arrive(&mut self, segment: &Received<'_>, mac: [u8; 6], cx: &mut Context<'_>) {
        if self.durable.state == State::SynReceived
            && segment.syn
            && segment.seq == self.durable.irs
        {
            // Our SYN-ACK was lost, or is late.
            self.live.syn_ack_due = !segment.rst;
            return;
        }
        if !self.timestamp_passes(segment, cx) {
            return;
        }
        // First step: sequence number.
        let shut = self.durable.rcv_wnd() == 0;
        let probe = shut && segment.seq == self.durable.rcv_nxt && !segment.rst && !segment.syn;
        if !self.acceptable(segment) && !probe {
            //= rfc5961 3.2a
            if !segment.rst {
                self.unacceptable(segment, cx.now);
            }
            return;
        }
        // Second step: RST.
        if segment.rst {
            return self.reset_by_peer(segment, cx);
        }
        // Fourth step: SYN. RFC 5961, section 4.2: a challenge, whatever its sequence number.
        if segment.syn {
            //= rfc5961 4.2a
            return self.challenge(cx.now);
        }
        // Fifth step: ACK.
        let Some(ack) = segment.ack else { return };
        if self.durable.state == State::SynReceived && !self.handshake(segment, ack, cx) {
            return;
        }
        if !self.acknowledged(segment, ack, cx) {
            return;
        }
        if self.durable.path.remote_mac != mac {
            self.emit(cx, Record::Moved(mac), &[]);
        }
        self.live.last_heard = cx.now;
        self.live.keep_alive_tries = 0;
        if let Some(revival) = &mut self.live.revival {
            revival.repeat_at = None;
        }
        match self.durable.state {
            State::Closed => self.ended(cx),
            State::TimeWait => {
                self.live.time_wait_until.get_or_insert(cx.now + TIME_WAIT);
            }
            _ => {}
        }
        // Seventh and eighth step: text, FIN. RFC 9293 ignores both where the peer has finished.
        if self.peer_may_send() {
            self.text(segment, cx);
            self.fin(segment, cx);
        }
        if probe && segment.len() > 0 {
            self.live.ack_now = true;
        }
        // RFC 9293, section 3.8.6.1: a window probe is answered, and this may be one. smoltcp 0.14 sends such a segment
        // when it does not know that the window has opened and has no unsent byte to probe with. The rate is limited,
        // so that two such peers do not exchange acknowledgements for ever.
        if segment.len() == 0 && segment.seq > self.durable.rcv_nxt {
            self.challenge(cx.now);
        }
    }

    /// RFC 7323, sections 3.2 and 5.3: once timestamps are agreed, a segment without one is dropped, and an old one is
    /// answered.
    //= rfc7323 3.2d, 3.2e, 5.2e, 5.2f, 5.3a, 5.3b, 5.3c, 5.5a
    fn timestamp_passes(&mut self, segment: &Received<'_>, cx: &Context<'_>) -> bool {
        if !self.durable.options.timestamps || segment.rst {
            return true;
        }
        let Some((tsval, _)) = segment.timestamp else {
            return false;
        };
        let old = self.timestamp_is_old(tsval, cx.now);
        if old {
            self.unacceptable(segment, cx.now);
        }
        !old
    }

    /// RFC 7323, section 5.5: a segment older than an expired TS.Recent is accepted.
    fn timestamp_is_old(&self, tsval: u32, now: Duration) -> bool {
        (tsval.wrapping_sub(self.durable.ts_recent) as i32) < 0
            && now.saturating_sub(self.live.ts_recent_at) < TIMESTAMP_LIFE
    }

    /// RFC 9293, section 3.4, table 6.
    fn acceptable(&self, segment: &Received<'_>) -> bool {
        let (nxt, edge) = (self.durable.rcv_nxt, self.durable.rcv_edge);
        let inside = |seq: Seq| nxt <= seq && seq < edge;
        match (segment.len(), nxt < edge) {
            (0, false) => segment.seq == nxt,
            (0, true) => inside(segment.seq),
            (_, false) => false,
            // The table tests the first and the last byte. A retransmitted segment may reach beyond the window on both
            // sides; the part within the window is accepted.
            (len, true) => segment.seq < edge && nxt <= segment.seq + (len - 1),
        }
    }

    /// "Send an acknowledgment in reply and drop the segment". Data, a FIN and keep-alive probes are always answered.
    /// The rate of answers to empty segments is limited, so that two such peers do not exchange acknowledgements for
    /// ever.
    fn unacceptable(&mut self, segment: &Received<'_>, now: Duration) {
        if segment.syn || (segment.len() == 0 && segment.seq + 1 != self.durable.rcv_nxt) {
            return self.challenge(now);
        }
        self.live.ack_now = true;
        if segment.fin && self.live.time_wait_until.is_some() {
            // RFC 9293, section 3.10.7.4, eighth step: restart the 2 MSL timeout.
            self.live.time_wait_until = Some(now + TIME_WAIT);
        }
        self.live.last_heard = self.live.last_heard.max(now);
    }

    /// RFC 5961, section 3.2: exactly the next sequence number resets; anything else in the window is challenged.
    //= rfc5961 3.2b, 3.2c
    //= rfc9293 SHLD-2
    fn reset_by_peer(&mut self, segment: &Received<'_>, cx: &mut Context<'_>) {
        if segment.seq != self.durable.rcv_nxt {
            return self.challenge(cx.now);
        }
        // RFC 1337: TIME-WAIT is not ended by a reset.
        if self.durable.state != State::TimeWait {
            self.closed(cx, Why::Reset);
        }
    }

    /// SYN-RECEIVED becomes ESTABLISHED; false if the acknowledgement is wrong.
    fn handshake(&mut self, segment: &Received<'_>, ack: Seq, cx: &mut Context<'_>) -> bool {
        if ack != self.durable.iss + 1 {
            // RFC 9293, section 3.10.7.4, fifth step: <SEQ=SEG.ACK><CTL=RST>.
            let path = self.durable.path;
            let mut reset = Header::new(path.local.port(), path.remote.port(), ack);
            reset.rst = true;
            //= rfc7323 5.2c, 5.2d
            reset.timestamp = segment.timestamp.map(|(tsval, _)| (0, tsval));
            cx.resets.push((path, reset));
            return false;
        }
        self.emit(cx, Record::Established, &[]);
        //= rfc7323 2.3b
        let scaled = u32::from(segment.window) << self.durable.snd_shift();
        let ts_recent = self.timestamp(segment, cx.now);
        self.emit(
            cx,
            Record::Acked {
                snd_una: ack,
                snd_wnd: scaled,
                snd_wl1: segment.seq,
                snd_wl2: ack,
                ts_recent,
            },
            &[],
        );
        if let Some((_, sent)) = self.live.timed.take() {
            self.live.rtt.sample(cx.now.saturating_sub(sent));
        }
        self.live.rtt.progress();
        //= rfc6298 5.7
        //= rfc5681 3.1d
        if self.live.syn_ack_timeouts > 0 {
            self.live.rtt.handshake_timed_out();
            self.live.cubic.handshake_timed_out();
        }
        self.live.snd_nxt = ack;
        self.live.snd_possible = ack;
        self.live.snd_wnd_max = scaled;
        self.live.old_ack_max = scaled;
        self.live.loss = super::loss::Loss::new(ack);
        self.live.retransmit_at = None;
        self.live.last_progress = cx.now;
        cx.events.push(Event::Accepted(self.id));
        true
    }

    /// Returns the value that TS.Recent takes by this segment (RFC 7323, section 4.3, (2)).
    //= rfc7323 3.2f, 4.3a
    fn timestamp(&mut self, segment: &Received<'_>, now: Duration) -> Option<u32> {
        let (tsval, _) = segment
            .timestamp
            .filter(|_| self.durable.options.timestamps)?;
        let older = self.timestamp_is_old(tsval, now);
        if older || segment.seq > self.durable.last_ack_sent {
            return None;
        }
        self.live.ts_recent_at = now;
        Some(tsval)
    }

    /// Fifth step in the synchronized states; false if the segment must be dropped.
    fn acknowledged(&mut self, segment: &Received<'_>, ack: Seq, cx: &mut Context<'_>) -> bool {
        let una = self.durable.snd_una;
        // RFC 5961, section 5.2. SND.NXT before a crash is not recorded, so everything committed counts as sent.
        //= rfc5961 5.2a
        let highest = self.live.snd_nxt.max(self.live.snd_possible);
        if ack < una - self.live.old_ack_max as usize || ack > highest {
            self.challenge(cx.now);
            return false;
        }
        let acked = ack.since(una);
        let flight = self.flight();
        let wnd = u32::from(segment.window) << self.durable.snd_shift();
        let (wl1, wl2) = (self.durable.snd_wl1, self.durable.snd_wl2);
        let newer = una <= ack && (wl1 < segment.seq || (wl1 == segment.seq && wl2 <= ack));
        let (wnd, wl1, wl2) = if newer {
            (wnd, segment.seq, ack)
        } else {
            (self.durable.snd_wnd, wl1, wl2)
        };
        let update = wnd != self.durable.snd_wnd;
        let (news, duplicate_sack) = self.selective(segment, ack, highest);
        // RFC 5681, section 2: duplicate acknowledgement.
        let duplicate = acked == 0 && ack == una && segment.len() == 0 && !update;
        if acked > 0 || update {
            let record = Record::Acked {
                snd_una: ack.max(una),
                snd_wnd: wnd,
                snd_wl1: wl1,
                snd_wl2: wl2,
                ts_recent: self.timestamp(segment, cx.now),
            };
            self.emit(cx, record, &[]);
            self.live.snd_wnd_max = self.live.snd_wnd_max.max(wnd);
            self.live.old_ack_max = self.live.old_ack_max.max(wnd);
        }
        if acked > 0 {
            self.progress(segment, acked, flight, cx);
        } else if wnd == 0 || self.live.keep_alive_tries > 0 {
            // RFC 9293, section 3.8.6.1: the connection stays as long as probes are answered.
            self.live.last_progress = cx.now;
        }
        if update && self.flight() == 0 {
            self.live.retransmit_at = None;
            self.live.rtt.progress();
        }
        let unreported = duplicate && segment.sack[0].is_none();
        self.probe_answered(ack, flight, duplicate_sack, unreported);
        let duplicate = duplicate && flight > 0;
        if duplicate && !self.durable.options.sack {
            self.live.loss.duplicate_ack();
        }
        if news {
            self.live.loss.reported();
        }
        if news || duplicate || (acked > 0 && self.live.loss.reordered()) {
            self.detect_loss();
        }
        true
    }

    /// Records the SACK blocks. Returns whether they report anything new, and whether the first is a D-SACK (RFC 2883,
    /// section 4).
    fn selective(&mut self, segment: &Received<'_>, ack: Seq, highest: Seq) -> (bool, bool) {
        if !self.durable.options.sack {
            return (false, false);
        }
        let una = self.durable.snd_una;
        let mut news = false;
        // Compared by distance from SND.UNA, since comparisons of numbers chosen by the peer are not transitive.
        let distance = |seq: Seq| seq.0.wrapping_sub(una.0);
        for (from, to) in segment.sack.into_iter().flatten() {
            let sent = 0 < distance(from)
                && distance(from) < distance(to)
                && distance(to) <= distance(highest);
            if ack < from && sent {
                news |= self.live.loss.sack(from, to);
            }
        }
        let duplicate = matches!(segment.sack, [Some((from, to)), next, _]
            if to <= ack || next.is_some_and(|(low, high)| low <= from && to <= high));
        (news, duplicate)
    }

    /// New data was acknowledged: round-trip time, congestion window, recovery, timers.
    fn progress(
        &mut self,
        segment: &Received<'_>,
        acked: usize,
        flight: usize,
        cx: &mut Context<'_>,
    ) {
        let una = self.durable.snd_una;
        let live = &mut self.live;
        live.snd_nxt = live.snd_nxt.max(una);
        let timed = live.timed.filter(|(end, _)| *end <= una);
        if let Some((_, sent)) = timed {
            live.timed = None;
            live.rtt.sample(cx.now.saturating_sub(sent));
            live.measured = true;
        } else if let Some((_, echo)) = segment.timestamp
            && live.timed.is_none()
            && self.durable.options.timestamps
        {
            //= rfc7323 4.1a
            // RFC 7323, section 4.1: retransmitted bytes are measured too.
            let clock = (cx.now.as_millis() as u32).wrapping_add(self.durable.ts_offset);
            let rtt = clock.wrapping_sub(echo);
            if rtt < 60_000 {
                live.rtt
                    .sample(Duration::from_millis(u64::from(rtt.max(1))));
                live.measured = true;
            }
        }
        live.rtt.progress();
        live.last_progress = cx.now;
        if live.loss.recovery() != Some(Recovery::Fast) {
            //= rfc9438 5.8a
            // RFC 9438, section 5.8: no growth while the application or the peer's window is the limit.
            let slow_start = flight.saturating_mul(2) >= live.cubic.cwnd();
            if live.cwnd_limited || slow_start {
                let srtt = live.rtt.srtt().unwrap_or_default();
                live.cubic.acked(acked.min(flight), cx.now, srtt);
            } else {
                live.cubic.unused(cx.now);
            }
        }
        let sack = self.durable.options.sack;
        live.force |= live.loss.acked(una, acked, live.mss, sack);
        live.retransmit_at = None;
        push_once(cx.events, Event::Writable(self.id));
    }

    /// Interprets an acknowledgement while a loss probe is outstanding (RFC 8985, section 7.4.2). `unreported`: it is a
    /// duplicate without SACK option.
    //= rfc8985 7.4a, 7.4b, 7.4c
    fn probe_answered(&mut self, ack: Seq, flight: usize, duplicate_sack: bool, unreported: bool) {
        let LossProbe::Sent { end, again } = self.live.loss_probe else {
            return;
        };
        if ack < end {
            return;
        }
        let twice = duplicate_sack || (ack == end && unreported);
        let repaired = again && !twice && ack > end;
        if repaired {
            self.live.cubic.congestion(flight);
        }
        if !again || twice || repaired {
            self.live.loss_probe = LossProbe::Idle;
        }
    }

    /// Detects losses (RFC 6675, section 5).
    pub(super) fn detect_loss(&mut self) {
        let (una, nxt) = (self.durable.snd_una, self.live.snd_nxt);
        let more = self.durable.data_end().min(self.durable.snd_edge()) > nxt;
        let flight = self.flight();
        if self.live.loss.detect(una, nxt, self.live.mss, more) {
            self.live.cubic.congestion(flight);
            self.live.loss_probe = LossProbe::Idle;
            //= rfc6675 5a
            // Step 4.3: the first lost segment is sent whatever pipe says.
            self.live.force = true;
        }
    }

    /// LAST-ACK ends with the acknowledgement of our FIN.
    fn ended(&mut self, cx: &mut Context<'_>) {
        self.closed(cx, Why::Finished);
    }

    /// Seventh step: the segment's text.
    fn text(&mut self, segment: &Received<'_>, cx: &mut Context<'_>) {
        let nxt = self.durable.rcv_nxt;
        let skip = nxt.since(segment.seq);
        let seq = segment.seq.max(nxt);
        let fresh = segment.payload.get(skip..).unwrap_or_default();
        let fresh = fresh
            .get(..self.durable.rcv_edge.since(seq))
            .unwrap_or(fresh);
        if fresh.is_empty() {
            if skip > 0 && !segment.payload.is_empty() {
                self.live.ack_now = true;
            }
            return;
        }
        self.live.last_data = cx.now;
        let offered = usize::from(u16::MAX).min(cx.config.mtu);
        self.live.rcv_mss = self.live.rcv_mss.max(fresh.len().min(offered));
        if seq > nxt {
            //= rfc9293 SHLD-31
            //= rfc5681 3.2a
            // RFC 5681, section 4.2: out of order, so acknowledge at once.
            if self.live.assembler.size() + fresh.len() <= cx.out_of_order_limit {
                self.live.assembler.insert(seq, fresh);
            } else {
                *cx.out_of_order_dropped += 1;
            }
            self.live.ack_now = true;
            self.live.duplicates = (self.live.duplicates + 1).min(DUPLICATES_MAX);
            return;
        }
        if !self.live.assembler.is_empty() {
            //= rfc5681 3.2b
            // RFC 5681, section 4.2: it fills a gap.
            self.live.ack_now = true;
        }
        if self.live.quick_acks > 0 {
            self.live.quick_acks -= 1;
            self.live.ack_now = true;
        }
        let taken = self.take_in_order(seq, fresh, segment, cx);
        if taken < fresh.len() {
            self.refuse(cx);
        } else {
            self.live.call_at = None;
        }
        while taken == fresh.len() && self.take_joined(segment, cx) {}
    }

    /// Law 7: a segment that finds no room in the log counts as never received. The window offered says that there is
    /// room, so this is an attack, with tiny segments for instance.
    fn refuse(&mut self, cx: &mut Context<'_>) {
        *cx.in_window_dropped += 1;
        self.live.refused_at = Some(cx.now);
        self.live.call_at = Some(cx.now + REFUSED_SILENCE);
    }

    /// Records as many of the in-order bytes at RCV.NXT as the log has room for, and returns their number.
    fn take_in_order(
        &mut self,
        seq: Seq,
        fresh: &[u8],
        segment: &Received<'_>,
        cx: &mut Context<'_>,
    ) -> usize {
        // A part is taken if it is large enough for a record of its own.
        let room = match cx.journal.room(self.id) {
            room if room < fresh.len() && room < MSS_MIN => 0,
            room => room,
        };
        let fresh = fresh.get(..room).unwrap_or(fresh);
        if !fresh.is_empty() {
            self.receive(&[fresh], seq + fresh.len(), segment, cx);
        }
        fresh.len()
    }

    /// Records the next out-of-order bytes that join on to RCV.NXT, at most one record's length; false if there are
    /// none, or no room.
    fn take_joined(&mut self, segment: &Received<'_>, cx: &mut Context<'_>) -> bool {
        let room = cx.journal.room(self.id).min(JOINED_MAX);
        let joined = self.live.assembler.take(self.durable.rcv_nxt, room);
        let parts: Vec<&[u8]> = joined.iter().map(|piece| &piece[..]).collect();
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > 0 {
            self.receive(&parts, self.durable.rcv_nxt + bytes, segment, cx);
        }
        bytes > 0
    }

    /// In-order bytes up to `after` have been recorded; schedules their acknowledgement, at once or delayed.
    fn receive(
        &mut self,
        parts: &[&[u8]],
        after: Seq,
        segment: &Received<'_>,
        cx: &mut Context<'_>,
    ) {
        //= rfc9293 SHLD-19
        //= rfc5681 4.2b
        // RFC 9293, section 3.8.6.3: every second full-sized segment, or when the timer expires. Before a planned
        // outage no reply follows that could carry the acknowledgement, and the outage waits for it.
        if cx.draining || after.since(self.durable.last_ack_sent) >= 2 * self.live.rcv_mss {
            self.live.ack_now = true;
        }
        let bytes = after.since(self.durable.rcv_nxt);
        let promise = self.promise(cx, after, self.durable.received_len + bytes);
        if promise.is_some() {
            self.live.window_update = false;
            self.live.ack_now = true;
        } else {
            self.live.ack_at.get_or_insert(cx.now + DELAYED_ACK);
        }
        let ts_recent = self.timestamp(segment, cx.now);
        self.emit(cx, Record::Received { ts_recent, promise }, parts);
        self.live.granted = self.live.granted.max(self.durable.rcv_nxt);
        push_once(cx.events, Event::Readable(self.id));
    }

    /// Eighth step: FIN.
    fn fin(&mut self, segment: &Received<'_>, cx: &mut Context<'_>) {
        let at = segment.seq + segment.payload.len();
        if segment.fin && at >= self.durable.rcv_nxt && at <= self.durable.rcv_edge {
            self.live.assembler.insert_fin(at);
        }
        if !self.live.assembler.fin_at(self.durable.rcv_nxt) {
            return;
        }
        self.emit(cx, Record::PeerFinished, &[]);
        self.live.ack_now = true;
        if self.durable.state == State::TimeWait {
            self.live.time_wait_until = Some(cx.now + TIME_WAIT);
        }
        cx.events.push(Event::PeerFinished(self.id));
    }
}
