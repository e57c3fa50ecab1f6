//! The server: the durable state of every connection, and the calls of the loop.

use crate::accounts::Accounts;
use crate::answered::Answered;
use crate::caching;
use crate::command::close;
use crate::config::Config;
use crate::context::Context;
use crate::engine::{self, Opened};
use crate::entropy::Entropy;
use crate::file_table::FileTable;
use crate::record::{Record, WorkId};
use crate::state::{Checkpoint, Connection, Target, Wait};
use bytes::Bytes;
use outlast_fsa::fileop::{
    Actor, Change, FileHandle, FileKey, FileOp, FileTime, Intent, OpenId, Outcome, ShareId, Times,
};
use outlast_fsa::open::FileOpen;
use outlast_fsa::status::NtStatus;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A client connection, never used again; the log's object id.
pub type ConnId = u64;

/// Where records go, and ids come from; the loop's, over the log.
pub trait Journal {
    /// Appends a record of this connection's object. Never fails: the loop sees to the room.
    fn append(&mut self, conn: ConnId, record: &Record);
    /// An id that has never been used and never will be.
    fn unique_id(&mut self) -> u64;
}

/// The two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Service time: operation since the NVRAM was formatted.
    pub now: Duration,
    /// Wall-clock time.
    pub wall: FileTime,
}

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Task {
    /// The message in progress of this connection.
    Message(ConnId),
    /// A request that waited: its connection and AsyncId.
    Parked(ConnId, u64),
    /// Closing an open whose session, tree or connection has gone.
    Close(ConnId, OpenId),
    /// An oplock break of this open that may have timed out.
    Break(ConnId, OpenId),
}

/// A file operation the loop is to do: `prepare`, [`Smb::admit`], commit, `perform`, [`Smb::complete`]. With an intent,
/// the first two are done already.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it belongs to.
    pub task: Task,
    /// On whose behalf.
    pub actor: Actor,
    /// What to do.
    pub op: FileOp,
    /// The intent on record: the operation is redone.
    pub intent: Option<Intent>,
}

/// What comes next.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one at a time, and the large one is the usual one
pub enum Step {
    /// Do this.
    Op(Planned),
    /// Call again.
    Again,
    /// The message (or task) is done with.
    Done,
    /// Nothing can be done now.
    Idle,
}

/// What [`Smb::admit`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// The intent is on record: commit, then perform.
    Go,
    /// There is nothing to perform: call `step` (or `step_task`) again.
    Done,
    /// The request waits; its message (or task) is done with, as after [`Step::Done`].
    Wait,
}

/// What is to leave the server, once what was appended with it is committed.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Whole final wire messages, the 4-byte direct-TCP header included, in order.
    pub sends: Vec<(ConnId, Vec<Bytes>)>,
    /// Connections to abort; [`Smb::disconnected`] follows.
    pub drop: Vec<ConnId>,
    /// What was answered.
    pub answered: Vec<Answered>,
}

/// An open, for the file system to open again after a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenInfo {
    /// Connection.
    pub conn: ConnId,
    /// Open.
    pub open: OpenId,
    /// On whose behalf.
    pub actor: Actor,
    /// Path beneath the share.
    pub path: String,
    /// Its path if the rename that was under way at the end of the log has been done.
    pub moved_to: Option<String>,
    /// Which file.
    pub key: FileKey,
    /// Its handle.
    pub handle: FileHandle,
    /// A directory.
    pub is_dir: bool,
    /// GrantedAccess.
    pub granted_access: u32,
    /// Times that operations by it do not move.
    pub stopped: Times,
    /// How it watches its directory.
    pub watch: Option<WatchInfo>,
}

/// What a directory watch reports (MS-SMB2 2.2.35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchInfo {
    /// Changes beneath subdirectories, too.
    pub recursive: bool,
    /// FILE_NOTIFY_CHANGE_*.
    pub filter: u32,
}

/// On whose account a client is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// It has not logged in.
    #[default]
    Unknown,
    /// A guest's, or nobody's.
    Guest,
    /// A user's, by the name in lower case.
    User(Arc<str>),
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Principal::Unknown => f.write_str("clients that have not logged in"),
            Principal::Guest => f.write_str("guests"),
            Principal::User(name) => write!(f, "the user {name:?}"),
        }
    }
}

/// The server.
pub struct Smb {
    pub(crate) config: Config,
    pub(crate) connections: BTreeMap<ConnId, Connection>,
    /// Derived from `connections`.
    pub(crate) files: FileTable,
    /// Derived from `connections`.
    pub(crate) accounts: Accounts,
    /// Tasks that something has happened for. Volatile: after a recovery every task is here.
    pub(crate) wake: BTreeSet<(u64, Task)>,
    /// Messages in progress, decrypted and cut. Volatile.
    pub(crate) opened: BTreeMap<Task, Arc<Opened>>,
    /// Logins that failed, by connection. Volatile.
    pub(crate) failed_logins: BTreeMap<ConnId, u32>,
    /// Operations that are refused, without their data, and the status that their request is answered with at the next
    /// step. Finding a refusal may take longer than a turn, so it outlives [`Smb::let_go`]. Volatile.
    pub(crate) refused: BTreeMap<Task, (FileOp, NtStatus)>,
    /// Shares that cannot be connected now. Volatile.
    pub(crate) offline: BTreeSet<ShareId>,
}

impl Smb {
    /// A server without connections.
    #[must_use]
    pub fn new(config: Config) -> Smb {
        Smb {
            config,
            connections: BTreeMap::new(),
            files: FileTable::default(),
            accounts: Accounts::default(),
            wake: BTreeSet::new(),
            opened: BTreeMap::new(),
            failed_logins: BTreeMap::new(),
            refused: BTreeMap::new(),
            offline: BTreeSet::new(),
        }
    }

    /// The directories of these shares are not there: until the next call none of them is connected. Tree connects that
    /// exist stay.
    pub fn set_offline(&mut self, shares: impl IntoIterator<Item = ShareId>) {
        self.offline.clear();
        self.offline.extend(shares);
    }

    /// The state of a connection that is known to be there: the caller's own, or one the index names.
    pub(crate) fn connection(&self, conn: ConnId) -> &Connection {
        &self.connections[&conn]
    }

    /// The connection that has the session with this SessionId.
    pub(crate) fn connection_of_session(&self, session: u64) -> Option<ConnId> {
        self.connections
            .iter()
            .find(|(_, connection)| connection.sessions.contains_key(&session))
            .map(|(conn, _)| *conn)
    }

    /// The file of an open.
    pub(crate) fn file(&self, conn: ConnId, open: OpenId) -> Option<&FileOpen> {
        match &self.connections.get(&conn)?.opens.get(&open)?.target {
            Target::File(file) => Some(file),
            Target::Pipe(_) => None,
        }
    }

    pub(crate) fn emit(&mut self, conn: ConnId, record: Record, journal: &mut dyn Journal) {
        journal.append(conn, &record);
        self.apply(conn, &record);
    }

    /// A connection is accepted.
    pub fn connected(&mut self, conn: ConnId, client: IpAddr, journal: &mut dyn Journal) {
        self.emit(conn, Record::Connected { client }, journal);
    }

    /// Works on the oldest message of this connection that is not consumed (without the 4-byte direct-TCP header).
    /// Called again with the same message until [`Step::Done`], which comes with the records that end it: consume it in
    /// the same commit. An operation that was out at a crash comes again with its intent.
    pub fn step(
        &mut self,
        conn: ConnId,
        message: &Bytes,
        clock: Clock,
        entropy: &mut dyn Entropy,
        journal: &mut dyn Journal,
        out: &mut Output,
    ) -> Step {
        let Some(connection) = self
            .connections
            .get(&conn)
            .filter(|connection| !connection.gone)
        else {
            return Step::Done;
        };
        if connection.work.is_none() {
            // On record before its bytes are looked at: a message that crashes the server must be known (law 5).
            self.let_go(conn);
            self.refused.remove(&Task::Message(conn));
            self.emit(conn, Record::Begin, journal);
            return Step::Again;
        }
        let mut ctx = Context {
            smb: self,
            conn,
            clock,
            entropy,
            journal,
            out,
        };
        engine::advance(&mut ctx, WorkId::Message, Some(message))
    }

    /// A task that may go on now: a request that waited, a close, a break that timed out. Each is given once; step it
    /// until it is [`Step::Done`] or [`Step::Idle`].
    pub fn next_runnable(&mut self, clock: Clock) -> Option<Task> {
        while let Some((_, task)) = self.wake.pop_first() {
            let there = match task {
                Task::Parked(conn, id) => self
                    .connections
                    .get(&conn)
                    .is_some_and(|c| c.parked.contains_key(&id)),
                Task::Close(conn, open) => {
                    let open = self.connections.get(&conn).and_then(|c| c.opens.get(&open));
                    open.is_some_and(|open| open.closing.is_some())
                }
                Task::Message(_) | Task::Break(..) => false,
            };
            if there {
                return Some(task);
            }
        }
        let (deadline, conn, open) = self.files.first_deadline()?;
        (deadline <= clock.now).then_some(Task::Break(conn, open))
    }

    /// The loop leaves off in the middle of a task: it stays runnable.
    pub fn leave_off(&mut self, task: Task) {
        self.wake.insert(task.in_order());
    }

    /// Lets go of the bytes that a connection's message came in. [`Smb::step`] continues with a message of the same
    /// bytes, from what is known by then: a refusal is not looked for again.
    pub fn let_go(&mut self, conn: ConnId) {
        self.opened.remove(&Task::Message(conn));
    }

    /// Does the server still hold bytes that a message came in?
    #[must_use]
    pub fn has_open_message(&self) -> bool {
        let mut tasks = self.opened.keys();
        tasks.any(|task| matches!(task, Task::Message(_)))
    }

    /// Works on a task; as [`Smb::step`], the message is in the state.
    pub fn step_task(
        &mut self,
        task: Task,
        clock: Clock,
        entropy: &mut dyn Entropy,
        journal: &mut dyn Journal,
        out: &mut Output,
    ) -> Step {
        let conn = task.conn();
        let Some(connection) = self.connections.get(&conn) else {
            return Step::Done;
        };
        if let Task::Parked(_, id) = task {
            match connection.parked.get(&id) {
                None => return Step::Done,
                Some(parked) if !parked.running => {
                    self.emit(conn, Record::Running { id }, journal);
                    return Step::Again;
                }
                Some(_) => {}
            }
        }
        let mut ctx = Context {
            smb: self,
            conn,
            clock,
            entropy,
            journal,
            out,
        };
        match task {
            Task::Parked(_, id) => engine::advance(&mut ctx, WorkId::Parked(id), None),
            Task::Close(_, open) => close::step(&mut ctx, open),
            Task::Break(_, open) => {
                caching::timed_out(&mut ctx, open);
                Step::Done
            }
            // Its message is not at hand here.
            Task::Message(_) => Step::Idle,
        }
    }

    /// What `prepare` found. Share modes, oplocks and locks are looked at; with [`Admit::Go`] the intent is on record.
    pub fn admit(
        &mut self,
        op: &Planned,
        prepared: Result<Intent, NtStatus>,
        clock: Clock,
        entropy: &mut dyn Entropy,
        journal: &mut dyn Journal,
        out: &mut Output,
    ) -> Admit {
        let Some((conn, work)) = op.task.work() else {
            return Admit::Done;
        };
        if !self.connections.contains_key(&conn) {
            return Admit::Done;
        }
        let mut ctx = Context {
            smb: self,
            conn,
            clock,
            entropy,
            journal,
            out,
        };
        match work {
            Some(work) => engine::admit(&mut ctx, work, op, prepared),
            None => close::admit(&mut ctx, op, prepared),
        }
    }

    /// What came of the operation.
    pub fn complete(
        &mut self,
        op: &Planned,
        outcome: Result<Outcome, NtStatus>,
        clock: Clock,
        entropy: &mut dyn Entropy,
        journal: &mut dyn Journal,
        out: &mut Output,
    ) -> Step {
        let Some((conn, work)) = op.task.work() else {
            return Step::Done;
        };
        if !self.connections.contains_key(&conn) {
            return Step::Done;
        }
        let mut ctx = Context {
            smb: self,
            conn,
            clock,
            entropy,
            journal,
            out,
        };
        match work {
            Some(work) => engine::complete(&mut ctx, work, op, outcome),
            None => close::complete(&mut ctx, op, outcome),
        }
    }

    /// A change of a watched directory that was not made through this server.
    pub fn changed(
        &mut self,
        change: &Change,
        _clock: Clock,
        journal: &mut dyn Journal,
        _out: &mut Output,
    ) {
        self.publish(change, journal);
    }

    /// The TCP connection is gone: its waiting requests are forgotten, its opens will be closed by tasks. Not while an
    /// operation of it is out: after a recovery what [`Smb::in_progress`] names comes first.
    pub fn disconnected(&mut self, conn: ConnId, journal: &mut dyn Journal) {
        if self
            .connections
            .get(&conn)
            .is_some_and(|connection| !connection.gone)
        {
            self.opened.retain(|task, _| task.conn() != conn);
            self.refused.retain(|task, _| task.conn() != conn);
            self.emit(conn, Record::Disconnected, journal);
        }
    }

    /// Nothing is left of a connection that is gone: the loop may end its object and call [`Smb::forget`].
    #[must_use]
    pub fn drop_ready(&self, conn: ConnId) -> bool {
        self.connections
            .get(&conn)
            .is_none_or(|c| c.gone && c.opens.is_empty())
    }

    /// The object has ended.
    pub fn forget(&mut self, conn: ConnId) {
        self.failed_logins.remove(&conn);
        if let Some(connection) = self.connections.remove(&conn) {
            self.files.remove_all(conn, &connection);
            self.accounts.remove_all(conn);
        }
    }

    /// When [`Smb::next_runnable`] will have something to do by the passing of time, in service time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.files.first_deadline().map(|(deadline, _, _)| deadline)
    }

    /// Whether a connection has any state here.
    #[must_use]
    pub fn knows(&self, conn: ConnId) -> bool {
        self.connections.contains_key(&conn)
    }

    /// The durable state of a connection, whole.
    #[must_use]
    pub fn checkpoint(&self, conn: ConnId) -> Option<Checkpoint> {
        self.connections
            .get(&conn)
            .map(|connection| Checkpoint(connection.clone()))
    }

    /// The first connection from this id on.
    #[must_use]
    pub fn next_from(&self, conn: ConnId) -> Option<ConnId> {
        self.connections.range(conn..).next().map(|(conn, _)| *conn)
    }

    /// The durable state of every connection, to compare with the fold.
    pub fn durable(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.connections
            .iter()
            .map(|(conn, connection)| (*conn, connection))
    }

    /// Takes up the durable state of a connection.
    pub fn restore(&mut self, conn: ConnId, checkpoint: Checkpoint) {
        let Checkpoint(connection) = checkpoint;
        if let Some(before) = self.connections.remove(&conn) {
            self.files.remove_all(conn, &before);
            self.accounts.remove_all(conn);
        }
        self.files.add_all(conn, &connection);
        self.accounts.add_all(conn, &connection);
        self.connections.insert(conn, connection);
    }

    /// The fold.
    pub fn apply(&mut self, conn: ConnId, record: &Record) {
        if let Record::Connected { client } = record {
            self.restore(conn, Checkpoint(Connection::new(*client)));
            return;
        }
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let touched = record.touches();
        self.files.forget(conn, connection, touched);
        self.accounts.forget(conn, connection, touched);
        let key = touched.open.and_then(|open| key_of(connection, open));
        record.apply(connection);
        let key = key.or_else(|| touched.open.and_then(|open| key_of(connection, open)));
        self.files.learn(conn, connection, touched);
        self.accounts.learn(conn, connection, touched);
        self.wake_up(conn, record, key);
    }

    /// Forgets the tasks that something has happened for: a server that only follows another runs none. After the fold
    /// [`Smb::recovered`] finds them.
    pub fn let_sleep(&mut self) {
        self.wake.clear();
    }

    /// Wakes the tasks that this record unblocks.
    fn wake_up(&mut self, conn: ConnId, record: &Record, key: Option<FileKey>) {
        let Some(connection) = self.connections.get(&conn) else {
            return;
        };
        let cancelled = || {
            let parked = connection
                .parked
                .iter()
                .filter(|(_, parked)| parked.cancelled.is_some());
            parked.map(|(id, _)| Task::Parked(conn, *id))
        };
        let waiters = || key.into_iter().flat_map(|key| self.files.waiters(key));
        let awake: Vec<Task> = match record {
            Record::Disconnected
            | Record::SessionEnded { .. }
            | Record::SessionLeft { .. }
            | Record::Orphaned { .. }
            | Record::TreeEnded { .. } => {
                let closing = connection
                    .opens
                    .values()
                    .filter(|open| open.closing.is_some());
                let closing = closing.map(|open| Task::Close(conn, open.id));
                cancelled().chain(closing).collect()
            }
            Record::Closed { .. } => cancelled().chain(waiters()).collect(),
            Record::Unlocked { .. } | Record::Oplock { .. } | Record::Lease { .. } => {
                waiters().collect()
            }
            Record::Noticed { open, .. } => {
                let parked = connection.parked.iter();
                let watching = parked.filter(|(_, parked)| parked.wait == Wait::Notify(*open));
                watching.map(|(id, _)| Task::Parked(conn, *id)).collect()
            }
            Record::Pipe { open, .. } => {
                let parked = connection.parked.iter();
                let reading = parked.filter(|(_, parked)| parked.wait == Wait::Pipe(*open));
                reading.map(|(id, _)| Task::Parked(conn, *id)).collect()
            }
            Record::Cancelled { id, .. } | Record::Running { id } => vec![Task::Parked(conn, *id)],
            Record::Closing { open, .. } => vec![Task::Close(conn, *open)],
            Record::Waiting { id, .. }
            | Record::Done {
                work: WorkId::Parked(id),
                ..
            } => {
                self.wake.remove(&Task::Parked(conn, *id).in_order());
                return;
            }
            _ => return,
        };
        self.wake.extend(awake.into_iter().map(Task::in_order));
    }

    /// Has this client logged in?
    #[must_use]
    pub fn has_session(&self, conn: ConnId) -> bool {
        let connection = self.connections.get(&conn);
        connection.is_some_and(|connection| connection.valid_sessions().next().is_some())
    }

    /// On whose account this client is here.
    #[must_use]
    pub fn principal(&self, conn: ConnId) -> Principal {
        self.accounts.principal(conn)
    }

    /// Bytes of the log that the durable state of a connection takes when it is written whole, at most.
    #[must_use]
    pub fn durable_bytes(&self, conn: ConnId) -> usize {
        self.accounts.of(conn)
    }

    /// The same of all connections together.
    #[must_use]
    pub fn all_durable_bytes(&self) -> usize {
        self.accounts.total()
    }

    /// Where more is held than the limits have room for: the connection with which the server parts, the
    /// largest one of the account that has most. What is left of those that are gone is being closed, and does not
    /// count.
    #[must_use]
    pub fn to_part_with(&self) -> Option<(ConnId, Principal)> {
        let limit = self.config.limits.total.bytes;
        if self.accounts.total() <= limit {
            return None;
        }
        let is_there = |conn| self.connections.get(&conn).is_some_and(|c| !c.gone);
        let mut total = 0;
        let mut accounts: BTreeMap<&Principal, (usize, (usize, ConnId))> = BTreeMap::new();
        for (conn, principal, bytes) in self.accounts.each().filter(|one| is_there(one.0)) {
            total += bytes;
            let (sum, largest) = accounts.entry(principal).or_default();
            *sum += bytes;
            *largest = (*largest).max((bytes, conn));
        }
        let most = accounts.into_iter().max_by_key(|(_, (sum, _))| *sum)?;
        let (principal, (_, (_, conn))) = most;
        (total > limit).then(|| (conn, principal.clone()))
    }

    /// Has this client neither an open nor a request in hand or waiting?
    #[must_use]
    pub fn is_idle(&self, conn: ConnId) -> bool {
        self.connections.get(&conn).is_none_or(|connection| {
            connection.opens.is_empty() && connection.parked.is_empty() && connection.work.is_none()
        })
    }
}

fn key_of(connection: &Connection, open: OpenId) -> Option<FileKey> {
    match &connection.opens.get(&open)?.target {
        Target::File(file) => Some(file.key),
        Target::Pipe(_) => None,
    }
}

impl Task {
    /// Its connection.
    #[must_use]
    pub fn conn(self) -> ConnId {
        let (Task::Message(conn)
        | Task::Parked(conn, _)
        | Task::Close(conn, _)
        | Task::Break(conn, _)) = self;
        conn
    }

    /// Ids are never used again and grow, so this is the order of arrival.
    pub(crate) fn in_order(self) -> (u64, Task) {
        match self {
            Task::Message(_) => (0, self),
            Task::Parked(_, id) | Task::Close(_, id) | Task::Break(_, id) => (id, self),
        }
    }

    /// Which work of its connection it is; `Some((_, None))`: none, a close.
    pub(crate) fn work(self) -> Option<(ConnId, Option<WorkId>)> {
        match self {
            Task::Message(conn) => Some((conn, Some(WorkId::Message))),
            Task::Parked(conn, id) => Some((conn, Some(WorkId::Parked(id)))),
            Task::Close(conn, _) => Some((conn, None)),
            Task::Break(..) => None,
        }
    }
}
