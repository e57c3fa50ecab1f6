//! Defines targets that accept any bytes: each puts them where a hostile peer, a damaged file or a mistake could, and
//! panics if a property does not hold. `docs/fuzzing.md` has the list; `scripts/fuzz` runs one for long, the tests here
//! run all of them briefly.

mod addressing;
mod auth;
mod config;
mod control;
mod discovery;
mod files;
mod ingress;
mod input;
mod mutate;
mod nvram;
mod recover;
mod security;
mod smb;

pub use mutate::Mutator;
// The requests of a client are shared with the tests of `outlast-smb`, which name their modules so.
use outlast_smb::{crypto, wire};

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and its corpus' directory.
    pub name: &'static str,
    /// Runs an input; panics at a finding.
    pub run: fn(&[u8]),
    /// Initial inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Number of mutated inputs in the short run.
    pub short_runs: u32,
}

/// Every target.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "recover",
        run: recover::run,
        seeds: recover::seeds,
        short_runs: 4_000,
    },
    Target {
        name: "smb",
        run: smb::run,
        seeds: smb::seeds,
        short_runs: 20_000,
    },
    Target {
        name: "ingress",
        run: ingress::run,
        seeds: ingress::seeds,
        short_runs: 40_000,
    },
    Target {
        name: "auth",
        run: auth::run,
        seeds: auth::seeds,
        short_runs: 80_000,
    },
    Target {
        name: "security",
        run: security::run,
        seeds: security::seeds,
        short_runs: 80_000,
    },
    Target {
        name: "nvram",
        run: nvram::run,
        seeds: nvram::seeds,
        short_runs: 30_000,
    },
    Target {
        name: "control",
        run: control::run,
        seeds: control::seeds,
        short_runs: 20_000,
    },
    Target {
        name: "discovery",
        run: discovery::run,
        seeds: discovery::seeds,
        short_runs: 20_000,
    },
    Target {
        name: "addressing",
        run: addressing::run,
        seeds: addressing::seeds,
        short_runs: 20_000,
    },
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
        short_runs: 60_000,
    },
];

impl Target {
    /// Finds the target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Target> {
        TARGETS.into_iter().find(|target| target.name == name)
    }
}
