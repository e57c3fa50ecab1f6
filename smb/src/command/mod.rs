//! Executes commands by their handlers. A handler reads the request and the state and returns the next action
//! ([`Handled`]); it changes state only by [`Context::emit`].
//!
//! For each component of a message the engine calls:
//!
//! 1. `start(ctx, request, body)`, which answers, requests one file operation, or waits. It is called again after a
//!    crash, after a wait and after [`Handled::Again`], and must request the same operation in the same state (the
//!    intent on record belongs to it);
//! 2. after an operation, `finish(ctx, request, body, op, outcome)` with its outcome, which answers, waits, or returns
//!    `Again`.
//!
//! `Err(status)` answers with that status and the empty error body (MS-SMB2 2.2.2). The engine handles what an
//! operation means for other opens, by kind of [`FileOp`]: `admit` checks share modes and locks and breaks oplocks;
//! paths of other opens and notifications follow before `finish` is called. Handlers make operations and replies.
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
use outlast_fsa::Pieces;
use outlast_fsa::fileop::{FileOp, Intent, OpenId, Outcome};
use outlast_fsa::status::NtStatus;

/// One component of a message, in the form that handlers take.
#[derive(Clone, Debug)]
pub struct Request {
    /// The header as received.
    pub header: Header,
    /// SessionId; a related component's is its predecessor's.
    pub session: u64,
    /// TreeId; a related component's is its predecessor's.
    pub tree: u32,
    /// The open of the chain, for a related component whose FileId is all ones.
    pub related_open: Option<OpenId>,
    /// The component from the first byte of its header; of a WRITE that arrived in pieces, without its data.
    pub bytes: Bytes,
    /// What follows `bytes`, as in [`Component`](wire::Component).
    pub rest: Pieces,
    /// The message was encrypted.
    pub sealed: bool,
    /// The AsyncId of the interim response, for a request that has waited.
    pub waited: Option<u64>,
    /// The id drawn before, if the operation is repeated: that of the open that a CREATE makes.
    pub drawn: Option<OpenId>,
    /// The intent on record of the operation in progress.
    pub intent: Option<Intent>,
    /// The number of completed parts of a request that takes several operations.
    pub parts_done: u32,
}

/// The response of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status: success, a warning, or an error that has a body.
    pub status: NtStatus,
    /// Body.
    pub response: wire::Response,
    /// The SessionId that SESSION_SETUP assigns, for the header.
    pub session: Option<u64>,
    /// The TreeId that TREE_CONNECT assigns, for the header.
    pub tree: Option<u32>,
}

impl Reply {
    /// Makes a reply with STATUS_SUCCESS and this body.
    #[must_use]
    pub fn success(response: wire::Response) -> Reply {
        Reply::with_status(NtStatus::SUCCESS, response)
    }

    /// Makes a reply with this status (a warning, MORE_PROCESSING_REQUIRED, an error that has a body) and this body.
    #[must_use]
    pub fn with_status(status: NtStatus, response: wire::Response) -> Reply {
        Reply {
            status,
            response,
            session: None,
            tree: None,
        }
    }

    /// Makes a reply with this status and the empty error body.
    #[must_use]
    pub fn error(status: NtStatus) -> Reply {
        Reply::with_status(status, wire::Response::Error(error::Response::default()))
    }
}

/// The next action, as a handler determines it.
#[derive(Clone, Debug)]
pub enum Handled {
    /// The component is answered.
    Reply(Reply),
    /// One file operation must be performed; `finish` receives its outcome.
    Op(FileOp),
    /// The request is parked until this event may have occurred; then `start` is called again.
    Wait(Wait),
    /// Call `start` again: the state has changed.
    Again,
    /// This many parts of the request are done: call `start` again, for the next ones.
    PartsDone(u32),
    /// The response is bytes of another protocol (SMB1's "no dialect in common").
    Foreign(Vec<u8>),
    /// The request has no response (CANCEL).
    Silent,
    /// The client violated the protocol in a way that ends its connection.
    Drop,
}

/// Starts a component.
///
/// # Errors
/// The status of the response.
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

/// Finishes a component with the outcome of the operation that `start` requested.
///
/// # Errors
/// The status of the response.
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
        // These commands request no operation.
        wire::Request::Negotiate(_)
        | wire::Request::SessionSetup(_)
        | wire::Request::TreeConnect(_)
        | wire::Request::Lock(_)
        | wire::Request::Cancel
        | wire::Request::Echo
        | wire::Request::OplockBreak(_) => Err(NtStatus::INTERNAL_ERROR),
    }
}
