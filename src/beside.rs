//! What is done beside the loop: a loop that waits for a disk serves nobody.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

/// An eventfd to be woken by.
///
/// # Errors
/// As `eventfd`.
pub fn wake() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?))
}

/// A thread that does one job at a time, and tells what came of it.
pub struct Beside<J, O> {
    jobs: Sender<J>,
    outcomes: Receiver<O>,
    under_way: bool,
    /// What came of the job that was waited for.
    outcome: Option<O>,
}

/// Whoever has this has its thread.
const THREAD_IS_THERE: &str = "the thread ends with what asks it, or with the process";

impl<J: Send + 'static, O: Send + 'static> Beside<J, O> {
    /// Starts the thread; it ends with this. [`wake`] is written to when there is an outcome. `work` gets the job itself: what
    /// that holds is let go of before anyone hears of the outcome.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(
        name: &str,
        wake: Arc<OwnedFd>,
        mut work: impl FnMut(J) -> O + Send + 'static,
    ) -> io::Result<Beside<J, O>> {
        let (jobs, to_do) = bounded(1);
        let (done, outcomes) = bounded(1);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            for job in to_do {
                if done.send(work(job)).is_err() {
                    return;
                }
                // full only if nobody has read it 2^64 times
                let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
            }
        })?;
        Ok(Beside {
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

    /// Is there a job whose outcome has not been taken?
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// The outcome of the job, when there is one; once. Does not wait.
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
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn an_outcome_is_told_of_once_and_wakes() {
        let wake = wake().unwrap();
        let mut double = Beside::start("double", Arc::clone(&wake), |n: u32| 2 * n).unwrap();
        double.wait();
        assert_eq!((double.finished(), double.is_under_way()), (None, false));
        for n in 0..100 {
            double.begin(n);
            assert!(double.is_under_way());
            double.wait();
            assert_eq!(double.finished(), Some(2 * n));
            assert_eq!((double.finished(), double.is_under_way()), (None, false));
        }
        drop(double);
        // The thread has written to it for each of them, and has ended by now or is about to.
        let mut count = [0; 8];
        let mut woken = 0;
        while woken < 100 {
            let mut fds = [PollFd::new(&wake, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            rustix::io::read(&wake, &mut count).unwrap();
            woken += u64::from_ne_bytes(count);
        }
        assert_eq!(woken, 100);
    }
}
