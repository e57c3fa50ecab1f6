//! Checks what a start needs: before the first start, and before a server with sessions is replaced by the next.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use log::warn;
use outlast_nvram::{Error, FileProblem, Log, Mapping};

use crate::config::{self, Config, Durability, Share};
use crate::system::volatile_file_system;
use crate::tap::Tap;
use crate::users::Users;

/// One check of a configuration; an error names the remedy.
type Check = fn(&Config) -> anyhow::Result<()>;

/// The errors of a configuration, and probable mistakes. Files that do not exist yet are made at the first start.
#[derive(Debug, Default)]
pub struct Findings {
    /// Reasons why a server could not start with it, or not serve all of it.
    pub errors: Vec<String>,
    /// Reasons to suspect a mistake.
    pub warnings: Vec<String>,
}

fn lines(errors: &[config::Error]) -> impl Iterator<Item = String> {
    errors.iter().map(ToString::to_string)
}

/// Runs the checks of every start, and `more`.
fn examine(config: &Config, more: &[Check]) -> Findings {
    let mut found = Findings::default();
    found.errors.extend(lines(&config.system_errors()));
    let sizes = users(config).and_then(|users| {
        found.warnings.extend(lines(&config.warnings(&users)));
        crate::server::check_sizes(config, &users)
    });
    let more = more.iter().map(|check| check(config));
    let wrong = std::iter::once(sizes).chain(more).filter_map(Result::err);
    found.errors.extend(wrong.map(|error| format!("{error:#}")));
    found
}

/// The first error, if there is one.
fn require(found: &Findings) -> anyhow::Result<()> {
    found
        .errors
        .first()
        .map_or(Ok(()), |error| bail!("{error}"))
}

/// Checks a configuration file and everything that it names.
pub fn findings(path: &Path) -> Findings {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read; name the right file", path.display()));
    let parsed = text.map_err(|error| vec![format!("{error:#}")]);
    let parsed = parsed.and_then(|text| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Config::parse_all(&path, &text).map_err(|errors| lines(&errors).collect())
    });
    match parsed {
        Ok(config) => {
            let is_there = config.nvram.path.exists();
            let log: &[Check] = if is_there { &[log_can_be_read] } else { &[] };
            let mut found = examine(&config, &[log, &[sink_can_be_used, tap_is_there]].concat());
            found.errors.extend(lines(&config.missing_shares()));
            found
        }
        Err(errors) => Findings {
            errors,
            ..Findings::default()
        },
    }
}

/// Checks before the first worker: refuses errors, warns of probable mistakes. The worker itself reads the log.
///
/// # Errors
/// The first error, and the remedy.
pub fn first_start(config: &Config) -> anyhow::Result<()> {
    let found = examine(config, &[]);
    require(&found)?;
    let missing = config.missing_shares();
    // A missing share is offline, and may be on a disk that is mounted later. If there never was a server and there is
    // nothing to serve, it is a mistake.
    let is_known = std::fs::symlink_metadata(&config.nvram.path).is_ok();
    let is_useless = missing.len() == config.shares.len() && !is_known;
    if let Some(error) = missing.first().filter(|_| is_useless) {
        return Err(error.clone().into());
    }
    warn_of(lines(&missing).chain(found.warnings));
    Ok(())
}

fn warn_of(probable_mistakes: impl Iterator<Item = String>) {
    probable_mistakes.for_each(|warning| warn!("{warning}"));
}

/// Checks whether the running binary could start again with this configuration, and resume its sessions. It has written
/// the log, so it can read it: only the log's path and size are checked, which costs the clients no time.
///
/// # Errors
/// The reason why not, and the remedy.
pub fn would_start(config: &Config) -> anyhow::Result<()> {
    require(&examine(config, &[log_has_its_size, sink_can_be_used]))
}

/// The same for a binary that has not written the log, and therefore reads it.
///
/// # Errors
/// As [`would_start`].
pub fn would_take_over(config: &Config) -> anyhow::Result<()> {
    require(&examine(config, &[log_can_be_read, sink_can_be_used]))
}

/// Checks whether a server with sessions may restart with this configuration instead of its own.
///
/// # Errors
/// The reason why not, and the remedy.
pub fn may_become(running: &Config, new: &Config) -> anyhow::Result<()> {
    let named = |key: &str| format!("{}: {key}", new.path.display());
    let refused = |key: &str, problem: &str| {
        bail!(
            "{}: {problem} would drop the sessions; end them first (outlast stop), or undo the change",
            named(key)
        )
    };
    if new.nvram.durability == Durability::None && running.nvram.durability != Durability::None {
        return refused("nvram.durability", "\"none\"");
    }
    if new.nvram.path != running.nvram.path {
        return refused("nvram.path", "another file");
    }
    if new.partner != running.partner {
        bail!(
            "{}: [partner] cannot change while the server runs; end it with SIGTERM and start it again, or undo the \
             change",
            named("partner")
        );
    }
    if new.server.control_socket != running.server.control_socket {
        bail!(
            "{}: the socket cannot change while the server runs; end it with SIGTERM and start it again, or undo the \
             change",
            named("server.control_socket")
        );
    }
    let is_served = |share: &Share| {
        let mut before = running.shares.iter();
        before.any(|known| known.name == share.name && known.path == share.path)
    };
    let new_ones = new.shares.iter().filter(|share| !is_served(share));
    let mut missing = new_ones.filter_map(|share| new.missing_share(share));
    if let Some(error) = missing.next() {
        return Err(error.into());
    }
    if new.network.tap != running.network.tap {
        // Opening it is the only way to find out; it is closed at once.
        Tap::open(&new.network.tap, new.network.offload).with_context(|| named("network.tap"))?;
    }
    let mistakes = new.warnings(&users(new)?);
    warn_of(lines(&new.missing_shares()).chain(lines(&mistakes)));
    Ok(())
}

fn users(config: &Config) -> anyhow::Result<Users> {
    Users::for_server(config)
        .with_context(|| format!("{}: server.users_file", config.path.display()))
}

fn tap_is_there(config: &Config) -> anyhow::Result<()> {
    let tap = Tap::require(&config.network.tap);
    tap.with_context(|| format!("{}: network.tap", config.path.display()))
}

/// Checks that the log's file can be opened and has the configured size.
fn log_has_its_size(config: &Config) -> anyhow::Result<()> {
    open_log(config).map(|_| ())
}

/// Checks that its content can be read.
fn log_can_be_read(config: &Config) -> anyhow::Result<()> {
    let Some(memory) = open_log(config)? else {
        return Ok(());
    };
    let path = config.nvram.path.display();
    let contents = Log::inspect(&memory)
        .with_context(|| path.to_string())
        .with_context(|| format!("{}: nvram.path", config.path.display()))?;
    crate::server::contents::saved(contents.records).with_context(|| path.to_string())?;
    Ok(())
}

/// Opens the log; `None`: this configuration has none.
fn open_log(config: &Config) -> anyhow::Result<Option<Mapping>> {
    let nvram = &config.nvram;
    if nvram.durability == Durability::None {
        return Ok(None);
    }
    let memory = Mapping::open_read_only(&nvram.path)
        .with_context(|| format!("{}: nvram.path", config.path.display()))?;
    check_size(config, "nvram.size", &nvram.path)?;
    Ok(Some(memory))
}

/// Checks that the sink exists, or can be made.
fn sink_can_be_used(config: &Config) -> anyhow::Result<()> {
    let nvram = &config.nvram;
    if !nvram.durability.has_sink() {
        return Ok(());
    }
    let named = || format!("{}: nvram.sink", config.path.display());
    let directory = nvram.sink.parent().unwrap_or(Path::new("/"));
    let place = match Mapping::open_read_only(&nvram.sink) {
        Ok(_) => {
            check_size(config, "nvram.sink", &nvram.sink)?;
            nvram.sink.as_path()
        }
        Err(Error::File {
            problem: FileProblem::Missing,
            ..
        }) => directory,
        Err(error) => return Err(error).with_context(named),
    };
    let volatile = volatile_file_system(place).with_context(named)?;
    if let Some(name) = volatile {
        bail!(
            "{}: {} is on {name}, which a power cut empties: give it a place on a disk",
            named(),
            nvram.sink.display()
        );
    }
    Ok(())
}

fn check_size(config: &Config, key: &str, file: &Path) -> anyhow::Result<()> {
    let found = std::fs::metadata(file)
        .with_context(|| file.display().to_string())?
        .len();
    let configured = config.nvram.size_bytes;
    ensure!(
        found == configured,
        "{}: {key}: {} has {found} bytes, the configuration says {configured}: set nvram.size to {found}, or end the \
         sessions that it holds (outlast stop) and remove it",
        config.path.display(),
        file.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests;
