//! Computes an upper bound of the bytes of the log that a connection's durable state takes, part by part, so that each
//! record updates only the parts that it touches. Every field is named here: a new one does not compile before it is
//! counted.
//!
//! An integer is encoded in as few bytes as its value needs, at most one more than its own width; a length as an
//! integer.

use crate::command::session_setup;
use crate::config::Limits;
use crate::engine::receive;
use crate::rpc::Pipe;
use crate::state::{
    Answer, Closing, Connection, CreateId, Credits, Doing, Durable, Open, Parked, Related,
    Security, Session, SessionState, Target, Tree, Work,
};
use crate::wire::{compound, frame};
use crate::{engine, ioctl};
use outlast_fsa::fileop::{Actor, CreateIntent, FileHandle, Intent};
use outlast_fsa::lease::Lease;
use outlast_fsa::locks::Lock;
use outlast_fsa::notify;
use outlast_fsa::open::{Cursor, FileOpen, Notice, Watch};
use outlast_fsa::oplock::Breaking;
use outlast_fsa::path;

const U64: usize = 9;
const U32: usize = 5;
const U16: usize = 3;
const FLAG: usize = 1;
/// A `FileKey`.
const KEY: usize = 3 * U64;
/// A `Metadata`.
const METADATA: usize = KEY + 6 * U64 + 2 * U32 + FLAG;
/// A header, and whether it is signed.
const HEADER: usize = 3 * U16 + 3 * U32 + 2 * U64 + (1 + 2 * U32) + 16 + FLAG;
/// The names that NEGOTIATE selects: the longest variant bounds them all.
const NEGOTIATION: usize = 2 + FLAG + 16 + 2 * U32 + 2 * U16 + 2 + 2 + PREAUTH;
/// An optional preauthentication hash.
const PREAUTH: usize = 1 + 1 + 64;
/// Three optional keys of at most 32 bytes, each with its algorithm.
const KEYS: usize = 1 + 3 * (1 + 1 + 1 + 32);
/// The optional fingerprint of a password, 16 bytes.
const PASSWORD: usize = 1 + 1 + 16;
/// A byte-range lock.
pub(crate) const LOCK: usize = 2 * U64 + FLAG;
/// A lock sequence.
const LOCK_SEQUENCE: usize = U32 + 1;
/// The longest file name of the operating system, in bytes (NAME_MAX), with its length.
const NAME: usize = 255 + U16;
/// Overhead of a part in a snapshot: the log's record header and the part's id.
const PART: usize = 64;
/// The TCP half of a connection, without its queued bytes, which are accounted elsewhere.
const TCP: usize = 512;

/// A tree connect, whose share name has at most 80 characters.
const LARGEST_TREE: usize = 2 * U32 + (1 + U32) + FLAG + U64 + (U16 + 4 * 80);

/// A few flags and tags.
pub(crate) const SMALL: usize = 8;
/// A new open, without its name.
pub(crate) const OPENING: usize = 960;
/// A new session.
pub(crate) const SESSION: usize = 4096;
/// A SESSION_SETUP in progress: parts of two tokens, and a challenge.
pub(crate) const SETUP: usize = 2560;
/// A waiting request, without its message and its answers.
pub(crate) const WAITING: usize = 512;

/// Returns the size of a string or a sequence of bytes.
pub(crate) fn bytes(bytes: impl AsRef<[u8]>) -> usize {
    let len = bytes.as_ref().len();
    let prefix = match len {
        0..=250 => 1,
        251..=0xFFFF => U16,
        _ => U64,
    };
    prefix + len
}

fn text(text: Option<&String>) -> usize {
    1 + text.map_or(0, bytes)
}

/// Returns the size of the frame of a connection: all but its opens, its waiting requests and its sessions that have
/// not ended.
pub(crate) fn shell(connection: &Connection) -> usize {
    let Connection {
        client: _,
        gone: _,
        negotiation: _,
        credits,
        sessions,
        opens: _,
        work,
        parked: _,
    } = connection;
    let ended = sessions.values().filter(|session| is_over(session));
    let ended: usize = ended.map(|ended| U64 + session_content(ended)).sum();
    let address = 1 + 16;
    let lengths = 3 * U64;
    let work = work.as_ref().map_or(0, self::work);
    let all = address + FLAG + NEGOTIATION + self::credits(credits) + ended + lengths + 1 + work;
    PART + TCP + all
}

fn credits(credits: &Credits) -> usize {
    let Credits {
        low: _,
        high: _,
        used,
    } = credits;
    3 * U64 + used.len() * U64
}

fn is_over(session: &Session) -> bool {
    session.security.state == SessionState::Ended
}

/// Returns the size of a session; an ended one is part of the frame.
pub(crate) fn session(session: &Session) -> usize {
    match is_over(session) {
        true => 0,
        false => PART + U64 + session_content(session),
    }
}

fn session_content(session: &Session) -> usize {
    let Session {
        security,
        trees,
        nonces: _,
        last_tree: _,
    } = session;
    let trees: usize = trees.values().map(tree).sum();
    self::security(security) + U64 + trees + U64 + U32
}

fn security(security: &Security) -> usize {
    let Security {
        state: _,
        user,
        password: _,
        guest: _,
        anonymous: _,
        signing_required: _,
        encrypt: _,
        raised: _,
        keys: _,
        preauth: _,
        handshake,
    } = security;
    let handshake = handshake.as_ref().map_or(0, crate::auth::Handshake::size);
    1 + text(user.as_ref()) + PASSWORD + 5 * FLAG + KEYS + PREAUTH + 1 + handshake
}

/// A tree connect.
pub(crate) fn tree(tree: &Tree) -> usize {
    let Tree {
        resource: _,
        name,
        maximal_access: _,
        encrypt: _,
        directory: _,
    } = tree;
    U32 + (1 + U32) + bytes(name) + U32 + FLAG + U64
}

/// An open.
pub(crate) fn open(open: &Open) -> usize {
    let Open {
        id: _,
        session: _,
        tree: _,
        actor: Actor { share: _, user },
        granted_access: _,
        channel_sequence: _,
        target,
        closing,
        durable: _,
        create: _,
    } = open;
    let target = match target {
        Target::File(file) => self::file(file),
        Target::Pipe(pipe) => pipe.size(),
    };
    let actor = U32 + text(user.as_ref());
    let ids = 3 * U64 + 2 * U32 + U16;
    let kept = size_of_durable() + size_of_create();
    PART + ids + actor + 1 + target + self::closing(closing.as_ref()) + kept
}

/// Returns the size of `Durable`.
const fn size_of_durable() -> usize {
    let _ = |Durable {
                 survival: _,
                 timeout: _,
                 holding: _,
             }: Durable| ();
    const TIME: usize = U64 + U32;
    1 + 1 + TIME + (1 + TIME)
}

/// The CreateGuid of its CREATE, and what its replay is answered with.
const fn size_of_create() -> usize {
    let _ = |CreateId {
                 guid: _,
                 action: _,
                 is_replay_eligible: _,
             }: CreateId| ();
    1 + 16 + 1 + 1
}

/// Returns the size of `Closing`. It is accounted when the open is made, because a close must not be refused.
fn closing(closing: Option<&Closing>) -> usize {
    const DELETES: usize = 1 + U64 + 1 + METADATA + 1 + U64;
    let doing = closing.map_or(0, |closing| {
        let Closing { doing, attempts: _ } = closing;
        1 + doing.as_ref().map_or(0, self::doing)
    });
    1 + DELETES.max(doing) + U32
}

fn file(file: &FileOpen) -> usize {
    let FileOpen {
        key: _,
        handle,
        path,
        directory: _,
        is_dir: _,
        share_access: _,
        create_options: _,
        delete_on_close: _,
        delete_pending: _,
        file_delete_pending: _,
        position: _,
        mode: _,
        stopped: _,
        cursor,
        watch,
        oplock: _,
        breaking: _,
        lease: _,
        locks,
        lock_sequences,
    } = file;
    let FileHandle {
        kind: _,
        bytes: handle,
    } = handle;
    const BREAKING: usize = 1 + size_of_breaking();
    2 * KEY
        + U32
        + bytes(handle)
        + bytes(path)
        + 4 * FLAG
        + 2 * U32
        + U64
        + U32
        + 3 * FLAG
        + self::cursor(cursor)
        + 1
        + watch.as_ref().map_or(0, self::watch)
        + 1
        + BREAKING
        + size_of_lease()
        + U64
        + locks.len() * LOCK
        + U64
        + lock_sequences.len() * LOCK_SEQUENCE
}

/// A level, and a time in seconds and nanoseconds.
const fn size_of_breaking() -> usize {
    let _ = |Breaking { to: _, deadline: _ }: Breaking| ();
    let _ = |Lock {
                 offset: _,
                 length: _,
                 exclusive: _,
             }: Lock| ();
    1 + U64 + U32
}

/// A lease: ids, version, state, and a break that may be under way.
const fn size_of_lease() -> usize {
    let _ = |Lease {
                 id: _,
                 version: _,
                 state: _,
                 breaking: _,
             }: Lease| ();
    const BREAK: usize = 2 + U64 + U32;
    1 + 2 * 16 + (1 + U16 + 1 + 16) + 1 + (1 + BREAK)
}

/// Returns the size of a listing's position. The last name is accounted when the listing begins.
pub(crate) fn cursor(cursor: &Cursor) -> usize {
    let Cursor {
        pattern,
        after,
        finished: _,
        returned: _,
    } = cursor;
    let after = text(after.as_ref());
    let after = match pattern {
        Some(_) => after.max(1 + NAME),
        None => after,
    };
    text(pattern.as_ref()) + after + FLAG + U64
}

fn watch(watch: &Watch) -> usize {
    let Watch {
        filter: _,
        recursive: _,
        most: _,
        notices,
        overflow: _,
    } = watch;
    WATCH + notices.iter().map(notice).sum::<usize>()
}

/// A directory watch without notices.
pub(crate) const WATCH: usize = 2 * U32 + FLAG + U64 + FLAG;

/// A notice.
pub(crate) fn notice(notice: &Notice) -> usize {
    let Notice { action: _, name } = notice;
    U32 + bytes(name)
}

/// A request that waits.
pub(crate) fn parked(parked: &Parked) -> usize {
    let Parked {
        message,
        work,
        message_id: _,
        session: _,
        tree: _,
        open: _,
        interim: _,
        wait: _,
        cancelled: _,
        running: _,
    } = parked;
    let ids = 2 * U64 + U32 + (1 + U64);
    let wait = 1 + KEY;
    let rest = FLAG + wait + (1 + U32) + FLAG;
    PART + U64 + bytes(message) + self::work(work) + ids + rest
}

/// Returns the size of a message's progress.
pub(crate) fn work(work: &Work) -> usize {
    let Work {
        attempts: _,
        admitted: _,
        sealed: _,
        next: _,
        answers,
        related,
        drawn: _,
        doing,
        parts_done: _,
    } = work;
    let Related {
        session: _,
        tree: _,
        open: _,
        failed: _,
    } = related;
    let related = U64 + U32 + (1 + U64) + (1 + U32);
    let answers: usize = answers.iter().map(answer).sum();
    let doing = doing.as_ref().map_or(0, self::doing);
    let ids = 2 * (1 + U64);
    3 * U32 + FLAG + ids + U64 + answers + related + 1 + doing
}

/// Returns the size of the answer to one component.
pub(crate) fn answer(answer: &Answer) -> usize {
    let Answer {
        header: _,
        sign: _,
        body,
    } = answer;
    answer_of(body.len())
}

/// Returns the size of an answer whose body has this many bytes.
pub(crate) fn answer_of(body: usize) -> usize {
    HEADER + U64 + body
}

fn doing(doing: &Doing) -> usize {
    let Doing { id: _, intent } = doing;
    U64 + self::intent(intent)
}

fn intent(intent: &Intent) -> usize {
    1 + match intent {
        Intent::None => 0,
        Intent::Create(CreateIntent {
            path,
            directory: _,
            existing: _,
            base: _,
            maximal_access: _,
        }) => bytes(path) + KEY + 2 * (1 + METADATA) + U32,
        Intent::Write { offset: _ } => U64,
        Intent::Rename {
            source: _,
            is_dir: _,
            from,
            to,
            replaced: _,
        } => KEY + FLAG + bytes(from) + bytes(to) + 1 + KEY,
        Intent::RenameStream { to, data } => bytes(to) + bytes(data),
        Intent::Close {
            metadata: _,
            digest: _,
        } => METADATA + 1 + U64,
        Intent::CopyChunks { source } => U64 + source.iter().map(bytes).sum::<usize>(),
        Intent::Keeping { times: _, intent } => 2 * (1 + U64) + self::intent(intent),
    }
}

/// Bounds on the length of records, in bytes, that follow from the limits.
impl Limits {
    /// Returns a bound of a delta of a connection's state: an answer that is kept, the intent of a copy, a request that
    /// begins to wait, locks.
    #[must_use]
    pub fn largest_delta(&self) -> usize {
        let answered = answer_of(frame::MAX_MESSAGE) + WAITING;
        let intent = 2 * ioctl::MAX_CHUNK_BYTES as usize + WAITING;
        let parked = engine::MAX_WAITING + 2 * WAITING;
        let locked = PART + self.locks * LOCK;
        [answered, intent, parked, locked, Pipe::LARGEST]
            .into_iter()
            .max()
            .unwrap_or_default()
    }

    /// Returns a bound of the durable state of an unauthenticated client.
    #[must_use]
    pub fn largest_unauthenticated(&self) -> usize {
        let credits = usize::from(self.credits) / 4;
        let answers = receive::MAX_BEFORE_LOGIN * answer_of(512);
        let setups = session_setup::SETUPS * SETUP;
        PART + TCP + NEGOTIATION + credits + answers + setups + WAITING
    }

    /// Returns a bound of a part of a snapshot: the frame of a connection, a session, an open or a waiting request.
    #[must_use]
    pub fn largest_part(&self) -> usize {
        let answers = frame::MAX_MESSAGE + compound::MAX_COMPONENTS * answer_of(0);
        let credits = usize::from(self.credits) / 4 + WAITING;
        let intent = 2 * ioctl::MAX_CHUNK_BYTES as usize;
        let ended = self.sessions * SESSION;
        let frame = PART + TCP + NEGOTIATION + credits + ended + answers + intent + WAITING;
        let session = SESSION + self.trees * LARGEST_TREE;
        let notices = notify::MAX_NOTICES * (U32 + U16 + path::MAX_PATH);
        let file =
            OPENING + path::MAX_PATH + self.locks * LOCK + notices + 4 * NAME + 64 * LOCK_SEQUENCE;
        let parked = engine::MAX_WAITING + answers + 2 * WAITING;
        [frame, session, file, parked, OPENING + Pipe::LARGEST]
            .into_iter()
            .max()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
