//! Grants and breaks oplocks and leases (MS-SMB2 3.3.4.6, 3.3.4.7, MS-FSA 2.1.5.18) by the rules of
//! [`outlast_fsa::caching`], puts the changes on record and sends notifications to the holders.

use crate::command::durable;
use crate::config::Oplocks;
use crate::context::Context;
use crate::engine::send;
use crate::record::Record;
use crate::server::{ConnId, Smb};
use outlast_fsa::caching::{Caching, Kind, Opening, Others, grant};
use outlast_fsa::fileop::{FileKey, OpenId, ShareId};
use outlast_fsa::lease::{Lease, LeaseBreak, LeaseId, Version};
use outlast_fsa::open::FileOpen;
use outlast_fsa::oplock::{Breaking, OplockLevel};
use outlast_fsa::stream::StreamKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// The time within which a break must be acknowledged (MS-SMB2 3.3.2.1).
const BREAK_TIMEOUT: Duration = Duration::from_secs(35);

/// The largest number of opens of one lease: each change of the lease is a record for every one of them, in one commit.
pub(crate) const MAX_LEASE_OPENS: usize = 256;

/// The lease that a CREATE requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WantedLease {
    pub(crate) id: LeaseId,
    pub(crate) version: Version,
    pub(crate) state: Caching,
}

impl Smb {
    /// Returns the state of a lease, which each of its opens contains. An open that the server is about to close does
    /// not count.
    pub(crate) fn lease(&self, id: LeaseId) -> Option<Lease> {
        let mut opens = self.files.of_lease(id);
        let (conn, open) = opens.find(|(conn, open)| self.is_alive(*conn, *open))?;
        self.file(conn, open)?.lease
    }

    /// Returns the open through whose connection the notifications of a lease are sent; `None`: no open of it has a
    /// connection.
    fn lease_holder(&self, id: LeaseId) -> Option<(ConnId, OpenId)> {
        let mut opens = self.files.of_lease(id);
        opens.find(|(conn, open)| {
            self.is_alive(*conn, *open) && self.files.detached(*open).is_none()
        })
    }

    fn is_alive(&self, conn: ConnId, open: OpenId) -> bool {
        let open = self.connection(conn).opens.get(&open);
        open.is_some_and(|open| open.closing.is_none())
    }
}

/// Breaks the oplocks and leases that conflict with a new open, except its own lease. Returns whether the open must
/// wait for an acknowledgment.
pub(crate) fn break_for_open(
    ctx: &mut Context<'_>,
    key: StreamKey,
    own: Option<LeaseId>,
    breaks_no_lease: bool,
    opening: Opening,
) -> bool {
    let mut waits = false;
    for level in OplockLevel::HELD {
        for (conn, open) in holders(ctx, key, level) {
            waits |= opening.waits(level.caching(), false);
            if let Some(to) = opening.breaks(level.caching(), Kind::Oplock) {
                waits |= break_oplock(ctx, conn, open, level, OplockLevel::shared(to));
            }
        }
    }
    if breaks_no_lease {
        return waits;
    }
    for id in leases(ctx, key, own) {
        let Some(lease) = ctx.smb.lease(id) else {
            continue;
        };
        waits |= opening.waits(lease.state, lease.breaking.is_some());
        if let Some(to) = opening.breaks(lease.state, Kind::Lease) {
            waits |= break_lease(ctx, id, to);
        }
    }
    waits
}

/// Closes a durable open without a connection, instead of a break that could not be sent (3.3.4.6, 3.3.4.7).
fn close_detached(ctx: &mut Context<'_>, conn: ConnId, open: OpenId) {
    ctx.emit_on(conn, Record::Orphaned { open });
}

/// Closes the durable opens of a file's streams that have no connection, except the resilient and persistent ones.
/// Returns whether the caller must wait for their close.
pub(crate) fn close_all_detached(ctx: &mut Context<'_>, key: FileKey) -> bool {
    let opens = ctx.smb.files.opens_of_file(key);
    let detached = opens.filter(|(_, open)| may_close(ctx, *open));
    let detached: Vec<_> = detached.collect();
    for (conn, open) in &detached {
        close_detached(ctx, *conn, *open);
    }
    !detached.is_empty()
}

/// Returns whether an open has no connection, and others may require that it is closed.
fn may_close(ctx: &Context<'_>, open: OpenId) -> bool {
    let detached = ctx.smb.detached(open);
    detached.is_some_and(|(_, open)| !open.is_resilient())
}

/// Returns the opens that hold an oplock of this level, except those that the server is about to close.
fn holders(ctx: &Context<'_>, key: StreamKey, level: OplockLevel) -> Vec<(ConnId, OpenId)> {
    let holders = ctx.smb.files.opens(key).with_oplock(level);
    holders
        .filter(|(conn, open)| ctx.smb.is_alive(*conn, *open))
        .collect()
}

/// Returns the leases of a stream, except `own`.
fn leases(ctx: &Context<'_>, key: StreamKey, own: Option<LeaseId>) -> Vec<LeaseId> {
    let leases = ctx.smb.files.opens(key).leases();
    leases.filter(|id| Some(*id) != own).collect()
}

/// Breaks an oplock, unless a break is in progress. The client must acknowledge within [`BREAK_TIMEOUT`]; a break of
/// level II is not acknowledged. Returns true if the open is closed, since it has no connection: the caller must wait.
/// A resilient or persistent open without connection is not closed, and its reconnect acknowledges the break.
fn break_oplock(
    ctx: &mut Context<'_>,
    conn: ConnId,
    open: OpenId,
    level: OplockLevel,
    to: OplockLevel,
) -> bool {
    if may_close(ctx, open) {
        close_detached(ctx, conn, open);
        return true;
    }
    let file = ctx.smb.file(conn, open);
    if file.is_none_or(|file| file.breaking.is_some()) {
        return false;
    }
    let deadline = ctx.clock.now + BREAK_TIMEOUT;
    let waits = level != OplockLevel::LevelII;
    let record = Record::Oplock {
        open,
        level: if waits { level } else { to },
        breaking: waits.then_some(Breaking { to, deadline }),
    };
    ctx.emit_on(conn, record);
    if ctx.smb.files.detached(open).is_none() {
        send::oplock_break(ctx, conn, open, to);
    }
    false
}

/// Breaks a lease to `to` or less. Returns true if its opens are closed, since none has a connection: the caller must
/// wait. Resilient and persistent ones are not closed, and a reconnect acknowledges the break.
fn break_lease(ctx: &mut Context<'_>, id: LeaseId, to: Caching) -> bool {
    let Some(mut lease) = ctx.smb.lease(id).filter(|lease| !lease.state.is_within(to)) else {
        return false;
    };
    let holder = ctx.smb.lease_holder(id);
    if holder.is_none() {
        let opens: Vec<_> = ctx.smb.files.of_lease(id).collect();
        let mut is_kept = false;
        for (conn, open) in opens {
            match may_close(ctx, open) {
                true => close_detached(ctx, conn, open),
                false => is_kept = true,
            }
        }
        if !is_kept {
            return true;
        }
    }
    let notification = lease.break_to(to, ctx.clock.now + BREAK_TIMEOUT);
    set_lease(ctx, lease);
    if let (Some(notification), Some((conn, open))) = (notification, holder) {
        send::lease_break(ctx, conn, open, lease.id, notification);
    }
    false
}

/// Ends the break of an oplock or lease that began while no open of it had a connection: the response to the reconnect
/// states what is left.
pub(crate) fn acknowledge_unsent(ctx: &mut Context<'_>, open: OpenId) {
    let Some(file) = ctx.file_of(open) else {
        return;
    };
    if let Some(Breaking { to, .. }) = file.breaking {
        let record = Record::Oplock {
            open,
            level: to,
            breaking: None,
        };
        return ctx.emit(record);
    }
    let Some(mut lease) = file.lease else {
        return;
    };
    let is_connected = |of| of != open && ctx.smb.files.detached(of).is_none();
    let is_sent = ctx
        .smb
        .files
        .of_lease(lease.id)
        .any(|(_, of)| is_connected(of));
    // The connection of another open was sent the notification.
    if is_sent {
        return;
    }
    while let Some(LeaseBreak { to, .. }) = lease.breaking {
        // It cannot be refused: the state is the one that the break is to.
        let _ = lease.acknowledge(to, ctx.clock.now);
    }
    set_lease(ctx, lease);
}

/// Puts a lease's new state on record, for every open of it.
fn set_lease(ctx: &mut Context<'_>, lease: Lease) {
    for (conn, open) in ctx.smb.files.of_lease(lease.id).collect::<Vec<_>>() {
        let before = ctx.smb.file(conn, open).and_then(|file| file.lease);
        if before != Some(lease) {
            ctx.emit_on(conn, Record::Lease { open, lease });
        }
    }
}

/// Breaks the read caching of a file that an open changes (MS-FSA 2.1.4.12): all level II oplocks, also that of the
/// open itself, and all leases except its own.
pub(crate) fn tell_of_change(ctx: &mut Context<'_>, open: OpenId) {
    let Some(file) = ctx.file_of(open) else {
        return;
    };
    let (key, own) = (StreamKey::of(file), file.lease.map(|lease| lease.id));
    let shared = ctx.smb.files.opens(key).with_oplock(OplockLevel::LevelII);
    for (conn, open) in shared.collect::<Vec<_>>() {
        break_oplock(ctx, conn, open, OplockLevel::LevelII, OplockLevel::None);
    }
    for id in leases(ctx, key, own) {
        break_lease(ctx, id, Caching::NONE);
    }
}

/// Breaks the leases of a directory whose entries, or their attributes, have changed (MS-FSA 2.1.4.12, PARENT_OBJECT).
/// `spared`: the lease that the changing open names as its parent's; its client knows of the change.
pub(crate) fn break_directory(ctx: &mut Context<'_>, key: FileKey, spared: Option<LeaseId>) {
    for id in leases(ctx, key.into(), spared) {
        break_lease(ctx, id, Caching::NONE);
    }
}

/// Returns the lease that a file's lease names as its parent directory's.
pub(crate) fn parent_lease(file: &FileOpen) -> Option<LeaseId> {
    let lease = file.lease?;
    lease.version.parent(lease.id.client)
}

/// Breaks the HANDLE caching of the files beneath a directory, whose path changes (MS-FSA 2.1.5.14.11): clients that
/// keep them open for a later open close them. Returns a file of which the caller must wait for the acknowledgment.
pub(crate) fn break_handles_below(
    ctx: &mut Context<'_>,
    share: ShareId,
    directory: &str,
) -> Option<FileKey> {
    let below: BTreeSet<StreamKey> = ctx
        .smb
        .opens_below(share, directory)
        .map(StreamKey::of)
        .collect();
    let mut waits = None;
    for key in below {
        if break_handles_of(ctx, key, None) {
            waits = waits.or(Some(key.file));
        }
    }
    waits
}

/// Breaks HANDLE caching of a file whose name changes: clients that keep it open for a later open of that name close it
/// first (MS-FSA 2.1.5.14.11). Returns whether the caller must wait for an acknowledgment.
pub(crate) fn break_handles(ctx: &mut Context<'_>, open: OpenId) -> bool {
    let Some(file) = ctx.file_of(open) else {
        return false;
    };
    let (key, own) = (StreamKey::of(file), file.lease.map(|lease| lease.id));
    break_handles_of(ctx, key, own)
}

/// Breaks the HANDLE caching of a stream's leases, but for one. True: an acknowledgment has to be waited for.
pub(crate) fn break_handles_of(
    ctx: &mut Context<'_>,
    key: StreamKey,
    own: Option<LeaseId>,
) -> bool {
    let mut waits = false;
    for id in leases(ctx, key, own) {
        let state = ctx.smb.lease(id).map(|lease| lease.state);
        if let Some(state) = state.filter(|state| state.has(Caching::HANDLE)) {
            break_lease(ctx, id, state.without(Caching::HANDLE));
            waits = true;
        }
    }
    waits
}

/// Summarizes the opens of a stream, except those of the lease `own`, for [`grant`].
fn others(ctx: &Context<'_>, key: StreamKey, own: Option<LeaseId>) -> Others {
    let opens = ctx.smb.files.opens(key);
    let oplock = opens.highest_oplock();
    let leases = leases(ctx, key, own).into_iter();
    let leased = leases.filter_map(|id| ctx.smb.lease(id));
    let leased = leased.fold(Caching::NONE, |all, lease| all.or(lease.state));
    Others {
        any: opens.is_used_beside(own) || oplock != OplockLevel::None || leased != Caching::NONE,
        oplock: oplock != OplockLevel::None,
        handle_lease: leased.has(Caching::HANDLE),
        writer: oplock > OplockLevel::LevelII || leased.has(Caching::WRITE),
        locked: opens.locking().next().is_some(),
    }
}

/// Returns the oplock that a new open is granted. `looks`: it only accesses attributes of an existing file.
pub(crate) fn grant_oplock(
    ctx: &Context<'_>,
    key: StreamKey,
    looks: bool,
    wanted: OplockLevel,
) -> OplockLevel {
    if ctx.config().oplocks == Oplocks::Off || wanted == OplockLevel::None || looks {
        return OplockLevel::None;
    }
    let granted = grant(wanted.caching(), Kind::Oplock, others(ctx, key, None));
    match granted == wanted.caching() {
        true => wanted,
        false => OplockLevel::shared(granted),
    }
}

/// Returns the lease that a new open is granted or joins; `None`: its key belongs to another file, or the lease has
/// [`MAX_LEASE_OPENS`].
pub(crate) fn grant_lease(
    ctx: &mut Context<'_>,
    key: StreamKey,
    wanted: WantedLease,
) -> Option<Lease> {
    let granted = grant(wanted.state, Kind::Lease, others(ctx, key, Some(wanted.id)));
    match ctx.smb.lease(wanted.id) {
        None => Some(Lease::new(wanted.id, wanted.version, granted)),
        Some(_) if ctx.smb.leased_file(wanted.id) != Some(key) => None,
        Some(_) if ctx.smb.files.of_lease(wanted.id).count() >= MAX_LEASE_OPENS => None,
        Some(mut lease) => {
            lease.upgrade(wanted.state, granted);
            set_lease(ctx, lease);
            Some(lease)
        }
    }
}

impl Smb {
    /// Returns the stream of a lease: a LeaseKey belongs to one (MS-SMB2 3.3.5.9.8).
    pub(crate) fn leased_file(&self, id: LeaseId) -> Option<StreamKey> {
        let (conn, open) = self.files.of_lease(id).next()?;
        self.file(conn, open).map(StreamKey::of)
    }
}

/// Processes a lease break acknowledgment: the client keeps `state` (3.3.5.22.2). A ClientGuid is no secret, so the
/// acknowledgment of a user without an open of the lease is refused, except on the connection of such an open: Linux'
/// client acknowledges as the user who has mounted the share.
///
/// # Errors
/// The status of the response.
pub(crate) fn acknowledge_lease(
    ctx: &mut Context<'_>,
    id: LeaseId,
    user: Option<&str>,
    state: Caching,
) -> Result<(), outlast_fsa::NtStatus> {
    use outlast_fsa::NtStatus;
    use outlast_fsa::lease::Refusal;
    let is_theirs = |(conn, open): (ConnId, OpenId)| {
        let open = ctx.smb.connection(conn).opens.get(&open);
        conn == ctx.conn || open.is_some_and(|open| open.actor.user.as_deref() == user)
    };
    let is_theirs = ctx.smb.files.of_lease(id).any(is_theirs);
    let holder = ctx.smb.lease_holder(id).filter(|_| is_theirs);
    let lease = holder.zip(ctx.smb.lease(id));
    let ((conn, open), mut lease) = lease.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let next = lease
        .acknowledge(state, ctx.clock.now + BREAK_TIMEOUT)
        .map_err(|refusal| match refusal {
            Refusal::NotBreaking => NtStatus::UNSUCCESSFUL,
            Refusal::TooMuch => NtStatus::REQUEST_NOT_ACCEPTED,
        })?;
    set_lease(ctx, lease);
    if let Some(notification) = next {
        send::lease_break(ctx, conn, open, id, notification);
    }
    Ok(())
}

/// Processes an expired timer of an open: that of a break (3.3.6.1, 3.3.6.5) or that of a durable open.
pub(crate) fn timed_out(ctx: &mut Context<'_>, id: OpenId) {
    let Some(open) = ctx.connection().opens.get(&id) else {
        return;
    };
    if let Some(durable) = open.durable.filter(|_| open.is_detached()) {
        durable::timed_out(ctx, id, &durable);
    }
    let Some(file) = ctx.file_of(id) else {
        return;
    };
    let lease = file.lease.filter(|lease| {
        let breaking = lease
            .breaking
            .filter(|breaking| breaking.deadline <= ctx.clock.now);
        breaking.is_some()
    });
    let breaking = file
        .breaking
        .filter(|breaking| breaking.deadline <= ctx.clock.now);
    if lease.is_none() && breaking.is_none() {
        return;
    }
    log::info!(
        "connection {}: the break of an oplock or lease is not acknowledged in time",
        ctx.conn
    );
    if let Some(mut lease) = lease {
        lease.give_up();
        return set_lease(ctx, lease);
    }
    ctx.emit(Record::Oplock {
        open: id,
        level: OplockLevel::None,
        breaking: None,
    });
}
