//! Runs under libFuzzer, by `scripts/fuzz`: the target named in `OUTLAST_FUZZ`, whose seeds are written into the
//! directory named in `OUTLAST_FUZZ_SEEDS`.

#![no_main]

use outlast_fuzz::Target;
use std::path::Path;
use std::sync::OnceLock;

static TARGET: OnceLock<Target> = OnceLock::new();

fn begin() {
    let name = std::env::var("OUTLAST_FUZZ").expect("OUTLAST_FUZZ names the target");
    let target = Target::named(&name).unwrap_or_else(|| panic!("there is no target {name}"));
    if let Some(directory) = std::env::var_os("OUTLAST_FUZZ_SEEDS") {
        for (index, seed) in (target.seeds)().iter().enumerate() {
            let file = Path::new(&directory).join(format!("seed-{index:03}"));
            std::fs::write(&file, seed)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
    TARGET.get_or_init(|| target);
}

libfuzzer_sys::fuzz_target!(init: begin(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(input);
    }
});
