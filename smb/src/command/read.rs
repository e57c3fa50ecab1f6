//! Handles READ (MS-SMB2 3.3.5.12).

use super::{Handled, Reply, Request, pipe};
use crate::context::Context;
use crate::state::Target;
use crate::wire::{Response, read};
use outlast_fsa::access;
use outlast_fsa::fileop::{FileOp, Outcome};
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// FILE_CLOSED, ACCESS_DENIED, INVALID_DEVICE_REQUEST for a directory, INVALID_PARAMETER.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &read::Request,
) -> Result<Handled, NtStatus> {
    let open = ctx.open(request, body.file_id)?;
    // RDMA channels are never negotiated.
    if body.channel != 0 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if open.granted_access & access::READS == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let id = open.id;
    match &open.target {
        Target::Pipe(_) => pipe::read(ctx, request, id, body),
        Target::File(file) if file.is_dir => Err(NtStatus::INVALID_DEVICE_REQUEST),
        Target::File(_) if i64::try_from(body.offset).is_err() => Err(NtStatus::INVALID_PARAMETER),
        Target::File(_) => Ok(Handled::Op(FileOp::Read {
            open: id,
            offset: body.offset,
            length: body.length,
        })),
    }
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// END_OF_FILE for less than MinimumCount; the status that the file system returns.
pub fn finish(
    body: &read::Request,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    let Outcome::Data(data) = outcome? else {
        return Err(NtStatus::INTERNAL_ERROR);
    };
    // MS-FSA 2.1.5.3: a read beyond the end fails, except one of length 0.
    if (data.is_empty() && body.length > 0) || (data.len() as u64) < u64::from(body.minimum_count) {
        return Err(NtStatus::END_OF_FILE);
    }
    Ok(Handled::Reply(Reply::success(Response::Read(
        read::Response { data },
    ))))
}
