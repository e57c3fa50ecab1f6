//! Handles IOCTL (MS-SMB2 3.3.5.15).

use super::{Handled, Reply, Request, durable, negotiate, pipe};
use crate::context::Context;
use crate::info::access::require;
use crate::ioctl::{self as fsctl, CopyChunk, Fsctl, ValidateNegotiate};
use crate::rpc::Pipe;
use crate::state::{Resource, Target};
use crate::wire::ioctl::{self, FLAG_IS_FSCTL};
use crate::wire::{self, Dialect};
use outlast_fsa::access;
use outlast_fsa::fileop::{FileOp, OpenId, Outcome};
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// The status of the response.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &ioctl::Request,
) -> Result<Handled, NtStatus> {
    if body.flags != FLAG_IS_FSCTL {
        return Err(NtStatus::NOT_SUPPORTED);
    }
    let asked = match Fsctl::parse(body.ctl_code, &body.input) {
        Ok(asked) => asked,
        // 3.3.5.15.12: malformed input cannot equal the negotiation.
        Err(_) if body.ctl_code == fsctl::code::VALIDATE_NEGOTIATE_INFO => {
            return Ok(Handled::Drop);
        }
        Err(status) => return Err(status),
    };
    let room = |len: usize| body.max_output_response as usize >= len;
    match asked {
        Fsctl::ValidateNegotiateInfo(claim) => Ok(validate(ctx, body, &claim)),
        Fsctl::RequestResumeKey => {
            let (open, _) = ctx.file(request, body.file_id)?;
            let key = fsctl::resume_key(open.id);
            if !room(key.len()) {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            Ok(reply(body, key))
        }
        Fsctl::RequestResiliency { timeout_ms } => {
            durable::resilient(ctx, request, body.file_id, timeout_ms)?;
            Ok(reply(body, Vec::new()))
        }
        Fsctl::CopyChunk(copy) => copy_chunk(ctx, request, body, &copy),
        Fsctl::EnumerateSnapshots => {
            ctx.file(request, body.file_id)?;
            let none = fsctl::no_snapshots();
            if !room(none.len()) {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            Ok(reply(body, none))
        }
        Fsctl::SetSparse(sparse) => {
            let open = data_file(
                ctx,
                request,
                body,
                access::WRITE_DATA | access::APPEND_DATA | access::WRITE_ATTRIBUTES,
            )?;
            Ok(Handled::Op(FileOp::SetSparse { open, sparse }))
        }
        Fsctl::SetZeroData { from, beyond } => {
            let open = data_file(ctx, request, body, access::WRITE_DATA)?;
            if from == beyond {
                return Ok(reply(body, Vec::new()));
            }
            Ok(Handled::Op(FileOp::ZeroData { open, from, beyond }))
        }
        Fsctl::QueryAllocatedRanges { offset, length } => {
            let open = data_file(ctx, request, body, access::READ_DATA)?;
            Ok(Handled::Op(FileOp::QueryAllocatedRanges {
                open,
                offset,
                length,
            }))
        }
        Fsctl::PipeTransceive => pipe::transceive(ctx, request, body),
        Fsctl::PipeWait(name) => {
            if ctx.tree(request)?.resource != Resource::Ipc {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            }
            // Every existing pipe has a free instance.
            match Pipe::open(&name) {
                Some(_) => Ok(reply(body, Vec::new())),
                None => Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            }
        }
        Fsctl::ObjectId => {
            let (open, _) = ctx.file(request, body.file_id)?;
            if !room(64) {
                return Err(NtStatus::BUFFER_TOO_SMALL);
            }
            Ok(Handled::Op(FileOp::Stat { open: open.id }))
        }
        Fsctl::GetCompression => {
            ctx.file(request, body.file_id)?;
            if !room(2) {
                return Err(NtStatus::BUFFER_TOO_SMALL);
            }
            Ok(reply(body, vec![0, 0])) // COMPRESSION_FORMAT_NONE
        }
        Fsctl::SetCompressionNone => {
            data_file(ctx, request, body, access::WRITE_DATA)?;
            Ok(reply(body, Vec::new()))
        }
    }
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// The status of the response.
pub fn finish(
    _ctx: &mut Context<'_>,
    request: &Request,
    body: &ioctl::Request,
    op: &FileOp,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    if let (FileOp::CopyChunks { .. }, Err(status)) = (op, &outcome) {
        return not_copied(request, body, *status);
    }
    match outcome? {
        Outcome::Unit => Ok(reply(body, Vec::new())),
        Outcome::Copied { written } => copied(request, body, &written),
        Outcome::Ranges(ranges) => {
            let limit = body.max_output_response as usize;
            let (bytes, cut) = fsctl::allocated_ranges(&ranges, limit)?;
            let status = if cut {
                NtStatus::BUFFER_OVERFLOW
            } else {
                NtStatus::SUCCESS
            };
            Ok(reply_with(status, body, bytes))
        }
        Outcome::Metadata(metadata) => Ok(reply(body, fsctl::object_id(&metadata))),
        _ => Err(NtStatus::INTERNAL_ERROR),
    }
}

/// 3.3.5.15.12: an attacker that modified the NEGOTIATE cannot modify this request, which is signed.
fn validate(ctx: &Context<'_>, body: &ioctl::Request, claim: &ValidateNegotiate) -> Handled {
    let negotiated = &ctx.connection().negotiation;
    let Some(dialect) = negotiated.dialect.filter(|&d| d != Dialect::Smb311) else {
        return Handled::Drop;
    };
    let answer = fsctl::negotiated(
        negotiated.capabilities,
        &ctx.config().guid,
        negotiated.security_mode,
        dialect.revision(),
    );
    let same = claim.capabilities == negotiated.client_capabilities
        && claim.client_guid == negotiated.client_guid
        && claim.security_mode == negotiated.client_security_mode
        && negotiate::greatest_common(ctx.config(), &claim.dialects) == Some(dialect);
    if !same || (body.max_output_response as usize) < answer.len() {
        return Handled::Drop;
    }
    reply(body, answer)
}

/// 3.3.5.15.6.
fn copy_chunk(
    ctx: &Context<'_>,
    request: &Request,
    body: &ioctl::Request,
    copy: &CopyChunk,
) -> Result<Handled, NtStatus> {
    let (target, target_file) = ctx.file(request, body.file_id)?;
    if body.max_output_response < fsctl::COPY_RESPONSE {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // The source may be in another tree connect of the same session.
    let source = copy
        .source
        .and_then(|id| ctx.connection().opens.get(&id))
        .filter(|open| open.session == request.session && open.closing.is_none())
        .ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let Target::File(source_file) = &source.target else {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    };
    if !copy.within_limits {
        return Ok(reply_with(
            NtStatus::INVALID_PARAMETER,
            body,
            fsctl::copy_limits(),
        ));
    }
    if source_file.is_dir || target_file.is_dir {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    if source.granted_access & access::READS == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if target.granted_access & (access::WRITE_DATA | access::APPEND_DATA) == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if copy.target_is_read {
        require(target.granted_access, access::READ_DATA)?;
    }
    let rest = copy.chunks.get(request.parts_done as usize..);
    let chunks = fsctl::one_step(rest.unwrap_or_default());
    if chunks.is_empty() {
        return Ok(reply(body, fsctl::copied(&copy.chunks)));
    }
    Ok(Handled::Op(FileOp::CopyChunks {
        source: source.id,
        target: target.id,
        chunks: chunks.to_vec(),
    }))
}

/// Continues with the next chunks, or makes the response after the last ones.
fn copied(request: &Request, body: &ioctl::Request, written: &[u32]) -> Result<Handled, NtStatus> {
    let Fsctl::CopyChunk(copy) = Fsctl::parse(body.ctl_code, &body.input)? else {
        return Err(NtStatus::INTERNAL_ERROR);
    };
    let done = request.parts_done as usize + written.len();
    if done < copy.chunks.len() && !written.is_empty() {
        let parts = u32::try_from(written.len()).unwrap_or(u32::MAX);
        return Ok(Handled::PartsDone(parts));
    }
    Ok(reply(body, fsctl::copied(&copy.chunks)))
}

/// 3.3.5.15.6.1: the response to a copy that fails midway contains the number of chunks written.
fn not_copied(
    request: &Request,
    body: &ioctl::Request,
    status: NtStatus,
) -> Result<Handled, NtStatus> {
    let Fsctl::CopyChunk(copy) = Fsctl::parse(body.ctl_code, &body.input)? else {
        return Err(status);
    };
    let done = copy.chunks.get(..request.parts_done as usize);
    let output = fsctl::copied(done.unwrap_or_default());
    Ok(reply_with(status, body, output))
}

/// Returns a file with data whose open has one of these rights.
fn data_file(
    ctx: &Context<'_>,
    request: &Request,
    body: &ioctl::Request,
    one_of: u32,
) -> Result<OpenId, NtStatus> {
    let (open, file) = ctx.file(request, body.file_id)?;
    if file.is_dir {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if open.granted_access & one_of == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(open.id)
}

fn reply(body: &ioctl::Request, output: Vec<u8>) -> Handled {
    reply_with(NtStatus::SUCCESS, body, output)
}

/// Makes a response with this status and output.
pub(super) fn reply_with(status: NtStatus, body: &ioctl::Request, output: Vec<u8>) -> Handled {
    Handled::Reply(Reply::with_status(
        status,
        wire::Response::Ioctl(ioctl::Response {
            ctl_code: body.ctl_code,
            file_id: body.file_id,
            output: output.into(),
        }),
    ))
}
