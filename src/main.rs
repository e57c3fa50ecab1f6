//! Runs the `outlast` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    outlast::cli::main()
}
