//! Defines the interface between supervisor and worker: arguments in one direction, the report pipe and the exit code
//! in the other. A newer worker may run under an older supervisor (`outlast reboot --exec`), so it only grows.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam::channel::Receiver;
use serde::{Deserialize, Serialize};

use super::page::Page;
use super::pulse::Pulse;
use crate::control::ControlRequest;
use crate::metrics;
use crate::pair;
use crate::server::Following;

/// Exit code of a worker that was stopped (`outlast stop`).
pub const EXIT_STOPPED: u8 = 0;
/// Exit code of a worker that could not start or continue, and has reported why.
pub const EXIT_ERROR: u8 = 1;
/// Exit code of a worker that ended by SIGTERM, with its sessions kept.
pub const EXIT_SHUTDOWN: u8 = 80;
/// Exit code of a worker that ended for an elective reboot.
pub const EXIT_REBOOT: u8 = 81;
/// Exit code of a worker that ended for a reboot of the machine, which the supervisor performs.
pub const EXIT_SYSTEM: u8 = 82;

/// Exit code of a worker that ended for the other node of the pair.
pub const EXIT_HANDED_OVER: u8 = 83;
/// The same, to give the service back.
pub const EXIT_GIVEN_BACK: u8 = 84;

/// How the worker before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviousEnd {
    /// There was none under this supervisor.
    FirstStart,
    /// It ended by itself: electively (`outlast reboot`), or by an error that it has reported. The operation in
    /// progress is not to blame.
    Elective,
    /// It was killed (SIGKILL and the like). The operation in progress counts, since the kernel kills so when memory is
    /// short.
    Killed,
    /// It ended by its own fault: panic, SIGSEGV, SIGABRT, SIGBUS.
    OwnFault,
}

impl PreviousEnd {
    /// The text in `outlast status`.
    pub fn describe(self) -> &'static str {
        match self {
            PreviousEnd::FirstStart => "first start",
            PreviousEnd::Elective => "planned restart",
            PreviousEnd::Killed => "the worker was killed",
            PreviousEnd::OwnFault => "the worker crashed; see the log",
        }
    }
}

/// The arguments of the hidden subcommand `worker`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct WorkerArgs {
    /// The configuration file.
    #[arg(long)]
    pub config: PathBuf,
    /// Inherited descriptor of the TAP.
    #[arg(long)]
    pub tap_fd: i32,
    /// Inherited descriptor of the listening control socket.
    #[arg(long)]
    pub control_fd: i32,
    /// Inherited descriptor of the pipe to the supervisor.
    #[arg(long)]
    pub report_fd: i32,
    /// Inherited descriptor of the configuration's text; without it, the file is read.
    #[arg(long, requires = "users_fd")]
    pub config_fd: Option<i32>,
    /// Inherited descriptor of the users' text.
    #[arg(long, requires = "config_fd")]
    pub users_fd: Option<i32>,
    /// Process id of the supervisor.
    #[arg(long)]
    pub supervisor_pid: u32,
    /// How the worker before ended.
    #[arg(long)]
    pub previous: PreviousEnd,
    /// Successive workers that ended by their own fault just before this one.
    #[arg(long, default_value_t = 0)]
    pub attempts: u32,
    /// No worker has served from this TAP yet: frames that clients sent while it was closed are lost. Without this
    /// option the TAP's queue has kept them.
    #[arg(long)]
    pub tap_fresh: bool,
    /// When the worker before ended, in milliseconds since 1970; not given if there was none under this supervisor.
    #[arg(long)]
    pub away_since_ms: Option<u64>,
    /// Another worker serves: follow its log until an order ([`Go`]) arrives on standard input.
    #[arg(long)]
    pub standby: bool,
}

impl WorkerArgs {
    /// The order in the arguments.
    #[must_use]
    pub fn go(&self) -> Go {
        Go {
            previous: self.previous,
            attempts: self.attempts,
            tap_fresh: self.tap_fresh,
            away_since_ms: self.away_since_ms,
        }
    }
}

/// The order to serve, for a standby worker: a line of JSON. It replaces the arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// As [`WorkerArgs::previous`].
    pub previous: PreviousEnd,
    /// As [`WorkerArgs::attempts`].
    pub attempts: u32,
    /// As [`WorkerArgs::tap_fresh`].
    pub tap_fresh: bool,
    /// As [`WorkerArgs::away_since_ms`].
    pub away_since_ms: Option<u64>,
}

/// What the event loop needs besides configuration and users.
pub struct Worker {
    /// The TAP, attached and set up by the supervisor.
    pub tap: OwnedFd,
    /// The supervisor's memory for received frames, if it has one.
    pub received: Option<OwnedFd>,
    /// Requests from the control socket and from signals.
    pub requests: Receiver<ControlRequest>,
    /// An eventfd that is readable when `requests` has something.
    pub wake: Arc<OwnedFd>,
    /// The report pipe to the supervisor.
    pub report: Report,
    /// Process id of the supervisor, for `status`.
    pub supervisor_pid: u32,
    /// How the worker before ended.
    pub previous: PreviousEnd,
    /// Successive workers that ended by their own fault just before this one.
    pub attempts: u32,
    /// No worker has served from this TAP yet: frames that clients sent while it was closed are lost. Without it the
    /// TAP's queue has held them.
    pub tap_fresh: bool,
    /// When the worker before ended; `None`: there was none under this supervisor.
    pub away_since: Option<SystemTime>,
    /// The page on which the loop beats.
    pub pulse: Option<Pulse>,
    /// The page in which the standby worker reports its state.
    pub standby: Option<Page>,
    /// The follower of this worker, if it was a standby worker.
    pub following: Option<Following>,
    /// Why the worker has more rights than it needs, if so, for `status`.
    pub sandbox: String,
    /// The page in which the supervisor reports the state of the pair; `None`: there is no pair.
    pub pair: Option<pair::page::Page>,
    /// Where the loop counts.
    pub metrics: metrics::Page,
    /// The supervisor's memory for captured frames, if it has one.
    pub capture: Option<OwnedFd>,
    /// The lock by which the arbiter has admitted this node: held as long as this process can speak.
    pub admitted: Option<OwnedFd>,
}

/// How the event loop ended, with the state saved and the flag set.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// `outlast stop`: flag `clean`.
    Stopped,
    /// SIGTERM: flag `elective-reboot`, for the next start.
    Shutdown,
    /// `outlast reboot --system`: the same, and the machine has to be rebooted.
    System,
    /// `outlast takeover`, `outlast giveback`: flag `elective-takeover`, for the other node.
    HandedOver {
        /// Back to where the service was before.
        is_return: bool,
    },
    /// `outlast reboot`: flag `elective-reboot`, to be started again.
    Reboot {
        /// As this binary, if given.
        exec: Option<PathBuf>,
        /// After this long.
        hold: Duration,
    },
}

/// A line of JSON on the report pipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Message {
    /// Everything is restored and the worker serves.
    Ready {
        /// The epoch that has begun.
        epoch: u64,
    },
    /// The worker is about to end for an elective reboot.
    Reboot {
        /// The binary to start; `None`: the same.
        exec: Option<PathBuf>,
        /// How long to stay down, in seconds.
        hold_seconds: f64,
    },
    /// The record is to say whether the partner is in step. The answer is in the pair's page.
    InStep {
        /// Higher with each request, also of one worker after the other.
        number: u64,
        /// What it is to say.
        in_step: bool,
    },
    /// This worker stands by, and has read all of the log that there was.
    Follows,
    /// This standby worker's state differs from that of the serving worker at that position of the log.
    Differs {
        /// The compared objects, in words.
        what: String,
        /// Bytes since the log was formatted.
        position: u64,
    },
    /// This standby worker ends, because it cannot continue.
    Failed {
        /// The reason, in one line.
        why: String,
    },
}

/// The worker's side of the report pipe.
#[derive(Clone, Debug)]
pub struct Report {
    pipe: Arc<File>,
}

impl Report {
    /// Takes the inherited pipe.
    pub(crate) fn new(pipe: OwnedFd) -> Report {
        Report {
            pipe: Arc::new(pipe.into()),
        }
    }

    /// Reports that everything is restored and the worker serves: the start has succeeded.
    ///
    /// # Errors
    /// The supervisor has ended.
    pub fn ready(&self, epoch: u64) -> io::Result<()> {
        self.send(&Message::Ready { epoch })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The supervisor has ended.
    pub(crate) fn send(&self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        (&*self.pipe).write_all(&line)
    }
}
