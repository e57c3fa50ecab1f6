//! Keeps the segments that reach the TAP of a node on standby, on a thread: the supervisor waits for the arbiter.
//!
//! It only reads. No frame is answered before this node has the service.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::debug;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::tap::{Kept, Tap};

/// The time between two readings of the queue: it has room for the frames of much more, and each reading costs.
const PACE: Duration = Duration::from_millis(2);
/// The niceness of the thread, relative to the supervisor.
const NICENESS: i32 = 5;

/// The thread, which ends when this is dropped.
pub(super) struct Listening {
    over: Arc<OwnedFd>,
    began: Instant,
    thread: Option<JoinHandle<Kept>>,
}

impl Listening {
    /// Starts it.
    ///
    /// # Errors
    /// There is no eventfd, or no thread.
    pub(super) fn start(tap: Tap) -> io::Result<Listening> {
        let over = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let began = Instant::now();
        let until = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("listening".into());
        let thread = thread.spawn(move || {
            // A failure only costs other threads some time.
            let _ = rustix::process::nice(NICENESS);
            let mut kept = Kept::default();
            if let Err(error) = listen(&tap, &until, began, &mut kept) {
                debug!("nothing more is received while on standby: {error}");
            }
            kept
        })?;
        Ok(Listening {
            over,
            began,
            thread: Some(thread),
        })
    }

    /// Ends it, and returns the segments of the last second.
    pub(super) fn end(mut self) -> Vec<Vec<u8>> {
        let kept = self.join().unwrap_or_default();
        kept.take(self.began.elapsed()).collect()
    }

    fn join(&mut self) -> Option<Kept> {
        let _ = rustix::io::write(&self.over, &1_u64.to_ne_bytes());
        self.thread.take()?.join().ok()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.join();
    }
}

/// Reads until `over`. What arrives in the end stays in the queue, where the worker finds it.
fn listen(tap: &Tap, over: &OwnedFd, began: Instant, kept: &mut Kept) -> io::Result<()> {
    while !is_over(over, Some(tap), None)? {
        kept.receive(tap, began.elapsed())?;
        if is_over(over, None, Some(PACE))? {
            break;
        }
    }
    Ok(())
}

/// Waits for the end, or for a frame of `tap`, or for so long; returns whether it is the end.
fn is_over(over: &OwnedFd, tap: Option<&Tap>, timeout: Option<Duration>) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(over, PollFlags::IN)];
    fds.extend(tap.map(|tap| PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN)));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
