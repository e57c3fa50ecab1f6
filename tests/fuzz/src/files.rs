//! Implements files in memory under the contract, which no request can make large.

use outlast::server::files::FileSystem;
use outlast_fsa::fileop::{
    Actor, Change, Chunk, CreateAction, CreateIntent, CreateOp, Created, DirEntry, Disposition,
    FileHandle, FileKey, FileOp, Intent, Metadata, OpenId, Outcome, SetBasic, ShareId, Volume,
    WriteAt,
};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;
use outlast_smb::OpenInfo;
use std::collections::BTreeMap;

/// The longest file; anything beyond is DISK_FULL.
const FILE_BYTES: u64 = 64 << 10;
const DISK_FULL: NtStatus = NtStatus(0xC000_007F);
const FILES: usize = 256;
const DIRECTORY: u32 = 0x10;
const ARCHIVE: u32 = 0x20;
const ALL_RIGHTS: u32 = 0x001F_01FF;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    ino: u64,
    data: Option<Vec<u8>>,
    /// The open that created it, and the one that last truncated it.
    made_by: OpenId,
    emptied_by: OpenId,
    attributes: u32,
    time: u64,
}

type Place = (ShareId, String);

/// Shares with files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    nodes: BTreeMap<Place, Node>,
    /// Also of deleted files.
    opens: BTreeMap<OpenId, (ShareId, u64)>,
    inodes: u64,
}

fn key(ino: u64) -> FileKey {
    FileKey {
        dev: 1,
        ino,
        birth_ns: 0,
    }
}

fn metadata(node: &Node) -> Metadata {
    let length = node.data.as_ref().map_or(0, Vec::len) as u64;
    Metadata {
        key: key(node.ino),
        creation_time: 1,
        last_access_time: 2,
        last_write_time: node.time,
        change_time: 4,
        end_of_file: length,
        allocation_size: length,
        attributes: node.attributes,
        links: 1,
        is_dir: node.data.is_none(),
    }
}

/// The root of a share; no file has its inode number.
fn root(share: ShareId) -> Node {
    Node {
        ino: u64::MAX - u64::from(share),
        data: None,
        made_by: 0,
        emptied_by: 0,
        attributes: DIRECTORY,
        time: 3,
    }
}

impl Files {
    /// The bytes of a file.
    pub(crate) fn data(&self, share: ShareId, path: &str) -> Option<&[u8]> {
        self.nodes.get(&(share, path.to_owned()))?.data.as_deref()
    }

    fn at(&self, share: ShareId, path: &str) -> Option<Node> {
        match path {
            "" => Some(root(share)),
            path => self.nodes.get(&(share, path.to_owned())).cloned(),
        }
    }

    fn place(&self, open: OpenId) -> Result<Place, NtStatus> {
        let (share, ino) = *self.opens.get(&open).ok_or(NtStatus::INVALID_HANDLE)?;
        if ino == root(share).ino {
            return Ok((share, String::new()));
        }
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|((of, _), node)| *of == share && node.ino == ino);
        Ok(found.ok_or(NtStatus::FILE_CLOSED)?.0.clone())
    }

    fn node(&self, open: OpenId) -> Result<Node, NtStatus> {
        let (share, path) = self.place(open)?;
        self.at(share, &path).ok_or(NtStatus::FILE_CLOSED)
    }

    fn change(&mut self, open: OpenId) -> Result<&mut Node, NtStatus> {
        let place = self.place(open)?;
        self.nodes.get_mut(&place).ok_or(NtStatus::ACCESS_DENIED)
    }

    fn data_of(&mut self, open: OpenId) -> Result<&mut Vec<u8>, NtStatus> {
        let data = self.change(open)?.data.as_mut();
        data.ok_or(NtStatus::INVALID_DEVICE_REQUEST)
    }

    fn write(&mut self, open: OpenId, offset: u64, bytes: &[u8]) -> Result<(), NtStatus> {
        let data = self.data_of(open)?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(DISK_FULL)?;
        if end > FILE_BYTES {
            return Err(DISK_FULL);
        }
        if data.len() < end as usize {
            data.resize(end as usize, 0);
        }
        data[offset as usize..end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn resize(&mut self, open: OpenId, length: u64) -> Result<Outcome, NtStatus> {
        if length > FILE_BYTES {
            return Err(DISK_FULL);
        }
        self.data_of(open)?.resize(length as usize, 0);
        Ok(Outcome::Unit)
    }

    fn read(&self, open: OpenId, offset: u64, length: u64) -> Result<Vec<u8>, NtStatus> {
        let node = self.node(open)?;
        let data = node.data.ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
        let start = offset.min(data.len() as u64);
        let end = start.saturating_add(length).min(data.len() as u64);
        Ok(data[start as usize..end as usize].to_vec())
    }

    fn prepare_create(&self, share: ShareId, create: &CreateOp) -> Result<Intent, NtStatus> {
        // This file system has no extended attributes.
        if stream::split(&create.path).1.is_some() {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        let existing = self.at(share, &create.path);
        match (&existing, create.disposition) {
            (Some(_), Disposition::Create) => return Err(NtStatus::OBJECT_NAME_COLLISION),
            (None, Disposition::Open | Disposition::Overwrite) => {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            (Some(node), _) if node.data.is_some() && create.must_be_dir => {
                return Err(NtStatus::NOT_A_DIRECTORY);
            }
            (Some(node), _) if node.data.is_none() && create.must_be_file => {
                return Err(NtStatus::FILE_IS_A_DIRECTORY);
            }
            _ => {}
        }
        if let Some((parent, _)) = create.path.rsplit_once('/')
            && self
                .at(share, parent)
                .is_none_or(|node| node.data.is_some())
        {
            return Err(NtStatus::OBJECT_PATH_NOT_FOUND);
        }
        Ok(Intent::Create(CreateIntent {
            path: create.path.clone(),
            directory: self.directory(share, &create.path),
            existing: existing.as_ref().map(metadata),
            base: None,
            maximal_access: ALL_RIGHTS,
        }))
    }

    fn create(
        &mut self,
        share: ShareId,
        create: &CreateOp,
        found: &CreateIntent,
    ) -> Result<Outcome, NtStatus> {
        let action = match (&found.existing, create.disposition) {
            (None, _) => CreateAction::Created,
            (Some(_), Disposition::Open | Disposition::OpenIf) => CreateAction::Opened,
            (Some(_), Disposition::Supersede) => CreateAction::Superseded,
            (Some(_), _) => CreateAction::Overwritten,
        };
        let place = (share, found.path.clone());
        if action == CreateAction::Created && self.at(share, &found.path).is_none() {
            if self.nodes.len() == FILES {
                return Err(DISK_FULL);
            }
            self.inodes += 1;
            let node = Node {
                ino: self.inodes,
                data: (!create.must_be_dir).then(Vec::new),
                made_by: create.open,
                emptied_by: create.open,
                attributes: if create.must_be_dir {
                    DIRECTORY
                } else {
                    ARCHIVE
                },
                time: 3,
            };
            self.nodes.insert(place.clone(), node);
        }
        let node = match self.nodes.get_mut(&place) {
            Some(node) => {
                if action == CreateAction::Created && node.made_by != create.open {
                    return Err(NtStatus::OBJECT_NAME_COLLISION);
                }
                let empties =
                    matches!(action, CreateAction::Superseded | CreateAction::Overwritten);
                if let Some(data) = &mut node.data
                    && empties
                    && node.emptied_by != create.open
                {
                    data.clear();
                    node.emptied_by = create.open;
                }
                node.clone()
            }
            None => self
                .at(share, &found.path)
                .ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?,
        };
        self.opens.insert(create.open, (share, node.ino));
        Ok(Outcome::Created(Created {
            action,
            metadata: metadata(&node),
            handle: FileHandle::default(),
            path: found.path.clone(),
            made_file: false,
        }))
    }

    fn prepare_move(&self, open: OpenId, to: &str, replace: bool) -> Result<Intent, NtStatus> {
        let (share, from) = self.place(open)?;
        let node = self.node(open)?;
        if from.is_empty() {
            return Err(NtStatus::ACCESS_DENIED);
        }
        let replaced = self.at(share, to);
        if replaced.is_some() && !replace {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        Ok(Intent::Rename {
            source: key(node.ino),
            is_dir: node.data.is_none(),
            from,
            to: to.to_owned(),
            replaced: replaced.map(|node| key(node.ino)),
        })
    }

    /// The directory that holds a path's last component.
    fn directory(&self, share: ShareId, path: &str) -> FileKey {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let found = self.at(share, parent);
        found.map_or(FileKey::default(), |node| metadata(&node).key)
    }

    fn rename(&mut self, open: OpenId, from: &str, to: &str) -> Result<Outcome, NtStatus> {
        let (share, path) = self.place(open)?;
        let below = format!("{from}/");
        if path == from && !to.starts_with(&below) {
            let moved: Vec<Place> = self
                .nodes
                .keys()
                .filter(|(of, path)| *of == share && (path == from || path.starts_with(&below)))
                .cloned()
                .collect();
            for (share, path) in moved {
                if let Some(node) = self.nodes.remove(&(share, path.clone())) {
                    self.nodes.insert((share, path.replacen(from, to, 1)), node);
                }
            }
        }
        Ok(Outcome::Renamed {
            path: to.to_owned(),
            directory: self.directory(share, to),
        })
    }

    fn list(&self, open: OpenId, after: Option<&str>, limit: u32) -> Result<Outcome, NtStatus> {
        let (share, directory) = self.place(open)?;
        if self.node(open)?.data.is_some() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        let mut entries: Vec<DirEntry> = self
            .nodes
            .iter()
            .filter_map(|((of, path), node)| {
                let name = path
                    .strip_prefix(&prefix)
                    .filter(|name| *of == share && !name.contains('/'))?;
                Some(DirEntry {
                    name: name.to_owned(),
                    metadata: metadata(node),
                    file_id: node.ino,
                })
            })
            .filter(|entry| after.is_none_or(|after| entry.name.as_str() > after))
            .collect();
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Ok(Outcome::Entries { entries, more })
    }

    fn copy(
        &mut self,
        source: OpenId,
        target: OpenId,
        chunks: &[Chunk],
    ) -> Result<Outcome, NtStatus> {
        let mut written = Vec::new();
        for chunk in chunks {
            let bytes = self.read(source, chunk.source_offset, chunk.length.into())?;
            self.write(target, chunk.target_offset, &bytes)?;
            written.push(bytes.len() as u32);
        }
        Ok(Outcome::Copied { written })
    }
}

impl FileSystem for Files {
    fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        Ok(match op {
            FileOp::Create(create) => self.prepare_create(actor.share, create)?,
            FileOp::Write { open, at, .. } => Intent::Write {
                offset: match at {
                    WriteAt::Offset(offset) => *offset,
                    WriteAt::End => self.data_of(*open)?.len() as u64,
                },
            },
            FileOp::Rename {
                open, to, replace, ..
            }
            | FileOp::Link { open, to, replace } => self.prepare_move(*open, to, *replace)?,
            FileOp::Close {
                open,
                delete: Some(_),
            } => Intent::Close {
                metadata: metadata(&self.node(*open)?),
                digest: None,
            },
            _ => Intent::None,
        })
    }

    fn perform(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        match (op, intent) {
            (FileOp::Create(create), Intent::Create(found)) => {
                self.create(actor.share, create, found)
            }
            (FileOp::Close { open, delete }, intent) => {
                let closed = match intent {
                    Intent::Close { metadata, .. } => metadata.clone(),
                    _ => metadata(&self.node(*open)?),
                };
                if let Some(target) = delete {
                    let place = (actor.share, target.path.clone());
                    if self
                        .nodes
                        .get(&place)
                        .is_some_and(|node| key(node.ino) == target.key)
                    {
                        self.nodes.remove(&place);
                    }
                }
                Ok(Outcome::Closed(closed))
            }
            (
                FileOp::Read {
                    open,
                    offset,
                    length,
                },
                _,
            ) => {
                let bytes = self.read(*open, *offset, (*length).into())?;
                Ok(Outcome::Data(bytes.into()))
            }
            (FileOp::Write { open, data, .. }, Intent::Write { offset }) => {
                self.write(*open, *offset, &data.together())?;
                Ok(Outcome::Written {
                    count: data.len() as u32,
                    offset: *offset,
                })
            }
            (FileOp::Rename { open, .. }, Intent::Rename { from, to, .. }) => {
                self.rename(*open, from, to)
            }
            (
                FileOp::QueryDirectory {
                    open, after, limit, ..
                },
                _,
            ) => self.list(*open, after.as_deref(), *limit),
            (FileOp::Stat { open }, _) => Ok(Outcome::Metadata(metadata(&self.node(*open)?))),
            (FileOp::QueryEas { open }, _) => {
                let metadata = metadata(&self.node(*open)?);
                let eas = Vec::new();
                Ok(Outcome::Eas { metadata, eas })
            }
            (FileOp::Strip { .. }, _) => Ok(Outcome::Unit),
            (FileOp::QueryVolume { .. }, _) => Ok(Outcome::Volume(Volume {
                total_bytes: u64::MAX,
                available_bytes: u64::MAX,
                free_bytes: 1,
                unit_bytes: 4096,
                serial: 7,
                creation_time: 1,
                extended_attributes: false,
            })),
            (FileOp::SetBasic { open, basic }, _) => {
                let SetBasic {
                    last_write_time,
                    attributes,
                    ..
                } = basic;
                let node = self.change(*open)?;
                node.time = last_write_time.unwrap_or(node.time);
                node.attributes = attributes.unwrap_or(node.attributes);
                Ok(Outcome::Unit)
            }
            (FileOp::SetEndOfFile { open, end_of_file }, _) => self.resize(*open, *end_of_file),
            (
                FileOp::SetAllocation {
                    open,
                    allocation_size,
                },
                _,
            ) => {
                let length = self.data_of(*open)?.len() as u64;
                self.resize(*open, length.min(*allocation_size))
            }
            (FileOp::QuerySecurity { open, .. }, _) => {
                self.node(*open)?;
                Ok(Outcome::Data(
                    vec![
                        1, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                    ]
                    .into(),
                ))
            }
            (
                FileOp::CopyChunks {
                    source,
                    target,
                    chunks,
                },
                _,
            ) => self.copy(*source, *target, chunks),
            (FileOp::ZeroData { open, from, beyond }, _) => {
                let data = self.data_of(*open)?;
                let end = (*beyond).min(data.len() as u64) as usize;
                if let Some(zeroed) = data.get_mut((*from).min(end as u64) as usize..end) {
                    zeroed.fill(0);
                }
                Ok(Outcome::Unit)
            }
            (
                FileOp::QueryAllocatedRanges {
                    open,
                    offset,
                    length,
                },
                _,
            ) => {
                let found = self.read(*open, *offset, *length)?;
                Ok(Outcome::Ranges(vec![(*offset, found.len() as u64)]))
            }
            (
                FileOp::Flush { open }
                | FileOp::CheckDelete { open, .. }
                | FileOp::SetSecurity { open, .. }
                | FileOp::SetSparse { open, .. }
                | FileOp::Watch { open, .. },
                _,
            ) => self.node(*open).map(|_| Outcome::Unit),
            _ => Err(NtStatus::NOT_SUPPORTED),
        }
    }

    fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        let node = self
            .at(open.actor.share, &open.path)
            .ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        if key(node.ino) != open.key {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        self.opens.insert(open.open, (open.actor.share, node.ino));
        Ok(())
    }

    fn forget(&mut self, open: OpenId) {
        self.opens.remove(&open);
    }

    fn changes(&mut self) -> Vec<Change> {
        Vec::new()
    }

    fn discard_changes(&mut self) {}
}
