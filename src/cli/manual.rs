//! `outlast manual`: man pages and completions, made from the command line itself.

use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

/// Writes one page for each command, and a completion for each of three shells.
pub(super) fn run(directory: &Path) -> anyhow::Result<()> {
    let failed = || directory.display().to_string();
    std::fs::create_dir_all(directory).with_context(failed)?;
    let mut command = super::Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "outlast", directory).with_context(failed)?;
    }
    command.build();
    pages(&command, directory).with_context(failed)
}

/// Pages of a command and of all commands beneath it, except hidden ones.
fn pages(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    let mut file = File::create(directory.join(page.get_filename()))?;
    page.render(&mut file)?;
    let is_shown =
        |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
    let mut beneath = command.get_subcommands().filter(is_shown);
    beneath.try_for_each(|command| pages(command, directory))
}

#[cfg(test)]
mod tests;
