//! Implements leases: an arbiter that cannot detect the end of a node admits it only for a limited time.
//!
//! A holder that cannot renew its lease must be silent when the lease ends. A check of the clock before each system
//! call does not suffice: a process that is stopped just after the check completes the call when it continues. So every
//! process that can send has a kernel timer that ends it by SIGKILL, which also ends a stopped process. It fires a
//! margin before the arbiter admits another node, and each renewal resets it. Its clock is CLOCK_BOOTTIME, which also
//! counts the time in which the machine is suspended.
//!
//! The supervisor renews ([`Lease`]) and writes the deadline to a page of memory ([`Deadline`]). Each worker has a
//! thread that reads the page and sets the timer of its own process ([`keep`]): the worker's loop may wait for a disk,
//! which must not end it.

use std::ffi::c_int;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::error;

use crate::shared_page::SharedPage;

/// The interval of reads of the page. A renewal occurs after at most a third of a lease, which has at least two
/// seconds.
const PACE: Duration = Duration::from_millis(100);

/// Returns the time on the clock of leases: CLOCK_BOOTTIME, which all processes of a machine share.
#[must_use]
pub fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// Returns the margin of a lease of this length: the timer fires this long before another node may be admitted.
#[must_use]
pub fn margin(lease: Duration) -> Duration {
    (lease / 10).max(Duration::from_millis(200))
}

/// The time until which this node may send, in memory that the supervisor and its workers share.
#[derive(Clone, Debug)]
pub struct Deadline(SharedPage);

impl Deadline {
    /// Makes a deadline that has passed.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn new() -> io::Result<Deadline> {
        SharedPage::new("outlast-lease", 8).map(Deadline)
    }

    fn set(&self, at: Duration) -> io::Result<()> {
        let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.0.set_words(0, [nanoseconds])
    }

    /// Returns the deadline on the clock of [`now`]. An unreadable page counts as a passed deadline.
    #[must_use]
    pub fn get(&self) -> Duration {
        let [nanoseconds] = self.0.words(0);
        Duration::from_nanos(nanoseconds)
    }

    /// Returns the memory, for child processes to inherit.
    #[must_use]
    pub fn memory(&self) -> &SharedPage {
        &self.0
    }
}

impl From<OwnedFd> for Deadline {
    fn from(page: OwnedFd) -> Deadline {
        Deadline(page.into())
    }
}

/// A kernel timer that ends this process by SIGKILL (timer_create(2)).
#[derive(Debug)]
pub struct Fuse(libc::timer_t);

// SAFETY: a timer is known to the kernel by a number, which every thread of the process may use.
unsafe impl Send for Fuse {}
// SAFETY: as above; the calls that take it change nothing in this process's memory.
unsafe impl Sync for Fuse {}

impl Fuse {
    /// Makes a timer that is not set.
    ///
    /// # Errors
    /// The process has reached its limit of timers.
    pub fn new() -> io::Result<Fuse> {
        // SAFETY: sigevent is a plain C structure for which zeros are a value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer = std::ptr::null_mut();
        // SAFETY: both structures live across the call; the kernel fills in the timer.
        done(unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &mut event, &mut timer) })?;
        Ok(Fuse(timer))
    }

    /// Sets it to a time on the clock of [`now`], which replaces any earlier setting. A time that has passed ends the
    /// process.
    ///
    /// # Errors
    /// The kernel does not know the timer.
    pub fn set(&self, at: Duration) -> io::Result<()> {
        // Zero would disarm it (timer_settime(2)).
        self.set_raw(at.max(Duration::from_nanos(1)))
    }

    /// Disarms it.
    ///
    /// # Errors
    /// As [`Fuse::set`].
    pub fn unset(&self) -> io::Result<()> {
        self.set_raw(Duration::ZERO)
    }

    fn set_raw(&self, at: Duration) -> io::Result<()> {
        let never = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let at = libc::itimerspec {
            it_interval: never,
            it_value: libc::timespec {
                tv_sec: at.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: at.subsec_nanos().into(),
            },
        };
        let before = std::ptr::null_mut();
        // SAFETY: the timer was made by `new` and lives as long as this; the time lives across the call.
        done(unsafe { libc::timer_settime(self.0, libc::TIMER_ABSTIME, &at, before) })
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `new`, and no code uses it any more.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn done(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The lease of a supervisor: the time of its admission, its timer, and the deadline for the workers.
#[derive(Debug)]
pub struct Lease {
    fuse: Fuse,
    deadline: Deadline,
    /// The end of the admission, less the margin; `None`: the node is not admitted.
    until: Mutex<Option<Duration>>,
}

impl Lease {
    /// Makes the lease of a node that is not admitted.
    ///
    /// # Errors
    /// The kernel provides no timer, or no memory.
    pub fn new() -> io::Result<Arc<Lease>> {
        Ok(Arc::new(Lease {
            fuse: Fuse::new()?,
            deadline: Deadline::new()?,
            until: Mutex::new(None),
        }))
    }

    /// Begins the admission of the node until this time.
    ///
    /// # Errors
    /// The timer cannot be set: the node must not serve.
    pub fn begin(&self, until: Duration) -> io::Result<()> {
        self.write(&mut self.lock(), until)
    }

    /// Extends the admission after a renewal. No effect if the node is not admitted, or already for longer.
    ///
    /// # Errors
    /// As [`Lease::begin`].
    pub fn extend(&self, until: Duration) -> io::Result<()> {
        let mut known = self.lock();
        match *known {
            Some(before) if before < until => self.write(&mut known, until),
            _ => Ok(()),
        }
    }

    fn write(&self, known: &mut Option<Duration>, until: Duration) -> io::Result<()> {
        self.fuse.set(until)?;
        self.deadline.set(until)?;
        *known = Some(until);
        Ok(())
    }

    /// Ends the admission. No process of the node may send any more.
    pub fn end(&self) {
        let mut known = self.lock();
        *known = None;
        let ended = self.deadline.set(Duration::ZERO);
        if let Err(error) = ended.and(self.fuse.unset()) {
            // The timer will end the supervisor of a node that does not serve, and its service manager starts another
            // one.
            error!("the timer of the lease cannot be switched off: {error}");
        }
    }

    /// Returns whether the node is admitted for this long from now.
    #[must_use]
    pub fn is_valid_for(&self, time: Duration) -> bool {
        self.lock().is_some_and(|until| now() + time < until)
    }

    /// Returns the deadline that the workers inherit.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a timer that ends this process at the deadline on the page, and a thread that follows the page. Must be
/// called before the process sends.
///
/// # Errors
/// The kernel provides no timer, or no thread.
pub fn keep(deadline: Deadline) -> io::Result<()> {
    let fuse = Fuse::new()?;
    let mut set = deadline.get();
    fuse.set(set)?;
    let follow = move || {
        loop {
            std::thread::sleep(PACE);
            let next = deadline.get();
            if next != set {
                // A timer that cannot be set later fires at its present time.
                if let Err(error) = fuse.set(next) {
                    error!("the timer of the lease cannot be set: {error}");
                }
                set = next;
            }
        }
    };
    let thread = std::thread::Builder::new().name("lease".into());
    thread.spawn(follow).map(drop)
}

#[cfg(test)]
mod tests;
