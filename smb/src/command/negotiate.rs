//! NEGOTIATE (MS-SMB2 3.3.5.4) and its SMB1 form (3.3.5.3).

use super::{Handled, Request};
use crate::context::Context;
use crate::status::NtStatus;
use crate::wire::negotiate;
use bytes::Bytes;

/// As [`super::start`].
///
/// # Errors
/// The status to answer with.
pub fn start(
    _ctx: &mut Context<'_>,
    _request: &Request,
    _body: &negotiate::Request,
) -> Result<Handled, NtStatus> {
    Err(NtStatus::NOT_SUPPORTED)
}

/// SMB1's NEGOTIATE, the whole message. The reply is an SMB2 one with MessageId 0 (`Handled::Reply`), or SMB1's refusal
/// (`Handled::Foreign`).
pub fn smb1(_ctx: &mut Context<'_>, _message: &Bytes) -> Handled {
    Handled::Drop
}

/// The response's final bytes (header and body): for the preauthentication hash.
pub fn answered(_ctx: &mut Context<'_>, _response: &[u8]) {}
