//! Operations on opens of named streams, and on the streams of a file.

use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use outlast_fsa::fileop::{
    CreateAction, CreateIntent, CreateOp, Disposition, FileOp, Intent, OpenId, Outcome, WriteAt,
};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream::{self as path};
use rustix::fs::Access;

use super::{Stream, changes_content, digest, lengthen, metadata, note_written, part, sync, write};
use crate::fs::errno::status;
use crate::fs::opens::OpenFile;
use crate::fs::path::{Root, may_access};
use crate::fs::{Fs, attributes, ea, find_root};

impl Fs {
    /// The intent of an operation on a stream; `None`: it is none, or has the intent of one on a file.
    pub(in crate::fs) fn look_at_stream(&self, op: &FileOp) -> Result<Option<Intent>, NtStatus> {
        let Some((open, stream)) = self.stream_of(op)? else {
            return Ok(None);
        };
        match op {
            FileOp::Write { at, .. } => {
                // A stream that a local process has removed is not created again by a new request.
                let end = stream.length()?;
                let offset = match at {
                    WriteAt::Offset(offset) => *offset,
                    WriteAt::End => end,
                };
                Ok(Some(Intent::Write { offset }))
            }
            FileOp::Close {
                delete: Some(target),
                ..
            } if path::split(&target.path).1.is_some() => {
                let content = stream.find()?;
                Ok(Some(Intent::Close {
                    metadata: metadata(
                        open.file_metadata()?,
                        content.as_ref().map_or(0, Vec::len) as u64,
                    ),
                    digest: content.as_deref().map(digest),
                }))
            }
            // The file of the stream is deleted, which a local process may have removed.
            FileOp::Close {
                delete: Some(_), ..
            } => Ok(Some(Intent::Close {
                metadata: open.last_metadata()?,
                digest: None,
            })),
            FileOp::Rename { to, replace, .. } => self.look_at_rename(open, to, *replace).map(Some),
            _ => Ok(None),
        }
    }

    /// The stream whose open an operation acts on, if it is one.
    fn stream_of(&self, op: &FileOp) -> Result<Option<(&OpenFile, Stream<'_>)>, NtStatus> {
        if matches!(op, FileOp::Create(_)) || !self.opens.is_of_stream(op.open()) {
            return Ok(None);
        }
        let open = self.open_file(op.open())?;
        Ok(open.as_stream().map(|stream| (open, stream)))
    }

    fn look_at_rename(&self, open: &OpenFile, to: &str, replace: bool) -> Result<Intent, NtStatus> {
        let (from, (file, Some(name))) = (open.as_stream(), path::split(to)) else {
            return Err(NtStatus::INVALID_PARAMETER);
        };
        let from = from.ok_or(NtStatus::INTERNAL_ERROR)?;
        if find_root(&self.roots, open.share())?.read_only {
            return Err(NtStatus::ACCESS_DENIED);
        }
        let data = from.read()?;
        if !super::has_room_for(name) {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        let found = super::find(open.fd.as_fd(), name)?;
        let to = match found {
            // Another case of its own name.
            Some(found) if found == from.name => name.to_owned(),
            Some(_) if !replace => return Err(NtStatus::OBJECT_NAME_COLLISION),
            Some(found) => found,
            None => name.to_owned(),
        };
        Ok(Intent::RenameStream {
            to: path::join(file, &to),
            data,
        })
    }

    /// Performs an operation on a stream, or on the streams of a file. `None`: it is none.
    pub(in crate::fs) fn perform_on_stream(
        &mut self,
        op: &FileOp,
        intent: &Intent,
    ) -> Option<Result<Outcome, NtStatus>> {
        match op {
            FileOp::QueryStreams { open } => Some(self.list_streams(*open)),
            FileOp::Strip { open } => Some(self.strip(*open)),
            FileOp::Close {
                delete: Some(target),
                open,
            } => {
                let (_, name) = path::split(&target.path);
                name.map(|name| self.delete_stream(*open, name, intent))
            }
            FileOp::Rename { to, .. } if path::split(to).1.is_some() => {
                Some(self.rename_stream(op.open(), intent))
            }
            op => match self.stream_of(op) {
                Ok(None) => None,
                Ok(Some((open, stream))) => self.perform_on(open, &stream, op, intent),
                Err(status) => Some(Err(status)),
            },
        }
    }

    fn perform_on(
        &self,
        open: &OpenFile,
        stream: &Stream<'_>,
        op: &FileOp,
        intent: &Intent,
    ) -> Option<Result<Outcome, NtStatus>> {
        let may_write = match changes_content(op) {
            true => self.written(op.open()).map(|_| ()),
            false => Ok(()),
        };
        let outcome = may_write.and_then(|()| match op {
            FileOp::Read { offset, length, .. } => {
                let content = stream.read()?;
                let data = part(&content, *offset, *length);
                Ok(Some(Outcome::Data(Bytes::copy_from_slice(data))))
            }
            FileOp::Write {
                at,
                data,
                write_through,
                ..
            } => {
                let offset = match (intent, at) {
                    (Intent::Write { offset }, _) | (_, WriteAt::Offset(offset)) => *offset,
                    (_, WriteAt::End) => return Err(NtStatus::INTERNAL_ERROR),
                };
                let count = write(stream, offset, data)?;
                if *write_through {
                    sync(stream.file)?;
                }
                Ok(Some(Outcome::Written { count, offset }))
            }
            FileOp::SetEndOfFile { end_of_file, .. } => resize(stream, *end_of_file),
            // Nothing is reserved for a stream (MS-FSA 2.1.5.15.1).
            FileOp::SetAllocation {
                allocation_size, ..
            } => match stream.length()? {
                length if length > *allocation_size => resize(stream, *allocation_size),
                _ => Ok(Some(Outcome::Unit)),
            },
            FileOp::ZeroData { from, beyond, .. } => zero(stream, *from, *beyond),
            // A stream has no holes (MS-FSA 2.1.5.10.22, 2.1.5.10.35).
            FileOp::QueryAllocatedRanges { offset, length, .. } => {
                let end = offset.checked_add(*length);
                let end = end
                    .ok_or(NtStatus::INVALID_PARAMETER)?
                    .min(stream.length()?);
                let range = (*offset < end).then(|| (*offset, end - *offset));
                Ok(Some(Outcome::Ranges(range.into_iter().collect())))
            }
            FileOp::SetSparse { .. } => Ok(Some(Outcome::Unit)),
            FileOp::Flush { .. } => sync(stream.file).map(|()| Some(Outcome::Unit)),
            FileOp::CheckDelete { .. } => may_remove(self, open).map(|()| Some(Outcome::Unit)),
            FileOp::Link { .. } => Err(NtStatus::INVALID_PARAMETER),
            _ => Ok(None),
        });
        if changes_content(op)
            && let Ok(Some(_)) = &outcome
            && let Err(status) = after(&*open.fd)
        {
            return Some(Err(status));
        }
        outcome.transpose()
    }

    fn list_streams(&self, open: OpenId) -> Result<Outcome, NtStatus> {
        let open = self.open_file(open)?;
        let entries = super::list(open.fd.as_fd(), &open.file_metadata()?)?;
        Ok(Outcome::Streams(entries))
    }

    fn strip(&self, open: OpenId) -> Result<Outcome, NtStatus> {
        let open = self.changed(open)?;
        super::remove_all(open.fd.as_fd())?;
        ea::remove_all(open.fd.as_fd())?;
        Ok(Outcome::Unit)
    }

    /// Removes a stream at its last close. A later stream of the same name is not removed: its content is another.
    fn delete_stream(
        &self,
        open: OpenId,
        name: &str,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        let (known, metadata) = match intent {
            Intent::Close { metadata, digest } => (*digest, Some(metadata.clone())),
            _ => (None, None),
        };
        let open = match (self.changed(open), metadata.clone()) {
            // Without its file it is gone.
            (Err(NtStatus::FILE_CLOSED), Some(metadata)) => return Ok(Outcome::Closed(metadata)),
            (open, _) => open?,
        };
        let stream = Stream::new(open.fd.as_fd(), name);
        let is_meant = match known {
            None => true,
            Some(known) => stream
                .find()?
                .is_none_or(|content| digest(&content) == known),
        };
        if is_meant {
            stream.remove()?;
        }
        match metadata {
            Some(metadata) => Ok(Outcome::Closed(metadata)),
            None => open.file_metadata().map(Outcome::Closed),
        }
    }

    fn rename_stream(&mut self, id: OpenId, intent: &Intent) -> Result<Outcome, NtStatus> {
        let Intent::RenameStream { to, data } = intent else {
            return Err(NtStatus::INTERNAL_ERROR);
        };
        let open = self.changed(id)?;
        let (Some(from), (file, Some(name))) = (open.as_stream(), path::split(to)) else {
            return Err(NtStatus::INVALID_PARAMETER);
        };
        from.rename(&Stream::new(open.fd.as_fd(), name), data)?;
        let directory = find_root(&self.roots, open.share())?.directory_of(file)?;
        let (key, from) = (open.key, from.name.to_owned());
        self.opens.stream_moved(key, &from, name);
        Ok(Outcome::Renamed {
            path: to.clone(),
            directory,
        })
    }
}

/// Completes a change of a stream: its file has changed (MS-FSA 2.1.4.17).
pub(in crate::fs) fn after(file: impl AsFd) -> Result<(), NtStatus> {
    note_written(file.as_fd())?;
    attributes::note_modified(file.as_fd()).map_err(status)
}

fn resize(stream: &Stream<'_>, length: u64) -> Result<Option<Outcome>, NtStatus> {
    stream.change(|content| {
        lengthen(content, length, 0)?;
        content.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    })?;
    Ok(Some(Outcome::Unit))
}

fn zero(stream: &Stream<'_>, from: u64, beyond: u64) -> Result<Option<Outcome>, NtStatus> {
    if from > beyond {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    stream.change(|content| {
        let end = usize::try_from(beyond)
            .unwrap_or(usize::MAX)
            .min(content.len());
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        if let Some(range) = content.get_mut(from..end) {
            range.fill(0);
        }
        Ok(())
    })?;
    Ok(Some(Outcome::Unit))
}

/// MS-FSA 2.1.5.15.3: a stream of a read-only file is not deleted.
fn may_remove(fs: &Fs, open: &OpenFile) -> Result<(), NtStatus> {
    use outlast_fsa::attributes::READONLY;
    if find_root(&fs.roots, open.share())?.read_only {
        return Err(NtStatus::ACCESS_DENIED);
    }
    match open.metadata()?.attributes & READONLY {
        0 => Ok(()),
        _ => Err(NtStatus::CANNOT_DELETE),
    }
}

/// Finds the named stream that a create will meet, in an existing file. Runs with the account's rights.
///
/// # Errors
/// As MS-FSA 2.1.5.1.
pub(in crate::fs) fn prepare(
    root: &Root,
    file: &OwnedFd,
    op: &CreateOp,
    name: &str,
    found: CreateIntent,
) -> Result<CreateIntent, NtStatus> {
    let base = found.existing.ok_or(NtStatus::INTERNAL_ERROR)?;
    let stream = super::find(file.as_fd(), name)?;
    let exists = stream.is_some();
    match (exists, op.disposition) {
        (true, Disposition::Create) => return Err(NtStatus::OBJECT_NAME_COLLISION),
        (false, Disposition::Open | Disposition::Overwrite) => {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        (false, _) if root.read_only => return Err(NtStatus::ACCESS_DENIED),
        // A READONLY file gets no new stream, and the account must be permitted to write to it.
        (false, _) => {
            let right = outlast_fsa::access::WRITE_DATA;
            if found.maximal_access & right == 0 {
                return Err(NtStatus::ACCESS_DENIED);
            }
        }
        (true, _) => {}
    }
    let name = stream.unwrap_or_else(|| name.to_owned());
    let existing = match exists {
        true => Some(metadata(
            base.clone(),
            Stream::new(file.as_fd(), &name).length()?,
        )),
        false => None,
    };
    Ok(CreateIntent {
        path: path::join(&found.path, &name),
        existing,
        base: Some(base),
        ..found
    })
}

/// Opens or creates the named stream of an existing file. Runs with the account's rights.
///
/// An empty stream that a redo finds is taken for its own: another process' empty stream is no different.
///
/// # Errors
/// As MS-FSA 2.1.5.1.
pub(in crate::fs) fn perform(
    file: &OwnedFd,
    op: &CreateOp,
    intent: &CreateIntent,
    name: &str,
) -> Result<CreateAction, NtStatus> {
    let stream = Stream::new(file.as_fd(), name);
    if intent.existing.is_none() {
        match stream.create() {
            Ok(()) => return Ok(CreateAction::Created),
            Err(NtStatus::OBJECT_NAME_COLLISION) => {}
            Err(status) => return Err(status),
        }
        if stream.length()? == 0 {
            return Ok(CreateAction::Created);
        }
        if op.disposition == Disposition::Create {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
    }
    let action = match op.disposition {
        Disposition::Supersede => CreateAction::Superseded,
        Disposition::Overwrite | Disposition::OverwriteIf => CreateAction::Overwritten,
        Disposition::Open | Disposition::OpenIf | Disposition::Create => {
            return Ok(CreateAction::Opened);
        }
    };
    stream.empty().map_err(status)?;
    after(file)?;
    Ok(action)
}

/// What an open of a stream may do: read and write it.
pub(in crate::fs) fn rights(root: &Root, file: &OwnedFd) -> (bool, bool) {
    let may = |access| may_access(file.as_fd(), access).is_ok();
    (
        may(Access::READ_OK),
        !root.read_only && may(Access::WRITE_OK),
    )
}
