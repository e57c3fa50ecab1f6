//! `outlast user add|passwd|remove|list|import`.

use std::io::{BufRead, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

use super::ConfigArg;
use crate::config::Config;
use crate::control::{self, Reply};
use crate::users::{self, Users, smbpasswd};

/// The longest password, in bytes: more than NTLM clients permit.
const PASSWORD_MAX_BYTES: usize = 1024;
/// The largest file that is imported, in bytes.
const IMPORT_MAX_BYTES: u64 = 16 << 20;
/// How long a server may take to answer that it runs.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Subcommand)]
pub(super) enum User {
    /// Add a user, or set the password of one.
    Add(Password),
    /// Set the password of a user.
    Passwd(Password),
    /// Remove a user.
    Remove {
        /// Name of the user.
        name: String,
        #[command(flatten)]
        at: ConfigArg,
    },
    /// List all users, or look for one.
    List {
        /// Name of the user.
        name: Option<String>,
        #[command(flatten)]
        at: ConfigArg,
    },
    /// Add the users of a Samba password file (smbpasswd format, as `pdbedit -Lw` prints it).
    Import {
        /// Password file; - for standard input.
        file: PathBuf,
        #[command(flatten)]
        at: ConfigArg,
    },
}

#[derive(Args)]
pub(super) struct Password {
    /// Name of the user.
    name: String,
    #[command(flatten)]
    at: ConfigArg,
    /// Read the password from standard input, one line, instead of asking for it.
    #[arg(long)]
    password_stdin: bool,
}

/// Runs one of them.
pub(super) fn run(user: User) -> anyhow::Result<()> {
    match user {
        User::Add(password) => set_password(&password, false),
        User::Passwd(password) => set_password(&password, true),
        User::Remove { name, at } => {
            let config = at.load()?;
            let file = &config.server.users_file;
            change(file, |users| match users.remove(&name) {
                true => Ok(()),
                false => bail!(unknown(file, &name)),
            })?;
            println!("{name}: removed");
            say_when_it_counts(&config);
            Ok(())
        }
        User::List { name, at } => list(name, &at.load()?.server.users_file),
        User::Import { file, at } => import(&file, &at.load()?),
    }
}

/// The error for an unknown user.
fn unknown(file: &Path, name: &str) -> String {
    format!(
        "{}: there is no user {name:?}; `outlast user list` shows all users",
        file.display()
    )
}

/// `must_exist`: the user exists already.
fn set_password(arguments: &Password, must_exist: bool) -> anyhow::Result<()> {
    let config = arguments.at.load()?;
    let (name, file) = (&arguments.name, &config.server.users_file);
    if !users::is_name(name) {
        bail!(
            "{name:?} cannot be a user's name; use 1 to 256 characters without \" / \\ [ ] : ; | = , + * ? < > @ and \
             no space at either end"
        );
    }
    // Checked before the password is asked for.
    if !Users::load_or_empty(file)?.contains(name) && must_exist {
        bail!(unknown(file, name));
    }
    let password = match arguments.password_stdin {
        true => password_from(std::io::stdin().lock())?,
        false => password_from_terminal()?,
    };
    let hash = outlast_smb::auth::nt_hash(&password);
    let known = change(file, |users| Ok(users.insert(name, hash)))?;
    println!("{name}: {}", added_or_changed(known));
    say_when_it_counts(&config);
    Ok(())
}

fn added_or_changed(known: bool) -> &'static str {
    match known {
        true => "password changed",
        false => "added",
    }
}

/// A running server has read the users already.
fn say_when_it_counts(config: &Config) {
    let socket = &config.server.control_socket;
    let status = control::client::request(socket, &control::Command::Status, STATUS_PATIENCE);
    if let Ok(Reply::Status(status)) = status {
        println!(
            "the running server uses this after `outlast reboot` or `kill -HUP {}`",
            status.supervisor_pid
        );
    }
}

fn list(name: Option<String>, file: &Path) -> anyhow::Result<()> {
    let users = Users::load(file)?;
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

/// Adds all of them, or none if a line is invalid.
fn import(from: &Path, config: &Config) -> anyhow::Result<()> {
    let text = imported_text(from)
        .with_context(|| format!("{} cannot be read; name a smbpasswd file", from.display()))?;
    let entries = smbpasswd::parse(from, &text)?;
    let said = change(&config.server.users_file, |users| {
        let lines = entries.iter().map(|entry| match &entry.nt_hash {
            Ok(hash) => {
                let known = users.insert(&entry.name, **hash);
                format!("{}: {}\n", entry.name, added_or_changed(known))
            }
            Err(why) => format!("{}: skipped, {why}\n", entry.name),
        });
        Ok(lines.collect::<String>())
    })?;
    super::status::print(&said)?;
    say_when_it_counts(config);
    Ok(())
}

fn imported_text(from: &Path) -> std::io::Result<Zeroizing<String>> {
    if from != Path::new("-") {
        return users::read_secret(std::fs::File::open(from)?);
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .take(IMPORT_MAX_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
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

/// Reads the first line, without its end.
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
