//! Performs [`FileOp`]s on the file systems beneath the shares.
//!
//! [`Fs::prepare`] looks and changes nothing; [`Fs::perform`] performs the operation, and repeated with the same intent
//! it gives the same result (law 5). Each operation runs with the rights of its account ([`account`]) and never leaves
//! its share ([`path`]). `/proc` must be mounted.

pub mod account;
pub mod attributes;
pub mod create;
pub mod data;
mod ea;
pub mod errno;
pub mod features;
pub mod handle;
mod links;
pub mod list;
pub mod lookup;
mod magic;
pub mod marker;
pub mod names;
pub mod opens;
mod outages;
pub mod path;
mod power;
pub mod rename;
pub mod security;
pub mod set;
pub mod shares;
mod streams;
mod syncing;
#[cfg(test)]
mod tests;
mod times;
mod uuid;
mod volume;
pub mod watch;
pub mod writer;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use outlast_fsa::fileop::{
    Actor, Change, CreateOp, DeleteTarget, FileKey, FileOp, FileTime, Intent, OpenId, Outcome,
    ShareId, Times, WriteAt,
};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream;
use outlast_smb::{OpenInfo, WatchInfo};
use rustix::fs::OFlags;

use account::{Account, Accounts, Assumed};
use data::Pool;
use list::Listings;
use lookup::Lookup;
use marker::Markers;
use opens::{Known, OpenFile, Opens};
use path::Root;
use shares::Shares;
use syncing::Syncers;
use watch::Watcher;
use writer::{Write, Written};

use crate::job_thread::JobThread;
use crate::server::record::Ids;

/// A share's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareRoot {
    /// Its directory.
    pub path: PathBuf,
    /// Nothing in it may be changed.
    pub read_only: bool,
    /// The local account whose rights apply; `None`: the login's own if the server is root (a login without one is
    /// refused), otherwise the server's.
    pub run_as: Option<String>,
}

/// The file system implementation of the server.
pub struct Fs {
    roots: Shares,
    opens: Opens,
    listings: Listings,
    accounts: Accounts,
    lookup: Lookup,
    pool: Pool,
    watcher: Watcher,
    /// Opens whose directory could not be watched yet, and whether subdirectories are included.
    unwatched: HashMap<OpenId, bool>,
    /// When to retry what is offline or unwatched.
    next_look: Option<Instant>,
    writer: JobThread<Write, Written>,
    markers: Markers,
    /// The threads that sync the shares' file systems, under durability `power`.
    syncers: Option<Syncers>,
    /// An eventfd that is written to when an operation has ended.
    wake: Arc<OwnedFd>,
    /// The server's own rights apply, whatever account the operation is for.
    as_server: bool,
}

impl Fs {
    /// Opens the shares' directories; a [`ShareId`] is the index in `shares`. [`wake`](crate::job_thread::wake) is
    /// written to when an operation has ended.
    ///
    /// # Errors
    /// A limit of the system is reached. A missing share is offline, and no error.
    pub fn new(shares: &[ShareRoot], wake: Arc<OwnedFd>) -> anyhow::Result<Fs> {
        Ok(Fs {
            roots: Shares::open(shares),
            opens: Opens::default(),
            listings: Listings::default(),
            accounts: Accounts::new()?,
            lookup: Lookup::default(),
            pool: Pool::default(),
            watcher: Watcher::new()?,
            unwatched: HashMap::new(),
            next_look: None,
            writer: JobThread::start("writer", Arc::clone(&wake), |write| writer::perform(&write))?,
            markers: Markers::default(),
            syncers: None,
            wake,
            as_server: false,
        })
    }

    /// The restrictions of the shares' file systems compared with ext4, XFS and btrfs: a sentence each, with the
    /// directory.
    #[must_use]
    pub fn weaker(&self) -> Vec<String> {
        let roots = self
            .roots
            .ids()
            .filter_map(|share| self.roots.get(share).ok());
        roots.flat_map(Root::weaker).collect()
    }

    /// [`FileSystem::learnt_accounts`](crate::server::files::FileSystem::learnt_accounts).
    pub fn learnt_accounts(&mut self) -> Vec<(String, Option<Ids>)> {
        self.accounts.take_learnt()
    }

    /// [`FileSystem::expect_account`](crate::server::files::FileSystem::expect_account).
    pub fn expect_account(&mut self, name: &str, ids: &Ids) {
        self.accounts.expect(name, ids);
    }

    fn account(&mut self, actor: &Actor) -> Result<(Arc<Account>, Assumed), NtStatus> {
        let root = find_root(&self.roots, actor.share)?;
        let account = if self.as_server {
            self.accounts.own()
        } else {
            self.accounts
                .choose(root.run_as.as_deref(), actor.user.as_deref())?
        };
        let assumed = self.accounts.assume(&account)?;
        Ok((account, assumed))
    }

    /// Finds out what must be recorded before the operation is performed; changes nothing.
    ///
    /// # Errors
    /// The answer to the client if the operation cannot be performed.
    pub fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        self.look_for_share(actor.share);
        self.with_descriptors(|fs| {
            if !matches!(op, FileOp::Close { delete: None, .. }) {
                fs.ready(op)?;
            }
            let intent = fs.look(actor, op)?;
            fs.keeping(op, intent)
        })
        .inspect_err(|status| self.note_failure(*status))
    }

    fn look(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        if let Some(intent) = self.look_at_stream(op)? {
            return Ok(intent);
        }
        match op {
            FileOp::Create(create) => {
                let (account, _assumed) = self.account(actor)?;
                let root = find_root(&self.roots, actor.share)?;
                let intent = create::prepare(root, &mut self.lookup, account.uid(), create)?;
                Ok(Intent::Create(intent))
            }
            FileOp::Close {
                open,
                delete: Some(_),
            } => Ok(Intent::Close {
                metadata: self.open_file(*open)?.metadata()?,
                digest: None,
            }),
            FileOp::Write { open, at, .. } => {
                let open = self.open_file(*open)?;
                let offset = match at {
                    WriteAt::Offset(offset) => *offset,
                    WriteAt::End => data::end(&open.fd)?,
                };
                Ok(Intent::Write { offset })
            }
            FileOp::Rename {
                open,
                from,
                to,
                replace,
            } => {
                let (_, _assumed) = self.account(actor)?;
                self.prepare_rename(*open, Some(from), to, *replace)
            }
            FileOp::Link { open, to, replace } => {
                let (_, _assumed) = self.account(actor)?;
                self.prepare_rename(*open, None, to, *replace)
            }
            FileOp::CopyChunks {
                source,
                target,
                chunks,
            } => {
                let (source, target) = (self.open_file(*source)?, self.open_file(*target)?);
                if source.key != target.key || source.stream != target.stream {
                    return Ok(Intent::None);
                }
                let logged = data::overlapping_source(&source.content(), chunks)?;
                Ok(logged.map_or(Intent::None, |source| Intent::CopyChunks { source }))
            }
            _ => Ok(Intent::None),
        }
    }

    fn prepare_rename(
        &mut self,
        id: OpenId,
        from: Option<&str>,
        to: &str,
        replace: bool,
    ) -> Result<Intent, NtStatus> {
        let open = self.opens.get(id)?;
        let root = find_root(&self.roots, open.share())?;
        if let Some(from) = from.filter(|_| open.is_dir) {
            // MS-FSA 2.1.5.15.11: a directory in which something is open cannot be renamed.
            let beneath = format!("{from}/");
            let others = self.opens.all();
            if others
                .filter(|other| other.share() == open.share())
                .any(|other| other.path.starts_with(&beneath))
            {
                return Err(NtStatus::ACCESS_DENIED);
            }
        }
        let in_use = |key: &FileKey| self.opens.all().any(|other| other.key == *key);
        rename::prepare(root, &mut self.lookup, open, from, to, replace, in_use)
    }

    /// Performs the operation. The same call again, after a crash or not, gives the same result.
    ///
    /// # Errors
    /// The answer to the client.
    pub fn perform(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        self.watcher.collect();
        self.look_for_share(actor.share);
        let outcome = self.with_descriptors(|fs| match fs.ready(op) {
            // A file that was deleted before a crash: only its name is left.
            Err(NtStatus::FILE_CLOSED) if matches!(op, FileOp::Close { .. }) => {
                fs.perform_ready(actor, op, intent)
            }
            ready => ready.and_then(|()| fs.perform_ready(actor, op, intent)),
        });
        match op {
            // A file that could not be deleted is still open: it is closed without deletion.
            FileOp::Close {
                delete: Some(_), ..
            } if outcome.is_err() => {}
            FileOp::Close { open, .. } => self.forget(*open),
            _ => {}
        }
        outcome.inspect_err(|status| self.note_failure(*status))
    }

    fn perform_ready(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        if let Intent::Keeping { times, intent } = intent {
            let outcome = self.perform_ready(actor, op, intent)?;
            times::keep(self.open_file(op.open())?, times)?;
            return Ok(outcome);
        }
        if let Some(outcome) = self.perform_on_stream(op, intent) {
            return outcome;
        }
        match op {
            FileOp::Create(create) => self.create(actor, create, intent),
            FileOp::Close { open, delete } => self.close(actor, *open, delete.as_ref(), intent),
            FileOp::Flush { open } => {
                data::flush(self.open_file(*open)?.fd.as_fd())?;
                Ok(Outcome::Unit)
            }
            FileOp::Read {
                open,
                offset,
                length,
            } => {
                let open = self.opens.get(*open)?;
                let data = self.pool.read(open.fd.as_fd(), *offset, *length)?;
                Ok(Outcome::Data(data))
            }
            FileOp::Stat { open } => Ok(Outcome::Metadata(self.open_file(*open)?.metadata()?)),
            FileOp::QueryEas { open } => {
                let open = self.open_file(*open)?;
                let metadata = open.metadata()?;
                let eas = ea::list(open.fd.as_fd())?;
                Ok(Outcome::Eas { metadata, eas })
            }
            FileOp::QueryVolume { open } => {
                let open = self.open_file(*open)?;
                let root = find_root(&self.roots, open.share())?;
                Ok(Outcome::Volume(set::volume(root, &open.fd)?))
            }
            FileOp::QueryAllocatedRanges {
                open,
                offset,
                length,
            } => {
                let open = self.open_file(*open)?;
                let fd = open.fd.as_fd();
                let ranges =
                    data::allocated_ranges(fd, attributes::is_sparse(fd), *offset, *length)?;
                Ok(Outcome::Ranges(ranges))
            }
            _ => {
                let (account, assumed) = self.account(actor)?;
                let outcome = self.perform_as(&account, assumed, op, intent)?;
                self.after(op)?;
                Ok(outcome)
            }
        }
    }

    /// Completes an operation, with the server's own rights.
    fn after(&mut self, op: &FileOp) -> Result<(), NtStatus> {
        match op {
            FileOp::Write { open, .. }
            | FileOp::SetEndOfFile { open, .. }
            | FileOp::SetAllocation { open, .. }
            | FileOp::ZeroData { open, .. }
            | FileOp::CopyChunks { target: open, .. } => {
                let file = self.open_file(*open)?;
                if file.stream.is_some() {
                    return streams::operations::after(&*file.fd);
                }
                attributes::note_modified(file.fd.as_fd()).map_err(errno::status)
            }
            FileOp::SetBasic { open, basic } => {
                self.opens.stop_times(*open, basic);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Performs the operations for which the kernel checks rights.
    fn perform_as(
        &mut self,
        account: &Account,
        assumed: Assumed,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        match op {
            FileOp::Write {
                open,
                at,
                data,
                write_through,
            } => {
                let open = self.written(*open)?;
                let offset = match (intent, at) {
                    (Intent::Write { offset }, _) | (_, WriteAt::Offset(offset)) => *offset,
                    (_, WriteAt::End) => return Err(NtStatus::INTERNAL_ERROR),
                };
                let count = data::write(open.fd.as_fd(), offset, data, *write_through)?;
                Ok(Outcome::Written { count, offset })
            }
            FileOp::QueryDirectory {
                open,
                pattern,
                after,
                limit,
            } => {
                let file = self.opens.get(*open)?;
                let root = find_root(&self.roots, file.share())?;
                let query = list::Query {
                    root,
                    open: *open,
                    dir: file,
                    pattern,
                    limit: *limit,
                };
                let (entries, more) =
                    query.run(&mut self.lookup, &mut self.listings, after.as_deref())?;
                Ok(Outcome::Entries { entries, more })
            }
            FileOp::SetBasic { open, basic } => {
                let open = self.changed(*open)?;
                set::basic(open, basic, assumed)?;
                Ok(Outcome::Unit)
            }
            FileOp::SetEndOfFile { open, end_of_file } => {
                data::set_length(self.written(*open)?.fd.as_fd(), *end_of_file)?;
                Ok(Outcome::Unit)
            }
            FileOp::SetAllocation {
                open,
                allocation_size,
            } => {
                data::set_allocation(self.written(*open)?.fd.as_fd(), *allocation_size)?;
                Ok(Outcome::Unit)
            }
            FileOp::ZeroData { open, from, beyond } => {
                data::zero(self.written(*open)?.fd.as_fd(), *from, *beyond)?;
                Ok(Outcome::Unit)
            }
            FileOp::SetEas { open, eas } => {
                ea::set(self.changed(*open)?.fd.as_fd(), eas)?;
                Ok(Outcome::Unit)
            }
            FileOp::SetSparse { open, sparse } => {
                set::sparse(self.changed(*open)?, *sparse)?;
                Ok(Outcome::Unit)
            }
            FileOp::CopyChunks {
                source,
                target,
                chunks,
            } => {
                let (source, target) = (self.open_file(*source)?, self.written(*target)?);
                let logged = match intent {
                    Intent::CopyChunks { source } => Some(source.as_slice()),
                    _ => None,
                };
                let (source, target) = (source.content(), target.content());
                let written = data::copy(&source, &target, chunks, logged)?;
                Ok(Outcome::Copied { written })
            }
            FileOp::Rename { open, .. } => self.rename(*open, intent),
            FileOp::Link { open, .. } => {
                let file = self.changed(*open)?;
                let root = find_root(&self.roots, file.share())?;
                let private = names::private(*open);
                rename::link(root, file.fd.as_fd(), &as_move(intent)?, &private)?;
                Ok(Outcome::Unit)
            }
            FileOp::CheckDelete { open, path } => {
                let open = self.open_file(*open)?;
                let root = find_root(&self.roots, open.share())?;
                rename::check_delete(root, account.uid(), open, path)?;
                Ok(Outcome::Unit)
            }
            FileOp::QuerySecurity { open, information } => {
                let open = self.open_file(*open)?;
                Ok(Outcome::Data(security::query(&open.fd, *information)?))
            }
            FileOp::SetSecurity {
                open,
                information,
                descriptor,
            } => {
                let open = self.changed(*open)?;
                security::set(&open.fd, *information, descriptor)?;
                Ok(Outcome::Unit)
            }
            FileOp::Watch {
                open: id,
                recursive,
            } => {
                let open = self.opens.get(*id)?;
                let root = find_root(&self.roots, open.share())?;
                if !open.is_dir {
                    return Err(NtStatus::INVALID_PARAMETER);
                }
                self.watcher.watch(*id, root, open, *recursive)?;
                Ok(Outcome::Unit)
            }
            // `perform` has done these.
            FileOp::QueryStreams { .. }
            | FileOp::Strip { .. }
            | FileOp::QueryEas { .. }
            | FileOp::Create(_)
            | FileOp::Close { .. }
            | FileOp::Flush { .. }
            | FileOp::Read { .. }
            | FileOp::Stat { .. }
            | FileOp::QueryVolume { .. }
            | FileOp::QueryAllocatedRanges { .. } => Err(NtStatus::INTERNAL_ERROR),
        }
    }

    fn create(
        &mut self,
        actor: &Actor,
        op: &CreateOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        let Intent::Create(intent) = intent else {
            return Err(NtStatus::INTERNAL_ERROR);
        };
        let (account, _assumed) = self.account(actor)?;
        let root = find_root(&self.roots, actor.share)?;
        let (fd, created) = create::perform(root, account.uid(), op, intent)?;
        let flags = rustix::fs::fcntl_getfl(&fd).unwrap_or(OFlags::PATH);
        let data = !flags.contains(OFlags::PATH);
        let mode = flags & OFlags::ACCMODE;
        let (path, stream) = stream::split(&created.path);
        let (readable, writable) = match stream {
            Some(_) => streams::operations::rights(root, &fd),
            None => (
                data && mode != OFlags::WRONLY,
                data && mode != OFlags::RDONLY,
            ),
        };
        let known = Known {
            actor: actor.clone(),
            path: path.to_owned(),
            stream: stream.map(str::to_owned),
            moved_to: None,
            key: created.metadata.key,
            handle: created.handle.clone(),
            is_dir: created.metadata.is_dir,
            readable,
            writable,
            stopped: Times::default(),
        };
        let lasts = root.keeps(&known);
        self.opens.insert(op.open, known, fd, lasts);
        Ok(Outcome::Created(created))
    }

    fn close(
        &mut self,
        actor: &Actor,
        open: OpenId,
        delete: Option<&DeleteTarget>,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        if let Some(target) = delete {
            let (_, _assumed) = self.account(actor)?;
            let root = find_root(&self.roots, actor.share)?;
            // A file deleted before a crash cannot be opened again: only its name is left, which may be another file's.
            let file = self.opens.get(open);
            let fd = file.map_or(root.dir.as_fd(), |file| file.fd.as_fd());
            let links = match intent {
                Intent::Close { metadata, .. } if !metadata.is_dir => metadata.links,
                _ => 1,
            };
            rename::delete(root, fd, target, links)?;
        }
        match intent {
            Intent::Close { metadata, .. } => Ok(Outcome::Closed(metadata.clone())),
            _ => Ok(Outcome::Closed(self.open_file(open)?.last_metadata()?)),
        }
    }

    fn rename(&mut self, id: OpenId, intent: &Intent) -> Result<Outcome, NtStatus> {
        let open = self.changed(id)?;
        let share = open.share();
        let root = find_root(&self.roots, share)?;
        let what = as_move(intent)?;
        rename::rename(root, open.fd.as_fd(), &what)?;
        self.opens.moved(share, what.source, what.from, what.to);
        Ok(Outcome::Renamed {
            path: what.to.to_owned(),
            directory: find_root(&self.roots, share)?.directory_of(what.to)?,
        })
    }

    /// Notes an open from before a restart. Its file is opened when it is first used; only directories that it watched
    /// are watched at once.
    pub fn remember(&mut self, open: OpenInfo) {
        let (id, watch) = (open.open, open.watch);
        self.opens.remember(id, Known::from_record(open));
        if let Some(WatchInfo { recursive, .. }) = watch {
            self.watch_again(id, recursive);
            if let (true, Some(known)) =
                (self.unwatched.contains_key(&id), self.opens.known_mut(id))
            {
                log::warn!("{}: cannot be watched now; retrying", known.path);
            }
        }
    }

    /// Returns whether what an open watches may have changed after this wall time without the server noticing.
    pub fn may_have_changed(&mut self, open: OpenId, watch: WatchInfo, since: FileTime) -> bool {
        let Ok(dir) = self.opens.get(open) else {
            return true;
        };
        self.watcher.may_have_changed(open, dir, watch, since)
    }

    /// Opens a file again after a restart, at once.
    ///
    /// # Errors
    /// FILE_CLOSED if neither its handle nor its path leads to it; as `open`.
    pub fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        self.remember(open.clone());
        self.with_descriptors(|fs| fs.ready(&FileOp::Stat { open: open.open }))
            .inspect_err(|status| self.note_failure(*status))
    }

    /// Closes an open without further effect.
    pub fn forget(&mut self, open: OpenId) {
        self.unwatched.remove(&open);
        self.watcher.forget(open);
        self.listings.forget(open);
        self.opens.forget(open);
    }

    /// A descriptor that is readable when a watched directory has changed.
    #[must_use]
    pub fn watch_fd(&self) -> BorrowedFd<'_> {
        self.watcher.fd()
    }

    /// Returns the changes that others made in watched directories since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        self.retry_offline();
        self.watcher.collect();
        self.watcher.take()
    }

    /// Discards the changes made by the operation just performed.
    pub fn discard_changes(&mut self) {
        self.watcher.discard();
    }

    fn open_file(&self, open: OpenId) -> Result<&OpenFile, NtStatus> {
        self.opens.get(open)
    }

    /// Returns an open whose file is about to be changed.
    fn changed(&self, open: OpenId) -> Result<&OpenFile, NtStatus> {
        let open = self.open_file(open)?;
        if find_root(&self.roots, open.share())?.read_only {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(open)
    }

    /// Returns an open whose data are about to be changed.
    fn written(&self, open: OpenId) -> Result<&OpenFile, NtStatus> {
        let open = self.changed(open)?;
        if !open.writable {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(open)
    }
}

fn find_root(roots: &Shares, share: ShareId) -> Result<&Root, NtStatus> {
    roots.get(share)
}

fn as_move(intent: &Intent) -> Result<rename::Move<'_>, NtStatus> {
    match intent {
        Intent::Rename {
            source,
            from,
            to,
            replaced,
            ..
        } => Ok(rename::Move {
            source: *source,
            from,
            to,
            replaced: *replaced,
        }),
        _ => Err(NtStatus::INTERNAL_ERROR),
    }
}
