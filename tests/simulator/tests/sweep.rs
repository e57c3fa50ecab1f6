//! The sweep of the test command: a fixed budget of crash points. `scripts/sweep` goes on for as long as one likes.

use outlast_simulator::sweep::{Budget, Tried, sweep};

/// Scenarios; together some hundred thousand crash points.
const SEEDS: u64 = 160;

#[test]
fn no_crash_at_any_step_is_seen() {
    std::panic::set_hook(Box::new(|_| {}));
    let tried = Tried::default();
    let budget = Budget {
        first_seed: 0,
        seeds: SEEDS,
        until: None,
        every_pair: false,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        failures: 1,
    };
    let failures = sweep(budget, &tried);
    let _ = std::panic::take_hook();
    if let Some(failure) = failures.first() {
        panic!("{failure}");
    }
    println!("{} crash points", tried.points());
    assert!(tried.points() > 150_000, "{} crash points", tried.points());
}
