//! Handles READ, WRITE (MS-SMB2 3.3.5.12, 3.3.5.13) and FSCTL_PIPE_TRANSCEIVE (3.3.5.15.3) on a named pipe of IPC$.
//!
//! A pipe processes a whole request as soon as it is written. A READ of an empty pipe waits (MS-FSCC 2.4.36,
//! FILE_PIPE_QUEUE_OPERATION).

use super::{Handled, Reply, Request, ioctl};
use crate::config::Config;
use crate::context::Context;
use crate::held::Held;
use crate::record::Record;
use crate::rpc::{Pipe, Server, Share};
use crate::state::{Target, Wait};
use crate::wire;
use crate::wire::{read, write};
use outlast_fsa::fileop::OpenId;
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// Handles READ on the pipe of this open, whose access has been checked.
///
/// # Errors
/// The status of the response.
pub fn read(
    ctx: &mut Context<'_>,
    request: &Request,
    open: OpenId,
    body: &read::Request,
) -> Result<Handled, NtStatus> {
    let mut pipe = pipe_of(ctx, request, open)?;
    let before = pipe.size();
    let message = match pipe.read(body.length as usize) {
        Err(NtStatus::PIPE_EMPTY) => return Ok(Handled::Wait(Wait::Pipe(open))),
        read => read?,
    };
    keep(ctx, open, pipe, before)?;
    Ok(Handled::Reply(Reply::with_status(
        message.status(),
        wire::Response::Read(read::Response {
            data: message.data.into(),
        }),
    )))
}

/// Handles WRITE on the pipe of this open, whose access has been checked.
///
/// # Errors
/// The status of the response.
pub fn write(
    ctx: &mut Context<'_>,
    request: &Request,
    open: OpenId,
    body: &write::Request,
) -> Result<Handled, NtStatus> {
    let mut pipe = pipe_of(ctx, request, open)?;
    let before = pipe.size();
    let written = pipe.write(&body.data.together(), &server(ctx.config()));
    keep(ctx, open, pipe, before)?;
    written?;
    Ok(Handled::Reply(Reply::success(wire::Response::Write(
        write::Response {
            count: u32::try_from(body.data.len()).unwrap_or(u32::MAX),
        },
    ))))
}

/// Handles FSCTL_PIPE_TRANSCEIVE: a write and a read in one request.
///
/// # Errors
/// The status of the response.
pub fn transceive(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &wire::ioctl::Request,
) -> Result<Handled, NtStatus> {
    let open = ctx.open(request, body.file_id)?.id;
    let mut pipe = pipe_of(ctx, request, open)?;
    let before = pipe.size();
    let message = pipe
        .write(&body.input, &server(ctx.config()))
        .and_then(|()| pipe.read(body.max_output_response as usize));
    keep(ctx, open, pipe, before)?;
    let message = message?;
    Ok(ioctl::reply_with(message.status(), body, message.data))
}

fn pipe_of(ctx: &Context<'_>, request: &Request, open: OpenId) -> Result<Pipe, NtStatus> {
    match &ctx.open_by_id(request, open)?.target {
        Target::Pipe(pipe) => Ok(pipe.clone()),
        Target::File(_) => Err(NtStatus::INVALID_DEVICE_REQUEST),
    }
}

/// Puts the new state of a pipe on record. The pipe keeps incomplete requests and unread answers, so it needs room in
/// the log; without room its state of `before` bytes remains.
fn keep(ctx: &mut Context<'_>, open: OpenId, pipe: Pipe, before: usize) -> Result<(), NtStatus> {
    let more = pipe.size().saturating_sub(before);
    if !ctx.smb.may_take(ctx.conn, Held::bytes(more)) {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    ctx.emit(Record::Pipe {
        open,
        pipe: Box::new(pipe),
    });
    Ok(())
}

/// Returns what the interfaces report about this server.
fn server(config: &Config) -> Server<'_> {
    Server {
        name: &config.name,
        comment: "Outlast",
        shares: config
            .shares
            .iter()
            .map(|share| Share {
                name: &share.name,
                comment: &share.comment,
            })
            .collect(),
    }
}
