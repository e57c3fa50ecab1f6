//! Names the streams of a file (MS-FSA 2.1.1.5): a path that ends in a colon and a stream's name leads to a named
//! stream, any other path to the default one.
//!
//! Share modes, byte-range locks, oplocks and leases belong to a stream ([`StreamKey`]), the name and the attributes to
//! the file.

use crate::fileop::FileKey;
use crate::fnv::fnv1a;
use crate::open::FileOpen;
use crate::path;
use crate::pattern::fold;
use crate::status::NtStatus;

#[cfg(test)]
mod tests;

/// The longest name of a stream, in UTF-16 code units (MS-FSCC 2.1.5).
const MAX_NAME: usize = 255;
/// The type of a stream with data (MS-FSCC 2.1.4).
const DATA: &str = "$DATA";
/// The type of the index of a directory.
const INDEX: &str = "$INDEX_ALLOCATION";
/// The name of that stream.
const INDEX_NAME: &str = "$I30";

/// A stream of a file, among the streams of that file: 0 is the default stream, another number is derived from the
/// name.
///
/// Two names with the same number would share their locks and share modes; that is improbable, and no other file is
/// affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u64);

impl StreamId {
    /// Returns the stream to which a path leads.
    #[must_use]
    pub fn of(path: &str) -> StreamId {
        let Some(name) = split(path).1 else {
            return StreamId::default();
        };
        StreamId(fnv1a(fold(name).bytes()).max(1))
    }

    /// Returns whether it is the default stream.
    #[must_use]
    pub fn is_default(self) -> bool {
        self.0 == 0
    }
}

/// A stream of any file, by which opens are found that affect one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The file.
    pub file: FileKey,
    /// Its stream.
    pub stream: StreamId,
}

impl StreamKey {
    /// Makes the key of the stream of `file` to which `path` leads.
    #[must_use]
    pub fn new(file: FileKey, path: &str) -> StreamKey {
        StreamKey {
            file,
            stream: StreamId::of(path),
        }
    }

    /// Returns the stream of an open.
    #[must_use]
    pub fn of(file: &FileOpen) -> StreamKey {
        StreamKey::new(file.key, &file.path)
    }
}

impl From<FileKey> for StreamKey {
    /// Makes the key of the default stream, or of a directory.
    fn from(file: FileKey) -> StreamKey {
        StreamKey {
            file,
            stream: StreamId::default(),
        }
    }
}

/// The file and the stream that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its path within the share, components joined by '/', with a colon and the name of a named stream at the end.
    pub path: String,
    /// The name includes a stream type.
    pub kind: Option<Kind>,
}

/// A stream type that a request names (MS-FSA 2.1.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A stream with data, which no directory has as its default stream.
    Data,
    /// The index of a directory.
    Directory,
}

/// Parses a name in a CREATE.
///
/// # Errors
/// Those of [`path::parse`]; OBJECT_NAME_INVALID for a name that no stream may have, and for a stream type that does
/// not exist.
pub fn parse(name: &str) -> Result<Named, NtStatus> {
    let Some((file, stream)) = name.split_once(':') else {
        let path = path::parse(name)?;
        return Ok(Named { path, kind: None });
    };
    // A backslash at the end of a name belongs to a directory's name, to which a stream name is not appended.
    if file.ends_with('\\') {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let (stream, kind) = parse_stream(stream)?;
    let path = path::parse(file)?;
    let path = match stream {
        None => path,
        Some(stream) => join(&path, stream),
    };
    // It is kept with its open.
    match path.len() <= path::MAX_PATH {
        true => Ok(Named { path, kind }),
        false => Err(NtStatus::OBJECT_NAME_INVALID),
    }
}

/// Parses the target of a rename of the stream at `from`, a colon and a name; returns its new path.
///
/// # Errors
/// OBJECT_NAME_INVALID for a name that no stream may have; INVALID_PARAMETER for the default stream and a directory's.
pub fn parse_target(target: &str, from: &str) -> Result<String, NtStatus> {
    let stream = target
        .strip_prefix(':')
        .ok_or(NtStatus::INVALID_PARAMETER)?;
    let (name, _) = parse_stream(stream)?;
    let path = join(split(from).0, name.ok_or(NtStatus::INVALID_PARAMETER)?);
    match path.len() <= path::MAX_PATH {
        true => Ok(path),
        false => Err(NtStatus::OBJECT_NAME_INVALID),
    }
}

/// Parses what follows the first colon of a name: the name of a named stream, and the type.
fn parse_stream(stream: &str) -> Result<(Option<&str>, Option<Kind>), NtStatus> {
    let (name, kind) = match stream.split_once(':') {
        None => (stream, None),
        Some((name, kind)) => (name, Some(kind)),
    };
    let is = |kind: &str, known: &str| kind.eq_ignore_ascii_case(known);
    match (name, kind) {
        ("", Some(kind)) if is(kind, DATA) => Ok((None, Some(Kind::Data))),
        ("", Some(kind)) if is(kind, INDEX) => Ok((None, Some(Kind::Directory))),
        (name, Some(kind)) if is(kind, INDEX) && is(name, INDEX_NAME) => {
            Ok((None, Some(Kind::Directory)))
        }
        (name, Some(kind)) if is(kind, DATA) && is_name(name) => Ok((Some(name), Some(Kind::Data))),
        (name, None) if is_name(name) => Ok((Some(name), None)),
        _ => Err(NtStatus::OBJECT_NAME_INVALID),
    }
}

/// MS-FSCC 2.1.5.3: a stream name has neither of the two separators nor NUL; '/' separates the components of a path
/// within the share.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', '/', ':', '\0'])
        && name.encode_utf16().count() <= MAX_NAME
}

/// Splits a path into that of the file and the name of the named stream.
#[must_use]
pub fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once(':') {
        Some((file, stream)) => (file, Some(stream)),
        None => (path, None),
    }
}

/// Makes the path of a stream of the file at `path`.
#[must_use]
pub fn join(path: &str, stream: &str) -> String {
    format!("{path}:{stream}")
}

/// Returns the full name of a stream, as FileStreamInformation gives it (MS-FSCC 2.4.49).
#[must_use]
pub fn full_name(stream: &str) -> String {
    format!(":{stream}:{DATA}")
}

/// Returns whether two paths end in the name of a stream in the same case.
#[must_use]
pub fn has_same_name(a: &str, b: &str) -> bool {
    split(a).1 == split(b).1
}
