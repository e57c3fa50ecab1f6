//! Reads and writes the users file: the names of the users, and their NT hashes.
//!
//! ```text
//! # comment
//! alice:8846f7eaee8fb117ad06bdd830b7586c
//! ```
//!
//! One line per user: name, colon, the NT hash (MD4 of the password in UTF-16LE, MS-NLMP 3.3.1) in 32 hexadecimal
//! digits. Blank lines and lines that begin with `#` are skipped. Names differ in more than case. The hash is as good
//! as the password, so the file must be its owner's alone (0600); it is replaced as a whole, never written in place.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::Config;

pub mod smbpasswd;
#[cfg(test)]
mod tests;

/// The largest file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// An error of a users file: one line that names the file and the remedy.
#[derive(Debug, Error)]
pub enum Error {
    /// It is missing, unreadable or not writable.
    #[error("{}: {problem}: {cause}; {remedy}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The failed action.
        problem: &'static str,
        /// Its cause.
        cause: io::Error,
        /// The remedy.
        remedy: &'static str,
    },
    /// Others may read or write it.
    #[error("{}: mode {mode:03o} permits access by others, and its hashes are as good as passwords; run `chmod 600 \
        {}`", .file.display(), .file.display())]
    Mode {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another account owns it.
    #[error("{}: belongs to uid {owner}, not to root or the account this runs as; change its owner", .file.display())]
    Owner {
        /// The file.
        file: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A line is not `name:hash`.
    #[error("{}:{line}: {problem}; remove the line and run `outlast user add`", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The problem.
        problem: &'static str,
    },
    /// A line of an imported file is not an account.
    #[error("{}:{line}: {problem}; name a file in smbpasswd format, as `pdbedit -Lw` prints it", .file.display())]
    Import {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The problem.
        problem: &'static str,
    },
    /// It is too large to be a users file.
    #[error("{}: is too large for a users file; name the right file in server.users_file", .0.display())]
    TooLarge(PathBuf),
}

/// Returns whether a name is permitted: 1 to 256 characters, none that Windows refuses in account names.
pub fn is_name(name: &str) -> bool {
    (1..=256).contains(&name.chars().count())
        && name.trim() == name
        && !name.starts_with('#')
        && !name.contains(|c: char| c.is_control() || r#""/\[]:;|=,+*?<>@"#.contains(c))
}

/// The users and their NT hashes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// By folded name: names are compared without regard to case (MS-NLMP 3.3.2 uses their upper case).
    users: BTreeMap<String, (String, Zeroizing<[u8; 16]>)>,
}

impl fmt::Debug for Users {
    /// Shows names only: hashes do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// It is missing, open to others, or has a wrong line.
    pub fn load(path: &Path) -> Result<Users, Error> {
        Users::read(path, Users::open(path)?)
    }

    fn read(path: &Path, file: File) -> Result<Users, Error> {
        let text = read_secret(file).map_err(|cause| unreadable(path, cause))?;
        Users::parse(path, &text)
    }

    /// Opens the file, to which only its owner may have access.
    ///
    /// # Errors
    /// It is missing, or open to others.
    fn open(path: &Path) -> Result<File, Error> {
        let io_error = |cause: io::Error| unreadable(path, cause);
        let file = File::open(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(Error::Mode {
                file: path.to_owned(),
                mode: metadata.mode() & 0o777,
            });
        }
        if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
            return Err(Error::Owner {
                file: path.to_owned(),
                owner: metadata.uid(),
            });
        }
        if metadata.len() > FILE_MAX_BYTES {
            return Err(Error::TooLarge(path.to_owned()));
        }
        Ok(file)
    }

    /// The users of a server, from its file. If every share admits guests, the file may be missing.
    ///
    /// # Errors
    /// As [`Users::load`].
    pub fn for_server(config: &Config) -> Result<Users, Error> {
        match Users::open_for_server(config)? {
            Some(file) => Users::read(&config.server.users_file, file),
            None => Ok(Users::default()),
        }
    }

    /// The file of [`Users::for_server`]; `None` if it is missing and may be.
    ///
    /// # Errors
    /// It is missing, or open to others.
    pub fn open_for_server(config: &Config) -> Result<Option<File>, Error> {
        match Users::open(&config.server.users_file) {
            Err(Error::Io { cause, .. })
                if cause.kind() == io::ErrorKind::NotFound
                    && config.shares.iter().all(|share| share.guest) =>
            {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// The users in a file, or none if it is missing.
    ///
    /// # Errors
    /// As [`Users::load`]; a missing file is no error.
    pub fn load_or_empty(path: &Path) -> Result<Users, Error> {
        match Users::load(path) {
            Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                Ok(Users::default())
            }
            users => users,
        }
    }

    /// Parses users; `path` is used in errors.
    ///
    /// # Errors
    /// A wrong line.
    pub fn parse(path: &Path, text: &str) -> Result<Users, Error> {
        let mut users = Users::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = |problem| Error::Line {
                file: path.to_owned(),
                line: index + 1,
                problem,
            };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = line
                .split_once(':')
                .ok_or_else(|| wrong("is not name:hash"))?;
            if !is_name(name) {
                return Err(wrong("has a name that no user may have"));
            }
            let hash = parse_hash(hash.trim_end())
                .ok_or_else(|| wrong("has a hash that is not 32 hexadecimal digits"))?;
            if users.insert(name, hash) {
                return Err(wrong(
                    "names a user that exists already (case does not matter)",
                ));
            }
        }
        Ok(users)
    }

    /// Sets a user's hash; true if there was one of this name.
    pub fn insert(&mut self, name: &str, nt_hash: [u8; 16]) -> bool {
        self.users
            .insert(name.to_lowercase(), (name.to_owned(), nt_hash.into()))
            .is_some()
    }

    /// Removes a user; false if there is none of this name.
    pub fn remove(&mut self, name: &str) -> bool {
        self.users.remove(&name.to_lowercase()).is_some()
    }

    /// Returns whether there is a user of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.users.contains_key(&name.to_lowercase())
    }

    /// Names and NT hashes, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8; 16])> {
        self.users
            .values()
            .map(|(name, hash)| (name.as_str(), &**hash))
    }

    /// Replaces the file: writes a new one beside it, syncs it, then renames it, so that a crash leaves the old or the
    /// new. A symbolic link is followed, not replaced.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let io_error = |cause| Error::Io {
            file: path.to_owned(),
            problem: "cannot be replaced",
            cause,
            remedy: "run as an account that may write to its directory",
        };
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let directory = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory).map_err(io_error)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = directory.join(name);
        let written = self
            .write_new(&new, &path)
            .and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = written {
            // Whether it exists or not, the error before is reported.
            let _ = std::fs::remove_file(&new);
            return Err(io_error(error));
        }
        File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(io_error)
    }

    fn write_new(&self, new: &Path, old: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(new)?;
        // It stays readable for the server's account.
        if let Ok(metadata) = old.metadata() {
            std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        let mut text = String::from("# Outlast users: name:NT hash. Edit with `outlast user`.\n");
        for (name, hash) in self.iter() {
            text.push_str(name);
            text.push(':');
            text.extend(hash.iter().map(|byte| format!("{byte:02x}")));
            text.push('\n');
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

fn unreadable(path: &Path, cause: io::Error) -> Error {
    Error::Io {
        file: path.to_owned(),
        problem: "cannot be read",
        remedy: match cause.kind() {
            io::ErrorKind::NotFound => "make it with `outlast user add NAME --config FILE`",
            _ => "run as the account that owns it",
        },
        cause,
    }
}

/// Reads a whole text, which is wiped when it is dropped.
pub(crate) fn read_secret(file: File) -> io::Result<Zeroizing<String>> {
    // In one piece: a growing buffer leaves copies behind.
    let len = file.metadata()?.len().min(FILE_MAX_BYTES);
    let mut text = Zeroizing::new(String::with_capacity(len as usize + 1));
    file.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn parse_hash(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}
