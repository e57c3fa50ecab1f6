//! The server's time: it passes while the server waits for a medium, in the middle of a turn.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use outlast::server::clock::{Stopwatch, Ticking};

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

/// What work takes: next to nothing, or on a slow processor now and then more than a slice of a turn.
#[derive(Debug)]
pub struct Processor {
    ticking: Ticking,
    slow: Option<Random>,
    /// What has been lost by slowness until now.
    lost: Duration,
}

impl Processor {
    /// Is it slow, by which chance?
    #[must_use]
    pub fn new(slow: Option<Random>) -> Processor {
        Processor {
            ticking: Ticking::default(),
            slow,
            lost: Duration::ZERO,
        }
    }
}

impl Stopwatch for Processor {
    fn read(&mut self) -> Duration {
        if let Some(random) = &mut self.slow
            && random.percent(20)
        {
            self.lost += Duration::from_micros(random.below(4000));
        }
        self.ticking.read() + self.lost
    }
}
