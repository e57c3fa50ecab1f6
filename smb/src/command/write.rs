//! Handles WRITE (MS-SMB2 3.3.5.13).

use super::{Handled, Reply, Request, pipe};
use crate::context::Context;
use crate::state::Target;
use crate::wire::create::options;
use crate::wire::{Response, write};
use outlast_fsa::access;
use outlast_fsa::fileop::{FileOp, Outcome, WriteAt};
use outlast_fsa::status::NtStatus;

/// MAXFILESIZE (MS-FSA 2.1.5.4), in bytes: that of NTFS, which the server reports as its file system.
const MAX_FILE_BYTES: u64 = 0xFFF_FFFF_0000;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// FILE_CLOSED, ACCESS_DENIED, INVALID_DEVICE_REQUEST for a directory, INVALID_PARAMETER.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &write::Request,
) -> Result<Handled, NtStatus> {
    let open = ctx.open(request, body.file_id)?;
    // RDMA channels are never negotiated.
    if body.channel != 0 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let id = open.id;
    let granted = open.granted_access & (access::WRITE_DATA | access::APPEND_DATA);
    if granted == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let file = match &open.target {
        Target::Pipe(_) => return pipe::write(ctx, request, id, body),
        Target::File(file) => file,
    };
    if file.is_dir {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    let length = body.data.len() as u64;
    let end = body.offset.checked_add(length);
    let is_possible =
        |end: u64| i64::try_from(end).is_ok() && (length == 0 || end <= MAX_FILE_BYTES);
    if !end.is_some_and(is_possible) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // MS-FSA 2.1.5.4: with the right to append alone, the write goes to the end.
    let at = match granted == access::APPEND_DATA {
        true => WriteAt::End,
        false => WriteAt::Offset(body.offset),
    };
    if length == 0 {
        return Ok(written(0));
    }
    Ok(Handled::Op(FileOp::Write {
        open: id,
        at,
        data: body.data.clone(),
        write_through: body.flags & write::FLAG_WRITE_THROUGH != 0
            || file.create_options & options::WRITE_THROUGH != 0,
    }))
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// The status that the file system returns.
pub fn finish(outcome: Result<Outcome, NtStatus>) -> Result<Handled, NtStatus> {
    match outcome? {
        Outcome::Written { count, .. } => Ok(written(count)),
        _ => Err(NtStatus::INTERNAL_ERROR),
    }
}

fn written(count: u32) -> Handled {
    Handled::Reply(Reply::success(Response::Write(write::Response { count })))
}
