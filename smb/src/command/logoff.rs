//! Handles LOGOFF (MS-SMB2 3.3.5.6).

use super::{Handled, Reply, Request, close};
use crate::context::Context;
use crate::record::Record;
use crate::wire::Response;
use outlast_fsa::fileop::{FileOp, Outcome};
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`]: closes the session's opens one by one, except durable ones, then ends the
/// session.
///
/// # Errors
/// None.
pub fn start(ctx: &mut Context<'_>, request: &Request) -> Result<Handled, NtStatus> {
    if let Some(op) = close::next_of(ctx, |open| {
        open.session == request.session && !open.outlives_connection()
    }) {
        return Ok(Handled::Op(op));
    }
    ctx.emit(Record::SessionLeft {
        id: request.session,
    });
    Ok(Handled::Reply(Reply::success(Response::Logoff)))
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
