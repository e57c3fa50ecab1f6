//! `outlast serve DIRECTORY`: a server without a configuration of its own. Its TAP, its checkpoint file and its
//! configuration are made when it starts and removed when it ends.

pub mod namespace;
mod route;
pub mod scratch;

use std::path::Path;

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::account;
use crate::supervisor::{self, Ready, Start};
use crate::tap::{self, Tap, TapError};
use crate::users::{self, Users};
use route::Subnet;
use scratch::Scratch;

/// Name of the only share.
pub const SHARE: &str = "pub";
/// Size of the checkpoint file in bytes: the least that is accepted, so that it is made quickly.
const NVRAM_BYTES: u64 = crate::config::Nvram::SIZE_MIN_BYTES;
/// The pattern from which the kernel makes the device's name: the first that is free.
const TAP_PATTERN: &str = "outlast%d";
/// The number of random bytes of a generated password.
const PASSWORD_BYTES: usize = 8;

/// The users that may log in.
pub enum Access {
    /// Everyone, without a password.
    Guest,
    /// One user.
    User {
        /// Name.
        name: String,
        /// Password.
        password: Zeroizing<String>,
    },
}

impl Access {
    /// Makes it from the command line: `NAME` or `NAME:PASSWORD`; the default is the login name. The default password
    /// is in the variable `OUTLAST_PASSWORD`, or random.
    ///
    /// # Errors
    /// The name or the password is not permitted.
    pub fn new(is_guest: bool, user: Option<&str>) -> anyhow::Result<Access> {
        if is_guest {
            return Ok(Access::Guest);
        }
        let login = std::env::var("USER")
            .ok()
            .filter(|name| users::is_name(name));
        let user = user.map(str::to_owned).or(login);
        let user = user.unwrap_or_else(|| "user".into());
        let (name, password) = match user.split_once(':') {
            Some((name, password)) => (name.to_owned(), Some(password.to_owned())),
            None => (user, std::env::var("OUTLAST_PASSWORD").ok()),
        };
        if !users::is_name(&name) {
            bail!("--user: {name:?} cannot be a user's name; write --user NAME:PASSWORD");
        }
        let password = Zeroizing::new(match password {
            Some(password) if password.is_empty() => {
                bail!("--user: the password is empty; give one, or admit guests with --guest")
            }
            Some(password) => password,
            None => random_password()?,
        });
        Ok(Access::User { name, password })
    }
}

fn random_password() -> anyhow::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    getrandom::fill(&mut bytes).context("the kernel gives no randomness")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Serves `directory` until it is ended. Returns the exit code.
///
/// # Errors
/// Something that it needs cannot be made.
pub fn serve(directory: &Path, access: &Access, ready_fd: Option<i32>) -> anyhow::Result<u8> {
    let path = directory
        .canonicalize()
        .with_context(|| format!("{}: name a directory", directory.display()))?;
    if !path.is_dir() {
        bail!("{}: is not a directory; name one", path.display());
    }
    // Removed when this function returns.
    let scratch = Scratch::new(NVRAM_BYTES)?;
    let config = scratch.path().join("outlast.toml");
    let mut ready = Ready::new(ready_fd, config.display().to_string())?;
    // The device is removed with its last descriptor, however the processes that hold it end.
    let tap = Tap::create(TAP_PATTERN).map_err(explain)?;
    let subnet = Subnet::free()?;
    tap::host::set_address(tap.name(), subnet.host, subnet.prefix_bits)
        .and_then(|()| tap::host::bring_up(tap.name()))
        .with_context(|| format!("{} cannot be given an address", tap.name()))?;
    let text = configuration(&path, access, tap.name(), &subnet)?;
    std::fs::write(&config, text).with_context(|| config.display().to_string())?;
    if let Access::User { name, password } = access {
        let mut users = Users::default();
        users.insert(name, outlast_smb::auth::nt_hash(password));
        users.save(&scratch.path().join("users"))?;
    }
    ready.greet(greeting(&path, access, tap.name(), &subnet, &config));
    let start = Start {
        ready,
        tap: Some(tap),
        is_temporary: true,
    };
    supervisor::serve(&config, start)
}

fn explain(error: TapError) -> anyhow::Error {
    match error {
        TapError::Denied { .. } => anyhow::anyhow!(
            "this account may not make a TAP device: run as root, or use `outlast lab --directory DIRECTORY -- \
             COMMAND`, which makes a private network"
        ),
        error => error.into(),
    }
}

fn configuration(
    path: &Path,
    access: &Access,
    tap: &str,
    subnet: &Subnet,
) -> anyhow::Result<String> {
    let path = path
        .to_str()
        .with_context(|| format!("{}: the name is not UTF-8; rename it", path.display()))?;
    let quoted = |text: &str| toml::Value::from(text).to_string();
    Ok(format!(
        "[server]\nusers_file = \"users\"\ncontrol_socket = \"control.sock\"\n\
         [network]\ntap = {tap}\naddresses = [\"{server}/{bits}\"]\n\
         [nvram]\npath = \"nvram\"\nsize = \"{NVRAM_BYTES}\"\n\
         [[share]]\nname = \"{SHARE}\"\npath = {path}\nguest = {guest}\nrun_as = {run_as}\n",
        tap = quoted(tap),
        server = subnet.server,
        bits = subnet.prefix_bits,
        path = quoted(path),
        guest = matches!(access, Access::Guest),
        run_as = quoted(&run_as()?),
    ))
}

/// The account whose rights apply to the files: with sudo the one that called it, otherwise this process's own.
fn run_as() -> anyhow::Result<String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(String::new());
    }
    let caller = std::env::var("SUDO_USER")
        .ok()
        .filter(|name| !name.is_empty());
    let name = caller.unwrap_or_else(|| "root".into());
    let known = account::lookup(&name).with_context(|| format!("the account {name:?}"))?;
    Ok(known.map(|account| account.name).unwrap_or_default())
}

/// Describes how to connect, and how to end the server.
fn greeting(path: &Path, access: &Access, tap: &str, subnet: &Subnet, config: &Path) -> String {
    let server = subnet.server;
    let (login, mount) = match access {
        Access::Guest => ("-N".to_owned(), "guest".to_owned()),
        Access::User { name, password } => (
            format!("-U '{name}%{}'", password.as_str()),
            format!("username={name},password={}", password.as_str()),
        ),
    };
    format!(
        "serving {} on {tap}; connect with\n  smbclient //{server}/{SHARE} {login}\n  \
         mount -t cifs //{server}/{SHARE} /mnt -o {mount}\nsee it with\n  outlast status --config {}\n\
         Ctrl-C ends it and removes all that it made\n",
        path.display(),
        config.display()
    )
}

#[cfg(test)]
mod tests;
