//! Implements the file system of a share over the [`Disk`]: `prepare` makes an intent, and `perform` can be repeated
//! with it, as in `src/fs`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use outlast_fsa::fileop::{
    Actor, Chunk, DirEntry, FileKey, FileOp, FileTime, Intent, KeptTimes, OpenId, Outcome, ShareId,
    Times, Volume, WriteAt,
};
use outlast_fsa::pattern::Pattern;
use outlast_fsa::status::NtStatus;
use outlast_smb::OpenInfo;

use crate::away::Away;
use crate::disk::Disk;
use crate::failing::{FailingRequests, What};
use crate::faults::{self, Call};
use crate::image::Ino;
use crate::mutation::Mutation;
use crate::rules::Lacks;
use crate::scenario::Scenario;
use crate::server::since_start;

mod accounts;
mod making;
mod names;
mod outages;
mod reopening;

use accounts::Accounts;
use outages::Place;

/// The id of the opens by which a redo opens files.
const AGAIN: OpenId = 0;

/// The server's open files, whose descriptors do not outlive it, over a disk that does.
pub struct Files {
    disk: Rc<RefCell<Disk>>,
    /// The share on the disk, by its number in the present configuration.
    share: ShareId,
    opens: BTreeMap<OpenId, Descriptor>,
    /// Opens from before a crash whose files have not been opened again yet.
    closed: BTreeMap<OpenId, OpenInfo>,
    accounts: Accounts,
    failing: FailingRequests,
    /// An operation is repeated after a power cut.
    repeats: bool,
    /// The last operation was repeated.
    has_repeated: bool,
    /// An operation is performed, not prepared.
    performs: bool,
    /// Files can be opened by handle; if not, only by path.
    handles: bool,
    lacks: Lacks,
    /// The state of the share's directory, in scenarios in which it may be missing.
    place: Option<Place>,
    mutation: Option<Mutation>,
}

#[derive(Clone, Debug)]
struct Descriptor {
    ino: Ino,
    path: String,
    /// The times that operations by this open do not change.
    stopped: Times,
}

/// The number of the share directory on its disk.
const DIRECTORY: ShareId = 0;

impl Files {
    /// Makes the file system of a life, without open files.
    #[must_use]
    pub fn new(
        disk: Rc<RefCell<Disk>>,
        failing: FailingRequests,
        share: ShareId,
        scenario: &Scenario,
        life: u32,
    ) -> Files {
        let away = Away::of(scenario, life);
        let (now, is_on_record) = (disk.borrow().time(), disk.borrow().has_served());
        if away.is_some() {
            disk.borrow_mut().share_is_away();
        }
        let mutation = scenario.mutation;
        let absent = scenario.rules.without_account;
        let absent = absent.and_then(|client| scenario.users().into_iter().nth(client));
        Files {
            disk,
            share,
            opens: BTreeMap::new(),
            closed: BTreeMap::new(),
            accounts: Accounts::new(absent, mutation),
            failing,
            repeats: false,
            has_repeated: false,
            performs: false,
            handles: scenario.handles,
            lacks: scenario.lacks,
            place: scenario
                .has_outages_of_share
                .then(|| Place::new(away, now, is_on_record)),
            mutation,
        }
    }

    /// Begins a call of a redo, at which the disk may fail.
    fn begin_redo(&self, call: Call) -> Result<(), NtStatus> {
        let begun = self.disk.borrow_mut().begin_redo(call);
        match self.mutation {
            Some(Mutation::DiskErrorTreatedAsDeleted) => begun.map_err(|_| NtStatus::FILE_CLOSED),
            _ => begun,
        }
    }

    /// Returns the error that the seed defines for this part of an operation.
    fn meet(&self, what: What, op: &FileOp) -> Result<(), NtStatus> {
        let path = match op {
            FileOp::Create(create) => Some(create.path.as_str()),
            op => self.path_of(op.open()),
        };
        let path = path.filter(|_| !self.repeats);
        // A performed operation has its file open and its account looked up, unless it was prepared in an earlier life.
        let is_redo = self.performs && matches!(what, What::Reopen | What::NameService);
        match path.and_then(|path| self.failing.meet(what, op, path, is_redo)) {
            Some(status) => Err(NtStatus(status)),
            None => Ok(()),
        }
    }

    /// Returns the outcome of an operation that has failed; some mutations make it a success.
    fn report_failure(&self, op: &FileOp, status: NtStatus) -> Result<Outcome, NtStatus> {
        match op {
            FileOp::Write { data, .. }
                if self.mutation == Some(Mutation::DiskErrorAnsweredSuccess) =>
            {
                Ok(Outcome::Written {
                    count: data.len() as u32,
                    offset: 0,
                })
            }
            FileOp::CopyChunks { chunks, .. }
                if self.mutation == Some(Mutation::PartialCopyAnsweredSuccess) =>
            {
                let written = chunks.iter().map(|chunk| chunk.length).collect();
                Ok(Outcome::Copied { written })
            }
            _ => Err(status),
        }
    }

    fn ino(&self, open: OpenId) -> Result<Ino, NtStatus> {
        let descriptor = self.opens.get(&open).ok_or(NtStatus::FILE_CLOSED)?;
        Ok(descriptor.ino)
    }

    fn length(&self, open: OpenId) -> Result<u64, NtStatus> {
        let disk = self.disk.borrow();
        let inode = disk.inode(self.ino(open)?).ok_or(NtStatus::FILE_CLOSED)?;
        Ok(inode.data.len() as u64)
    }

    /// Reads up to `length` bytes at `offset`.
    fn read(&self, open: OpenId, offset: u64, length: u32) -> Result<Vec<u8>, NtStatus> {
        let disk = self.disk.borrow();
        let inode = disk.inode(self.ino(open)?).ok_or(NtStatus::FILE_CLOSED)?;
        if inode.is_dir() {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        let data = &inode.data;
        let from = (offset as usize).min(data.len());
        let to = from.saturating_add(length as usize).min(data.len());
        Ok(data[from..to].to_vec())
    }

    fn look(&self, op: &FileOp) -> Result<Intent, NtStatus> {
        match op {
            FileOp::Create(op) => self.prepare_create(op).map(Intent::Create),
            FileOp::Close {
                open,
                delete: Some(_),
            } => {
                let metadata = self.disk.borrow().metadata(self.ino(*open)?);
                let metadata = metadata.ok_or(NtStatus::FILE_CLOSED)?;
                Ok(Intent::Close {
                    metadata,
                    digest: None,
                })
            }
            FileOp::Write { open, at, .. } => Ok(Intent::Write {
                offset: match at {
                    WriteAt::Offset(offset) => *offset,
                    WriteAt::End => self.length(*open)?,
                },
            }),
            FileOp::Rename {
                open,
                from,
                to,
                replace,
            } => self.prepare_rename(*open, Some(from), to, *replace),
            FileOp::Link { open, to, replace } => self.prepare_rename(*open, None, to, *replace),
            FileOp::CopyChunks {
                source,
                target,
                chunks,
            } if self.ino(*source)? == self.ino(*target)? => self.overlapping(*source, chunks),
            _ => Ok(Intent::None),
        }
    }

    /// Returns the intent, together with the times that the operation must not change.
    fn keeping(&self, op: &FileOp, intent: Intent) -> Result<Intent, NtStatus> {
        if !op.moves_times() || matches!(op, FileOp::SetBasic { .. }) {
            return Ok(intent);
        }
        let open = self.opens.get(&op.open()).ok_or(NtStatus::FILE_CLOSED)?;
        if !open.stopped.write {
            return Ok(intent);
        }
        let now = self.disk.borrow().metadata(open.ino);
        let now = now.ok_or(NtStatus::FILE_CLOSED)?;
        Ok(Intent::Keeping {
            times: KeptTimes {
                write: Some(now.last_write_time),
                change: None,
            },
            intent: Box::new(intent),
        })
    }

    fn close(
        &mut self,
        open: OpenId,
        delete: Option<(&str, FileKey)>,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        if let Some((path, key)) = delete {
            let mut disk = self.disk.borrow_mut();
            if let Some((ino, _)) = disk.find(path).filter(|(ino, _)| disk.key(*ino) == key) {
                let inode = disk.inode(ino);
                if inode
                    .and_then(|inode| inode.entries.as_ref())
                    .is_some_and(|e| !e.is_empty())
                {
                    return Err(NtStatus::DIRECTORY_NOT_EMPTY);
                }
                let (dir, name) = disk.parent(path).ok_or(NtStatus::INTERNAL_ERROR)?;
                disk.unlink(dir, name)?;
            }
        }
        if let Intent::Close { metadata, .. } = intent {
            return Ok(Outcome::Closed(metadata.clone()));
        }
        let metadata = self.disk.borrow().metadata(self.ino(open)?);
        metadata.map(Outcome::Closed).ok_or(NtStatus::FILE_CLOSED)
    }

    fn list(
        &self,
        open: OpenId,
        wanted: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Outcome, NtStatus> {
        let disk = self.disk.borrow();
        let ino = self.ino(open)?;
        let entries = disk.inode(ino).and_then(|inode| inode.entries.as_ref());
        let entries = entries.ok_or(NtStatus::INVALID_PARAMETER)?;
        let mut all: Vec<(String, Ino)> = vec![(".".into(), ino), ("..".into(), ino)];
        all.extend(entries.iter().map(|(name, ino)| (name.clone(), *ino)));
        all.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        let (after, wanted) = (after.map(str::to_ascii_lowercase), Pattern::new(wanted));
        let mut found = all.into_iter().filter(|(name, _)| {
            let folded = name.to_ascii_lowercase();
            after.as_ref().is_none_or(|after| folded > *after) && wanted.matches(name)
        });
        let mut entries = Vec::new();
        for (name, ino) in found.by_ref().take(limit as usize) {
            let metadata = disk.metadata(ino).ok_or(NtStatus::INTERNAL_ERROR)?;
            let file_id = ino;
            entries.push(DirEntry {
                name,
                metadata,
                file_id,
            });
        }
        let more = found.next().is_some();
        Ok(Outcome::Entries { entries, more })
    }

    /// Returns the bytes of each chunk, as if copied one after the other, for a copy whose source and target are one
    /// file.
    fn overlapping(&self, source: OpenId, chunks: &[Chunk]) -> Result<Intent, NtStatus> {
        let mut image = self.read(source, 0, u32::MAX)?;
        let mut logged = Vec::new();
        for chunk in chunks {
            let from = chunk.source_offset as usize;
            let Some(bytes) = image.get(from..from + chunk.length as usize) else {
                if logged.is_empty() {
                    return Err(NtStatus::INVALID_VIEW_SIZE);
                }
                break;
            };
            let bytes = bytes.to_vec();
            let to = chunk.target_offset as usize;
            if image.len() < to + bytes.len() {
                image.resize(to + bytes.len(), 0);
            }
            image[to..to + bytes.len()].copy_from_slice(&bytes);
            logged.push(bytes);
        }
        Ok(Intent::CopyChunks { source: logged })
    }

    fn copy(
        &self,
        source: OpenId,
        target: OpenId,
        chunks: &[Chunk],
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        let mut written = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let bytes = match intent {
                Intent::CopyChunks { source }
                    if self.mutation != Some(Mutation::CopyRereadsSource) =>
                {
                    source.get(index).cloned().unwrap_or_default()
                }
                _ => self.read(source, chunk.source_offset, chunk.length)?,
            };
            if bytes.len() < chunk.length as usize {
                if index == 0 {
                    return Err(NtStatus::INVALID_VIEW_SIZE);
                }
                break;
            }
            let ino = self.ino(target)?;
            self.disk
                .borrow_mut()
                .write(ino, chunk.target_offset, &bytes)?;
            written.push(chunk.length);
            if index + 1 < chunks.len() && self.failing.stops_after_a_chunk(self.path_of(target)) {
                break;
            }
        }
        Ok(Outcome::Copied { written })
    }

    fn execute(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        if let Intent::Keeping { times, intent } = intent {
            let outcome = self.execute(actor, op, intent)?;
            let ino = self.ino(op.open())?;
            let times = [None, None, times.write];
            self.disk.borrow_mut().set_basic(ino, None, times)?;
            return Ok(outcome);
        }
        log::debug!("perform {op:?}");
        faults::meet(op, false)?;
        for what in [What::Perform, What::Rest] {
            if let Err(status) = self.meet(what, op) {
                return self.report_failure(op, status);
            }
        }
        match self.reopen_files(op) {
            // The file was deleted before a crash: CLOSE needs only its name.
            Err(NtStatus::FILE_CLOSED) if matches!(op, FileOp::Close { .. }) => {}
            ready => ready?,
        }
        self.look_up_account(actor, op)?;
        if op.has_effect() {
            self.disk.borrow_mut().begin_operation();
        }
        match (op, intent) {
            (FileOp::Create(op), Intent::Create(intent)) => self.create(op, intent),
            (FileOp::Close { open, delete }, intent) => {
                let delete = delete.as_ref().map(|it| (it.path.as_str(), it.key));
                let outcome = self.close(*open, delete, intent);
                self.forget(*open);
                outcome
            }
            (
                FileOp::Read {
                    open,
                    offset,
                    length,
                },
                _,
            ) => Ok(Outcome::Data(self.read(*open, *offset, *length)?.into())),
            (FileOp::Write { open, data, .. }, Intent::Write { offset }) => {
                let ino = self.ino(*open)?;
                let at = match op {
                    FileOp::Write {
                        at: WriteAt::End, ..
                    } if self.mutation == Some(Mutation::AppendAtPresentEnd) => {
                        self.length(*open)?
                    }
                    _ => *offset,
                };
                self.disk.borrow_mut().write(ino, at, &data.together())?;
                Ok(Outcome::Written {
                    count: data.len() as u32,
                    offset: *offset,
                })
            }
            (
                FileOp::QueryDirectory {
                    open,
                    pattern,
                    after,
                    limit,
                },
                _,
            ) => self.list(*open, pattern, after.as_deref(), *limit),
            (FileOp::Stat { open }, _) => {
                let metadata = self.disk.borrow().metadata(self.ino(*open)?);
                metadata.map(Outcome::Metadata).ok_or(NtStatus::FILE_CLOSED)
            }
            (FileOp::QueryEas { open }, _) => {
                let metadata = self.disk.borrow().metadata(self.ino(*open)?);
                let metadata = metadata.ok_or(NtStatus::FILE_CLOSED)?;
                let eas = Vec::new();
                Ok(Outcome::Eas { metadata, eas })
            }
            (FileOp::SetBasic { open, basic }, _) => {
                let times = [
                    basic.creation_time,
                    basic.last_access_time,
                    basic.last_write_time,
                ];
                let open = self.opens.get_mut(open).ok_or(NtStatus::FILE_CLOSED)?;
                open.stopped = basic.stopped(open.stopped);
                let ino = open.ino;
                self.disk
                    .borrow_mut()
                    .set_basic(ino, basic.attributes, times)?;
                Ok(Outcome::Unit)
            }
            (
                FileOp::SetEndOfFile {
                    open,
                    end_of_file: length,
                },
                _,
            ) => {
                let ino = self.ino(*open)?;
                self.disk.borrow_mut().set_length(ino, *length)?;
                Ok(Outcome::Unit)
            }
            (
                FileOp::SetAllocation {
                    open,
                    allocation_size,
                },
                _,
            ) => {
                if *allocation_size < self.length(*open)? {
                    let ino = self.ino(*open)?;
                    self.disk.borrow_mut().set_length(ino, *allocation_size)?;
                }
                Ok(Outcome::Unit)
            }
            (FileOp::ZeroData { open, from, beyond }, _) => {
                let beyond = (*beyond).min(self.length(*open)?);
                let ino = self.ino(*open)?;
                let zeros = vec![0; beyond.saturating_sub(*from) as usize];
                self.disk.borrow_mut().write(ino, *from, &zeros)?;
                Ok(Outcome::Unit)
            }
            (FileOp::Rename { .. }, intent) => self.rename(intent),
            (FileOp::Link { open, .. }, intent) => self.link(*open, intent),
            (
                FileOp::CopyChunks {
                    source,
                    target,
                    chunks,
                },
                intent,
            ) => self.copy(*source, *target, chunks, intent),
            (FileOp::CheckDelete { open, .. }, _) => {
                let disk = self.disk.borrow();
                let entries = disk
                    .inode(self.ino(*open)?)
                    .and_then(|it| it.entries.as_ref());
                match entries {
                    Some(entries) if !entries.is_empty() => Err(NtStatus::DIRECTORY_NOT_EMPTY),
                    _ => Ok(Outcome::Unit),
                }
            }
            (FileOp::QueryVolume { .. }, _) => Ok(Outcome::Volume(Volume {
                total_bytes: 1 << 40,
                available_bytes: 1 << 39,
                free_bytes: 1 << 39,
                unit_bytes: 4096,
                serial: 7,
                creation_time: 0,
                extended_attributes: false,
            })),
            // No file here has named streams.
            (FileOp::Flush { .. } | FileOp::Watch { .. } | FileOp::Strip { .. }, _) => {
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
                let end = self.length(*open)?.min(offset.saturating_add(*length));
                let ranges = (*offset < end).then(|| (*offset, end - offset));
                Ok(Outcome::Ranges(ranges.into_iter().collect()))
            }
            (FileOp::QuerySecurity { .. }, _) => Ok(Outcome::Data(Bytes::from_static(&[
                1, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ]))),
            _ => Err(NtStatus::NOT_SUPPORTED),
        }
    }
}

impl Files {
    /// As [`FileSystem::prepare`](outlast::server::files::FileSystem::prepare), like the following methods.
    ///
    /// # Errors
    /// The operation's answer.
    pub fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        assert_eq!(actor.share, self.share, "another share's files: {op:?}");
        self.is_there(op)?;
        faults::meet(op, true)?;
        self.meet(What::Prepare, op)?;
        if !matches!(op, FileOp::Close { delete: None, .. }) {
            self.disk.borrow().meet_sickness()?;
            self.reopen_files(op)?;
        }
        self.look_up_account(actor, op)?;
        let intent = self.look(op)?;
        self.keeping(op, intent)
    }

    /// Performs an operation.
    ///
    /// # Errors
    /// The operation's answer.
    pub fn perform(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        assert_eq!(actor.share, self.share, "another share's files: {op:?}");
        self.is_there(op)?;
        self.performs = true;
        self.has_repeated = self.repeats;
        let outcome = self.execute(actor, op, intent);
        self.performs = false;
        outcome
    }

    /// Opens a file again.
    ///
    /// # Errors
    /// It does not exist any more, or the disk fails.
    pub fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        if open.open == AGAIN {
            let begun = self.begin_redo(Call::Open);
            self.disk.borrow_mut().end_redo();
            begun?;
        }
        self.open_again(open)
    }

    /// Notes an open from before a recovery.
    pub fn remember(&mut self, open: OpenInfo) {
        self.opens.remove(&open.open);
        let watches = open.watch.is_some() && !self.is_offline();
        if watches && self.open_again(&open).is_ok() {
            return;
        }
        self.closed.insert(open.open, open);
    }

    /// Returns whether what an open watches may have changed after this wall time without the server noticing.
    pub fn may_have_changed(&mut self, open: OpenId, since: FileTime) -> bool {
        let ino = self.ino(open);
        ino.is_ok_and(|ino| self.disk.borrow_mut().has_changed(ino, since_start(since)))
    }

    /// Closes an open.
    pub fn forget(&mut self, open: OpenId) {
        self.opens.remove(&open);
        self.closed.remove(&open);
    }

    /// Lets time pass.
    pub fn pause(&mut self, time: Duration) {
        if self.place.is_some() {
            self.disk.borrow_mut().pause(time);
        }
    }

    /// Performs an operation once more, after a power cut or a failed sync. The disk may fail midway.
    ///
    /// # Errors
    /// The operation's answer.
    pub fn perform_again(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        if let Err(status) = self.begin_redo(Call::Perform) {
            self.disk.borrow_mut().end_redo();
            return Err(status);
        }
        if let Some(outcome) = left_out(op, self.mutation) {
            return Ok(outcome);
        }
        self.repeats = true;
        let outcome = self.perform(actor, op, intent);
        self.repeats = false;
        let has_failed = self.disk.borrow_mut().end_redo();
        match self.mutation {
            Some(Mutation::PartialFailureTreatedAsDone) if has_failed && outcome.is_err() => {
                Ok(Outcome::Unit)
            }
            Some(Mutation::PartialFailureTreatedAsDeleted) if has_failed => {
                outcome.map_err(|_| NtStatus::FILE_CLOSED)
            }
            _ => outcome,
        }
    }

    /// Sets the marker of the share. In a redo the disk may fail.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark(&mut self, number: u64) -> std::io::Result<()> {
        let mut disk = self.disk.borrow_mut();
        let begun = match self.has_repeated {
            true => disk.begin_redo(Call::Mark),
            false => Ok(()),
        };
        let marked = begun.and_then(|()| disk.mark(DIRECTORY, number));
        disk.end_redo();
        marked.map_err(std::io::Error::other)
    }

    /// Returns the marker of the share.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn marked(&mut self) -> std::io::Result<u64> {
        match self.mutation {
            Some(Mutation::MarkerIgnored) => Ok(0),
            _ => {
                let mut disk = self.disk.borrow_mut();
                let begun = disk.begin_redo(Call::ReadMarker);
                disk.end_redo();
                begun.map_err(std::io::Error::other)?;
                Ok(disk.marked(DIRECTORY))
            }
        }
    }

    /// Begins a sync.
    pub fn begin_sync(&mut self) {
        self.disk.borrow_mut().begin_sync();
    }

    /// Returns whether the sync has succeeded. `None`: it is in progress.
    pub fn poll_sync(&mut self) -> Option<bool> {
        self.disk.borrow_mut().synced()
    }

    /// Waits for the end of the sync.
    pub fn await_sync(&mut self) {
        self.disk.borrow_mut().await_sync();
    }
}

/// Returns the outcome of a redo that omits this operation (a mutation).
fn left_out(op: &FileOp, mutation: Option<Mutation>) -> Option<Outcome> {
    let Some(Mutation::RedoOmits(what)) = mutation else {
        return None;
    };
    match (what, op) {
        ("rename", FileOp::Rename { to, .. }) => Some(Outcome::Renamed {
            path: to.clone(),
            directory: FileKey::default(),
        }),
        ("write", FileOp::Write { data, .. }) => Some(Outcome::Written {
            count: data.len() as u32,
            offset: 0,
        }),
        ("delete", FileOp::Close { .. })
        | ("link", FileOp::Link { .. })
        | ("truncate", FileOp::SetEndOfFile { .. })
        | ("times", FileOp::SetBasic { .. }) => Some(Outcome::Unit),
        _ => None,
    }
}
