//! Watches a worker that takes no turn and kills it if it has no reason; answers status requests meanwhile.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use log::{error, warn};
use rustix::net::SocketFlags;

use super::process::Process;
use super::pulse::{Silence, TICK, Verdict};
use crate::control::{Status, stand_in};
use crate::metrics;

/// The supervisor's knowledge of a worker's turns.
#[derive(Debug, Default)]
pub(super) struct StandIn {
    /// The epoch in which the last worker served.
    pub epoch: u64,
    began: Duration,
    looked: Duration,
    silence: Option<Silence>,
    is_killed: bool,
}

impl StandIn {
    /// Notes that a worker begins.
    pub(super) fn next_worker(self, now: Duration) -> StandIn {
        StandIn {
            epoch: self.epoch,
            began: now,
            looked: now,
            ..StandIn::default()
        }
    }

    /// When to check it next.
    pub(super) fn next_look(&self, worker: Option<&Process>) -> Option<Duration> {
        worker.map(|_| self.looked + TICK)
    }

    /// Returns whether the worker does not answer.
    pub(super) fn is_needed(&self) -> bool {
        self.silence.is_some()
    }

    /// Checks the worker if it is due; answers requests if it does not.
    pub(super) fn look_after(
        &mut self,
        worker: &mut Process,
        control: BorrowedFd<'_>,
        metrics: &metrics::Page,
        now: Duration,
    ) {
        if now >= self.looked + TICK {
            self.looked = now;
            self.look(worker);
        }
        if let Some(silence) = self.silence {
            self.answer(worker.id(), silence, control, metrics, now);
        }
    }

    fn look(&mut self, worker: &mut Process) {
        let verdict = worker.look();
        let silence = match verdict {
            Verdict::Well => None,
            Verdict::Silent(silence) | Verdict::Hung(silence) => Some(silence),
        };
        let is_new = self.silence.is_none();
        self.silence = silence;
        match (verdict, silence) {
            (Verdict::Hung(_), Some(silence)) if !self.is_killed => {
                error!("worker {} {silence}; it is killed", worker.id());
                self.is_killed = true;
                worker.kill();
            }
            (_, Some(silence)) if is_new => warn!("worker {} {silence}", worker.id()),
            _ => {}
        }
    }

    fn answer(
        &self,
        worker: u32,
        silence: Silence,
        control: BorrowedFd<'_>,
        metrics: &metrics::Page,
        now: Duration,
    ) {
        let status = Status {
            trouble: Some(format!("worker {worker} {silence}")),
            epoch: self.epoch,
            supervisor_pid: std::process::id(),
            worker_pid: worker,
            uptime_seconds: now.saturating_sub(self.began).as_secs_f64(),
            ..Status::unknown()
        };
        // The worker's own thread may be quicker, if it is alive.
        while let Ok(asked) = rustix::net::accept_with(control, SocketFlags::CLOEXEC) {
            let (status, metrics) = (status.clone(), metrics.clone());
            let thread = std::thread::Builder::new().name("stand-in".into());
            let asked = UnixStream::from(asked);
            if let Err(error) = thread.spawn(move || stand_in(asked, status, &metrics)) {
                warn!("control requests cannot be answered: {error}");
            }
        }
    }
}
