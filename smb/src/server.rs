//! Holds the durable state of every connection, and offers the calls for the server's loop.

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
use outlast_fsa::Pieces;
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

/// Identifies a client connection and is never reused; the log's object id.
pub type ConnId = u64;

/// The destination of records and the source of ids, which the loop implements over the log.
pub trait Journal {
    /// Appends a record of this connection's object. Never fails: the loop ensures room.
    fn append(&mut self, conn: ConnId, record: &Record);
    /// Returns an id that is used once ever.
    fn unique_id(&mut self) -> u64;
}

/// Service time and wall-clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Service time: the time of operation since the log was formatted.
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
    /// The close of an open whose session, tree connect or connection has ended.
    Close(ConnId, OpenId),
    /// A break or durable timeout of this open that may have expired.
    Break(ConnId, OpenId),
}

/// A file operation that the loop must perform: `prepare`, [`Smb::admit`], commit, `perform`, [`Smb::complete`]. With
/// an intent, the first two are already done.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The task that it belongs to.
    pub task: Task,
    /// The account and share that it is performed for.
    pub actor: Actor,
    /// The operation.
    pub op: FileOp,
    /// The intent on record, if the operation is redone.
    pub intent: Option<Intent>,
}

/// The next step of a task.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one at a time, and the large one is the usual one
pub enum Step {
    /// Perform this operation.
    Op(Planned),
    /// Call again.
    Again,
    /// The message (or task) is finished.
    Done,
    /// No progress is possible now.
    Idle,
}

/// The result of [`Smb::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// The intent is on record: commit, then perform.
    Go,
    /// Nothing must be performed: call `step` (or `step_task`) again.
    Done,
    /// The request waits; its message (or task) is finished, as after [`Step::Done`].
    Wait,
}

/// The output that may leave the server once the records appended with it are committed.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Whole final wire messages, the 4-byte direct-TCP header included, in order.
    pub sends: Vec<(ConnId, Vec<Bytes>)>,
    /// Connections to abort; [`Smb::disconnected`] follows.
    pub drop: Vec<ConnId>,
    /// The responses that were made.
    pub answered: Vec<Answered>,
}

/// An open that the file system must reopen after a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenInfo {
    /// Connection.
    pub conn: ConnId,
    /// Open.
    pub open: OpenId,
    /// The account and share that it is performed for.
    pub actor: Actor,
    /// Path beneath the share.
    pub path: String,
    /// Its path if the rename in progress at the end of the log was performed.
    pub moved_to: Option<String>,
    /// Which file.
    pub key: FileKey,
    /// Its handle.
    pub handle: FileHandle,
    /// A directory.
    pub is_dir: bool,
    /// GrantedAccess.
    pub granted_access: u32,
    /// The times that operations by it do not update.
    pub stopped: Times,
    /// Its directory watch.
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

/// The account that a client's resources are charged to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// It has not logged in.
    #[default]
    Unknown,
    /// A guest or an anonymous login.
    Guest,
    /// A user, by the name in lower case.
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
    /// Tasks that can make progress. Volatile: after a recovery it contains every task.
    pub(crate) wake: BTreeSet<(u64, Task)>,
    /// Messages in progress, decrypted and split into components. Volatile.
    pub(crate) opened: BTreeMap<Task, Arc<Opened>>,
    /// The number of failed logins, by connection. Volatile.
    pub(crate) failed_logins: BTreeMap<ConnId, u32>,
    /// Refused operations, without their data, and the status with which the next step answers. A refusal may take
    /// longer than a turn to find, so it survives [`Smb::release_message`]. Volatile.
    pub(crate) refused: BTreeMap<Task, (FileOp, NtStatus)>,
    /// Shares whose directories are unavailable. Volatile.
    pub(crate) offline: BTreeSet<ShareId>,
}

impl Smb {
    /// Makes a server without connections.
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

    /// Sets the shares whose directories are unavailable: TREE_CONNECT to them fails until the next call. Existing tree
    /// connects remain.
    pub fn set_offline(&mut self, shares: impl IntoIterator<Item = ShareId>) {
        self.offline.clear();
        self.offline.extend(shares);
    }

    /// Returns the state of a connection that is known to exist: the caller's own, or one from the index.
    pub(crate) fn connection(&self, conn: ConnId) -> &Connection {
        &self.connections[&conn]
    }

    /// Returns the connection of the session with this SessionId.
    pub(crate) fn connection_of_session(&self, session: u64) -> Option<ConnId> {
        self.connections
            .iter()
            .find(|(_, connection)| connection.sessions.contains_key(&session))
            .map(|(conn, _)| *conn)
    }

    /// Returns the file of an open.
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

    /// Adds an accepted connection.
    pub fn connected(&mut self, conn: ConnId, client: IpAddr, journal: &mut dyn Journal) {
        self.emit(conn, Record::Connected { client }, journal);
    }

    /// Executes the oldest unconsumed message of this connection (without the 4-byte direct-TCP header). The loop calls
    /// it again with the same message until [`Step::Done`], which comes with the records that end the message: it is
    /// consumed in the same commit. An operation that was interrupted by a crash is returned again, with its intent.
    pub fn step(
        &mut self,
        conn: ConnId,
        message: &Pieces,
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
            // The message is on record before it is parsed, so that one that crashes the server is recognized (law 5).
            self.release_message(conn);
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

    /// Returns a task that can make progress: a waiting request, a close, an expired break. Each is returned once; step
    /// it until [`Step::Done`] or [`Step::Idle`].
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

    /// Keeps a task runnable that the loop interrupts.
    pub fn keep_runnable(&mut self, task: Task) {
        self.wake.insert(task.in_order());
    }

    /// Releases the buffer of a connection's message. [`Smb::step`] continues with an equal message, and remembers a
    /// refusal.
    pub fn release_message(&mut self, conn: ConnId) {
        self.opened.remove(&Task::Message(conn));
    }

    /// Returns whether the server still references the buffer of a message.
    #[must_use]
    pub fn has_open_message(&self) -> bool {
        let mut tasks = self.opened.keys();
        tasks.any(|task| matches!(task, Task::Message(_)))
    }

    /// Executes a task as [`Smb::step`] does; its message is in the state.
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
            // Its message is in the TCP stream: the loop calls `step` for it.
            Task::Message(_) => Step::Idle,
        }
    }

    /// Processes the result of `prepare`: checks share modes, oplocks and locks. With [`Admit::Go`] the intent is on
    /// record.
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

    /// Processes the result of the operation.
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

    /// Reports a change in a watched directory that was not made through this server.
    pub fn changed(
        &mut self,
        change: &Change,
        _clock: Clock,
        journal: &mut dyn Journal,
        _out: &mut Output,
    ) {
        self.publish(change, journal);
    }

    /// Ends a connection whose TCP connection has ended: removes its waiting requests, and lets tasks close its opens.
    /// Must not be called during an operation of it: after a recovery the tasks of [`Smb::in_progress`] come first.
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

    /// Returns whether no state remains of an ended connection: the loop may end its object and call [`Smb::forget`].
    #[must_use]
    pub fn drop_ready(&self, conn: ConnId) -> bool {
        self.connections
            .get(&conn)
            .is_none_or(|c| c.gone && c.opens.is_empty())
    }

    /// Removes a connection whose object has ended.
    pub fn forget(&mut self, conn: ConnId) {
        self.failed_logins.remove(&conn);
        if let Some(connection) = self.connections.remove(&conn) {
            self.files.remove_all(conn, &connection);
            self.accounts.remove_all(conn);
        }
    }

    /// Returns the service time at which [`Smb::next_runnable`] has a task with an expired deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.files.first_deadline().map(|(deadline, _, _)| deadline)
    }

    /// Returns whether the server has state of a connection.
    #[must_use]
    pub fn knows(&self, conn: ConnId) -> bool {
        self.connections.contains_key(&conn)
    }

    /// Returns the whole durable state of a connection.
    #[must_use]
    pub fn checkpoint(&self, conn: ConnId) -> Option<Checkpoint> {
        self.connections
            .get(&conn)
            .map(|connection| Checkpoint(connection.clone()))
    }

    /// Returns the first connection with this id or a higher one.
    #[must_use]
    pub fn next_from(&self, conn: ConnId) -> Option<ConnId> {
        self.connections.range(conn..).next().map(|(conn, _)| *conn)
    }

    /// Iterates over the durable state of every connection, for comparison with the fold.
    pub fn durable(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.connections
            .iter()
            .map(|(conn, connection)| (*conn, connection))
    }

    /// Restores the durable state of a connection.
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

    /// Applies a record to the state and updates the indexes.
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

    /// Clears the tasks to run: a server that only follows another runs none. After the fold [`Smb::recovered`] finds
    /// them.
    pub fn clear_wakeups(&mut self) {
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

    /// Returns whether this client has a valid session.
    #[must_use]
    pub fn has_session(&self, conn: ConnId) -> bool {
        let connection = self.connections.get(&conn);
        connection.is_some_and(|connection| connection.valid_sessions().next().is_some())
    }

    /// Returns the account that this client's resources are charged to.
    #[must_use]
    pub fn principal(&self, conn: ConnId) -> Principal {
        self.accounts.principal(conn)
    }

    /// Returns an upper bound of the bytes of the log that the whole durable state of a connection takes.
    #[must_use]
    pub fn durable_bytes(&self, conn: ConnId) -> usize {
        self.accounts.of(conn)
    }

    /// Returns the same bound for all connections together.
    #[must_use]
    pub fn all_durable_bytes(&self) -> usize {
        self.accounts.total()
    }

    /// Returns the connection to close if the durable state exceeds the limit: the largest one of the account with the
    /// most bytes. An ended connection does not count, unless it has left opens for a reconnect
    /// ([`Smb::close_detached`]): others are being closed.
    #[must_use]
    pub fn to_part_with(&self) -> Option<(ConnId, Principal)> {
        let limit = self.config.limits.total.bytes;
        if self.accounts.total() <= limit {
            return None;
        }
        let has_state = |connection: &Connection| {
            !connection.gone || connection.opens.values().any(|open| open.is_detached())
        };
        let is_there = |conn| self.connections.get(&conn).is_some_and(has_state);
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

    /// Returns whether this client has neither opens nor requests in progress or waiting.
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
    /// Returns its connection.
    #[must_use]
    pub fn conn(self) -> ConnId {
        let (Task::Message(conn)
        | Task::Parked(conn, _)
        | Task::Close(conn, _)
        | Task::Break(conn, _)) = self;
        conn
    }

    /// Returns a key that sorts tasks by arrival: ids grow and are never reused.
    pub(crate) fn in_order(self) -> (u64, Task) {
        match self {
            Task::Message(_) => (0, self),
            Task::Parked(_, id) | Task::Close(_, id) | Task::Break(_, id) => (id, self),
        }
    }

    /// Returns the connection and its work; `Some((_, None))`: a close, which is not a work.
    pub(crate) fn work(self) -> Option<(ConnId, Option<WorkId>)> {
        match self {
            Task::Message(conn) => Some((conn, Some(WorkId::Message))),
            Task::Parked(conn, id) => Some((conn, Some(WorkId::Parked(id)))),
            Task::Close(conn, _) => Some((conn, None)),
            Task::Break(..) => None,
        }
    }
}
