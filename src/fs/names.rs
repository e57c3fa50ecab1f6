//! Names on disk and names as Windows sees them.
//!
//! A name on disk is any bytes but '/' and NUL; a name of Windows is UTF-16 without `\ : * ? " < > |` and control characters and
//! does not end in a space or a period. The two are mapped one to one, so that every file can be listed, opened, and deleted:
//!
//! * a character Windows does not allow, and a space or period at the end: U+F000 + its code (as WSL, Cygwin and Linux' cifs do);
//! * a byte that is not part of valid UTF-8, or of a character from these two ranges: U+F700 + the byte.
//!
//! Names that begin with `.outlast-` are the server's own, of files not finished: never listed, never opened for a client.

use outlast_smb::fileop::OpenId;
use outlast_smb::status::NtStatus;

/// What the server's own names begin with.
const PRIVATE_PREFIX: &str = ".outlast-";
/// The file in a share's directory that bears its marker ([`super::marker`]).
pub const MARKER: &str = ".outlast-marker";
/// Longest name of one file in UTF-8 on disk, in bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// Characters that Windows does not allow in a name and a disk does.
fn is_reserved(c: char) -> bool {
    matches!(
        c,
        '\u{1}'..='\u{1f}' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'
    )
}

/// Is it one of the characters that stand for something else?
fn is_stand_in(c: char) -> bool {
    matches!(c, '\u{F001}'..='\u{F07F}' | '\u{F780}'..='\u{F7FF}')
}

fn stand_in(base: u32, code: u32) -> char {
    char::from_u32(base + code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The name a client sees for a name on disk.
#[must_use]
pub fn from_disk(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_reserved(c) {
                shown.push(stand_in(0xF000, u32::from(c)));
            } else if is_stand_in(c) {
                let mut bytes = [0; 4];
                shown.extend(
                    c.encode_utf8(&mut bytes)
                        .bytes()
                        .map(|b| stand_in(0xF700, u32::from(b))),
                );
            } else {
                shown.push(c);
            }
        }
        shown.extend(
            chunk
                .invalid()
                .iter()
                .map(|&b| stand_in(0xF700, u32::from(b))),
        );
    }
    if shown != "."
        && shown != ".."
        && let Some(last @ ('.' | ' ')) = shown.chars().last()
    {
        shown.pop();
        shown.push(stand_in(0xF000, u32::from(last)));
    }
    shown
}

/// The bytes on disk for one component of a client's path.
///
/// # Errors
/// OBJECT_NAME_INVALID for what is no file name; NAME_TOO_LONG.
pub fn to_disk(name: &str) -> Result<Vec<u8>, NtStatus> {
    let mut bytes = Vec::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' | '\0' => return Err(NtStatus::OBJECT_NAME_INVALID),
            c if is_reserved(c) => return Err(NtStatus::OBJECT_NAME_INVALID),
            '\u{F780}'..='\u{F7FF}' => bytes.push((u32::from(c) & 0xFF) as u8),
            '\u{F001}'..='\u{F07F}' => {
                let meant = char::from((u32::from(c) & 0x7F) as u8);
                if is_reserved(meant) || meant == '.' || meant == ' ' {
                    bytes.push(meant as u8);
                } else {
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if bytes.is_empty() || bytes == b"." || bytes == b".." || is_private(&bytes) {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    if bytes.len() > NAME_MAX {
        return Err(NtStatus::NAME_TOO_LONG);
    }
    Ok(bytes)
}

/// Is it a name of the server's own?
#[must_use]
pub fn is_private(name: &[u8]) -> bool {
    name.get(..PRIVATE_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PRIVATE_PREFIX.as_bytes()))
}

/// The private name under which the thing that `open` creates is made ready.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_on_disk_is_seen_and_found_again() {
        let names: [&[u8]; 9] = [
            b"plain.txt",
            b"a:b\\c*?",
            b"trailing.",
            b"trailing ",
            b"...",
            b"\xff\xfe latin \xe9",
            "\u{F03A}\u{F7C3}".as_bytes(),
            "\u{F041}grün".as_bytes(),
            b"\x01\x1f",
        ];
        for name in names {
            let shown = from_disk(name);
            assert!(!shown.contains([':', '\\', '*', '?']), "{shown:?}");
            assert!(!shown.ends_with(['.', ' ']), "{shown:?}");
            assert_eq!(to_disk(&shown).unwrap(), name, "{shown:?}");
        }
    }

    #[test]
    fn what_is_no_name() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\0",
            "a:b",
            "*",
            "\u{F02E}",
            "\u{F02E}.",
        ] {
            assert_eq!(
                to_disk(name),
                Err(NtStatus::OBJECT_NAME_INVALID),
                "{name:?}"
            );
        }
        assert_eq!(to_disk(".Outlast-1"), Err(NtStatus::OBJECT_NAME_INVALID));
        assert_eq!(to_disk(&"x".repeat(256)), Err(NtStatus::NAME_TOO_LONG));
        // U+F02F would be '/': it stands for itself.
        assert_eq!(to_disk("\u{F02F}").unwrap(), "\u{F02F}".as_bytes());
    }
}
