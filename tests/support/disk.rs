//! Provides a disk that fails or hangs as the test requests: an ext4 on a loop device whose file is in a FUSE file
//! system.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite,
    Request, WriteFlags,
};

use super::lab::{Lab, run};

/// The mark at the beginning of each block of the tests' files, which distinguishes them from the file system's own
/// data.
pub const MARK: &[u8; 16] = b"a block of data!";

/// Bytes of a block.
pub const BLOCK: usize = 4096;

/// The behaviour of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Well,
    /// File data cannot be written; the file system's metadata can.
    FailsForData,
    /// No writes succeed.
    Fails,
    /// No writes end.
    Hangs,
}

#[derive(Default)]
struct Medium {
    bytes: Vec<u8>,
    state: State,
}

/// The part that the file system and the test share.
#[derive(Clone, Default)]
struct Shared(Arc<(Mutex<Medium>, Condvar)>);

impl Shared {
    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The medium, when it does not hang.
    fn answering(&self) -> MutexGuard<'_, Medium> {
        let medium = self.medium();
        let hangs = |medium: &mut Medium| medium.state == State::Hangs;
        let waited = self.0.1.wait_while(medium, hangs);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

const TTL: Duration = Duration::from_secs(3600);
const FILE: INodeNo = INodeNo(2);
const NAME: &str = "image";

fn attributes(ino: INodeNo, size: u64) -> FileAttr {
    let (kind, perm) = match ino {
        FILE => (FileType::RegularFile, 0o600),
        _ => (FileType::Directory, 0o700),
    };
    FileAttr {
        ino,
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Shared {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let size = self.medium().bytes.len() as u64;
        match name == NAME {
            true => reply.entry(&TTL, &attributes(FILE, size), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let size = self.medium().bytes.len() as u64;
        reply.attr(&TTL, &attributes(ino, size));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let medium = self.medium();
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(medium.bytes.len());
        let to = (from + size as usize).min(medium.bytes.len());
        reply.data(&medium.bytes[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut medium = self.answering();
        let is_data = data.chunks(BLOCK).any(|block| block.starts_with(MARK));
        let fails = match medium.state {
            State::Fails => true,
            State::FailsForData => is_data,
            State::Well | State::Hangs => false,
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let place = from
            .checked_add(data.len())
            .and_then(|to| medium.bytes.get_mut(from..to));
        match place.filter(|_| !fails) {
            Some(place) => {
                place.copy_from_slice(data);
                reply.written(u32::try_from(data.len()).expect("a write of a few pages"));
            }
            None => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.answering().state {
            State::Fails => reply.error(Errno::EIO),
            _ => reply.ok(),
        }
    }
}

/// A mounted disk of this kind.
pub struct Disk {
    shared: Shared,
    image: PathBuf,
    mount: PathBuf,
    devices: Vec<String>,
    /// Serves it as long as this lives.
    _session: BackgroundSession,
}

/// The requirements, and whether each is met.
pub fn needs() -> [(bool, &'static str); 3] {
    let is_there = |path: &str| std::fs::File::options().write(true).open(path).is_ok();
    let mkfs = Command::new("mkfs.ext4").arg("-V").output();
    [
        (mkfs.is_ok(), "mkfs.ext4"),
        (
            is_there("/dev/loop-control"),
            "/dev/loop-control, to be written",
        ),
        (is_there("/dev/fuse"), "/dev/fuse"),
    ]
}

impl Disk {
    /// Mounts a disk of so many bytes on a directory of the lab.
    pub fn mount(lab: &Lab, name: &str, bytes: u64) -> Disk {
        let mount = lab.make_dir(name);
        let served = lab.make_dir(&format!("{name}-disk"));
        let made = lab.path(&format!("{name}-made"));
        let file = std::fs::File::create(&made).expect("an image");
        file.set_len(bytes).expect("an image");
        run(&format!("mkfs.ext4 -q -F {}", made.display()));
        let shared = Shared::default();
        shared.medium().bytes = std::fs::read(&made).expect("an image");
        std::fs::remove_file(&made).expect("an image");
        let session = fuser::spawn_mount(shared.clone(), &served, &Config::default());
        let mut disk = Disk {
            shared,
            image: served.join(NAME),
            mount,
            devices: Vec::new(),
            _session: session.expect("a FUSE file system"),
        };
        disk.mount_again();
        disk
    }

    pub fn dir(&self) -> &Path {
        &self.mount
    }

    /// Mounts it by another device in place of the one before, if there was one.
    pub fn mount_again(&mut self) {
        if !self.devices.is_empty() {
            run(&format!("umount -l {}", self.mount.display()));
        }
        let found = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&self.image)
            .output()
            .expect("losetup");
        assert!(found.status.success(), "{found:?}");
        let device = String::from_utf8(found.stdout)
            .expect("a device")
            .trim()
            .to_owned();
        run(&format!("mount -t ext4 {device} {}", self.mount.display()));
        self.devices.push(device);
    }

    /// Sets its behaviour from now on.
    pub fn set(&self, state: State) {
        self.shared.medium().state = state;
        self.shared.0.1.notify_all();
    }

    /// The content of a file if the power is cut now.
    pub fn file_after_a_power_cut(&self, lab: &Lab, name: &str) -> Vec<u8> {
        let (copy, dir) = (lab.path("copy"), lab.make_dir("copied"));
        let bytes = self.shared.medium().bytes.clone();
        std::fs::write(&copy, bytes).expect("a copy");
        run(&format!(
            "mount -t ext4 -o loop {} {}",
            copy.display(),
            dir.display()
        ));
        let found = std::fs::read(dir.join(name)).unwrap_or_default();
        run(&format!("umount {}", dir.display()));
        std::fs::remove_file(copy).expect("the copy");
        found
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.set(State::Well);
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
        for device in &self.devices {
            let _ = Command::new("losetup").args(["--detach", device]).status();
        }
    }
}
