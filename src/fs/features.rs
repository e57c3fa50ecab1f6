//! Detects the features of a share's file system that the server needs, and describes the restrictions if one is
//! missing.
//!
//! ext4, XFS, btrfs and tmpfs have all of them. On any other file system they are tried, in a hidden directory that is
//! kept, so that the share's own directory does not change at each start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Statx, StatxFlags, XattrFlags};
use rustix::io::Errno;

use super::magic::{BTRFS, EXT4, FUSE, OVERLAYFS, TMPFS, XFS, magic};
use super::names::PROBE;
use super::path::{stat, stat_entry};

/// The features of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Its type, as in the kernel's table of mounts.
    pub kind: String,
    /// `renameat2` with RENAME_NOREPLACE.
    pub rename_noreplace: bool,
    /// Hard links.
    pub hard_links: bool,
    /// Extended attributes of users.
    pub xattrs: bool,
    /// Stable birth times.
    pub births: bool,
    /// Handles that lead to their files as long as these exist.
    pub handles: bool,
    /// The server may not write there, or it is full, so that nothing was tried.
    pub is_untried: bool,
}

impl Features {
    fn all(kind: String) -> Features {
        Features {
            kind,
            rename_noreplace: true,
            hard_links: true,
            xattrs: true,
            births: true,
            handles: true,
            is_untried: false,
        }
    }

    /// The restrictions there, a sentence each.
    #[must_use]
    pub fn weaker(&self) -> Vec<&'static str> {
        let lines = [
            (
                self.is_untried,
                "the server cannot write in the share's directory, so the features of its file system were not tried",
            ),
            (
                !self.rename_noreplace,
                "a rename replaces a file that a local process makes under the new name at the same moment",
            ),
            (
                !self.xattrs,
                "files have no named streams, and of their attributes only READONLY is kept; after a crash a new file \
                 is recognised by its owner and its length, 0",
            ),
            (
                self.xattrs && !self.hard_links,
                "after a crash an unfinished new file is recognised by its owner and its length, 0",
            ),
            (
                !self.handles,
                "a file that a local process renames while the server is down is lost to the client that has it open",
            ),
            (
                !self.births,
                "a file that a local process makes in place of a deleted one may be mistaken for it, if it gets the \
                 same inode number",
            ),
        ];
        let said = lines.into_iter().filter(|(is_so, _)| *is_so);
        said.map(|(_, line)| line).collect()
    }
}

/// Determines the features of the file system of a share's directory. `by_handle`: files there can be opened by handle.
///
/// # Errors
/// The reason why no promise can be kept there, with the remedy.
pub fn probe(dir: BorrowedFd<'_>, read_only: bool, by_handle: bool) -> anyhow::Result<Features> {
    let magic = magic(dir)?;
    let kind = kind(dir).unwrap_or_else(|| format!("file system {magic:#x}"));
    let all = Features {
        xattrs: has_xattrs(dir),
        // A FUSE daemon's handles refer to its cache: once it has forgotten a file they lead to nothing, or to another.
        handles: by_handle && magic != FUSE,
        ..Features::all(kind)
    };
    if matches!(magic, EXT4 | XFS | BTRFS | TMPFS) {
        return Ok(all);
    }
    let births = magic != OVERLAYFS && has_birth(&stat(dir)?);
    let all = Features { births, ..all };
    if read_only {
        return Ok(all);
    }
    match try_out(dir, magic, all.clone()) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOSPC | Errno::DQUOT) => {
            Ok(Features {
                is_untried: true,
                ..all
            })
        }
        Err(error) => anyhow::bail!("{} cannot be tried ({PROBE}): {error}", all.kind),
        Ok(found) => found,
    }
}

/// Returns whether files may have extended attributes of users: a kernel or a mount may be without them even where the
/// file system has them (tmpfs before Linux 6.6, ext4 with nouser_xattr).
fn has_xattrs(dir: BorrowedFd<'_>) -> bool {
    let found = rustix::fs::getxattr_query(super::path::fd_path(dir), TRIED);
    !matches!(found, Err(Errno::OPNOTSUPP | Errno::NOSYS))
}

fn try_out(
    dir: BorrowedFd<'_>,
    magic: u64,
    all: Features,
) -> Result<anyhow::Result<Features>, Errno> {
    match rustix::fs::mkdirat(dir, PROBE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(dir, PROBE, flags, Mode::empty())?;
    // Left by a worker that was killed here.
    clear(&place)?;
    let tried = Trial { place: &place }.run(magic, all);
    clear(&place)?;
    tried
}

/// The extended attribute that a trial sets.
const TRIED: &str = "user.outlast.probe";

/// The names that a trial uses.
const NAMES: [&str; 3] = ["one", "two", "three"];

fn clear(place: &OwnedFd) -> Result<(), Errno> {
    for name in NAMES {
        let flags = match stat_entry(place, name.as_bytes()) {
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
            Ok(found) if file_type(&found) == FileType::Directory => AtFlags::REMOVEDIR,
            Ok(_) => AtFlags::empty(),
        };
        rustix::fs::unlinkat(place, name, flags)?;
    }
    Ok(())
}

struct Trial<'a> {
    place: &'a OwnedFd,
}

impl Trial<'_> {
    fn run(&self, magic: u64, all: Features) -> Result<anyhow::Result<Features>, Errno> {
        let [one, two, three] = NAMES;
        rustix::fs::mkdirat(self.place, one, Mode::RWXU)?;
        let before = self.number(one)?;
        rustix::fs::renameat(self.place, one, self.place, two)?;
        if self.number(two)? != before {
            return Ok(Err(changing_numbers(
                &all.kind,
                "of a directory when it is renamed",
            )));
        }
        rustix::fs::unlinkat(self.place, two, AtFlags::REMOVEDIR)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.place, one, flags, Mode::RUSR | Mode::WUSR)?;
        let before = self.number(one)?;
        let flag = RenameFlags::NOREPLACE;
        let rename_noreplace =
            match rustix::fs::renameat_with(self.place, one, self.place, two, flag) {
                Ok(()) => true,
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    rustix::fs::renameat(self.place, one, self.place, two)?;
                    false
                }
                Err(error) => return Err(error),
            };
        if self.number(two)? != before || stat(&file)?.stx_ino != before {
            return Ok(Err(changing_numbers(
                &all.kind,
                "of a file when it is renamed",
            )));
        }
        if magic == OVERLAYFS && device(&stat(&file)?) != device(&stat(self.place)?) {
            let when = "of a file when it is first written (mount it with xino=on, or have its layers on one file \
                system)";
            return Ok(Err(changing_numbers(&all.kind, when)));
        }
        let xattrs = match rustix::fs::fsetxattr(&file, TRIED, b"1", XattrFlags::empty()) {
            Ok(()) => true,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => false,
            Err(error) => return Err(error),
        };
        let node = node(&file);
        drop(file);
        let hard_links =
            rustix::fs::linkat(self.place, two, self.place, three, AtFlags::empty()).is_ok();
        // A daemon that numbers names and not files forgets the number with the name.
        let is_of_the_name = if hard_links {
            self.number(three)? != before
        } else {
            magic == FUSE && node == Some(before)
        };
        if is_of_the_name {
            let when = "of a file that has not been used for a while";
            return Ok(Err(changing_numbers(&all.kind, when)));
        }
        Ok(Ok(Features {
            rename_noreplace,
            hard_links,
            xattrs,
            ..all
        }))
    }

    fn number(&self, name: &str) -> Result<u64, Errno> {
        Ok(stat_entry(self.place, name.as_bytes())?.stx_ino)
    }
}

/// The error for a file system whose inode numbers change, without which open files cannot be found again.
fn changing_numbers(kind: &str, when: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{kind} changes the inode number {when}, so that open files could not be found again after a crash: mount it \
         so that inode numbers stay (mergerfs: use_ino,inodecalc=devino-hash; others: use_ino), or serve another \
         directory"
    )
}

/// The node number by which a FUSE daemon knows an open file: from its handle. The daemon forgets it.
fn node(file: &OwnedFd) -> Option<u64> {
    let handle = super::handle::of(file.as_fd());
    let half = |at: usize| {
        let bytes = handle.bytes.get(at..at + 4)?;
        Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)))
    };
    Some(half(0)? << 32 | half(4)?)
}

fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

fn has_birth(stat: &Statx) -> bool {
    stat.stx_mask & StatxFlags::BTIME.bits() != 0
}

/// The type of the file system that a directory is on (proc_pid_mountinfo(5)): "fuse.mergerfs".
fn kind(dir: BorrowedFd<'_>) -> Option<String> {
    let mask = StatxFlags::from_bits_retain(libc::STATX_MNT_ID);
    let mount = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, mask)
        .ok()?
        .stx_mnt_id;
    // A thread may have mounts of its own.
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    let mut lines = table.lines().map(|line| line.split(' '));
    let mut fields = lines.find(|fields| fields.clone().next() == Some(&mount.to_string()))?;
    fields.find(|field| *field == "-")?;
    fields.next().map(str::to_owned)
}

/// Why a power cut could undo operations on this file system, or reorder them; and the remedy.
#[must_use]
pub fn power_problem(dir: BorrowedFd<'_>) -> Option<String> {
    match magic(dir).ok()? {
        XFS => None,
        EXT4 => Some(format!("it is on ext4 {}", ext4_problem(dir)?)),
        other => {
            let kind = kind(dir).unwrap_or_else(|| format!("file system {other:#x}"));
            Some(format!(
                "it is on {kind}, which is not known to keep the order of changes of names: have it on ext4 or XFS, or \
                 set durability \"process\""
            ))
        }
    }
}

/// The problem of an ext4, if it has one.
fn ext4_problem(dir: BorrowedFd<'_>) -> Option<&'static str> {
    let (major, minor) = device(&stat(dir).ok()?);
    let device = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = device.file_name()?.to_str()?;
    let journal = std::fs::read_to_string(format!("/sys/fs/ext4/{name}/journal_task"));
    if journal.is_ok_and(|task| task.trim() == "<none>") {
        return Some(
            "without a journal: give it one (tune2fs -O has_journal), or set durability \"process\"",
        );
    }
    let options = std::fs::read_to_string(format!("/proc/fs/ext4/{name}/options")).ok()?;
    let has = |wanted: &[&str]| options.lines().any(|option| wanted.contains(&option));
    // The kernel names the flag of fast_commit so.
    if has(&["fast_commit", "fc_debug_force"]) {
        return Some(
            "with fast_commit: turn it off (tune2fs -O ^fast_commit), or set durability \"process\"",
        );
    }
    if has(&["nobarrier", "barrier=0"]) {
        return Some(
            "mounted with nobarrier: mount it with barrier, or set durability \"process\"",
        );
    }
    None
}
