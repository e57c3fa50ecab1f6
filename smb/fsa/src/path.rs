//! Parses the names of files in requests into paths within a share.

use crate::status::NtStatus;

/// The longest component, in UTF-16 code units (MS-FSCC 2.1.5).
const MAX_COMPONENT: usize = 255;
/// The longest path, in bytes: the operating system's PATH_MAX.
pub const MAX_PATH: usize = 4096;

/// Parses the name of a file, without a stream name, into a path within the share: components joined by '/', "" for the
/// share's root.
///
/// # Errors
/// INVALID_PARAMETER for a leading backslash (MS-SMB2 3.3.5.9), OBJECT_PATH_SYNTAX_BAD for "..", OBJECT_NAME_INVALID
/// for a name that no file may have (MS-FSCC 2.1.5).
pub fn parse(name: &str) -> Result<String, NtStatus> {
    if name.is_empty() {
        return Ok(String::new());
    }
    if name.starts_with('\\') {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let name = name.strip_suffix('\\').unwrap_or(name);
    if name.len() > MAX_PATH {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    for component in name.split('\\') {
        if component == ".." {
            return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
        }
        if !is_component(component) {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
    }
    Ok(name.replace('\\', "/"))
}

fn is_component(component: &str) -> bool {
    let illegal = |c: char| c < ' ' || "\"*/:<>?|".contains(c);
    !component.is_empty()
        && component != "."
        && !component.contains(illegal)
        && component.encode_utf16().count() <= MAX_COMPONENT
}

/// Returns the path of the directory that contains `path`; `None` for the root.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/') {
        Some((parent, _)) => Some(parent),
        None if path.is_empty() => None,
        None => Some(""),
    }
}

/// Returns the last component of a path; "" for the root.
#[must_use]
pub fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Returns `path` relative to `directory`; `None` if it is not beneath it. The comparison ignores case.
#[must_use]
pub fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    if directory.is_empty() {
        return (!path.is_empty()).then_some(path);
    }
    let mut rest = path.chars();
    for expected in directory.chars() {
        let got = rest.next()?;
        if got != expected && !got.to_lowercase().eq(expected.to_lowercase()) {
            return None;
        }
    }
    rest.as_str()
        .strip_prefix('/')
        .filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests;
