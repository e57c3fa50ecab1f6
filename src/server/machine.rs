//! Composes the server without its environment: stack, SMB core, file system and log. One thread, one turn at a time.
//!
//! Frames enter by [`Machine::ingest`] and leave by [`Machine::turn`]; nothing here waits, reads a clock or touches a
//! device. The event loop ([`super::run`]) and the simulator drive the same machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use log::{debug, info};
use outlast_fsa::fileop::ShareId;
use outlast_nvram::{Flag, Kind, Lsn};
use outlast_smb::{Clock, Entropy, Principal, Smb};
use outlast_stack::{Event, RxFrame, Stack, TxFrame};

use super::addressing::Addressing;
use super::clock::{Stopwatch, Time};
use super::consistency::Effects;
use super::copying::Copier;
use super::counting::Counting;
use super::eviction::{EvictionLimits, Mark};
use super::fault::{Point, Probe, When};
use super::files::FileSystem;
use super::gate::Gate;
use super::inbound::{self, Inbound, Message};
use super::journal::Journal;
use super::record::Record;
use super::retrying;
use super::shares::Shares;
use super::turns::{SLICE, Turns};
use super::windows::{Framing, Windows};
use super::work::UnderWay;
use crate::metrics::Eviction;

/// Bytes of the longest message of a client that has not logged in: a security token of 64 KiB, with headers.
pub(super) const UNAUTHENTICATED_MESSAGE: usize = 65 << 10;

/// The volatile state of a client: nothing that has to survive.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// There may be an unprocessed message.
    pub(super) look: bool,
    /// The client sends no more (FIN).
    pub(super) finished: bool,
    /// Its SMB state is being torn down.
    pub(super) leaving: bool,
    /// TCP has closed it and has reported so: there are no more events of it.
    pub(super) closed: bool,
    /// Service time of its last request, or of its connection.
    pub(super) active: Duration,
    /// Service time since which it has not been logged in; `None`: it is logged in, or has not been checked.
    pub(super) unknown_since: Option<Duration>,
    /// Its position when it last progressed; `None`: it has not been checked.
    pub(super) mark: Option<Mark>,
    /// The time that the thread has spent on it ([`super::turns`]).
    pub(super) given: Duration,
    /// How long the server has worked on its message in hand.
    pub(super) spent: Duration,
    /// Its next request needs room for a reply of this many bytes.
    pub(super) wanted: u64,
    /// Its next request is for this share, which does not answer.
    pub(super) waits_for: Option<ShareId>,
    /// Where its messages begin.
    pub(super) framing: Framing,
}

/// What the machine needs besides files and the log.
pub(super) struct Surroundings {
    pub(super) entropy: Box<dyn Entropy>,
    pub(super) probe: Box<dyn Probe>,
    pub(super) stopwatch: Box<dyn Stopwatch>,
}

/// The whole server, except its environment.
pub struct Machine<F> {
    pub(super) stack: Stack,
    pub(super) smb: Smb,
    pub(super) fs: F,
    pub(super) journal: Journal,
    pub(super) entropy: Box<dyn Entropy>,
    pub(super) probe: Box<dyn Probe>,
    pub(super) clients: BTreeMap<u64, Client>,
    /// The operation that the file system is performing, in parallel to the loop.
    pub(super) under_way: Option<UnderWay>,
    /// How often what was under way when the worker died may still be tried again ([`super::retrying`]).
    pub(super) attempts: u32,
    /// The effects on files, under durability `power`.
    pub(super) effects: Option<Effects>,
    pub(super) gate: Gate,
    pub(super) copier: Copier,
    /// The addresses that the network assigns; `None`: all are configured.
    pub(super) addressing: Option<Addressing>,
    /// Frames that wait until the records they reveal are on the medium, each turn's with the end of its last commit.
    held_back: VecDeque<(Lsn, Vec<TxFrame>)>,
    pub(super) busy: bool,
    turns: Turns,
    pub(super) stopwatch: Box<dyn Stopwatch>,
    /// Reply bytes that wait for clients.
    pub(super) unread: Shares,
    pub(super) windows: Windows,
    pub(super) eviction: EvictionLimits,
    /// Connections that have not logged in; some others may be among them.
    pub(super) unauthenticated: BTreeSet<u64>,
    /// When clients are next checked for eviction, and when they last were.
    pub(super) next_look: Duration,
    pub(super) looked_at: Duration,
    /// A client has waited for room in the log since then.
    pub(super) is_short_of_room: bool,
    pub(super) unpressed_until: Duration,
    /// Segments that had no room in the log, as counted by the stack.
    refused: u64,
    pub(super) counting: Counting,
}

impl<F: FileSystem> Machine<F> {
    pub(super) fn assemble(
        stack: Stack,
        smb: Smb,
        fs: F,
        journal: Journal,
        surroundings: Surroundings,
        eviction: EvictionLimits,
        copier: Copier,
    ) -> Machine<F> {
        let Surroundings {
            entropy,
            probe,
            stopwatch,
        } = surroundings;
        let unread = Shares::new(journal.unread_limit());
        let clients = BTreeMap::new();
        Machine {
            stack,
            smb,
            fs,
            journal,
            entropy,
            probe,
            clients,
            under_way: None,
            attempts: retrying::ATTEMPTS,
            effects: None,
            gate: Gate::Open,
            copier,
            addressing: None,
            held_back: VecDeque::new(),
            // messages that a recovery found are unprocessed, and nothing else may wake the loop
            busy: true,
            turns: Turns::default(),
            stopwatch,
            unread,
            windows: Windows::default(),
            eviction,
            unauthenticated: BTreeSet::new(),
            next_look: Duration::ZERO,
            looked_at: Duration::ZERO,
            is_short_of_room: false,
            unpressed_until: Duration::ZERO,
            refused: 0,
            counting: Counting::default(),
        }
    }

    /// Ingests one frame. Nothing is acknowledged before the next turn has committed it.
    pub fn ingest(&mut self, frame: RxFrame<'_>, time: Time) {
        if !self.ingest_address_frame(frame.bytes, time) {
            self.stack.ingest(frame, time.now, &mut self.journal);
        }
    }

    /// Processes frames that were kept until this server had the connections.
    pub fn ingest_kept(&mut self, frames: &[RxFrame<'_>], time: Time) {
        self.stack.ingest_kept(frames, time.now, &mut self.journal);
    }

    /// Takes one turn: commits what was received, does what is ready, and returns the frames that may now leave.
    pub fn turn(&mut self, time: Time, out: &mut Vec<TxFrame>) {
        self.journal.ship();
        self.take_events(time);
        self.finish_under_way(time);
        match self.gate {
            _ if self.under_way.is_some() => self.busy = false,
            Gate::Open => {
                self.report_local_changes(time);
                self.evict_clients(time.now);
                self.serve(time);
            }
            // Nothing is started, so nothing is due before a frame or a deadline.
            Gate::Draining { .. } => self.busy = false,
            Gate::Closing { .. } => self.busy = self.do_tasks(time),
        }
        self.end_departed();
        self.evict_largest();
        self.note_roots();
        self.note_accounts();
        self.keep_consistent(time);
        self.grant_windows(time.now);
        let left = self.stack.receive_left();
        let mut frames = Vec::new();
        self.keep_addresses(time, &mut frames);
        self.stack.poll(time.now, &mut self.journal, &mut frames);
        self.take_events(time);
        // room that was held by a connection which has just ended
        self.busy |= self.windows.any_waiting() && self.stack.receive_left() > left;
        let is_short = !self.can_work();
        debug_assert!(
            self.under_way.is_some() || !self.smb.has_open_message(),
            "bytes of the log are still held"
        );
        self.journal.wipe(time.now);
        self.relocate(time.now);
        self.note_refused(time.now);
        if !frames.is_empty() {
            self.journal.show_time(time.now);
        }
        if self.smb.next_deadline().is_some() {
            self.journal.count_time(time.now);
        }
        self.journal.commit(time.now);
        // what waited for room may continue now, and nothing else may wake the loop
        self.busy |= is_short && self.can_work();
        self.counting.counts.commit(self.journal.take_commits());
        out.extend(self.hold_back(frames));
    }

    /// Output commit: frames leave, in order, when everything committed until now is on the medium. Returns those that
    /// may leave now.
    pub(super) fn hold_back(&mut self, frames: Vec<TxFrame>) -> Vec<TxFrame> {
        if !frames.is_empty() {
            self.held_back.push_back((self.journal.committed(), frames));
        }
        self.journal.ship();
        let durable = self.journal.durable();
        let mut free = Vec::new();
        let may_go = |(end, _): &(Lsn, _)| *end <= durable;
        while self.held_back.front().is_some_and(may_go)
            && let Some((_, frames)) = self.held_back.pop_front()
        {
            free.extend(frames);
        }
        free
    }

    /// Returns whether there is something to do without waiting.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.busy
    }

    /// When a turn is due even if nothing arrives, in service time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let gate = match self.gate {
            // its end wakes the loop
            _ if self.under_way.is_some() => None,
            Gate::Open => {
                let look = (!self.clients.is_empty()).then_some(self.next_look);
                let watched = self.journal.watched.due();
                let wait = self.smb.next_deadline();
                let counted = wait.map(|_| self.journal.counting_deadline());
                let all = [wait, counted, look, watched];
                all.into_iter().flatten().min()
            }
            Gate::Draining { until } | Gate::Closing { until } => Some(until),
        };
        let effects = self.effects.as_ref().filter(|_| self.may_redo_unsynced());
        let consistency = effects.and_then(Effects::deadline);
        let wiping = self.journal.wiping_deadline();
        let addressing = self.addressing_deadline();
        let stack = self.stack.next_deadline();
        let all = [stack, gate, consistency, wiping, addressing];
        all.into_iter().flatten().min()
    }

    /// Sets whether the partner must be in step even if the durability does not require it.
    pub fn want_partner(&mut self, yes: bool) {
        self.journal.want_partner(yes);
    }

    /// Who resumes should this server die now.
    pub fn set_flag(&mut self, flag: Flag) {
        self.journal.set_flag(flag);
    }

    /// TCP, read-only.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The SMB core, read-only.
    #[must_use]
    pub fn smb(&self) -> &Smb {
        &self.smb
    }

    /// The journal, read-only.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The log's epoch; 0 without a log.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.journal
            .log()
            .map_or(0, |log| u64::from(log.superblock().epoch))
    }

    /// Points 1 and 4, then the events that the stack reports.
    //= patent fig5-1, fig5-4
    fn take_events(&mut self, time: Time) {
        let events: Vec<Event> = self.stack.events().collect();
        let received = events
            .iter()
            .any(|event| matches!(event, Event::Readable(_)));
        let acknowledged = events
            .iter()
            .any(|event| matches!(event, Event::Writable(_)));
        let points = [(received, Point::One), (acknowledged, Point::Four)];
        let passed = || {
            points
                .iter()
                .filter(|(passed, _)| *passed)
                .map(|(_, point)| *point)
        };
        for point in passed() {
            self.probe.at(point, When::Before, "tcp");
        }
        if received || acknowledged {
            self.journal.commit(time.now);
        }
        for point in passed() {
            self.counting.counts.pass(point);
            self.probe.at(point, When::After, "tcp");
        }
        for event in events {
            match event {
                Event::Accepted(conn) => self.accept(conn, time.now),
                Event::Readable(conn) => {
                    self.clients.entry(conn).or_default().look = true;
                    self.windows.received(conn);
                }
                Event::PeerFinished(conn) => self.clients.entry(conn).or_default().finished = true,
                Event::Writable(_) => {}
                Event::Trouble(conn, trouble) => debug!("connection {conn}: {trouble:?}"),
                Event::Closed(conn, why) => {
                    debug!("connection {conn} is gone: {why:?}");
                    self.gone(conn);
                }
            }
        }
    }

    pub(super) fn accept(&mut self, conn: u64, now: Duration) {
        if let Some(tcp) = self.stack.checkpoint(conn) {
            debug!("connection {conn} from {}", tcp.path.remote);
            self.smb
                .connected(conn, tcp.path.remote.ip(), &mut self.journal);
            let client = self.clients.entry(conn).or_default();
            client.look = true;
            client.active = now;
            client.unknown_since = Some(now);
            self.track_unauthenticated(conn);
            self.keep_slot_free();
        }
    }

    /// Tears down a client that has left, or has to leave: tasks close what it held.
    pub(super) fn tear_down(&mut self, conn: u64) {
        if let Some(under_way) = &mut self.under_way
            && under_way.work.conn() == conn
        {
            under_way.tear_down = true;
            return;
        }
        let client = self.clients.entry(conn).or_default();
        client.look = false;
        if !std::mem::replace(&mut client.leaving, true) {
            self.smb.disconnected(conn, &mut self.journal);
        }
    }

    /// Notes that TCP has closed the connection.
    pub(super) fn gone(&mut self, conn: u64) {
        self.tear_down(conn);
        self.clients.entry(conn).or_default().closed = true;
    }

    pub(super) fn report_local_changes(&mut self, time: Time) {
        let mut out = outlast_smb::Output::default();
        for change in self.fs.changes() {
            self.journal.watched.effect(time.now);
            self.smb
                .changed(&change, clock(time), &mut self.journal, &mut out);
        }
        self.journal.watched.reported(time, self.smb.has_watches());
        self.deliver(out);
        // They have just been checked.
        self.smb.set_offline(self.fs.offline());
    }

    /// Runs tasks, and a time slice of one message of every client that has one and whose turn it is.
    fn serve(&mut self, time: Time) {
        self.busy = self.do_tasks(time);
        if self.under_way.is_some() {
            return;
        }
        self.sum_unread();
        let clients: Vec<u64> = self.clients.keys().copied().collect();
        let ready = clients.iter().filter_map(|conn| {
            let client = self.clients.get(conn)?;
            if !client.look || client.leaving {
                return None;
            }
            (self.has_room(*conn, client))
                .then(|| (self.journal.owner(*conn).clone(), client.given))
        });
        let ready: Vec<_> = ready.collect();
        self.turns.begin(&ready);
        for conn in clients {
            let Some(client) = self.clients.get(&conn) else {
                continue;
            };
            if client.leaving {
                self.refuse_after_close(conn);
                continue;
            }
            if !client.look {
                self.peer_finished(conn);
                continue;
            }
            if !self.can_work() || !self.has_reply_room(conn, client.wanted) {
                self.note_shortage(time.now);
                continue;
            }
            // Such a client has no turn: if it counted as one whose turn comes later, the loop would spin until then.
            if self.waits_for_share(client) || !self.takes_replies(conn, client) {
                continue;
            }
            if !self.turns.is_due(self.journal.owner(conn), client.given) {
                self.busy = true;
                continue;
            }
            let waiting = self.stack.send_queued(conn);
            let Some(message) = self.take_message(conn) else {
                self.peer_finished(conn);
                continue;
            };
            self.run_message(conn, message, time);
            if self.under_way.is_some() {
                self.busy = false;
                return;
            }
            let Some(client) = self.clients.get(&conn) else {
                continue;
            };
            let more = self.stack.send_queued(conn).saturating_sub(waiting);
            self.unread.add(self.journal.owner(conn), more as u64);
            // without room it is not processed before some has been made
            self.busy |= client.look && self.can_work() && self.has_room(conn, client);
        }
    }

    /// Returns whether a client's next request may be processed: its share answers, and there is room for the reply.
    fn has_room(&self, conn: u64, client: &Client) -> bool {
        !self.waits_for_share(client)
            && self.takes_replies(conn, client)
            && self.has_reply_room(conn, client.wanted)
    }

    /// Returns whether a client's next request is for a share that does not answer.
    fn waits_for_share(&self, client: &Client) -> bool {
        let share = client.waits_for;
        share.is_some_and(|share| self.is_waited_for(share))
    }

    /// Law 7: a client that does not read its replies waits.
    fn takes_replies(&self, conn: u64, client: &Client) -> bool {
        let waiting = self.stack.send_queued(conn) as u64;
        waiting == 0 || waiting + client.wanted.max(1) <= self.eviction.unread as u64
    }

    /// Refreshes the account that a client's connection is counted to.
    pub(super) fn refresh_principal(&mut self, conn: u64, now: Duration) {
        let principal = self.smb.principal(conn);
        if *self.journal.owner(conn) == principal {
            return;
        }
        let is_unknown = principal == Principal::Unknown;
        self.journal.belongs(conn, principal);
        if let Some(client) = self.clients.get_mut(&conn) {
            client.unknown_since = is_unknown.then_some(now);
        }
        if is_unknown {
            self.track_unauthenticated(conn);
        }
    }

    /// Returns whether the account has room for a reply of this many bytes.
    pub(super) fn has_reply_room(&self, conn: u64, bytes: u64) -> bool {
        self.unread.has_room(self.journal.owner(conn), bytes)
    }

    /// Makes a client's next request wait until there is room for a reply of this length.
    pub(super) fn wait_for_room(&mut self, conn: u64, wanted: u64, now: Duration) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.wanted = wanted;
        }
        self.note_shortage(now);
    }

    /// Sums up the replies that wait for clients.
    pub(super) fn sum_unread(&mut self) {
        self.unread = Shares::new(self.journal.unread_limit());
        for conn in self.clients.keys() {
            let waiting = self.stack.send_queued(*conn);
            if waiting > 0 {
                self.unread.add(self.journal.owner(*conn), waiting as u64);
            }
        }
    }

    /// RFC 1122, 4.2.2.13: what a client sends after the server has closed is lost, and it is reset. If it were kept,
    /// it would take room until the connection has ended.
    fn refuse_after_close(&mut self, conn: u64) {
        let client = self.clients.get_mut(&conn);
        if client.is_some_and(|client| std::mem::take(&mut client.look) && !client.closed) {
            self.stack.abort(conn, &mut self.journal);
        }
    }

    /// Handles the client's FIN: MS-SMB2 3.3.7.1, loss of the connection.
    fn peer_finished(&mut self, conn: u64) {
        let client = self.clients.get(&conn);
        if client.is_some_and(|client| client.finished && !client.leaving && !client.look) {
            self.tear_down(conn);
            self.stack.close(conn, &mut self.journal);
            self.busy = true;
        }
    }

    /// Runs tasks that are ready: at least one, and no longer than one client's time slice. Returns whether there may
    /// be more.
    fn do_tasks(&mut self, time: Time) -> bool {
        let begun = self.stopwatch.read();
        loop {
            if !self.can_work() {
                return false;
            }
            let Some(task) = self.smb.next_runnable(clock(time)) else {
                return false;
            };
            self.run_task(task, time);
            if self.under_way.is_some() {
                return false;
            }
            if self.stopwatch.read().saturating_sub(begun) >= SLICE {
                return true;
            }
        }
    }

    /// Charges the time since `begun`, by the stopwatch, to this client.
    pub(super) fn charge(&mut self, conn: u64, begun: Duration) {
        let now = self.stopwatch.read();
        let spent = now.saturating_sub(begun);
        if let Some(client) = self.clients.get_mut(&conn) {
            client.given = self
                .turns
                .charge(self.journal.owner(conn), client.given, spent);
        }
        self.count_work(conn, spent, now);
    }

    /// Notes that there may be a message of this client to process.
    pub(super) fn mark_ready(&mut self, conn: u64) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.look = true;
        }
    }

    /// Returns the oldest whole message of a client. The caller processes it at once, or calls `mark_ready`.
    pub(super) fn take_message(&mut self, conn: u64) -> Option<Message> {
        let client = self
            .clients
            .get_mut(&conn)
            .filter(|client| !client.leaving)?;
        while std::mem::take(&mut client.look) {
            let received = self.stack.received(conn)?;
            let longest = if self.smb.has_session(conn) {
                usize::MAX
            } else {
                UNAUTHENTICATED_MESSAGE
            };
            match inbound::front(received, self.stack.received_len(conn), longest) {
                Inbound::Partial => {}
                Inbound::Whole(message) => {
                    client.wanted = 0;
                    return Some(message);
                }
                Inbound::KeepAlive(length) => {
                    client.framing.consumed(length);
                    self.stack.consume(conn, length, &mut self.journal);
                    client.look = true;
                }
                Inbound::TooLong(length) => {
                    info!(
                        "connection {conn}: dropped: a message of {length} bytes before it has logged in"
                    );
                    self.counting.counts.evict(Eviction::Malformed);
                    self.abort(conn);
                    return None;
                }
                Inbound::Malformed(malformed) => {
                    info!("connection {conn}: dropped: {malformed}");
                    self.counting.counts.evict(Eviction::Malformed);
                    self.abort(conn);
                    return None;
                }
            }
        }
        None
    }

    pub(super) fn abort(&mut self, conn: u64) {
        self.stack.abort(conn, &mut self.journal);
        self.tear_down(conn);
    }

    /// Ends the objects of clients that have been torn down and closed.
    fn end_departed(&mut self) {
        let departed = |conn: &u64, client: &Client| {
            client.leaving && client.closed && self.smb.drop_ready(*conn)
        };
        let gone: Vec<u64> = self
            .clients
            .iter()
            .filter(|(conn, client)| departed(conn, client))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in gone {
            self.journal.put(conn, Kind::End, &Record::Closed, &[]);
            self.copier.forget(conn);
            self.journal.forget_deaths(|of| of.object == conn);
            self.smb.forget(conn);
            self.clients.remove(&conn);
            self.windows.forget(conn);
            self.journal.forget(conn);
        }
    }

    /// Returns whether there is room for one more request, beside what is set aside for received bytes.
    pub(super) fn can_work(&self) -> bool {
        self.journal.can_work(self.stack.receive_room())
    }

    /// Notes clients whose bytes had no room in the log.
    fn note_refused(&mut self, now: Duration) {
        let dropped = self.stack.usage().in_window_dropped;
        if std::mem::replace(&mut self.refused, dropped) != dropped {
            self.note_shortage(now);
        }
    }
}

pub(super) fn clock(time: Time) -> Clock {
    Clock {
        now: time.now,
        wall: time.wall,
    }
}
