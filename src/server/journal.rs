//! The log as the two cores see it: records of TCP and of SMB go into the same log, under the same object.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use log::error;
use outlast_fsa::fileop::{FileKey, ShareId};
use outlast_nvram::{AppendError, Flag, Handled, Home, Kind, Log, Lsn, Relocation, codec};
use outlast_smb::Principal;

use super::clock::HighWater;
use super::medium::{Medium, Shipping};
use super::record::{GLOBAL, Global, Ids, Record, Root};
use super::sizes;
use super::watched::Watched;
use super::wiping::Wiping;

/// Ids are put on record this many at a time.
const ID_BLOCK: u64 = 4096;

/// Room kept for what a request in hand may append, bytes: its reply (8 MiB and headers) and its records.
pub const REPLY_ROOM: u64 = 10 << 20;

/// Room kept under durability `power` for what it may do to files, bytes: a copy of 16 MiB within the server.
pub const EFFECT_ROOM: u64 = 17 << 20;

/// The log's length divided by this may be replies that wait for clients.
const UNREAD_PART: u64 = 7;

/// The headers of the records that received bytes come in take one part in so many of these bytes. Only tiny segments
/// take more.
const RECORDS_PART: u64 = 16;

/// The log's length divided by this is free beside what is needed before room is made.
const SLACK_PART: u64 = 16;

/// Records and bytes that must survive, on their way into the log.
pub struct Journal {
    /// `None` under durability `none`: nothing is kept.
    log: Option<Log>,
    /// Where the log is shipped to.
    homes: Vec<Shipping>,
    next_id: u64,
    global: Global,
    clock: HighWater,
    /// Until when local changes are known to have been told.
    pub(super) watched: Watched,
    wiping: Wiping,
    /// Encoding space, used again and again.
    meta: Vec<u8>,
    /// Something has been appended since the last commit.
    pending: bool,
    /// Commits that have not been counted yet.
    commits: u64,
    /// Room kept for what a request in hand may append, bytes.
    request_room: u64,
    /// Bytes of replies that may wait for clients, over all connections.
    unread_limit: u64,
    /// Whose connections are, as far as that is known.
    owners: HashMap<u64, Principal>,
}

impl Journal {
    /// A journal that goes on where `global` says the log has come to. `capacity`: bytes of the log's memory; `request_room`: bytes of it
    /// kept for what a request in hand may append.
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
            clock: HighWater::on_record(global.clock_up_to),
            unread_limit: capacity / UNREAD_PART,
            watched: Watched::on_record(global.watched_until),
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

    /// From now on the log is shipped to this home, too. `has_effects`: those that take it up from there do once more
    /// what operations did to files.
    pub fn ship_to(&mut self, home: Home, medium: Box<dyn Medium>, has_effects: bool) {
        self.homes.push(Shipping {
            home,
            medium,
            is_under_way: false,
            has_effects,
        });
    }

    /// The log, to look at.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// What belongs to no connection, as it is on record or about to be.
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
            // The caller has made sure of the room for whatever can wait (`room`, `can_work`). What comes here can not: an
            // acknowledgement taken, a window promised, a reply whose operation is done. It is what the reserve is for.
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

    /// A client waits for time alone to pass: what has passed is put on record now and then.
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

    /// Takes note of what has come to the homes, and has the rest follow.
    pub fn ship(&mut self) {
        if let Some(log) = &mut self.log {
            self.homes.iter_mut().for_each(|home| home.ship(log));
        }
    }

    /// Waits until all that is committed would be found again, as the durability promises.
    pub fn settle(&mut self) {
        while self.durable() < self.committed() {
            self.wait();
        }
    }

    /// The same, and the superblock as it is now.
    fn settle_all(&mut self) {
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

    /// What is on record before this may be shown to anyone.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        let Some(log) = &self.log else {
            return Lsn(u64::MAX);
        };
        let all = self.required().map(|of| of.durable(log));
        all.min().unwrap_or_else(|| log.committed())
    }

    /// The loop is to come back after so long, although nothing wakes it.
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

    /// The partner is to be in step, although the durability does not ask for it; or not any more.
    pub fn want_partner(&mut self, yes: bool) {
        self.homes.iter_mut().for_each(|of| of.medium.want(yes));
    }

    /// The end of what is committed.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        self.log.as_ref().map_or(Lsn(0), Log::committed)
    }

    /// Where the next record will be.
    #[must_use]
    pub fn head(&self) -> Lsn {
        self.log.as_ref().map_or(Lsn(0), Log::head)
    }

    /// Is more than half of the log in use?
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.log
            .as_ref()
            .is_some_and(|log| log.used() > log.capacity() / 2)
    }

    /// Whether there is room for one more request: what it logs, and its reply. `set_aside`: bytes that may be
    /// received meanwhile.
    #[must_use]
    pub fn can_work(&self, set_aside: usize) -> bool {
        self.log.as_ref().is_none_or(|log| {
            log.room() >= self.request_room && log.free() >= self.needed(set_aside)
        })
    }

    /// Bytes that must be free for one more request: in one piece, of which the ring's end may waste another one,
    /// beside what may be received with the headers of its records.
    fn needed(&self, set_aside: usize) -> u64 {
        let set_aside = set_aside as u64;
        2 * self.request_room + set_aside + set_aside / RECORDS_PART
    }

    /// Whether there is room for so many bytes more, besides what a request and what may be received take.
    #[must_use]
    pub fn has_room(&self, set_aside: usize, more: u64) -> bool {
        let log = self.log.as_ref();
        log.is_none_or(|log| log.free() >= self.needed(set_aside) + more)
    }

    /// The object to write again, if there is need: so that the log's tail moves on, or that the next recovery does not take long.
    pub fn wants_relocation(&mut self, set_aside: usize) -> Option<Relocation> {
        let needed = self.needed(set_aside);
        let log = self.log.as_mut()?;
        let slack = log.capacity() / SLACK_PART;
        let piece = (self.request_room + slack).min(log.max_record());
        log.wants_relocation(piece, needed + slack)
    }

    /// The object to write again before a planned end.
    pub fn wants_renewal(&mut self) -> Option<u64> {
        self.log.as_mut()?.wants_renewal()
    }

    /// Records appended so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::records)
    }

    /// Puts on record, outside the log, what is being done: should the worker die of it, the next one knows.
    pub fn handle(&self, handled: Option<Handled>) {
        if let Some(log) = &self.log {
            log.handle(handled);
        }
    }

    /// What those say of that workers died of is done: it does not count any more.
    pub fn acquit(&self, is_done: impl FnOnce(Handled) -> bool) {
        if let Some(log) = &self.log {
            log.acquit(is_done);
        }
    }

    /// How many bytes of replies may wait for clients, over all connections.
    #[must_use]
    pub fn unread_limit(&self) -> u64 {
        self.unread_limit
    }

    /// Is what operations do to files on record, because another kernel may take the log up?
    #[must_use]
    pub fn has_effects(&self) -> bool {
        self.homes.iter().any(|of| of.has_effects)
    }

    /// What is appended between `true` and `false` makes room, and may take the reserve.
    pub fn make_room(&mut self, yes: bool) {
        if let Some(log) = &mut self.log {
            log.use_reserve(yes);
        }
    }

    /// The shares, as object 0 has them when it is next written. Gives those of before.
    pub fn set_roots(&mut self, roots: Vec<Root>) -> Vec<Root> {
        std::mem::replace(&mut self.global.roots, roots)
    }

    /// Puts the directory of a share on record.
    pub fn note_root(&mut self, share: ShareId, key: FileKey) {
        self.put(GLOBAL, Kind::Delta, &Record::Root { share, key }, &[]);
        self.global.note_root(share, key);
    }

    /// Puts on record what the name service has answered about a local account.
    pub fn note_account(&mut self, name: String, ids: Option<Ids>) {
        // One that is too large is asked for again.
        let ids = ids.filter(|ids| ids.size(&name) <= sizes::ACCOUNTS);
        self.global.note_account(&name, ids.clone());
        self.put(GLOBAL, Kind::Delta, &Record::Account { name, ids }, &[]);
    }

    /// Writes object 0 whole.
    pub fn snapshot_global(&mut self) {
        let record = Record::Global(self.global.clone());
        self.put(GLOBAL, Kind::Snapshot, &record, &[]);
    }

    /// Who resumes should this server die, as the log says it.
    pub fn set_flag(&mut self, flag: Flag) {
        if let Some(log) = self
            .log
            .as_mut()
            .filter(|log| log.superblock().flag != flag)
        {
            log.set_flag(flag);
        }
    }

    /// The last commit: service time ends at `now`, so that an elective reboot loses none of it. Then the flag is set. `machine_too`: the
    /// machine may be switched off next, so both are on the medium when this returns.
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
        self.settle_all();
        if flag == Flag::Clean {
            self.erase();
        }
    }

    /// Nobody takes this state up: what it holds, session keys too, is overwritten.
    fn erase(&mut self) {
        let Some(log) = &mut self.log else { return };
        log.erase();
        for of in &mut self.homes {
            of.medium.erase(log.erased());
        }
    }

    /// A connection is on this account now.
    pub fn belongs(&mut self, conn: u64, owner: Principal) {
        self.owners.insert(conn, owner);
    }

    /// A connection is gone.
    pub fn forget(&mut self, conn: u64) {
        self.owners.remove(&conn);
        self.wiping.session_ended();
    }

    /// On whose account a connection is.
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

/// State that cannot be put on record must not be shown to anyone. The worker ends; the next one goes on from the last commit.
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
