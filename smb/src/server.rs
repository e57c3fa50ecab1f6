//! The server: the durable state of every connection, and the calls of the loop.

use crate::config::Config;
use crate::entropy::Entropy;
use crate::fileop::{
    Actor, Change, FileHandle, FileKey, FileOp, FileTime, Intent, OpenId, Outcome,
};
use crate::record::Record;
use crate::state::{Checkpoint, Connection, FileOpen, Target};
use crate::status::NtStatus;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
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

/// A file operation the loop is to do: `prepare`, [`Smb::admit`], commit, `perform`, [`Smb::complete`]. With an intent, the first
/// two are done already.
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
    /// Nothing is to be performed: call `step` (or `step_task`) again.
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
    /// Which file.
    pub key: FileKey,
    /// Its handle.
    pub handle: FileHandle,
    /// A directory.
    pub is_dir: bool,
    /// GrantedAccess.
    pub granted_access: u32,
    /// Directory watch, and whether it is recursive.
    pub watch: Option<bool>,
}

/// What `outlast status` shows of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnStatus {
    /// "2.0.2" to "3.1.1"; empty before NEGOTIATE.
    pub dialect: String,
    /// Login names of the sessions.
    pub user: String,
    /// "HMAC-SHA256", "AES-CMAC", "AES-GMAC", or "off".
    pub signing: String,
    /// "AES-128-GCM" and so on, or "off".
    pub encryption: String,
    /// Names of the connected shares.
    pub trees: Vec<String>,
    /// Opens.
    pub opens: usize,
    /// Byte-range locks.
    pub locks: usize,
}

/// The server.
pub struct Smb {
    pub(crate) config: Config,
    connections: BTreeMap<ConnId, Connection>,
}

impl Smb {
    /// A server without connections.
    #[must_use]
    pub fn new(config: Config) -> Smb {
        Smb {
            config,
            connections: BTreeMap::new(),
        }
    }

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

    pub(crate) fn emit(&mut self, conn: ConnId, record: Record, journal: &mut dyn Journal) {
        journal.append(conn, &record);
        self.apply(conn, &record);
    }

    /// A connection is accepted.
    pub fn connected(&mut self, conn: ConnId, client: IpAddr, journal: &mut dyn Journal) {
        self.emit(conn, Record::Connected { client }, journal);
    }

    /// Works on the oldest message of this connection that is not consumed (without the 4-byte direct-TCP header). Called again with
    /// the same message until [`Step::Done`].
    pub fn step(
        &mut self,
        _conn: ConnId,
        _message: &Bytes,
        _clock: Clock,
        _entropy: &mut dyn Entropy,
        _journal: &mut dyn Journal,
        _out: &mut Output,
    ) -> Step {
        Step::Idle
    }

    /// A task that may go on now: a request that waited, a close, a break that timed out.
    pub fn next_runnable(&mut self, _clock: Clock) -> Option<Task> {
        None
    }

    /// Works on a task; as [`Smb::step`], the message is in the state.
    pub fn step_task(
        &mut self,
        _task: Task,
        _clock: Clock,
        _entropy: &mut dyn Entropy,
        _journal: &mut dyn Journal,
        _out: &mut Output,
    ) -> Step {
        Step::Idle
    }

    /// What `prepare` found. Share modes, oplocks and locks are looked at; with [`Admit::Go`] the intent is on record.
    pub fn admit(
        &mut self,
        _op: &Planned,
        _prepared: Result<Intent, NtStatus>,
        _clock: Clock,
        _entropy: &mut dyn Entropy,
        _journal: &mut dyn Journal,
        _out: &mut Output,
    ) -> Admit {
        Admit::Done
    }

    /// What came of the operation.
    pub fn complete(
        &mut self,
        _op: &Planned,
        _outcome: Result<Outcome, NtStatus>,
        _clock: Clock,
        _entropy: &mut dyn Entropy,
        _journal: &mut dyn Journal,
        _out: &mut Output,
    ) -> Step {
        Step::Idle
    }

    /// A change of a watched directory that was not made through this server.
    pub fn changed(
        &mut self,
        _change: &Change,
        _clock: Clock,
        _journal: &mut dyn Journal,
        _out: &mut Output,
    ) {
    }

    /// Local changes may have been missed (a recovery): every watch is told to look again.
    pub fn changes_may_be_missed(&mut self, _journal: &mut dyn Journal) {}

    /// The TCP connection is gone. Its opens will be closed by tasks.
    pub fn disconnected(&mut self, conn: ConnId, journal: &mut dyn Journal) {
        if self.connections.contains_key(&conn) {
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
        self.connections.remove(&conn);
    }

    /// When [`Smb::next_runnable`] will have something to do by the passing of time, in service time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        None
    }

    /// The work that was in progress at the end of the log. One operation at most has its intent on record without its result: its
    /// task comes first and is to be stepped before anything else.
    #[must_use]
    pub fn in_progress(&self) -> Vec<Task> {
        Vec::new()
    }

    /// The server died of its own fault (not by an outside SIGKILL) while at this task. At the third time the task is answered with
    /// INTERNAL_ERROR or its connection dropped, instead of being tried again. Returns the deaths counted.
    pub fn felled(&mut self, _task: Task, _journal: &mut dyn Journal) -> u32 {
        0
    }

    /// The durable state of a connection, whole.
    #[must_use]
    pub fn checkpoint(&self, conn: ConnId) -> Option<Checkpoint> {
        self.connections
            .get(&conn)
            .map(|connection| Checkpoint(connection.clone()))
    }

    /// Takes up the durable state of a connection.
    pub fn restore(&mut self, conn: ConnId, checkpoint: Checkpoint) {
        let Checkpoint(connection) = checkpoint;
        self.connections.insert(conn, connection);
    }

    /// The fold.
    pub fn apply(&mut self, conn: ConnId, record: &Record) {
        if let Record::Connected { client } = record {
            self.connections.insert(conn, Connection::new(*client));
            return;
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            record.apply(connection);
        }
    }

    /// Every open file, for the file system to open again.
    pub fn opens(&self) -> impl Iterator<Item = OpenInfo> + '_ {
        std::iter::empty()
    }

    /// This open could not be opened again after a recovery: its requests are answered with FILE_CLOSED from now on.
    pub fn open_lost(&mut self, _conn: ConnId, _open: OpenId, _journal: &mut dyn Journal) {}

    /// For `outlast status`.
    #[must_use]
    pub fn status(&self, _conn: ConnId) -> ConnStatus {
        ConnStatus::default()
    }
}

impl Smb {
    /// The opens of a file, of every connection.
    pub(crate) fn opens_of(
        &self,
        key: FileKey,
    ) -> impl Iterator<Item = (ConnId, OpenId, &FileOpen)> {
        self.connections
            .iter()
            .flat_map(move |(&conn, connection)| {
                connection
                    .opens
                    .values()
                    .filter_map(move |open| match &open.target {
                        Target::File(file) if file.key == key => Some((conn, open.id, file)),
                        _ => None,
                    })
            })
    }
}
