//! Sweeps scenarios: runs each with a crash at every step, small ones also at pairs of steps, and shrinks the workload
//! of a failure.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::branches::{Branches, Course};
use crate::fuse::Step;
use crate::mutation::Mutation;
use crate::random::Random;
use crate::run::{Transcript, run};
use crate::scenario::{Durability, Scenario, Size};

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The scenario.
    pub scenario: Scenario,
    /// Its size.
    pub size: Size,
    /// The steps at which it crashed.
    pub crashes: Vec<u64>,
    /// The fault.
    pub what: String,
}

impl Failure {
    fn new(scenario: &Scenario, size: Size, crashes: &[u64], what: String) -> Failure {
        Failure {
            scenario: scenario.clone(),
            size,
            crashes: crashes.to_vec(),
            what,
        }
    }

    /// Returns the command-line options of the replay for all that differs from the seed's own scenario.
    fn options(&self) -> String {
        let scenario = &self.scenario;
        let size = match self.size {
            Size::Small => " --small",
            Size::Usual => "",
        };
        let (pair, own) = match scenario.pair {
            Some(_) => (" --pair", Scenario::of_pair(scenario.seed, self.size)),
            None => ("", Scenario::new(scenario.seed, self.size)),
        };
        let durability = match scenario.power.is_some() {
            power if power == own.power.is_some() => "",
            true => " --durability power",
            false => " --durability process",
        };
        let mutation = scenario.mutation;
        let mutation = mutation.map(|mutation| format!(" --mutation '{mutation:?}'"));
        let ids = || scenario.ops.iter().map(|op| op.id.to_string());
        let ops = (scenario.ops.len() < own.ops.len())
            .then(|| format!(" --ops {}", ids().collect::<Vec<_>>().join(",")));
        let [mutation, ops] = [mutation, ops].map(Option::unwrap_or_default);
        format!("{pair}{size}{durability}{mutation}{ops}")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let crashes: Vec<String> = self.crashes.iter().map(u64::to_string).collect();
        write!(
            f,
            "seed {}, crash at step {}: {}\nreplay: scripts/sweep --seed {}{} --crash {}",
            self.scenario.seed,
            if crashes.is_empty() {
                "-".to_owned()
            } else {
                crashes.join(" and ")
            },
            self.what,
            self.scenario.seed,
            self.options(),
            if crashes.is_empty() {
                "none".to_owned()
            } else {
                crashes.join(",")
            },
        )
    }
}

/// The numbers of scenarios and runs tried.
#[derive(Debug, Default)]
pub struct Tried {
    /// Scenarios.
    pub seeds: AtomicU64,
    /// Runs with one crash.
    pub singles: AtomicU64,
    /// Runs with two crashes.
    pub pairs: AtomicU64,
    /// Steps that were not tried, as a crash there leaves the same as one at a step that was tried.
    pub equivalent: AtomicU64,
    /// Failures.
    pub failures: AtomicU64,
}

impl Tried {
    /// Returns the number of crash points tried: crashes that occurred.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.singles.load(Ordering::Relaxed) + self.pairs.load(Ordering::Relaxed)
    }

    /// Counts a run in `kind`, one of the counters, and the steps that are equivalent to its last one.
    fn count(&self, kind: &AtomicU64, equivalent: Option<u64>) {
        kind.fetch_add(1, Ordering::Relaxed);
        let equivalent = equivalent.unwrap_or(0);
        self.equivalent.fetch_add(equivalent, Ordering::Relaxed);
    }
}

/// The share of the pairs of crashes of a small scenario that are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Every pair.
    Every,
    /// About every second one whose second crash is in the recovery, and one in twenty of the others.
    Some,
    /// A sixteenth of these.
    Few,
}

impl Pairs {
    /// Returns the maximum distance of the next second crash, in steps: in the recovery, and after it.
    fn strides(self) -> [u64; 2] {
        match self {
            Pairs::Every => [1, 1],
            Pairs::Some => [4, 40],
            Pairs::Few => [64, 640],
        }
    }
}

/// The extent of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The first seed.
    pub first_seed: u64,
    /// The number of seeds.
    pub seeds: u64,
    /// The time at which it stops, even if seeds are left.
    pub until: Option<Instant>,
    /// The durability of the scenarios.
    pub durability: Durability,
    /// The pairs of crashes that are tried in a small scenario.
    pub pairs: Pairs,
    /// The number of threads.
    pub threads: usize,
    /// The number of failures after which it stops.
    pub failures: usize,
}

/// Returns the size of a seed's scenario: every fourth is small, and is tried with two crashes.
#[must_use]
pub fn size_of(seed: u64) -> Size {
    match seed.is_multiple_of(4) {
        true => Size::Small,
        false => Size::Usual,
    }
}

/// Sweeps scenario after scenario, on several threads. `report` is called with each failure when it is found.
#[must_use]
pub fn sweep(budget: Budget, tried: &Tried, report: &(dyn Fn(&Failure) + Sync)) -> Vec<Failure> {
    let next = AtomicU64::new(budget.first_seed);
    let failures = Mutex::new(Vec::new());
    let found = || failures.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..budget.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop = || {
                        budget.until.is_some_and(|until| Instant::now() >= until)
                            || found().len() >= budget.failures
                    };
                    if seed - budget.first_seed >= budget.seeds || stop() {
                        return;
                    }
                    let size = size_of(seed);
                    let scenario = Scenario::with(seed, size, budget.durability);
                    let result = match size {
                        Size::Small => pairs(&scenario, budget.pairs, tried, &stop),
                        Size::Usual => singles(&scenario, tried, &stop),
                    };
                    if let Err(failure) = result {
                        tried.failures.fetch_add(1, Ordering::Relaxed);
                        report(&failure);
                        found().push(*failure);
                    }
                    tried.seeds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

/// A run of an unmutated server without a crash.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The kinds of its steps, with only the elective reboot.
    pub kinds: Vec<Step>,
    /// The number of steps before each turn.
    pub turns: Vec<u64>,
    /// What the clients observe without the elective reboot.
    pub transcript: Transcript,
}

impl Reference {
    /// Returns the number of steps.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.kinds.len() as u64
    }
}

/// Makes the reference of a scenario.
///
/// # Errors
/// The scenario fails without a crash.
pub fn reference(scenario: &Scenario, size: Size) -> Result<Reference, Box<Failure>> {
    let whole = Scenario {
        mutation: None,
        ..scenario.clone()
    };
    let undisturbed = Scenario {
        reboot_at: None,
        ..whole.clone()
    };
    let failure = |what| Box::new(Failure::new(scenario, size, &[], what));
    let transcript = run(&undisturbed, &[], None).map_err(&failure)?.transcript;
    let report = run(&whole, &[], Some(&transcript)).map_err(failure)?;
    Ok(Reference {
        kinds: report.kinds,
        turns: report.turns,
        transcript,
    })
}

/// Chooses the steps to crash at, and counts those that each stands for. A crash at a plain store to the uncommitted
/// part of the ring leaves the same as one at the next step of another kind. So only one in `free_writes` of these is
/// tried, which shows that a recovery does not read there.
struct Choice<'a> {
    kinds: &'a [Step],
    random: Random,
    free_writes: u64,
}

impl<'a> Choice<'a> {
    fn new(scenario: &Scenario, kinds: &'a [Step], purpose: &str) -> Choice<'a> {
        Choice {
            kinds,
            random: Random::new(scenario.seed, purpose),
            // A power cut leaves something else at every step, even if the server leaves the same.
            free_writes: match scenario.power {
                Some(_) => 3,
                None => 10,
            },
        }
    }

    /// Returns the next step to crash at after this one, and the number of equivalent steps that were passed over.
    fn after(&mut self, step: u64) -> Option<(u64, u64)> {
        let rest = self.kinds.get(step as usize..)?;
        let is_next = |kind: &Step| match kind {
            Step::FreeWrite => self.random.below(self.free_writes) == 0,
            _ => true,
        };
        let passed = rest.iter().position(is_next)? as u64;
        Some((step + passed + 1, passed))
    }
}

/// The reason why a sweep of a scenario stops early: a failure, or `None` if the time is over.
type End = Option<Box<Failure>>;

/// Crashes at every step of a scenario.
///
/// # Errors
/// The first failure.
pub fn singles(
    scenario: &Scenario,
    tried: &Tried,
    stop: &dyn Fn() -> bool,
) -> Result<(), Box<Failure>> {
    let size = Size::Usual;
    let reference = reference(scenario, size)?;
    let mut choice = Choice::new(scenario, &reference.kinds, "crashes");
    let chosen = std::iter::successors(choice.after(0), |(step, _)| choice.after(*step));
    let (steps, passed): (Vec<u64>, Vec<u64>) = chosen.unzip();
    let mut passed = passed.into_iter();
    let mut branches = Branches::new(scenario, &reference.transcript);
    let beginning = branches.beginning();
    let end = branches.each(
        &beginning,
        &[],
        &reference.turns,
        &steps,
        &mut |_, _, crashes, course| {
            went_well(scenario, size, crashes, course)?;
            tried.count(&tried.singles, passed.next());
            if stop() { Err(None) } else { Ok(()) }
        },
    );
    result_of(end)
}

/// Crashes at every step of a small scenario, and then a second time: at every later step, or more often among the
/// steps right after the first crash, which are those of the recovery, than later.
///
/// # Errors
/// The first failure.
pub fn pairs(
    scenario: &Scenario,
    density: Pairs,
    tried: &Tried,
    stop: &dyn Fn() -> bool,
) -> Result<(), Box<Failure>> {
    let size = Size::Small;
    let reference = reference(scenario, size)?;
    let mut choice = Choice::new(scenario, &reference.kinds, "crashes");
    let first = choice.after(0);
    let firsts: Vec<u64> = std::iter::successors(first, |(step, _)| choice.after(*step))
        .map(|(step, _)| step)
        .collect();
    let mut random = Random::new(scenario.seed, "second crashes");
    let mut branches = Branches::new(scenario, &reference.transcript);
    let beginning = branches.beginning();
    let end = branches.each(
        &beginning,
        &[],
        &reference.turns,
        &firsts,
        &mut |branches, place, first, course| {
            let Course { kinds, turns } = went_well(scenario, size, first, course)?;
            tried.singles.fetch_add(1, Ordering::Relaxed);
            let choice = Choice::new(scenario, &kinds, "second crashes");
            let seconds = seconds(first[0], choice, density, &mut random);
            let (steps, passed): (Vec<u64>, Vec<u64>) = seconds.into_iter().unzip();
            let mut passed = passed.into_iter();
            branches.each(
                place,
                first,
                &turns,
                &steps,
                &mut |_, _, crashes, course| {
                    went_well(scenario, size, crashes, course)?;
                    tried.count(&tried.pairs, passed.next());
                    if stop() { Err(None) } else { Ok(()) }
                },
            )
        },
    );
    result_of(end)
}

/// The number of steps after a crash that count as the recovery's.
const RECOVERY_STEPS: u64 = 60;

/// Chooses the steps of the second crash, each with the number of steps passed over before it.
fn seconds(
    first: u64,
    mut choice: Choice<'_>,
    density: Pairs,
    random: &mut Random,
) -> Vec<(u64, u64)> {
    let [in_recovery, later] = density.strides();
    let mut next = |second: u64| {
        let stride = match second < first + RECOVERY_STEPS {
            true => in_recovery,
            false => later,
        };
        let mut equivalent = 0;
        (0..=random.below(stride))
            .try_fold(second, |step, _| {
                let (next, passed) = choice.after(step)?;
                equivalent = passed;
                Some(next)
            })
            .map(|step| (step, equivalent))
    };
    std::iter::successors(next(first), |(second, _)| next(*second)).collect()
}

fn went_well(
    scenario: &Scenario,
    size: Size,
    crashes: &[u64],
    course: Result<Course, String>,
) -> Result<Course, End> {
    course.map_err(|what| Some(Box::new(Failure::new(scenario, size, crashes, what))))
}

fn result_of(end: Result<(), End>) -> Result<(), Box<Failure>> {
    match end {
        Err(Some(failure)) => Err(failure),
        Ok(()) | Err(None) => Ok(()),
    }
}

/// Sweeps scenarios with a mutated server until one fails, in at most `runs` runs. `sees_inside`: see
/// [`Scenario::sees_inside`]. Returns the failure and the number of runs.
#[must_use]
pub fn hunt(mutation: Mutation, sees_inside: bool, runs: u64) -> Option<(Failure, u64)> {
    let size = Size::Usual;
    let mut done = 0;
    for seed in 0.. {
        let durability = match mutation.is_of_power() {
            true => Durability::Power,
            false => Durability::Process,
        };
        let mut scenario = Scenario::with(seed, size, durability);
        if !mutation.concerns(&scenario) {
            continue;
        }
        mutation.choose_surroundings(&mut scenario);
        scenario.mutation = Some(mutation);
        scenario.sees_inside = sees_inside;
        let Reference { transcript, .. } = reference(&scenario, size).ok()?;
        done += 1;
        let report = match run(&scenario, &[], Some(&transcript)) {
            Ok(report) => report,
            Err(what) => return Some((Failure::new(&scenario, size, &[], what), done)),
        };
        // Many workloads find more than every step of a few. A power cut is noticed at the end of the run, at whichever
        // step it occurs.
        let stride = if mutation.is_of_power() { 23 } else { 7 };
        let steps: Vec<u64> = (stride..=report.steps).step_by(stride as usize).collect();
        let mut branches = Branches::new(&scenario, &transcript);
        let beginning = branches.beginning();
        let end: Result<(), End> = branches.each(
            &beginning,
            &[],
            &report.turns,
            &steps,
            &mut |_, _, crashes, course| {
                done += 1;
                went_well(&scenario, size, crashes, course)?;
                if done >= runs { Err(None) } else { Ok(()) }
            },
        );
        match end {
            Ok(()) => {}
            Err(None) => return None,
            Err(Some(failure)) => return Some((*failure, done)),
        }
    }
    None
}

/// Removes from the workload what the failure does not need. The crash moves with it: any step of the smaller scenario
/// may show the failure.
#[must_use]
pub fn shrink(failure: &Failure) -> Failure {
    let mut smallest = failure.clone();
    loop {
        let count = smallest.scenario.ops.len();
        let smaller = (0..count).rev().find_map(|without| {
            let mut scenario = smallest.scenario.clone();
            scenario.ops.remove(without);
            fails(&scenario, &smallest)
        });
        match smaller {
            Some(failure) => smallest = failure,
            None => return smallest,
        }
    }
}

fn fails(scenario: &Scenario, like: &Failure) -> Option<Failure> {
    let failed = |crashes: &[u64], what| Failure::new(scenario, like.size, crashes, what);
    let reference = match reference(scenario, like.size) {
        Ok(reference) => reference,
        Err(failure) => return like.crashes.is_empty().then(|| failed(&[], failure.what)),
    };
    let gap = match like.crashes[..] {
        [first, second] => Some(second - first),
        [_] => None,
        _ => return None,
    };
    (1..=reference.steps()).find_map(|step| {
        let crashes: Vec<u64> = std::iter::once(step)
            .chain(gap.map(|gap| step + gap))
            .collect();
        let what = run(scenario, &crashes, Some(&reference.transcript)).err()?;
        Some(failed(&crashes, what))
    })
}
