//! Converts Linux errors to NTSTATUS.

use outlast_fsa::status::NtStatus;
use rustix::io::Errno;

/// STATUS_INVALID_VIEW_SIZE (MS-ERREF 2.3.1): a copy-chunk range reaches beyond the source's end (MS-SMB2 3.3.5.15.6).
pub const INVALID_VIEW_SIZE: NtStatus = NtStatus(0xC000_001F);

/// The NTSTATUS for an error of a file operation. ENOENT refers to the last component: lookups of a parent report it
/// themselves.
#[must_use]
pub fn status(error: Errno) -> NtStatus {
    match error {
        Errno::NOENT => NtStatus::OBJECT_NAME_NOT_FOUND,
        Errno::EXIST => NtStatus::OBJECT_NAME_COLLISION,
        // XDEV from RESOLVE_BENEATH: a symbolic link that leads outside the share. ELOOP: links in a circle, or a magic
        // one.
        Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP => NtStatus::ACCESS_DENIED,
        Errno::NOSPC => NtStatus::DISK_FULL,
        Errno::DQUOT => NtStatus::QUOTA_EXCEEDED,
        Errno::ROFS => NtStatus::MEDIA_WRITE_PROTECTED,
        Errno::NAMETOOLONG => NtStatus::NAME_TOO_LONG,
        Errno::MFILE | Errno::NFILE => NtStatus::TOO_MANY_OPENED_FILES,
        Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN => NtStatus::INSUFFICIENT_RESOURCES,
        Errno::STALE => NtStatus::FILE_CLOSED,
        Errno::IO => NtStatus::IO_DEVICE_ERROR,
        Errno::NOTDIR => NtStatus::NOT_A_DIRECTORY,
        Errno::ISDIR => NtStatus::FILE_IS_A_DIRECTORY,
        Errno::NOTEMPTY => NtStatus::DIRECTORY_NOT_EMPTY,
        Errno::MLINK => NtStatus::TOO_MANY_LINKS,
        Errno::BUSY | Errno::TXTBSY => NtStatus::SHARING_VIOLATION,
        // The value of an extended attribute is too long.
        Errno::TOOBIG => NtStatus::EA_TOO_LARGE,
        Errno::FBIG | Errno::INVAL | Errno::OVERFLOW => NtStatus::INVALID_PARAMETER,
        Errno::OPNOTSUPP | Errno::NOSYS => NtStatus::NOT_SUPPORTED,
        Errno::NXIO | Errno::NODEV => NtStatus::INVALID_DEVICE_REQUEST,
        Errno::TIMEDOUT => NtStatus::IO_TIMEOUT,
        _ => NtStatus::UNEXPECTED_IO_ERROR,
    }
}

/// The same for opening a file: EWOULDBLOCK then means another process' lease, for which we never wait.
#[must_use]
pub fn open_status(error: Errno) -> NtStatus {
    match error {
        Errno::AGAIN => NtStatus::SHARING_VIOLATION,
        other => status(other),
    }
}

/// The same for the lookup of a path's parent.
#[must_use]
pub fn parent_status(error: Errno) -> NtStatus {
    match error {
        Errno::NOENT | Errno::NOTDIR => NtStatus::OBJECT_PATH_NOT_FOUND,
        other => status(other),
    }
}

#[cfg(test)]
mod tests;
