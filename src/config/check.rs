//! Checks the content of a configuration file and converts it.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use outlast_smb::Oplocks;

use super::advice::{self, HostAddress};
use super::{Config, Dialect, Durability, Error, Level, Network, Nvram, Server, Share, file, size};

/// A file being checked; makes its errors.
pub(super) struct Check<'a> {
    path: &'a Path,
}

/// Checks the whole file. The first error of each section and of each share is returned.
pub(super) fn config(path: &Path, file: &file::File) -> Result<Config, Vec<Error>> {
    let check = Check { path };
    let mut errors = Vec::new();
    let server = note(check.server(&file.server), &mut errors);
    let network = note(check.network(&file.network, &file.server.name), &mut errors);
    let nvram = note(check.nvram(&file.nvram), &mut errors);
    // The requirements of a share depend on the server's section.
    let shares = server
        .as_ref()
        .map(|server| check.shares(&file.share, server, &mut errors));
    if let (Some(shares), Some(nvram)) = (&shares, &nvram) {
        note(check.availability(shares, nvram), &mut errors);
    }
    if let Some(network) = &network {
        note(check.discovery(file.discovery, network), &mut errors);
    }
    let limits = note(check.limits(&file.limits), &mut errors);
    let log = note(check.log(&file.log), &mut errors).unwrap_or_default();
    let metrics = note(check.metrics(&file.metrics), &mut errors).unwrap_or_default();
    let partner = match (&file.partner, &nvram) {
        (Some(partner), Some(nvram)) => note(check.partner(partner, nvram), &mut errors),
        (None, Some(nvram)) => note(check.has_no_mirror(nvram), &mut errors).and(None),
        _ => None,
    };
    match (server, network, nvram, shares, limits) {
        (Some(server), Some(network), Some(nvram), Some(shares), Some(limits))
            if errors.is_empty() =>
        {
            Ok(Config {
                path: path.to_owned(),
                server,
                network,
                nvram,
                shares,
                limits,
                discovery: file.discovery,
                log,
                metrics,
                partner,
            })
        }
        _ => Err(errors),
    }
}

/// Returns what was checked; an error is added to the others.
fn note<T>(checked: Result<T, Error>, errors: &mut Vec<Error>) -> Option<T> {
    checked.map_err(|error| errors.push(error)).ok()
}

/// Checks the configuration against the machine. Returns all errors.
pub(super) fn system(config: &Config) -> Vec<Error> {
    let check = Check::of(config);
    let mut errors = Vec::new();
    for share in &config.shares {
        note(check.run_as(share), &mut errors);
    }
    if let Ok(host) = advice::host_addresses() {
        note(check.is_not_the_hosts(&config.network, &host), &mut errors);
    }
    if let Some(lock) = config
        .partner
        .as_ref()
        .and_then(|partner| partner.arbiter.file())
    {
        let directory = lock.parent().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            errors.push(check.error(
                "partner.lock",
                format!("the directory {} does not exist", directory.display()),
                "name a file on storage that both nodes reach",
            ));
        }
    }
    let directory = config.nvram.path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        errors.push(check.error(
            "nvram.path",
            format!("the directory {} does not exist", directory.display()),
            "create it, or name a file in an existing directory",
        ));
    }
    errors
}

impl Check<'_> {
    /// Checks a configuration that has been read.
    pub(super) fn of(config: &Config) -> Check<'_> {
        Check { path: &config.path }
    }

    pub(super) fn error(&self, key: &str, problem: impl Into<String>, remedy: &str) -> Error {
        Error {
            file: self.path.to_owned(),
            line: None,
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn fail<T>(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: &str,
    ) -> Result<T, Error> {
        Err(self.error(key, problem, remedy))
    }

    /// Checks that an address is not the machine's own: two stations on one link cannot have the same.
    pub(super) fn is_not_the_hosts(
        &self,
        network: &Network,
        host: &[HostAddress],
    ) -> Result<(), Error> {
        for own in &network.addresses {
            if let Some(of) = host.iter().find(|of| of.cidr.address == own.address) {
                return self.fail(
                    "network.addresses",
                    format!("{} is the machine's own, of {}", own.address, of.interface),
                    "give the server an address that no other host has",
                );
            }
        }
        Ok(())
    }

    /// Resolves a path; relative ones start from the directory of the configuration file.
    pub(super) fn path(&self, key: &str, text: &str) -> Result<PathBuf, Error> {
        if text.is_empty() || text.contains('\0') {
            return self.fail(
                key,
                format!("{text:?} is not a path"),
                "name a file or directory",
            );
        }
        Ok(self.path.parent().unwrap_or(Path::new("/")).join(text))
    }

    fn server(&self, server: &file::Server) -> Result<Server, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if server.name.is_empty() || server.name.len() > 15 || !server.name.chars().all(allowed) {
            return self.fail(
                "server.name",
                format!("{:?} is not a NetBIOS name", server.name),
                "use 1 to 15 letters, digits and hyphens",
            );
        }
        let min_protocol = self.dialect("server.min_protocol", &server.min_protocol)?;
        let max_protocol = self.dialect("server.max_protocol", &server.max_protocol)?;
        if min_protocol > max_protocol {
            return self.fail(
                "server.min_protocol",
                format!("{min_protocol} is above max_protocol {max_protocol}"),
                "lower it or raise max_protocol",
            );
        }
        let signing = self.level("server.signing", &server.signing)?;
        let encryption = self.level("server.encryption", &server.encryption)?;
        if encryption == Level::Required && max_protocol < Dialect::Smb300 {
            return self.fail(
                "server.encryption",
                format!("\"required\" needs SMB 3.0 and max_protocol is {max_protocol}"),
                "raise max_protocol to \"3.0\" or above",
            );
        }
        let control_socket = self.path("server.control_socket", &server.control_socket)?;
        // sun_path of unix(7), with its closing zero.
        if control_socket.as_os_str().len() > 107 {
            return self.fail(
                "server.control_socket",
                "is longer than the 107 bytes a socket's path may have",
                "use a shorter path",
            );
        }
        Ok(Server {
            name: server.name.clone(),
            users_file: self.path("server.users_file", &server.users_file)?,
            control_socket,
            min_protocol,
            max_protocol,
            signing,
            encryption,
            oplocks: self.oplocks(&server.oplocks)?,
            standby: server.standby,
        })
    }

    fn oplocks(&self, text: &str) -> Result<Oplocks, Error> {
        match text {
            "on" => Ok(Oplocks::On),
            "off" => Ok(Oplocks::Off),
            _ => self.fail(
                "server.oplocks",
                format!("unknown value {text:?}"),
                "use \"on\" or \"off\"",
            ),
        }
    }

    fn dialect(&self, key: &str, text: &str) -> Result<Dialect, Error> {
        match Dialect::ALL.into_iter().find(|d| d.name() == text) {
            Some(dialect) => Ok(dialect),
            None => self.fail(
                key,
                format!("unknown dialect {text:?}"),
                "use \"2.0.2\", \"2.1\", \"3.0\", \"3.0.2\" or \"3.1.1\"",
            ),
        }
    }

    fn level(&self, key: &str, text: &str) -> Result<Level, Error> {
        match text {
            "off" => Ok(Level::Off),
            "enabled" => Ok(Level::Enabled),
            "required" => Ok(Level::Required),
            _ => self.fail(
                key,
                format!("unknown value {text:?}"),
                "use \"off\", \"enabled\" or \"required\"",
            ),
        }
    }

    /// Parses a size in bytes; `remedy`: for one out of range.
    pub(super) fn size(
        &self,
        key: &str,
        text: &str,
        range: RangeInclusive<u64>,
        remedy: &str,
    ) -> Result<u64, Error> {
        match size::parse(text) {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            Some(_) => self.fail(key, format!("{text} is out of range"), remedy),
            None => self.fail(
                key,
                format!("{text:?} is not a size"),
                "write a number with KiB, MiB, GiB or TiB, such as \"256MiB\"",
            ),
        }
    }

    pub(super) fn number<T>(&self, key: &str, value: i64, min: T, max: T) -> Result<T, Error>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        match T::try_from(value) {
            Ok(number) if (&min..=&max).contains(&&number) => Ok(number),
            _ => self.fail(
                key,
                format!("{value} is out of range"),
                &format!("use {min} to {max}"),
            ),
        }
    }

    fn nvram(&self, nvram: &file::Nvram) -> Result<Nvram, Error> {
        let path = self.path("nvram.path", &nvram.path)?;
        let range = Nvram::SIZE_MIN_BYTES..=Nvram::SIZE_MAX_BYTES;
        let size_bytes = self.size("nvram.size", &nvram.size, range, "use 128MiB to 1TiB")?;
        if size_bytes % 4096 != 0 {
            return self.fail(
                "nvram.size",
                format!("{} is not a multiple of 4 KiB", nvram.size),
                "round it, for example to whole MiB",
            );
        }
        let durability = match nvram.durability.as_str() {
            "none" => Durability::None,
            "process" => Durability::Process,
            "power" => Durability::Power,
            "mirror" => Durability::Mirror,
            "power+mirror" => Durability::PowerMirror,
            other => {
                return self.fail(
                    "nvram.durability",
                    format!("unknown value {other:?}"),
                    "use \"process\", \"power\", \"mirror\" or \"power+mirror\", or \"none\" for benchmarks",
                );
            }
        };
        let sink = match &nvram.sink {
            Some(sink) => self.path("nvram.sink", sink)?,
            None => {
                let mut name = path.clone().into_os_string();
                name.push(".sink");
                name.into()
            }
        };
        if sink == path {
            return self.fail(
                "nvram.sink",
                "is the same file as nvram.path",
                "give it a path of its own, on a disk",
            );
        }
        Ok(Nvram {
            path,
            size_bytes,
            durability,
            sink,
        })
    }

    /// Checks the shares, and returns the valid ones.
    fn shares(
        &self,
        shares: &[file::Share],
        server: &Server,
        errors: &mut Vec<Error>,
    ) -> Vec<Share> {
        if shares.is_empty() {
            errors.push(self.error(
                "share",
                "there is no [[share]]",
                "add at least one with a name and a path",
            ));
        }
        let mut names = HashSet::new();
        let mut checked = Vec::new();
        for share in shares {
            let Some(share) = note(self.share(share, server), errors) else {
                continue;
            };
            if !names.insert(share.name.to_lowercase()) {
                errors.push(self.error(
                    "share.name",
                    format!("{:?} appears twice (case does not matter)", share.name),
                    "give each share a name of its own",
                ));
            }
            checked.push(share);
        }
        checked
    }

    /// MS-SMB2 3.3.5.9.10: a persistent handle outlives the server.
    fn availability(&self, shares: &[Share], nvram: &Nvram) -> Result<(), Error> {
        let mut available = shares.iter().filter(|share| share.continuous_availability);
        match available.next() {
            Some(share) if nvram.durability == Durability::None => self.fail(
                &format!("share {:?}.continuous_availability", share.name),
                "no handle outlives a server whose durability is \"none\"",
                "set nvram.durability to \"process\" or \"power\", or continuous_availability to false",
            ),
            _ => Ok(()),
        }
    }

    fn share(&self, share: &file::Share, server: &Server) -> Result<Share, Error> {
        let name = &share.name;
        // MS-FSCC 2.1.6: characters a share name must not have; at most 80 of the others.
        let bad = |c: char| c.is_control() || r#""\/[]:|<>+=;,*?"#.contains(c);
        if name.trim().is_empty()
            || name.trim() != name
            || name.chars().count() > 80
            || name.contains(bad)
        {
            return self.fail(
                "share.name",
                format!("{name:?} is not a share name"),
                r#"use 1 to 80 characters without " \ / [ ] : | < > + = ; , * ? and no space at either end"#,
            );
        }
        if name.eq_ignore_ascii_case("IPC$") {
            return self.fail(
                "share.name",
                format!("{name:?} is reserved"),
                "use another name",
            );
        }
        let key = |key: &str| format!("share {name:?}.{key}");
        let encryption = match &share.encryption {
            Some(text) => self.level(&key("encryption"), text)?,
            None => server.encryption,
        };
        if encryption == Level::Required
            && (server.encryption == Level::Off || server.max_protocol < Dialect::Smb300)
        {
            return self.fail(
                &key("encryption"),
                "\"required\" cannot be met by this server",
                "set server.encryption to \"enabled\" and server.max_protocol to \"3.0\" or above",
            );
        }
        if let Some(user) = share.users.iter().find(|user| !crate::users::is_name(user)) {
            return self.fail(
                &key("users"),
                format!("{user:?} is not a user name"),
                "name users as `outlast user list` shows them; an empty list admits every user",
            );
        }
        if share.comment.chars().any(char::is_control) {
            return self.fail(
                &key("comment"),
                "has control characters",
                "write one line of text",
            );
        }
        Ok(Share {
            name: name.clone(),
            path: self.path(&key("path"), &share.path)?,
            comment: share.comment.clone(),
            read_only: share.read_only,
            guest: share.guest,
            users: share.users.clone(),
            continuous_availability: share.continuous_availability,
            run_as: Some(share.run_as.clone()).filter(|account| !account.is_empty()),
            encryption,
        })
    }

    pub(super) fn share_directory(&self, share: &Share) -> Result<(), Error> {
        let key = format!("share {:?}.path", share.name);
        let path = share.path.display();
        match std::fs::metadata(&share.path) {
            Ok(metadata) if metadata.is_dir() => match std::fs::read_dir(&share.path) {
                Ok(_) => Ok(()),
                Err(error) => self.fail(
                    &key,
                    format!("{path} cannot be read: {error}"),
                    "name a directory that the server's account may read",
                ),
            },
            Ok(_) => self.fail(
                &key,
                format!("{path} is not a directory"),
                "name a directory",
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.fail(
                &key,
                format!("{path} does not exist"),
                "create the directory or correct the path",
            ),
            Err(error) => self.fail(
                &key,
                format!("{path} cannot be used: {error}"),
                "name a directory the server may enter",
            ),
        }
    }

    fn run_as(&self, share: &Share) -> Result<(), Error> {
        let Some(name) = &share.run_as else {
            return Ok(());
        };
        let key = format!("share {:?}.run_as", share.name);
        match crate::account::lookup(name) {
            Ok(Some(account)) => {
                let own = rustix::process::geteuid().as_raw();
                if own != 0 && own != account.uid {
                    return self.fail(
                        &key,
                        format!("only root may act as {name:?}"),
                        "start the server as root, or leave run_as empty",
                    );
                }
                Ok(())
            }
            Ok(None) => self.fail(
                &key,
                format!("there is no local account {name:?}"),
                "name a local account, or leave it empty",
            ),
            Err(error) => self.fail(
                &key,
                format!("the account {name:?} cannot be looked up: {error}"),
                "check the system's name service",
            ),
        }
    }
}
