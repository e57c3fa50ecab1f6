//! Descriptors that a worker inherits besides those in its arguments. Their numbers are in the environment, so that an
//! older worker ignores them.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use rustix::io::FdFlags;

/// Takes the descriptor whose number is in this variable, if the supervisor has passed one; to be called once, before
/// anything else is opened.
pub(super) fn inherited(variable: &str, is_open: impl FnOnce(RawFd) -> bool) -> Option<OwnedFd> {
    let fd: RawFd = std::env::var(variable).ok()?.parse().ok()?;
    if fd <= 2 || !is_open(fd) {
        return None;
    }
    // SAFETY: it is open, and was passed to this process for its own use by its parent.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}
