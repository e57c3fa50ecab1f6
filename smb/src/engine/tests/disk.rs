//! Implements a file system in memory under the contract: `prepare` changes nothing, `perform` can be repeated with its
//! intent.

use bytes::Bytes;
use outlast_fsa::ea::Ea;
use outlast_fsa::fileop::{
    CreateAction, CreateIntent, Created, Disposition, FileHandle, FileKey, FileOp, Intent,
    Metadata, OpenId, Outcome, StreamEntry, WriteAt,
};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;
use std::collections::BTreeMap;

/// A file, or a named stream of one, whose name follows the file's path and a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    ino: u64,
    /// The inode of the file that a stream belongs to.
    file: Option<u64>,
    is_dir: bool,
    data: Vec<u8>,
    eas: Vec<Ea>,
    /// The open that created it.
    stamp: OpenId,
    /// The open that last emptied it.
    emptied: OpenId,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    nodes: BTreeMap<String, Node>,
    /// Inode by open, also of deleted files.
    opens: BTreeMap<OpenId, u64>,
    next_ino: u64,
    /// The effects so far, none of which may happen twice.
    pub(super) effects: Vec<String>,
}

impl Disk {
    pub(super) fn exists(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    fn key(ino: u64) -> FileKey {
        FileKey {
            dev: 1,
            ino,
            birth_ns: 0,
        }
    }

    fn key_of(node: &Node) -> FileKey {
        Disk::key(node.file.unwrap_or(node.ino))
    }

    fn metadata(node: &Node) -> Metadata {
        Metadata {
            key: Disk::key_of(node),
            creation_time: 1,
            last_access_time: 2,
            last_write_time: 3,
            change_time: 4,
            end_of_file: node.data.len() as u64,
            allocation_size: node.data.len() as u64,
            attributes: if node.is_dir { 0x10 } else { 0x20 },
            links: 1,
            is_dir: node.is_dir,
        }
    }

    /// The directory that contains the last component of a path.
    fn directory(&self, path: &str) -> FileKey {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        Disk::key(self.nodes.get(parent).map_or(0, |node| node.ino))
    }

    /// Makes a node, unless it exists.
    fn make(&mut self, path: &str, is_dir: bool, stamp: OpenId) {
        if self.nodes.contains_key(path) {
            return;
        }
        let (file, name) = stream::split(path);
        if name.is_some() {
            self.make(file, false, stamp);
        }
        self.next_ino += 1;
        self.effects.push(format!("create {path}"));
        let node = Node {
            ino: self.next_ino,
            file: name.and_then(|_| Some(self.nodes.get(file)?.ino)),
            is_dir,
            data: Vec::new(),
            eas: Vec::new(),
            stamp,
            emptied: 0,
        };
        self.nodes.insert(path.to_owned(), node);
    }

    /// Adds another name of a file.
    pub(super) fn link(&mut self, from: &str, to: &str) {
        let node = self.nodes[from].clone();
        self.nodes.insert(to.to_owned(), node);
    }

    fn path_of(&self, open: OpenId) -> Result<&str, NtStatus> {
        let ino = self.opens.get(&open).ok_or(NtStatus::INVALID_HANDLE)?;
        let found = self.nodes.iter().find(|(_, node)| node.ino == *ino);
        found
            .map(|(path, _)| path.as_str())
            .ok_or(NtStatus::INVALID_HANDLE)
    }

    fn node(&mut self, open: OpenId) -> Result<&mut Node, NtStatus> {
        let path = self.path_of(open)?.to_string();
        self.nodes.get_mut(&path).ok_or(NtStatus::INVALID_HANDLE)
    }

    pub(super) fn prepare(&mut self, op: &FileOp) -> Result<Intent, NtStatus> {
        Ok(match op {
            FileOp::Create(create) => {
                let existing = match create.path.as_str() {
                    "" => Some(Disk::metadata(&root())),
                    path => self.nodes.get(path).map(Disk::metadata),
                };
                match (&existing, create.disposition) {
                    (Some(_), Disposition::Create) => return Err(NtStatus::OBJECT_NAME_COLLISION),
                    (None, Disposition::Open | Disposition::Overwrite) => {
                        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
                    }
                    _ => {}
                }
                let (file, name) = stream::split(&create.path);
                let base = name.and_then(|_| self.nodes.get(file));
                Intent::Create(CreateIntent {
                    path: create.path.clone(),
                    directory: self.directory(&create.path),
                    existing,
                    base: base.map(Disk::metadata),
                    maximal_access: 0x001F_01FF,
                })
            }
            FileOp::Write { open, at, .. } => Intent::Write {
                offset: match at {
                    WriteAt::Offset(offset) => *offset,
                    WriteAt::End => self.node(*open)?.data.len() as u64,
                },
            },
            FileOp::Link { open, to, .. } => {
                let node = self.node(*open)?;
                Intent::Rename {
                    source: Disk::key(node.ino),
                    is_dir: node.is_dir,
                    from: String::new(),
                    to: to.clone(),
                    replaced: None,
                }
            }
            FileOp::Rename { open, to, .. } if stream::split(to).1.is_some() => {
                Intent::RenameStream {
                    to: to.clone(),
                    data: self.node(*open)?.data.clone(),
                }
            }
            FileOp::Rename {
                open,
                from,
                to,
                replace,
            } => {
                let replaced = self.nodes.get(to).map(|node| Disk::key(node.ino));
                if replaced.is_some() && !replace {
                    return Err(NtStatus::OBJECT_NAME_COLLISION);
                }
                let node = self.node(*open)?;
                Intent::Rename {
                    source: Disk::key(node.ino),
                    is_dir: node.is_dir,
                    from: from.clone(),
                    to: to.clone(),
                    replaced,
                }
            }
            FileOp::Close {
                open,
                delete: Some(_),
            } => {
                let path = self.path_of(*open)?.to_string();
                let below = format!("{path}/");
                if self.nodes.keys().any(|other| other.starts_with(&below)) {
                    return Err(NtStatus::DIRECTORY_NOT_EMPTY);
                }
                Intent::Close {
                    metadata: Disk::metadata(self.node(*open)?),
                    digest: None,
                }
            }
            FileOp::CopyChunks {
                source,
                target,
                chunks,
            } if self.opens.get(source) == self.opens.get(target) => {
                let mut data = self.node(*source)?.data.clone();
                let mut taken = Vec::new();
                for chunk in chunks {
                    let bytes = range(chunk.source_offset, chunk.length);
                    let Some(bytes) = data.get(bytes).map(<[u8]>::to_vec) else {
                        break;
                    };
                    put(&mut data, chunk.target_offset, &bytes);
                    taken.push(bytes);
                }
                if taken.is_empty() {
                    return Err(NtStatus::INVALID_VIEW_SIZE);
                }
                Intent::CopyChunks { source: taken }
            }
            _ => Intent::None,
        })
    }

    pub(super) fn perform(&mut self, op: &FileOp, intent: &Intent) -> Result<Outcome, NtStatus> {
        match (op, intent) {
            (FileOp::Create(create), Intent::Create(found)) => {
                let action = match (&found.existing, create.disposition) {
                    (None, _) => CreateAction::Created,
                    (Some(_), Disposition::Open | Disposition::OpenIf) => CreateAction::Opened,
                    (Some(_), _) => CreateAction::Overwritten,
                };
                if action == CreateAction::Created {
                    self.make(&create.path, create.must_be_dir, create.open);
                    if let Some(node) = self.nodes.get_mut(&create.path) {
                        node.eas.clone_from(&create.eas);
                    }
                }
                let root = root();
                let node = match create.path.as_str() {
                    "" => &root,
                    path => {
                        let node = self
                            .nodes
                            .get_mut(path)
                            .ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
                        if action == CreateAction::Created && node.stamp != create.open {
                            return Err(NtStatus::OBJECT_NAME_COLLISION);
                        }
                        if action == CreateAction::Overwritten && node.emptied != create.open {
                            self.effects.push(format!("empty {}", create.path));
                            node.data.clear();
                            node.emptied = create.open;
                        }
                        node
                    }
                };
                self.opens.insert(create.open, node.ino);
                Ok(Outcome::Created(Created {
                    action,
                    metadata: Disk::metadata(node),
                    handle: FileHandle::default(),
                    path: create.path.clone(),
                    made_file: node.file.is_some()
                        && found.base.is_none()
                        && action == CreateAction::Created,
                }))
            }
            (FileOp::Close { open, delete }, intent) => {
                let metadata = match intent {
                    Intent::Close { metadata, .. } => metadata.clone(),
                    _ if self.opens.get(open) == Some(&0) => Disk::metadata(&root()),
                    _ => Disk::metadata(self.node(*open)?),
                };
                if let Some(target) = delete
                    && self
                        .nodes
                        .get(&target.path)
                        .is_some_and(|node| Disk::key_of(node) == target.key)
                {
                    self.effects.push(format!("delete {}", target.path));
                    self.nodes.remove(&target.path);
                    let streams = format!("{}:", target.path);
                    self.nodes.retain(|path, _| !path.starts_with(&streams));
                }
                Ok(Outcome::Closed(metadata))
            }
            (
                FileOp::Read {
                    open,
                    offset,
                    length,
                },
                _,
            ) => {
                let data = &self.node(*open)?.data;
                let start = (*offset as usize).min(data.len());
                let end = (start + *length as usize).min(data.len());
                Ok(Outcome::Data(Bytes::copy_from_slice(&data[start..end])))
            }
            (FileOp::Write { open, data, .. }, Intent::Write { offset }) => {
                let node = self.node(*open)?;
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                if node.data.len() < end {
                    node.data.resize(end, 0);
                }
                node.data[start..end].copy_from_slice(&data.together());
                Ok(Outcome::Written {
                    count: data.len() as u32,
                    offset: *offset,
                })
            }
            (FileOp::Rename { open, .. }, Intent::Rename { from, to, .. }) => {
                if self.path_of(*open)? == from {
                    self.effects.push(format!("rename {from} {to}"));
                    let below = format!("{from}/");
                    let moved: Vec<String> = self
                        .nodes
                        .keys()
                        .filter(|path| *path == from || path.starts_with(&below))
                        .cloned()
                        .collect();
                    for path in moved {
                        let node = self.nodes.remove(&path).unwrap();
                        self.nodes.insert(path.replacen(from.as_str(), to, 1), node);
                    }
                }
                Ok(Outcome::Renamed {
                    path: to.clone(),
                    directory: self.directory(to),
                })
            }
            (FileOp::Rename { open, from, .. }, Intent::RenameStream { to, data }) => {
                if self.path_of(*open)? == from {
                    self.effects.push(format!("rename {from} {to}"));
                }
                let mut node = self.node(*open)?.clone();
                node.data.clone_from(data);
                self.nodes.remove(from);
                self.nodes.insert(to.clone(), node);
                Ok(Outcome::Renamed {
                    path: to.clone(),
                    directory: self.directory(to),
                })
            }
            (FileOp::QueryEas { open }, _) => {
                let node = self.node(*open)?;
                let (metadata, eas) = (Disk::metadata(node), node.eas.clone());
                Ok(Outcome::Eas { metadata, eas })
            }
            (FileOp::SetEas { open, eas }, _) => {
                let node = self.node(*open)?;
                for ea in eas {
                    node.eas.retain(|old| old.name != ea.name);
                    if !ea.value.is_empty() {
                        node.eas.push(ea.clone());
                    }
                }
                Ok(Outcome::Unit)
            }
            (FileOp::QueryStreams { open }, _) => {
                let file = Disk::key_of(self.node(*open)?);
                let all = self
                    .nodes
                    .iter()
                    .filter(|(_, node)| Disk::key_of(node) == file);
                let entry = |(path, node): (&String, &Node)| StreamEntry {
                    name: match stream::split(path).1 {
                        Some(name) => stream::full_name(name),
                        None => "::$DATA".to_owned(),
                    },
                    end_of_file: node.data.len() as u64,
                    allocation_size: 0,
                };
                Ok(Outcome::Streams(all.map(entry).collect()))
            }
            (FileOp::SetEndOfFile { open, end_of_file }, _) => {
                self.node(*open)?.data.resize(*end_of_file as usize, 0);
                Ok(Outcome::Unit)
            }
            (FileOp::Link { open, to, .. }, _) => {
                let node = self.node(*open)?.clone();
                if self.nodes.insert(to.clone(), node).is_none() {
                    self.effects.push(format!("link {to}"));
                }
                Ok(Outcome::Unit)
            }
            (FileOp::CopyChunks { target, chunks, .. }, Intent::CopyChunks { source }) => {
                let data = &mut self.node(*target)?.data;
                for (chunk, bytes) in chunks.iter().zip(source) {
                    put(data, chunk.target_offset, bytes);
                }
                let copied = chunks.iter().take(source.len());
                Ok(Outcome::Copied {
                    written: copied.map(|chunk| chunk.length).collect(),
                })
            }
            (FileOp::Stat { open }, _) => Ok(Outcome::Metadata(Disk::metadata(self.node(*open)?))),
            (FileOp::Flush { .. } | FileOp::Watch { .. } | FileOp::CheckDelete { .. }, _) => {
                Ok(Outcome::Unit)
            }
            _ => Err(NtStatus::NOT_SUPPORTED),
        }
    }
}

fn range(offset: u64, length: u32) -> std::ops::Range<usize> {
    offset as usize..offset as usize + length as usize
}

fn put(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let range = range(offset, bytes.len() as u32);
    if data.len() < range.end {
        data.resize(range.end, 0);
    }
    data[range].copy_from_slice(bytes);
}

/// The root of the share.
fn root() -> Node {
    Node {
        ino: 0,
        file: None,
        is_dir: true,
        data: Vec::new(),
        eas: Vec::new(),
        stamp: 0,
        emptied: 0,
    }
}
