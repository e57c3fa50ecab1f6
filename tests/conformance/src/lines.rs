//! Checks the length of lines: at most [`COLUMNS`] in Rust and in Markdown.

use std::path::Path;

use anyhow::Result;

use crate::{files, read};

/// The largest number of characters of a line.
pub const COLUMNS: usize = 120;

/// Finds the lines of the repository's Rust and Markdown files that are too long, as `FILE:LINE: LENGTH columns`.
///
/// # Errors
/// A directory or file cannot be read; the path is named.
pub fn examine(repository: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for extension in ["rs", "md"] {
        for path in files(repository, extension)? {
            let name = path.strip_prefix(repository).unwrap_or(&path).display();
            let long = long_lines(&read(&path)?, extension == "md");
            found.extend(
                long.into_iter()
                    .map(|(line, columns)| format!("{name}:{line}: {columns} columns")),
            );
        }
    }
    Ok(found)
}

/// Finds the numbers and lengths of the lines that are too long. A row of a table in Markdown cannot be broken.
fn long_lines(text: &str, is_markdown: bool) -> Vec<(usize, usize)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !(is_markdown && line.starts_with('|')))
        .map(|(index, line)| (index + 1, line.chars().count()))
        .filter(|(_, columns)| *columns > COLUMNS)
        .collect()
}

#[cfg(test)]
mod tests;
