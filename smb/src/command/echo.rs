//! Handles ECHO (MS-SMB2 3.3.5.17).

use super::{Handled, Reply};
use crate::wire::Response;
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// None.
pub fn start() -> Result<Handled, NtStatus> {
    Ok(Handled::Reply(Reply::success(Response::Echo)))
}
