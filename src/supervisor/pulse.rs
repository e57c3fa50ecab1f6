//! The worker's pulse: signs of life that its loop leaves in a page of memory, and what the supervisor makes of them.
//!
//! The page is a memfd that the worker inherits; its number is in the environment, so that an older worker passes over
//! it. It is written by the loop alone, from its own turns: a thread beside it would beat for a loop that spins. A turn
//! may be long for good reasons, and these are not guessed at:
//!
//! * *A recovery* beats with each object, effect and request that it is through with. It has [`STARTING`] for one of
//!   them.
//! * *A file operation* is announced before it is begun. If the kernel keeps the loop waiting in it, the disk is to
//!   blame: the worker is left alone however long that takes, for the next one would wait for the same disk, and
//!   `outlast status` says so. If it computes, it has [`COMPUTING`].
//! * *A debugger* has stopped it: it is left alone.
//!
//! Anything else that takes longer than [`SILENT`] is a worker that is stopped, spins or waits for ever. It is killed,
//! and the next one recovers; the request that it was at is counted ([`crate::server::set_aside`]).

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::environment;
use crate::shared_page::SharedPage;

/// Names the descriptor.
pub(super) const VARIABLE: &str = "OUTLAST_PULSE_FD";
/// An idle loop beats so often.
pub const BEAT: Duration = Duration::from_millis(400);
/// A busy one does not write more often than this.
const BEAT_MIN: Duration = Duration::from_millis(50);
/// How often the supervisor looks.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// Looks without a beat after which the worker is said to be silent.
const NOTICED: u32 = 2;
/// Looks without a beat after which it is killed: 2 s.
const SILENT: u32 = 4;
/// The same, of looks that found it computing, while it is in a file operation: 10 s. A directory of a million files
/// takes some.
const COMPUTING: u32 = 20;
/// The same before it serves: 30 s.
const STARTING: u32 = 60;

/// What the loop says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Rises with each beat; 0: there has been none, and none is waited for.
    pub beats: u64,
    /// When the last one was (CLOCK_MONOTONIC).
    pub at: Duration,
    /// The gates are open.
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

    /// Is the loop of this process silent, now that somebody waits for it?
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

/// The page.
#[derive(Clone, Debug)]
pub struct Pulse(SharedPage);

impl Pulse {
    /// A page in which nobody has beaten yet.
    ///
    /// # Errors
    /// There can be none.
    pub fn new() -> io::Result<Pulse> {
        SharedPage::new("outlast-pulse", 24).map(Pulse)
    }

    /// The one that the supervisor has given this process, if it has; to be called once, before anything else is
    /// opened.
    pub(super) fn inherited(is_open: impl FnOnce(RawFd) -> bool) -> Option<Pulse> {
        environment::inherited(VARIABLE, is_open).map(|page| Pulse(page.into()))
    }

    /// What the loop has said last. A page that cannot be read says nothing.
    #[must_use]
    pub fn signs(&self) -> Signs {
        Signs::from_words(self.0.words(0))
    }

    /// Says that there will be beats, before the loop begins: one that does not begin is noticed.
    pub(super) fn announce(&self) {
        self.say(Signs {
            beats: 1,
            at: now(),
            ..Signs::default()
        });
    }

    fn say(&self, signs: Signs) {
        // A page of memory; if it were lost the worker would be taken for silent, and the next one has another.
        let _ = self.0.set_words(0, signs.to_words());
    }

    /// The memory, to be inherited.
    pub(super) fn memory(&self) -> &SharedPage {
        &self.0
    }
}

/// The loop's side.
#[derive(Debug)]
pub struct Heart {
    pulse: Option<Pulse>,
    signs: Signs,
    said: Instant,
}

impl Heart {
    /// Beats on this page, or nowhere.
    #[must_use]
    pub fn new(pulse: Option<Pulse>) -> Heart {
        let mut heart = Heart {
            pulse,
            signs: Signs::default(),
            said: Instant::now(),
        };
        heart.say();
        heart
    }

    /// The loop has come round, or a recovery has come on.
    pub fn beat(&mut self) {
        if self.said.elapsed() >= BEAT_MIN {
            self.say();
        }
    }

    /// The gates are open.
    pub fn serve(&mut self) {
        self.signs.is_serving = true;
        self.say();
    }

    /// A file operation, or a wait for a medium, begins or has ended.
    pub fn at_disk(&mut self, yes: bool) {
        if std::mem::replace(&mut self.signs.is_at_disk, yes) != yes {
            self.say();
        }
    }

    fn say(&mut self) {
        let Some(pulse) = &self.pulse else { return };
        self.signs.beats += 1;
        self.said = Instant::now();
        self.signs.at = now();
        pulse.say(self.signs);
    }
}

/// A worker that has taken no turn for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Since then (CLOCK_MONOTONIC).
    since: Duration,
    /// What it is at meanwhile.
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

/// What is made of the signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It lives.
    Well,
    /// It may have a reason.
    Silent(Silence),
    /// It has none.
    Hung(Silence),
}

/// The supervisor's side. It counts its own looks and not the time: a machine that was suspended has not been silent.
#[derive(Debug, Default)]
pub struct Watch {
    last: Signs,
    silent: u32,
    computing: u32,
}

impl Watch {
    /// One look, every [`TICK`]. `state`: the loop's thread's, as in `/proc/PID/stat`; `None`: not known.
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

/// The state of a process's first thread, where the loop is (proc_pid_stat(5)).
pub(super) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have anything in it.
    let (_, after) = stat.rsplit_once(") ")?;
    after.chars().next()
}

#[cfg(test)]
mod tests;
