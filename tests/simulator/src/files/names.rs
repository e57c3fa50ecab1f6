//! Implements the operations that change names: creating, renaming, linking.

use outlast_fsa::fileop::{
    CreateAction, CreateIntent, CreateOp, Created, Disposition, Intent, OpenId, Outcome, Times,
};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;

use super::making::{Maker, private};
use super::{Descriptor, Files};
use crate::disk::Disk;
use crate::image::Ino;
use crate::mutation::Mutation;
use outlast_fsa::attributes::ARCHIVE;

/// Every right on a file (MS-DTYP 2.4.3).
const ALL: u32 = 0x001F_01FF;

impl Files {
    pub(super) fn prepare_create(&self, op: &CreateOp) -> Result<CreateIntent, NtStatus> {
        // The disk has no extended attributes.
        if stream::split(&op.path).1.is_some() {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        let disk = self.disk.borrow();
        let directory = |path: &str| disk.parent(path).map(|(dir, _)| disk.key(dir));
        let Some((ino, path)) = disk.find(&op.path) else {
            if matches!(op.disposition, Disposition::Open | Disposition::Overwrite) {
                return Err(match disk.parent(&op.path) {
                    Some(_) => NtStatus::OBJECT_NAME_NOT_FOUND,
                    None => NtStatus::OBJECT_PATH_NOT_FOUND,
                });
            }
            return Ok(CreateIntent {
                directory: directory(&op.path).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?,
                path: op.path.clone(),
                existing: None,
                base: None,
                maximal_access: ALL,
            });
        };
        let existing = disk.metadata(ino).ok_or(NtStatus::INTERNAL_ERROR)?;
        // MS-FSA 2.1.5.1.2: an existing file.
        if op.disposition == Disposition::Create {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        if existing.is_dir && op.must_be_file {
            return Err(NtStatus::FILE_IS_A_DIRECTORY);
        }
        if !existing.is_dir && op.must_be_dir {
            return Err(NtStatus::NOT_A_DIRECTORY);
        }
        if existing.is_dir && overwrites(op.disposition) {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        Ok(CreateIntent {
            directory: directory(&path).unwrap_or(existing.key),
            path,
            existing: Some(existing),
            base: None,
            maximal_access: ALL,
        })
    }

    pub(super) fn create(
        &mut self,
        op: &CreateOp,
        intent: &CreateIntent,
    ) -> Result<Outcome, NtStatus> {
        let mut disk = self.disk.borrow_mut();
        let (ino, action) = match &intent.existing {
            Some(existing) => {
                let found = disk.find(&intent.path).map(|(ino, _)| ino);
                let Some(ino) = found.filter(|ino| disk.key(*ino) == existing.key) else {
                    return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
                };
                (ino, overwrite(&mut disk, ino, op)?)
            }
            None => {
                let maker = Maker {
                    lacks: self.lacks,
                    mutation: self.mutation,
                };
                let ino = maker.make(&mut disk, op, &intent.path)?;
                (ino, CreateAction::Created)
            }
        };
        let created = Created {
            action,
            metadata: disk.metadata(ino).ok_or(NtStatus::INTERNAL_ERROR)?,
            handle: disk.handle(ino),
            path: intent.path.clone(),
            made_file: false,
        };
        let path = intent.path.clone();
        let stopped = Times::default();
        self.opens
            .insert(op.open, Descriptor { ino, path, stopped });
        Ok(Outcome::Created(created))
    }

    pub(super) fn prepare_rename(
        &self,
        open: OpenId,
        from: Option<&str>,
        to: &str,
        replace: bool,
    ) -> Result<Intent, NtStatus> {
        let disk = self.disk.borrow();
        let descriptor = self.opens.get(&open).ok_or(NtStatus::FILE_CLOSED)?;
        let source = disk.key(descriptor.ino);
        let is_dir = disk
            .inode(descriptor.ino)
            .is_some_and(|inode| inode.is_dir());
        let (is_link, from) = (from.is_none(), from.unwrap_or(&descriptor.path));
        if disk.find(from).map(|(ino, _)| ino) != Some(descriptor.ino) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        disk.parent(to).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        let intent = |to: &str, replaced| Intent::Rename {
            source,
            is_dir,
            from: from.to_owned(),
            to: to.to_owned(),
            replaced,
        };
        let Some((there, path)) = disk.find(to) else {
            return Ok(intent(to, None));
        };
        if there == descriptor.ino {
            // The new name is the own name in another case, or a hard link to the same file.
            return match is_link && !replace {
                true => Err(NtStatus::OBJECT_NAME_COLLISION),
                false => Ok(intent(to, None)),
            };
        }
        if !replace {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        if self.is_in_use(there) || disk.inode(there).is_some_and(|inode| inode.is_dir()) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(intent(&path, Some(disk.key(there))))
    }

    pub(super) fn rename(&mut self, intent: &Intent) -> Result<Outcome, NtStatus> {
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
        {
            let mut disk = self.disk.borrow_mut();
            let at = |disk: &Disk, path: &str| disk.find(path).map(|(ino, _)| disk.key(ino));
            let there = at(&disk, to);
            let is_there = at(&disk, from) == Some(*source);
            if self.mutation == Some(Mutation::RenameRedoFails) && !is_there {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            if there != Some(*source) {
                if !is_there {
                    return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
                }
                if there.is_some() && there != *replaced {
                    return Err(NtStatus::OBJECT_NAME_COLLISION);
                }
                move_name(&mut disk, from, to)?;
            } else if is_there && from != to {
                // The names differ in case only, or the new one is a link to the file, so that the old one is removed.
                // Otherwise this open did it before a crash.
                move_name(&mut disk, from, to)?;
            }
        }
        self.moved(from, to);
        let disk = self.disk.borrow();
        let (directory, _) = disk.parent(to).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        Ok(Outcome::Renamed {
            path: to.clone(),
            directory: disk.key(directory),
        })
    }

    pub(super) fn link(&mut self, open: OpenId, intent: &Intent) -> Result<Outcome, NtStatus> {
        let Intent::Rename {
            source,
            to,
            replaced,
            ..
        } = intent
        else {
            return Err(NtStatus::INTERNAL_ERROR);
        };
        let mut disk = self.disk.borrow_mut();
        let there = disk.find(to).map(|(ino, _)| disk.key(ino));
        if there == Some(*source) {
            return Ok(Outcome::Unit);
        }
        if self.lacks.links {
            return Err(NtStatus::ACCESS_DENIED);
        }
        let (dir, name) = disk.parent(to).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        if there.is_none() {
            disk.link(dir, name, source.ino)?;
            return Ok(Outcome::Unit);
        }
        if there != *replaced {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        // The link gets a private name, then replaces the other file. An earlier attempt before a crash may have left
        // the private name.
        let private = private(open);
        if disk.entry(dir, &private).is_none() {
            disk.link(dir, &private, source.ino)?;
        }
        disk.rename((dir, &private), (dir, name))?;
        Ok(Outcome::Unit)
    }
}

fn overwrites(disposition: Disposition) -> bool {
    matches!(
        disposition,
        Disposition::Supersede | Disposition::Overwrite | Disposition::OverwriteIf
    )
}

/// Empties the file if the disposition requires it.
fn overwrite(disk: &mut Disk, ino: Ino, op: &CreateOp) -> Result<CreateAction, NtStatus> {
    let action = match op.disposition {
        Disposition::Supersede => CreateAction::Superseded,
        Disposition::Overwrite | Disposition::OverwriteIf => CreateAction::Overwritten,
        Disposition::Open | Disposition::OpenIf | Disposition::Create => {
            return Ok(CreateAction::Opened);
        }
    };
    disk.set_length(ino, 0)?;
    disk.set_basic(ino, Some(op.attributes | ARCHIVE), [None; 3])?;
    Ok(action)
}

fn move_name(disk: &mut Disk, from: &str, to: &str) -> Result<(), NtStatus> {
    let from = disk.parent(from).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let to = disk.parent(to).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
    disk.rename(from, to)
}
