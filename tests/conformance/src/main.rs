//! Writes `docs/conformance.md`, and prints what is missing.

use std::process::ExitCode;

use anyhow::{Context, Result};
use outlast_conformance::{TABLE, examine, repository};

fn main() -> Result<ExitCode> {
    let repository = repository();
    let (table, complaints) = examine(&repository)?;
    std::fs::write(repository.join(TABLE), table).context(TABLE)?;
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    Ok(match complaints.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
