//! Offers the log to the two cores: records of TCP and of SMB go into the same log, under the same object.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use log::error;
use outlast_fsa::fileop::{FileKey, ShareId};
use outlast_nvram::{AppendError, Flag, Handled, Home, Kind, Log, Lsn, Relocation, codec};
use outlast_smb::Principal;
use outlast_stack::addressing;

use super::clock::{Anchor, HighWater};
use super::medium::{Medium, Shipping};
use super::record::{GLOBAL, Global, Ids, Record, Root};
use super::sizes;
use super::watched::Watched;
use super::wiping::Wiping;

/// The number of ids that are recorded at a time.
const ID_BLOCK: u64 = 4096;

/// Bytes of room kept for what a request in progress may append: its reply (8 MiB and headers) and its records.
pub const REPLY_ROOM: u64 = 10 << 20;

/// Bytes of room kept under durability `power` for its effect on files: a copy of 16 MiB within the server.
pub const EFFECT_ROOM: u64 = 17 << 20;

/// The log's length divided by this is the room for replies that wait for clients.
const UNREAD_PART: u64 = 7;

/// The same where effects on files are recorded, which need room as well.
const UNREAD_PART_BESIDE_EFFECTS: u64 = 10;

/// The number of received bytes divided by this bounds the bytes of their record headers. Only tiny segments take more.
const RECORDS_PART: u64 = 16;

/// The log's length divided by this stays free, beside what is needed, before room is made.
const SLACK_PART: u64 = 16;

/// Records and bytes that must survive, appended to the log.
pub struct Journal {
    /// `None` under durability `none`: nothing is kept.
    log: Option<Log>,
    /// The homes to which the log is shipped.
    homes: Vec<Shipping>,
    next_id: u64,
    global: Global,
    clock: HighWater,
    /// The time until which local changes are known to have been reported.
    pub(super) watched: Watched,
    wiping: Wiping,
    /// Encoding buffer, which is reused.
    meta: Vec<u8>,
    /// Something has been appended since the last commit.
    pending: bool,
    /// Commits that have not been counted yet.
    commits: u64,
    /// Room kept for what a request in hand may append, bytes.
    request_room: u64,
    /// Bytes of replies that may wait for clients, over all connections.
    unread_limit: u64,
    /// The accounts of the connections, as far as they are known.
    owners: HashMap<u64, Principal>,
}

impl Journal {
    /// Makes a journal that continues where `global` says the log has got to. `capacity`: bytes of the log's memory;
    /// `request_room`: bytes of it kept for what a request in progress may append.
    #[must_use]
    pub fn new(
        log: Option<Log>,
        medium: Option<Box<dyn Medium>>,
        capacity: u64,
        request_room: u64,
        global: Global,
    ) -> Journal {
        let mut journal = Journal {
            request_room,
            next_id: global.ids_up_to,
            clock: HighWater::recorded(global.clock_up_to),
            unread_limit: capacity / UNREAD_PART,
            watched: Watched::recorded(global.watched_until),
            wiping: Wiping::at_start(),
            log,
            homes: Vec::new(),
            global,
            meta: Vec::new(),
            pending: false,
            commits: 0,
            owners: HashMap::new(),
        };
        if let Some(medium) = medium {
            journal.ship_to(Home::Sink, medium, true);
        }
        journal
    }

    /// Ships the log to this home, too. `has_effects`: a server that recovers from there redoes the effects on files.
    pub fn ship_to(&mut self, home: Home, medium: Box<dyn Medium>, has_effects: bool) {
        if has_effects && let Some(log) = &self.log {
            self.unread_limit = log.memory_len() / UNREAD_PART_BESIDE_EFFECTS;
        }
        self.homes.push(Shipping {
            home,
            medium,
            is_under_way: false,
            has_effects,
        });
    }

    /// The log, read-only.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// The state that belongs to no connection, as it is recorded or about to be.
    #[must_use]
    pub fn global(&self) -> &Global {
        &self.global
    }

    /// Appends one record of `object`.
    pub fn put(&mut self, object: u64, kind: Kind, record: &Record<'_>, data: &[&[u8]]) -> Bytes {
        let Some(log) = &mut self.log else {
            return Bytes::from(data.concat());
        };
        self.meta.clear();
        codec::encode(record, &mut self.meta);
        self.pending = true;
        match log.append(object, kind, &self.meta, data) {
            Ok(bytes) => bytes,
            // The caller has checked that there is room for whatever can wait (`room`, `can_work`). Records that reach
            // this point cannot wait: an acknowledgement received, a window offered, a reply whose operation is done.
            // The reserve exists for them.
            Err(AppendError::Full { .. }) => {
                log.use_reserve(true);
                let appended = log.append(object, kind, &self.meta, data);
                log.use_reserve(false);
                appended.unwrap_or_else(|error| cannot_append(object, record, &error))
            }
            Err(error) => cannot_append(object, record, &error),
        }
    }

    /// Service time up to `now` may be shown after the next commit.
    pub fn show_time(&mut self, now: Duration) {
        let mark = self.clock.advance(now);
        if let Some(mark) = mark {
            self.global.clock_up_to = mark;
            self.put(GLOBAL, Kind::Delta, &Record::ClockUpTo(mark), &[]);
        }
        if let Some(until) = self.watched.advance(mark.is_some()) {
            self.global.watched_until = until;
            self.put(GLOBAL, Kind::Delta, &Record::WatchedUntil(until), &[]);
        }
    }

    /// Records the service time now and then while a client waits for a time to pass.
    pub fn count_time(&mut self, now: Duration) {
        if now >= self.clock.due() {
            self.show_time(now);
        }
    }

    /// When a turn is due for [`Journal::count_time`].
    #[must_use]
    pub fn counting_deadline(&self) -> Duration {
        self.clock.due()
    }

    /// Makes everything appended so far permanent. If there is anything, service time up to `now` may be shown
    /// afterwards.
    pub fn commit(&mut self, now: Duration) {
        if !self.pending && !self.watched.is_due() {
            return;
        }
        self.show_time(now);
        self.pending = false;
        self.commits += 1;
        if let Some(log) = &mut self.log {
            log.commit();
        }
    }

    /// Commits since the last call.
    pub fn take_commits(&mut self) -> u64 {
        std::mem::take(&mut self.commits)
    }

    /// Once in each turn: has the log give up what holds the keys of sessions that have ended, when that is due.
    pub fn wipe(&mut self, now: Duration) {
        if let Some(log) = &mut self.log {
            self.wiping.turn(now, log);
        }
    }

    /// When a turn is due for [`Journal::wipe`].
    #[must_use]
    pub fn wiping_deadline(&self) -> Option<Duration> {
        self.wiping.deadline(self.log.as_ref()?)
    }

    /// Notes what has reached the sink, and ships the rest.
    pub fn ship(&mut self) {
        if let Some(log) = &mut self.log {
            self.homes.iter_mut().for_each(|home| home.ship(log));
        }
    }

    /// Waits until everything committed is recoverable, as the durability promises.
    pub fn wait_durable(&mut self) {
        while self.durable() < self.committed() {
            self.wait();
        }
    }

    /// Waits for the same, and for the present superblock.
    fn wait_all_durable(&mut self) {
        let is_missing = |journal: &Journal| {
            let log = journal.log.as_ref();
            let mut homes = journal.required();
            log.is_some_and(|log| homes.any(|of| !log.is_shipped(of.home)))
        };
        while is_missing(self) {
            self.wait();
        }
    }

    fn wait(&mut self) {
        self.ship();
        if self.durable() < self.committed() || self.required().any(|of| of.is_under_way) {
            let homes = self.homes.iter_mut();
            let is_waited_for = |of: &&mut Shipping| {
                of.medium.is_required() && (of.is_under_way || of.home == Home::Partner)
            };
            homes.filter(is_waited_for).for_each(|of| of.medium.wait());
        }
        self.ship();
    }

    /// The homes that output waits for.
    fn required(&self) -> impl Iterator<Item = &Shipping> {
        self.homes.iter().filter(|of| of.medium.is_required())
    }

    /// Returns the position up to which records may be shown to clients.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        let Some(log) = &self.log else {
            return Lsn(u64::MAX);
        };
        let all = self.required().map(|of| of.durable(log));
        all.min().unwrap_or_else(|| log.committed())
    }

    /// Returns the time after which the loop must call again without an event.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        self.homes.iter().filter_map(|of| of.medium.pause()).min()
    }

    /// The partner's home, if there is one.
    #[must_use]
    pub fn partner(&self) -> Option<&dyn Medium> {
        let mut homes = self.homes.iter();
        homes
            .find(|of| of.home == Home::Partner)
            .map(|of| &*of.medium)
    }

    /// Sets whether the partner must be in step even if the durability does not require it.
    pub fn want_partner(&mut self, yes: bool) {
        self.homes.iter_mut().for_each(|of| of.medium.want(yes));
    }

    /// The end of what is committed.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        self.log.as_ref().map_or(Lsn(0), Log::committed)
    }

    /// The position of the next record.
    #[must_use]
    pub fn head(&self) -> Lsn {
        self.log.as_ref().map_or(Lsn(0), Log::head)
    }

    /// Returns whether more than half of the log is in use.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.log
            .as_ref()
            .is_some_and(|log| log.used() > log.capacity() / 2)
    }

    /// Returns whether there is room for one more request: its records, and its reply. `set_aside`: bytes that may be
    /// received meanwhile.
    #[must_use]
    pub fn can_work(&self, set_aside: usize) -> bool {
        self.log.as_ref().is_none_or(|log| {
            log.room() >= self.request_room && log.free() >= self.needed(set_aside)
        })
    }

    /// Bytes that must be free for one more request: in one piece, of which the end of the ring may waste another one,
    /// beside what may be received with the headers of its records.
    fn needed(&self, set_aside: usize) -> u64 {
        let set_aside = set_aside as u64;
        let received = set_aside + set_aside / RECORDS_PART;
        // What has been received is live: as much room again must remain for its relocation.
        2 * self.request_room + 2 * received
    }

    /// Continues the round of relocation that a recovery has found.
    pub fn continue_round(&mut self) {
        if let Some(log) = &mut self.log {
            log.continue_round();
        }
    }

    /// Returns whether there is room for `more` bytes, besides what a request and received bytes take.
    #[must_use]
    pub fn has_room(&self, set_aside: usize, more: u64) -> bool {
        let log = self.log.as_ref();
        log.is_none_or(|log| log.free() >= self.needed(set_aside) + more)
    }

    /// The object to relocate, if needed: so that the log's tail can move, or the next recovery is short.
    pub fn wants_relocation(&mut self, set_aside: usize) -> Option<Relocation> {
        let needed = self.needed(set_aside);
        let log = self.log.as_mut()?;
        let slack = log.capacity() / SLACK_PART;
        let piece = (self.request_room + slack).min(log.max_record());
        log.wants_relocation(piece, needed + slack)
    }

    /// The object to relocate before a planned end.
    pub fn wants_renewal(&mut self) -> Option<u64> {
        self.log.as_mut()?.wants_renewal()
    }

    /// The number of records appended so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::records)
    }

    /// Records, outside the log, the operation in progress, so that the next worker knows it if this one dies.
    pub fn handle(&self, handled: Option<Handled>) {
        if let Some(log) = &self.log {
            log.handle(handled);
        }
    }

    /// Forgets counted deaths if `is_done` says that their operation is finished.
    pub fn forget_deaths(&self, is_done: impl FnOnce(Handled) -> bool) {
        if let Some(log) = &self.log {
            log.forget_deaths(is_done);
        }
    }

    /// Bytes of replies that may wait for clients, over all connections.
    #[must_use]
    pub fn unread_limit(&self) -> u64 {
        self.unread_limit
    }

    /// Returns whether there is a sink, that is, whether durability is `power`.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        self.homes.iter().any(|of| of.has_effects)
    }

    /// Lets what is appended between `true` and `false` use the reserve, since it makes room.
    pub fn make_room(&mut self, yes: bool) {
        if let Some(log) = &mut self.log {
            log.use_reserve(yes);
        }
    }

    /// Sets the shares that object 0 has when it is next written. Returns those before.
    pub fn set_roots(&mut self, roots: Vec<Root>) -> Vec<Root> {
        std::mem::replace(&mut self.global.roots, roots)
    }

    /// Records the directory of a share.
    pub fn note_root(&mut self, share: ShareId, key: FileKey) {
        self.put(GLOBAL, Kind::Delta, &Record::Root { share, key }, &[]);
        self.global.note_root(share, key);
    }

    /// Records the name service's answer about a local account.
    pub fn note_account(&mut self, name: String, ids: Option<Ids>) {
        // An answer that is too large is asked for again.
        let ids = ids.filter(|ids| ids.size(&name) <= sizes::ACCOUNTS);
        self.global.note_account(&name, ids.clone());
        self.put(GLOBAL, Kind::Delta, &Record::Account { name, ids }, &[]);
    }

    /// Records a change of what the network has assigned.
    pub fn note_address(&mut self, record: addressing::Record, anchor: Anchor) {
        self.global.note_address(&record, anchor);
        let record = Record::Address { record, anchor };
        self.put(GLOBAL, Kind::Delta, &record, &[]);
    }

    /// Writes the snapshot of object 0.
    pub fn snapshot_global(&mut self) {
        let record = Record::Global(self.global.clone());
        self.put(GLOBAL, Kind::Snapshot, &record, &[]);
    }

    /// Sets the flag, which names the server that resumes if this one crashes.
    pub fn set_flag(&mut self, flag: Flag) {
        if let Some(log) = self
            .log
            .as_mut()
            .filter(|log| log.superblock().flag != flag)
        {
            log.set_flag(flag);
        }
    }

    /// Makes the last commit: service time ends at `now`, so that an elective reboot loses none of it. Then sets the
    /// flag. `machine_too`: the machine may be switched off next, so both are on the medium when this returns.
    pub fn end(&mut self, now: Duration, flag: Flag, machine_too: bool) {
        self.global.clock_up_to = now;
        if let Some(until) = self.watched.advance(true) {
            self.global.watched_until = until;
        }
        self.snapshot_global();
        if let Some(log) = &mut self.log {
            log.commit();
            if !machine_too {
                log.set_flag(flag);
            } else if let Err(error) = log.persist_with_flag(flag) {
                log.set_flag(flag);
                error!(
                    "{error}: the sessions survive a restart of the server, but not one of the machine"
                );
            }
        }
        self.wait_all_durable();
        if flag == Flag::Clean {
            self.erase();
        }
    }

    /// Overwrites the state, session keys included, since no server will recover it.
    fn erase(&mut self) {
        let Some(log) = &mut self.log else { return };
        log.erase();
        for of in &mut self.homes {
            of.medium.erase(log.erased());
        }
    }

    /// Assigns a connection to an account.
    pub fn belongs(&mut self, conn: u64, owner: Principal) {
        self.owners.insert(conn, owner);
    }

    /// Forgets a connection.
    pub fn forget(&mut self, conn: u64) {
        self.owners.remove(&conn);
        self.wiping.session_ended();
    }

    /// The account of a connection.
    #[must_use]
    pub fn owner(&self, conn: u64) -> &Principal {
        self.owners.get(&conn).unwrap_or(&Principal::Unknown)
    }

    fn id(&mut self) -> u64 {
        if self.next_id == self.global.ids_up_to {
            self.global.ids_up_to += ID_BLOCK;
            let mark = Record::IdsUpTo(self.global.ids_up_to);
            self.put(GLOBAL, Kind::Delta, &mark, &[]);
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

/// State that cannot be recorded must not be shown to a client. The worker ends; the next one continues from the last
/// commit.
fn cannot_append(object: u64, record: &Record<'_>, error: &AppendError) -> ! {
    panic!("object {object}, {}: {error}", record.name());
}

impl outlast_stack::Journal for Journal {
    fn append(&mut self, conn: u64, record: &outlast_stack::Record, data: &[&[u8]]) -> Bytes {
        match record {
            outlast_stack::Record::Opened(tcp) => {
                let record = Record::Client {
                    tcp: Some(Cow::Borrowed(tcp)),
                    smb: None,
                };
                self.put(conn, Kind::Snapshot, &record, data)
            }
            delta => self.put(conn, Kind::Delta, &Record::Tcp(Cow::Borrowed(delta)), data),
        }
    }

    fn room(&self, _conn: u64) -> usize {
        let room = self.log.as_ref().map_or(u64::MAX, Log::room);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    fn unique_id(&mut self) -> u64 {
        self.id()
    }
}

impl outlast_smb::Journal for Journal {
    fn append(&mut self, conn: u64, record: &outlast_smb::Record) {
        use outlast_smb::Record as Smb;
        if matches!(record, Smb::SessionEnded { .. } | Smb::SessionLeft { .. }) {
            self.wiping.session_ended();
        }
        self.put(conn, Kind::Delta, &Record::Smb(Cow::Borrowed(record)), &[]);
    }

    fn unique_id(&mut self) -> u64 {
        self.id()
    }
}

#[cfg(test)]
mod tests;
