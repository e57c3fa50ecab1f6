//! Reads a file system's UUID from the kernel, which has three ioctls for that.

use std::os::fd::{AsRawFd as _, OwnedFd};

use super::magic::{EXT4, XFS, magic};

/// A UUID.
pub(super) type Uuid = [u8; 16];

/// FS_IOC_GETFSUUID (Linux 6.9, every file system that has a UUID): `_IOR(0x15, 0, struct fsuuid2)`.
const GET_FS_UUID: libc::c_ulong = 0x8011_1500;
/// EXT4_IOC_GETFSUUID (Linux 6.0): `_IOR('f', 44, struct fsuuid)`.
const EXT4_GET_FS_UUID: libc::c_ulong = 0x8008_662c;
/// XFS_IOC_FSGEOMETRY_V1: `_IOR('X', 100, struct xfs_fsop_geom_v1)`.
const XFS_GEOMETRY: libc::c_ulong = 0x8070_5864;

/// `struct fsuuid2`.
#[repr(C)]
#[derive(Default)]
struct FsUuid2 {
    len: u8,
    uuid: Uuid,
}

/// `struct fsuuid`, with room for a UUID.
#[repr(C)]
#[derive(Default)]
struct FsUuid {
    len: u32,
    flags: u32,
    uuid: Uuid,
}

/// `struct xfs_fsop_geom_v1`.
#[repr(C)]
#[derive(Default)]
struct Geometry {
    sizes: [u32; 8],
    blocks: [u64; 4],
    uuid: Uuid,
    others: [u32; 7],
    /// The kernel's structure ends at a multiple of 8 as well.
    padding: u32,
}

/// Returns the UUID of the file system that an open file or directory is on; `None`: the kernel does not report it.
pub(super) fn of(file: &OwnedFd) -> Option<Uuid> {
    of_any(file).or_else(|| match magic(file) {
        Ok(EXT4) => of_ext4(file),
        Ok(XFS) => of_xfs(file),
        _ => None,
    })
}

fn of_any(file: &OwnedFd) -> Option<Uuid> {
    let mut found = FsUuid2::default();
    ask(file, GET_FS_UUID, &mut found)
        .then_some(found.uuid)
        .filter(|_| found.len > 0)
}

fn of_ext4(file: &OwnedFd) -> Option<Uuid> {
    let mut found = FsUuid {
        len: size_of::<Uuid>() as u32,
        ..FsUuid::default()
    };
    ask(file, EXT4_GET_FS_UUID, &mut found).then_some(found.uuid)
}

fn of_xfs(file: &OwnedFd) -> Option<Uuid> {
    let mut found = Geometry::default();
    ask(file, XFS_GEOMETRY, &mut found).then_some(found.uuid)
}

/// Has the kernel fill in the structure that belongs to the request.
fn ask<T>(file: &OwnedFd, request: libc::c_ulong, answer: &mut T) -> bool {
    // SAFETY: each request above is used with its own structure, which lives across the call; the descriptor is open.
    unsafe { libc::ioctl(file.as_raw_fd(), request as _, answer) == 0 }
}

#[cfg(test)]
mod tests;
