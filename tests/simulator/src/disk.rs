//! The disk: inodes and names, which outlive servers. Every change is a step, and a write that a crash comes at is torn.

use std::collections::BTreeMap;

use outlast_smb::fileop::{FileKey, FileTime, Metadata, OpenId};

use crate::fuse::{Fuse, Step};
use crate::random::Random;

/// An inode's number.
pub type Ino = u64;

/// The root directory of the one share.
pub const ROOT: Ino = 1;

/// FILE_ATTRIBUTE_DIRECTORY (MS-FSCC 2.6).
const DIRECTORY: u32 = 0x10;
/// FILE_ATTRIBUTE_NORMAL.
const NORMAL: u32 = 0x80;
/// What every file's times are until someone sets them: no clock runs here.
const BEGINNING: FileTime = 132_000_000_000_000_000;
/// Bytes a file system allocates at a time.
const UNIT: u64 = 4096;

/// A file or directory.
#[derive(Clone, Debug)]
pub struct Inode {
    /// A directory's entries.
    pub entries: Option<BTreeMap<String, Ino>>,
    /// A file's bytes.
    pub data: Vec<u8>,
    /// Names it has.
    pub links: u32,
    /// The open that made it.
    pub stamp: Option<OpenId>,
    /// FILE_ATTRIBUTE_* as set.
    pub attributes: u32,
    /// Creation, last access, last write.
    pub times: [FileTime; 3],
}

/// The name is taken.
#[derive(Debug)]
pub struct Taken;

/// What is on the disk.
pub struct Disk {
    inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    fuse: Fuse,
    random: Random,
}

impl Inode {
    fn new(is_dir: bool, stamp: Option<OpenId>) -> Inode {
        Inode {
            entries: is_dir.then(BTreeMap::new),
            data: Vec::new(),
            links: 0,
            stamp,
            attributes: 0,
            times: [BEGINNING; 3],
        }
    }

    /// Is it a directory?
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.entries.is_some()
    }
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(fuse: Fuse, seed: u64) -> Disk {
        let mut root = Inode::new(true, None);
        root.links = 1;
        Disk {
            inodes: BTreeMap::from([(ROOT, root)]),
            next_ino: ROOT + 1,
            fuse,
            random: Random::new(seed, "torn writes"),
        }
    }

    /// The server is gone, and its descriptors: files without a name are no more.
    pub fn drop_nameless(&mut self) {
        self.inodes.retain(|_, inode| inode.links > 0);
    }

    /// An inode, if it is there.
    #[must_use]
    pub fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    /// Which file it is.
    #[must_use]
    pub fn key(ino: Ino) -> FileKey {
        FileKey {
            dev: 1,
            ino,
            birth_ns: 0,
        }
    }

    /// Its attributes as SMB shows them.
    #[must_use]
    pub fn metadata(&self, ino: Ino) -> Option<Metadata> {
        let inode = self.inode(ino)?;
        let is_dir = inode.is_dir();
        let mut attributes = inode.attributes | if is_dir { DIRECTORY } else { 0 };
        if attributes == 0 {
            attributes = NORMAL;
        }
        let [creation_time, last_access_time, last_write_time] = inode.times;
        let end_of_file = inode.data.len() as u64;
        Some(Metadata {
            key: Disk::key(ino),
            creation_time,
            last_access_time,
            last_write_time,
            change_time: BEGINNING,
            end_of_file,
            allocation_size: end_of_file.next_multiple_of(UNIT),
            attributes,
            links: inode.links,
            is_dir,
        })
    }

    /// What a path beneath the root leads to; names are compared without case. With the path as it is on disk.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<(Ino, String)> {
        let mut at = ROOT;
        let mut found = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let (name, ino) = self.entry(at, part)?;
            found.push(name);
            at = ino;
        }
        Some((at, found.join("/")))
    }

    fn entry(&self, dir: Ino, name: &str) -> Option<(String, Ino)> {
        let entries = self.inode(dir)?.entries.as_ref()?;
        let mut entries = entries.iter();
        entries
            .find(|(there, _)| there.eq_ignore_ascii_case(name))
            .map(|(there, ino)| (there.clone(), *ino))
    }

    /// The directory a path's last component is in, and that component.
    #[must_use]
    pub fn parent<'a>(&self, path: &'a str) -> Option<(Ino, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (dir, _) = self.find(parent)?;
        self.inode(dir)?.is_dir().then_some((dir, name))
    }

    /// Makes an inode without a name.
    pub fn make(&mut self, is_dir: bool, stamp: OpenId, attributes: u32) -> Ino {
        self.step();
        let ino = self.next_ino;
        self.next_ino += 1;
        let inode = Inode {
            attributes,
            ..Inode::new(is_dir, Some(stamp))
        };
        self.inodes.insert(ino, inode);
        ino
    }

    /// Gives an inode a name more.
    ///
    /// # Errors
    /// The name is taken.
    pub fn link(&mut self, dir: Ino, name: &str, ino: Ino) -> Result<(), Taken> {
        self.step();
        if self.entry(dir, name).is_some() {
            return Err(Taken);
        }
        self.entries(dir).insert(name.to_owned(), ino);
        self.file(ino).links += 1;
        Ok(())
    }

    /// Takes a name away.
    pub fn unlink(&mut self, dir: Ino, name: &str) {
        self.step();
        self.take_name(dir, name);
    }

    /// Moves a name, over another file's if that is there.
    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) {
        self.step();
        let Some((there, ino)) = self.entry(from.0, from.1) else {
            return;
        };
        let is_itself = |name: &str| (to.0, name) == (from.0, there.as_str());
        if let Some((name, _)) = self.entry(to.0, to.1).filter(|(name, _)| !is_itself(name)) {
            self.take_name(to.0, &name);
        }
        self.entries(from.0).remove(&there);
        self.entries(to.0).insert(to.1.to_owned(), ino);
    }

    /// Writes bytes, beyond the end too.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        if self.fuse.strikes(Step::Operation) {
            let part = self.random.index(bytes.len() + 1);
            self.put(ino, offset, &bytes[..part]);
            self.fuse.blow();
        }
        self.put(ino, offset, bytes);
    }

    /// Sets a file's length.
    pub fn set_length(&mut self, ino: Ino, length: u64) {
        self.step();
        self.file(ino).data.resize(length as usize, 0);
    }

    /// Sets attributes and times; `None` leaves one alone.
    pub fn dress(&mut self, ino: Ino, attributes: Option<u32>, times: [Option<FileTime>; 3]) {
        self.step();
        let inode = self.file(ino);
        if let Some(attributes) = attributes {
            inode.attributes = attributes & !(DIRECTORY | NORMAL);
        }
        for (kept, set) in inode.times.iter_mut().zip(times) {
            if let Some(time) = set {
                *kept = time;
            }
        }
    }

    /// Every file's path and bytes, and every directory's path.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![(ROOT, String::new())];
        while let Some((dir, path)) = dirs.pop() {
            let entries = self
                .inodes
                .get(&dir)
                .and_then(|inode| inode.entries.as_ref());
            for (name, ino) in entries.into_iter().flatten() {
                let path = match path.as_str() {
                    "" => name.clone(),
                    above => format!("{above}/{name}"),
                };
                let inode = &self.inodes[ino];
                found.insert(path.clone(), (!inode.is_dir()).then(|| inode.data.clone()));
                if inode.is_dir() {
                    dirs.push((*ino, path));
                }
            }
        }
        found
    }

    fn step(&self) {
        self.fuse.step(Step::Operation);
    }

    fn put(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        let data = &mut self.file(ino).data;
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if bytes.is_empty() {
            return;
        }
        if data.len() < to {
            data.resize(to, 0);
        }
        data[from..to].copy_from_slice(bytes);
    }

    fn take_name(&mut self, dir: Ino, name: &str) {
        if let Some(ino) = self.entries(dir).remove(name) {
            self.file(ino).links -= 1;
        }
    }

    fn file(&mut self, ino: Ino) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("an inode that is in use")
    }

    fn entries(&mut self, dir: Ino) -> &mut BTreeMap<String, Ino> {
        let entries = self.file(dir).entries.as_mut();
        entries.expect("a directory")
    }
}
