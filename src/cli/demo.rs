//! `outlast demo`: runs `scripts/demo` with this very binary.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// Becomes the demo script.
pub(super) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("this binary cannot find itself")?;
    let here = std::env::current_dir().context("there is no current directory")?;
    let script = [own.as_path(), here.as_path()]
        .into_iter()
        .find_map(beside)
        .context("scripts/demo is neither beside this binary nor in the current directory; run it in a clone of the \
            project")?;
    let error = Command::new(&script)
        .args(arguments)
        .env("OUTLAST", &own)
        .exec();
    Err(error).with_context(|| format!("{} cannot be run", script.display()))
}

/// The script in the clone of the project that `start` lies in.
fn beside(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|directory| directory.join("scripts/demo"))
        .find(|script| script.is_file())
}
