//! What supervisor and worker tell one another: arguments one way, the report pipe and the exit code the other. A newer worker
//! may run under an older supervisor (`outlast reboot --exec`), so this is an interface: it only grows.

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
use crate::pair;
use crate::server::Following;

/// Exit code of a worker that was stopped (`outlast stop`).
pub const EXIT_STOPPED: u8 = 0;
/// Exit code of whatever could not start or not go on, and has said why.
pub const EXIT_ERROR: u8 = 1;
/// Exit code of a worker that left on SIGTERM, the sessions kept.
pub const EXIT_SHUTDOWN: u8 = 80;
/// Exit code of a worker that left for an elective reboot.
pub const EXIT_REBOOT: u8 = 81;
/// Exit code of a worker that left for a reboot of the machine, which the supervisor carries out.
pub const EXIT_SYSTEM: u8 = 82;

/// Exit code of a worker that left for the other node of the pair.
pub const EXIT_HANDED_OVER: u8 = 83;
/// The same, to give the service back.
pub const EXIT_GIVEN_BACK: u8 = 84;

/// How the worker before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviousEnd {
    /// There was none under this supervisor.
    FirstStart,
    /// It left by itself: electively (`outlast reboot`), or because of an error that it has named. Nothing that it was at counts.
    Elective,
    /// It was killed (SIGKILL and the like). What it was at counts, for the kernel kills so when memory is short.
    Killed,
    /// It fell by its own fault: panic, SIGSEGV, SIGABRT, SIGBUS.
    OwnFault,
}

impl PreviousEnd {
    /// What `outlast status` calls it.
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
    /// How many workers in a row fell by their own fault just before this one.
    #[arg(long, default_value_t = 0)]
    pub attempts: u32,
    /// No worker has served from this TAP yet: frames that clients sent while it was closed are lost. Without it the TAP's
    /// queue has held them.
    #[arg(long)]
    pub tap_fresh: bool,
    /// When the worker before ended, in milliseconds since 1970; not given: there was none under this supervisor.
    #[arg(long)]
    pub away_since_ms: Option<u64>,
    /// Another worker serves: follows its log until an order ([`Go`]) comes on standard input.
    #[arg(long)]
    pub standby: bool,
}

impl WorkerArgs {
    /// The order that is in the arguments.
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

/// The order to serve, for a worker that stands by: a line of JSON. What it says counts instead of the arguments.
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

/// What the event loop is given besides configuration and users.
pub struct Worker {
    /// The TAP, attached and set up by the supervisor.
    pub tap: OwnedFd,
    /// The supervisor's memory for received frames, if it has one.
    pub received: Option<OwnedFd>,
    /// Requests from the control socket and from signals.
    pub requests: Receiver<ControlRequest>,
    /// An eventfd that is readable when `requests` has something.
    pub wake: Arc<OwnedFd>,
    /// The way to the supervisor.
    pub report: Report,
    /// Process id of the supervisor, for `status`.
    pub supervisor_pid: u32,
    /// How the worker before ended.
    pub previous: PreviousEnd,
    /// How many workers in a row fell by their own fault just before this one.
    pub attempts: u32,
    /// No worker has served from this TAP yet: frames that clients sent while it was closed are lost. Without it the TAP's
    /// queue has held them.
    pub tap_fresh: bool,
    /// When the worker before ended; `None`: there was none under this supervisor.
    pub away_since: Option<SystemTime>,
    /// Where the loop beats.
    pub pulse: Option<Pulse>,
    /// What the worker that stands by says of itself.
    pub standby: Option<Page>,
    /// What this worker has followed until now.
    pub following: Option<Following>,
    /// What keeps the worker from doing more than it needs to, as `status` says it.
    pub sandbox: String,
    /// What the supervisor says of the pair; `None`: the server is alone.
    pub pair: Option<pair::page::Page>,
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
    /// `outlast reboot --system`: the same, and the machine is to be rebooted.
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
    /// Everything is restored and the gates are open.
    Ready {
        /// The epoch that has begun.
        epoch: u64,
    },
    /// The worker is about to leave for an elective reboot.
    Reboot {
        /// The binary to start; `None`: the same.
        exec: Option<PathBuf>,
        /// How long to stay away, in seconds.
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
    /// This worker stands by, and its state is not the one that the serving worker had at that place of the log.
    Differs {
        /// The objects that were compared, as people read them.
        what: String,
        /// Bytes since the log was formatted.
        position: u64,
    },
    /// This worker stood by and ends, because it cannot go on.
    Failed {
        /// Why, in one line.
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

    /// Everything is restored and the gates are open: the start has succeeded.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn ready(&self, epoch: u64) -> io::Result<()> {
        self.send(&Message::Ready { epoch })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub(crate) fn send(&self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        (&*self.pipe).write_all(&line)
    }
}
