//! Extended attributes of clients, each in one of the file system (`user.` and its name), as Samba stores them.
//!
//! The server's own attributes are hidden: those for named streams, for DOS attributes, and the stamps. A name is found
//! without regard to case.

use std::os::fd::BorrowedFd;

use outlast_fsa::ea::Ea;
use outlast_fsa::pattern::same_name;
use outlast_fsa::status::NtStatus;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::errno::status;
use super::path::fd_path;

/// The prefix of the names of attributes that a client may have.
const PREFIX: &str = "user.";
/// The server's own names, and Samba's, after that prefix: these, and all that begin with one that ends in a period.
const PRIVATE: [&str; 6] = [
    "DOSATTRIB",
    "DosStream.",
    "SAMBA_PAI",
    "SAMBA_STREAMS",
    "org.netatalk.",
    "outlast.",
];
/// The longest name and the longest value of an extended attribute, and the longest list of names, in bytes.
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 65_535;
const LIST_MAX: usize = 65_536;
/// All attributes that a client may give a file, in bytes: as on Windows.
const TOTAL_MAX: usize = 65_536;
/// The length of a list that is tried first, in bytes: most files have few attributes.
const SHORT_LIST: usize = 512;

fn is_private(name: &str) -> bool {
    PRIVATE.iter().any(|private| {
        let is_prefix = private.ends_with('.');
        let start = name.get(..private.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(private))
            && (is_prefix || name.len() == private.len())
    })
}

/// The names of all extended attributes of a file.
///
/// # Errors
/// As `listxattr`.
pub(super) fn all_names(file: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let path = fd_path(file);
    let mut list = vec![0_u8; SHORT_LIST];
    let length = match rustix::fs::listxattr(path.as_str(), &mut list) {
        Err(Errno::RANGE) => {
            list.resize(LIST_MAX, 0);
            rustix::fs::listxattr(path.as_str(), &mut list)
        }
        length => length,
    };
    match length {
        Ok(length) => list.truncate(length),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let names = list.split(|&byte| byte == 0);
    let names = names.filter_map(|name| std::str::from_utf8(name).ok());
    Ok(names.map(str::to_owned).collect())
}

fn names(file: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let all = all_names(file)?.into_iter();
    let shown = all.filter_map(|name| {
        let name = name.strip_prefix(PREFIX)?;
        (!name.is_empty() && !is_private(name)).then(|| name.to_owned())
    });
    Ok(shown.collect())
}

/// The extended attributes of a file, as many as a client can have set ([`TOTAL_MAX`]).
///
/// # Errors
/// As `listxattr` and `getxattr`.
pub(super) fn list(file: BorrowedFd<'_>) -> Result<Vec<Ea>, NtStatus> {
    let (mut eas, mut total) = (Vec::new(), 0);
    let mut buffer = Vec::new();
    for name in names(file).map_err(status)? {
        buffer.resize(VALUE_MAX, 0);
        match rustix::fs::getxattr(fd_path(file), format!("{PREFIX}{name}"), &mut buffer) {
            Ok(length) => buffer.truncate(length),
            // Removed meanwhile, or longer than a client's can be.
            Err(Errno::NODATA | Errno::RANGE) => continue,
            Err(error) => return Err(status(error)),
        }
        let value = buffer.clone();
        let ea = Ea { name, value };
        if total + ea.size() <= TOTAL_MAX {
            total += ea.size();
            eas.push(ea);
        }
    }
    Ok(eas)
}

/// Checks whether attributes may have these names. Changes nothing.
///
/// # Errors
/// ACCESS_DENIED for a private name, as Samba answers; INVALID_EA_NAME for one that is too long; EA_TOO_LARGE.
pub(super) fn check(eas: &[Ea]) -> Result<(), NtStatus> {
    for ea in eas {
        if is_private(&ea.name) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if PREFIX.len() + ea.name.len() > NAME_MAX {
            return Err(NtStatus::INVALID_EA_NAME);
        }
    }
    may_have(eas.iter())
}

/// Sets attributes; one without a value is removed. Repeating it changes nothing.
///
/// # Errors
/// As [`check`]; EAS_NOT_SUPPORTED where the file system has none; EA_TOO_LARGE; as `setxattr`.
pub(super) fn set(file: BorrowedFd<'_>, eas: &[Ea]) -> Result<(), NtStatus> {
    check(eas)?;
    let is_set = |known: &Ea| eas.iter().any(|ea| same_name(&ea.name, &known.name));
    let known = list(file)?;
    let kept = known.iter().filter(|known| !is_set(known));
    may_have(kept.chain(eas))?;
    put(file, eas).map_err(|error| match error {
        Errno::OPNOTSUPP | Errno::NOSYS => NtStatus::EAS_NOT_SUPPORTED,
        error => status(error),
    })
}

/// Checks the size of all attributes of a file.
fn may_have<'a>(eas: impl Iterator<Item = &'a Ea>) -> Result<(), NtStatus> {
    match eas.map(Ea::size).sum::<usize>() <= TOTAL_MAX {
        true => Ok(()),
        false => Err(NtStatus::EA_TOO_LARGE),
    }
}

/// As [`set`], for attributes that have been checked.
pub(super) fn put(file: BorrowedFd<'_>, eas: &[Ea]) -> Result<(), Errno> {
    let known = names(file)?;
    for ea in eas {
        let name = known.iter().find(|known| same_name(known, &ea.name));
        let name = format!("{PREFIX}{}", name.unwrap_or(&ea.name));
        let done = match ea.value.is_empty() {
            true => rustix::fs::removexattr(fd_path(file), &name),
            false => rustix::fs::setxattr(fd_path(file), &name, &ea.value, XattrFlags::empty()),
        };
        match done {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes all attributes of a file that is overwritten.
///
/// # Errors
/// As `removexattr`.
pub(super) fn remove_all(file: BorrowedFd<'_>) -> Result<(), NtStatus> {
    for name in names(file).map_err(status)? {
        match rustix::fs::removexattr(fd_path(file), format!("{PREFIX}{name}")) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(status(error)),
        }
    }
    Ok(())
}
