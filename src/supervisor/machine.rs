//! What the supervisor decides, apart from how it does it: how a worker ended and what time it is go in, what to do comes out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{error, info, warn};

use super::worker::PreviousEnd;

/// Deaths in a row after which the worker is still started at once.
const AT_ONCE: u32 = 3;
/// First delay after that; it doubles with each death.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest delay: a client's TCP gives up after some 20 s without an answer.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A worker that has served this long ends a row of deaths.
const HEALTHY: Duration = Duration::from_secs(10);
/// Start-up errors in a row, after an earlier success, until the supervisor gives up.
const START_ERRORS_MAX: u32 = 8;
/// A new binary that has not come up by then has failed.
const TRIAL: Duration = Duration::from_secs(10);
/// An elective shutdown that has not ended by then is cut short; the log is complete all the same.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// Between two attempts while something is missing that a worker needs.
const MISSING_PAUSE: Duration = Duration::from_millis(500);

/// Exit code of the supervisor when the worker died during an elective shutdown.
const EXIT_DIED_LEAVING: u8 = 1;

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `outlast stop`: clean.
    Stopped,
    /// SIGTERM: sessions kept for the next worker, or the next start.
    Shutdown,
    /// `outlast reboot`.
    Reboot,
    /// `outlast reboot --system`: sessions kept, and on their medium.
    System,
    /// `outlast takeover`, `outlast giveback`: sessions kept for the other node.
    HandedOver {
        /// Back to where the service was before.
        is_return: bool,
    },
    /// It could not start, or not go on, and has said why; the exit code.
    Error(u8),
    /// Panic, SIGSEGV, SIGABRT, SIGBUS and their kin.
    OwnFault,
    /// Killed from outside.
    Killed,
}

/// What happens to the supervisor.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The worker has restored everything and opened its gates.
    Ready,
    /// The worker announces an elective reboot; it ends next.
    Rebooting {
        /// The binary to come back as.
        exec: Option<PathBuf>,
        /// How long to stay away.
        hold: Duration,
    },
    /// The worker has ended and is reaped.
    Ended(Ended),
    /// The binary could not be executed.
    SpawnFailed,
    /// Something is missing that a worker needs, and may come back: the TAP.
    Missing,
    /// The machine cannot be rebooted.
    NotRebooted,
    /// SIGTERM or SIGINT to the supervisor.
    Terminate,
    /// The deadline may have passed.
    Tick,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Start(Order),
    /// Send the worker SIGTERM.
    Terminate,
    /// Send the worker SIGKILL.
    Kill,
    /// Reboot the machine and end, or go on.
    RebootSystem,
    /// End with this exit code.
    Exit(u8),
}

/// The worker to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The binary; `None`: the supervisor's own.
    pub binary: Option<PathBuf>,
    /// How the one before ended.
    pub previous: PreviousEnd,
    /// Workers in a row that fell by their own fault.
    pub attempts: u32,
    /// No worker has served from this supervisor's TAP yet.
    pub tap_fresh: bool,
    /// By the configuration and the users as their files are now; else by those of the last worker that served.
    pub renew: bool,
}

#[derive(Debug, PartialEq)]
enum State {
    /// A worker runs.
    Running {
        since: Duration,
        ready: bool,
        /// An announced reboot.
        reboot: Option<(Option<PathBuf>, Duration)>,
        /// When to cut it short.
        cut: Option<Duration>,
    },
    /// None runs; the next is started then.
    Waiting { until: Duration },
    /// The supervisor ends.
    Over,
}

/// The supervisor's state.
#[derive(Debug)]
pub struct Machine {
    state: State,
    binary: Option<PathBuf>,
    /// While a new binary is on trial: the one to go back to.
    proven: Option<Option<PathBuf>>,
    /// No worker has served yet by the present configuration and users.
    renew: bool,
    previous: PreviousEnd,
    attempts: u32,
    deaths: u32,
    start_errors: u32,
    ever_ready: bool,
    terminating: bool,
}

impl Machine {
    /// The beginning, and the first thing to do.
    pub fn new(now: Duration) -> (Machine, Action) {
        let mut machine = Machine {
            state: State::Over,
            binary: None,
            proven: None,
            renew: false,
            previous: PreviousEnd::FirstStart,
            attempts: 0,
            deaths: 0,
            start_errors: 0,
            ever_ready: false,
            terminating: false,
        };
        let action = machine.start(now);
        (machine, action)
    }

    /// The binary that workers run; `None`: the supervisor's own.
    pub fn binary(&self) -> Option<&Path> {
        self.binary.as_deref()
    }

    /// SIGTERM has come.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// When [`Input::Tick`] is wanted.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Running { cut, .. } => cut,
            State::Waiting { until } => Some(until),
            State::Over => None,
        }
    }

    /// Takes an input at the time `now`.
    pub fn handle(&mut self, input: Input, now: Duration) -> Option<Action> {
        match (&mut self.state, input) {
            (
                State::Running {
                    since, ready, cut, ..
                },
                Input::Ready,
            ) => {
                // HEALTHY is counted from here: restoring a large log is not service.
                (*since, *ready) = (now, true);
                if !self.terminating {
                    *cut = None;
                }
                self.ever_ready = true;
                self.start_errors = 0;
                self.renew = false;
                if self.proven.take().is_some() {
                    info!("the new binary serves");
                }
                None
            }
            (State::Running { reboot, .. }, Input::Rebooting { exec, hold }) => {
                *reboot = Some((exec, hold));
                None
            }
            (State::Running { .. }, Input::Ended(how)) => self.ended(how, now),
            (State::Running { .. }, Input::SpawnFailed) => self.spawn_failed(now),
            (State::Running { .. }, Input::Missing) if self.terminating => Some(self.exit(0)),
            (State::Running { .. }, Input::Missing) => self.start_after(MISSING_PAUSE, now),
            (State::Running { cut, .. }, Input::Terminate) => {
                if !self.terminating {
                    *cut = Some(now + SHUTDOWN);
                }
                self.terminating = true;
                Some(Action::Terminate)
            }
            (State::Running { cut, .. }, Input::Tick) => match *cut {
                Some(at) if at <= now => {
                    error!("the worker takes too long; killing it");
                    *cut = None;
                    Some(Action::Kill)
                }
                _ => None,
            },
            (State::Running { .. }, Input::NotRebooted) if self.terminating => Some(self.exit(0)),
            (State::Running { .. }, Input::NotRebooted) => self.rebooted(None, now),
            // The state is saved and flagged: there is nothing to wait for.
            (State::Waiting { .. }, Input::Terminate) => Some(self.exit(0)),
            (State::Waiting { until }, Input::Tick) if *until <= now => Some(self.start(now)),
            (State::Waiting { .. } | State::Over, _) => None,
        }
    }

    fn start(&mut self, now: Duration) -> Action {
        let cut = self.proven.is_some().then_some(now + TRIAL);
        self.state = State::Running {
            since: now,
            ready: false,
            reboot: None,
            cut,
        };
        Action::Start(Order {
            binary: self.binary.clone(),
            previous: self.previous,
            attempts: self.attempts,
            tap_fresh: !self.ever_ready,
            renew: self.renew,
        })
    }

    fn start_after(&mut self, delay: Duration, now: Duration) -> Option<Action> {
        if delay.is_zero() {
            return Some(self.start(now));
        }
        self.state = State::Waiting { until: now + delay };
        None
    }

    fn exit(&mut self, code: u8) -> Action {
        self.state = State::Over;
        Action::Exit(code)
    }

    fn ended(&mut self, how: Ended, now: Duration) -> Option<Action> {
        let (ready, served, reboot) = match &mut self.state {
            State::Running {
                since,
                ready,
                reboot,
                ..
            } => (*ready, now.saturating_sub(*since), reboot.take()),
            State::Waiting { .. } | State::Over => return None,
        };
        if ready && served >= HEALTHY {
            (self.deaths, self.attempts) = (0, 0);
        }
        match how {
            Ended::Stopped => {
                info!("stopped; all sessions are closed");
                Some(self.exit(0))
            }
            Ended::Shutdown if self.terminating => {
                info!("ended; the sessions are kept for the next start");
                Some(self.exit(0))
            }
            Ended::HandedOver { .. } => {
                info!("ended; the sessions are kept for the other node");
                Some(self.exit(0))
            }
            // The signal was for the worker alone: the server ends when its supervisor is asked to.
            Ended::Shutdown => {
                warn!(
                    "the worker was ended by SIGTERM; starting it again (the supervisor's process id ends the server)"
                );
                self.previous = PreviousEnd::Elective;
                Some(self.start(now))
            }
            Ended::System => Some(Action::RebootSystem),
            Ended::Reboot if self.terminating => Some(self.exit(0)),
            Ended::Reboot => self.rebooted(reboot, now),
            // SIGTERM came before the worker could take it: the state is as the worker before left it.
            Ended::Killed if self.terminating && !ready => Some(self.exit(0)),
            Ended::Error(_) | Ended::OwnFault | Ended::Killed if self.terminating => {
                error!(
                    "the worker died while it was shutting down; the next start recovers from what it saved"
                );
                Some(self.exit(EXIT_DIED_LEAVING))
            }
            Ended::Error(_) | Ended::OwnFault | Ended::Killed
                if !ready && (self.proven.is_some() || self.renew) =>
            {
                // Nothing of a request's has been done under the new binary, so nothing counts against a request.
                self.previous = PreviousEnd::Elective;
                self.fall_back(now)
            }
            Ended::Error(code) => self.failed(code, ready, now),
            Ended::OwnFault => {
                self.previous = PreviousEnd::OwnFault;
                self.attempts += 1;
                self.died(now)
            }
            Ended::Killed => {
                self.previous = PreviousEnd::Killed;
                self.attempts = 0;
                if ready {
                    // Somebody outside wants it so; it is not a worker that cannot live.
                    warn!("the worker was killed; starting it again");
                    return Some(self.start(now));
                }
                self.died(now)
            }
        }
    }

    fn rebooted(
        &mut self,
        reboot: Option<(Option<PathBuf>, Duration)>,
        now: Duration,
    ) -> Option<Action> {
        let (exec, hold) = reboot.unwrap_or((None, Duration::ZERO));
        (self.deaths, self.attempts, self.start_errors) = (0, 0, 0);
        self.previous = PreviousEnd::Elective;
        self.renew = true;
        if let Some(exec) = exec {
            info!("elective reboot, coming back as {}", exec.display());
            self.proven = Some(self.binary.replace(exec));
        } else {
            info!("elective reboot");
        }
        self.start_after(hold, now)
    }

    fn fall_back(&mut self, now: Duration) -> Option<Action> {
        error!(
            "the worker did not come up; it is started as the one before, by the configuration of before"
        );
        self.renew = false;
        if let Some(proven) = self.proven.take() {
            self.binary = proven;
        }
        Some(self.start(now))
    }

    fn spawn_failed(&mut self, now: Duration) -> Option<Action> {
        if self.proven.is_some() || self.renew {
            return self.fall_back(now);
        }
        if self.binary.take().is_some() {
            error!("the binary of the last reboot is gone; the supervisor's own is started");
            return Some(self.start(now));
        }
        self.failed(super::worker::EXIT_ERROR, false, now)
    }

    /// It has said why it cannot go on.
    fn failed(&mut self, code: u8, ready: bool, now: Duration) -> Option<Action> {
        if !self.ever_ready {
            return Some(self.exit(code));
        }
        self.previous = PreviousEnd::Elective;
        if !ready {
            self.start_errors += 1;
            if self.start_errors >= START_ERRORS_MAX {
                error!("the worker cannot start; giving up");
                return Some(self.exit(code));
            }
        }
        self.deaths = self.deaths.max(AT_ONCE);
        self.died(now)
    }

    fn died(&mut self, now: Duration) -> Option<Action> {
        self.deaths += 1;
        let delay = match self.deaths.checked_sub(AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(doublings) => BACKOFF_MIN
                .saturating_mul(1 << doublings.min(16))
                .min(BACKOFF_MAX),
        };
        warn!(
            "the worker died (in a row: {}); starting it again in {} ms",
            self.deaths,
            delay.as_millis()
        );
        self.start_after(delay, now)
    }
}
