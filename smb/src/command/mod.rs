//! The commands. A handler looks at the request and the state and says what comes next ([`Handled`]); it changes state
//! only by [`Context::emit`].
//!
//! For each component of a message the engine calls
//!
//! 1. `start(ctx, request, body)`: answers, or asks for one file operation, or waits. It is called again after a crash,
//!    after a wait and after [`Handled::Again`], and must ask for the same operation in the same state (the intent on
//!    record belongs to it);
//! 2. if it asked for an operation, `finish(ctx, request, body, op, outcome)` with its outcome: answers, waits, or says
//!    `Again`.
//!
//! `Err(status)` answers with that status and the empty error body (MS-SMB2 2.2.2). What an operation does to the rest
//! of the server (share modes, locks, oplocks to break before; the paths of other opens, notifies after) is the
//! engine's business, by kind of [`FileOp`]: checked in `admit`, done before `finish` is called. Handlers make
//! operations and replies.
//!
//! Session, tree, encryption and signature are checked before `start` is called.

pub mod cancel;
pub mod change_notify;
pub mod close;
pub mod create;
pub(crate) mod delete_pending;
pub(crate) mod durable;
pub mod echo;
pub mod flush;
pub mod ioctl;
pub mod lock;
pub mod logoff;
pub mod negotiate;
pub mod oplock_break;
pub mod pipe;
pub mod query_directory;
pub mod query_info;
pub mod read;
pub mod session_setup;
pub mod set_info;
pub mod tree_connect;
pub mod tree_disconnect;
pub mod write;

use crate::context::Context;
use crate::state::Wait;
use crate::wire::{self, Header, error};
use bytes::Bytes;
use outlast_fsa::fileop::{FileOp, Intent, OpenId, Outcome};
use outlast_fsa::status::NtStatus;

/// One component of a message, as a handler sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The header as it came.
    pub header: Header,
    /// SessionId; a related component's is its predecessor's.
    pub session: u64,
    /// TreeId; a related component's is its predecessor's.
    pub tree: u32,
    /// The open of the chain, for a related component whose FileId is all ones.
    pub related_open: Option<OpenId>,
    /// The whole component from the first byte of its header.
    pub bytes: Bytes,
    /// The message came encrypted.
    pub sealed: bool,
    /// The AsyncId of the interim answer, for a request that has waited.
    pub waited: Option<u64>,
    /// The id drawn for this operation before, when it is done again: the open a CREATE makes.
    pub drawn: Option<OpenId>,
    /// The intent on record of the operation under way.
    pub intent: Option<Intent>,
    /// Of a request that is done in several operations: its parts that are done.
    pub parts_done: u32,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status: success, a warning, or an error that has a body.
    pub status: NtStatus,
    /// Body.
    pub response: wire::Response,
    /// The SessionId SESSION_SETUP gives, for the header.
    pub session: Option<u64>,
    /// The TreeId TREE_CONNECT gives, for the header.
    pub tree: Option<u32>,
}

impl Reply {
    /// STATUS_SUCCESS with this body.
    #[must_use]
    pub fn success(response: wire::Response) -> Reply {
        Reply::with_status(NtStatus::SUCCESS, response)
    }

    /// This status (a warning, MORE_PROCESSING_REQUIRED, an error that has a body) with this body.
    #[must_use]
    pub fn with_status(status: NtStatus, response: wire::Response) -> Reply {
        Reply {
            status,
            response,
            session: None,
            tree: None,
        }
    }

    /// A status with the empty error body.
    #[must_use]
    pub fn error(status: NtStatus) -> Reply {
        Reply::with_status(status, wire::Response::Error(error::Response::default()))
    }
}

/// What a handler says comes next.
#[derive(Clone, Debug)]
pub enum Handled {
    /// The answer.
    Reply(Reply),
    /// One file operation; `finish` gets its outcome.
    Op(FileOp),
    /// Not now: the request is parked until this may have come about, then `start` is called again.
    Wait(Wait),
    /// Call `start` again: the state has moved on.
    Again,
    /// So many parts of the request are done: call `start` again, for the next ones.
    PartsDone(u32),
    /// Bytes of another protocol as the answer (SMB1's "no dialect in common").
    Foreign(Vec<u8>),
    /// No answer at all (CANCEL).
    Silent,
    /// The client broke the protocol in a way that ends its connection.
    Drop,
}

/// The first call of a component.
///
/// # Errors
/// The status to answer with.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &wire::Request,
) -> Result<Handled, NtStatus> {
    match body {
        wire::Request::Negotiate(body) => negotiate::start(ctx, request, body),
        wire::Request::SessionSetup(body) => session_setup::start(ctx, request, body),
        wire::Request::Logoff => logoff::start(ctx, request),
        wire::Request::TreeConnect(body) => tree_connect::start(ctx, request, body),
        wire::Request::TreeDisconnect => tree_disconnect::start(ctx, request),
        wire::Request::Create(body) => create::start(ctx, request, body),
        wire::Request::Close(body) => close::start(ctx, request, body),
        wire::Request::Flush(body) => flush::start(ctx, request, body),
        wire::Request::Read(body) => read::start(ctx, request, body),
        wire::Request::Write(body) => write::start(ctx, request, body),
        wire::Request::Lock(body) => lock::start(ctx, request, body),
        wire::Request::Ioctl(body) => ioctl::start(ctx, request, body),
        wire::Request::Cancel => cancel::start(ctx, request),
        wire::Request::Echo => echo::start(),
        wire::Request::ChangeNotify(body) => change_notify::start(ctx, request, body),
        wire::Request::QueryDirectory(body) => query_directory::start(ctx, request, body),
        wire::Request::QueryInfo(body) => query_info::start(ctx, request, body),
        wire::Request::SetInfo(body) => set_info::start(ctx, request, body),
        wire::Request::OplockBreak(body) => oplock_break::start(ctx, request, body),
    }
}

/// The outcome of the operation that `start` asked for.
///
/// # Errors
/// The status to answer with.
pub fn finish(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &wire::Request,
    op: &FileOp,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    match body {
        wire::Request::Logoff => logoff::finish(ctx, op, outcome),
        wire::Request::TreeDisconnect => tree_disconnect::finish(ctx, op, outcome),
        wire::Request::Create(body) => create::finish(ctx, request, body, op, outcome),
        wire::Request::Close(body) => close::finish(ctx, body, op, outcome),
        wire::Request::Flush(_) => flush::finish(outcome),
        wire::Request::Read(body) => read::finish(body, outcome),
        wire::Request::Write(_) => write::finish(outcome),
        wire::Request::ChangeNotify(body) => change_notify::finish(ctx, body, op, outcome),
        wire::Request::Ioctl(body) => ioctl::finish(ctx, request, body, op, outcome),
        wire::Request::QueryDirectory(body) => query_directory::finish(ctx, request, body, outcome),
        wire::Request::QueryInfo(body) => query_info::finish(ctx, request, body, outcome),
        wire::Request::SetInfo(body) => set_info::finish(ctx, request, body, op, outcome),
        // These ask for no operation.
        wire::Request::Negotiate(_)
        | wire::Request::SessionSetup(_)
        | wire::Request::TreeConnect(_)
        | wire::Request::Lock(_)
        | wire::Request::Cancel
        | wire::Request::Echo
        | wire::Request::OplockBreak(_) => Err(NtStatus::INTERNAL_ERROR),
    }
}
