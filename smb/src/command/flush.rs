//! Handles FLUSH (MS-SMB2 3.3.5.11).

use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::state::Target;
use crate::wire::{Response, flush};
use outlast_fsa::access;
use outlast_fsa::fileop::{FileOp, Outcome};
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// FILE_CLOSED, ACCESS_DENIED without a right to write.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &flush::Request,
) -> Result<Handled, NtStatus> {
    let open = ctx.open(request, body.file_id)?;
    match open.target {
        // A pipe processes whole requests at once and has nothing to flush.
        Target::Pipe(_) => Ok(Handled::Reply(Reply::success(Response::Flush))),
        Target::File(_)
            if open.granted_access & (access::WRITE_DATA | access::APPEND_DATA) == 0 =>
        {
            Err(NtStatus::ACCESS_DENIED)
        }
        Target::File(_) => Ok(Handled::Op(FileOp::Flush { open: open.id })),
    }
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// The status that the file system returns.
pub fn finish(outcome: Result<Outcome, NtStatus>) -> Result<Handled, NtStatus> {
    outcome?;
    Ok(Handled::Reply(Reply::success(Response::Flush)))
}
