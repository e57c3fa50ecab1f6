//! Provides a configuration for tests.

use std::path::Path;

/// The parts that differ from one test to another. Relative paths start from the directory of the configuration file.
pub struct Sample<'a> {
    /// `nvram.path`.
    pub nvram: &'a Path,
    /// More lines of `[nvram]`.
    pub nvram_keys: &'a str,
    /// The path of the share `pub`.
    pub share: &'a Path,
    /// More lines of it.
    pub share_keys: &'a str,
}

impl Default for Sample<'_> {
    fn default() -> Self {
        Sample {
            nvram: Path::new("nvram"),
            nvram_keys: "",
            share: Path::new("/"),
            share_keys: "",
        }
    }
}

impl Sample<'_> {
    /// The configuration file.
    pub fn text(&self) -> String {
        format!(
            "[server]\nusers_file = \"users\"\n\
             [network]\ntap = \"tap0\"\naddresses = [\"10.77.0.1/24\"]\n\
             [nvram]\npath = \"{}\"\n{}\n\
             [[share]]\nname = \"pub\"\npath = \"{}\"\n{}\n",
            self.nvram.display(),
            self.nvram_keys,
            self.share.display(),
            self.share_keys
        )
    }
}
