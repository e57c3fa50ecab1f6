//! `outlast user add|remove|list`.

use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Subcommand;
use rustix::fs::FlockOperation;

use super::ConfigArg;
use crate::config::Config;
use crate::users::{self, Users};

/// Longest password: what NTLM clients let one type, with room to spare.
const PASSWORD_MAX_BYTES: usize = 1024;

#[derive(Subcommand)]
pub(super) enum User {
    /// Add a user, or give one a new password.
    Add {
        /// The user's name.
        name: String,
        #[command(flatten)]
        at: ConfigArg,
        /// Read the password from standard input, one line, instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove a user.
    Remove {
        /// The user's name.
        name: String,
        #[command(flatten)]
        at: ConfigArg,
    },
    /// List the users, or look for one.
    List {
        /// Only this one.
        name: Option<String>,
        #[command(flatten)]
        at: ConfigArg,
    },
}

/// Runs one of them.
pub(super) fn run(user: User) -> anyhow::Result<()> {
    match user {
        User::Add {
            name,
            at,
            password_stdin,
        } => {
            let file = Config::load(&at.config)?.server.users_file;
            if !users::is_name(&name) {
                bail!(
                    "{name:?} cannot be a user's name; use 1 to 256 characters without \" / \\ [ ] : ; | = , + * ? < > @ and without blanks around them"
                );
            }
            // Looked at before the password is asked for.
            Users::load_or_empty(&file)?;
            let password = if password_stdin {
                password_from(std::io::stdin().lock())?
            } else {
                password_from_terminal()?
            };
            let hash = outlast_smb::auth::nt_hash(&password);
            change(&file, |users| Ok(users.insert(&name, hash))).map(|known| {
                println!(
                    "{name}: {}",
                    if known { "password changed" } else { "added" }
                );
            })?;
            println!("a running server takes it up when it is rebooted: outlast reboot");
            Ok(())
        }
        User::Remove { name, at } => {
            let file = Config::load(&at.config)?.server.users_file;
            change(&file, |users| {
                if users.remove(&name) {
                    Ok(())
                } else {
                    bail!(
                        "{}: there is no user {name:?}; `outlast user list` shows them",
                        file.display()
                    )
                }
            })?;
            println!("{name}: removed");
            println!("a running server takes it up when it is rebooted: outlast reboot");
            Ok(())
        }
        User::List { name, at } => {
            let file = Config::load(&at.config)?.server.users_file;
            let users = Users::load(&file)?;
            if let Some(name) = name {
                if !users.contains(&name) {
                    bail!(
                        "{}: there is no user {name:?}; `outlast user add` adds one",
                        file.display()
                    );
                }
                println!("{name}");
                return Ok(());
            }
            let names: String = users.iter().map(|(name, _)| format!("{name}\n")).collect();
            super::status::print(&names)
        }
    }
}

/// Reads, changes and replaces the file, one at a time.
fn change<T>(
    file: &Path,
    change: impl FnOnce(&mut Users) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory)
        .with_context(|| format!("{} cannot be made", directory.display()))?;
    let lock = std::fs::File::open(directory)
        .with_context(|| format!("{} cannot be opened", directory.display()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .with_context(|| format!("{} cannot be locked", directory.display()))?;
    let mut users = Users::load_or_empty(file)?;
    let result = change(&mut users)?;
    users.save(file)?;
    Ok(result)
}

/// The first line, without its end.
fn password_from(input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input
        .take(PASSWORD_MAX_BYTES as u64 + 2)
        .read_line(&mut line)
        .context("the password cannot be read from standard input")?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    checked(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

fn password_from_terminal() -> anyhow::Result<String> {
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .context("no terminal to ask for the password; use --password-stdin")
    };
    let password = checked(ask("Password: ")?)?;
    if ask("Again: ")? != password {
        bail!("the two passwords differ; nothing is changed");
    }
    Ok(password)
}

fn checked(password: String) -> anyhow::Result<String> {
    if password.is_empty() {
        bail!("the password is empty; give one, or let a share admit guests with `guest = true`");
    }
    if password.len() > PASSWORD_MAX_BYTES {
        bail!("the password is longer than {PASSWORD_MAX_BYTES} bytes; use a shorter one");
    }
    Ok(password)
}
