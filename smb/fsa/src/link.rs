//! Links: entries of directories (MS-FSA 2.1.1.5).
//!
//! A link is known by the file, the directory and the name, and not by the path: two shares may overlap, and a symbolic
//! link is an entry of its own.

use crate::fileop::FileKey;
use crate::open::FileOpen;
use crate::path;

/// An entry of a directory that leads to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The file.
    pub file: FileKey,
    /// The directory.
    pub directory: FileKey,
    /// The name in it.
    pub name: String,
}

impl Link {
    /// The last component of this path, in this directory.
    #[must_use]
    pub fn new(file: FileKey, directory: FileKey, path: &str) -> Link {
        Link {
            file,
            directory,
            name: path::name(path).to_owned(),
        }
    }

    /// The link that an open was made by.
    #[must_use]
    pub fn of(file: &FileOpen) -> Link {
        Link::new(file.key, file.directory, &file.path)
    }

    /// Was this open made by it?
    #[must_use]
    pub fn is_of(&self, file: &FileOpen) -> bool {
        file.key == self.file
            && file.directory == self.directory
            && path::name(&file.path) == self.name
    }
}
