//! Identifies file systems. The device number identifies one only while it is mounted: loop0 may be loop1 after a
//! reboot. The file system's UUID, or the id of statfs(2), is stable.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use outlast_fsa::fnv::fnv1a;
use rustix::fs::{FileType, Mode, OFlags, Statx, StatxFlags};

use super::magic::{BTRFS, FUSE, OVERLAYFS, magic};
use super::path::fd_path;
use super::uuid::{self, Uuid};

/// STATX_MNT_ID_UNIQUE (Linux 6.8): the number of a mount, which is never used again.
const MOUNT_ID_UNIQUE: u32 = 0x4000;
/// The `statx` mask that distinguishes a mount from a later one with the same device number.
pub(super) const STATX_MASK: StatxFlags = StatxFlags::from_bits_retain(MOUNT_ID_UNIQUE);

thread_local! {
    /// The identities of the mounts found so far, by device and mount.
    static MET: RefCell<HashMap<(u64, u64), u64>> = RefCell::default();
}

/// Device and mount.
pub(super) fn place(stat: &Statx) -> (u64, u64) {
    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let mount = match stat.stx_mask & MOUNT_ID_UNIQUE {
        0 => 0,
        _ => stat.stx_mnt_id,
    };
    (device, mount)
}

/// The identity of the file system that a file is on, if known; otherwise its device number.
pub(super) fn of(stat: &Statx) -> u64 {
    let place = place(stat);
    MET.with_borrow(|met| met.get(&place).copied())
        .unwrap_or(place.0)
}

/// Returns whether the identity of the file system that a file is on is known.
pub(super) fn is_known(stat: &Statx) -> bool {
    MET.with_borrow(|met| met.contains_key(&place(stat)))
}

/// Determines the identity of the file system that an open file is on, if it is new.
pub(super) fn learn(fd: BorrowedFd<'_>, stat: &Statx) {
    if !is_known(stat) {
        let identity = identity(fd, stat);
        MET.with_borrow_mut(|met| met.insert(place(stat), identity));
    }
}

/// Returns whether a file has the same inode number at each mount. Those of FUSE belong to a mount, and so do those of
/// overlayfs' directories if its layers are on several file systems.
pub(super) fn keeps_inodes(fd: BorrowedFd<'_>) -> bool {
    !matches!(kind(fd), FUSE | OVERLAYFS)
}

/// The type of the file system (`f_type` of statfs(2)); 0 if unknown.
fn kind(fd: BorrowedFd<'_>) -> u64 {
    magic(fd).unwrap_or(0)
}

fn identity(fd: BorrowedFd<'_>, stat: &Statx) -> u64 {
    let id = rustix::fs::fstatvfs(fd).map_or(0, |found| found.f_fsid);
    // XFS makes the id from the device number, so its UUID has priority. The identity must not depend on the kernel's
    // version: the next kernel of this machine, or another machine's, continues with the files. btrfs makes it from
    // its UUID and the subvolume, whose inode numbers are its own.
    if kind(fd) != BTRFS
        && let Some(uuid) = uuid(fd, stat)
    {
        return hash(b"uuid", &uuid);
    }
    if id != 0 {
        return hash(b"fsid", &id.to_le_bytes());
    }
    let (device, _) = place(stat);
    match mounted(stat.stx_dev_major, stat.stx_dev_minor) {
        Some(what) => hash(b"mount", what.as_bytes()),
        None => device,
    }
}

/// The UUID of the file system, if the kernel reports it.
fn uuid(fd: BorrowedFd<'_>, stat: &Statx) -> Option<Uuid> {
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    // Opening a file of another type may have side effects.
    if !matches!(kind, FileType::Directory | FileType::RegularFile) {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(fd_path(fd), flags, Mode::empty()).ok()?;
    uuid::of(&file)
}

/// The source and type of the mount with this device: the only way to distinguish file systems without an id (FUSE,
/// NFS).
fn mounted(major: u32, minor: u32) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let named = (place.split(' ').nth(2)? == device).then(|| what.next())??;
        Some(format!("{named} {}", what.next()?))
    })
}

/// Identities of different kinds differ.
fn hash(kind: &[u8], bytes: &[u8]) -> u64 {
    fnv1a(kind.iter().chain(bytes).copied())
}
