//! Ends a worker without waiting for the unmapping of its address space.
//!
//! The kernel unmaps a dead process's address space page by page before its parent is notified: 15 ms for an NVRAM of
//! 256 MiB, and more in proportion. Clients wait all that time. So a second process shares the worker's address space,
//! and nothing else. It only waits. When the worker ends, its parent is notified at once, because the mappings still
//! have a user, and the second process unmaps them while the next worker starts.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::pipe::PipeFlags;

/// Words of its stack; it makes a few system calls only.
const STACK_WORDS: usize = 1024;

/// The arguments of the second process. They live as long as the address space.
struct Task {
    /// The worker has ended when this pipe has.
    end: RawFd,
    /// The worker's other descriptors, of which the second process gets copies.
    others: Vec<RawFd>,
}

/// Held by the worker until its end, whatever its cause.
#[derive(Debug)]
pub struct Teardown {
    _pipe: OwnedFd,
    /// The second process.
    #[cfg(test)]
    pid: libc::pid_t,
}

impl Teardown {
    /// Starts the second process. `open`: the descriptors that this process has open besides its standard ones, of
    /// which the second process must hold none.
    ///
    /// # Errors
    /// The kernel provides no pipe, or no process.
    pub fn start(open: &[RawFd]) -> io::Result<Teardown> {
        let (end, pipe) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let others = [0, 1, 2, pipe.as_raw_fd()];
        let task = Box::leak(Box::new(Task {
            end: end.as_raw_fd(),
            others: others.into_iter().chain(open.iter().copied()).collect(),
        }));
        let stack = Box::leak(Box::new([0_u128; STACK_WORDS]));
        let signals = Blocked::all()?;
        // SAFETY: the stack and the task are never freed. The new process has its own tables of descriptors and signal
        // handlers; of the shared memory it writes only its stack, because `wait_for_end` makes raw system calls only.
        // In particular it does not touch errno, which would be the calling thread's.
        let pid = unsafe {
            libc::clone(
                wait_for_end,
                stack.as_mut_ptr_range().end.cast(),
                libc::CLONE_VM | libc::SIGCHLD,
                std::ptr::from_mut(task).cast(),
            )
        };
        drop(signals);
        match pid {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Teardown {
                _pipe: pipe,
                #[cfg(test)]
                pid,
            }),
        }
    }
}

/// The second process. Its signals are blocked, so that a signal to the whole group, as by Ctrl-C, does not end it.
extern "C" fn wait_for_end(task: *mut c_void) -> c_int {
    // SAFETY: `start` has passed a task that is never freed.
    let task = unsafe { &*task.cast::<Task>() };
    for fd in &task.others {
        // SAFETY: the descriptors are this process's copies, which nothing else here uses.
        unsafe { rustix::io::close(*fd) };
    }
    // The next worker has priority.
    let _ = rustix::process::setpriority_process(None, 19);
    // SAFETY: the pipe's reading end has been copied with the other descriptors and is not closed here.
    let end = unsafe { std::os::fd::BorrowedFd::borrow_raw(task.end) };
    // Nothing is ever written to it.
    let _ = rustix::io::retry_on_intr(|| rustix::io::read(end, &mut [0; 1][..]));
    0
}

/// Blocks all signals in the calling thread until this is dropped.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn all() -> io::Result<Blocked> {
        // SAFETY: sigset_t is a plain C structure for which zeros are a value.
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        // SAFETY: both sets live across the calls.
        let result = unsafe {
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before)
        };
        match result {
            0 => Ok(Blocked { before }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests;
