//! `outlast check`.

use std::path::Path;

use crate::preflight;
use crate::supervisor::worker::EXIT_ERROR;

/// Prints the errors, a line each, and probable mistakes. Returns the exit code.
pub(super) fn run(config: &Path) -> anyhow::Result<u8> {
    let found = preflight::findings(config);
    let errors = found.errors.iter().map(|line| format!("error: {line}\n"));
    let warnings = found
        .warnings
        .iter()
        .map(|line| format!("warning: {line}\n"));
    let mut text: String = errors.chain(warnings).collect();
    if text.is_empty() {
        text = format!("{}: nothing is wrong\n", config.display());
    }
    super::status::print(&text)?;
    Ok(if found.errors.is_empty() {
        0
    } else {
        EXIT_ERROR
    })
}
