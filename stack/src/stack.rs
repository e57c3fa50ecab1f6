//! Implements the stack: demultiplexer, listeners, timers.

mod addresses;
mod closed;
mod drain;
mod kept;
mod receive;
mod returning;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use closed::Closed;
use drain::Drain;
use returning::Returning;

use crate::event::{ConnStatus, Event, Standing, Usage, Why};
use crate::frame::{Delivery, Segment};
use crate::link::{Counters, Link};
use crate::listener::{cookie_answer, half_open};
use crate::tcp::conn::{Conn, Context, Wire};
use crate::tcp::cookie;
use crate::tcp::isn::Isn;
use crate::tcp::segment::{Header, Received};
use crate::tcp::tcb::Durable;
use crate::tcp::window::Holding;
use crate::{Checkpoint, Config, ConnId, Journal, Path, Record, RxFrame, Seq, State, TxFrame};

/// The number of ICMP messages that undo a peer's back-off (RFC 6069): more than the steps it can have taken.
const REVIVAL_MESSAGES: usize = 16;
/// Bytes of one relocation record.
const RELOCATION_PIECE: usize = 1 << 20;

/// Whether frames of the peers may have been lost during the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Some may be lost: their retransmission timers are backed off.
    Frames,
    /// None: the device's queue was held open, or the outage was planned.
    Nothing,
}

/// TCP/IP on one Ethernet link.
pub struct Stack {
    config: Config,
    link: Link,
    isn: Isn,
    conns: BTreeMap<ConnId, Conn>,
    /// Connections by our socket and the peer's.
    sockets: HashMap<(SocketAddr, SocketAddr), ConnId>,
    /// Connections in SYN-RECEIVED and in TIME-WAIT, oldest first.
    half_open: BTreeSet<ConnId>,
    time_wait: BTreeSet<ConnId>,
    /// Time until which cookies may return.
    cookies_until: Duration,
    /// Counters and levels; the sizes of the sets are filled in on request.
    usage: Usage,
    /// What all connections hold of the room for received bytes.
    receive: Holding,
    /// Connections to poll.
    dirty: Vec<ConnId>,
    /// When to poll the others. An entry may be earlier than the connection's deadline, never later.
    timers: BTreeSet<(Duration, ConnId)>,
    events: Vec<Event>,
    /// Segments that belong to no connection: resets, and SYN-ACKs with cookies.
    resets: Vec<(Path, Header)>,
    closed: Closed,
    drain: Option<Drain>,
    returning: Returning,
    /// The number of records applied.
    applied: u64,
    /// Everything is restored; no frame is read or sent before (law 4).
    open: bool,
    now: Duration,
}

impl Stack {
    /// A stack without connections. `secret` belongs to the instance: the same after every recovery.
    pub fn new(config: Config, secret: [u8; 32], now: Duration) -> Stack {
        Stack {
            link: Link::new(&config, now),
            isn: Isn::new(secret),
            conns: BTreeMap::new(),
            sockets: HashMap::new(),
            half_open: BTreeSet::new(),
            time_wait: BTreeSet::new(),
            // before a crash some may have been sent
            cookies_until: now + cookie::LIFE,
            usage: Usage::default(),
            receive: Holding::default(),
            dirty: Vec::new(),
            timers: BTreeSet::new(),
            events: Vec::new(),
            resets: Vec::new(),
            closed: Closed::default(),
            drain: None,
            returning: Returning::default(),
            applied: 0,
            open: false,
            now,
            config,
        }
    }

    /// Takes one Ethernet frame. Nothing is sent before [`poll`](Stack::poll).
    pub fn ingest(&mut self, frame: RxFrame<'_>, now: Duration, journal: &mut dyn Journal) {
        if !self.open {
            return;
        }
        self.now = self.now.max(now);
        match self.link.ingest(frame, self.now) {
            Delivery::Segment(segment) => self.segment(segment, journal),
            Delivery::Error(error) => {
                if let Some(conn) = self.sockets.get(&(error.local, error.remote)).copied() {
                    self.act(conn, journal, |conn, cx| conn.icmp(&error, cx));
                }
            }
            Delivery::Nothing => {}
        }
    }

    fn segment(&mut self, segment: Segment<'_>, journal: &mut dyn Journal) {
        let path = segment.path;
        let Some(received) = Received::parse(segment.tcp) else {
            return;
        };
        let syn = received.opens();
        if let Some(conn) = self.sockets.get(&(path.local, path.remote)).copied() {
            if !(syn && self.reopens(conn, &received)) {
                self.act(conn, journal, |conn, cx| {
                    conn.arrive(&received, path.remote_mac, cx)
                });
                return;
            }
            self.act(conn, journal, |conn, cx| conn.closed(cx, Why::Finished));
        }
        if syn && self.config.ports.contains(&path.local.port()) {
            self.listen(&received, path, journal);
        } else if !received.rst && !self.take_cookie(&received, path, journal) {
            self.refuse(&received, path);
        }
    }

    /// Returns whether a SYN, which cannot be an old duplicate, ends TIME-WAIT (RFC 9293, section 3.10.7.4, fourth
    /// step; RFC 6191, section 2).
    //= rfc9293 SHLD-4
    fn reopens(&self, conn: ConnId, syn: &Received<'_>) -> bool {
        self.conns.get(&conn).is_some_and(|conn| {
            let durable = &conn.durable;
            let beyond = syn.seq >= durable.rcv_nxt;
            let newer = match (durable.options.timestamps, syn.timestamp) {
                (true, Some((tsval, _))) => {
                    let age = tsval.wrapping_sub(durable.ts_recent) as i32;
                    age > 0 || (age == 0 && beyond)
                }
                (false, Some(_)) => true,
                (_, None) => beyond,
            };
            durable.state == State::TimeWait && newer
        })
    }

    /// Handles a SYN in LISTEN. The new connection is recorded before its SYN-ACK leaves; during a flood nothing is
    /// kept.
    fn listen(&mut self, syn: &Received<'_>, path: Path, journal: &mut dyn Journal) {
        let full = self.conns.len() >= self.config.max_connections;
        if full && self.time_wait.is_empty() && self.half_open.is_empty() {
            self.usage.refused += 1;
        } else if full || self.half_open.len() >= self.config.max_half_open {
            self.usage.cookies_sent += 1;
            self.cookies_until = self.now + cookie::LIFE;
            let window = self.least_window();
            let answer = cookie_answer(syn, &path, &self.isn, &self.config, window, self.now);
            self.resets.push((path, answer));
        } else {
            let iss = self.isn.draw(&path, self.now);
            let window = self.allowance(Holding::default()).automatic;
            self.open(syn, iss, path, window, journal);
        }
    }

    /// Handles the acknowledgement of a SYN-ACK with a cookie: makes the connection, which then processes the segment.
    fn take_cookie(&mut self, ack: &Received<'_>, path: Path, journal: &mut dyn Journal) -> bool {
        if ack.syn
            || self.now > self.cookies_until
            || !self.config.ports.contains(&path.local.port())
        {
            return false;
        }
        let Some((iss, syn)) = cookie::open(&self.isn, &path, ack, self.now) else {
            return false;
        };
        if self.make_room(journal) {
            self.usage.cookies_accepted += 1;
            let window = self.least_window();
            let conn = self.open(&syn, iss, path, window, journal);
            self.act(conn, journal, |conn, cx| {
                conn.live.syn_ack_due = false;
                conn.arrive(ack, path.remote_mac, cx);
            });
        }
        true
    }

    /// Makes room for one more connection; false if there is none. A connection in TIME-WAIT, or one whose handshake is
    /// incomplete, is closed for it.
    fn make_room(&mut self, journal: &mut dyn Journal) -> bool {
        if self.conns.len() < self.config.max_connections {
            return true;
        }
        let oldest = self.time_wait.first().or_else(|| self.half_open.first());
        let Some(oldest) = oldest.copied() else {
            self.usage.refused += 1;
            return false;
        };
        self.usage.displaced += 1;
        self.act(oldest, journal, |conn, cx| conn.closed(cx, Why::Finished));
        true
    }

    fn open(
        &mut self,
        syn: &Received<'_>,
        iss: Seq,
        path: Path,
        window: usize,
        journal: &mut dyn Journal,
    ) -> ConnId {
        let checkpoint = half_open(syn, iss, path, &self.isn, &self.config, window);
        let conn = journal.unique_id();
        let record = Record::Opened(Box::new(checkpoint));
        let none = journal.append(conn, &record, &[]);
        self.apply(conn, &record, none);
        self.mark_dirty(conn);
        conn
    }

    /// Acts on a connection, then updates the sets and timers that depend on its state.
    fn act<R>(
        &mut self,
        conn: ConnId,
        journal: &mut dyn Journal,
        f: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let part = self.config.max_out_of_order / self.conns.len().max(1);
        let before = self.conns.get(&conn)?.holding();
        let allowance = self.allowance(before);
        let target = self.conns.get_mut(&conn)?;
        let state = target.durable.state;
        let held = target.live.assembler.size();
        let free = self
            .config
            .max_out_of_order
            .saturating_sub(self.usage.out_of_order);
        let mut cx = Context {
            now: self.now,
            config: &self.config,
            journal,
            events: &mut self.events,
            resets: &mut self.resets,
            draining: self.drain.is_some(),
            allowance,
            out_of_order_limit: part.max(held + free),
            out_of_order_dropped: &mut self.usage.out_of_order_dropped,
            in_window_dropped: &mut self.usage.in_window_dropped,
        };
        let result = f(target, &mut cx);
        self.receive.replace(before, target.holding());
        self.usage.out_of_order += target.live.assembler.size();
        self.usage.out_of_order -= held;
        if target.is_closed() {
            self.remove_closed(conn, state);
        } else {
            let state = target.durable.state;
            self.index_by_state(conn, state);
            self.mark_dirty(conn);
        }
        Some(result)
    }

    /// Updates the sets that are kept by state.
    fn index_by_state(&mut self, conn: ConnId, state: State) {
        if state == State::SynReceived {
            self.half_open.insert(conn);
        } else {
            self.half_open.remove(&conn);
        }
        if state == State::TimeWait {
            self.time_wait.insert(conn);
        }
    }

    /// Adds a connection to the list of those to poll.
    fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(target) = self.conns.get_mut(&conn)
            && !std::mem::replace(&mut target.live.dirty, true)
        {
            self.dirty.push(conn);
        }
    }

    fn forget(&mut self, conn: ConnId) {
        if let Some(gone) = self.conns.remove(&conn) {
            let path = gone.durable.path;
            self.sockets.remove(&(path.local, path.remote));
            self.half_open.remove(&conn);
            self.time_wait.remove(&conn);
            self.usage.out_of_order -= gone.live.assembler.size();
            self.receive.replace(gone.holding(), Holding::default());
            if let Some(at) = gone.live.armed {
                self.timers.remove(&(at, conn));
            }
        }
    }

    /// Runs timers and collects the frames to send: acknowledgements, data, answers. Called before the commit; the
    /// frames leave after it.
    pub fn poll(&mut self, now: Duration, journal: &mut dyn Journal, out: &mut Vec<TxFrame>) {
        if !self.open {
            return;
        }
        self.now = self.now.max(now);
        self.link.poll(out);
        while let Some(&(at, conn)) = self.timers.first().filter(|(at, _)| *at <= self.now) {
            self.timers.remove(&(at, conn));
            if let Some(target) = self.conns.get_mut(&conn) {
                target.live.armed = None;
            }
            self.mark_dirty(conn);
        }
        self.resume_some(out);
        self.shut_windows_when_quiet();
        for conn in std::mem::take(&mut self.dirty) {
            self.poll_conn(conn, journal, out);
        }
        for (path, header) in self.resets.drain(..) {
            out.push(
                self.link
                    .segment(&path, &header.emit(), Vec::new(), usize::MAX),
            );
        }
    }

    fn poll_conn(&mut self, conn: ConnId, journal: &mut dyn Journal, out: &mut Vec<TxFrame>) {
        let Some(before) = self.conns.get(&conn).map(Conn::holding) else {
            return;
        };
        let allowance = self.allowance(before);
        let Some(target) = self.conns.get_mut(&conn) else {
            return;
        };
        target.live.dirty = false;
        let mut cx = Context {
            now: self.now,
            config: &self.config,
            journal,
            events: &mut self.events,
            resets: &mut self.resets,
            draining: self.drain.is_some(),
            allowance,
            out_of_order_limit: 0,
            out_of_order_dropped: &mut self.usage.out_of_order_dropped,
            in_window_dropped: &mut self.usage.in_window_dropped,
        };
        let mut wire = LinkWire {
            link: &self.link,
            out,
        };
        target.poll(&mut cx, &mut wire);
        self.receive.replace(before, target.holding());
        if target.is_closed() {
            return self.forget(conn);
        }
        // A timer that is early enough stays, since most deadlines are postponed again and again.
        let Some(deadline) = target.deadline(&self.config) else {
            return;
        };
        if target.live.armed.is_none_or(|at| at > deadline) {
            if let Some(at) = target.live.armed.replace(deadline) {
                self.timers.remove(&(at, conn));
            }
            self.timers.insert((deadline, conn));
        }
    }

    /// When to call [`poll`](Stack::poll) next, in service time; earlier if something happens.
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.open {
            return None;
        }
        let busy = !self.dirty.is_empty() || !self.resets.is_empty() || self.returning.is_any();
        [
            self.link.next_deadline(),
            self.timers.first().map(|(at, _)| *at),
            busy.then_some(self.now),
            self.drain_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns what has happened since the last call.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    /// Queues final bytes. Ignored after `close`, and for a connection that is gone.
    pub fn send(&mut self, conn: ConnId, parts: &[&[u8]], journal: &mut dyn Journal) {
        self.act(conn, journal, |conn, cx| conn.send(cx, parts));
    }

    /// Bytes queued that the peer has not acknowledged.
    pub fn send_queued(&self, conn: ConnId) -> usize {
        self.conns
            .get(&conn)
            .map_or(0, |conn| conn.durable.unacked.len())
    }

    /// Ends our direction: a FIN follows what is queued. Bytes of the peer are still received.
    pub fn close(&mut self, conn: ConnId, journal: &mut dyn Journal) {
        self.act(conn, journal, |conn, cx| conn.close(cx));
    }

    /// Drops the connection and resets the peer.
    pub fn abort(&mut self, conn: ConnId, journal: &mut dyn Journal) {
        self.act(conn, journal, |conn, cx| conn.abort(cx));
    }

    /// A connection's state (RFC 9293, section 3.3.2). `None`: TCP has closed it.
    pub fn state(&self, conn: ConnId) -> Option<State> {
        self.conns.get(&conn).map(|conn| conn.durable.state)
    }

    /// A connection's durable state without its queued bytes. `None`: TCP has closed it.
    pub fn checkpoint(&self, conn: ConnId) -> Option<Checkpoint> {
        self.conns.get(&conn).map(|conn| conn.durable.checkpoint())
    }

    /// Restores a connection from a snapshot: the same as applying [`Record::Opened`].
    pub fn restore(&mut self, conn: ConnId, checkpoint: Checkpoint, now: Duration) {
        self.now = self.now.max(now);
        self.apply(conn, &Record::Opened(Box::new(checkpoint)), Bytes::new());
    }

    /// Applies a record that is in the journal already. To be called between [`new`](Stack::new) and
    /// [`resume`](Stack::resume), or on a stack that only follows.
    pub fn apply(&mut self, conn: ConnId, record: &Record, data: Bytes) {
        self.applied += 1;
        match record {
            Record::Opened(checkpoint) => {
                self.forget(conn);
                let mut target = Conn::new(conn, checkpoint, self.link.mtu(), self.now);
                target.live.applied = self.applied;
                let path = target.durable.path;
                self.index_by_state(conn, target.durable.state);
                self.sockets.insert((path.local, path.remote), conn);
                self.receive.replace(Holding::default(), target.holding());
                self.conns.insert(conn, target);
            }
            Record::Closed => self.forget(conn),
            _ => {
                if let Some(target) = self.conns.get_mut(&conn) {
                    let before = target.holding();
                    target.durable.apply(record, data);
                    target.live.applied = self.applied;
                    self.receive.replace(before, target.holding());
                    let state = target.durable.state;
                    self.index_by_state(conn, state);
                }
            }
        }
    }

    /// Writes a connection's queued bytes to the journal again, so that their old places become free.
    ///
    /// The protocol, all before one commit:
    /// 1. the loop takes [`checkpoint`](Stack::checkpoint) and appends the object's snapshot record with it; the queues
    ///    are empty then for a reader of the log;
    /// 2. `relocate` empties the queues here as well and appends their bytes as [`Record::RequeuedReceived`] and
    ///    [`Record::RequeuedSent`], in order, in pieces of about 1 MiB; sequence numbers stay.
    ///
    /// Nothing else may be appended for the connection in between. The old `Bytes` are released piece by piece.
    pub fn relocate(&mut self, conn: ConnId, journal: &mut dyn Journal) {
        let Some(target) = self.conns.get_mut(&conn) else {
            return;
        };
        let durable = &mut target.durable;
        let received = std::mem::take(&mut durable.received);
        let sent: Vec<Bytes> = durable.unacked.chunks().cloned().collect();
        durable.apply(
            &Record::Opened(Box::new(durable.checkpoint())),
            Bytes::new(),
        );
        let mut requeue = |record: Record, chunks: Vec<Bytes>| {
            let mut chunks = chunks.into_iter().peekable();
            while chunks.peek().is_some() {
                let mut len = 0;
                let mut piece: Vec<Bytes> = Vec::new();
                while let Some(chunk) =
                    chunks.next_if(|chunk| len == 0 || len + chunk.len() <= RELOCATION_PIECE)
                {
                    len += chunk.len();
                    piece.push(chunk);
                }
                let parts: Vec<&[u8]> = piece.iter().map(|chunk| &chunk[..]).collect();
                let data = journal.append(conn, &record, &parts);
                durable.apply(&record, data);
            }
        };
        requeue(Record::RequeuedReceived, received.into());
        requeue(Record::RequeuedSent, sent);
    }

    /// Makes frames that announce our addresses again, for a switch that missed the first ones and still sends to the
    /// machine that had them before. Empty before [`resume`](Stack::resume).
    pub fn announce(&self) -> Vec<TxFrame> {
        match self.open {
            true => self.link.announce(),
            false => Vec::new(),
        }
    }

    /// State of every connection.
    pub fn status(&self) -> Vec<ConnStatus> {
        self.conns.values().map(Conn::status).collect()
    }

    /// Every connection: its id, the peer, and its state.
    pub fn connections(&self) -> impl Iterator<Item = (ConnId, SocketAddr, State)> {
        self.conns
            .values()
            .map(|conn| (conn.id, conn.durable.path.remote, conn.durable.state))
    }

    /// The first connection from this id on.
    pub fn next_from(&self, conn: ConnId) -> Option<ConnId> {
        self.conns.range(conn..).next().map(|(conn, _)| *conn)
    }

    /// Returns the durable state of every connection, to be compared with the fold of the journal.
    pub fn durable(&self) -> impl Iterator<Item = (ConnId, &Durable)> {
        self.conns.values().map(|conn| (conn.id, &conn.durable))
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The current levels and counters of the limits.
    pub fn usage(&self) -> Usage {
        Usage {
            connections: self.conns.len(),
            half_open: self.half_open.len(),
            time_wait: self.time_wait.len(),
            receive_held: self.receive.sum(),
            ..self.usage
        }
    }

    /// The progress of a connection. `None`: there is no such connection.
    pub fn standing(&self, conn: ConnId) -> Option<Standing> {
        self.conns.get(&conn).map(Conn::standing)
    }

    /// The peer of a connection.
    pub fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns.get(&conn).map(|conn| conn.durable.path.remote)
    }

    /// The link layer's counters.
    pub fn counters(&self) -> Counters {
        self.link.counters()
    }
}

/// Turns segments into frames.
struct LinkWire<'a> {
    link: &'a Link,
    out: &'a mut Vec<TxFrame>,
}

impl Wire for LinkWire<'_> {
    fn segment(&mut self, path: &Path, header: &[u8], payload: Vec<Bytes>, mss: usize) {
        self.out.push(self.link.segment(path, header, payload, mss));
    }

    fn super_frame(&self, path: &Path) -> usize {
        self.link.super_frame(path)
    }

    /// Asks for the neighbour entry first, since the peer could not send to us without one; then sends the messages.
    fn revive(&mut self, path: &Path, quoted: [Seq; 2]) {
        self.out.extend(self.link.solicit(path));
        let [last, prior] = quoted;
        for seq in std::iter::once(last).chain((prior != last).then_some(prior)) {
            let message = |_| self.link.unreachable(path, seq.0);
            self.out.extend((0..REVIVAL_MESSAGES).map(message));
        }
    }
}
