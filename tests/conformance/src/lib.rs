//! Matches the requirements of the standards and the patent with the tests that show them.
//!
//! The requirements are lists, `docs/conformance/*.toml` ([`list`]). Code and tests cite them in a line of their own,
//! `//= LIST ID, ID` ([`citation`]), above the branch that obeys and above the test that shows it. From both
//! `docs/conformance.md` is made ([`report`]), with a complaint about every requirement that has neither a test nor a
//! reason.

pub mod citation;
pub mod lines;
pub mod list;
pub mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The table's place in the repository.
pub const TABLE: &str = "docs/conformance.md";

/// The repository of this crate.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Makes the table, and a list of the errors of lists and citations.
///
/// # Errors
/// A list or a source file that cannot be read; the path is named.
pub fn examine(repository: &Path) -> Result<(String, Vec<String>)> {
    let mut lists = Vec::new();
    for path in files(&repository.join("docs/conformance"), "toml")? {
        let text = read(&path)?;
        let list = list::parse(&text).with_context(|| path.display().to_string())?;
        lists.push(list);
    }
    let mut citations = Vec::new();
    let mut complaints = Vec::new();
    for root in ["src", "stack", "smb", "nvram", "tests"] {
        for path in files(&repository.join(root), "rs")? {
            let name = path.strip_prefix(repository).unwrap_or(&path);
            let (found, wrong) = citation::find(&name.display().to_string(), &read(&path)?);
            citations.extend(found);
            complaints.extend(wrong);
        }
    }
    let (table, wrong) = report::report(&lists, &citations);
    complaints.extend(wrong);
    Ok((table, complaints))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Files with an extension below a directory, in order. Hidden directories and cargo's are left out.
fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)
        .with_context(|| directory.display().to_string())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                found.extend(files(&path, extension)?);
            }
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    Ok(found)
}
