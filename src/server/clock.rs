//! Service time and wall time.
//!
//! Service time is the time the server has been in operation since its NVRAM was formatted. It continues from a
//! committed high-water mark after a recovery, so it never runs backwards, and it stands still while the server is down
//! (law 6).

use std::time::Duration;

use outlast_fsa::fileop::FileTime;
use serde::{Deserialize, Serialize};

/// How far ahead of the current time the committed high-water mark is set. A crash adds at most this much to service
/// time: many successive crashes must not end a wait much too early.
const AHEAD: Duration = Duration::from_millis(4);

/// The longest time that passes without being recorded while a client waits for a time to pass. A crash loses time that
/// is not recorded, and many successive crashes must not keep a wait from ending.
const COUNTED: Duration = Duration::from_millis(200);

/// Seconds from 1601-01-01 to 1970-01-01 (MS-DTYP 2.3.3).
const FILETIME_EPOCH_SECONDS: u64 = 11_644_473_600;

/// One reading of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Service time.
    pub now: Duration,
    /// Wall time.
    pub wall: FileTime,
    /// Time since the machine was booted, in which it may have been suspended.
    pub uptime: Duration,
}

/// A moment of real time, by which a later process can continue it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The boot of the kernel.
    pub boot: [u8; 16],
    /// The time since then.
    pub uptime: Duration,
    /// Real time: about the time since 1970.
    pub real: Duration,
}

/// Real time, in which leases are counted. Unlike service time it passes during an outage, and unlike wall time it
/// never runs backwards: within a boot it follows the time since the boot, and only the time between two boots is taken
/// from the wall clock.
#[derive(Debug)]
pub struct RealTime(Anchor);

impl RealTime {
    /// Continues from the recorded moment, if there is one.
    #[must_use]
    pub fn resumed(recorded: Option<Anchor>, boot: [u8; 16], time: Time) -> RealTime {
        let since_1601 = Duration::from_micros(time.wall / 10);
        let unix = since_1601.saturating_sub(Duration::from_secs(FILETIME_EPOCH_SECONDS));
        let real = match recorded {
            Some(of) if of.boot == boot => of.real + time.uptime.saturating_sub(of.uptime),
            Some(of) => unix.max(of.real),
            None => unix,
        };
        RealTime(Anchor {
            boot,
            uptime: time.uptime,
            real,
        })
    }

    /// Real time at a reading of the clocks.
    #[must_use]
    pub fn at(&self, time: Time) -> Duration {
        self.0.real + time.uptime.saturating_sub(self.0.uptime)
    }

    /// The moment of a reading of the clocks.
    #[must_use]
    pub fn anchor(&self, time: Time) -> Anchor {
        Anchor {
            boot: self.0.boot,
            uptime: time.uptime,
            real: self.at(time),
        }
    }
}

/// Converts the machine's clocks into service time and wall time.
#[derive(Debug)]
pub struct Clock {
    /// Service time when this process began.
    base: Duration,
    /// The monotonic clock when this process began.
    started: rustix::time::Timespec,
}

impl Clock {
    /// Makes a clock that continues from `base`.
    #[must_use]
    pub fn starting_at(base: Duration) -> Clock {
        Clock {
            base,
            started: monotonic(),
        }
    }

    /// All clocks, now.
    #[must_use]
    pub fn read(&self) -> Time {
        let now = self.base + (as_duration(monotonic()).saturating_sub(as_duration(self.started)));
        Time {
            now,
            wall: wall(),
            uptime: uptime(),
        }
    }

    /// Service time since this process began.
    #[must_use]
    pub fn uptime(&self, time: Time) -> Duration {
        time.now.saturating_sub(self.base)
    }
}

/// Measures how long work takes, from an arbitrary origin. The results of the work do not depend on it, only their
/// order.
pub trait Stopwatch {
    /// The elapsed time.
    fn read(&mut self) -> Duration;
}

/// The kernel's monotonic clock.
#[derive(Debug)]
pub struct Monotonic;

impl Stopwatch for Monotonic {
    fn read(&mut self) -> Duration {
        as_duration(monotonic())
    }
}

/// A stopwatch that advances by the same time with each reading, so that a run can be repeated.
#[derive(Debug, Default)]
pub struct Ticking(Duration);

impl Stopwatch for Ticking {
    fn read(&mut self) -> Duration {
        self.0 += Duration::from_micros(50);
        self.0
    }
}

/// The committed high-water mark of service time: no later time may be shown to a client.
#[derive(Debug)]
pub struct HighWater(Duration);

impl HighWater {
    /// Makes the recorded mark.
    #[must_use]
    pub fn recorded(mark: Duration) -> HighWater {
        HighWater(mark)
    }

    /// When the time has to be recorded next for a client that waits.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.0 + COUNTED
    }

    /// Returns the mark to record before anything that shows `now` is committed, unless the recorded one suffices.
    pub fn advance(&mut self, now: Duration) -> Option<Duration> {
        // renewed when half is used up, so that a turn's own length does not overrun it
        (now + AHEAD / 2 > self.0).then(|| {
            self.0 = now + AHEAD;
            self.0
        })
    }
}

/// Wall time, now.
#[must_use]
pub fn wall() -> FileTime {
    let wall = as_duration(rustix::time::clock_gettime(rustix::time::ClockId::Realtime));
    (wall.as_secs() + FILETIME_EPOCH_SECONDS) * 10_000_000 + u64::from(wall.subsec_nanos()) / 100
}

/// Time since the machine was booted, now.
#[must_use]
pub fn uptime() -> Duration {
    as_duration(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
}

fn monotonic() -> rustix::time::Timespec {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic)
}

fn as_duration(time: rustix::time::Timespec) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
