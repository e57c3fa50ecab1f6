//! Identifies links, the directory entries of a file (MS-FSA 2.1.1.5).
//!
//! A link is identified by its file, its directory and its name instead of its path: two shares may overlap, and a
//! symbolic link is a directory entry of its own. All streams of a file are opened through its links.

use crate::fileop::FileKey;
use crate::open::FileOpen;
use crate::{path, stream};

/// A directory entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The file.
    pub file: FileKey,
    /// The directory.
    pub directory: FileKey,
    /// The name in that directory.
    pub name: String,
}

impl Link {
    /// Makes the link of the last component of `path`, which may lead to a named stream, in `directory`.
    #[must_use]
    pub fn new(file: FileKey, directory: FileKey, path: &str) -> Link {
        Link {
            file,
            directory,
            name: name(path).to_owned(),
        }
    }

    /// Returns the link through which an open was made.
    #[must_use]
    pub fn of(file: &FileOpen) -> Link {
        Link::new(file.key, file.directory, &file.path)
    }

    /// Returns whether this open, of any stream, was made through the link.
    #[must_use]
    pub fn is_of(&self, file: &FileOpen) -> bool {
        file.key == self.file && file.directory == self.directory && name(&file.path) == self.name
    }
}

fn name(path: &str) -> &str {
    path::name(stream::split(path).0)
}
