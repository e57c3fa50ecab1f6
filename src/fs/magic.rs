//! Defines the magic numbers of file systems (statfs(2)).

use std::os::fd::AsFd;

use rustix::io::Errno;

pub const BCACHEFS: u64 = 0xCA45_1A4E;
pub const BTRFS: u64 = 0x9123_683E;
/// ext2, ext3 and ext4.
pub const EXT4: u64 = 0xEF53;
pub const F2FS: u64 = 0xF2F5_2010;
pub const FUSE: u64 = 0x6573_5546;
pub const OVERLAYFS: u64 = 0x794C_7630;
pub const TMPFS: u64 = 0x0102_1994;
pub const XFS: u64 = 0x5846_5342;
pub const ZFS: u64 = 0x2FC1_2FC1;

/// The magic number of the file system that an open file is on.
///
/// # Errors
/// As `fstatfs`.
pub fn magic(fd: impl AsFd) -> Result<u64, Errno> {
    // Signed, or of 32 bits, on some machines.
    Ok(u64::from(rustix::fs::fstatfs(fd)?.f_type as u32))
}
