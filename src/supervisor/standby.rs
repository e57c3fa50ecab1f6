//! Manages the standby worker, which the supervisor starts when another worker serves. It follows that worker's log,
//! and serves as soon as it is ordered to; a new worker would have to be started and to read the log first.
//!
//! Before a reboot with another binary or other settings, the standby worker is replaced by one of these. The serving
//! worker ends when that one has read the log, and not before.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, SystemTime};

use log::{error, info, warn};

use super::machine::{Ended, Order};
use super::page::{Page, Standing};
use super::prober::{Ask, Asks, TRIAL};
use super::process::{Inherited, Process, Shared};
use super::provision::Provision;
use super::settings::Settings;
use super::worker::Message;
use crate::capture::Capture;
use crate::metrics;

/// The delay after a worker has begun to serve, whose clients have priority.
const DELAY: Duration = Duration::from_millis(100);
/// The delay after the death of a standby worker; it doubles with each successive death.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest delay.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Manages the standby worker.
pub(super) struct Standby {
    shared: Shared,
    /// The questions of workers that are going to reboot.
    asked: Receiver<Ask>,
    follower: Option<Follower>,
    /// The binary of the serving worker; `None`: the supervisor's own.
    binary: Option<PathBuf>,
    /// When a standby worker is started; `None`: not while no worker serves.
    start_at: Option<Duration>,
    /// Successive deaths.
    deaths: u32,
}

/// A standby worker, and what it was started with.
struct Follower {
    process: Process,
    binary: Option<PathBuf>,
    settings: Rc<Settings>,
    /// It has not read the log yet, and a worker that is going to reboot waits for that.
    trial: Option<Trial>,
}

/// A reboot that depends on whether the next worker can take over.
struct Trial {
    answer: Sender<Result<(), String>>,
    until: Duration,
    /// Its reason why it cannot.
    why: Option<String>,
}

impl Follower {
    /// Answers the waiting reboot. The worker that asked may have ended.
    fn answer(&mut self, answer: Result<(), String>) -> bool {
        let trial = self.trial.take();
        trial.is_some_and(|trial| trial.answer.send(answer).is_ok())
    }

    fn name(&self) -> String {
        let name = |binary: &PathBuf| binary.display().to_string();
        self.binary
            .as_ref()
            .map_or_else(|| "the next worker".to_owned(), name)
    }
}

impl Standby {
    /// Makes the manager without a standby worker. `waker`: wakes the supervisor's thread.
    ///
    /// # Errors
    /// The kernel provides no page.
    pub(super) fn new(waker: UnixStream) -> std::io::Result<Standby> {
        let (asks, asked) = Asks::new(waker);
        let shared = Shared {
            page: Page::new()?,
            asks,
            metrics: metrics::Page::new()?,
            capture: Capture::new()?,
        };
        Ok(Standby {
            shared,
            asked,
            follower: None,
            binary: None,
            start_at: None,
            deaths: 0,
        })
    }

    /// What workers inherit.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The descriptor of the standby worker's reports.
    pub(super) fn report(&self) -> Option<BorrowedFd<'_>> {
        self.follower.as_ref()?.process.report()
    }

    /// Notes that a worker serves, with this binary; the standby worker will have the same.
    pub(super) fn serves(&mut self, binary: Option<&Path>, now: Duration) {
        self.binary = binary.map(Path::to_owned);
        self.deaths = 0;
        self.start_at = Some(now + DELAY);
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.follower {
            Some(follower) => follower.trial.as_ref().map(|trial| trial.until),
            None => self.start_at,
        }
    }

    /// Starts a standby worker if it is due; handles its messages, and its end.
    pub(super) fn look_after(&mut self, provision: &dyn Provision, now: Duration) {
        while let Ok(ask) = self.asked.try_recv() {
            self.prepare(ask, provision, now);
        }
        // Its end first: then its messages are complete.
        let ended = self.follower.as_mut().map(|it| it.process.reap_alone());
        self.process_messages();
        match ended {
            Some(Ok(Some(how))) => self.ended(how, now),
            Some(Err(error)) => warn!("cannot wait for the standby worker: {error}"),
            _ => {}
        }
        let trial = self.follower.as_ref().and_then(|it| it.trial.as_ref());
        if trial.is_some_and(|trial| trial.until <= now) {
            let limit = TRIAL.as_secs();
            self.reject(&format!("it did not read the log within {limit} s"), now);
        }
        self.start_if_due(provision, now);
    }

    fn start_if_due(&mut self, provision: &dyn Provision, now: Duration) {
        if self.follower.is_some() || self.start_at.is_none_or(|at| at > now) {
            return;
        }
        if !provision.stands_by() {
            self.start_at = None;
            return;
        }
        let started = provision
            .inherited()
            .and_then(|inherited| self.start(self.binary.clone(), &inherited, None));
        if let Err(why) = started {
            warn!("there is no standby worker: {why:#}");
            self.pause(now);
        }
    }

    fn start(
        &mut self,
        binary: Option<PathBuf>,
        inherited: &Inherited<'_>,
        trial: Option<Trial>,
    ) -> anyhow::Result<()> {
        let process = Process::stand_by(inherited, binary.as_deref(), &self.shared)?;
        self.follower = Some(Follower {
            process,
            binary,
            settings: inherited.settings.clone(),
            trial,
        });
        Ok(())
    }

    /// Prepares a reboot: starts a fitting standby worker first, if there is none.
    fn prepare(&mut self, ask: Ask, provision: &dyn Provision, now: Duration) {
        let Ask { binary, answer } = ask;
        let is_new = binary.is_some();
        let binary = binary.or_else(|| self.binary.clone());
        let result = match (provision.successor(is_new), provision.inherited()) {
            // The next worker is started when this one has ended.
            (None, _) | (_, Err(_)) => Ok(()),
            // The standby worker fits, or is missing for a reason that must not prevent a reboot.
            (Some(settings), Ok(inherited)) if !is_new && *settings == **inherited.settings => {
                Ok(())
            }
            // A file may have been replaced under the same name, so a binary requested by its name is started again.
            (Some(settings), Ok(inherited)) => {
                self.dismiss("another reboot has been asked for");
                let settings = &settings;
                let trial = Trial {
                    answer: answer.clone(),
                    until: now + TRIAL,
                    why: None,
                };
                let inherited = Inherited {
                    settings,
                    ..inherited
                };
                match self.start(binary, &inherited, Some(trial)) {
                    Ok(()) => return,
                    Err(why) => {
                        self.start_at = Some(now);
                        Err(format!("the next worker cannot be started: {why:#}"))
                    }
                }
            }
        };
        // The worker that asked may have ended.
        let _ = answer.send(result);
    }

    /// Returns whether there is a standby worker that was started with these.
    fn is_there_for(&self, binary: Option<&Path>, settings: &Rc<Settings>) -> bool {
        self.follower.as_ref().is_some_and(|follower| {
            follower.binary.as_deref() == binary && *follower.settings == **settings
        })
    }

    /// Handles the messages of the standby worker.
    fn process_messages(&mut self) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        for message in follower.process.messages() {
            match message {
                Message::Follows => {
                    let name = follower.name();
                    if follower.answer(Ok(())) {
                        info!("{name} has read the log and stands by");
                    }
                }
                Message::Failed { why } => {
                    if let Some(trial) = &mut follower.trial {
                        trial.why = Some(why);
                    }
                }
                Message::Differs { what, position } => {
                    self.shared.page.count_difference();
                    error!(
                        "the state of the standby worker differs from that of the serving one: {what}, at {position} \
                         of the log; it is ended, and another one reads the log from its tail. This is a fault of \
                         the server: report it, with a copy of the log if it happens again"
                    );
                }
                Message::Ready { .. } | Message::Reboot { .. } | Message::InStep { .. } => {}
            }
        }
    }

    /// Notes that the server is ending: no worker takes over.
    pub(super) fn retire(&mut self) {
        self.start_at = None;
        self.dismiss("the server is ending");
    }

    fn dismiss(&mut self, why: &str) {
        if let Some(mut follower) = self.follower.take() {
            follower.answer(Err(why.to_owned()));
            follower.process.dismiss();
        }
        self.shared.page.stand(Standing::default());
    }

    fn ended(&mut self, how: Ended, now: Duration) {
        let trial = self.follower.as_mut().and_then(|it| it.trial.as_mut());
        if let Some(trial) = trial {
            let why = trial.why.take();
            let why = why.unwrap_or_else(|| "it has ended; see the server's log".to_owned());
            self.reject(&why, now);
            return;
        }
        self.follower = None;
        self.shared.page.stand(Standing::default());
        // The log of a stopped server has no state to follow.
        if how != Ended::Stopped {
            self.pause(now);
            warn!("the standby worker has ended; the serving one is not affected");
        }
    }

    /// Handles a worker that cannot take over: the server continues as it is, with another standby worker like it.
    fn reject(&mut self, why: &str, now: Duration) {
        if let Some(follower) = &self.follower {
            let why = format!("{} cannot take over: {why}", follower.name());
            warn!("{why}; the server continues as before");
            self.dismiss(&why);
        }
        self.start_at = Some(now);
    }

    fn pause(&mut self, now: Duration) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.deaths.min(16));
        self.deaths += 1;
        self.start_at = Some(now + pause.min(PAUSE_MAX));
    }

    /// Orders the standby worker to serve and returns it; `None`: there is none, or it was started with something else.
    /// `is_fresh`: the TAP is not the one that it has.
    pub(super) fn take(
        &mut self,
        order: &Order,
        inherited: &Inherited<'_>,
        is_fresh: bool,
        away_since: Option<SystemTime>,
    ) -> Option<Process> {
        self.start_at = None;
        let is_there = !is_fresh
            && self.is_there_for(order.binary.as_deref(), inherited.settings)
            && self.follower.as_ref().is_some_and(|it| it.trial.is_none());
        if !is_there {
            self.dismiss("the worker has ended before the reboot");
            return None;
        }
        let mut process = self.follower.take()?.process;
        if process.order(order, away_since).is_ok() {
            info!("the standby worker {} takes over", process.id());
            return Some(process);
        }
        process.dismiss();
        self.shared.page.stand(Standing::default());
        None
    }
}
