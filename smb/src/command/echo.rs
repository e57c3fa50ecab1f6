//! ECHO (MS-SMB2 3.3.5.17).

use super::{Handled, Reply};
use crate::status::NtStatus;
use crate::wire::Response;

/// As [`super::start`].
///
/// # Errors
/// None.
pub fn start() -> Result<Handled, NtStatus> {
    Ok(Handled::Reply(Reply::success(Response::Echo)))
}
