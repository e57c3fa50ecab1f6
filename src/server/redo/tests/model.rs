//! Simulates a journalling file system in memory, which a power cut resets: some prefix of the metadata changes
//! remains, and any part of the content changes.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use outlast_fsa::fileop::{
    Actor, Change, CreateAction, CreateIntent, Created, Disposition, FileHandle, FileKey, FileOp,
    FileTime, Intent, Metadata, OpenId, Outcome, ShareId, WriteAt,
};
use outlast_fsa::status::NtStatus;
use outlast_smb::OpenInfo;

use crate::server::files::FileSystem;

/// SplitMix64: the same numbers for the same seed, everywhere.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inode {
    is_dir: bool,
    stamp: OpenId,
    attributes: u32,
    created: FileTime,
    modified: FileTime,
    content: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<(u64, String), u64>,
    marker: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Make(u64, Inode),
    Name(u64, String, u64),
    Unname(u64, String),
    Move((u64, String), (u64, String)),
    Attributes(u64, u32),
    Created(u64, FileTime),
    Marker(u64),
    /// Content of files: kept in no order.
    Write(u64, u64, Vec<u8>),
    Length(u64, u64),
    Modified(u64, FileTime),
}

impl Step {
    fn is_metadata(&self) -> bool {
        !matches!(
            self,
            Step::Write(..) | Step::Length(..) | Step::Modified(..)
        )
    }
}

impl Disk {
    fn apply(&mut self, step: &Step) {
        let inodes = &mut self.inodes;
        match step {
            Step::Make(ino, inode) => drop(inodes.insert(*ino, inode.clone())),
            Step::Name(dir, name, ino) => drop(self.names.insert((*dir, name.clone()), *ino)),
            Step::Unname(dir, name) => drop(self.names.remove(&(*dir, name.clone()))),
            Step::Move(from, to) => {
                if let Some(ino) = self.names.remove(from) {
                    self.names.insert(to.clone(), ino);
                }
            }
            Step::Marker(number) => self.marker = *number,
            Step::Attributes(ino, attributes) => {
                on(inodes, *ino, |inode| inode.attributes = *attributes)
            }
            Step::Created(ino, time) => on(inodes, *ino, |inode| inode.created = *time),
            Step::Modified(ino, time) => on(inodes, *ino, |inode| inode.modified = *time),
            Step::Write(ino, offset, data) => on(inodes, *ino, |inode| {
                let end = *offset as usize + data.len();
                if inode.content.len() < end {
                    inode.content.resize(end, 0);
                }
                inode.content[*offset as usize..end].copy_from_slice(data);
            }),
            Step::Length(ino, length) => on(inodes, *ino, |inode| {
                inode.content.resize(*length as usize, 0)
            }),
        }
        self.drop_nameless();
    }

    fn drop_nameless(&mut self) {
        // An inode without a name is the newest one, which is being made, or is removed.
        let newest = self.inodes.last_key_value().map(|(ino, _)| *ino);
        let names = &self.names;
        self.inodes.retain(|ino, _| {
            *ino == ROOT || Some(*ino) == newest || names.values().any(|named| named == ino)
        });
    }
}

fn on(inodes: &mut BTreeMap<u64, Inode>, ino: u64, change: impl FnOnce(&mut Inode)) {
    if let Some(inode) = inodes.get_mut(&ino) {
        change(inode);
    }
}

const ROOT: u64 = 1;

/// The visible state of a file: whether it is a directory, attributes, CreationTime, LastWriteTime, content.
pub type Seen = (bool, u32, FileTime, FileTime, Vec<u8>);

#[derive(Clone)]
pub struct Model {
    /// The state that is certainly on the medium.
    disk: Disk,
    /// The steps since.
    steps: Vec<Step>,
    /// The visible state.
    now: Disk,
    opens: HashMap<OpenId, u64>,
    next_ino: u64,
    clock: FileTime,
}

impl Model {
    pub fn new() -> Model {
        let mut disk = Disk::default();
        let root = Inode {
            is_dir: true,
            ..Inode::default()
        };
        disk.inodes.insert(ROOT, root);
        Model {
            now: disk.clone(),
            disk,
            steps: Vec::new(),
            opens: HashMap::new(),
            next_ino: 2,
            clock: 1,
        }
    }

    /// Steps since the last sync.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Everything done by then is on the medium.
    pub fn sync_up_to(&mut self, steps: usize) {
        for step in self.steps.drain(..steps) {
            self.disk.apply(&step);
        }
    }

    /// Cuts the power after `steps` steps: `kept` of the metadata changes remain, and a random part of the others.
    pub fn cut(&self, steps: usize, kept: usize, random: &mut Random) -> Model {
        let mut disk = self.disk.clone();
        for (index, step) in self.steps.iter().take(steps).enumerate() {
            let left = if step.is_metadata() {
                index < kept
            } else {
                random.below(2) == 0
            };
            if left {
                disk.apply(step);
            }
        }
        Model {
            now: disk.clone(),
            disk,
            steps: Vec::new(),
            opens: HashMap::new(),
            next_ino: self.next_ino + 1000,
            clock: self.clock + 1000,
        }
    }

    pub fn tree(&self) -> BTreeMap<String, Seen> {
        let mut tree = BTreeMap::new();
        self.walk(ROOT, "", &mut tree);
        tree
    }

    fn walk(&self, dir: u64, path: &str, tree: &mut BTreeMap<String, Seen>) {
        for ((_, name), ino) in self
            .now
            .names
            .range((dir, String::new())..(dir + 1, String::new()))
        {
            let inode = &self.now.inodes[ino];
            let path = format!("{path}/{name}");
            if inode.is_dir {
                self.walk(*ino, &path, tree);
            }
            tree.insert(
                path,
                (
                    inode.is_dir,
                    inode.attributes,
                    inode.created,
                    // a directory's changes with its entries
                    if inode.is_dir { 0 } else { inode.modified },
                    inode.content.clone(),
                ),
            );
        }
    }

    fn step(&mut self, step: Step) {
        self.now.apply(&step);
        self.steps.push(step);
    }

    fn parent(&self, path: &str) -> Result<(u64, String), NtStatus> {
        let mut dir = ROOT;
        let mut components = path.split('/').peekable();
        while let Some(component) = components.next() {
            if components.peek().is_none() {
                return Ok((dir, component.to_owned()));
            }
            dir = *self
                .now
                .names
                .get(&(dir, component.to_owned()))
                .ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        }
        Err(NtStatus::OBJECT_PATH_NOT_FOUND)
    }

    fn at(&self, path: &str) -> Option<u64> {
        self.now.names.get(&self.parent(path).ok()?).copied()
    }

    pub fn key(ino: u64) -> FileKey {
        FileKey {
            dev: 1,
            ino,
            birth_ns: 0,
        }
    }

    fn metadata(&self, ino: u64) -> Metadata {
        let inode = &self.now.inodes[&ino];
        Metadata {
            key: Model::key(ino),
            creation_time: inode.created,
            last_access_time: 0,
            last_write_time: inode.modified,
            change_time: 0,
            end_of_file: inode.content.len() as u64,
            allocation_size: 0,
            attributes: inode.attributes,
            links: 1,
            is_dir: inode.is_dir,
        }
    }

    fn open(&self, open: OpenId) -> Result<u64, NtStatus> {
        let ino = self.opens.get(&open).ok_or(NtStatus::FILE_CLOSED)?;
        // A file without a name is removed at its last close; the model closes each at once.
        self.now
            .inodes
            .contains_key(ino)
            .then_some(*ino)
            .ok_or(NtStatus::FILE_CLOSED)
    }

    fn touch(&mut self, ino: u64) {
        self.clock += 1;
        self.step(Step::Modified(ino, self.clock));
    }

    fn children(&self, dir: u64) -> bool {
        self.now.names.keys().any(|(parent, _)| *parent == dir)
    }

    fn create(
        &mut self,
        op: &outlast_fsa::fileop::CreateOp,
        intent: &CreateIntent,
    ) -> Result<Outcome, NtStatus> {
        let (dir, name) = self.parent(&intent.path)?;
        let there = self.now.names.get(&(dir, name.clone())).copied();
        let (ino, action) = match (&intent.existing, there) {
            (Some(existing), Some(ino)) if existing.key == Model::key(ino) => {
                if matches!(op.disposition, Disposition::OverwriteIf) {
                    self.step(Step::Length(ino, 0));
                    self.step(Step::Attributes(ino, op.attributes | 0x20));
                    self.touch(ino);
                    (ino, CreateAction::Overwritten)
                } else {
                    (ino, CreateAction::Opened)
                }
            }
            (Some(_), _) => return Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            (None, Some(ino)) if self.now.inodes[&ino].stamp == op.open => {
                (ino, CreateAction::Created)
            }
            (None, Some(_)) => return Err(NtStatus::OBJECT_NAME_COLLISION),
            (None, None) => {
                let ino = self.next_ino;
                self.next_ino += 1;
                self.clock += 1;
                let inode = Inode {
                    is_dir: op.must_be_dir,
                    stamp: op.open,
                    attributes: op.attributes,
                    created: self.clock,
                    modified: self.clock,
                    content: Vec::new(),
                };
                self.step(Step::Make(ino, inode));
                self.step(Step::Name(dir, name, ino));
                (ino, CreateAction::Created)
            }
        };
        self.opens.insert(op.open, ino);
        Ok(Outcome::Created(Created {
            action,
            metadata: self.metadata(ino),
            handle: FileHandle {
                kind: 1,
                bytes: ino.to_le_bytes().to_vec(),
            },
            path: intent.path.clone(),
            made_file: false,
        }))
    }

    fn rename(&mut self, intent: &Intent) -> Result<Outcome, NtStatus> {
        let Intent::Rename {
            source,
            from,
            to,
            replaced,
            ..
        } = intent
        else {
            return Err(NtStatus::INTERNAL_ERROR);
        };
        let target = self.parent(to)?;
        let done = Outcome::Renamed {
            path: to.clone(),
            directory: Model::key(target.0),
        };
        let there = self.now.names.get(&target).copied();
        if there.map(Model::key) == Some(*source) {
            return Ok(done);
        }
        if self.at(from).map(Model::key) != Some(*source) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        if there.is_some() && there.map(Model::key) != *replaced {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        self.step(Step::Move(self.parent(from)?, target));
        Ok(done)
    }
}

impl FileSystem for Model {
    fn prepare(&mut self, _: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        match op {
            FileOp::Create(op) => {
                let (directory, _) = self.parent(&op.path)?;
                let existing = self.at(&op.path).map(|ino| self.metadata(ino));
                let is_dir = existing.as_ref().is_some_and(|found| found.is_dir);
                match (op.disposition, &existing) {
                    (Disposition::Create, Some(_)) => return Err(NtStatus::OBJECT_NAME_COLLISION),
                    (Disposition::Open, None) => return Err(NtStatus::OBJECT_NAME_NOT_FOUND),
                    (Disposition::OverwriteIf, Some(_)) if is_dir => {
                        return Err(NtStatus::OBJECT_NAME_COLLISION);
                    }
                    _ => {}
                }
                Ok(Intent::Create(CreateIntent {
                    path: op.path.clone(),
                    directory: Model::key(directory),
                    existing,
                    base: None,
                    maximal_access: 0,
                }))
            }
            FileOp::Close {
                open,
                delete: Some(_),
            } => {
                let ino = self.open(*open)?;
                if self.children(ino) {
                    return Err(NtStatus::DIRECTORY_NOT_EMPTY);
                }
                Ok(Intent::Close {
                    metadata: self.metadata(ino),
                    digest: None,
                })
            }
            FileOp::Write { open, at, .. } => {
                let ino = self.open(*open)?;
                Ok(Intent::Write {
                    offset: match at {
                        WriteAt::Offset(offset) => *offset,
                        WriteAt::End => self.now.inodes[&ino].content.len() as u64,
                    },
                })
            }
            FileOp::Rename {
                open,
                from,
                to,
                replace,
            } => {
                let ino = self.open(*open)?;
                self.parent(to)?;
                if to.starts_with(&format!("{from}/")) {
                    return Err(NtStatus::ACCESS_DENIED);
                }
                let replaced = self.at(to);
                if let Some(replaced) = replaced
                    && (!replace || replaced == ino || self.now.inodes[&replaced].is_dir)
                {
                    return Err(NtStatus::OBJECT_NAME_COLLISION);
                }
                Ok(Intent::Rename {
                    source: Model::key(ino),
                    is_dir: self.now.inodes[&ino].is_dir,
                    from: from.clone(),
                    to: to.clone(),
                    replaced: replaced.map(Model::key),
                })
            }
            _ => Ok(Intent::None),
        }
    }

    fn perform(&mut self, _: &Actor, op: &FileOp, intent: &Intent) -> Result<Outcome, NtStatus> {
        match op {
            FileOp::Create(op) => match intent {
                Intent::Create(intent) => self.create(op, intent),
                _ => Err(NtStatus::INTERNAL_ERROR),
            },
            FileOp::Close { open, delete } => {
                if let Some(target) = delete
                    && self.at(&target.path).map(Model::key) == Some(target.key)
                {
                    let (dir, name) = self.parent(&target.path)?;
                    self.step(Step::Unname(dir, name));
                }
                self.opens.remove(open);
                match intent {
                    Intent::Close { metadata, .. } => Ok(Outcome::Closed(metadata.clone())),
                    _ => Ok(Outcome::Unit),
                }
            }
            FileOp::Write { open, data, .. } => {
                let ino = self.open(*open)?;
                let Intent::Write { offset } = intent else {
                    return Err(NtStatus::INTERNAL_ERROR);
                };
                // A page at a time.
                for (page, part) in data.together().chunks(3).enumerate() {
                    self.step(Step::Write(ino, offset + 3 * page as u64, part.to_vec()));
                }
                self.touch(ino);
                Ok(Outcome::Written {
                    count: data.len() as u32,
                    offset: *offset,
                })
            }
            FileOp::SetEndOfFile { open, end_of_file } => {
                let ino = self.open(*open)?;
                self.step(Step::Length(ino, *end_of_file));
                self.touch(ino);
                Ok(Outcome::Unit)
            }
            FileOp::SetBasic { open, basic } => {
                let ino = self.open(*open)?;
                if let Some(attributes) = basic.attributes {
                    self.step(Step::Attributes(ino, attributes));
                }
                if let Some(time) = basic.creation_time {
                    self.step(Step::Created(ino, time));
                }
                if let Some(time) = basic.last_write_time {
                    self.step(Step::Modified(ino, time));
                }
                Ok(Outcome::Unit)
            }
            FileOp::Rename { .. } => self.rename(intent),
            // No file here has named streams.
            FileOp::Strip { .. } => Ok(Outcome::Unit),
            FileOp::Stat { open } => Ok(Outcome::Metadata(self.metadata(self.open(*open)?))),
            FileOp::Read {
                open,
                offset,
                length,
            } => {
                let content = &self.now.inodes[&self.open(*open)?].content;
                let end = content.len().min((offset + u64::from(*length)) as usize);
                let from = (*offset as usize).min(end);
                Ok(Outcome::Data(Bytes::copy_from_slice(&content[from..end])))
            }
            _ => Err(NtStatus::NOT_SUPPORTED),
        }
    }

    fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        let ino = open.key.ino;
        if !self.now.inodes.contains_key(&ino) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        self.opens.insert(open.open, ino);
        Ok(())
    }

    fn forget(&mut self, open: OpenId) {
        self.opens.remove(&open);
    }

    fn changes(&mut self) -> Vec<Change> {
        Vec::new()
    }

    fn discard_changes(&mut self) {}

    fn mark(&mut self, _: ShareId, number: u64) -> std::io::Result<()> {
        self.step(Step::Marker(number));
        Ok(())
    }

    fn marked(&mut self, _: ShareId) -> std::io::Result<u64> {
        Ok(self.now.marker)
    }
}
