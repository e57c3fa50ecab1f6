//! Names on disk and names as clients see them.
//!
//! A name on disk consists of any bytes except '/' and NUL. A client's name is UTF-16 without `\ : * ? " < > |` and
//! control characters, and does not end in a space or a period. The two are mapped one to one: every file can be
//! listed, opened and deleted, a name is listed as it was created, and different names are different files.
//!
//! * A character that SMB does not permit is shown as the one that Linux' cifs (`mapposix`) and macOS send for it:
//!   U+F001 to U+F01F for control characters, U+F020 to U+F027 for `" * : < > ? \ |`, U+F028 and U+F029 for a space and
//!   a period at the end.
//! * A byte that is not part of valid UTF-8 is shown as U+F700 + the byte, as is each byte of a character of these two
//!   ranges.
//! * A client's name with such characters that is not the shown form of another name (U+F028 in its middle, U+F7C3
//!   U+F7BC, which would be the bytes of 'ü') is stored literally, in UTF-8.
//!
//! Two names lead to one file only at the end: a client that sends a space or a period itself means the same file as
//! one that sends the character for it.
//!
//! Names that begin with `.outlast-` are the server's own, of unfinished files: they are never listed, and never opened
//! for a client.

use outlast_fsa::fileop::OpenId;
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// The prefix of the server's own names.
const PRIVATE_PREFIX: &str = ".outlast-";
/// The file in a share's directory that holds its marker ([`super::marker`]).
pub const MARKER: &str = ".outlast-marker";
/// The directory in a share's directory in which the features of its file system are tried ([`super::features`]).
pub const PROBE: &str = ".outlast-probe";
/// Longest name of one file in UTF-8 on disk, in bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// Characters that SMB does not permit in a name and a disk does, in the order of those shown for them from U+F020 on.
const RESERVED: [char; 8] = ['"', '*', ':', '<', '>', '?', '\\', '|'];
/// The first of those.
const RESERVED_BASE: u32 = 0xF020;
/// A control character is shown as this plus its code.
const CONTROL_BASE: u32 = 0xF000;
/// A byte that is no character's is shown as this plus the byte.
const BYTE_BASE: u32 = 0xF700;
/// The character shown for a space at the end.
const LAST_SPACE: char = '\u{F028}';
/// The character shown for a period at the end.
const LAST_PERIOD: char = '\u{F029}';

fn is_reserved(c: char) -> bool {
    matches!(c, '\u{1}'..='\u{1f}') || RESERVED.contains(&c)
}

/// Returns whether it is one of the characters shown for others.
fn is_stand_in(c: char) -> bool {
    matches!(c, '\u{F001}'..='\u{F029}' | '\u{F780}'..='\u{F7FF}')
}

/// The character shown for a reserved one.
fn stand_in(reserved: char) -> Option<char> {
    let code = match RESERVED.iter().position(|&c| c == reserved) {
        Some(index) => RESERVED_BASE + u32::try_from(index).ok()?,
        None => CONTROL_BASE + u32::from(reserved),
    };
    char::from_u32(code)
}

/// The reserved character for which one is shown, at any place in a name.
fn stands_for(c: char) -> Option<char> {
    match c {
        '\u{F001}'..='\u{F01F}' => char::from_u32(u32::from(c) - CONTROL_BASE),
        '\u{F020}'..='\u{F027}' => RESERVED
            .get((u32::from(c) - RESERVED_BASE) as usize)
            .copied(),
        _ => None,
    }
}

fn show_bytes(bytes: &[u8], shown: &mut String) {
    let characters = bytes
        .iter()
        .map(|&byte| char::from_u32(BYTE_BASE + u32::from(byte)));
    shown.extend(characters.flatten());
}

/// The name with a space or period at its end as it is shown.
fn with_last_shown(mut name: String) -> String {
    let last = match name.pop() {
        Some('.') if !matches!(name.as_str(), "" | ".") => LAST_PERIOD,
        Some(' ') => LAST_SPACE,
        Some(last) => last,
        None => return name,
    };
    name.push(last);
    name
}

/// The name shown for a name on disk that no client could have created literally.
fn encoded(disk: &[u8]) -> String {
    let mut shown = String::with_capacity(disk.len());
    for chunk in disk.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_stand_in(c) {
                show_bytes(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut shown);
            } else {
                let character = if is_reserved(c) { stand_in(c) } else { Some(c) };
                shown.extend(character);
            }
        }
        show_bytes(chunk.invalid(), &mut shown);
    }
    with_last_shown(shown)
}

/// The name on disk for which a client's name is shown, if there is one.
fn decoded(name: &str) -> Option<Vec<u8>> {
    let mut disk = Vec::with_capacity(name.len());
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        let meant = match c {
            '\u{F780}'..='\u{F7FF}' => {
                disk.push(u8::try_from(u32::from(c) - BYTE_BASE).ok()?);
                continue;
            }
            LAST_SPACE if characters.peek().is_none() => ' ',
            LAST_PERIOD if characters.peek().is_none() => '.',
            c => stands_for(c).unwrap_or(c),
        };
        disk.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes());
    }
    (encoded(&disk) == name).then_some(disk)
}

/// A name on disk as a client's literal name, if it can be one.
fn as_sent(disk: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(disk).ok()?;
    let is_sent = !name.contains(is_reserved) && !name.ends_with([' ', '.']);
    is_sent.then_some(name)
}

/// Returns whether a client's name is stored literally.
///
/// A name that is not shown for another name is. One that is shown for another is if that other is taken: by a client's
/// name that is stored literally. Each such step makes the name shorter (Cantor, Schröder, Bernstein).
fn is_literal(name: &str) -> bool {
    let mut name = name.to_owned();
    loop {
        let Some(disk) = decoded(&name) else {
            return true;
        };
        match as_sent(&disk) {
            Some(other) if other != name => other.clone_into(&mut name),
            _ => return false,
        }
    }
}

/// The name that clients see for a name on disk.
#[must_use]
pub fn from_disk(name: &[u8]) -> String {
    match as_sent(name) {
        Some(sent) if !sent.contains(is_stand_in) || is_literal(sent) => sent.to_owned(),
        _ => encoded(name),
    }
}

/// The bytes on disk for one component of a client's path.
///
/// # Errors
/// OBJECT_NAME_INVALID for an impossible file name; NAME_TOO_LONG.
pub fn to_disk(name: &str) -> Result<Vec<u8>, NtStatus> {
    if name.is_empty() || name == "." || name == ".." {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    if name.contains(|c| is_reserved(c) || matches!(c, '/' | '\0')) {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let bytes = if name.contains(is_stand_in) {
        let name = with_last_shown(name.to_owned());
        let decoded = decoded(&name).filter(|_| !is_literal(&name));
        decoded.unwrap_or_else(|| name.into_bytes())
    } else {
        name.as_bytes().to_vec()
    };
    if matches!(bytes.as_slice(), b"." | b"..") || is_private(&bytes) {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    if bytes.len() > NAME_MAX {
        return Err(NtStatus::NAME_TOO_LONG);
    }
    Ok(bytes)
}

/// A client's path with each of its names as it is shown.
#[must_use]
pub fn as_shown(path: &str) -> String {
    let names = path.split('/').map(|name| with_last_shown(name.to_owned()));
    names.collect::<Vec<_>>().join("/")
}

/// Returns whether it is one of the server's own names.
#[must_use]
pub fn is_private(name: &[u8]) -> bool {
    name.get(..PRIVATE_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PRIVATE_PREFIX.as_bytes()))
}

/// The private name under which a file created by `open` is prepared.
#[must_use]
pub fn private(open: OpenId) -> String {
    format!("{PRIVATE_PREFIX}{open:016x}")
}

/// Parent and last component of a path; `None` for the share's root.
#[must_use]
pub fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        Some(both) => Some(both),
        None if path.is_empty() => None,
        None => Some(("", path)),
    }
}

/// A parent's path and a name beneath it.
#[must_use]
pub fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}
