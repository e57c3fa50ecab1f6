//! Shares the common beginning of runs. A run continues in a world that can be restored to the beginning of a turn
//! ([`crate::arena`]): the run in which the server crashes at a step of that turn starts there, instead of at the
//! beginning of the scenario.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::arena::{self, Arena, Snapshot};
use crate::fuse::Step;
use crate::run::{Report, Transcript, World};
use crate::scenario::Scenario;
use crate::server;

thread_local! {
    /// A run is in progress: a panic is its result, and is not printed.
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Prepares the allocator and the panic hook, once for a program, before the first run.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    arena::prepare();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_RUNNING.get() {
                others(info);
            }
        }));
    });
}

/// Runs `f`, which is a run or a part of it: a panic is its result.
pub(crate) fn attempt<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let was_running = IS_RUNNING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    IS_RUNNING.set(was_running);
    result.map_err(|payload| server::message(&*payload))
}

/// The steps of a successful run.
#[derive(Clone, Debug)]
pub struct Course {
    /// The kinds of its steps.
    pub kinds: Vec<Step>,
    /// The number of steps before each turn.
    pub turns: Vec<u64>,
}

/// The beginning of a turn of a run.
pub struct Place {
    turn: usize,
    snapshot: Snapshot,
}

/// The world of a scenario, in which each run continues from the place where it branches off.
pub struct Branches<'a> {
    reference: &'a Transcript,
    /// It lies in the arena.
    world: *mut World,
    /// Snapshots that are free to be used again.
    spare: Vec<Snapshot>,
    arena: Arena,
}

/// A function that is called with each run: the place where it branched off, the steps at which the server crashed, and
/// the result.
pub type Visit<'a, E> =
    dyn FnMut(&mut Branches<'_>, &Place, &[u64], Result<Course, String>) -> Result<(), E> + 'a;

impl<'a> Branches<'a> {
    /// Makes the world at its beginning. `reference`: what the clients observe if the server does not crash.
    #[must_use]
    pub fn new(scenario: &Scenario, reference: &'a Transcript) -> Branches<'a> {
        prepare();
        let arena = Arena::new();
        let world = arena.within(|| Box::into_raw(Box::new(World::new(scenario))));
        Branches {
            reference,
            world,
            spare: Vec::new(),
            arena,
        }
    }

    /// Returns the place before the first turn.
    pub fn beginning(&mut self) -> Place {
        self.save(0)
    }

    /// Continues a run from a place of it, and tries all runs that branch off: those in which the server also crashes
    /// at one of these steps. `turns`: the number of steps before each turn of the run.
    ///
    /// # Errors
    /// The error of `visit`, which ends it.
    pub fn each<E>(
        &mut self,
        from: &Place,
        crashes: &[u64],
        turns: &[u64],
        steps: &[u64],
        visit: &mut Visit<'_, E>,
    ) -> Result<(), E> {
        self.restore(from);
        let mut steps = steps.iter().copied().peekable();
        for turn in from.turn..turns.len() {
            let end = turns.get(turn + 1).copied().unwrap_or(u64::MAX);
            let Some(next) = steps.peek() else { break };
            if *next <= end {
                let place = self.save(turn);
                while let Some(step) = steps.next_if(|step| *step <= end) {
                    self.restore(&place);
                    let crashes = [crashes, &[step]].concat();
                    let course = self.run_to_end(&crashes);
                    visit(self, &place, &crashes, course)?;
                }
                self.restore(&place);
                self.spare.push(place.snapshot);
            }
            if turn + 1 < turns.len()
                && let Err(what) = self.turn(crashes, end)
            {
                return visit(self, from, crashes, Err(what));
            }
        }
        Ok(())
    }

    fn save(&mut self, turn: usize) -> Place {
        let mut snapshot = self.spare.pop().unwrap_or_default();
        // SAFETY: in this thread only `self.world` leads into the arena, and only `run_to_end` and `turn` dereference
        // it.
        unsafe { self.arena.save(&mut snapshot) };
        Place { turn, snapshot }
    }

    fn restore(&mut self, place: &Place) {
        // SAFETY: as in `save`.
        unsafe { self.arena.restore(&place.snapshot) };
    }

    fn run_to_end(&mut self, crashes: &[u64]) -> Result<Course, String> {
        // SAFETY: the world lies in the arena, and this is the only reference to it.
        let world = unsafe { &mut *self.world };
        let report = self.arena.within(|| {
            attempt(|| {
                world.plan(crashes);
                world.run_to_end(Some(self.reference))
            })
        });
        // The result must not lie in the arena. What lies there is not dropped: the arena is restored as a whole.
        let course = match &report {
            Ok(Report { kinds, turns, .. }) => Ok(Course {
                kinds: kinds.clone(),
                turns: turns.clone(),
            }),
            Err(what) => Err(what.clone()),
        };
        std::mem::forget(report);
        course
    }

    /// Runs one turn, and checks that it has as many steps as before.
    fn turn(&mut self, crashes: &[u64], steps: u64) -> Result<(), String> {
        // SAFETY: as in `run_to_end`.
        let world = unsafe { &mut *self.world };
        let result = self.arena.within(|| {
            attempt(|| {
                world.plan(crashes);
                world.turn();
                assert_eq!(world.steps(), steps, "a run cannot be repeated");
            })
        });
        result.map_err(|what| what.as_str().to_owned())
    }
}
