//! Times, attributes, sparseness, and the file system's figures.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use outlast_fsa::attributes as flag;
use outlast_fsa::fileop::{FileTime, SetBasic, Volume};
use outlast_fsa::status::NtStatus;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::account::Assumed;
use super::attributes::{self, from_file_time};
use super::create::allocate;
use super::errno::status;
use super::opens::OpenFile;
use super::path::{Root, fd_path, may_access, stat};

/// `tv_nsec` that leaves a time alone (utimensat(2)).
pub(super) const OMIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: rustix::fs::UTIME_OMIT,
};

/// Sets times and attributes (MS-FSA 2.1.5.15.2).
///
/// # Errors
/// INVALID_PARAMETER for attributes that do not fit the kind of file; ACCESS_DENIED.
pub fn basic(open: &OpenFile, basic: &SetBasic, assumed: Assumed) -> Result<(), NtStatus> {
    let attributes = basic.attributes.filter(|&a| a != 0);
    if let Some(attributes) = attributes {
        let wrong = if open.is_dir {
            attributes & flag::TEMPORARY != 0
        } else {
            attributes & flag::DIRECTORY != 0
        };
        if wrong {
            return Err(NtStatus::INVALID_PARAMETER);
        }
    }
    let fd = open.fd.as_fd();
    let set = |time: Option<FileTime>| time.filter(|&t| t != 0);
    let created = set(basic.creation_time);
    if attributes.is_some() || created.is_some() {
        let stat = stat(fd).map_err(status)?;
        attributes::write(fd, &stat, attributes, created).map_err(status)?;
    }
    let mut assumed = Some(assumed);
    let (accessed, written) = (set(basic.last_access_time), set(basic.last_write_time));
    if accessed.is_some() || written.is_some() {
        let times = Timestamps {
            last_access: accessed.map_or(OMIT, from_file_time),
            last_modification: written.map_or(OMIT, from_file_time),
        };
        let path = fd_path(fd);
        for_writers(fd, &mut assumed, || {
            rustix::fs::utimensat(CWD, path.as_str(), &times, AtFlags::empty())
        })?;
    }
    // Last, since all the others change it.
    match set(basic.change_time) {
        Some(change) => for_writers(fd, &mut assumed, || attributes::write_change(fd, change)),
        None => Ok(()),
    }
}

/// Sets times with the server's rights for an account that may write: on Linux only the owner sets times, on Windows
/// any account that may write.
fn for_writers(
    fd: BorrowedFd<'_>,
    assumed: &mut Option<Assumed>,
    set: impl Fn() -> Result<(), Errno>,
) -> Result<(), NtStatus> {
    match set() {
        Err(Errno::PERM | Errno::ACCESS) if assumed.is_some() => {
            may_access(fd, Access::WRITE_OK).map_err(status)?;
            drop(assumed.take());
            set().map_err(status)
        }
        other => other.map_err(status),
    }
}

/// Sets or clears the attribute SPARSE_FILE. On Linux every file may have holes; a file that is no longer sparse has
/// none.
///
/// # Errors
/// INVALID_PARAMETER for directories (MS-FSA 2.1.5.10.35); ACCESS_DENIED; DISK_FULL.
pub fn sparse(open: &OpenFile, sparse: bool) -> Result<(), NtStatus> {
    if open.is_dir {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let stat = stat(&open.fd).map_err(status)?;
    if !sparse && stat.stx_size > 0 && attributes::is_sparse(open.fd.as_fd()) {
        // The right to set attributes does not include a writable descriptor.
        let path = fd_path(open.fd.as_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writable = rustix::fs::open(path, flags, Mode::empty()).map_err(status)?;
        allocate(&writable, stat.stx_size).map_err(status)?;
    }
    attributes::write_sparse(open.fd.as_fd(), &stat, sparse).map_err(status)
}

/// The figures of the file system that an open file is on.
///
/// # Errors
/// As `fstatvfs`.
pub fn volume(root: &Root, fd: &OwnedFd) -> Result<Volume, NtStatus> {
    let figures = rustix::fs::fstatvfs(fd).map_err(status)?;
    let unit = figures.f_frsize.max(1);
    let directory = stat(&root.dir).map_err(status)?;
    Ok(Volume {
        total_bytes: figures.f_blocks.saturating_mul(unit),
        available_bytes: figures.f_bavail.saturating_mul(unit),
        free_bytes: figures.f_bfree.saturating_mul(unit),
        unit_bytes: u32::try_from(unit).unwrap_or(u32::MAX),
        serial: (figures.f_fsid ^ (figures.f_fsid >> 32)) as u32,
        creation_time: attributes::metadata(&directory, &attributes::Dos::Absent, "").creation_time,
        extended_attributes: root.features.xattrs,
    })
}
