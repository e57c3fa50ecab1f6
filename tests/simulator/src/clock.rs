//! The server's time: it passes while the server waits for a medium, in the middle of a turn.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use outlast::server::clock::{Stopwatch, Ticking};
use outlast::server::turns::SLICE;

use crate::random::Random;

/// Simulated time as the server has it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Rc<Cell<Duration>>);

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.get()
    }

    /// Time passes until then, if that is not over.
    pub fn wait_until(&self, then: Duration) {
        self.0.set(self.now().max(then));
    }

    /// When a medium will have done what it is asked to do now: in 1 to 20 ms.
    pub fn when_done(&self, random: &mut Random) -> Duration {
        self.now() + Duration::from_micros(1000 + random.below(19_000))
    }
}

/// How fast the processor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// Work takes next to no time.
    Fast,
    /// Now and then a piece of work takes longer than a slice of a turn.
    Unsteady,
    /// Every piece of work takes longer than a slice of a turn.
    Slow,
}

/// Says how long work takes.
#[derive(Debug)]
pub struct Processor {
    ticking: Ticking,
    speed: Speed,
    random: Random,
    /// What has been lost by slowness until now.
    lost: Duration,
}

impl Processor {
    /// A processor of this speed.
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
