//! Acknowledgment of an oplock break (MS-SMB2 3.3.5.22.1).

use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::record::Record;
use crate::wire::create::oplock_level;
use crate::wire::oplock_break::{Acknowledgment, OplockBreak};
use crate::wire::{FileId, Response};
use outlast_fsa::oplock::OplockLevel;
use outlast_fsa::status::NtStatus;

/// As [`super::start`].
///
/// # Errors
/// FILE_CLOSED, INVALID_OPLOCK_PROTOCOL for a level it cannot be broken to, and if nothing is being broken: the break of level II
/// is not acknowledged (where MS-SMB2 has INVALID_DEVICE_STATE, Windows and Samba say this).
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
        // 3.3.5.22.2: no lease is ever granted.
        Acknowledgment::Lease { .. } => return Err(NtStatus::OBJECT_NAME_NOT_FOUND),
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
