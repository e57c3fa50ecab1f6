//! Receives messages: decrypts them, splits them into components, takes their MessageIds out of the window, and checks
//! each component before its handler is called (MS-SMB2 3.3.5.2).

use super::work_of;
use crate::command::Request;
use crate::context::Context;
use crate::record::{Record, WorkId};
use crate::state::{Security, SessionState};
use crate::wire::transform::Transform;
use crate::wire::{self, Command, Component, Dialect, FileId, Flags, Protocol, compound};
use bytes::Bytes;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::OpenId;
use outlast_fsa::status::NtStatus;
use std::sync::Arc;

/// The largest number of requests in one message of an unauthenticated client, which compounds at most NEGOTIATE and
/// SESSION_SETUP.
pub(crate) const MAX_BEFORE_LOGIN: usize = 8;

/// A decrypted and split message; kept while it is in progress, and made again from its bytes after a crash.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) components: Vec<Component>,
    /// The session by whose keys it was encrypted.
    pub(crate) sealed: Option<u64>,
}

/// The reason not to execute a message.
pub(crate) enum Fault {
    /// It is SMB1.
    Smb1(Bytes),
    /// The connection is dropped.
    Drop(String),
}

/// The reason not to call a component's handler.
pub(crate) enum Refusal {
    /// The component is answered with this status.
    Status(NtStatus),
    /// The connection is dropped.
    Drop(&'static str),
}

impl From<NtStatus> for Refusal {
    fn from(status: NtStatus) -> Refusal {
        Refusal::Status(status)
    }
}

/// Returns the message of a work, from the cache or parsed from its bytes.
pub(crate) fn open(
    ctx: &mut Context<'_>,
    id: WorkId,
    message: Option<&Pieces>,
) -> Result<Arc<Opened>, Fault> {
    let task = super::task(ctx.conn, id);
    if let Some(opened) = ctx.smb.opened.get(&task) {
        return Ok(opened.clone());
    }
    let opened = match (id, message) {
        (WorkId::Parked(id), _) => {
            let parked = ctx.connection().parked.get(&id);
            let parked =
                parked.ok_or_else(|| Fault::Drop("a request that does not wait".into()))?;
            Opened {
                components: split(&Bytes::from(parked.message.clone()).into())?,
                sealed: parked.work.sealed,
            }
        }
        (WorkId::Message, Some(message)) => open_message(ctx, message)?,
        (WorkId::Message, None) => return Err(Fault::Drop("a message that is not there".into())),
    };
    let opened = Arc::new(opened);
    ctx.smb.opened.insert(task, opened.clone());
    Ok(opened)
}

fn split(message: &Pieces) -> Result<Vec<Component>, Fault> {
    compound::split(message).map_err(|malformed| Fault::Drop(malformed.to_string()))
}

fn open_message(ctx: &Context<'_>, message: &Pieces) -> Result<Opened, Fault> {
    let dropped = |why: String| Err(Fault::Drop(why));
    match Protocol::of(&message.slice(0..Protocol::LEN).together()) {
        Ok(Protocol::Smb1) => Err(Fault::Smb1(message.together())),
        Ok(Protocol::Smb2) => Ok(Opened {
            components: split(message)?,
            sealed: None,
        }),
        Ok(Protocol::Transform) => {
            let message = message.together();
            // 3.3.5.2.1.1: an unknown session, a message that is not authentic, or content other than SMB2 ends the
            // connection.
            let transform = Transform::parse(&message).map_err(|e| Fault::Drop(e.to_string()))?;
            let session = ctx.connection().sessions.get(&transform.session_id);
            let key = session
                .and_then(|session| session.security.keys.as_ref())
                .and_then(|keys| keys.decryption.as_ref());
            let Some(key) = key else {
                return dropped("encrypted for a session that cannot be".into());
            };
            let plain = match key.open(&message) {
                Ok(plain) => Bytes::from(plain),
                Err(error) => return dropped(error.to_string()),
            };
            match Protocol::of(&plain) {
                Ok(Protocol::Smb2) => {}
                _ => return dropped("what was encrypted is not SMB2".into()),
            }
            let components = split(&plain.into())?;
            // 3.3.5.2.1.1: the SessionIds of the transform header and of the content must be equal.
            let foreign = components.iter().any(|component| {
                component.header.session_id != transform.session_id
                    && !component.header.flags.contains(Flags::RELATED_OPERATIONS)
            });
            if foreign {
                return dropped("encrypted in one session for another".into());
            }
            Ok(Opened {
                components,
                sealed: Some(transform.session_id),
            })
        }
        Ok(Protocol::Compression) => dropped("compression was not negotiated".into()),
        Err(malformed) => dropped(malformed.to_string()),
    }
}

/// Returns whether requests on this connection cost a credit for each 64 KiB (SMB2_GLOBAL_CAP_LARGE_MTU).
fn multi_credit(ctx: &Context<'_>) -> bool {
    ctx.connection().negotiation.dialect >= Some(Dialect::Smb210)
}

/// 3.3.5.2.3: takes the MessageIds of a message out of the window. Each must be in the window, once. CANCEL has no id
/// of its own.
pub(crate) fn take_message_ids(ctx: &mut Context<'_>, opened: &Opened) -> Result<(), String> {
    let is_unauthenticated = ctx.connection().valid_sessions().next().is_none();
    if is_unauthenticated && opened.components.len() > MAX_BEFORE_LOGIN {
        let requests = opened.components.len();
        return Err(format!("{requests} requests in one message before login"));
    }
    let counts = multi_credit(ctx);
    let mut ids: Vec<(u64, u16)> = Vec::with_capacity(opened.components.len());
    for Component { header, .. } in &opened.components {
        if header.command == Command::CANCEL {
            continue;
        }
        let charge = if counts {
            header.credit_charge.max(1)
        } else {
            1
        };
        let id = header.message_id;
        let end = id.saturating_add(charge.into());
        let taken = ids
            .iter()
            .any(|(other, charge)| id < other.saturating_add((*charge).into()) && *other < end);
        if taken || !ctx.connection().credits.allows(id, charge) {
            return Err(format!(
                "MessageId {id} with charge {charge} is not in the window"
            ));
        }
        ids.push((id, charge));
    }
    ctx.emit(Record::Admitted {
        ids,
        sealed: opened.sealed,
    });
    Ok(())
}

/// Checks session, signature, encryption, tree connect and chain of a component (3.3.5.2.4 to 3.3.5.2.11).
pub(crate) fn check(
    ctx: &Context<'_>,
    id: WorkId,
    request: &Request,
    component: &Component,
) -> Result<(), Refusal> {
    let command = request.header.command;
    if ctx.connection().negotiation.dialect.is_none() && command != Command::NEGOTIATE {
        return Err(Refusal::Drop("a request before NEGOTIATE"));
    }
    if command == Command::NEGOTIATE && request.sealed {
        return Err(Refusal::Drop("NEGOTIATE in an encrypted message"));
    }
    if request.header.flags.contains(Flags::RELATED_OPERATIONS) {
        let work = work_of(ctx, id);
        // 3.3.5.2.7.2: the first request of a message must not be marked as related.
        if work.is_some_and(|work| work.next == 0) {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        if let Some(status) = work.and_then(|work| work.related.failed) {
            return Err(status.into());
        }
        // A related request needs a valid session to inherit.
        if !ctx.connection().sessions.contains_key(&request.session) {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
    }
    check_signature(ctx, request, component)?;
    if matches!(
        command,
        Command::NEGOTIATE | Command::SESSION_SETUP | Command::ECHO | Command::CANCEL
    ) {
        return Ok(());
    }
    let session = ctx.session(request)?;
    if session.security.encrypt && !request.sealed {
        return Err(unprotected(&session.security));
    }
    if matches!(command, Command::LOGOFF | Command::TREE_CONNECT) {
        return Ok(());
    }
    let tree = ctx.tree(request)?;
    if tree.encrypt && !request.sealed && command != Command::TREE_DISCONNECT {
        return Err(unprotected(&session.security));
    }
    Ok(())
}

/// 3.3.5.2.4: checks that a signature is valid, and is present if the session requires one. An encrypted message needs
/// none.
fn check_signature(
    ctx: &Context<'_>,
    request: &Request,
    component: &Component,
) -> Result<(), Refusal> {
    if request.sealed {
        return Ok(());
    }
    let session = ctx.connection().sessions.get(&request.session);
    let security = session.map(|session| &session.security);
    let command = request.header.command;
    if request.header.flags.contains(Flags::SIGNED) {
        return match security {
            None if matches!(command, Command::NEGOTIATE | Command::SESSION_SETUP) => Ok(()),
            None => Err(NtStatus::USER_SESSION_DELETED.into()),
            Some(security) => match &security.keys {
                Some(keys)
                    if keys
                        .signing
                        .verify_parts(&component.bytes, component.rest.as_slice()) =>
                {
                    Ok(())
                }
                Some(_) => Err(NtStatus::ACCESS_DENIED.into()),
                // The session has no signing key: its setup is in progress, or it is a guest or anonymous.
                None => Ok(()),
            },
        };
    }
    // Reauthentication needs protection, too: a man in the middle could replace the session's user.
    let wanted = |security: &&Security| {
        security.signing_required || security.encrypt && command == Command::SESSION_SETUP
    };
    let valid = security.filter(|security| security.state == SessionState::Valid);
    match valid.filter(wanted) {
        Some(security) if command != Command::NEGOTIATE => Err(unprotected(security)),
        _ => Ok(()),
    }
}

/// Returns the refusal of a request that is not signed or encrypted as its session requires. A client that logged in
/// before the requirement does not know it: its connection is dropped, so that it negotiates and logs in again.
fn unprotected(security: &Security) -> Refusal {
    match security.raised {
        true => Refusal::Drop("it does not sign or encrypt, which is required since it logged in"),
        false => NtStatus::ACCESS_DENIED.into(),
    }
}

/// 3.3.5.2.5: checks that the charge covers the request's and the response's payload, and (3.3.5.12, 3.3.5.13) that
/// they are within the negotiated size.
pub(crate) fn check_body(
    ctx: &Context<'_>,
    request: &Request,
    body: &wire::Request,
) -> Result<(), NtStatus> {
    let Some(dialect) = ctx.connection().negotiation.dialect else {
        return Ok(());
    };
    let bytes = match body {
        wire::Request::Read(body) => body.length,
        wire::Request::Write(body) => body.data.len() as u32,
        wire::Request::Ioctl(body) => (body.input.len() as u32).max(body.max_output_response),
        wire::Request::QueryDirectory(body) => body.output_buffer_length,
        wire::Request::ChangeNotify(body) => body.output_buffer_length,
        wire::Request::QueryInfo(body) => (body.input.len() as u32).max(body.output_buffer_length),
        wire::Request::SetInfo(body) => body.data.len() as u32,
        _ => return Ok(()),
    };
    if bytes > ctx.config().max_io(dialect) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let charge = u32::from(request.header.credit_charge.max(1));
    if multi_credit(ctx) && bytes.saturating_sub(1) / 65536 + 1 > charge {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok(())
}

/// 3.3.5.2.10: refuses a modifying request that was sent before its channel failed and arrives after later ones. (No
/// session has a second channel, so no request of an earlier channel is still outstanding.)
pub(crate) fn check_channel_sequence(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &wire::Request,
) -> Result<(), NtStatus> {
    if ctx.connection().negotiation.dialect < Some(Dialect::Smb300) {
        return Ok(());
    }
    let Some(file_id) = file_id(body) else {
        return Ok(());
    };
    let Ok(open) = ctx.open(request, file_id) else {
        return Ok(());
    };
    // 3.3.1.10, IsReplayEligible: a client that names a FileId has seen the response to its CREATE.
    let is_first = open.create.is_some_and(|create| create.is_replay_eligible);
    let is_first = is_first && file_id != FileId::ANY;
    let (open, before) = (open.id, open.channel_sequence);
    let sequence = request.header.channel_sequence();
    match sequence.wrapping_sub(before) {
        0 if !is_first => Ok(()),
        0..=0x7FFF => {
            ctx.emit(Record::ChannelSequence { open, sequence });
            Ok(())
        }
        _ => match request.header.command {
            Command::WRITE | Command::SET_INFO | Command::IOCTL => {
                Err(NtStatus::FILE_NOT_AVAILABLE)
            }
            _ => Ok(()),
        },
    }
}

/// Returns the FileId of a request.
pub(crate) fn file_id(body: &wire::Request) -> Option<FileId> {
    Some(match body {
        wire::Request::Close(body) => body.file_id,
        wire::Request::Flush(body) => body.file_id,
        wire::Request::Read(body) => body.file_id,
        wire::Request::Write(body) => body.file_id,
        wire::Request::Lock(body) => body.file_id,
        wire::Request::Ioctl(body) => body.file_id,
        wire::Request::QueryDirectory(body) => body.file_id,
        wire::Request::ChangeNotify(body) => body.file_id,
        wire::Request::QueryInfo(body) => body.file_id,
        wire::Request::SetInfo(body) => body.file_id,
        wire::Request::OplockBreak(wire::oplock_break::Acknowledgment::Oplock {
            file_id, ..
        }) => *file_id,
        _ => return None,
    })
}

/// Returns the open of a request.
pub(crate) fn open_named(ctx: &Context<'_>, request: &Request) -> Option<OpenId> {
    let component = Component {
        header: request.header.clone(),
        bytes: request.bytes.clone(),
        rest: request.rest.clone(),
    };
    let id = file_id(&wire::Request::parse(&component).ok()?)?;
    ctx.open(request, id).ok().map(|open| open.id)
}
