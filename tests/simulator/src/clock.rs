//! Simulates the server's time, which advances while the server waits for a medium, in the middle of a turn.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use outlast::server::clock::{Stopwatch, Ticking};
use outlast::server::turns::SLICE;

use crate::random::Random;

/// The simulated time of the server. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Rc<Cell<Duration>>);

impl Clock {
    /// Returns the present time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.get()
    }

    /// Advances the time to `then`, if that is not past.
    pub fn wait_until(&self, then: Duration) {
        self.0.set(self.now().max(then));
    }

    /// Returns the time at which a medium completes a request made now: after 1 to 20 ms.
    pub fn when_done(&self, random: &mut Random) -> Duration {
        self.now() + Duration::from_micros(1000 + random.below(19_000))
    }
}

/// The speed of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// Work takes almost no time.
    Fast,
    /// Some work takes longer than a slice of a turn.
    Unsteady,
    /// All work takes longer than a slice of a turn.
    Slow,
}

/// Simulates the time that work takes.
#[derive(Debug)]
pub struct Processor {
    ticking: Ticking,
    speed: Speed,
    random: Random,
    /// The delay that slow work has caused so far.
    lost: Duration,
}

impl Processor {
    /// Makes a processor of this speed.
    #[must_use]
    pub fn new(speed: Speed, random: Random) -> Processor {
        Processor {
            ticking: Ticking::default(),
            speed,
            random,
            lost: Duration::ZERO,
        }
    }
}

impl Stopwatch for Processor {
    fn read(&mut self) -> Duration {
        match self.speed {
            Speed::Fast => {}
            Speed::Unsteady => {
                if self.random.percent(20) {
                    self.lost += Duration::from_micros(self.random.below(4000));
                }
            }
            Speed::Slow => self.lost += SLICE + Duration::from_micros(self.random.below(3000)),
        }
        self.ticking.read() + self.lost
    }
}
