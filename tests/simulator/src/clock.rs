//! The server's time: it passes while the server waits for a medium, in the middle of a turn.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use outlast::server::clock::Stopwatch;

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
    /// Is it slow, by which chance?
    pub slow: Option<Random>,
    /// What all work has taken until now.
    pub spent: Duration,
}

impl Stopwatch for Processor {
    fn read(&mut self) -> Duration {
        let mut micros = 50;
        if let Some(random) = &mut self.slow
            && random.percent(20)
        {
            micros += random.below(4000);
        }
        self.spent += Duration::from_micros(micros);
        self.spent
    }
}
