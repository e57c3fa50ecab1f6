//! Implements the worker's pulse: signs of life that its loop leaves in a page of memory, and their interpretation by
//! the supervisor.
//!
//! The page is a memfd that the worker inherits; its number is in the environment, so that an older worker ignores it.
//! Only the loop writes it, in its turns: a separate thread would beat for a loop that spins. A turn may be long for
//! valid reasons, which are reported:
//!
//! * *A recovery* beats with each object, effect and request that it has finished. It has [`STARTING`] for one of them.
//! * *A file operation* is announced before it begins. If the kernel keeps the loop waiting in it, the disk is the
//!   cause: the worker is left alone however long that takes, since the next one would wait for the same disk, and
//!   `outlast status` reports it. If it computes, it has [`COMPUTING`].
//! * *A debugger* has stopped it: it is left alone.
//!
//! A worker that is silent for longer than [`SILENT`] for another reason is stopped, spins or waits for ever. It is
//! killed, and the next one recovers; the request in progress is counted ([`crate::server::set_aside`]).

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::environment;
use crate::shared_page::SharedPage;

/// The variable with the descriptor.
pub(super) const VARIABLE: &str = "OUTLAST_PULSE_FD";
/// The interval of beats of an idle loop.
pub const BEAT: Duration = Duration::from_millis(400);
/// The shortest interval of beats of a busy loop.
const BEAT_MIN: Duration = Duration::from_millis(50);
/// The interval at which the supervisor checks.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// The number of checks without a beat after which the worker is reported as silent.
const NOTICED: u32 = 2;
/// The number of checks without a beat after which it is killed: 2 s.
const SILENT: u32 = 4;
/// The same for checks that found it computing during a file operation: 10 s. A directory of a million files takes
/// some.
const COMPUTING: u32 = 20;
/// The same before it serves: 30 s.
const STARTING: u32 = 60;

/// The signs that the loop leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Rises with each beat; 0: there has been none, and none is expected.
    pub beats: u64,
    /// The time of the last beat (CLOCK_MONOTONIC).
    pub at: Duration,
    /// It serves.
    pub is_serving: bool,
    /// It is in a file operation, or waits for a medium.
    pub is_at_disk: bool,
}

impl Signs {
    fn to_words(self) -> [u64; 3] {
        let flags = u64::from(self.is_serving) | u64::from(self.is_at_disk) << 1;
        let at = u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX);
        [self.beats, at, flags]
    }

    fn from_words([beats, at, flags]: [u64; 3]) -> Signs {
        Signs {
            beats,
            at: Duration::from_nanos(at),
            is_serving: flags & 1 != 0,
            is_at_disk: flags & 2 != 0,
        }
    }

    /// Returns the silence of this process's loop, for a client that waits for it.
    #[must_use]
    pub fn silence(self) -> Option<Silence> {
        let is_long = now().saturating_sub(self.at) >= TICK * NOTICED;
        let silence = Silence::new(self, state(std::process::id()));
        (self.is_serving && is_long).then_some(silence)
    }
}

/// CLOCK_MONOTONIC, which all processes share.
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// The shared page.
#[derive(Clone, Debug)]
pub struct Pulse(SharedPage);

impl Pulse {
    /// Makes a page without a beat.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn new() -> io::Result<Pulse> {
        SharedPage::new("outlast-pulse", 24).map(Pulse)
    }

    /// Takes the page that the supervisor has passed to this process, if it has; to be called once, before anything
    /// else is opened.
    pub(super) fn inherited(is_open: impl FnOnce(RawFd) -> bool) -> Option<Pulse> {
        environment::inherited(VARIABLE, is_open).map(|page| Pulse(page.into()))
    }

    /// The last signs of the loop; an unreadable page has none.
    #[must_use]
    pub fn signs(&self) -> Signs {
        Signs::from_words(self.0.words(0))
    }

    /// Announces that there will be beats, before the loop begins: a loop that does not begin is noticed.
    pub(super) fn announce(&self) {
        self.publish(Signs {
            beats: 1,
            at: now(),
            ..Signs::default()
        });
    }

    fn publish(&self, signs: Signs) {
        // If this page were lost, the worker would be treated as silent, and the next one has another page.
        let _ = self.0.set_words(0, signs.to_words());
    }

    /// The memory that workers inherit.
    pub(super) fn memory(&self) -> &SharedPage {
        &self.0
    }
}

/// The loop's side.
#[derive(Debug)]
pub struct Heart {
    pulse: Option<Pulse>,
    signs: Signs,
    published: Instant,
}

impl Heart {
    /// Beats on this page, or nowhere.
    #[must_use]
    pub fn new(pulse: Option<Pulse>) -> Heart {
        let mut heart = Heart {
            pulse,
            signs: Signs::default(),
            published: Instant::now(),
        };
        heart.publish();
        heart
    }

    /// Notes that the loop has completed a turn, or a recovery has progressed.
    pub fn beat(&mut self) {
        if self.published.elapsed() >= BEAT_MIN {
            self.publish();
        }
    }

    /// Notes that it serves.
    pub fn serve(&mut self) {
        self.signs.is_serving = true;
        self.publish();
    }

    /// Notes that a file operation, or a wait for a medium, begins or has ended.
    pub fn at_disk(&mut self, yes: bool) {
        if std::mem::replace(&mut self.signs.is_at_disk, yes) != yes {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let Some(pulse) = &self.pulse else { return };
        self.signs.beats += 1;
        self.published = Instant::now();
        self.signs.at = now();
        pulse.publish(self.signs);
    }
}

/// A worker that has taken no turn for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Its beginning (CLOCK_MONOTONIC).
    since: Duration,
    /// Its reason.
    why: &'static str,
}

impl Silence {
    fn new(signs: Signs, state: Option<char>) -> Silence {
        let why = match state {
            Some('t') => "a debugger has stopped it",
            Some('T') => "it is stopped (SIGSTOP)",
            Some('D') => "it waits for a disk",
            _ if signs.is_at_disk => "it is in a file operation",
            _ if !signs.is_serving => "it is starting",
            _ => "it spins, or waits for ever",
        };
        let since = signs.at;
        Silence { since, why }
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = now().saturating_sub(self.since).as_secs_f64();
        write!(f, "has taken no turn for {seconds:.1} s: {}", self.why)
    }
}

/// The supervisor's interpretation of the signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It makes progress.
    Well,
    /// It is silent, possibly for a reason.
    Silent(Silence),
    /// It is silent without a reason.
    Hung(Silence),
}

/// The supervisor's side. It counts its own checks and not the time: a suspended machine has not been silent.
#[derive(Debug, Default)]
pub struct Watch {
    last: Signs,
    silent: u32,
    computing: u32,
}

impl Watch {
    /// Makes one check, every [`TICK`]. `state`: of the loop's thread, as in `/proc/PID/stat`; `None`: unknown.
    pub fn look(&mut self, signs: Signs, state: Option<char>) -> Verdict {
        if signs.beats == 0 || signs.beats != self.last.beats {
            *self = Watch {
                last: signs,
                ..Watch::default()
            };
            return Verdict::Well;
        }
        self.silent = self.silent.saturating_add(1);
        self.computing += u32::from(state == Some('R'));
        let is_hung = match state {
            Some('t' | 'D') => false,
            Some('T') => self.silent >= SILENT,
            _ if signs.is_at_disk => self.computing >= COMPUTING,
            _ if !signs.is_serving => self.silent >= STARTING,
            _ => self.silent >= SILENT,
        };
        let silence = Silence::new(signs, state);
        match self.silent {
            _ if is_hung => Verdict::Hung(silence),
            looks if looks >= NOTICED => Verdict::Silent(silence),
            _ => Verdict::Well,
        }
    }
}

/// The state of a process's first thread, which runs the loop (proc_pid_stat(5)).
pub(super) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything.
    let (_, after) = stat.rsplit_once(") ")?;
    after.chars().next()
}

#[cfg(test)]
mod tests;
