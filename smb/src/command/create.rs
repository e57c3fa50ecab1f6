//! Handles CREATE (MS-SMB2 3.3.5.9, MS-FSA 2.1.5.1).

use super::{Handled, Reply, Request};
use super::{delete_pending, durable};
use crate::caching::{self, WantedLease};
use crate::config::Oplocks;
use crate::context::Context;
use crate::held::Held;
use crate::info::ea;
use crate::record::Record;
use crate::rpc::Pipe;
use crate::size;
use crate::state::{Open, Resource, Target, Wait};
use crate::streams;
use crate::wire::create::{self, LeaseContext, ResponseContext, context, oplock_level, options};
use crate::wire::negotiate::capabilities;
use crate::wire::{Dialect, FileId, Malformed, Response};
use bytes::Bytes;
use outlast_fsa::caching::{Caching, Opening};
use outlast_fsa::fileop::{
    Actor, CreateAction, CreateIntent, CreateOp, Created, Disposition, FileHandle, FileOp, Intent,
    Metadata, OpenId, Outcome,
};
use outlast_fsa::lease::{Lease, LeaseId, Version};
use outlast_fsa::open::FileOpen;
use outlast_fsa::oplock::OplockLevel;
use outlast_fsa::sharing::{Sharing, share_access};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream::{self, Kind, Named, StreamKey};
use outlast_fsa::{access, attributes};

/// The bits of CreateOptions that are not options (MS-SMB2 2.2.13).
const NO_OPTIONS: u32 = 0xFF00_0000;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// Those of MS-SMB2 3.3.5.9 and MS-FSA 2.1.5.1.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &create::Request,
) -> Result<Handled, NtStatus> {
    let resource = ctx.tree(request)?.resource;
    // A CREATE that is redone was admitted before.
    if request.intent.is_none() {
        make_room(ctx, body)?;
    }
    if resource == Resource::Ipc {
        return pipe(ctx, request, body);
    }
    if let Some(open) = durable::existing(ctx, request, body)? {
        return Ok(Handled::Op(FileOp::Stat { open }));
    }
    validate(body)?;
    // MS-FSA 2.1.5.1: a name with a trailing backslash is that of a directory.
    if has(body, options::NON_DIRECTORY_FILE) && body.name.ends_with('\\') {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let allocation_size = match body.context(context::ALLOCATION_SIZE) {
        None => 0,
        Some(data) => {
            let bytes = data
                .as_ref()
                .try_into()
                .map_err(|_| NtStatus::INVALID_PARAMETER)?;
            u64::from_le_bytes(bytes)
        }
    };
    let eas = body.context(context::EA_BUFFER).map(|data| ea::parse(data));
    wanted_lease(ctx, body)?;
    let named = stream::parse(&body.name)?;
    let (must_be_dir, must_be_file) = kind(body, &named)?;
    let asked = access::expand(body.desired_access);
    let delete_on_close = has(body, options::DELETE_ON_CLOSE);
    let open = match request.drawn {
        Some(id) => id,
        None => ctx.unique_id(),
    };
    Ok(Handled::Op(FileOp::Create(CreateOp {
        open,
        path: named.path,
        disposition: body.create_disposition,
        must_be_dir,
        must_be_file,
        open_reparse: has(body, options::OPEN_REPARSE_POINT),
        read_data: asked & access::READS != 0,
        write_data: asked & access::WRITES != 0,
        delete: delete_on_close || asked & access::DELETE != 0,
        maximum_allowed: asked & access::MAXIMUM_ALLOWED != 0,
        attributes: body.file_attributes & !attributes::NORMAL,
        allocation_size,
        eas: eas.transpose()?.unwrap_or_default(),
    })))
}

/// MS-FSA 2.1.5.1: returns whether the name or the options require a directory, and whether they require a file.
fn kind(body: &create::Request, named: &Named) -> Result<(bool, bool), NtStatus> {
    let directory = has(body, options::DIRECTORY_FILE);
    let file = has(body, options::NON_DIRECTORY_FILE);
    let is_stream = stream::split(&named.path).1.is_some();
    match named.kind {
        Some(Kind::Directory) if file => Err(NtStatus::FILE_IS_A_DIRECTORY),
        Some(Kind::Directory) => Ok((true, false)),
        Some(Kind::Data) if directory => Err(NtStatus::NOT_A_DIRECTORY),
        None if is_stream && directory => Err(NtStatus::NOT_A_DIRECTORY),
        Some(Kind::Data) => Ok((false, true)),
        None => Ok((directory, file)),
    }
}

fn make_room(ctx: &Context<'_>, body: &create::Request) -> Result<(), NtStatus> {
    let one = Held {
        opens: 1,
        ..Held::default()
    };
    if !ctx.smb.may_take(ctx.conn, one) {
        return Err(NtStatus::TOO_MANY_OPENED_FILES);
    }
    let bytes = size::OPENING + body.name.len();
    match ctx.smb.may_take(ctx.conn, Held::bytes(bytes)) {
        true => Ok(()),
        false => Err(NtStatus::INSUFFICIENT_RESOURCES),
    }
}

/// Returns the requested lease (3.3.5.9.8, 3.3.5.9.11); a lease with an epoch requires SMB 3.0.
pub(super) fn wanted_lease(
    ctx: &Context<'_>,
    body: &create::Request,
) -> Result<Option<WantedLease>, NtStatus> {
    match ctx.config().oplocks {
        Oplocks::On if body.requested_oplock_level == oplock_level::LEASE => named_lease(ctx, body),
        _ => Ok(None),
    }
}

/// Returns the identity of the lease that a request names.
pub(super) fn named_lease(
    ctx: &Context<'_>,
    body: &create::Request,
) -> Result<Option<WantedLease>, NtStatus> {
    let negotiation = &ctx.connection().negotiation;
    if negotiation.capabilities & capabilities::LEASING == 0 {
        return Ok(None);
    }
    let lease = body.lease().map_err(Malformed::status)?;
    let counted = negotiation.dialect >= Some(Dialect::Smb300);
    Ok(lease.map(|lease| WantedLease {
        id: LeaseId {
            client: negotiation.client_guid,
            key: lease.key,
        },
        version: match lease.second.filter(|_| counted) {
            None => Version::One,
            Some((epoch, parent)) => Version::Two { epoch, parent },
        },
        state: Caching::from_bits(lease.state),
    }))
}

fn wanted_oplock(body: &create::Request) -> OplockLevel {
    match body.requested_oplock_level {
        oplock_level::II => OplockLevel::LevelII,
        oplock_level::EXCLUSIVE => OplockLevel::Exclusive,
        oplock_level::BATCH => OplockLevel::Batch,
        _ => OplockLevel::None,
    }
}

fn has(body: &create::Request, option: u32) -> bool {
    body.create_options & option != 0
}

fn overwrites(disposition: Disposition) -> bool {
    matches!(
        disposition,
        Disposition::Supersede | Disposition::Overwrite | Disposition::OverwriteIf
    )
}

/// Validates a request as far as possible without the file.
fn validate(body: &create::Request) -> Result<(), NtStatus> {
    if has(body, options::OPEN_BY_FILE_ID | options::RESERVE_OPFILTER) {
        return Err(NtStatus::NOT_SUPPORTED);
    }
    let (directory, file) = (options::DIRECTORY_FILE, options::NON_DIRECTORY_FILE);
    if has(body, NO_OPTIONS)
        || (has(body, directory) && has(body, file))
        || (has(body, directory) && overwrites(body.create_disposition))
        || body.share_access & !share_access::ALL != 0
        || body.file_attributes & attributes::NO_FILE != 0
    {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    access::validate(body.desired_access)?;
    let asked = access::expand(body.desired_access);
    if has(body, options::DELETE_ON_CLOSE)
        && asked & (access::DELETE | access::MAXIMUM_ALLOWED) == 0
    {
        return Err(NtStatus::ACCESS_DENIED);
    }
    // Previous versions are not supported.
    if body.context(context::TIMEWARP_TOKEN).is_some() {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    Ok(())
}

/// Returns the file that was found: for a named stream, that with the stream.
fn file(found: &CreateIntent) -> Option<&Metadata> {
    found.base.as_ref().or(found.existing.as_ref())
}

/// Returns GrantedAccess, and the access for the checks of share modes and oplocks (an overwrite counts as a write).
fn granted(
    body: &create::Request,
    read_only_share: bool,
    found: &CreateIntent,
) -> Result<(u32, u32), NtStatus> {
    let mut maximal = found.maximal_access;
    if read_only_share {
        maximal &= !access::CHANGING;
    }
    let is_read_only =
        file(found).is_some_and(|file| file.attributes & attributes::READONLY != 0 && !file.is_dir);
    if is_read_only {
        // MS-FSA 2.1.5.1.2.1.
        maximal &= !(access::WRITE_DATA | access::APPEND_DATA | access::DELETE_CHILD);
    }
    let granted = access::grant(body.desired_access, maximal)?;
    let replaces = found.existing.is_some() && overwrites(body.create_disposition);
    let implied = match body.create_disposition {
        _ if !replaces => 0,
        Disposition::Supersede => access::DELETE | access::WRITE_DATA,
        _ => access::WRITE_DATA,
    };
    if (found.existing.is_none() || replaces) && read_only_share {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if implied & access::WRITE_DATA & !maximal != 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if has(body, options::DELETE_ON_CLOSE) {
        if granted & access::DELETE == 0 {
            return Err(NtStatus::ACCESS_DENIED);
        }
        // MS-FSA 2.1.5.1: a read-only file, existing or new, must not be deleted on close.
        if is_read_only
            || (found.existing.is_none() && body.file_attributes & attributes::READONLY != 0)
        {
            return Err(NtStatus::CANNOT_DELETE);
        }
    }
    Ok((granted, granted | implied))
}

pub(super) fn is_read_only(ctx: &Context<'_>, actor: &Actor) -> bool {
    ctx.config()
        .share(actor.share)
        .is_none_or(|share| share.read_only)
}

/// Checks rights, delete-pending marks, oplocks and share modes of the file that was found. `Some`: the request must
/// wait for a break.
///
/// # Errors
/// ACCESS_DENIED, CANNOT_DELETE, DELETE_PENDING, SHARING_VIOLATION.
pub(crate) fn admit(
    ctx: &mut Context<'_>,
    body: &create::Request,
    actor: &Actor,
    op: &CreateOp,
    found: &CreateIntent,
    has_waited: bool,
) -> Result<Option<Wait>, NtStatus> {
    let (_, judged) = granted(body, is_read_only(ctx, actor), found)?;
    let lease = wanted_lease(ctx, body)?.map(|lease| lease.id);
    let key = file(found).map(|file| StreamKey::new(file.key, &found.path));
    let leased = lease.and_then(|lease| ctx.smb.leased_file(lease));
    // 3.3.5.9.8: a LeaseKey belongs to one file.
    if leased.is_some() && leased != key {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let Some(key) = key else {
        return Ok(None);
    };
    // MS-FSA 2.1.5.1.2.
    if delete_pending::is_set(ctx, key.file, found.directory, &found.path) {
        return Err(NtStatus::DELETE_PENDING);
    }
    let sharing = Sharing::of(judged, body.share_access);
    // MS-FSA 2.1.5.1.2.2: the deletion and the overwriting of a file delete its named streams.
    let deletes = judged & access::DELETE != 0 || overwrites(op.disposition);
    let kept = match deletes && key.stream.is_default() {
        true => streams::excluding_deletion(ctx, key.file),
        false => Vec::new(),
    };
    let opening = Opening {
        violates_sharing: ctx.smb.files.opens(key).exclude(sharing) || !kept.is_empty(),
        overwrites: overwrites(op.disposition),
        has_waited,
    };
    if !access::only_looks(judged) {
        let looks = access::breaks_no_lease(judged);
        let mut waits = false;
        for key in kept.into_iter().chain([key]) {
            waits |= caching::break_for_open(ctx, key, lease, looks, opening);
        }
        if waits {
            return Ok(Some(Wait::Break(key.file)));
        }
    }
    match opening.violates_sharing {
        true => Err(NtStatus::SHARING_VIOLATION),
        false => Ok(None),
    }
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// The status that the file system returns.
pub fn finish(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &create::Request,
    op: &FileOp,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    let (op, created) = match (op, outcome?) {
        (FileOp::Create(op), Outcome::Created(created)) => (op, created),
        (FileOp::Stat { open }, Outcome::Metadata(metadata)) => {
            let open = durable::reconnect(ctx, request, body, *open)?;
            return Ok(Handled::Reply(reconnected(body, &open, metadata)));
        }
        _ => return Err(NtStatus::INTERNAL_ERROR),
    };
    let Some(Intent::Create(found)) = &request.intent else {
        return Err(NtStatus::INTERNAL_ERROR);
    };
    let actor = ctx.actor(request)?;
    let (granted_access, _) = granted(body, is_read_only(ctx, &actor), found)?;
    let metadata = &created.metadata;
    let oplock = match metadata.is_dir {
        true => OplockLevel::None,
        false => wanted_oplock(body),
    };
    let looks = created.action == CreateAction::Opened && access::only_looks(granted_access);
    let key = StreamKey::new(metadata.key, &created.path);
    let oplock = caching::grant_oplock(ctx, key, looks, oplock);
    let wanted = wanted_lease(ctx, body)?;
    if created.action != CreateAction::Opened {
        let parent = wanted.and_then(|lease| lease.version.parent(lease.id.client));
        caching::break_directory(ctx, found.directory, parent);
    }
    let lease = match metadata.is_dir {
        true => wanted.and_then(|lease| of_directory(ctx, lease)),
        false => wanted,
    };
    let lease = lease.and_then(|lease| caching::grant_lease(ctx, key, lease));
    let mut response = response(body, op.open, oplock, &created, found.maximal_access);
    if let Some(lease) = &lease {
        response.oplock_level = oplock_level::LEASE;
        response.contexts.push(lease_context(lease));
    }
    let asked = durable::asked(ctx, request, body)?;
    let create = durable::create_id(asked, created.action);
    let durable = durable::granted(asked, metadata.is_dir, oplock, lease.as_ref());
    let context = durable.map(|durable| durable::context(&durable, create.as_ref()));
    response.contexts.extend(context);
    let open = Open {
        id: op.open,
        session: request.session,
        tree: request.tree,
        actor,
        granted_access,
        channel_sequence: request.header.channel_sequence(),
        target: Target::File(FileOpen {
            handle: created.handle.clone(),
            directory: found.directory,
            share_access: body.share_access,
            create_options: body.create_options,
            delete_on_close: has(body, options::DELETE_ON_CLOSE),
            oplock,
            lease,
            ..FileOpen::new(metadata.key, created.path.clone(), metadata.is_dir)
        }),
        closing: None,
        durable,
        create,
    };
    ctx.emit(Record::Opened(Box::new(open)));
    Ok(Handled::Reply(Reply::success(Response::Create(response))))
}

/// 3.3.5.9.8, 3.3.5.9.11: a directory has leases of version 2 only, and no WRITE caching.
fn of_directory(ctx: &Context<'_>, wanted: WantedLease) -> Option<WantedLease> {
    let negotiated = ctx.connection().negotiation.capabilities & capabilities::DIRECTORY_LEASING;
    let lease = WantedLease {
        state: wanted.state.without(Caching::WRITE),
        ..wanted
    };
    (negotiated != 0 && lease.version != Version::One).then_some(lease)
}

fn response(
    body: &create::Request,
    open: OpenId,
    oplock: OplockLevel,
    created: &Created,
    maximal_access: u32,
) -> create::Response {
    let metadata = &created.metadata;
    let mut contexts = Vec::new();
    if let Some(data) = body.context(context::QUERY_MAXIMAL_ACCESS) {
        contexts.extend(maximal(data, metadata.last_write_time, maximal_access));
    }
    if body.context(context::QUERY_ON_DISK_ID).is_some() {
        contexts.push(ResponseContext::OnDiskId {
            file_id: metadata.key.ino,
            volume_id: metadata.key.dev,
        });
    }
    create::Response {
        oplock_level: oplock as u8,
        create_action: created.action,
        creation_time: metadata.creation_time,
        last_access_time: metadata.last_access_time,
        last_write_time: metadata.last_write_time,
        change_time: metadata.change_time,
        allocation_size: metadata.allocation_size,
        end_of_file: metadata.end_of_file,
        file_attributes: metadata.attributes,
        file_id: FileId {
            persistent: open,
            volatile: open,
        },
        contexts,
    }
}

/// Makes the response to a request that makes no open: it reconnects one, or is the replay of the request that made it.
fn reconnected(body: &create::Request, open: &Open, metadata: Metadata) -> Reply {
    let (lease, oplock) = match &open.target {
        Target::File(file) => (file.lease, file.oplock),
        Target::Pipe(_) => (None, OplockLevel::None),
    };
    let created = Created {
        action: CreateAction::Opened,
        metadata,
        handle: FileHandle::default(),
        path: String::new(),
        made_file: false,
    };
    let is_replay = body.context(context::DURABLE_HANDLE_REQUEST_V2).is_some();
    // A replay that asks for a lower oplock than its CREATE did is answered with that one, as by Windows.
    let oplock = match is_replay {
        true => oplock.min(wanted_oplock(body)),
        false => oplock,
    };
    let mut response = response(body, open.id, oplock, &created, open.granted_access);
    if let Some(lease) = &lease {
        response.oplock_level = oplock_level::LEASE;
        response.contexts.push(lease_context(lease));
    }
    if let (true, Some(create)) = (is_replay, &open.create) {
        response.create_action = create.action;
        let is_offered = lease.is_some() || oplock == OplockLevel::Batch || open.is_resilient();
        let durable = open.durable.filter(|_| is_offered);
        let context = durable.map(|durable| durable::context(&durable, Some(create)));
        response.contexts.extend(context);
    }
    Reply::success(Response::Create(response))
}

fn lease_context(lease: &Lease) -> ResponseContext {
    ResponseContext::Lease {
        lease: LeaseContext {
            key: lease.id.key,
            state: lease.state.bits(),
            second: match lease.version {
                Version::One => None,
                Version::Two { epoch, parent } => Some((epoch, parent)),
            },
        },
        breaking: lease.breaking.is_some(),
    }
}

/// 3.3.5.9.5: answers SMB2_CREATE_QUERY_MAXIMAL_ACCESS_REQUEST, with NONE_MAPPED if the request's timestamp is the
/// file's LastWriteTime.
fn maximal(data: &Bytes, last_write_time: u64, access: u32) -> Option<ResponseContext> {
    /// STATUS_NONE_MAPPED.
    const NONE_MAPPED: NtStatus = NtStatus(0xC000_0073);
    let known = <[u8; 8]>::try_from(data.as_ref()).map(u64::from_le_bytes);
    Some(match known {
        Ok(known) if known != 0 && known == last_write_time => ResponseContext::MaximalAccess {
            status: NONE_MAPPED,
            access: 0,
        },
        _ => ResponseContext::MaximalAccess {
            status: NtStatus::SUCCESS,
            access,
        },
    })
}

/// Opens a named pipe of IPC$.
fn pipe(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &create::Request,
) -> Result<Handled, NtStatus> {
    access::validate(body.desired_access)?;
    let name = body.name.strip_prefix('\\').unwrap_or(&body.name);
    let pipe = Pipe::open(name).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let all = access::FILE_GENERIC_READ | access::FILE_GENERIC_WRITE | access::FILE_GENERIC_EXECUTE;
    let asked = access::expand(body.desired_access);
    let granted_access = match asked & access::MAXIMUM_ALLOWED {
        0 => asked,
        _ => asked & !access::MAXIMUM_ALLOWED | all,
    };
    let actor = Actor {
        share: u32::MAX,
        user: ctx.session(request)?.security.user.clone(),
    };
    let id = ctx.unique_id();
    ctx.emit(Record::Opened(Box::new(Open {
        id,
        session: request.session,
        tree: request.tree,
        actor,
        granted_access,
        channel_sequence: request.header.channel_sequence(),
        target: Target::Pipe(pipe),
        closing: None,
        durable: None,
        create: None,
    })));
    let response = create::Response {
        oplock_level: oplock_level::NONE,
        create_action: CreateAction::Opened,
        creation_time: 0,
        last_access_time: 0,
        last_write_time: 0,
        change_time: 0,
        allocation_size: 4096,
        end_of_file: 0,
        file_attributes: attributes::NORMAL,
        file_id: FileId {
            persistent: id,
            volatile: id,
        },
        contexts: Vec::new(),
    };
    Ok(Handled::Reply(Reply::success(Response::Create(response))))
}
