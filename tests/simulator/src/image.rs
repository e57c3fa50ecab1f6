//! Simulates the content of a disk: inodes and names, and their changes.

use std::collections::BTreeMap;

use outlast_fsa::attributes::{DIRECTORY, NORMAL};
use outlast_fsa::fileop::{FileHandle, FileKey, FileTime, Metadata, OpenId, ShareId};

/// The number of an inode.
pub type Ino = u64;

/// The root directory of the share.
pub const ROOT: Ino = 1;

/// The times of a new file: the simulated disk has no clock.
const BEGINNING: FileTime = 132_000_000_000_000_000;
/// The allocation unit of the file system, in bytes.
const UNIT: u64 = 4096;

/// A file or directory.
#[derive(Clone, Debug)]
pub struct Inode {
    /// A directory's entries.
    pub entries: Option<BTreeMap<String, Ino>>,
    /// A file's bytes.
    pub data: Vec<u8>,
    /// The number of its names.
    pub links: u32,
    /// The open that created it.
    pub stamp: Option<OpenId>,
    /// FILE_ATTRIBUTE_* as set.
    pub attributes: u32,
    /// Creation, last access, last write.
    pub times: [FileTime; 3],
    /// Distinguishes it from an earlier inode with the same number.
    generation: u32,
}

/// A change of the file system.
#[derive(Clone, Debug)]
pub enum Change {
    /// Creates an inode without a name.
    Make(Ino, Box<Inode>),
    /// Adds a name to an inode.
    Link(Ino, String, Ino),
    /// Removes a name.
    Unlink(Ino, String),
    /// Renames a file, and replaces the file that has the new name, if there is one.
    Rename((Ino, String), (Ino, String)),
    /// Stores the open that created an inode.
    Stamp(Ino, OpenId),
    /// Sets the marker of a share.
    Mark(ShareId, u64),
    /// Writes bytes, which may lie beyond the end.
    Write(Ino, u64, Vec<u8>),
    /// Sets a file's length.
    Length(Ino, u64),
    /// Sets attributes and times; `None` leaves a value unchanged.
    Basic(Ino, Option<u32>, [Option<FileTime>; 3]),
}

impl Change {
    /// Returns whether a journalling file system keeps the order of this change and others of its kind.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        !matches!(
            self,
            Change::Write(..) | Change::Length(..) | Change::Basic(..)
        )
    }

    /// Returns the directories whose names it changes.
    pub fn directories(&self) -> impl Iterator<Item = Ino> + use<> {
        let (one, other) = match self {
            Change::Link(dir, ..) | Change::Unlink(dir, _) => (Some(*dir), None),
            Change::Rename((from, _), (to, _)) => (Some(*from), Some(*to)),
            _ => (None, None),
        };
        one.into_iter().chain(other)
    }
}

/// The inodes and names of a disk.
#[derive(Clone, Debug)]
pub struct Image {
    inodes: BTreeMap<Ino, Inode>,
    markers: BTreeMap<ShareId, u64>,
    generation: u32,
    /// The number of its file system.
    device: u64,
    /// There are no birth times: the number of a deleted file is used again, and nothing distinguishes the two files.
    has_no_births: bool,
}

/// The attributes and times of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    attributes: u32,
    times: [FileTime; 3],
}

impl Inode {
    /// Returns whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.entries.is_some()
    }

    /// Sets the time of the last write after a change of the file's content. The time depends only on the present
    /// content, so that doing an operation twice leaves no trace.
    fn touch(&mut self) {
        // Fowler, Noll and Vo's FNV-1a.
        let hash = self
            .data
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        self.times[2] = BEGINNING + (hash >> 24);
    }
}

impl Default for Image {
    fn default() -> Image {
        let mut image = Image {
            inodes: BTreeMap::new(),
            markers: BTreeMap::new(),
            generation: 0,
            device: 1,
            has_no_births: false,
        };
        let root = Inode {
            links: 1,
            ..image.new_inode(true, None, 0)
        };
        image.inodes.insert(ROOT, root);
        image
    }
}

impl Image {
    /// Returns a new inode.
    #[must_use]
    pub fn new_inode(&self, is_dir: bool, stamp: Option<OpenId>, attributes: u32) -> Inode {
        Inode {
            entries: is_dir.then(BTreeMap::new),
            data: Vec::new(),
            links: 0,
            stamp,
            attributes,
            times: [BEGINNING; 3],
            generation: self.generation,
        }
    }

    /// Sets the number of its file system.
    pub fn set_device(&mut self, device: u64) {
        self.device = device;
    }

    /// Uses the numbers of deleted files again from now on.
    pub fn forget_births(&mut self) {
        self.has_no_births = true;
    }

    /// Returns a number for a new inode. `never_had`: a number that no inode has had.
    #[must_use]
    pub fn free_ino(&self, never_had: Ino) -> Ino {
        let mut free = (ROOT..never_had).filter(|ino| !self.inodes.contains_key(ino));
        free.next()
            .filter(|_| self.has_no_births)
            .unwrap_or(never_had)
    }

    /// Returns the highest number of an inode.
    #[must_use]
    pub fn last_ino(&self) -> Ino {
        self.inodes.last_key_value().map_or(ROOT, |(ino, _)| *ino)
    }

    /// Removes the files without a name.
    pub fn drop_nameless(&mut self) {
        self.inodes.retain(|_, inode| inode.links > 0);
    }

    /// Gives new inodes another generation, as numbers that were in use before a power cut may be used again.
    pub fn begin_generation(&mut self) {
        self.generation += 1;
    }

    /// Returns an inode, if it exists.
    #[must_use]
    pub fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    /// Returns the marker of a share.
    #[must_use]
    pub fn marked(&self, share: ShareId) -> u64 {
        self.markers.get(&share).copied().unwrap_or(0)
    }

    /// Returns the identity of a file.
    #[must_use]
    pub fn key(&self, ino: Ino) -> FileKey {
        let generation = self.inode(ino).map_or(0, |inode| inode.generation);
        FileKey {
            dev: self.device,
            ino,
            birth_ns: generation.into(),
        }
    }

    /// Returns the handle by which a file can be opened.
    #[must_use]
    pub fn handle(&self, ino: Ino) -> FileHandle {
        let generation = self.inode(ino).map_or(0, |inode| inode.generation);
        FileHandle {
            kind: 1,
            bytes: (ino | u64::from(generation) << 32).to_le_bytes().to_vec(),
        }
    }

    /// Returns the file of a handle.
    #[must_use]
    pub fn by_handle(&self, handle: &FileHandle) -> Option<Ino> {
        let word = u64::from_le_bytes(handle.bytes.as_slice().try_into().ok()?);
        let (ino, generation) = (word & 0xffff_ffff, word >> 32);
        let inode = self.inode(ino)?;
        (inode.links > 0 && u64::from(inode.generation) == generation).then_some(ino)
    }

    /// Returns the attributes of a file as SMB shows them.
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
            key: self.key(ino),
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

    /// Resolves a path beneath the root, and returns the file with its path as it is on disk. Case is ignored.
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

    /// Returns a directory's entry of this name, with the name as it is on disk.
    #[must_use]
    pub fn entry(&self, dir: Ino, name: &str) -> Option<(String, Ino)> {
        let entries = self.inode(dir)?.entries.as_ref()?;
        let mut entries = entries.iter();
        entries
            .find(|(there, _)| there.eq_ignore_ascii_case(name))
            .map(|(there, ino)| (there.clone(), *ino))
    }

    /// Returns the directory of a path's last component, and that component.
    #[must_use]
    pub fn parent<'a>(&self, path: &'a str) -> Option<(Ino, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (dir, _) = self.find(parent)?;
        self.inode(dir)?.is_dir().then_some((dir, name))
    }

    /// Returns every file's path and bytes, and every directory's path.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let bytes = |inode: &Inode| (!inode.is_dir()).then(|| inode.data.clone());
        self.tree()
            .into_iter()
            .map(|(path, inode)| (path, bytes(inode)))
            .collect()
    }

    /// Returns the attributes and times of every file and directory.
    #[must_use]
    pub fn looks(&self) -> BTreeMap<String, Look> {
        let look = |inode: &Inode| Look {
            attributes: inode.attributes,
            times: inode.times,
        };
        self.tree()
            .into_iter()
            .map(|(path, inode)| (path, look(inode)))
            .collect()
    }

    fn tree(&self) -> BTreeMap<String, &Inode> {
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
                found.insert(path.clone(), inode);
                if inode.is_dir() {
                    dirs.push((*ino, path));
                }
            }
        }
        found
    }

    /// Applies a change. A change of the content of a file that does not exist has no effect.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Make(ino, inode) => {
                self.inodes.insert(*ino, Inode::clone(inode));
            }
            Change::Link(dir, name, ino) => {
                self.entries(*dir).insert(name.clone(), *ino);
                self.file(*ino).links += 1;
            }
            Change::Unlink(dir, name) => self.take_name(*dir, name),
            Change::Rename(from, to) => self.rename(from, to),
            Change::Stamp(ino, open) => self.file(*ino).stamp = Some(*open),
            Change::Mark(share, number) => {
                self.markers.insert(*share, *number);
            }
            Change::Write(ino, offset, bytes) => {
                if let Some(inode) = self.inodes.get_mut(ino).filter(|_| !bytes.is_empty()) {
                    let data = &mut inode.data;
                    let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                    if data.len() < to {
                        data.resize(to, 0);
                    }
                    data[from..to].copy_from_slice(bytes);
                    inode.touch();
                }
            }
            Change::Length(ino, length) => {
                if let Some(inode) = self.inodes.get_mut(ino) {
                    inode.data.resize(*length as usize, 0);
                    inode.touch();
                }
            }
            Change::Basic(ino, attributes, times) => {
                let Some(inode) = self.inodes.get_mut(ino) else {
                    return;
                };
                if let Some(attributes) = attributes {
                    inode.attributes = attributes & !(DIRECTORY | NORMAL);
                }
                for (kept, set) in inode.times.iter_mut().zip(times) {
                    *kept = set.unwrap_or(*kept);
                }
            }
        }
    }

    fn rename(&mut self, from: &(Ino, String), to: &(Ino, String)) {
        let Some((there, ino)) = self.entry(from.0, &from.1) else {
            return;
        };
        let is_itself = |name: &str| (to.0, name) == (from.0, there.as_str());
        if let Some((name, _)) = self.entry(to.0, &to.1).filter(|(name, _)| !is_itself(name)) {
            self.take_name(to.0, &name);
        }
        self.entries(from.0).remove(&there);
        self.entries(to.0).insert(to.1.clone(), ino);
    }

    fn take_name(&mut self, dir: Ino, name: &str) {
        if let Some(ino) = self.entries(dir).remove(name) {
            let file = self.file(ino);
            file.links -= 1;
            if file.links == 0 && self.has_no_births {
                self.inodes.remove(&ino);
            }
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
