//! Leases: an arbiter that does not see the end of a node admits it for a time only.
//!
//! A holder that cannot renew its lease has to be silent when the lease ends. To look at the clock before each system
//! call would not be enough: a process that is stopped just after the look completes the call when it wakes. So every
//! process that can speak has a timer of the kernel that ends it by SIGKILL, which reaches a stopped process, too. It
//! fires a margin before the arbiter admits another node, and each renewal sets it anew. Its clock is CLOCK_BOOTTIME,
//! which also counts the time in which the machine is suspended.
//!
//! The supervisor renews ([`Lease`]) and writes the deadline to a page of memory ([`Deadline`]). Each worker has a
//! thread that reads the page and sets the timer of its own process ([`keep`]): the worker's loop may wait for a disk,
//! and that is no reason to end it.

use std::ffi::c_int;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::error;

use crate::shared_page::SharedPage;

/// Between two looks at the page. A renewal comes at the latest after a third of a lease, which is two seconds at
/// least.
const PACE: Duration = Duration::from_millis(100);

/// The clock of leases: CLOCK_BOOTTIME, which all processes of a machine share.
#[must_use]
pub fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// What a lease of this length is shortened by: the timer fires so long before another node may be admitted.
#[must_use]
pub fn margin(lease: Duration) -> Duration {
    (lease / 10).max(Duration::from_millis(200))
}

/// Until when this node may speak, in memory that the supervisor and its workers share.
#[derive(Clone, Debug)]
pub struct Deadline(SharedPage);

impl Deadline {
    /// One that has passed.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<Deadline> {
        SharedPage::new("outlast-lease", 8).map(Deadline)
    }

    fn set(&self, at: Duration) -> io::Result<()> {
        let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.0.set_words(0, [nanoseconds])
    }

    /// On the clock of [`now`]. A page that cannot be read says that the time is over.
    #[must_use]
    pub fn get(&self) -> Duration {
        let [nanoseconds] = self.0.words(0);
        Duration::from_nanos(nanoseconds)
    }

    /// The memory, to be inherited.
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

/// A timer of the kernel that ends this process by SIGKILL (timer_create(2)).
#[derive(Debug)]
pub struct Fuse(libc::timer_t);

// SAFETY: a timer is known to the kernel by a number, which every thread of the process may use.
unsafe impl Send for Fuse {}
// SAFETY: as above; the calls that take it change nothing in this process's memory.
unsafe impl Sync for Fuse {}

impl Fuse {
    /// One that is not set.
    ///
    /// # Errors
    /// The process has as many timers as it may have.
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

    /// Sets it to a time of the clock of [`now`], in place of any time before. One that has passed ends the process.
    ///
    /// # Errors
    /// The kernel knows the timer no more.
    pub fn set(&self, at: Duration) -> io::Result<()> {
        // Zero would switch it off (timer_settime(2)).
        self.set_raw(at.max(Duration::from_nanos(1)))
    }

    /// Switches it off.
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
        // SAFETY: the timer was made by `new`, and nobody uses it any more.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn done(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The lease of a supervisor: what the arbiter has admitted the node for, its timer, and what the workers are shown.
#[derive(Debug)]
pub struct Lease {
    fuse: Fuse,
    deadline: Deadline,
    /// Until when the node is admitted, the margin taken off; `None`: it is not.
    until: Mutex<Option<Duration>>,
}

impl Lease {
    /// Of a node that is not admitted.
    ///
    /// # Errors
    /// There is no timer, or no memory.
    pub fn new() -> io::Result<Arc<Lease>> {
        Ok(Arc::new(Lease {
            fuse: Fuse::new()?,
            deadline: Deadline::new()?,
            until: Mutex::new(None),
        }))
    }

    /// The node is admitted until then.
    ///
    /// # Errors
    /// The timer cannot be set: then it must not serve.
    pub fn begin(&self, until: Duration) -> io::Result<()> {
        self.write(&mut self.lock(), until)
    }

    /// The arbiter has renewed it. Nothing happens if the node is not admitted, or already for longer.
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

    /// The node has left the service, and no process of it speaks any more.
    pub fn end(&self) {
        let mut known = self.lock();
        *known = None;
        let ended = self.deadline.set(Duration::ZERO);
        if let Err(error) = ended.and(self.fuse.unset()) {
            // It ends the supervisor of a node that does not serve, and its service manager starts another one.
            error!("the timer of the lease cannot be switched off: {error}");
        }
    }

    /// The node is admitted now, and for so long.
    #[must_use]
    pub fn is_valid_for(&self, time: Duration) -> bool {
        self.lock().is_some_and(|until| now() + time < until)
    }

    /// What the workers inherit.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets a timer that ends this process at the deadline on the page, and a thread that follows the page. To be called
/// before the process speaks.
///
/// # Errors
/// There is no timer, or no thread.
pub fn keep(deadline: Deadline) -> io::Result<()> {
    let fuse = Fuse::new()?;
    let mut set = deadline.get();
    fuse.set(set)?;
    let follow = move || {
        loop {
            std::thread::sleep(PACE);
            let next = deadline.get();
            if next != set {
                // What cannot be set later fires at the time that it has.
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
