//! File handles, which survive renames and restarts (`name_to_handle_at`, `open_by_handle_at`).

use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use outlast_fsa::fileop::FileHandle;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// MAX_HANDLE_SZ.
const BYTES_MAX: usize = 128;

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct Buffer {
    handle_bytes: libc::c_uint,
    handle_type: libc::c_int,
    f_handle: [u8; BYTES_MAX],
}

const _: () = assert!(offset_of!(Buffer, f_handle) == size_of::<libc::file_handle>());

/// The handle of an open file; empty where the file system has none.
#[must_use]
pub fn of(fd: BorrowedFd<'_>) -> FileHandle {
    let mut buffer = Buffer {
        handle_bytes: BYTES_MAX as libc::c_uint,
        handle_type: 0,
        f_handle: [0; BYTES_MAX],
    };
    let mut mount_id = 0;
    // SAFETY: `buffer` begins like a `file_handle` and has room for the `handle_bytes` it announces; the path is
    // NUL-terminated.
    let result = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut buffer).cast(),
            &mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    let length = buffer.handle_bytes as usize;
    match buffer.f_handle.get(..length) {
        Some(bytes) if result == 0 => FileHandle {
            kind: buffer.handle_type,
            bytes: bytes.to_vec(),
        },
        _ => FileHandle::default(),
    }
}

/// Opens the file of a handle, on the file system of `mount`. Needs CAP_DAC_READ_SEARCH.
///
/// # Errors
/// ESTALE if the file does not exist any more, EPERM without the capability, otherwise as `open`.
pub fn open(mount: BorrowedFd<'_>, handle: &FileHandle, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut buffer = Buffer {
        handle_bytes: 0,
        handle_type: handle.kind,
        f_handle: [0; BYTES_MAX],
    };
    if handle.bytes.is_empty() {
        return Err(Errno::STALE);
    }
    let room = buffer
        .f_handle
        .get_mut(..handle.bytes.len())
        .ok_or(Errno::STALE)?;
    room.copy_from_slice(&handle.bytes);
    buffer.handle_bytes = handle.bytes.len() as libc::c_uint;
    let flags = flags | OFlags::CLOEXEC;
    // SAFETY: `buffer` begins like a `file_handle` and holds the `handle_bytes` it announces.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut buffer).cast(),
            flags.bits() as libc::c_int,
        )
    };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::STALE));
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
