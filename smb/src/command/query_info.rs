//! Handles QUERY_INFO (MS-SMB2 3.3.5.20).

use super::delete_pending;
use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::info::{Answer, access, ea, file, streams, volume};
use crate::state::{Resource, Target};
use crate::wire::create::options;
use crate::wire::query_info::{self, info_type};
use crate::wire::{self, Dialect, error};
use bytes::Bytes;
use outlast_fsa::ea::Ea;
use outlast_fsa::fileop::{FileOp, Metadata, Outcome};
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// The create options that FileModeInformation contains (MS-FSCC 2.4.31).
const MODE: u32 = options::WRITE_THROUGH
    | options::SEQUENTIAL_ONLY
    | options::NO_INTERMEDIATE_BUFFERING
    | options::SYNCHRONOUS_IO_ALERT
    | options::SYNCHRONOUS_IO_NONALERT;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// The status of the response.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &query_info::Request,
) -> Result<Handled, NtStatus> {
    let open = ctx.open(request, body.file_id)?;
    let (id, granted) = (open.id, open.granted_access);
    let limit = body.output_buffer_length as usize;
    match (&open.target, body.info_type) {
        (Target::Pipe(pipe), info_type::FILE) => {
            let level = file::Level::from_class(body.file_info_class)?;
            access::require(granted, level.needed_access())?;
            file::encode_pipe(level, pipe.available(), limit).map(reply)
        }
        (Target::Pipe(_), _) => Err(NtStatus::INVALID_DEVICE_REQUEST),
        (Target::File(_), info_type::FILE) => {
            let level = file::Level::from_class(body.file_info_class)?;
            // 3.3.5.20.1: some dialects lack these two.
            let dialect = ctx.connection().negotiation.dialect;
            let offered = match level {
                file::Level::NormalizedName => dialect >= Some(Dialect::Smb311),
                file::Level::Id => dialect >= Some(Dialect::Smb300),
                _ => true,
            };
            if !offered {
                return Err(NtStatus::NOT_SUPPORTED);
            }
            access::require(granted, level.needed_access())?;
            Ok(Handled::Op(match level {
                file::Level::Stream => FileOp::QueryStreams { open: id },
                file::Level::FullEa => {
                    ea::parse_names(&body.input)?;
                    FileOp::QueryEas { open: id }
                }
                file::Level::Ea | file::Level::All => FileOp::QueryEas { open: id },
                _ => FileOp::Stat { open: id },
            }))
        }
        (Target::File(_), info_type::FILESYSTEM) => {
            volume::Level::from_class(body.file_info_class)?;
            Ok(Handled::Op(FileOp::QueryVolume { open: id }))
        }
        (Target::File(_), info_type::SECURITY) => {
            let information = body.additional_information;
            access::require(granted, access::to_query_security(information))?;
            Ok(Handled::Op(FileOp::QuerySecurity {
                open: id,
                information,
            }))
        }
        // 3.3.5.20.4: quotas are not supported.
        (Target::File(_), info_type::QUOTA) => Err(NtStatus::NOT_SUPPORTED),
        _ => Err(NtStatus::INVALID_PARAMETER),
    }
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// The status of the response.
pub fn finish(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &query_info::Request,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    let limit = body.output_buffer_length as usize;
    match outcome? {
        Outcome::Metadata(metadata) => described(ctx, request, body, &metadata, &[]),
        Outcome::Eas { metadata, eas } => described(ctx, request, body, &metadata, &eas),
        Outcome::Streams(entries) => streams::encode(&entries, limit).map(reply),
        Outcome::Volume(figures) => {
            let Resource::Disk(share) = ctx.tree(request)?.resource else {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            };
            let share = ctx
                .config()
                .share(share)
                .ok_or(NtStatus::NETWORK_NAME_DELETED)?;
            let level = volume::Level::from_class(body.file_info_class)?;
            volume::encode(level, &figures, &share.name, share.read_only, limit).map(reply)
        }
        Outcome::Data(descriptor) => Ok(security(ctx, descriptor, limit)),
        _ => Err(NtStatus::INTERNAL_ERROR),
    }
}

/// Answers with what the file system says of the file, and with the state of its open.
fn described(
    ctx: &Context<'_>,
    request: &Request,
    body: &query_info::Request,
    metadata: &Metadata,
    eas: &[Ea],
) -> Result<Handled, NtStatus> {
    /// SL_RETURN_SINGLE_ENTRY (MS-SMB2 2.2.37).
    const SINGLE_ENTRY: u32 = 2;
    let limit = body.output_buffer_length as usize;
    let level = file::Level::from_class(body.file_info_class)?;
    if level == file::Level::FullEa {
        let mut eas = ea::select(eas.to_vec(), &ea::parse_names(&body.input)?);
        if body.flags & SINGLE_ENTRY != 0 {
            eas.truncate(1);
        }
        return ea::encode(&eas, limit).map(reply);
    }
    let (open, opened) = ctx.file(request, body.file_id)?;
    let view = file::View {
        metadata,
        path: &opened.path,
        granted_access: open.granted_access,
        mode: mode(opened.mode, opened.create_options, opened.delete_on_close),
        delete_pending: delete_pending::is_set_on(ctx, opened),
        position: opened.position,
        ea_size: ea::size(eas),
    };
    file::encode(level, &view, limit).map(reply)
}

fn reply(answer: Answer) -> Handled {
    let status = answer.status();
    let data = answer.bytes.into();
    Handled::Reply(Reply::with_status(
        status,
        wire::Response::QueryInfo(query_info::Response { data }),
    ))
}

/// Answers with a security descriptor, or with the number of bytes that it needs (MS-SMB2 3.3.5.20.3).
fn security(ctx: &Context<'_>, descriptor: Bytes, limit: usize) -> Handled {
    if descriptor.len() <= limit {
        return Handled::Reply(Reply::success(wire::Response::QueryInfo(
            query_info::Response { data: descriptor },
        )));
    }
    let needed = u32::try_from(descriptor.len()).unwrap_or(u32::MAX);
    let dialect = ctx.connection().negotiation.dialect;
    Handled::Reply(Reply::with_status(
        NtStatus::BUFFER_TOO_SMALL,
        wire::Response::Error(error::Response {
            data: Bytes::copy_from_slice(&needed.to_le_bytes()),
            in_context: dialect >= Some(Dialect::Smb311),
        }),
    ))
}

/// Returns FileModeInformation of an open.
fn mode(set: u32, create_options: u32, delete_on_close: bool) -> u32 {
    let kept = if set == 0 { create_options } else { set } & MODE;
    if delete_on_close {
        kept | options::DELETE_ON_CLOSE
    } else {
        kept
    }
}
