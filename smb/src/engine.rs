//! Executes a message component by component, from the durable state alone, so that after a crash the same calls
//! continue it.

pub(crate) mod receive;
pub(crate) mod send;

use crate::answered::Answered;
use crate::command::{self, Handled, Reply, Request};
use crate::context::Context;
use crate::held::Held;
use crate::record::{Record, WorkId};
use crate::server::{Admit, ConnId, Planned, Step, Task};
use crate::state::{Answer, Doing, Parked, Related, Wait, Work};
use crate::wire::{self, Command, Component, FileId, Flags, Header, Route, frame};
use crate::{admission, effects, size};
use bytes::Bytes;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::{FileOp, Intent, OpenId, Outcome};
use outlast_fsa::status::NtStatus;
pub(crate) use receive::Opened;
use send::Piece;
use std::sync::Arc;

/// The number of crashes at one component after which it is answered with an error instead of a further attempt (law
/// 5).
pub const ATTEMPTS: u32 = 3;

/// Size in bytes up to which an answer is kept even if the account of its connection has no room.
const ALWAYS_KEPT: usize = 4096;

/// The largest number of bytes that a waiting request keeps: the rest of its message, and the answers to earlier
/// components of it.
pub(crate) const MAX_WAITING: usize = 1 << 20;

/// The continuation after a call of a handler.
#[allow(clippy::large_enum_variant)] // as Step
enum Flow {
    /// The next component, or the same one again.
    On,
    /// Back to the loop.
    Step(Step),
}

/// Returns the task of a work of this connection.
fn task(conn: ConnId, work: WorkId) -> Task {
    match work {
        WorkId::Message => Task::Message(conn),
        WorkId::Parked(id) => Task::Parked(conn, id),
    }
}

fn work_of<'a>(ctx: &'a Context<'_>, id: WorkId) -> Option<&'a Work> {
    let connection = ctx.connection();
    match id {
        WorkId::Message => connection.work.as_ref(),
        WorkId::Parked(id) => connection.parked.get(&id).map(|parked| &parked.work),
    }
}

/// Executes a message or a parked request until it needs a file operation, waits, or is done.
pub(crate) fn advance(ctx: &mut Context<'_>, id: WorkId, message: Option<&Pieces>) -> Step {
    let Some(work) = work_of(ctx, id) else {
        return Step::Done;
    };
    // Law 5: a message that crashes the server before it is parsed costs its connection.
    if work.attempts >= ATTEMPTS && !work.admitted {
        return drop_connection(
            ctx,
            "the server has crashed too often while it worked on its message",
        );
    }
    let opened = match receive::open(ctx, id, message) {
        Ok(opened) => opened,
        Err(receive::Fault::Smb1(message)) => return smb1(ctx, &message),
        Err(receive::Fault::Drop(why)) => return drop_connection(ctx, &why),
    };
    if work_of(ctx, id).is_some_and(|work| !work.admitted)
        && let Err(why) = receive::take_message_ids(ctx, &opened)
    {
        return drop_connection(ctx, &why);
    }
    loop {
        match component(ctx, id, &opened) {
            Flow::On => {}
            Flow::Step(step) => return step,
        }
    }
}

/// Aborts the connection of a client that violated the protocol. The message remains in case this is not committed.
fn drop_connection(ctx: &mut Context<'_>, why: &str) -> Step {
    log::info!(
        "connection {} ({}) is dropped: {why}",
        ctx.conn,
        ctx.connection().client
    );
    ctx.out.drop.push(ctx.conn);
    Step::Done
}

/// Answers SMB1's NEGOTIATE (MS-SMB2 3.3.5.3), the only SMB1 command served. It uses MessageId 0.
fn smb1(ctx: &mut Context<'_>, message: &Bytes) -> Step {
    if ctx.connection().negotiation.dialect.is_some() || !ctx.connection().credits.allows(0, 1) {
        return drop_connection(ctx, "SMB1 after SMB2's negotiation");
    }
    let handled = command::negotiate::smb1(ctx, message);
    match handled {
        Handled::Reply(reply) => {
            ctx.emit(Record::Admitted {
                ids: vec![(0, 1)],
                sealed: None,
            });
            let header = Header {
                credit_charge: 0,
                status: reply.status,
                command: Command::NEGOTIATE,
                credits: 1,
                flags: Flags::SERVER_TO_REDIR,
                next_command: 0,
                message_id: 0,
                route: Route::Sync {
                    process_id: 0,
                    tree_id: 0,
                },
                session_id: 0,
                signature: [0; 16],
            };
            let piece = Piece::new(header, &reply.response, false);
            send::message(ctx, vec![piece], None);
            ctx.emit(Record::Done {
                work: WorkId::Message,
                credits: 1,
            });
            Step::Done
        }
        Handled::Foreign(bytes) => {
            send::foreign(ctx, bytes);
            ctx.emit(Record::Done {
                work: WorkId::Message,
                credits: 0,
            });
            Step::Done
        }
        _ => drop_connection(ctx, "an SMB1 message other than NEGOTIATE"),
    }
}

/// Executes the component in progress.
fn component(ctx: &mut Context<'_>, id: WorkId, opened: &Arc<Opened>) -> Flow {
    let Some((request, component)) = request(ctx, id, opened) else {
        return Flow::Step(Step::Done);
    };
    let refused = ctx.smb.refused.remove(&task(ctx.conn, id));
    let Some(work) = work_of(ctx, id) else {
        return Flow::Step(Step::Done);
    };
    let (attempts, doing) = (work.attempts, work.doing.is_some());
    let cancelled = match id {
        WorkId::Parked(id) if work.next == 0 => ctx
            .connection()
            .parked
            .get(&id)
            .and_then(|parked| parked.cancelled),
        _ => None,
    };
    // A component is checked once: not again when it is redone or has waited.
    let checked = doing || (matches!(id, WorkId::Parked(_)) && work.next == 0);
    let result = if attempts >= ATTEMPTS {
        Err(NtStatus::INTERNAL_ERROR)
    } else if let (Some(status), false) = (cancelled, doing) {
        Err(status)
    } else if let (false, Err(fault)) = (checked, receive::check(ctx, id, &request, &component)) {
        match fault {
            receive::Refusal::Status(status) => Err(status),
            receive::Refusal::Drop(why) => return Flow::Step(drop_connection(ctx, why)),
        }
    } else {
        call(ctx, &request, &component, refused)
    };
    handle(ctx, id, opened, &request, &component, result)
}

fn call(
    ctx: &mut Context<'_>,
    request: &Request,
    component: &Component,
    refused: Option<(FileOp, NtStatus)>,
) -> Result<Handled, NtStatus> {
    let body = wire::Request::parse(component).map_err(wire::Malformed::status)?;
    receive::check_body(ctx, request, &body)?;
    receive::check_channel_sequence(ctx, request, &body)?;
    match refused {
        Some((op, status)) => command::finish(ctx, request, &body, &op, Err(status)),
        None => command::start(ctx, request, &body),
    }
}

/// Returns the component in progress in the form that handlers take.
fn request(ctx: &Context<'_>, id: WorkId, opened: &Opened) -> Option<(Request, Component)> {
    let work = work_of(ctx, id)?;
    let component = opened.components.get(work.next as usize)?.clone();
    let header = component.header.clone();
    let related = header.flags.contains(Flags::RELATED_OPERATIONS);
    let waited = match id {
        WorkId::Parked(id) if work.next == 0 => ctx
            .connection()
            .parked
            .get(&id)
            .filter(|parked| parked.interim)
            .map(|_| id),
        _ => None,
    };
    let request = Request {
        session: if related {
            work.related.session
        } else {
            header.session_id
        },
        tree: if related {
            work.related.tree
        } else {
            header.tree_id()
        },
        related_open: work.related.open.filter(|_| related),
        bytes: component.bytes.clone(),
        rest: component.rest.clone(),
        sealed: work.sealed.is_some(),
        waited,
        drawn: work.doing.as_ref().map(|doing| doing.id).or(work.drawn),
        intent: work.doing.as_ref().map(|doing| doing.intent.clone()),
        parts_done: work.parts_done,
        header,
    };
    Some((request, component))
}

fn handle(
    ctx: &mut Context<'_>,
    id: WorkId,
    opened: &Arc<Opened>,
    request: &Request,
    component: &Component,
    result: Result<Handled, NtStatus>,
) -> Flow {
    match result {
        Ok(Handled::Reply(reply)) => answer(ctx, id, opened, request, component, reply),
        Err(status) => answer(ctx, id, opened, request, component, Reply::error(status)),
        Ok(Handled::Op(op)) => match actor(ctx, request, &op) {
            Ok(actor) => Flow::Step(Step::Op(Planned {
                task: task(ctx.conn, id),
                actor,
                op,
                intent: request.intent.clone(),
            })),
            Err(status) => answer(ctx, id, opened, request, component, Reply::error(status)),
        },
        Ok(Handled::Wait(wait)) => match park(ctx, id, opened, request, wait, None) {
            Ok(()) => Flow::Step(Step::Done),
            Err(status) => answer(ctx, id, opened, request, component, Reply::error(status)),
        },
        Ok(Handled::Again) => {
            if request.intent.is_some() {
                ctx.emit(Record::Undone { work: id });
            }
            Flow::On
        }
        Ok(Handled::PartsDone(parts)) => {
            ctx.emit(Record::PartsDone { work: id, parts });
            Flow::On
        }
        Ok(Handled::Silent) => silent(ctx, id, opened),
        Ok(Handled::Foreign(_) | Handled::Drop) => {
            Flow::Step(drop_connection(ctx, "a request against the protocol"))
        }
    }
}

/// Returns the account and share that an operation is performed for.
fn actor(
    ctx: &Context<'_>,
    request: &Request,
    op: &FileOp,
) -> Result<outlast_fsa::fileop::Actor, NtStatus> {
    if matches!(op, FileOp::Create(_)) {
        return ctx.actor(request);
    }
    let own = ctx.connection().opens.get(&op.open());
    // A CREATE may reconnect a durable open without a connection.
    let detached = || ctx.smb.detached(op.open()).map(|(_, open)| open);
    let open = own.or_else(detached).ok_or(NtStatus::FILE_CLOSED)?;
    Ok(open.actor.clone())
}

/// Computes what the next related component inherits.
fn inherit(
    ctx: &Context<'_>,
    before: &Related,
    request: &Request,
    component: &Component,
    reply: &Reply,
) -> Related {
    let mut related = Related {
        session: reply.session.unwrap_or(request.session),
        tree: reply.tree.unwrap_or(request.tree),
        open: request.related_open,
        failed: None,
    };
    match (&reply.response, wire::Request::parse(component)) {
        (wire::Response::Create(created), _) => related.open = Some(created.file_id.persistent),
        // 3.3.5.2.7.2: components after a failed CREATE fail with its status.
        _ if request.header.command == Command::CREATE && reply.status.is_error() => {
            related.open = None;
            related.failed = Some(reply.status);
        }
        (_, Ok(body)) => match receive::file_id(&body) {
            Some(FileId::ANY) | None => {}
            Some(id) => related.open = ctx.open(request, id).ok().map(|open| open.id),
        },
        _ => {}
    }
    if request.header.flags.contains(Flags::RELATED_OPERATIONS) && related.open.is_none() {
        related.failed = related.failed.or(before.failed);
    }
    related
}

/// Answers a component. With the last one the whole reply becomes final.
fn answer(
    ctx: &mut Context<'_>,
    id: WorkId,
    opened: &Arc<Opened>,
    request: &Request,
    component: &Component,
    reply: Reply,
) -> Flow {
    let Some(work) = work_of(ctx, id) else {
        return Flow::Step(Step::Done);
    };
    let is_last = work.next as usize + 1 >= opened.components.len();
    let sealed = work.sealed;
    let session = reply.session.unwrap_or(request.session);
    // The interim response has already granted credits.
    let credits = match request.waited {
        Some(_) => 0,
        None => send::grant(ctx, &request.header),
    };
    let piece = |reply: &Reply| {
        let header = send::header(request, reply, session, credits);
        let sign = send::signs(ctx, request, reply, session, sealed);
        Piece::new(header, &reply.response, sign)
    };
    let (reply, piece) = match piece(&reply) {
        long if !may_be_kept(ctx, work, &long, is_last) => {
            let refused = Reply::error(NtStatus::INSUFFICIENT_RESOURCES);
            let piece = piece(&refused);
            (refused, piece)
        }
        piece => (reply, piece),
    };
    let command = request.header.command;
    let (asked, answered) = (component.size(), piece.head.len() + piece.payload.len());
    let answered = Answered::new(command, reply.status, asked, answered);
    if !is_last {
        let mut related = inherit(ctx, &work.related, request, component, &reply);
        // 3.3.5.2.7.2: a first component that is marked as related is invalid, and later related ones fail with its
        // status.
        let is_related = request.header.flags.contains(Flags::RELATED_OPERATIONS);
        if is_related && id == WorkId::Message && work.next == 0 {
            related.failed = Some(reply.status);
        }
        ctx.out.answered.push(answered);
        ctx.emit(Record::Answered {
            work: id,
            answer: Some(Box::new(piece.into_answer())),
            related,
            credits,
        });
        return Flow::On;
    }
    let mut pieces: Vec<Piece> = work.answers.iter().map(Piece::from).collect();
    pieces.push(piece);
    ctx.out.answered.push(answered);
    let last = send::message(ctx, pieces, sealed);
    if request.header.command == Command::NEGOTIATE {
        command::negotiate::answered(ctx, &last);
    }
    if request.header.command == Command::SESSION_SETUP
        && reply.status == NtStatus::MORE_PROCESSING_REQUIRED
    {
        command::session_setup::answered(ctx, session, &last);
    }
    done(ctx, id, credits);
    Flow::Step(Step::Done)
}

/// Checks that an answer may be kept. The reply to compounded reads must not be longer than the longest single one, and
/// until the last component is answered the earlier answers are part of the state. A short answer is always kept: no
/// operation that changes a file has a long one.
fn may_be_kept(ctx: &Context<'_>, work: &Work, piece: &Piece, is_last: bool) -> bool {
    let lengths = work.answers.iter();
    let kept: usize = lengths
        .map(|answer| wire::header::LEN + answer.body.len())
        .sum();
    let fits = kept == 0 || kept + piece.len() <= frame::MAX_MESSAGE;
    let has_room = is_last
        || piece.len() <= ALWAYS_KEPT
        || ctx
            .smb
            .may_take(ctx.conn, Held::bytes(size::answer_of(piece.len())));
    fits && has_room
}

fn done(ctx: &mut Context<'_>, id: WorkId, credits: u16) {
    ctx.smb.opened.remove(&task(ctx.conn, id));
    ctx.emit(Record::Done { work: id, credits });
}

/// Ends a component without a response (CANCEL).
fn silent(ctx: &mut Context<'_>, id: WorkId, opened: &Opened) -> Flow {
    let Some(work) = work_of(ctx, id) else {
        return Flow::Step(Step::Done);
    };
    if (work.next as usize) + 1 < opened.components.len() {
        let related = work.related.clone();
        ctx.emit(Record::Answered {
            work: id,
            answer: None,
            related,
            credits: 0,
        });
        return Flow::On;
    }
    let sealed = work.sealed;
    let pieces: Vec<Piece> = work.answers.iter().map(Piece::from).collect();
    if !pieces.is_empty() {
        send::message(ctx, pieces, sealed);
    }
    done(ctx, id, 0);
    Flow::Step(Step::Done)
}

/// Lets a request begin to wait (MS-SMB2 3.3.4.2), or continue to wait.
///
/// # Errors
/// The status of the response instead: too many requests wait already, or the request is not the last one of its
/// message (only a CREATE may delay the rest of a chain; it does so without an interim response).
fn park(
    ctx: &mut Context<'_>,
    id: WorkId,
    opened: &Arc<Opened>,
    request: &Request,
    wait: Wait,
    drawn: Option<OpenId>,
) -> Result<(), NtStatus> {
    let work = work_of(ctx, id).ok_or(NtStatus::INTERNAL_ERROR)?;
    if let (WorkId::Parked(parked), 0) = (id, work.next) {
        ctx.emit(Record::Waiting { id: parked, wait });
        return Ok(());
    }
    let at = work.next as usize;
    let is_last = at + 1 >= opened.components.len();
    if !is_last && !matches!(wait, Wait::Break(_)) {
        return Err(NtStatus::INTERNAL_ERROR);
    }
    let rest = opened.components.iter().skip(at);
    let message: usize = rest.map(Component::size).sum();
    let answers = work.answers.iter().filter(|_| !is_last).map(size::answer);
    let kept = message + answers.sum::<usize>();
    let more = Held {
        pending: 1,
        bytes: size::WAITING + kept,
        ..Held::default()
    };
    if kept > MAX_WAITING || !ctx.smb.may_take(ctx.conn, more) {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let work = work_of(ctx, id).ok_or(NtStatus::INTERNAL_ERROR)?;
    let mut parked_work = Work {
        attempts: 0,
        admitted: true,
        sealed: work.sealed,
        next: 0,
        answers: work.answers.clone(),
        related: work.related.clone(),
        drawn,
        doing: None,
        parts_done: 0,
    };
    let mut message = Vec::new();
    for component in opened.components.iter().skip(at) {
        component.encode(&mut message);
    }
    let async_id = ctx.unique_id();
    let mut credits = 0;
    if is_last {
        // The answers to earlier components of the message do not wait with it.
        let sealed = parked_work.sealed;
        let answers = std::mem::take(&mut parked_work.answers);
        if !answers.is_empty() {
            send::message(ctx, answers.iter().map(Piece::from).collect(), sealed);
        }
        credits = send::grant(ctx, &request.header);
        send::interim(ctx, request, async_id, credits, sealed);
    }
    let parked = Parked {
        message,
        work: parked_work,
        message_id: request.header.message_id,
        session: request.session,
        tree: request.tree,
        open: receive::open_named(ctx, request),
        interim: is_last,
        wait,
        cancelled: None,
        running: false,
    };
    ctx.smb.opened.remove(&task(ctx.conn, id));
    ctx.emit(Record::Parked {
        work: id,
        id: async_id,
        parked: Box::new(parked),
        credits,
    });
    Ok(())
}

/// Processes the intent that `prepare` returned for an operation.
pub(crate) fn admit(
    ctx: &mut Context<'_>,
    id: WorkId,
    planned: &Planned,
    prepared: Result<Intent, NtStatus>,
) -> Admit {
    let refuse = |ctx: &mut Context<'_>, status| {
        ctx.smb
            .refused
            .insert(planned.task, (planned.op.without_data(), status));
        Admit::Done
    };
    let opened = ctx.smb.opened.get(&planned.task).cloned();
    let Some((opened, (request, component))) =
        opened.and_then(|opened| request(ctx, id, &opened).map(|found| (opened, found)))
    else {
        return Admit::Done;
    };
    let intent = match prepared {
        Ok(intent) => intent,
        Err(status) => return refuse(ctx, status),
    };
    let body = match wire::Request::parse(&component) {
        Ok(body) => body,
        Err(malformed) => return refuse(ctx, malformed.status()),
    };
    match admission::check(ctx, &body, planned, &intent) {
        Err(status) => refuse(ctx, status),
        Ok(Some(wait)) => match park(ctx, id, &opened, &request, wait, Some(planned.op.open())) {
            Ok(()) => Admit::Wait,
            Err(status) => refuse(ctx, status),
        },
        Ok(None) => {
            if planned.op.has_effect() {
                ctx.emit(Record::Doing {
                    work: id,
                    doing: Doing {
                        id: planned.op.open(),
                        intent,
                    },
                });
            }
            Admit::Go
        }
    }
}

/// Processes the outcome of an operation.
pub(crate) fn complete(
    ctx: &mut Context<'_>,
    id: WorkId,
    planned: &Planned,
    outcome: Result<Outcome, NtStatus>,
) -> Step {
    let opened = ctx.smb.opened.get(&planned.task).cloned();
    let Some((opened, (mut request, component))) =
        opened.and_then(|opened| request(ctx, id, &opened).map(|found| (opened, found)))
    else {
        return Step::Done;
    };
    if let Ok(outcome) = &outcome {
        effects::after(ctx, planned, outcome);
    }
    let result = wire::Request::parse(&component)
        .map_err(wire::Malformed::status)
        .and_then(|body| command::finish(ctx, &request, &body, &planned.op, outcome));
    if matches!(result, Ok(Handled::Op(_))) && request.intent.take().is_some() {
        // Another operation follows, and needs an intent of its own.
        ctx.emit(Record::Undone { work: id });
    }
    match handle(ctx, id, &opened, &request, &component, result) {
        // The result is committed before the next component's intent (law 5).
        Flow::On => Step::Again,
        Flow::Step(step) => step,
    }
}

impl From<&Answer> for Piece {
    fn from(answer: &Answer) -> Piece {
        let mut head = Vec::with_capacity(wire::header::LEN + answer.body.len());
        answer.header.encode(&mut head);
        head.extend_from_slice(&answer.body);
        Piece {
            header: answer.header.clone(),
            head,
            payload: Bytes::new(),
            sign: answer.sign,
        }
    }
}

#[cfg(test)]
mod tests;
