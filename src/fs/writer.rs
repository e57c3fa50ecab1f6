//! Large writes, performed by a thread, so that the loop receives and acknowledges frames meanwhile.
//!
//! One at a time: no second effect is begun before the first one's result is recorded (law 5).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use outlast_fsa::fileop::Outcome;
use outlast_fsa::status::NtStatus;

use super::account::{Account, Assumed};
use super::errno::status;
use super::{attributes, data};

/// The size from which on a write is given to the thread, in bytes.
pub const LARGE_BYTES: usize = 256 << 10;

/// A large write.
pub struct Write {
    /// The file.
    pub fd: Arc<OwnedFd>,
    /// The account whose rights, quota and reserve apply.
    pub account: Arc<Account>,
    /// The server's own account.
    pub own: Arc<Account>,
    /// The offset in bytes.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// Whether the write has to be on the medium before it is done.
    pub write_through: bool,
}

/// The result of a write.
pub type Written = Result<Outcome, NtStatus>;

/// Performs a write.
///
/// # Errors
/// The answer to the client.
pub fn perform(write: &Write) -> Written {
    let assumed = Assumed::instead_of(&write.own, &write.account)?;
    let Write {
        fd,
        offset,
        data,
        write_through,
        ..
    } = write;
    let count = data::write(fd.as_fd(), *offset, data, *write_through)?;
    drop(assumed);
    attributes::note_modified(fd.as_fd()).map_err(status)?;
    Ok(Outcome::Written {
        count,
        offset: *offset,
    })
}
