//! Acknowledgment of the break of an oplock (MS-SMB2 3.3.5.22.1) or a lease (3.3.5.22.2).

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

/// As [`super::start`].
///
/// # Errors
/// FILE_CLOSED, INVALID_OPLOCK_PROTOCOL for a level it cannot be broken to, and if nothing is being broken: the break
/// of level II is not acknowledged (where MS-SMB2 has INVALID_DEVICE_STATE, Windows and Samba say this).
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
        } => return lease(ctx, *lease_key, *lease_state),
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
    // A wrong answer ends the oplock all the same.
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

/// A lease may be acknowledged by any connection of its client.
fn lease(ctx: &mut Context<'_>, key: [u8; 16], state: u32) -> Result<Handled, NtStatus> {
    let id = LeaseId {
        client: ctx.connection().negotiation.client_guid,
        key,
    };
    caching::acknowledge_lease(ctx, id, Caching::from_bits(state))?;
    Ok(Handled::Reply(Reply::success(Response::LeaseBreak(
        LeaseBreak {
            lease_key: key,
            lease_state: state,
        },
    ))))
}
