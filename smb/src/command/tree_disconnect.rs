//! Handles TREE_DISCONNECT (MS-SMB2 3.3.5.8).

use super::{Handled, Reply, Request, close};
use crate::context::Context;
use crate::record::Record;
use crate::wire::Response;
use outlast_fsa::fileop::{FileOp, Outcome};
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`]: closes the opens of the tree connect one by one, then ends it.
///
/// # Errors
/// None.
pub fn start(ctx: &mut Context<'_>, request: &Request) -> Result<Handled, NtStatus> {
    let (session, tree) = (request.session, request.tree);
    if let Some(op) = close::next_of(ctx, |open| open.session == session && open.tree == tree) {
        return Ok(Handled::Op(op));
    }
    ctx.emit(Record::TreeEnded { session, id: tree });
    Ok(Handled::Reply(Reply::success(Response::TreeDisconnect)))
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// None.
pub fn finish(
    ctx: &mut Context<'_>,
    op: &FileOp,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    if let Some(op) = close::close_without_delete(op, &outcome) {
        return Ok(Handled::Op(op));
    }
    close::closed(ctx, op, &outcome);
    Ok(Handled::Again)
}
