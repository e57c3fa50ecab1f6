//! READ and WRITE on a named pipe of IPC$ (MS-SMB2 3.3.5.12, 3.3.5.13).

use super::{Handled, Request};
use crate::context::Context;
use crate::fileop::OpenId;
use crate::status::NtStatus;
use crate::wire::{read, write};

/// READ on the pipe of this open; its access has been checked.
///
/// # Errors
/// The status to answer with.
pub fn read(
    _ctx: &mut Context<'_>,
    _request: &Request,
    _open: OpenId,
    _body: &read::Request,
) -> Result<Handled, NtStatus> {
    Err(NtStatus::NOT_SUPPORTED)
}

/// WRITE on the pipe of this open; its access has been checked.
///
/// # Errors
/// The status to answer with.
pub fn write(
    _ctx: &mut Context<'_>,
    _request: &Request,
    _open: OpenId,
    _body: &write::Request,
) -> Result<Handled, NtStatus> {
    Err(NtStatus::NOT_SUPPORTED)
}
