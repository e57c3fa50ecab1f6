//! Large writes, done by a thread of their own, so that the loop takes frames in and acknowledges them meanwhile.
//!
//! One at a time: no second effect is begun before the first one's result is on record (law 5).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use outlast_fsa::fileop::Outcome;
use outlast_fsa::status::NtStatus;

use super::account::{Account, Assumed};
use super::errno::status;
use super::{attributes, data};

/// Writes from this size on are worth the way to another thread and back.
pub const LARGE_BYTES: usize = 256 << 10;

/// One of them.
pub struct Write {
    /// The file.
    pub fd: Arc<OwnedFd>,
    /// Whose rights, quota and reserve count.
    pub account: Arc<Account>,
    /// The server's own account.
    pub own: Arc<Account>,
    /// Where, in bytes.
    pub offset: u64,
    /// What.
    pub data: Bytes,
    /// On the medium too before it is done.
    pub write_through: bool,
}

/// What came of it.
pub type Written = Result<Outcome, NtStatus>;

/// Does a write.
///
/// # Errors
/// What the client is to be told.
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
