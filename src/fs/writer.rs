//! Large writes, done by a thread of their own, so that the loop takes frames in and acknowledges them meanwhile.
//!
//! One at a time: no second effect is begun before the first one's result is on record (law 5).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded};
use outlast_smb::fileop::Outcome;
use outlast_smb::status::NtStatus;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::account::{Account, Assumed};
use super::data;

/// Writes from this size on are worth the way to another thread and back.
pub const LARGE_BYTES: usize = 256 << 10;

/// One write.
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

type Written = Result<Outcome, NtStatus>;

/// The thread, and the way to it.
pub struct Writer {
    writes: Sender<Write>,
    written: Receiver<Written>,
    /// Readable when there is an outcome.
    event: Arc<OwnedFd>,
}

impl Writer {
    /// Starts the thread; it ends with this.
    ///
    /// # Errors
    /// As `eventfd` and `clone`.
    pub fn new() -> std::io::Result<Writer> {
        let (writes, to_do) = bounded::<Write>(1);
        let (done, written) = bounded::<Written>(1);
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let wake = Arc::clone(&event);
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                for write in to_do {
                    let outcome = perform(&write);
                    // what it holds of the log is let go first
                    drop(write);
                    if done.send(outcome).is_err() {
                        return;
                    }
                    // full only if nobody has read it 2^64 times
                    let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
                }
            })?;
        Ok(Writer {
            writes,
            written,
            event,
        })
    }

    /// Begins a write. The one before has been [`Writer::finished`].
    ///
    /// # Errors
    /// INTERNAL_ERROR if the thread has ended.
    pub fn begin(&self, write: Write) -> Result<(), NtStatus> {
        self.writes
            .send(write)
            .map_err(|_| NtStatus::INTERNAL_ERROR)
    }

    /// The outcome of the write, when there is one; once.
    pub fn finished(&self) -> Option<Written> {
        // Only with its event, so that none is left to wake the loop for nothing.
        rustix::io::read(&self.event, &mut [0; 8]).ok()?;
        self.written.try_recv().ok()
    }

    /// Waits until there is an outcome.
    pub fn wait(&self) {
        let mut fds = [PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN)];
        // interrupted: the caller asks again
        let _ = poll(&mut fds, None);
    }

    /// Readable when there is an outcome.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn perform(write: &Write) -> Written {
    let _assumed = Assumed::instead_of(&write.own, &write.account)?;
    let Write {
        fd,
        offset,
        data,
        write_through,
        ..
    } = write;
    let count = data::write(fd.as_fd(), *offset, data, *write_through)?;
    Ok(Outcome::Written {
        count,
        offset: *offset,
    })
}
