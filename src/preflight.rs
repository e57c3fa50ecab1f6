//! What a start would find: looked at before the first one, and before a server with sessions makes way for the next.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use log::warn;
use outlast_nvram::{Error, FileProblem, Log, Mapping};

use crate::config::{self, Config, Durability, Share};
use crate::system::volatile_file_system;
use crate::tap::Tap;
use crate::users::Users;

/// All that is wrong with a configuration, and probable mistakes. What is not there yet is made at the first start.
#[derive(Debug, Default)]
pub struct Findings {
    /// A server could not start by it, or not serve all of it.
    pub errors: Vec<String>,
    /// It could.
    pub warnings: Vec<String>,
}

/// Looks at a configuration file and at all that it names.
pub fn findings(path: &Path) -> Findings {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read; name the right file", path.display()));
    let config = text
        .map_err(|error| vec![format!("{error:#}")])
        .and_then(|text| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let lines = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect();
            Config::parse_all(&path, &text).map_err(lines)
        });
    let config = match config {
        Ok(config) => config,
        Err(errors) => {
            return Findings {
                errors,
                warnings: Vec::new(),
            };
        }
    };
    let mut errors: Vec<String> = [config.system_errors(), config.missing_shares()]
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let mut warnings = Vec::new();
    let mut keep = |result: anyhow::Result<()>| {
        errors.extend(result.err().map(|error| format!("{error:#}")));
    };
    match users(&config) {
        Ok(users) => {
            keep(crate::server::check_sizes(&config, &users));
            let all = config.warnings(&users);
            warnings.extend(all.iter().map(ToString::to_string));
        }
        Err(error) => keep(Err(error)),
    }
    if config.nvram.path.exists() {
        keep(check_nvram(&config));
    }
    keep(check_sink(&config));
    let tap = Tap::require(&config.network.tap);
    keep(tap.with_context(|| format!("{}: network.tap", config.path.display())));
    Findings { errors, warnings }
}

/// Before the first worker: refuses what is wrong, warns of probable mistakes.
///
/// # Errors
/// What is wrong, and the remedy.
pub fn first_start(config: &Config) -> anyhow::Result<()> {
    config.check_system()?;
    let users = users(config)?;
    crate::server::check_sizes(config, &users)?;
    let missing = config.missing_shares();
    // A share that is missing is offline, and may be on a disk that is mounted late. Where there never was a server and there is
    // nothing to serve, it is a mistake.
    let is_known = std::fs::symlink_metadata(&config.nvram.path).is_ok();
    let is_useless = missing.len() == config.shares.len() && !is_known;
    if let Some(error) = missing.first().filter(|_| is_useless) {
        return Err(error.clone().into());
    }
    warn_of(&missing, &config.warnings(&users));
    Ok(())
}

fn warn_of(missing: &[config::Error], probable_mistakes: &[config::Error]) {
    for warning in missing.iter().chain(probable_mistakes) {
        warn!("{warning}");
    }
}

/// Could a server start by this configuration, and take up its sessions?
///
/// # Errors
/// What keeps it from that, and the remedy.
pub fn would_start(config: &Config) -> anyhow::Result<()> {
    config.check_system()?;
    crate::server::check_sizes(config, &users(config)?)?;
    check_nvram(config)?;
    check_sink(config)
}

/// May a server that has sessions come back by this configuration instead of its own?
///
/// # Errors
/// What keeps it from that, and the remedy.
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
    if new.server.control_socket != running.server.control_socket {
        bail!(
            "{}: the socket stays where it is while the server runs; end it with SIGTERM and start it again, or undo the change",
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
        // To open it is the only way to know; it is let go of at once.
        Tap::open(&new.network.tap, new.network.offload).with_context(|| named("network.tap"))?;
    }
    warn_of(&new.missing_shares(), &new.warnings(&users(new)?));
    Ok(())
}

fn users(config: &Config) -> anyhow::Result<Users> {
    Users::for_server(config)
        .with_context(|| format!("{}: server.users_file", config.path.display()))
}

/// The file has the configured size, and what is in it can be read.
fn check_nvram(config: &Config) -> anyhow::Result<()> {
    let nvram = &config.nvram;
    if nvram.durability == Durability::None {
        return Ok(());
    }
    let named = || format!("{}: nvram.path", config.path.display());
    let memory = Mapping::open_read_only(&nvram.path).with_context(named)?;
    check_size(config, "nvram.size", &nvram.path)?;
    let contents = Log::inspect(&memory)
        .with_context(|| nvram.path.display().to_string())
        .with_context(named)?;
    crate::server::contents::saved(contents.records)
        .with_context(|| nvram.path.display().to_string())?;
    Ok(())
}

/// The sink is there, or can be made.
fn check_sink(config: &Config) -> anyhow::Result<()> {
    let nvram = &config.nvram;
    if nvram.durability != Durability::Power {
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
        "{}: {key}: {} has {found} bytes, the configuration says {configured}: set nvram.size to {found}, or end the sessions that it \
         holds (outlast stop) and remove it",
        config.path.display(),
        file.display()
    );
    Ok(())
}
