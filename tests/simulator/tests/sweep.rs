//! Sweeps a fixed budget of crash points, for the test command. `scripts/sweep` continues for as long as required.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;

use outlast_simulator::branches::{Branches, Course};
use outlast_simulator::failing;
use outlast_simulator::faults::Call;
use outlast_simulator::fuse::Step;
use outlast_simulator::kinds::Kind;
use outlast_simulator::run::{Report, run};
use outlast_simulator::scenario::{Durability, Scenario, Size};
use outlast_simulator::sweep::{Budget, Pairs, Tried, reference, size_of, sweep};

/// The seeds of the scenarios: enough of them to have every kind.
const SEEDS: [Range<u64>; 5] = [0..56, 73..74, 331..332, 363..364, 375..376];
/// The minimum number of crash points.
const POINTS: u64 = 40_000;

#[test]
fn no_crash_at_any_step_is_seen() {
    let tried = Tried::default();
    let budget = |seeds: &Range<u64>| Budget {
        first_seed: seeds.start,
        seeds: seeds.end - seeds.start,
        until: None,
        durability: Durability::Any,
        pairs: Pairs::Few,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        failures: 1,
    };
    let failure = SEEDS
        .iter()
        .find_map(|seeds| sweep(budget(seeds), &tried, &|_| {}).pop());
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    let equivalent = tried.equivalent.load(Ordering::Relaxed);
    println!(
        "{} crash points, and {equivalent} equivalent ones",
        tried.points()
    );
    assert!(tried.points() > POINTS, "{} crash points", tried.points());
}

/// Returns the kinds of a scenario.
fn kinds_of(scenario: &Scenario) -> Vec<String> {
    let power = scenario.power;
    let rules = scenario.rules;
    let uploads = match scenario.kind {
        Kind::Uploads { reader } => Some(reader.is_some()),
        _ => None,
    };
    let kinds = [
        ("power", power.is_some()),
        ("two failed syncs", power.is_some_and(|it| it.fails_twice)),
        ("limits", scenario.kind.limits().is_some()),
        ("uploads", uploads == Some(false)),
        ("uploads beside a slow reader", uploads == Some(true)),
        ("failing requests", failing::is_of(scenario.seed)),
        ("a copy that fails midway", fails_midway(scenario)),
        ("a share that is away", scenario.has_outages_of_share),
        ("no account", rules.without_account.is_some()),
        ("no RENAME_NOREPLACE", scenario.lacks.noreplace),
        ("no links", scenario.lacks.links),
        ("no birth times", scenario.lacks.births),
        ("an elective reboot", scenario.reboot_at.is_some()),
        ("IPv6", scenario.ipv6),
    ];
    let revocation = rules.revocation.map(|it| format!("{:?} revoked", it.how));
    let sickness = scenario
        .sickness
        .map(|it| format!("a share that {:?}", it.how));
    let unauthenticated = scenario
        .unauthenticated
        .map(|it| format!("{it:?} without a login"));
    kinds
        .into_iter()
        .filter(|(_, is_so)| *is_so)
        .map(|(kind, _)| kind.to_owned())
        .chain(revocation)
        .chain(unauthenticated)
        .chain(sickness)
        .collect()
}

fn fails_midway(scenario: &Scenario) -> bool {
    let mut failing = scenario.ops.iter().filter_map(|op| op.failure);
    failing.any(|failure| failure.what == failing::What::Rest)
}

/// The fixed budget has every kind of scenario.
#[test]
fn every_kind_of_scenario_is_swept() {
    let kinds = |seeds: &mut dyn Iterator<Item = u64>| -> BTreeSet<String> {
        seeds
            .flat_map(|seed| kinds_of(&Scenario::new(seed, size_of(seed))))
            .collect()
    };
    let swept = kinds(&mut SEEDS.into_iter().flatten());
    assert_eq!(swept, kinds(&mut (0..5_000)));
    assert_eq!(swept.len(), 22, "{swept:?}");
}

/// Repeats runs that have failed. A waiting lock and a waiter for an oplock break did not continue after a crash, as
/// what they waited for was in another client's snapshot. A log had no room for a close although half of it was free,
/// and nothing was done about that. A log had room for a request, but not for receiving anything else. An effect
/// referred to data that were received before its generation began, and were lost. A redo died when it had created a
/// file that was not on record in the sink yet, and the next redo did not wait for the sink.
#[test]
fn what_has_failed_before_does_not_again() {
    let runs: [(u64, Size, &[u64]); 7] = [
        (103, Size::Usual, &[960]),
        (287, Size::Usual, &[765]),
        (257, Size::Usual, &[214]),
        (2039, Size::Usual, &[255]),
        (60_123, Size::Usual, &[257]),
        (91_032, Size::Small, &[304, 318]),
        (76, Size::Small, &[193, 1008]),
    ];
    for (seed, size, crashes) in runs {
        let scenario = Scenario::new(seed, size);
        run(&scenario, crashes, None).unwrap_or_else(|what| panic!("{what}"));
    }
}

/// A copy within a file was in progress when the server died, and at first the file could not be opened again. The
/// client received that error, and its repeated copy then began with what the first one had left.
#[test]
fn what_was_under_way_is_not_answered_with_an_error_that_passes() {
    let scenario = Scenario::with(51, Size::Usual, Durability::Process);
    run(&scenario, &[868], None).unwrap_or_else(|what| panic!("{what}"));
}

/// A crash at a plain store to the uncommitted part of the ring is equivalent to one at the next step of another kind:
/// the sweep tries only some of them.
#[test]
fn skipped_crash_steps_have_the_same_result() {
    let mut passed = 0;
    for seed in [1, 2, 5, 7] {
        let scenario = Scenario {
            reboot_at: None,
            ..Scenario::with(seed, Size::Usual, Durability::Process)
        };
        let run =
            |crashes: &[u64]| run(&scenario, crashes, None).unwrap_or_else(|what| panic!("{what}"));
        let kinds = run(&[]).kinds;
        let is_free = |step: usize| kinds.get(step - 1) == Some(&Step::FreeWrite);
        for step in (1..kinds.len()).step_by(29).filter(|step| is_free(*step)) {
            let later = (step..).find(|step| !is_free(*step)).expect("another kind");
            let [one, other] = [step, later].map(|step| run(&[step as u64]));
            assert_eq!(one.transcript, other.transcript);
            assert_eq!(
                one.kinds[step..],
                other.kinds[later..],
                "seed {seed}, steps {step} and {later}"
            );
            passed += 1;
        }
    }
    assert!(passed > 50, "{passed} of them");
}

/// A run that continues from the middle of another one is equal to the run from the beginning.
#[test]
fn a_branch_is_a_run_from_the_beginning() {
    for (seed, size) in [
        (1, Size::Usual),
        (3, Size::Usual),
        (7, Size::Usual),
        (12, Size::Small),
    ] {
        let scenario = Scenario::new(seed, size);
        let reference = reference(&scenario, size).unwrap_or_else(|failure| panic!("{failure}"));
        let whole = |crashes: &[u64]| {
            let report = run(&scenario, crashes, Some(&reference.transcript));
            report.map(|Report { kinds, turns, .. }| (kinds, turns))
        };
        let steps: Vec<u64> = (1..=reference.steps()).step_by(41).collect();
        let mut branches = Branches::new(&scenario, &reference.transcript);
        let beginning = branches.beginning();
        let mut count = 0;
        let mut twice = 0;
        branches
            .each(
                &beginning,
                &[],
                &reference.turns,
                &steps,
                &mut |branches, place, first, course| {
                    let Course { kinds, turns } = course?;
                    count += 1;
                    assert_eq!(Ok((kinds.clone(), turns.clone())), whole(first));
                    let seconds: Vec<u64> =
                        (first[0] + 1..=kinds.len() as u64).step_by(173).collect();
                    branches.each(place, first, &turns, &seconds, &mut |_, _, both, course| {
                        let Course { kinds, turns } = course?;
                        twice += 1;
                        assert_eq!(Ok((kinds, turns)), whole(both));
                        Ok::<(), String>(())
                    })
                },
            )
            .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert_eq!(count, steps.len());
        assert!(twice > count, "{twice} pairs");
    }
}

/// A recovered server searches for work when it begins. A drain that began before the end of that search used to make
/// it spin.
#[test]
fn an_elective_reboot_may_begin_at_once() {
    let scenario = Scenario {
        reboot_at: Some(1),
        ..Scenario::new(1, Size::Small)
    };
    let report = run(&scenario, &[], None).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!(report.reboots, 1);
}

/// The same seed and the same steps give the same run, so that a printed failure can be replayed.
#[test]
fn a_run_can_be_repeated() {
    for seed in 0..5 {
        let scenario = Scenario::new(seed, Size::Usual);
        let once = || run(&scenario, &[150, 200], None).unwrap_or_else(|what| panic!("{what}"));
        let (first, second) = (once(), once());
        assert_eq!(first.steps, second.steps);
        assert_eq!(first.transcript, second.transcript);
    }
}

/// Every kind of failure of a disk, a name service or a configuration occurs.
#[test]
fn every_kind_of_failure_occurs() {
    let mut failed = BTreeMap::new();
    let mut revoked = BTreeSet::new();
    for seed in [3, 11, 19, 35, 43, 51, 67, 83, 99, 139, 143] {
        let scenario = Scenario::new(seed, Size::Usual);
        for step in (1..16).map(|part| part * 80) {
            let report = run(&scenario, &[step], None).unwrap_or_else(|what| panic!("{what}"));
            for (what, count) in report.failed {
                *failed.entry(what).or_insert(0) += count;
            }
            let revocation = scenario.rules.revocation.filter(|_| report.revoked);
            revoked.extend(revocation.map(|revocation| format!("{:?}", revocation.how)));
        }
    }
    assert_eq!(failed.len(), 5, "{failed:?}");
    assert!(revoked.len() > 2, "{revoked:?}");
}

/// A redo fails in each of its parts, at once and midway, on one file system and on one of two, whose share is isolated
/// then.
#[test]
fn a_redo_fails_in_every_part() {
    let all = BTreeSet::from([
        (Call::Open, false),
        (Call::Perform, false),
        (Call::Perform, true),
        (Call::Mark, false),
        (Call::ReadMarker, false),
    ]);
    let (mut alone, mut of_two) = (BTreeSet::new(), BTreeSet::new());
    let mut refused = 0;
    // Which call fails depends on the whole course of a scenario, so some are tried until each call has failed.
    for seed in (0..600).step_by(3) {
        if alone == all && of_two == all && refused > 100 {
            return;
        }
        let scenario = Scenario::with(seed, Size::Usual, Durability::Power);
        for step in (1..20).map(|part| part * 70) {
            let report = run(&scenario, &[step], None).unwrap_or_else(|what| panic!("{what}"));
            let failures = match scenario.sickness {
                Some(_) => &mut of_two,
                None => &mut alone,
            };
            failures.extend(report.redo_failures.into_keys());
            refused += report.refused;
        }
    }
    panic!("alone {alone:?}, of two {of_two:?}, {refused} requests refused");
}
