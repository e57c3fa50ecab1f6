//! The worker that stands by: the supervisor starts it when another worker serves. It follows that one's log, and
//! serves as soon as it is ordered to, in place of a worker that would have to be started and to read the log first.
//!
//! Before a reboot by another binary or by other settings, the one that stands by is replaced by one of these. The
//! worker that serves leaves when that one has read the log, and not before.

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

/// After a worker has begun to serve. Its clients come first.
const DELAY: Duration = Duration::from_millis(100);
/// After the death of one that stood by; it doubles with each that follows.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Looks after the worker that stands by.
pub(super) struct Standby {
    shared: Shared,
    /// The questions of workers that are to reboot.
    asked: Receiver<Ask>,
    follower: Option<Follower>,
    /// What the worker that serves runs; `None`: the supervisor's own binary.
    binary: Option<PathBuf>,
    /// When one is started; `None`: not while no worker serves.
    start_at: Option<Duration>,
    /// Deaths in a row.
    deaths: u32,
}

/// A worker that stands by, and what it was started with.
struct Follower {
    process: Process,
    binary: Option<PathBuf>,
    settings: Rc<Settings>,
    /// It has not read the log yet, and a worker that is to reboot waits for that.
    trial: Option<Trial>,
}

/// What depends on whether the next worker can take over.
struct Trial {
    answer: Sender<Result<(), String>>,
    until: Duration,
    /// What it says why it cannot.
    why: Option<String>,
}

impl Follower {
    /// What a reboot that waits for it is answered. Who asked may be gone.
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
    /// Nobody stands by yet. `waker`: wakes the supervisor's thread.
    ///
    /// # Errors
    /// There can be no page.
    pub(super) fn new(waker: UnixStream) -> std::io::Result<Standby> {
        let (asks, asked) = Asks::new(waker);
        let page = Page::new()?;
        Ok(Standby {
            shared: Shared { page, asks },
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

    /// The descriptor by which the one that stands by reports.
    pub(super) fn report(&self) -> Option<BorrowedFd<'_>> {
        self.follower.as_ref()?.process.report()
    }

    /// A worker serves, which runs this binary. The next one is to run it, too.
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

    /// Starts one if it is time; takes note of what it says, and of its end.
    pub(super) fn look_after(&mut self, provision: &dyn Provision, now: Duration) {
        while let Ok(ask) = self.asked.try_recv() {
            self.prepare(ask, provision, now);
        }
        // Its end first: then its messages are complete.
        let ended = self.follower.as_mut().map(|it| it.process.reap_alone());
        self.hear();
        match ended {
            Some(Ok(Some(how))) => self.ended(how, now),
            Some(Err(error)) => warn!("the worker that stands by cannot be waited for: {error}"),
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
            warn!("no worker stands by: {why:#}");
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

    /// A worker is to leave for a reboot: lets the next one stand by first, if it is not there.
    fn prepare(&mut self, ask: Ask, provision: &dyn Provision, now: Duration) {
        let Ask { binary, answer } = ask;
        let is_new = binary.is_some();
        let binary = binary.or_else(|| self.binary.clone());
        let result = match (provision.successor(is_new), provision.inherited()) {
            // The next worker is started when this one has left.
            (None, _) | (_, Err(_)) => Ok(()),
            // What stands by is like that, or is missing for a reason that must not keep the server from a reboot.
            (Some(settings), Ok(inherited)) if !is_new && *settings == **inherited.settings => {
                Ok(())
            }
            // A file may have been replaced under the same name, so what was asked for by its name is started anew.
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
        // Who asked may be gone.
        let _ = answer.send(result);
    }

    /// Does one stand by that was started with these?
    fn is_there_for(&self, binary: Option<&Path>, settings: &Rc<Settings>) -> bool {
        self.follower.as_ref().is_some_and(|follower| {
            follower.binary.as_deref() == binary && *follower.settings == **settings
        })
    }

    /// Takes note of what the one that stands by says.
    fn hear(&mut self) {
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
                        "the worker that stood by does not have the state of the one that serves: {what},                          at {position} of the log; it is dismissed, and another one reads the log anew. This is a                          fault of the server: report it, with a copy of the log if it comes again"
                    );
                }
                Message::Ready { .. } | Message::Reboot { .. } | Message::InStep { .. } => {}
            }
        }
    }

    /// The server is ending: nobody takes over.
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
        // The log of a server that was stopped is nobody's.
        if how != Ended::Stopped {
            self.pause(now);
            warn!("the worker that stood by has ended; the one that serves is not affected");
        }
    }

    /// The next worker cannot take over: the server continues as it is, and another one like it stands by.
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

    /// The one that stands by, ordered to serve; `None`: there is none, or it was started for something else.
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
            info!("worker {}, which stood by, takes over", process.id());
            return Some(process);
        }
        process.dismiss();
        self.shared.page.stand(Standing::default());
        None
    }
}
