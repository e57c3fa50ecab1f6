//! Tests the simulator: it finds each server that breaks a law, nearly always by what the clients observe.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlast_simulator::mutation::Mutation;
use outlast_simulator::sweep::hunt;

/// Runs within which a mutation must be found.
const RUNS: u64 = 20_000;

#[test]
fn every_mutation_is_found() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(mutation) = Mutation::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match hunt(*mutation, mutation.is_hidden(), RUNS) {
                        Some((failure, runs)) => {
                            let first = failure.what.lines().next().unwrap_or_default();
                            println!("{mutation:?}: found in run {runs}: {first:.150}");
                        }
                        None => missed.lock().expect("no panic").push(*mutation),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no panic");
    assert!(missed.is_empty(), "not found: {missed:?}");
}
