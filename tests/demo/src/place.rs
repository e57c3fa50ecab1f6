//! Makes a directory for all files, and the file that is transferred.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The default size of the file.
pub const MEGABYTES: u64 = 256;
/// The number of simultaneous copies of the file, itself included, and the server's files.
const COPIES: u64 = 5;
const SERVER_BYTES: u64 = 400 << 20;

/// The directory, which is removed with this value.
pub struct Place {
    directory: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Place {
    /// Makes it, with a file of random bytes. In memory, where there is room; TMPDIR names another place.
    ///
    /// # Errors
    /// There is no room.
    pub fn new(megabytes: u64) -> anyhow::Result<Place> {
        let bytes = megabytes << 20;
        let base = base(COPIES * bytes + SERVER_BYTES)?;
        let directory = base.join(format!(
            "outlast-demo-{}-{}",
            own_namespace(),
            std::process::id()
        ));
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        let place = Place { directory, bytes };
        for name in ["share", "client"] {
            fs::create_dir(place.path(name))?;
        }
        let mut random = io::Read::take(File::open("/dev/urandom")?, bytes);
        io::copy(&mut random, &mut File::create(place.source())?)?;
        Ok(place)
    }

    /// Returns the path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the directory that the server exports.
    pub fn share(&self) -> PathBuf {
        self.path("share")
    }

    /// Puts the file into the share.
    ///
    /// # Errors
    /// It cannot be put there.
    pub fn share_file(&self) -> io::Result<()> {
        match fs::hard_link(self.source(), self.share().join("big")) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Returns the client's directory.
    pub fn client(&self) -> PathBuf {
        self.path("client")
    }

    /// Returns the client's file.
    pub fn source(&self) -> PathBuf {
        self.path("big")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!(
                "demo: {} cannot be removed: {error}",
                self.directory.display()
            );
        }
    }
}

/// Process ids are those of a namespace; its number makes the name unique.
fn own_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let text = link.to_string_lossy();
    text.chars().filter(char::is_ascii_digit).collect()
}

fn base(bytes: u64) -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("TMPDIR").filter(|path| !path.is_empty()) {
        return Ok(named.into());
    }
    let room = |path: &Path| rustix::fs::statvfs(path).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    for (path, times) in [("/dev/shm", 2), ("/tmp", 1)] {
        if room(Path::new(path)) >= times * bytes {
            return Ok(path.into());
        }
    }
    bail!(
        "neither /dev/shm nor /tmp has {} MB of room: ask for fewer megabytes, or name another directory in TMPDIR",
        bytes / 1_000_000
    )
}
