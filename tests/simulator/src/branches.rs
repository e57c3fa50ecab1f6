//! Runs that have their beginning in common. A run goes on in a world that can be put back as it was at the beginning
//! of a turn ([`crate::arena`]): the run in which the server dies at a step of that turn begins there, and not at the
//! beginning of all.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::arena::{self, Arena, Snapshot};
use crate::fuse::Step;
use crate::run::{Report, Transcript, World};
use crate::scenario::Scenario;
use crate::server;

thread_local! {
    /// A run is under way: what it panics with is its result.
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Once for a program, before the first run.
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

/// A run, or a part of it: a panic is its result.
pub(crate) fn attempt<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let was_running = IS_RUNNING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    IS_RUNNING.set(was_running);
    result.map_err(|payload| server::message(&*payload))
}

/// What is known of a run that went well.
#[derive(Clone, Debug)]
pub struct Course {
    /// Its steps.
    pub kinds: Vec<Step>,
    /// How many there had been at the beginning of each turn.
    pub turns: Vec<u64>,
}

/// The beginning of a turn.
pub struct Place {
    turn: usize,
    snapshot: Snapshot,
}

/// A scenario's world, in which one run after the other goes on from where they part.
pub struct Branches<'a> {
    reference: &'a Transcript,
    /// It lies in the arena.
    world: *mut World,
    /// Snapshots that are not used any more: their memory is.
    spare: Vec<Snapshot>,
    arena: Arena,
}

/// Called with a run: where it parted from the others, where the server died, and what came of it.
pub type Visit<'a, E> =
    dyn FnMut(&mut Branches<'_>, &Place, &[u64], Result<Course, String>) -> Result<(), E> + 'a;

impl<'a> Branches<'a> {
    /// The world at its beginning. `reference`: what the clients see if the server does not die.
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

    /// Where it is before the first turn.
    pub fn beginning(&mut self) -> Place {
        self.save(0)
    }

    /// Goes on with a run from a place of it, and tries all that part from it: the server dies at one of these steps
    /// besides. `turns`: the steps at the beginning of each turn of the run.
    ///
    /// # Errors
    /// Those of `visit`, which ends it.
    pub fn each<E>(
        &mut self,
        from: &Place,
        blows: &[u64],
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
                    let blows = [blows, &[step]].concat();
                    let course = self.run_to_end(&blows);
                    visit(self, &place, &blows, course)?;
                }
                self.restore(&place);
                self.spare.push(place.snapshot);
            }
            if turn + 1 < turns.len()
                && let Err(what) = self.turn(blows, end)
            {
                return visit(self, from, blows, Err(what));
            }
        }
        Ok(())
    }

    fn save(&mut self, turn: usize) -> Place {
        let mut snapshot = self.spare.pop().unwrap_or_default();
        // SAFETY: of this thread `self.world` alone leads into the arena, and only `run_to_end` and `turn` look there.
        unsafe { self.arena.save(&mut snapshot) };
        Place { turn, snapshot }
    }

    fn restore(&mut self, place: &Place) {
        // SAFETY: as in `save`.
        unsafe { self.arena.restore(&place.snapshot) };
    }

    fn run_to_end(&mut self, blows: &[u64]) -> Result<Course, String> {
        // SAFETY: the world lies in the arena, where this alone looks at it now.
        let world = unsafe { &mut *self.world };
        let report = self.arena.within(|| {
            attempt(|| {
                world.plan(blows);
                world.run_to_end(Some(self.reference))
            })
        });
        // What is kept must not lie in the arena, and what lies there is not taken down: it will be as it was.
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

    /// One turn. It has to come as far as it did before.
    fn turn(&mut self, blows: &[u64], steps: u64) -> Result<(), String> {
        // SAFETY: as in `run_to_end`.
        let world = unsafe { &mut *self.world };
        let result = self.arena.within(|| {
            attempt(|| {
                world.plan(blows);
                world.turn();
                assert_eq!(world.steps(), steps, "a run cannot be repeated");
            })
        });
        result.map_err(|what| what.as_str().to_owned())
    }
}
