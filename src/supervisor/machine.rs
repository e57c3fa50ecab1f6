//! Decides for the supervisor, without executing the decisions: inputs are the end of a worker and the time, outputs
//! are actions.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{error, info, warn};

use super::worker::PreviousEnd;

/// The number of successive deaths after which the worker is still restarted at once.
const AT_ONCE: u32 = 3;
/// The first delay after that; it doubles with each death.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest delay: a client's TCP gives up after some 20 s without an answer.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The time of service after which a series of deaths ends.
const HEALTHY: Duration = Duration::from_secs(10);
/// The number of successive start errors, after an earlier success, after which the supervisor gives up.
const START_ERRORS_MAX: u32 = 8;
/// The time within which a new binary has to serve.
const TRIAL: Duration = Duration::from_secs(10);
/// The time within which an elective shutdown has to end; then the worker is killed, and the log is complete anyway.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// The interval of attempts while something that a worker needs is missing.
const MISSING_PAUSE: Duration = Duration::from_millis(500);

/// Exit code of the supervisor if the worker died during an elective shutdown.
const EXIT_DIED_LEAVING: u8 = 1;

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `outlast stop`: clean.
    Stopped,
    /// SIGTERM: sessions are kept for the next worker, or the next start.
    Shutdown,
    /// `outlast reboot`.
    Reboot,
    /// `outlast reboot --system`: sessions are kept, and on their medium.
    System,
    /// `outlast takeover`, `outlast giveback`: sessions are kept for the other node.
    HandedOver {
        /// Back to where the service was before.
        is_return: bool,
    },
    /// It could not start or continue, and has reported why; the exit code.
    Error(u8),
    /// Panic, SIGSEGV, SIGABRT, SIGBUS and the like.
    OwnFault,
    /// Killed from outside.
    Killed,
}

/// An input of the supervisor.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The worker has restored everything and serves.
    Ready,
    /// The worker announces an elective reboot; it ends next.
    Rebooting {
        /// The binary to restart with.
        exec: Option<PathBuf>,
        /// How long to stay down.
        hold: Duration,
    },
    /// The worker has ended and is reaped.
    Ended(Ended),
    /// The binary could not be executed.
    SpawnFailed,
    /// Something that a worker needs is missing, and may return: the TAP.
    Missing,
    /// The machine cannot be rebooted.
    NotRebooted,
    /// SIGTERM or SIGINT to the supervisor.
    Terminate,
    /// The deadline may have passed.
    Tick,
}

/// An action of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Start(Order),
    /// Send the worker SIGTERM.
    Terminate,
    /// Send the worker SIGKILL.
    Kill,
    /// Reboot the machine and end, or continue if that fails.
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
    /// Successive workers that ended by their own fault.
    pub attempts: u32,
    /// No worker has served from this supervisor's TAP yet.
    pub tap_fresh: bool,
    /// Whether to use the current configuration and users files; otherwise those of the last worker that served.
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
        /// When to kill it.
        cut: Option<Duration>,
    },
    /// No worker runs; the next is started at this time.
    Waiting { until: Duration },
    /// The supervisor ends.
    Over,
}

/// The supervisor's state.
#[derive(Debug)]
pub struct Machine {
    state: State,
    binary: Option<PathBuf>,
    /// The binary to fall back to, while a new one is on trial.
    proven: Option<Option<PathBuf>>,
    /// No worker has served yet with the current configuration and users.
    renew: bool,
    previous: PreviousEnd,
    attempts: u32,
    deaths: u32,
    start_errors: u32,
    ever_ready: bool,
    terminating: bool,
}

impl Machine {
    /// Makes the machine, and returns its first action.
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

    /// Whether SIGTERM was received.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Running { cut, .. } => cut,
            State::Waiting { until } => Some(until),
            State::Over => None,
        }
    }

    /// Processes an input at the time `now`.
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
            // The state is saved and flagged: nothing is left to wait for.
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
            // The signal was for the worker only: the server ends when its supervisor is asked to.
            Ended::Shutdown => {
                warn!(
                    "the worker was ended by SIGTERM and is restarted (to end the server, signal the supervisor)"
                );
                self.previous = PreviousEnd::Elective;
                Some(self.start(now))
            }
            Ended::System => Some(Action::RebootSystem),
            Ended::Reboot if self.terminating => Some(self.exit(0)),
            Ended::Reboot => self.rebooted(reboot, now),
            // SIGTERM arrived before the worker could handle it: the state is as the worker before left it.
            Ended::Killed if self.terminating && !ready => Some(self.exit(0)),
            Ended::Error(_) | Ended::OwnFault | Ended::Killed if self.terminating => {
                error!(
                    "the worker died while it was shutting down; the next start recovers its state"
                );
                Some(self.exit(EXIT_DIED_LEAVING))
            }
            Ended::Error(_) | Ended::OwnFault | Ended::Killed
                if !ready && (self.proven.is_some() || self.renew) =>
            {
                // The new binary has not processed a request, so no request is to blame.
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
                    // It was killed from outside, not by its own fault.
                    warn!("the worker was killed; restarting it");
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
            info!("elective reboot, restarting as {}", exec.display());
            self.proven = Some(self.binary.replace(exec));
        } else {
            info!("elective reboot");
        }
        self.start_after(hold, now)
    }

    fn fall_back(&mut self, now: Duration) -> Option<Action> {
        error!(
            "the new worker did not start; the previous binary is started, with the previous configuration"
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
            error!("the binary of the last reboot is missing; the supervisor's own is started");
            return Some(self.start(now));
        }
        self.failed(super::worker::EXIT_ERROR, false, now)
    }

    /// Handles a worker that could not continue and has reported why.
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
            "the worker died ({} time(s) in a row); restarting it in {} ms",
            self.deaths,
            delay.as_millis()
        );
        self.start_after(delay, now)
    }
}
