//! Defines the record of an operation's effect on the file system, under durability `power`: enough to do it once more
//! to a file system that a power cut has reset, by the same [`FileSystem::perform`](super::files::FileSystem::perform).

use bytes::Bytes;
use outlast_fsa::Pieces;
use outlast_fsa::attributes;
use outlast_fsa::fileop::{
    Actor, CreateAction, CreateOp, DeleteTarget, FileHandle, FileKey, FileOp, FileTime, Intent,
    OpenId, Outcome, SetBasic, WriteAt,
};
use outlast_fsa::stream;
use outlast_smb::{OpenInfo, Planned};
use serde::{Deserialize, Serialize};

/// The identity of a file on its file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its key.
    pub key: FileKey,
    /// Its handle.
    pub handle: FileHandle,
}

/// An open file or directory, with what is needed to open it once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its path at that time.
    pub path: String,
    /// The file.
    pub identity: Identity,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A piece of what was written: its position in the log, where it was received, and its length in bytes.
pub type Place = (u64, u32);

/// One effect. The data of a write are where `places` says, or else the data part of its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Numbers are given in the order of effects and never twice.
    pub number: u64,
    /// The account on whose behalf it was done.
    pub actor: Actor,
    /// The operation.
    pub op: FileOp,
    /// Its intent.
    pub intent: Intent,
    /// The file it was done to; `None` for what a create made.
    pub target: Option<Target>,
    /// What a create made.
    pub made: Option<Identity>,
    /// LastWriteTime after it; 0: unchanged.
    pub modified: FileTime,
    /// CreationTime of what a create made.
    pub created: FileTime,
    /// The places of a write's data, piece by piece.
    pub places: Vec<Place>,
}

/// An effect without its number.
pub(super) struct Draft {
    pub op: FileOp,
    pub intent: Intent,
    pub target: Option<Target>,
    pub made: Option<Identity>,
    pub modified: FileTime,
    pub created: FileTime,
    pub data: Pieces,
}

impl Draft {
    /// An effect on the content of a file, without an intent.
    fn on(target: &Target, op: FileOp) -> Draft {
        Draft {
            op,
            intent: Intent::None,
            target: Some(target.clone()),
            made: None,
            modified: 0,
            created: 0,
            data: Pieces::default(),
        }
    }
}

impl Effect {
    /// Returns whether it changes names. The file system keeps the order of such effects (and of its marker), but not
    /// of changes to the content of files.
    #[must_use]
    pub fn is_of_names(&self) -> bool {
        match &self.op {
            // A stream is content of its file: it can be written again after a redo has removed it.
            FileOp::Close {
                delete: Some(target),
                ..
            } => stream::split(&target.path).1.is_none(),
            FileOp::Create(_) | FileOp::Close { .. } | FileOp::Rename { .. } => true,
            FileOp::Link { .. } => true,
            _ => false,
        }
    }

    /// Returns whether a create made a directory.
    pub(super) fn made_directory(&self) -> bool {
        matches!(&self.op, FileOp::Create(create) if create.must_be_dir)
    }

    /// The keys of every file that it refers to, for [`super::redo`] to update.
    pub(super) fn keys_mut(&mut self) -> impl Iterator<Item = &mut FileKey> {
        let deleted = match &mut self.op {
            FileOp::Close {
                delete: Some(target),
                ..
            } => Some(&mut target.key),
            _ => None,
        };
        self.intent.keys_mut().chain(deleted)
    }
}

/// The effects of an operation that has succeeded. `info`: its open, before the operation. `copied`: what a copy
/// copied, chunk by chunk.
pub(super) fn of(
    planned: &Planned,
    intent: &Intent,
    outcome: &Outcome,
    info: Option<&OpenInfo>,
    copied: Vec<Bytes>,
) -> Vec<Draft> {
    let target = info.map(target);
    let draft = |op: FileOp, intent: Intent, data: Pieces| Draft {
        op,
        intent,
        target: target.clone(),
        made: None,
        modified: 0,
        created: 0,
        data,
    };
    let write = |open: OpenId, offset: u64, data: Pieces| {
        let op = FileOp::Write {
            open,
            at: WriteAt::Offset(offset),
            data: Pieces::default(),
            write_through: false,
        };
        let itself = Intent::Write { offset };
        let intent = match intent {
            Intent::Keeping { times, .. } => Intent::Keeping {
                times: *times,
                intent: Box::new(itself),
            },
            _ => itself,
        };
        draft(op, intent, data)
    };
    match (&planned.op, outcome) {
        (FileOp::Create(op), Outcome::Created(created)) => {
            let identity = Identity {
                key: created.metadata.key,
                handle: created.handle.clone(),
            };
            match created.action {
                CreateAction::Opened => Vec::new(),
                _ if stream::split(&created.path).1.is_some() && !created.made_file => {
                    emptied(op, &created.path, identity)
                }
                CreateAction::Created => vec![Draft {
                    op: planned.op.clone(),
                    intent: intent.clone(),
                    target: None,
                    made: Some(identity),
                    // A directory's changes with its last entry.
                    modified: if created.metadata.is_dir {
                        0
                    } else {
                        created.metadata.last_write_time
                    },
                    created: created.metadata.creation_time,
                    data: Pieces::default(),
                }],
                CreateAction::Overwritten | CreateAction::Superseded => {
                    let target = Target {
                        path: created.path.clone(),
                        identity,
                        is_dir: false,
                    };
                    overwritten(op, &target)
                }
            }
        }
        (FileOp::Write { open, data, .. }, Outcome::Written { offset, .. }) => {
            vec![write(*open, *offset, data.clone())]
        }
        (FileOp::CopyChunks { target, chunks, .. }, Outcome::Copied { written }) => chunks
            .iter()
            .zip(copied)
            .take(written.len())
            .map(|(chunk, data)| write(*target, chunk.target_offset, data.into()))
            .collect(),
        (FileOp::Rename { open, .. }, _)
            if matches!(intent.itself(), Intent::RenameStream { .. }) =>
        {
            renamed(*open, intent, info)
        }
        // A redo may find what was in the stream before other effects, which are done again before this one.
        (
            FileOp::Close {
                delete: Some(_), ..
            },
            Outcome::Closed(metadata),
        ) => {
            let metadata = metadata.clone();
            let intent = Intent::Close {
                metadata,
                digest: None,
            };
            vec![draft(planned.op.clone(), intent, Pieces::default())]
        }
        (op, _) if op.has_effect() => vec![draft(op.clone(), intent.clone(), Pieces::default())],
        _ => Vec::new(),
    }
}

/// A create that creates a named stream of an existing file, or overwrites one, is recorded as the stream being empty.
fn emptied(op: &CreateOp, path: &str, identity: Identity) -> Vec<Draft> {
    let open = op.open;
    let target = Target {
        path: path.to_owned(),
        identity,
        is_dir: false,
    };
    let end_of_file = 0;
    vec![Draft::on(
        &target,
        FileOp::SetEndOfFile { open, end_of_file },
    )]
}

/// The rename of a named stream is recorded as what its new name holds, and the removal of the former name: a later
/// stream may have that name when it is done again.
fn renamed(open: OpenId, intent: &Intent, info: Option<&OpenInfo>) -> Vec<Draft> {
    let (Intent::RenameStream { to, data }, Some(info)) = (intent.itself(), info) else {
        return Vec::new();
    };
    let former = target(info);
    let new = Target {
        path: to.clone(),
        ..former.clone()
    };
    let end_of_file = 0;
    let write = FileOp::Write {
        open,
        at: WriteAt::Offset(0),
        data: Pieces::default(),
        write_through: false,
    };
    let mut all = vec![
        Draft::on(&new, FileOp::SetEndOfFile { open, end_of_file }),
        Draft {
            intent: Intent::Write { offset: 0 },
            data: Bytes::from(data.clone()).into(),
            ..Draft::on(&new, write)
        },
    ];
    if !stream::has_same_name(to, &info.path) {
        let delete = Some(DeleteTarget {
            path: info.path.clone(),
            key: info.key,
        });
        all.push(Draft::on(&former, FileOp::Close { open, delete }));
    }
    all
}

fn target(info: &OpenInfo) -> Target {
    Target {
        path: info.path.clone(),
        identity: Identity {
            key: info.key,
            handle: info.handle.clone(),
        },
        is_dir: info.is_dir,
    }
}

/// An overwriting create is recorded by its effect on the existing file: a create goes by the name, which may be
/// another file's later.
fn overwritten(op: &CreateOp, target: &Target) -> Vec<Draft> {
    let open = op.open;
    let basic = SetBasic {
        attributes: Some(op.attributes | attributes::ARCHIVE),
        ..SetBasic::default()
    };
    let end_of_file = 0;
    let mut ops = vec![
        FileOp::SetEndOfFile { open, end_of_file },
        FileOp::Strip { open },
        FileOp::SetBasic { open, basic },
    ];
    if !op.eas.is_empty() {
        let eas = op.eas.clone();
        ops.push(FileOp::SetEas { open, eas });
    }
    if op.allocation_size > 0 {
        ops.push(FileOp::SetAllocation {
            open,
            allocation_size: op.allocation_size,
        });
    }
    ops.into_iter().map(|op| Draft::on(target, op)).collect()
}
