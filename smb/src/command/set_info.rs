//! Handles SET_INFO (MS-SMB2 3.3.5.21).

use super::delete_pending;
use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::info::access;
use crate::info::set::SetFile;
use crate::record::Record;
use crate::state::Target;
use crate::wire;
use crate::wire::query_info::info_type;
use crate::wire::set_info;
use outlast_fsa::fileop::{FileOp, OpenId, Outcome, SetBasic};
use outlast_fsa::status::NtStatus;
use outlast_fsa::{path, stream};

#[cfg(test)]
mod tests;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// The status of the response.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &set_info::Request,
) -> Result<Handled, NtStatus> {
    let open = ctx.open(request, body.file_id)?;
    let (id, granted) = (open.id, open.granted_access);
    match (&open.target, body.info_type) {
        (Target::Pipe(_), info_type::FILE) => {
            let set = SetFile::parse(body.file_info_class, &body.data)?;
            access::require(granted, set.needed_access())?;
            match set {
                // The pipes are message pipes that queue, in every mode: reads return one message in both.
                SetFile::Pipe { .. } => Ok(done()),
                _ => Err(NtStatus::NOT_SUPPORTED),
            }
        }
        (Target::Pipe(_), _) => Err(NtStatus::INVALID_DEVICE_REQUEST),
        (Target::File(_), info_type::FILE) => set_file(
            ctx,
            request,
            body,
            SetFile::parse(body.file_info_class, &body.data)?,
        ),
        // 3.3.5.21.2: labels, quotas and object ids cannot be set.
        (Target::File(_), info_type::FILESYSTEM | info_type::QUOTA) => Err(NtStatus::NOT_SUPPORTED),
        (Target::File(_), info_type::SECURITY) => {
            let information = body.additional_information;
            access::require(granted, access::to_set_security(information))?;
            Ok(Handled::Op(FileOp::SetSecurity {
                open: id,
                information,
                descriptor: body.data.clone(),
            }))
        }
        _ => Err(NtStatus::INVALID_PARAMETER),
    }
}

fn set_file(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &set_info::Request,
    set: SetFile,
) -> Result<Handled, NtStatus> {
    let (open, file) = ctx.file(request, body.file_id)?;
    let id = open.id;
    let is_stream = stream::split(&file.path).1.is_some();
    access::require(open.granted_access, set.needed_access())?;
    set.check_kind(file.is_dir)?;
    Ok(Handled::Op(match set {
        SetFile::Basic(basic) => FileOp::SetBasic { open: id, basic },
        SetFile::FullEa(eas) if eas.is_empty() => return Ok(done()),
        SetFile::FullEa(eas) => FileOp::SetEas { open: id, eas },
        SetFile::EndOfFile(end_of_file) => FileOp::SetEndOfFile {
            open: id,
            end_of_file,
        },
        SetFile::Allocation(allocation_size) => FileOp::SetAllocation {
            open: id,
            allocation_size,
        },
        SetFile::Rename { replace, target } => {
            let to = match is_stream {
                true => stream::parse_target(&target, &file.path)?,
                false => destination(&target, &file.path)?,
            };
            if to == file.path {
                return Ok(done());
            }
            FileOp::Rename {
                open: id,
                from: file.path.clone(),
                to,
                replace,
            }
        }
        // MS-FSA 2.1.5.15.6: a link is one of the file, and so is the name of its parts.
        SetFile::Link { .. } if is_stream => return Err(NtStatus::INVALID_PARAMETER),
        SetFile::Link { replace, target } => FileOp::Link {
            open: id,
            to: destination(&target, &file.path)?,
            replace,
        },
        // MS-FSA 2.1.5.15.3: the root of a share cannot be deleted.
        SetFile::Disposition(true) if file.path.is_empty() => return Err(NtStatus::CANNOT_DELETE),
        SetFile::Disposition(true) => FileOp::CheckDelete {
            open: id,
            path: file.path.clone(),
        },
        SetFile::Disposition(false) => {
            let file = file.clone();
            delete_pending::clear(ctx, &file);
            return Ok(done());
        }
        SetFile::Position(position) => {
            ctx.emit(Record::Position { open: id, position });
            return Ok(done());
        }
        SetFile::Mode(mode) => {
            ctx.emit(Record::Mode { open: id, mode });
            return Ok(done());
        }
        // MS-FSA 2.1.5.15: only for pipes.
        SetFile::Pipe { .. } => return Err(NtStatus::INVALID_PARAMETER),
    }))
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// The status of the response.
pub fn finish(
    ctx: &mut Context<'_>,
    _request: &Request,
    _body: &set_info::Request,
    op: &FileOp,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    outcome?;
    match op {
        FileOp::CheckDelete { open, .. } => {
            let file = ctx.file_of(*open);
            let lease = file.and_then(|file| file.lease).map(|lease| lease.id);
            delete_pending::set(ctx, ctx.conn, *open, lease);
        }
        FileOp::SetBasic { open, basic } => stop_times(ctx, *open, basic),
        _ => {}
    }
    Ok(done())
}

/// MS-FSA 2.1.5.15.2: operations by this open no longer update times that were set or stopped.
fn stop_times(ctx: &mut Context<'_>, open: OpenId, basic: &SetBasic) {
    let stopped = ctx.file_of(open).map(|file| file.stopped);
    let times = stopped.map(|before| basic.stopped(before));
    if let Some(times) = times.filter(|_| times != stopped) {
        ctx.emit(Record::Stopped { open, times });
    }
}

/// Parses the target path of a rename or link, which must not be the root of the share.
fn destination(target: &str, from: &str) -> Result<String, NtStatus> {
    // Samba's clients begin the path with a backslash, which CREATE would refuse (MS-SMB2 3.3.5.9).
    let to = path::parse(target.strip_prefix('\\').unwrap_or(target))?;
    if from.is_empty() || to.is_empty() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(to)
}

fn done() -> Handled {
    Handled::Reply(Reply::success(wire::Response::SetInfo))
}
