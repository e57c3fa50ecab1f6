//! Implements durable, resilient and persistent handles: opens that survive their connection for a limited time, and
//! that another connection of their client can reconnect (MS-SMB2 3.3.5.9.6, 3.3.5.9.7, 3.3.5.9.10, 3.3.5.9.12,
//! 3.3.5.15.9).

use super::Request;
use crate::caching;
use crate::context::Context;
use crate::record::Record;
use crate::server::{ConnId, Journal};
use crate::state::{CreateId, Durable, FileOpen, Holding, Open, Resource, Survival, Target, Wait};
use crate::wire::create::{self, DurableContext, ResponseContext};
use crate::wire::negotiate::capabilities;
use crate::wire::{self, Dialect, FileId, Flags, Malformed, compound};
use bytes::Bytes;
use outlast_fsa::access;
use outlast_fsa::caching::Caching;
use outlast_fsa::fileop::{CreateAction, OpenId};
use outlast_fsa::lease::Lease;
use outlast_fsa::oplock::OplockLevel;
use outlast_fsa::status::NtStatus;
use std::time::Duration;

/// The timeout of an open of version 1 (3.3.2.2).
const TIMEOUT: Duration = Duration::from_secs(16 * 60);
/// The timeout of an open of version 2 if the client requests none, and the longest one.
const TIMEOUT_V2: Duration = Duration::from_secs(60);
const LONGEST_V2: Duration = Duration::from_secs(300);
/// The timeout of a resilient open if the client requests none, and the longest one (MaxResiliencyTimeout).
const TIMEOUT_RESILIENT: Duration = Duration::from_secs(120);
const LONGEST_RESILIENT: Duration = Duration::from_secs(300);

/// What a context of version 2 adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Second {
    guid: [u8; 16],
    timeout: Duration,
    is_persistent: bool,
}

/// The durable handle contexts of a CREATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The CREATE has none.
    Nothing,
    /// The CREATE requests a durable open.
    Durable {
        /// With version 2.
        second: Option<Second>,
    },
    /// The CREATE reconnects an open of an ended connection.
    Reconnect {
        open: OpenId,
        /// Its CreateGuid, with version 2.
        guid: Option<[u8; 16]>,
        is_persistent: bool,
    },
}

/// Returns what the contexts of a request ask for. Contexts of version 2 are ignored before SMB 3.0.
///
/// # Errors
/// INVALID_PARAMETER for contexts that exclude each other, or are malformed.
pub(super) fn asked(
    ctx: &Context<'_>,
    request: &Request,
    body: &create::Request,
) -> Result<Asked, NtStatus> {
    let has_second = ctx.connection().negotiation.dialect >= Some(Dialect::Smb300);
    let context = body.durable().map_err(Malformed::status)?;
    Ok(match context {
        Some(DurableContext::Request) => Asked::Durable { second: None },
        Some(DurableContext::Reconnect { file_id }) => Asked::Reconnect {
            open: file_id.persistent,
            guid: None,
            is_persistent: false,
        },
        Some(DurableContext::RequestV2 {
            guid,
            timeout_ms,
            persistent,
        }) if has_second => Asked::Durable {
            second: Some(Second {
                guid,
                timeout: timeout(timeout_ms),
                is_persistent: persistent && may_persist(ctx, request)?,
            }),
        },
        Some(DurableContext::ReconnectV2 {
            file_id,
            guid,
            persistent,
        }) if has_second => Asked::Reconnect {
            open: file_id.persistent,
            guid: Some(guid),
            is_persistent: persistent,
        },
        _ => Asked::Nothing,
    })
}

/// 3.3.5.9.10: persistent handles have been negotiated, and the share is continuously available.
fn may_persist(ctx: &Context<'_>, request: &Request) -> Result<bool, NtStatus> {
    let negotiated = ctx.connection().negotiation.capabilities & capabilities::PERSISTENT_HANDLES;
    let resource = ctx.tree(request)?.resource;
    Ok(negotiated != 0 && ctx.is_continuously_available(resource))
}

fn timeout(ms: u32) -> Duration {
    match ms {
        0 => TIMEOUT_V2,
        ms => Duration::from_millis(ms.into()).min(LONGEST_V2),
    }
}

/// Makes the identity of a CREATE that may be replayed (3.3.5.9.10): also of one whose open is not durable.
pub(super) fn create_id(asked: Asked, action: CreateAction) -> Option<CreateId> {
    match asked {
        Asked::Durable {
            second: Some(second),
        } => Some(CreateId {
            guid: second.guid,
            action,
            is_replay_eligible: true,
        }),
        _ => None,
    }
}

/// Makes the durable state of a new open, if it qualifies. Unless it is persistent, it needs a batch oplock or a lease
/// with HANDLE caching: the break of it lets another open proceed. Opens of directories are not durable (3.3.5.9.6).
pub(super) fn granted(
    asked: Asked,
    is_dir: bool,
    oplock: OplockLevel,
    lease: Option<&Lease>,
) -> Option<Durable> {
    let Asked::Durable { second } = asked else {
        return None;
    };
    if is_dir {
        return None;
    }
    let caches_handle = lease.is_some_and(|lease| lease.state.has(Caching::HANDLE));
    let is_persistent = second.is_some_and(|second| second.is_persistent);
    (is_persistent || caches_handle || oplock == OplockLevel::Batch).then(|| Durable {
        survival: match is_persistent {
            true => Survival::Persistent,
            false => Survival::Durable,
        },
        timeout: second.map_or(TIMEOUT, |second| second.timeout),
        holding: Holding::Connected,
    })
}

/// Makes an open resilient (3.3.5.15.9).
///
/// # Errors
/// INVALID_DEVICE_REQUEST with SMB 2.0.2, INVALID_PARAMETER for a timeout that is too long, FILE_CLOSED.
pub(super) fn resilient(
    ctx: &mut Context<'_>,
    request: &Request,
    file_id: FileId,
    timeout_ms: u32,
) -> Result<(), NtStatus> {
    if ctx.connection().negotiation.dialect < Some(Dialect::Smb210) {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    let timeout = Duration::from_millis(timeout_ms.into());
    if timeout > LONGEST_RESILIENT {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let (open, file) = ctx.file(request, file_id)?;
    if file.is_dir {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let durable = Durable {
        survival: Survival::Resilient,
        timeout: match timeout.is_zero() {
            true => TIMEOUT_RESILIENT,
            false => timeout,
        },
        holding: Holding::Connected,
    };
    let open = open.id;
    ctx.emit(Record::Survives { open, durable });
    Ok(())
}

/// Makes the context of the response (2.2.14.2.3, 2.2.14.2.12).
pub(super) fn context(durable: &Durable, create: Option<&CreateId>) -> ResponseContext {
    match create {
        None => ResponseContext::Durable,
        Some(_) => ResponseContext::DurableV2 {
            timeout_ms: u32::try_from(durable.timeout.as_millis()).unwrap_or(u32::MAX),
            persistent: durable.survival == Survival::Persistent,
        },
    }
}

/// Returns the existing open of a request that makes none: the one to reconnect, or the one that the original of a
/// replay has made. `None`: the request makes an open.
///
/// # Errors
/// OBJECT_NAME_NOT_FOUND, ACCESS_DENIED, INVALID_PARAMETER (3.3.5.9.7, 3.3.5.9.12), DUPLICATE_OBJECTID (3.3.5.9.10).
pub(super) fn existing(
    ctx: &Context<'_>,
    request: &Request,
    body: &create::Request,
) -> Result<Option<OpenId>, NtStatus> {
    match asked(ctx, request, body)? {
        Asked::Reconnect {
            open: id,
            guid,
            is_persistent,
        } => {
            let open = ctx
                .smb
                .detached(id)
                .ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?
                .1;
            let survival = open.durable.map(|durable| durable.survival);
            if is_persistent != (survival == Some(Survival::Persistent)) {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            // A request of version 1 may reconnect an open of version 2. The CreateGuid of an open of version 1 is zero
            // (3.3.5.9).
            let made_by = open.create.map_or([0; 16], |create| create.guid);
            if guid.is_some_and(|guid| guid != made_by) {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            may_reconnect(ctx, request, body, open)?;
            Ok(Some(id))
        }
        Asked::Durable {
            second: Some(second),
        } => made_before(ctx, request, body, second.guid),
        Asked::Durable { second: None } | Asked::Nothing => Ok(None),
    }
}

/// 3.3.5.9.10: finds the open that the original of a replay has made.
fn made_before(
    ctx: &Context<'_>,
    request: &Request,
    body: &create::Request,
    guid: [u8; 16],
) -> Result<Option<OpenId>, NtStatus> {
    let client = ctx.connection().negotiation.client_guid;
    let is_replay = request.header.flags.contains(Flags::REPLAY_OPERATION);
    let Some((conn, open)) = ctx.smb.created_by(client, guid) else {
        // 3.3.5.2.10: the original still waits for the break of an oplock or lease.
        return match is_replay && is_pending(ctx, request, guid) {
            true => Err(NtStatus::FILE_NOT_AVAILABLE),
            false => Ok(None),
        };
    };
    if !is_replay {
        return Err(NtStatus::DUPLICATE_OBJECTID);
    }
    let lease = super::create::wanted_lease(ctx, body)?.map(|lease| lease.id);
    let held = match &open.target {
        Target::File(file) => file.lease.map(|lease| lease.id),
        Target::Pipe(_) => None,
    };
    if lease != held {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if open.is_detached() {
        may_reconnect(ctx, request, body, open)?;
    } else if conn != ctx.conn || open.session != request.session || open.tree != request.tree {
        return Err(NtStatus::DUPLICATE_OBJECTID);
    }
    Ok(Some(open.id))
}

/// Returns whether a CREATE of this client with this CreateGuid is waiting.
fn is_pending(ctx: &Context<'_>, request: &Request, guid: [u8; 16]) -> bool {
    let client = ctx.connection().negotiation.client_guid;
    let connections = ctx.smb.connections.iter();
    let theirs = connections.filter(|(_, connection)| connection.negotiation.client_guid == client);
    let mut parked = theirs.flat_map(|(conn, connection)| {
        connection
            .parked
            .values()
            .map(move |parked| (*conn, parked))
    });
    parked.any(|(conn, parked)| {
        let is_itself = conn == ctx.conn && parked.message_id == request.header.message_id;
        !is_itself && matches!(parked.wait, Wait::Break(_)) && creates(&parked.message, guid)
    })
}

/// Returns whether a waiting message is a CREATE with this CreateGuid.
fn creates(message: &[u8], guid: [u8; 16]) -> bool {
    let components = compound::split(&Bytes::copy_from_slice(message).into()).unwrap_or_default();
    let Some(Ok(wire::Request::Create(body))) = components.first().map(wire::Request::parse) else {
        return false;
    };
    matches!(body.durable(), Ok(Some(DurableContext::RequestV2 { guid: of, .. })) if of == guid)
}

/// Checks that the client of a request may reconnect this open.
fn may_reconnect(
    ctx: &Context<'_>,
    request: &Request,
    body: &create::Request,
    open: &Open,
) -> Result<(), NtStatus> {
    let Target::File(file) = &open.target else {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    };
    let wanted = super::create::named_lease(ctx, body)?;
    if wanted.map(|wanted| wanted.id) != file.lease.map(|lease| lease.id) {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    if ctx.tree(request)?.resource != Resource::Disk(open.actor.share) {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    if file.lease.is_some() && !is_named(body, file) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let is_read_only = super::create::is_read_only(ctx, &open.actor);
    if ctx.actor(request)? != open.actor
        || is_read_only && open.granted_access & access::CHANGING != 0
    {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(())
}

fn is_named(body: &create::Request, file: &FileOpen) -> bool {
    let named = outlast_fsa::stream::parse(&body.name);
    named.is_ok_and(|named| outlast_fsa::pattern::same_name(&named.path, &file.path))
}

/// Moves the open to the connection of this request, if it is not already there, and returns it.
///
/// # Errors
/// As [`existing`]: the open may have been closed since.
pub(super) fn reconnect(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &create::Request,
    id: OpenId,
) -> Result<Open, NtStatus> {
    if existing(ctx, request, body)? != Some(id) {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    let Some((conn, open)) = ctx.smb.detached(id) else {
        return ctx.open_by_id(request, id).cloned();
    };
    let mut open = open.clone();
    open.session = request.session;
    open.tree = request.tree;
    open.channel_sequence = request.header.channel_sequence();
    if let Some(durable) = &mut open.durable {
        durable.holding = Holding::Connected;
    }
    ctx.emit_on(conn, Record::Released { open: id });
    ctx.emit(Record::Opened(Box::new(open)));
    caching::acknowledge_unsent(ctx, id);
    ctx.open_by_id(request, id).cloned()
}

/// Begins or ends the timeout of an open without a connection.
pub(crate) fn timed_out(ctx: &mut Context<'_>, id: OpenId, durable: &Durable) {
    match durable.holding {
        Holding::Connected => {}
        Holding::Left => {
            let until = ctx.clock.now + durable.timeout;
            ctx.emit(Record::Detached { open: id, until });
        }
        Holding::Until(until) if until <= ctx.clock.now => {
            log::info!(
                "connection {}: a durable handle is closed: its client has not reconnected in time",
                ctx.conn
            );
            ctx.emit(Record::Orphaned { open: id });
        }
        Holding::Until(_) => {}
    }
}

impl crate::Smb {
    /// Returns an open without a connection, and its former connection.
    pub(crate) fn detached(&self, id: OpenId) -> Option<(ConnId, &Open)> {
        let conn = self.files.detached(id)?;
        Some((conn, self.connections.get(&conn)?.opens.get(&id)?))
    }

    /// Closes the opens that an ended connection has left for a reconnect, since there is no room for them.
    pub fn close_detached(&mut self, conn: ConnId, journal: &mut dyn Journal) {
        let opens = self.connections.get(&conn).into_iter();
        let opens = opens.flat_map(|connection| connection.opens.values());
        let detached = opens.filter(|open| open.is_detached());
        for open in detached.map(|open| open.id).collect::<Vec<_>>() {
            self.emit(conn, Record::Orphaned { open }, journal);
        }
    }

    /// Returns the open that a client has made with this CreateGuid, as long as the CREATE may be replayed.
    fn created_by(&self, client: [u8; 16], guid: [u8; 16]) -> Option<(ConnId, &Open)> {
        let mut made = self.files.created_by(guid);
        made.find_map(|(conn, id)| {
            let connection = self.connections.get(&conn)?;
            let is_theirs = connection.negotiation.client_guid == client;
            let open = connection.opens.get(&id)?;
            let is_eligible = open.create.is_some_and(|create| create.is_replay_eligible);
            (is_theirs && is_eligible && open.closing.is_none()).then_some((conn, open))
        })
    }
}
