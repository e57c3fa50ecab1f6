//! Every target, briefly: its seeds, its corpus, and a fixed number of mutations of them from a fixed seed
//! (`OUTLAST_FUZZ_SEED` sets another).

use outlast_fuzz::{Mutator, Target};
use std::path::{Path, PathBuf};

/// The number of bytes by which the process may grow: an unjustified allocation by a length field fails.
const GROWTH_BYTES: u64 = 2 << 30;

/// Prints how to reproduce a failing input.
struct Blame<'a> {
    target: &'static str,
    what: String,
    input: &'a [u8],
}

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self
                .input
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            eprintln!(
                "target {}, {}; to keep it: echo {hex} | xxd -r -p > tests/fuzz/corpus/{}/NAME",
                self.target, self.what, self.target
            );
        }
    }
}

fn feed(target: Target, what: impl FnOnce() -> String, input: &[u8]) {
    let blame = Blame {
        target: target.name,
        what: what(),
        input,
    };
    (target.run)(input);
    drop(blame);
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .map(|entries| {
            entries
                .map(|entry| entry.expect("an entry").path())
                .collect()
        })
        .unwrap_or_default();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let bytes = std::fs::read(&file).expect("a corpus file");
            (file, bytes)
        })
        .collect()
}

fn limit_memory() {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("a size");
    let pages: u64 = pages
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::As);
    let wanted = pages * rustix::param::page_size() as u64 + GROWTH_BYTES;
    if limit.current.is_none_or(|now| now > wanted) {
        limit.current = Some(wanted);
        rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("a lower limit");
    }
}

fn short(name: &str) {
    limit_memory();
    let seed =
        std::env::var("OUTLAST_FUZZ_SEED").map_or(445, |seed| seed.parse().expect("a number"));
    let target = Target::named(name).expect("a target");
    let mut inputs: Vec<Vec<u8>> = (target.seeds)();
    for input in &inputs {
        feed(target, || "a seed".into(), input);
    }
    for (file, input) in corpus(name) {
        feed(target, || file.display().to_string(), &input);
        inputs.push(input);
    }
    let mut mutator = Mutator::new(seed);
    for run in 0..target.short_runs {
        let chosen = mutator.below(inputs.len());
        let input = mutator.mutate(&inputs[chosen], &inputs);
        feed(target, || format!("seed {seed}, run {run}"), &input);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { short(stringify!($name)); })*

        #[test]
        fn every_target_is_here() {
            let mut here = vec![$(stringify!($name)),*];
            let mut all: Vec<&str> = outlast_fuzz::TARGETS.iter().map(|target| target.name).collect();
            here.sort_unstable();
            all.sort_unstable();
            assert_eq!(here, all);
        }
    };
}

targets! { addressing auth config control discovery ingress nvram recover security smb }
