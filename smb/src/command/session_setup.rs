//! SESSION_SETUP (MS-SMB2 3.3.5.5).

use super::{Handled, Request};
use crate::context::Context;
use crate::status::NtStatus;
use crate::wire::session_setup;

/// As [`super::start`].
///
/// # Errors
/// The status to answer with.
pub fn start(
    _ctx: &mut Context<'_>,
    _request: &Request,
    _body: &session_setup::Request,
) -> Result<Handled, NtStatus> {
    Err(NtStatus::NOT_SUPPORTED)
}

/// The response's final bytes (header and body), for the preauthentication hash of `session`; called for every SESSION_SETUP that is
/// answered with MORE_PROCESSING_REQUIRED.
pub fn answered(_ctx: &mut Context<'_>, _session: u64, _response: &[u8]) {}
