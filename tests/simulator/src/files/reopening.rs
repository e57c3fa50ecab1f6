//! Opens files again that were open before a crash, when they are used.

use outlast_fsa::fileop::{FileOp, OpenId};
use outlast_fsa::status::NtStatus;
use outlast_smb::OpenInfo;

use super::{Descriptor, Files};
use crate::failing::What;
use crate::image::Ino;
use crate::mutation::Mutation;

impl Files {
    /// Returns the path of an open's file, according to the server's own renames.
    pub(super) fn path_of(&self, open: OpenId) -> Option<&str> {
        let path = self.opens.get(&open).map(|open| open.path.as_str());
        path.or_else(|| self.closed.get(&open).map(|open| open.path.as_str()))
    }

    /// Returns whether a file is open, including opens from before a crash.
    pub(super) fn is_in_use(&self, ino: Ino) -> bool {
        let key = self.disk.borrow().key(ino);
        self.opens.values().any(|open| open.ino == ino)
            || self.closed.values().any(|open| open.key == key)
    }

    /// Updates the paths of the opens of a renamed file.
    pub(super) fn moved(&mut self, from: &str, to: &str) {
        let open = self.opens.values_mut().map(|open| &mut open.path);
        let closed = self.closed.values_mut().map(|open| &mut open.path);
        for path in open.chain(closed).filter(|path| *path == from) {
            to.clone_into(path);
        }
    }

    /// Opens the files of an operation that have not been opened again yet.
    ///
    /// # Errors
    /// FILE_CLOSED if the file is deleted; any other error is that of this attempt, and the open stays.
    pub(super) fn reopen_files(&mut self, op: &FileOp) -> Result<(), NtStatus> {
        let source = match op {
            FileOp::Create(_) => return Ok(()),
            FileOp::CopyChunks { source, .. } => Some(*source),
            _ => None,
        };
        for open in source.into_iter().chain([op.open()]) {
            let Some(info) = self.closed.get(&open).cloned() else {
                continue;
            };
            if let Err(status) = self.meet(What::Reopen, op) {
                if self.mutation == Some(Mutation::HandleClosedAtFirstFailure) {
                    self.closed.remove(&open);
                }
                return Err(status);
            }
            let opened = self.open_again(&info);
            self.closed.remove(&open);
            opened.map_err(|_| NtStatus::FILE_CLOSED)?;
        }
        Ok(())
    }

    /// Opens a file by its handle, otherwise by its path, and checks its identity.
    pub(super) fn open_again(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        let disk = self.disk.borrow();
        let by_handle = || disk.by_handle(&open.handle).filter(|_| self.handles);
        let by_path = |path: &str| disk.find(path).map(|(ino, _)| ino);
        let moved = || open.moved_to.as_deref().and_then(by_path);
        let is_it = |ino: &Ino| disk.key(*ino) == open.key;
        let found = by_handle()
            .filter(is_it)
            .or_else(|| by_path(&open.path).filter(is_it))
            .or_else(|| moved().filter(is_it));
        let ino = found.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        drop(disk);
        let (path, stopped) = (open.path.clone(), open.stopped);
        self.opens
            .insert(open.open, Descriptor { ino, path, stopped });
        Ok(())
    }
}
