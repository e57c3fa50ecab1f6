//! IOCTL (MS-SMB2 3.3.5.15).

use super::{Handled, Request};
use crate::context::Context;
use crate::fileop::{FileOp, Outcome};
use crate::status::NtStatus;
use crate::wire::ioctl;

/// As [`super::start`].
///
/// # Errors
/// The status to answer with.
pub fn start(
    _ctx: &mut Context<'_>,
    _request: &Request,
    _body: &ioctl::Request,
) -> Result<Handled, NtStatus> {
    Err(NtStatus::NOT_SUPPORTED)
}

/// As [`super::finish`].
///
/// # Errors
/// The status to answer with.
pub fn finish(
    _ctx: &mut Context<'_>,
    _request: &Request,
    _body: &ioctl::Request,
    _op: &FileOp,
    _outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    Err(NtStatus::NOT_SUPPORTED)
}
