//! Makes a private directory that is removed with its server. A server that was killed with SIGKILL leaves it behind;
//! the next server, which finds it unlocked, removes it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::FlockOperation;

/// Prefix of the names of these directories.
const PREFIX: &str = "outlast-";
/// Prefix of the name until the directory is locked; such directories are not removed.
const UNLOCKED_PREFIX: &str = ".outlast-";

/// The directory, locked.
pub struct Scratch {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Scratch {
    /// Makes a directory in the first runtime directory that has room for twice `bytes`.
    ///
    /// # Errors
    /// There is none.
    pub fn new(bytes: u64) -> anyhow::Result<Scratch> {
        let bases = bases();
        for base in &bases {
            let room = rustix::fs::statvfs(base).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
            if room < 2 * bytes {
                continue;
            }
            remove_stale(base);
            if let Ok(scratch) = make(base) {
                return Ok(scratch);
            }
        }
        let names: Vec<String> = bases
            .iter()
            .map(|base| base.display().to_string())
            .collect();
        bail!(
            "no runtime directory has {} MiB of room and may be written to (looked at: {}); name one in TMPDIR",
            (2 * bytes) >> 20,
            names.join(", ")
        )
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
}

/// The runtime directories, those in memory first: the files are useless after a reboot. A configured directory is the
/// only one.
fn bases() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("TMPDIR").filter(|path| !path.is_empty()) {
        return vec![named.into()];
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute());
    let others = ["/run", "/dev/shm", "/tmp"].map(PathBuf::from);
    runtime.into_iter().chain(others).collect()
}

fn make(base: &Path) -> anyhow::Result<Scratch> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).context("the kernel gives no randomness")?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let unlocked = base.join(format!("{UNLOCKED_PREFIX}{name}"));
    let path = base.join(format!("{PREFIX}{name}"));
    fs::DirBuilder::new().mode(0o700).create(&unlocked)?;
    let locked = lock(&unlocked).and_then(|lock| fs::rename(&unlocked, &path).map(|()| lock));
    match locked {
        Ok(lock) => Ok(Scratch { path, _lock: lock }),
        Err(error) => {
            // It is empty, and the error above is reported.
            let _ = fs::remove_dir(&unlocked);
            Err(error.into())
        }
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let directory = File::open(path)?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

/// Removes this account's directories whose servers have ended. A directory that cannot be removed stays.
fn remove_stale(base: &Path) {
    let own = rustix::process::geteuid().as_raw();
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(is_a_name)
            && entry
                .metadata()
                .is_ok_and(|found| found.is_dir() && found.uid() == own);
        if is_ours && let Ok(_lock) = lock(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns whether [`make`] made this name.
fn is_a_name(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
