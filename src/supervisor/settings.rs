//! Keeps the configuration and the users for the supervisor. A worker after a crash has those of the worker before,
//! whatever the files contain by then; only the first start and a reboot read the files.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{MemfdFlags, SealFlags};
use zeroize::Zeroizing;

use crate::config::{self, Config};
use crate::users::{Users, read_secret};

/// Both texts, each in sealed memory that cannot be changed.
pub(super) struct Settings {
    config: OwnedFd,
    users: OwnedFd,
}

impl Settings {
    /// Reads both files, and parses the configuration.
    ///
    /// # Errors
    /// One of them cannot be read, or is invalid.
    pub(super) fn read(path: &Path) -> anyhow::Result<(Settings, Config)> {
        let config = sealed(|copy| {
            std::io::copy(&mut File::open(path)?, copy)?;
            Ok(())
        });
        let config = config.map_err(|error| config::Error::unreadable(path, &error))?;
        let parsed = Config::parse(&std::path::absolute(path)?, &text(&config)?)?;
        let file = Users::open_for_server(&parsed)
            .with_context(|| format!("{}: server.users_file", path.display()))?;
        // Copied from the file into the sealed memory without another copy in this process: hashes are as good as
        // passwords.
        let users = sealed(|copy| match file {
            Some(mut file) => std::io::copy(&mut file, copy).map(|_| ()),
            None => Ok(()),
        })?;
        Ok((Settings { config, users }, parsed))
    }

    /// The descriptors that a worker inherits: of the configuration, and of the users.
    pub(super) fn descriptors(&self) -> [RawFd; 2] {
        [self.config.as_raw_fd(), self.users.as_raw_fd()]
    }
}

impl PartialEq for Settings {
    /// Compares the texts. Texts that cannot be read are different.
    fn eq(&self, other: &Settings) -> bool {
        let is_same = |one: &OwnedFd, other: &OwnedFd| match (text(one), text(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        };
        is_same(&self.config, &other.config) && is_same(&self.users, &other.users)
    }
}

/// Reads what a worker has inherited: the configuration, which was read from `path`, and the users.
///
/// # Errors
/// The texts are of another version, or no such descriptors are open.
pub(super) fn inherited(
    path: &Path,
    config: BorrowedFd<'_>,
    users: BorrowedFd<'_>,
) -> anyhow::Result<(Config, Users)> {
    let config = Config::parse(&std::path::absolute(path)?, &text(config)?)?;
    let users = Users::parse(&config.server.users_file, &text(users)?)?;
    Ok((config, users))
}

/// Makes memory that cannot be changed any more once it is written.
fn sealed(write: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut memory = File::from(rustix::fs::memfd_create("outlast-settings", flags)?);
    write(&mut memory)?;
    memory.flush()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory.into())
}

/// Reads the whole text. All workers' descriptors share one offset.
fn text(memory: impl std::os::fd::AsFd) -> anyhow::Result<Zeroizing<String>> {
    let mut file = File::from(memory.as_fd().try_clone_to_owned()?);
    file.rewind()?;
    Ok(read_secret(file)?)
}

#[cfg(test)]
mod tests;
