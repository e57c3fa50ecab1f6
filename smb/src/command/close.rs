//! Handles CLOSE (MS-SMB2 3.3.5.10)and every other end of an open: LOGOFF, TREE_DISCONNECT, the end of its connection.

use super::delete_pending::{self, Marked};
use super::{Handled, Reply, Request};
use crate::caching;
use crate::context::Context;
use crate::engine::ATTEMPTS;
use crate::record::Record;
use crate::server::{Admit, Planned, Step, Task};
use crate::state::{Doing, Open, Target};
use crate::wire::{Response, close};
use outlast_fsa::access;
use outlast_fsa::fileop::{
    Change, ChangeKind, DeleteTarget, FileOp, Intent, Metadata, OpenId, Outcome,
};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// FILE_CLOSED.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &close::Request,
) -> Result<Handled, NtStatus> {
    let id = ctx.open(request, body.file_id)?.id;
    match operation(ctx, id) {
        Some(op) => Ok(Handled::Op(op)),
        None => {
            ctx.emit(Record::Closed { open: id });
            Ok(Handled::Reply(reply(None)))
        }
    }
}

/// Finishes the command, as [`super::finish`]. The open ends whatever the file system returns.
///
/// # Errors
/// None.
pub fn finish(
    ctx: &mut Context<'_>,
    body: &close::Request,
    op: &FileOp,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    if let Some(op) = close_without_delete(op, &outcome) {
        return Ok(Handled::Op(op));
    }
    closed(ctx, op, &outcome);
    let metadata = match outcome {
        Ok(Outcome::Closed(metadata)) if body.postquery_attrib => Some(metadata),
        _ => None,
    };
    Ok(Handled::Reply(reply(metadata)))
}

fn reply(metadata: Option<Metadata>) -> Reply {
    let attributes = metadata.map(|metadata| close::Attributes {
        creation_time: metadata.creation_time,
        last_access_time: metadata.last_access_time,
        last_write_time: metadata.last_write_time,
        change_time: metadata.change_time,
        allocation_size: metadata.allocation_size,
        end_of_file: metadata.end_of_file,
        file_attributes: metadata.attributes,
    });
    Reply::success(Response::Close(close::Response { attributes }))
}

/// Returns the operation that closes this open; `None` for a pipe, which needs none.
fn operation(ctx: &Context<'_>, id: OpenId) -> Option<FileOp> {
    let file = ctx.file_of(id)?;
    // MS-FSA 2.1.5.5: the close of a link's last open deletes it, and the close of a named stream's last open the
    // stream. The last open has the mark, because every earlier close passes it on.
    let is_deleted = |marked: Marked| {
        marked.is_held(file, true) && delete_pending::other_open(ctx, marked, file, id).is_none()
    };
    let path = if is_deleted(Marked::Link) {
        Some(stream::split(&file.path).0)
    } else if is_deleted(Marked::Stream) {
        Some(file.path.as_str())
    } else {
        None
    };
    Some(FileOp::Close {
        open: id,
        delete: path.map(|path| DeleteTarget {
            path: path.to_owned(),
            key: file.key,
        }),
    })
}

/// Returns the close without the deletion, if the deletion has failed (the directory is not empty, a right is missing).
pub(super) fn close_without_delete(
    op: &FileOp,
    outcome: &Result<Outcome, NtStatus>,
) -> Option<FileOp> {
    match (op, outcome) {
        (
            FileOp::Close {
                open,
                delete: Some(target),
            },
            Err(status),
        ) => {
            log_not_deleted(&target.path, *status);
            Some(FileOp::Close {
                open: *open,
                delete: None,
            })
        }
        _ => None,
    }
}

/// Logs why a file was not deleted: a CLOSE succeeds whatever the file system returns.
fn log_not_deleted(path: &str, status: NtStatus) {
    match status {
        // A directory with entries is the client's mistake.
        NtStatus::DIRECTORY_NOT_EMPTY => {}
        _ => {
            log::warn!("{path:?} cannot be deleted at its last close: {status}")
        }
    }
}

/// Returns the operation that closes the next of these opens, for LOGOFF and TREE_DISCONNECT; pipes are closed at once.
pub(super) fn next_of(ctx: &mut Context<'_>, which: impl Fn(&Open) -> bool) -> Option<FileOp> {
    loop {
        let open = ctx.connection().opens.values().find(|open| which(open))?;
        let (id, is_pipe) = (open.id, matches!(open.target, Target::Pipe(_)));
        if is_pipe {
            ctx.emit(Record::Closed { open: id });
        } else {
            return operation(ctx, id);
        }
    }
}

/// Puts the close of an open on record, and passes on its delete-pending mark.
pub(crate) fn closed(ctx: &mut Context<'_>, op: &FileOp, outcome: &Result<Outcome, NtStatus>) {
    let FileOp::Close { open: id, delete } = op else {
        return;
    };
    let Some(open) = ctx.connection().opens.get(id) else {
        return;
    };
    let share = open.actor.share;
    let Target::File(file) = &open.target else {
        return;
    };
    let is_dir = file.is_dir;
    let (directory, spared) = (file.directory, caching::parent_lease(file));
    let may_have_written = !is_dir && open.granted_access & access::WRITES != 0;
    let lease = file.lease.map(|lease| lease.id);
    let heir = |marked: Marked| {
        let other = || delete_pending::other_open(ctx, marked, file, *id);
        marked.is_held(file, true).then(other).flatten()
    };
    let heirs = [Marked::Link, Marked::Stream].map(|marked| (marked, heir(marked)));
    ctx.emit(Record::Closed { open: *id });
    for (marked, heir) in heirs {
        if let Some(heir) = heir {
            delete_pending::pass_on(ctx, marked, heir, lease);
        }
    }
    match (delete, outcome) {
        (Some(target), Ok(_)) => ctx.publish(&Change {
            share,
            path: target.path.clone(),
            is_dir,
            kind: ChangeKind::Removed,
        }),
        (_, Err(status)) => log::warn!("closing a file: {status}"),
        _ => {}
    }
    // The directory's entry has changed: it is gone, or has another size and other times.
    if delete.is_some() || may_have_written {
        caching::break_directory(ctx, directory, spared);
    }
}

/// Closes an open whose session, tree connect or connection has ended.
pub(crate) fn step(ctx: &mut Context<'_>, id: OpenId) -> Step {
    let Some(open) = ctx.connection().opens.get(&id) else {
        return Step::Done;
    };
    let Some(closing) = &open.closing else {
        return Step::Done;
    };
    let (attempts, actor) = (closing.attempts, open.actor.clone());
    let mut intent = closing.doing.as_ref().map(|doing| doing.intent.clone());
    let Some(mut op) = operation(ctx, id).filter(|_| attempts < ATTEMPTS) else {
        ctx.emit(Record::Closed { open: id });
        return Step::Done;
    };
    let task = Task::Close(ctx.conn, id);
    if ctx.smb.refused.remove(&task).is_some()
        && let FileOp::Close { delete, .. } = &mut op
    {
        *delete = None;
        intent = None;
    }
    Step::Op(Planned {
        task,
        actor,
        op,
        intent,
    })
}

/// Processes the result of a close by a task.
pub(crate) fn complete(
    ctx: &mut Context<'_>,
    planned: &Planned,
    outcome: Result<Outcome, NtStatus>,
) -> Step {
    if let (Some(_), Err(status)) = (close_without_delete(&planned.op, &outcome), &outcome) {
        ctx.smb
            .refused
            .insert(planned.task, (planned.op.clone(), *status));
        return Step::Again;
    }
    closed(ctx, &planned.op, &outcome);
    Step::Done
}

/// Processes the intent of a close by a task.
pub(crate) fn admit(
    ctx: &mut Context<'_>,
    planned: &Planned,
    prepared: Result<Intent, NtStatus>,
) -> Admit {
    let FileOp::Close { open, delete } = &planned.op else {
        return Admit::Done;
    };
    match prepared {
        Ok(intent) => {
            if delete.is_some() {
                let doing = Doing { id: *open, intent };
                ctx.emit(Record::Closing { open: *open, doing });
            }
            Admit::Go
        }
        Err(status) if delete.is_some() => {
            ctx.smb
                .refused
                .insert(planned.task, (planned.op.clone(), status));
            Admit::Done
        }
        Err(status) => {
            closed(ctx, &planned.op, &Err(status));
            Admit::Done
        }
    }
}
