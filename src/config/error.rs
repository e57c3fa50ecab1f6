//! Errors of a configuration, in one line each.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::one_line::OneLine;

/// An error: the file, the key, the problem and the remedy, shown in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The configuration file.
    pub file: PathBuf,
    /// Its line in the file, from 1, if known.
    pub line: Option<usize>,
    /// Key, as `section.key`; empty if the whole file is meant.
    pub key: String,
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

impl Error {
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Error {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "name an existing file with --config or in OUTLAST_CONFIG",
            io::ErrorKind::PermissionDenied => "run as an account that may read it",
            io::ErrorKind::InvalidData => "write the file in UTF-8",
            _ => "name a readable file with --config or in OUTLAST_CONFIG",
        };
        Error {
            file: path.to_owned(),
            line: None,
            key: String::new(),
            problem: format!("cannot be read: {error}"),
            remedy: remedy.to_owned(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", OneLine(&self.key))?;
        }
        write!(f, "{}; {}", OneLine(&self.problem), self.remedy)
    }
}

impl std::error::Error for Error {}
