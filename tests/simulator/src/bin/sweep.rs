//! Sweeps scenarios, or replays one. See `scripts/sweep`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use outlast_simulator::mutation::Mutation;
use outlast_simulator::run::run;
use outlast_simulator::scenario::{Durability, Scenario, Size};
use outlast_simulator::sweep::{Budget, Failure, Pairs, Tried, hunt, reference, shrink, sweep};

const USAGE: &str = "\
sweep [--from SEED] [--seeds N] [--minutes M] [--threads T] [--every-pair] [--durability process|power]
    crash at every step of N scenarios, for M minutes at most; --every-pair: in small ones, at every pair of steps
sweep --seed S [--small] --crash N[,M]|none [--shrink] [--ops I,...] [--durability process|power] [--mutation NAME]
      [--pair]
    replay one run with a log (RUST_LOG=debug, trace); --shrink: reduce its workload; --ops: with these operations only;
    --mutation: of a mutated server (the names are in src/mutation.rs); --pair: of two servers (tests/pair.rs)
sweep --mutation NAME
    sweep until this mutation is found";

/// The interval between two counts.
const REPORTS: Duration = Duration::from_secs(60);

struct Arguments {
    from: u64,
    seeds: u64,
    minutes: Option<f64>,
    threads: usize,
    seed: Option<u64>,
    small: bool,
    of_pair: bool,
    pairs: Pairs,
    durability: Durability,
    mutation: Option<Mutation>,
    crash: Vec<u64>,
    ops: Option<Vec<usize>>,
    shrink: bool,
}

fn arguments() -> Option<Arguments> {
    let mut arguments = Arguments {
        from: 0,
        seeds: u64::MAX,
        minutes: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        seed: None,
        small: false,
        of_pair: false,
        pairs: Pairs::Some,
        durability: Durability::Any,
        mutation: None,
        crash: Vec::new(),
        ops: None,
        shrink: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next();
        match word.as_str() {
            "--from" => arguments.from = value()?.parse().ok()?,
            "--seeds" => arguments.seeds = value()?.parse().ok()?,
            "--minutes" => arguments.minutes = Some(value()?.parse().ok()?),
            "--threads" => arguments.threads = value()?.parse().ok()?,
            "--seed" => arguments.seed = Some(value()?.parse().ok()?),
            "--every-pair" => arguments.pairs = Pairs::Every,
            "--small" => arguments.small = true,
            "--pair" => arguments.of_pair = true,
            "--shrink" => arguments.shrink = true,
            "--durability" => {
                arguments.durability = match value()?.as_str() {
                    "process" => Durability::Process,
                    "power" => Durability::Power,
                    _ => return None,
                }
            }
            "--mutation" => {
                let name = value()?;
                let mut all = Mutation::ALL.iter();
                let known = all.find(|mutation| format!("{mutation:?}") == name);
                arguments.mutation = Some(*known?);
            }
            "--ops" => arguments.ops = Some(numbers(&value()?)?),
            "--crash" => match value()?.as_str() {
                "none" => {}
                steps => arguments.crash = numbers(steps)?,
            },
            _ => return None,
        }
    }
    Some(arguments)
}

fn numbers<T: std::str::FromStr>(words: &str) -> Option<Vec<T>> {
    words.split(',').map(|word| word.parse().ok()).collect()
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match (arguments.seed, arguments.mutation) {
        (Some(seed), _) => replay(seed, &arguments),
        (None, Some(mutation)) => find(mutation),
        (None, None) => sweep_all(&arguments),
    }
}

fn replay(seed: u64, arguments: &Arguments) -> ExitCode {
    let log = env_logger::Env::default().default_filter_or(if arguments.shrink {
        "off"
    } else {
        "debug"
    });
    env_logger::Builder::from_env(log)
        .format_timestamp(None)
        .init();
    let size = if arguments.small {
        Size::Small
    } else {
        Size::Usual
    };
    let mut scenario = match arguments.of_pair {
        true => Scenario::of_pair(seed, size),
        false => Scenario::with(seed, size, arguments.durability),
    };
    if let Some(mutation) = arguments.mutation {
        mutation.choose_surroundings(&mut scenario);
        scenario.mutation = arguments.mutation;
    }
    if let Some(ops) = &arguments.ops {
        scenario.ops.retain(|op| ops.contains(&op.id));
    }
    let level = log::max_level();
    log::set_max_level(log::LevelFilter::Off);
    // Clients do not notice that there are two servers.
    let undisturbed = Scenario {
        pair: None,
        reboot_at: scenario.reboot_at.filter(|_| !arguments.of_pair),
        ..scenario.clone()
    };
    let reference = reference(&undisturbed, size);
    log::set_max_level(level);
    let transcript = reference.as_ref().ok().map(|found| &found.transcript);
    let what = match run(&scenario, &arguments.crash, transcript) {
        Ok(report) => {
            println!(
                "seed {seed}: {} steps, {} crashes ({} power cuts), {} reboots, log filled: {}: no failure",
                report.steps, report.crashes, report.cuts, report.reboots, report.wrapped
            );
            return ExitCode::SUCCESS;
        }
        Err(what) => what,
    };
    let mut failure = Failure {
        scenario,
        size,
        crashes: arguments.crash.clone(),
        what,
    };
    println!("{failure}");
    if arguments.shrink {
        failure = shrink(&failure);
        println!("smallest workload that fails:\n{failure}");
    }
    println!("{:#?}", Summary(&failure.scenario));
    ExitCode::FAILURE
}

/// Formats a scenario with one operation a line.
struct Summary<'a>(&'a Scenario);

impl std::fmt::Debug for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Scenario { ops, .. } = self.0;
        let bare = Scenario {
            ops: Vec::new(),
            ..self.0.clone()
        };
        writeln!(f, "{bare:?}")?;
        ops.iter().try_for_each(|op| writeln!(f, "  {op:?}"))
    }
}

fn find(mutation: Mutation) -> ExitCode {
    match hunt(mutation, mutation.is_hidden(), u64::MAX) {
        Some((failure, runs)) => {
            println!("{mutation:?} is found in run {runs}:\n{failure}");
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

/// Prints the count every minute, so that a killed sweep has printed its progress.
fn report_until(is_over: &Receiver<()>, tried: &Tried, began: Instant) {
    while is_over.recv_timeout(REPORTS) == Err(RecvTimeoutError::Timeout) {
        report(tried, began);
    }
}

fn report(tried: &Tried, began: Instant) {
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "{} scenarios, {} crash points ({} single, {} double; {} more are equivalent to one of them), {} failures, \
         {:.0} s",
        count(&tried.seeds),
        tried.points(),
        count(&tried.singles),
        count(&tried.pairs),
        count(&tried.equivalent),
        count(&tried.failures),
        began.elapsed().as_secs_f64(),
    );
}

fn sweep_all(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let minutes = arguments
        .minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let budget = Budget {
        first_seed: arguments.from,
        seeds: arguments.seeds,
        until: minutes.map(|minutes| began + minutes),
        pairs: arguments.pairs,
        durability: arguments.durability,
        threads: arguments.threads,
        failures: 10,
    };
    let tried = Tried::default();
    let (over, is_over) = mpsc::channel::<()>();
    let failures = std::thread::scope(|scope| {
        let tried = &tried;
        scope.spawn(move || report_until(&is_over, tried, began));
        let failures = sweep(budget, tried, &|failure| println!("{failure}\n"));
        drop(over);
        failures
    });
    report(&tried, began);
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
