//! Runs jobs that would delay the event loop, such as disk operations, on a thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

/// Makes an eventfd that wakes a loop.
///
/// # Errors
/// As `eventfd`.
pub fn wake() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?))
}

/// A thread that does one job at a time, and returns its outcome.
pub struct JobThread<J, O> {
    jobs: Sender<J>,
    outcomes: Receiver<O>,
    under_way: bool,
    /// The outcome of a job that was waited for.
    outcome: Option<O>,
}

const THREAD_IS_THERE: &str = "the thread lives as long as its JobThread";

impl<J: Send + 'static, O: Send + 'static> JobThread<J, O> {
    /// Starts the thread, which ends when this is dropped. [`wake`] is written to when there is an outcome. `work`
    /// owns the job: what the job holds is released before its outcome is seen.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        name: &str,
        wake: Arc<OwnedFd>,
        mut work: impl FnMut(J) -> O + Send + 'static,
    ) -> io::Result<JobThread<J, O>> {
        let (jobs, to_do) = bounded(1);
        let (done, outcomes) = bounded(1);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            for job in to_do {
                if done.send(work(job)).is_err() {
                    return;
                }
                // the eventfd is full only after 2^64 unread writes
                let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
            }
        })?;
        Ok(JobThread {
            jobs,
            outcomes,
            under_way: false,
            outcome: None,
        })
    }

    /// Begins a job. The outcome of the one before has been taken.
    pub fn begin(&mut self, job: J) {
        self.under_way = true;
        self.jobs.send(job).expect(THREAD_IS_THERE);
    }

    /// Returns whether there is a job whose outcome has not been taken.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Returns whether there is an outcome that has not been taken.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.outcome.is_some() || !self.outcomes.is_empty()
    }

    /// Returns the outcome of the job once, when there is one. Does not wait.
    pub fn finished(&mut self) -> Option<O> {
        let outcome = self.outcome.take();
        let outcome = outcome.or_else(|| self.outcomes.try_recv().ok())?;
        self.under_way = false;
        Some(outcome)
    }

    /// Waits until the job under way, if there is one, has an outcome.
    pub fn wait(&mut self) {
        if self.under_way && self.outcome.is_none() {
            self.outcome = Some(self.outcomes.recv().expect(THREAD_IS_THERE));
        }
    }
}

#[cfg(test)]
mod tests;
