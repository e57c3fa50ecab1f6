//! Handles acknowledgments of oplock breaks (MS-SMB2 3.3.5.22.1) and lease breaks (3.3.5.22.2).

use super::{Handled, Reply, Request};
use crate::caching;
use crate::context::Context;
use crate::record::Record;
use crate::wire::create::oplock_level;
use crate::wire::oplock_break::{Acknowledgment, LeaseBreak, OplockBreak};
use crate::wire::{FileId, Response};
use outlast_fsa::caching::Caching;
use outlast_fsa::lease::LeaseId;
use outlast_fsa::oplock::OplockLevel;
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// FILE_CLOSED, INVALID_OPLOCK_PROTOCOL for an invalid level, and if no break is in progress: a break of level II is
/// not acknowledged (MS-SMB2 specifies INVALID_DEVICE_STATE for it, but Windows and Samba return this status).
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &Acknowledgment,
) -> Result<Handled, NtStatus> {
    let (level, file_id) = match body {
        Acknowledgment::Oplock {
            oplock_level,
            file_id,
        } => (*oplock_level, *file_id),
        Acknowledgment::Lease {
            lease_key,
            lease_state,
        } => return lease(ctx, request, *lease_key, *lease_state),
    };
    if level == oplock_level::LEASE {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let (open, file) = ctx.file(request, file_id)?;
    let id = open.id;
    let breaking = file.breaking.ok_or(NtStatus::INVALID_OPLOCK_PROTOCOL)?;
    let acknowledged = match level {
        oplock_level::NONE => Some(OplockLevel::None),
        oplock_level::II if breaking.to == OplockLevel::LevelII => Some(OplockLevel::LevelII),
        _ => None,
    };
    // An invalid acknowledgment ends the oplock, too.
    ctx.emit(Record::Oplock {
        open: id,
        level: acknowledged.unwrap_or_default(),
        breaking: None,
    });
    let level = acknowledged.ok_or(NtStatus::INVALID_OPLOCK_PROTOCOL)?;
    Ok(Handled::Reply(Reply::success(Response::OplockBreak(
        OplockBreak {
            oplock_level: level as u8,
            file_id: FileId {
                persistent: id,
                volatile: id,
            },
        },
    ))))
}

/// Any connection of a lease's client may acknowledge its break.
fn lease(
    ctx: &mut Context<'_>,
    request: &Request,
    key: [u8; 16],
    state: u32,
) -> Result<Handled, NtStatus> {
    let user = ctx.session(request)?.security.user.clone();
    let id = LeaseId {
        client: ctx.connection().negotiation.client_guid,
        key,
    };
    caching::acknowledge_lease(ctx, id, user.as_deref(), Caching::from_bits(state))?;
    Ok(Handled::Reply(Reply::success(Response::LeaseBreak(
        LeaseBreak {
            lease_key: key,
            lease_state: state,
        },
    ))))
}
