//! What an operation did to the file system, as it is on record under durability `power`: enough to do it once more to a file system that a
//! power cut has thrown back, by the same [`FileSystem::perform`](super::files::FileSystem::perform).

use bytes::Bytes;
use outlast_fsa::attributes;
use outlast_fsa::fileop::{
    Actor, CreateAction, CreateOp, FileHandle, FileKey, FileOp, FileTime, Intent, OpenId, Outcome,
    SetBasic, WriteAt,
};
use outlast_smb::{OpenInfo, Planned};
use serde::{Deserialize, Serialize};

/// Which file it is to the file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its key.
    pub key: FileKey,
    /// Its handle.
    pub handle: FileHandle,
}

/// An open file or directory, as far as it takes to open it once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its path at that time.
    pub path: String,
    /// Which file.
    pub identity: Identity,
    /// A directory.
    pub is_dir: bool,
}

/// A piece of what was written: its position in the log, where it was received, and its length in bytes.
pub type Place = (u64, u32);

/// One effect. The data of a write are where `places` says, or else the data part of its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Numbers are given in the order of effects and never twice.
    pub number: u64,
    /// On whose behalf.
    pub actor: Actor,
    /// What was done.
    pub op: FileOp,
    /// Its intent.
    pub intent: Intent,
    /// The file it was done to; `None` for what a create made.
    pub target: Option<Target>,
    /// What a create made.
    pub made: Option<Identity>,
    /// LastWriteTime after it; 0: as it was.
    pub modified: FileTime,
    /// CreationTime of what a create made.
    pub created: FileTime,
    /// Where a write's data are, piece by piece.
    pub places: Vec<Place>,
}

/// What an effect is told by, but for its number.
pub(super) struct Draft {
    pub op: FileOp,
    pub intent: Intent,
    pub target: Option<Target>,
    pub made: Option<Identity>,
    pub modified: FileTime,
    pub created: FileTime,
    pub data: Bytes,
}

impl Effect {
    /// Does it change names? The file system keeps the order of such effects (and of its marker), but not of changes to what a file holds.
    #[must_use]
    pub fn is_of_names(&self) -> bool {
        matches!(
            self.op,
            FileOp::Create(_) | FileOp::Close { .. } | FileOp::Rename { .. } | FileOp::Link { .. }
        )
    }

    /// What a create made is a directory.
    pub(super) fn made_directory(&self) -> bool {
        matches!(&self.op, FileOp::Create(create) if create.must_be_dir)
    }

    /// Every file it speaks of, for [`super::redo`] to say which that is by now.
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

/// The effects of an operation that has succeeded. `info`: the open it acted on, before it. `copied`: what a copy copied, chunk by chunk.
pub(super) fn of(
    planned: &Planned,
    intent: &Intent,
    outcome: &Outcome,
    info: Option<&OpenInfo>,
    copied: Vec<Bytes>,
) -> Vec<Draft> {
    let target = info.map(target);
    let draft = |op: FileOp, intent: Intent, data: Bytes| Draft {
        op,
        intent,
        target: target.clone(),
        made: None,
        modified: 0,
        created: 0,
        data,
    };
    let write = |open: OpenId, offset: u64, data: Bytes| {
        let op = FileOp::Write {
            open,
            at: WriteAt::Offset(offset),
            data: Bytes::new(),
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
                CreateAction::Created => vec![Draft {
                    op: planned.op.clone(),
                    intent: intent.clone(),
                    target: None,
                    made: Some(identity),
                    // A directory's is that of its last entry.
                    modified: if created.metadata.is_dir {
                        0
                    } else {
                        created.metadata.last_write_time
                    },
                    created: created.metadata.creation_time,
                    data: Bytes::new(),
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
            .map(|(chunk, data)| write(*target, chunk.target_offset, data))
            .collect(),
        (op, _) if op.has_effect() => vec![draft(op.clone(), intent.clone(), Bytes::new())],
        _ => Vec::new(),
    }
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

/// Overwriting by a create is told by what it did to the file that was there: a create goes by the name, which may be another's by now.
fn overwritten(op: &CreateOp, target: &Target) -> Vec<Draft> {
    let open = op.open;
    let basic = SetBasic {
        attributes: Some(op.attributes | attributes::ARCHIVE),
        ..SetBasic::default()
    };
    let end_of_file = 0;
    let mut ops = vec![
        FileOp::SetEndOfFile { open, end_of_file },
        FileOp::SetBasic { open, basic },
    ];
    if op.allocation_size > 0 {
        ops.push(FileOp::SetAllocation {
            open,
            allocation_size: op.allocation_size,
        });
    }
    ops.into_iter()
        .map(|op| Draft {
            op,
            intent: Intent::None,
            target: Some(target.clone()),
            made: None,
            modified: 0,
            created: 0,
            data: Bytes::new(),
        })
        .collect()
}
