//! QUERY_INFO (MS-SMB2 3.3.5.20).

use super::{Handled, Request};
use crate::context::Context;
use crate::fileop::Outcome;
use crate::status::NtStatus;
use crate::wire::query_info;

/// As [`super::start`].
///
/// # Errors
/// The status to answer with.
pub fn start(
    _ctx: &mut Context<'_>,
    _request: &Request,
    _body: &query_info::Request,
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
    _body: &query_info::Request,
    _outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    Err(NtStatus::NOT_SUPPORTED)
}
