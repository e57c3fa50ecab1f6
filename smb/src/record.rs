//! Defines the records, through which alone the durable state of a connection changes.

mod touched;

pub(crate) use touched::Touched;

use crate::rpc::Pipe;
use crate::state::{
    Answer, Connection, Doing, Durable, Holding, Negotiation, Open, Parked, Related, Resource,
    Security, Session, SessionState, Target, Tree, Wait, Work,
};
use outlast_fsa::fileop::{FileHandle, FileKey, OpenId, ShareId, Times};
use outlast_fsa::lease::Lease;
use outlast_fsa::locks::Lock;
use outlast_fsa::open::{Cursor, FileOpen, Notice, Watch};
use outlast_fsa::oplock::{Breaking, OplockLevel};
use outlast_fsa::status::NtStatus;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// The work that a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WorkId {
    /// The message in progress.
    Message,
    /// The parked request with this AsyncId.
    Parked(u64),
}

/// A change of one connection's durable state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // fields repeat the names in `state`
pub enum Record {
    /// The connection is accepted.
    Connected { client: IpAddr },
    /// The TCP connection has ended: tasks close its opens except durable ones, and its waiting requests are removed.
    Disconnected,
    /// The oldest message has begun.
    Begin,
    /// The server crashed during this work.
    Crashed { work: WorkId },
    /// The server crashed during the close of this open.
    CloseCrashed { open: OpenId },
    /// The message's MessageIds, each with its charge, leave the window.
    Admitted {
        ids: Vec<(u64, u16)>,
        sealed: Option<u64>,
    },
    /// Point 2: an operation's intent.
    Doing { work: WorkId, doing: Doing },
    /// The operation in progress has ended without a response: its component continues.
    Undone { work: WorkId },
    /// The operation in progress has completed this many parts of its component; another operation does the next ones.
    PartsDone { work: WorkId, parts: u32 },
    /// A component is answered, and further ones of its message follow.
    Answered {
        work: WorkId,
        answer: Option<Box<Answer>>,
        related: Related,
        credits: u16,
    },
    /// The whole message is answered.
    Done { work: WorkId, credits: u16 },
    /// A request begins to wait; the work that it was part of is done.
    Parked {
        work: WorkId,
        id: u64,
        parked: Box<Parked>,
        credits: u16,
    },
    /// A waiting request is executed again.
    Running { id: u64 },
    /// It continues to wait.
    Waiting { id: u64, wait: Wait },
    /// A waiting request must end with this status.
    Cancelled { id: u64, status: NtStatus },
    /// NEGOTIATE.
    Negotiated(Box<Negotiation>),
    /// SESSION_SETUP.
    Session { id: u64, security: Box<Security> },
    /// A session has ended: tasks close its opens.
    SessionEnded { id: u64 },
    /// The nonce of one message to the client is used.
    Nonce { session: u64 },
    /// TREE_CONNECT.
    TreeConnected {
        session: u64,
        id: u32,
        tree: Box<Tree>,
    },
    /// The configuration's list of shares has changed: pairs of old and new id.
    SharesMoved { moved: Vec<(ShareId, ShareId)> },
    /// TREE_DISCONNECT: tasks close its opens.
    TreeEnded { session: u64, id: u32 },
    /// CREATE.
    Opened(Box<Open>),
    /// Point 2 of a close by a task.
    Closing { open: OpenId, doing: Doing },
    /// The open is closed.
    Closed { open: OpenId },
    /// The file or one of its parent directories was renamed.
    Moved {
        open: OpenId,
        path: String,
        directory: FileKey,
    },
    /// The delete-pending mark of the stream that is open, with the default stream of the file, is set or cleared.
    DeletePending { open: OpenId, on: bool },
    /// FilePositionInformation, in bytes.
    Position { open: OpenId, position: u64 },
    /// FileModeInformation.
    Mode { open: OpenId, mode: u32 },
    /// QUERY_DIRECTORY.
    Cursor { open: OpenId, cursor: Cursor },
    /// CHANGE_NOTIFY: the watch begins, or its notices have been reported.
    Watch { open: OpenId, watch: Watch },
    /// Changes for a watch.
    Noticed {
        open: OpenId,
        notices: Vec<Notice>,
        overflow: bool,
    },
    /// An oplock granted, broken or acknowledged.
    Oplock {
        open: OpenId,
        level: OplockLevel,
        breaking: Option<Breaking>,
    },
    /// Locks are granted, all together.
    Locked { open: OpenId, locks: Vec<Lock> },
    /// The first lock with this range is released.
    Unlocked {
        open: OpenId,
        offset: u64,
        length: u64,
    },
    /// LOCK's replay detection.
    LockSequence {
        open: OpenId,
        index: u32,
        number: u8,
    },
    /// The state of a pipe after a request.
    Pipe { open: OpenId, pipe: Box<Pipe> },
    /// A file that the file system lost in a power cut was made again, with another key.
    Rekeyed {
        from: FileKey,
        key: FileKey,
        handle: FileHandle,
    },
    /// A piece of a copy of the connection ([`crate::copying`]), as it is now.
    Copied(Box<Piece>),
    /// A tree connect as the present configuration determines it.
    TreeChanged {
        session: u64,
        id: u32,
        tree: Box<Tree>,
    },
    /// The times that operations by an open do not update from now on.
    Stopped { open: OpenId, times: Times },
    /// ChannelSequence of the last request that names an open; the CREATE of the open cannot be replayed any more.
    ChannelSequence { open: OpenId, sequence: u16 },
    /// The state of the lease that an open is part of.
    Lease { open: OpenId, lease: Lease },
    /// A session has ended by LOGOFF, or by a new session in its place (PreviousSessionId): its durable opens are kept,
    /// and tasks close the others.
    SessionLeft { id: u64 },
    /// The timeout of a durable open without a connection begins.
    Detached { open: OpenId, until: Duration },
    /// A task closes a durable open without a connection.
    Orphaned { open: OpenId },
    /// The connection loses a durable open, which another connection has reconnected.
    Released { open: OpenId },
    /// An open survives its connection from now on: its client has requested resiliency.
    Survives { open: OpenId, durable: Durable },
    /// The delete-pending mark of its file is given to an open of a named stream, or taken from it.
    FileDeletePending { open: OpenId, on: bool },
}

/// A piece of the copy of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and boxed")]
pub enum Piece {
    /// The message in progress.
    Work(Work),
    /// A waiting request, by its AsyncId.
    Parked(u64, Parked),
    /// An open.
    Open(Open),
    /// A session, by its SessionId.
    Session(u64, Session),
}

impl Piece {
    fn apply(&self, connection: &mut Connection) {
        match self {
            Piece::Work(work) => connection.work = Some(work.clone()),
            Piece::Parked(id, parked) => drop(connection.parked.insert(*id, parked.clone())),
            Piece::Open(open) => drop(connection.opens.insert(open.id, open.clone())),
            Piece::Session(id, session) => drop(connection.sessions.insert(*id, session.clone())),
        }
    }
}

impl Record {
    /// Applies this record to `connection`. A record that does not fit the state, which only a damaged log contains,
    /// changes nothing.
    pub fn apply(&self, connection: &mut Connection) {
        match self {
            Record::Connected { client } => *connection = Connection::new(*client),
            Record::Disconnected => disconnected(connection),
            Record::Begin => connection.work = Some(Work::default()),
            Record::Crashed { work } => on_work(connection, *work, |work| {
                work.attempts = work.attempts.saturating_add(1)
            }),
            Record::CloseCrashed { open } => {
                if let Some(closing) = connection
                    .opens
                    .get_mut(open)
                    .and_then(|o| o.closing.as_mut())
                {
                    closing.attempts = closing.attempts.saturating_add(1);
                }
            }
            Record::Admitted { ids, sealed } => {
                for (id, charge) in ids {
                    connection.credits.take(*id, *charge);
                }
                on_work(connection, WorkId::Message, |work| {
                    work.admitted = true;
                    work.sealed = *sealed;
                });
            }
            Record::Doing { work, doing } => {
                on_work(connection, *work, |work| work.doing = Some(doing.clone()));
            }
            Record::Undone { work } => on_work(connection, *work, |work| {
                work.doing = None;
                work.attempts = 0;
            }),
            Record::PartsDone { work, parts } => on_work(connection, *work, |work| {
                work.doing = None;
                work.attempts = 0;
                work.parts_done = work.parts_done.saturating_add(*parts);
            }),
            Record::Answered {
                work,
                answer,
                related,
                credits,
            } => {
                connection.credits.grant(*credits);
                on_work(connection, *work, |work| {
                    work.answers.extend(answer.as_deref().cloned());
                    work.related = related.clone();
                    work.next = work.next.saturating_add(1);
                    work.drawn = None;
                    work.doing = None;
                    work.attempts = 0;
                    work.parts_done = 0;
                });
            }
            Record::Done { work, credits } => {
                connection.credits.grant(*credits);
                end_work(connection, *work);
                forget_ended_sessions(connection);
            }
            Record::Parked {
                work,
                id,
                parked,
                credits,
            } => {
                connection.credits.grant(*credits);
                end_work(connection, *work);
                connection.parked.insert(*id, (**parked).clone());
            }
            Record::Running { id } => {
                if let Some(parked) = connection.parked.get_mut(id) {
                    parked.running = true;
                }
            }
            Record::Waiting { id, wait } => {
                if let Some(parked) = connection.parked.get_mut(id) {
                    parked.running = false;
                    parked.wait = *wait;
                    parked.work.attempts = 0;
                }
            }
            Record::Cancelled { id, status } => {
                if let Some(parked) = connection.parked.get_mut(id) {
                    parked.cancelled = Some(*status);
                }
            }
            Record::Negotiated(negotiation) => connection.negotiation = (**negotiation).clone(),
            Record::Session { id, security } => {
                connection.sessions.entry(*id).or_default().security = (**security).clone();
            }
            Record::SessionLeft { id } => {
                let opens = connection.opens.values_mut();
                for open in opens.filter(|open| open.session == *id) {
                    open.lose_connection();
                }
                Record::SessionEnded { id: *id }.apply(connection);
            }
            Record::Detached { open, until } => {
                let open = connection.opens.get_mut(open);
                if let Some(durable) = open.and_then(|open| open.durable.as_mut()) {
                    durable.holding = Holding::Until(*until);
                }
            }
            Record::Orphaned { open } => {
                if let Some(open) = connection.opens.get_mut(open) {
                    open.closing.get_or_insert_default();
                }
            }
            Record::Released { open } => drop(connection.opens.remove(open)),
            Record::Survives { open, durable } => {
                if let Some(open) = connection.opens.get_mut(open) {
                    open.durable = Some(*durable);
                }
            }
            Record::SessionEnded { id } => {
                if let Some(session) = connection.sessions.get_mut(id) {
                    session.security.state = SessionState::Ended;
                    session.security.handshake = None;
                    session.trees.clear();
                }
                orphan(connection, |open| open.session == *id);
                // MS-FSA 2.1.5.5: the close of an open completes its CHANGE_NOTIFY requests.
                cancel(connection, NtStatus::NOTIFY_CLEANUP, |parked| {
                    parked.session == *id && matches!(parked.wait, Wait::Notify(_))
                });
                cancel(connection, NtStatus::USER_SESSION_DELETED, |parked| {
                    parked.session == *id
                });
                forget_ended_sessions(connection);
            }
            Record::Nonce { session } => {
                if let Some(session) = connection.sessions.get_mut(session) {
                    session.nonces += 1;
                }
            }
            Record::TreeConnected { session, id, tree } => {
                if let Some(session) = connection.sessions.get_mut(session) {
                    session.trees.insert(*id, (**tree).clone());
                    session.last_tree = *id;
                }
            }
            Record::SharesMoved { moved } => {
                let now = |share: ShareId| {
                    let found = moved.iter().find(|(before, _)| *before == share);
                    found.map_or(share, |(_, now)| *now)
                };
                let sessions = connection.sessions.values_mut();
                for tree in sessions.flat_map(|session| session.trees.values_mut()) {
                    if let Resource::Disk(share) = &mut tree.resource {
                        *share = now(*share);
                    }
                }
                for open in connection.opens.values_mut() {
                    if let Target::File(_) = open.target {
                        open.actor.share = now(open.actor.share);
                    }
                }
            }
            Record::TreeEnded { session, id } => {
                if let Some(session) = connection.sessions.get_mut(session) {
                    session.trees.remove(id);
                }
                orphan(connection, |open| {
                    open.session == *session && open.tree == *id
                });
                cancel(connection, NtStatus::NOTIFY_CLEANUP, |parked| {
                    parked.session == *session
                        && parked.tree == *id
                        && matches!(parked.wait, Wait::Notify(_))
                });
                cancel(connection, NtStatus::NETWORK_NAME_DELETED, |parked| {
                    parked.session == *session && parked.tree == *id
                });
            }
            Record::Opened(open) => drop(connection.opens.insert(open.id, (**open).clone())),
            Record::Closing { open, doing } => {
                if let Some(open) = connection.opens.get_mut(open) {
                    open.closing.get_or_insert_default().doing = Some(doing.clone());
                }
            }
            Record::Closed { open } => {
                connection.opens.remove(open);
                cancel(connection, NtStatus::NOTIFY_CLEANUP, |parked| {
                    parked.open == Some(*open) && matches!(parked.wait, Wait::Notify(_))
                });
                cancel(connection, NtStatus::PIPE_BROKEN, |parked| {
                    parked.wait == Wait::Pipe(*open)
                });
                cancel(connection, NtStatus::RANGE_NOT_LOCKED, |parked| {
                    parked.open == Some(*open)
                });
            }
            Record::Moved {
                open,
                path,
                directory,
            } => on_file(connection, *open, |file| {
                file.path.clone_from(path);
                file.directory = *directory;
            }),
            Record::DeletePending { open, on } => {
                on_file(connection, *open, |file| file.delete_pending = *on);
            }
            Record::FileDeletePending { open, on } => {
                on_file(connection, *open, |file| file.file_delete_pending = *on);
            }
            Record::Position { open, position } => {
                on_file(connection, *open, |file| file.position = *position);
            }
            Record::Mode { open, mode } => on_file(connection, *open, |file| file.mode = *mode),
            Record::Stopped { open, times } => {
                on_file(connection, *open, |file| file.stopped = *times);
            }
            Record::Cursor { open, cursor } => {
                on_file(connection, *open, |file| file.cursor = cursor.clone());
            }
            Record::Watch { open, watch } => {
                on_file(connection, *open, |file| file.watch = Some(watch.clone()));
            }
            Record::Noticed {
                open,
                notices,
                overflow,
            } => on_file(connection, *open, |file| {
                if let Some(watch) = &mut file.watch {
                    if *overflow {
                        watch.overflow = true;
                        watch.notices.clear();
                    } else {
                        watch.notices.extend(notices.iter().cloned());
                    }
                }
            }),
            Record::Oplock {
                open,
                level,
                breaking,
            } => on_file(connection, *open, |file| {
                file.oplock = *level;
                file.breaking = *breaking;
            }),
            Record::Lease { open, lease } => {
                on_file(connection, *open, |file| file.lease = Some(*lease));
            }
            Record::Locked { open, locks } => {
                on_file(connection, *open, |file| {
                    file.locks.extend_from_slice(locks)
                });
            }
            Record::Unlocked {
                open,
                offset,
                length,
            } => on_file(connection, *open, |file| {
                let found = file
                    .locks
                    .iter()
                    .position(|l| l.offset == *offset && l.length == *length);
                if let Some(at) = found {
                    file.locks.remove(at);
                }
            }),
            Record::LockSequence {
                open,
                index,
                number,
            } => on_file(connection, *open, |file| {
                file.lock_sequences.insert(*index, *number);
            }),
            Record::Pipe { open, pipe } => {
                if let Some(open) = connection.opens.get_mut(open) {
                    open.target = Target::Pipe((**pipe).clone());
                }
            }
            Record::Rekeyed { from, key, handle } => rekey(connection, *from, *key, handle),
            Record::Copied(piece) => piece.apply(connection),
            Record::TreeChanged { session, id, tree } => {
                let session = connection.sessions.get_mut(session);
                if let Some(place) = session.and_then(|session| session.trees.get_mut(id)) {
                    place.clone_from(tree);
                }
            }
            Record::ChannelSequence { open, sequence } => {
                if let Some(open) = connection.opens.get_mut(open) {
                    open.channel_sequence = *sequence;
                    if let Some(create) = &mut open.create {
                        create.is_replay_eligible = false;
                    }
                }
            }
        }
    }
}

fn on_work(connection: &mut Connection, id: WorkId, change: impl FnOnce(&mut Work)) {
    let work = match id {
        WorkId::Message => connection.work.as_mut(),
        WorkId::Parked(id) => connection
            .parked
            .get_mut(&id)
            .map(|parked| &mut parked.work),
    };
    if let Some(work) = work {
        change(work);
    }
}

fn end_work(connection: &mut Connection, id: WorkId) {
    match id {
        WorkId::Message => connection.work = None,
        WorkId::Parked(id) => drop(connection.parked.remove(&id)),
    }
}

fn on_file(connection: &mut Connection, id: OpenId, change: impl FnOnce(&mut FileOpen)) {
    if let Some(Open {
        target: Target::File(file),
        ..
    }) = connection.opens.get_mut(&id)
    {
        change(file);
    }
}

fn rekey(connection: &mut Connection, from: FileKey, to: FileKey, handle: &FileHandle) {
    let mut doings: Vec<&mut Doing> = Vec::new();
    doings.extend(connection.work.iter_mut().flat_map(|work| &mut work.doing));
    for open in connection.opens.values_mut() {
        if let Target::File(file) = &mut open.target {
            if file.key == from {
                file.key = to;
                file.handle = handle.clone();
            }
            if file.directory == from {
                file.directory = to;
            }
        }
        doings.extend(
            open.closing
                .iter_mut()
                .flat_map(|closing| &mut closing.doing),
        );
    }
    for parked in connection.parked.values_mut() {
        if let Wait::Lock(key) | Wait::Break(key) = &mut parked.wait
            && *key == from
        {
            *key = to;
        }
        doings.extend(&mut parked.work.doing);
    }
    let keys = doings.into_iter().flat_map(|doing| doing.intent.keys_mut());
    keys.filter(|key| **key == from).for_each(|key| *key = to);
}

fn orphan(connection: &mut Connection, which: impl Fn(&Open) -> bool) {
    let opens = connection.opens.values_mut();
    for open in opens.filter(|open| which(open) && !open.is_detached()) {
        open.closing.get_or_insert_default();
    }
}

fn cancel(connection: &mut Connection, status: NtStatus, which: impl Fn(&Parked) -> bool) {
    for parked in connection
        .parked
        .values_mut()
        .filter(|parked| which(parked))
    {
        parked.cancelled.get_or_insert(status);
    }
}

fn disconnected(connection: &mut Connection) {
    connection.gone = true;
    for open in connection.opens.values_mut() {
        open.lose_connection();
    }
    connection.sessions.clear();
    // An operation whose intent is on record is redone first, without a response.
    connection.work = connection.work.take().filter(|work| work.doing.is_some());
    connection
        .parked
        .retain(|_, parked| parked.work.doing.is_some());
}

/// Removes ended sessions, but not while a message that may still need their keys is in progress.
fn forget_ended_sessions(connection: &mut Connection) {
    if connection.work.is_some() {
        return;
    }
    let parked = &connection.parked;
    connection.sessions.retain(|id, session| {
        session.security.state != SessionState::Ended
            || parked
                .values()
                .any(|parked| parked.session == *id || parked.work.sealed == Some(*id))
    });
}
