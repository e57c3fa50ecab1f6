//! Creates files, as `src/fs/create.rs` does: a complete file gets its name by a call that does not replace, and a redo
//! that finds the name in use reads the stamp. If the file system lacks what that takes, a file is created under a
//! private name and linked, or under its own name at once.

use outlast_fsa::attributes::ARCHIVE;
use outlast_fsa::fileop::{CreateOp, OpenId};
use outlast_fsa::status::NtStatus;

use crate::disk::Disk;
use crate::image::Ino;
use crate::mutation::Mutation;
use crate::rules::Lacks;

/// Returns a name that only this open uses.
pub(super) fn private(open: OpenId) -> String {
    format!(".outlast-{open}")
}

/// Creates files.
pub(super) struct Maker {
    pub(super) lacks: Lacks,
    pub(super) mutation: Option<Mutation>,
}

impl Maker {
    /// Creates a file or a directory, unless the same open has created it before a crash.
    pub(super) fn make(&self, disk: &mut Disk, op: &CreateOp, path: &str) -> Result<Ino, NtStatus> {
        let (dir, name) = disk.parent(path).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
        // The private name may be left by an attempt before a crash, even if the file has its own name by now.
        let private = private(op.open);
        if disk.entry(dir, &private).is_some() {
            disk.unlink(dir, &private)?;
        }
        if let Some((ino, _)) = disk.find(path) {
            return self.finish(disk, op, ino);
        }
        if op.must_be_dir {
            let ino = disk.make(true, Some(op.open), op.attributes & !ARCHIVE)?;
            disk.link(dir, &private, ino)?;
            disk.rename((dir, &private), (dir, name))?;
            return Ok(ino);
        }
        if self.lacks.noreplace && self.lacks.links {
            let ino = disk.make(false, None, 0)?;
            disk.link(dir, name, ino)?;
            complete(disk, op, ino)?;
            return Ok(ino);
        }
        let ino = disk.make(false, Some(op.open), op.attributes | ARCHIVE)?;
        if self.lacks.noreplace {
            disk.link(dir, &private, ino)?;
        }
        disk.link(dir, name, ino)?;
        if self.lacks.noreplace {
            disk.unlink(dir, &private)?;
        }
        Ok(ino)
    }

    /// Handles a name that is in use: by this open, before a crash, or by another one.
    fn finish(&self, disk: &mut Disk, op: &CreateOp, ino: Ino) -> Result<Ino, NtStatus> {
        let inode = disk.inode(ino).ok_or(NtStatus::INTERNAL_ERROR)?;
        let gets_its_name_first = self.lacks.noreplace && self.lacks.links && !inode.is_dir();
        let is_ours = match inode.stamp {
            Some(stamp) => stamp == op.open && self.mutation != Some(Mutation::StampIgnored),
            None => {
                gets_its_name_first
                    && inode.data.is_empty()
                    && self.mutation != Some(Mutation::UnstampedTreatedAsAnotherOpens)
            }
        };
        if !is_ours {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        if gets_its_name_first {
            complete(disk, op, ino)?;
        }
        Ok(ino)
    }
}

/// Sets the stamp and the attributes of a new file.
fn complete(disk: &mut Disk, op: &CreateOp, ino: Ino) -> Result<(), NtStatus> {
    disk.stamp(ino, op.open)?;
    disk.set_basic(ino, Some(op.attributes | ARCHIVE), [None; 3])
}
