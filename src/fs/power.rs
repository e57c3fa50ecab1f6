//! Requirements of durability `power` on the shares' file systems: effects can be done once more, are marked, and are
//! synced.

use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::Context as _;
use outlast_fsa::fileop::{Actor, FileOp, Intent, OpenId, Outcome, ShareId};
use outlast_fsa::status::NtStatus;
use rustix::fs::{Advice, OFlags, fadvise, fdatasync};

use super::account::Refused;
use super::syncing::Syncers;
use super::{Fs, features, find_root, handle, names};

impl Fs {
    /// Checks that the shares' file systems meet the requirements of durability `power`. An offline share is checked
    /// when it is available again.
    ///
    /// # Errors
    /// A line that names the share's directory, and the remedy.
    pub fn expect_power_cuts(&mut self) -> anyhow::Result<()> {
        self.syncers = Some(Syncers::new(Arc::clone(&self.wake)));
        for share in self.roots.ids() {
            if self.roots.get(share).is_ok() {
                self.expect_power_cuts_of(share)?;
            }
        }
        Ok(())
    }

    /// Checks one share; does nothing under another durability.
    ///
    /// # Errors
    /// As [`Fs::expect_power_cuts`].
    pub(super) fn expect_power_cuts_of(&mut self, share: ShareId) -> anyhow::Result<()> {
        let Some(syncers) = &mut self.syncers else {
            return Ok(());
        };
        let root = find_root(&self.roots, share).map_err(|status| anyhow::anyhow!("{status}"))?;
        if root.read_only {
            return Ok(());
        }
        let path = root.path.display();
        if let Some(problem) = features::power_problem(root.dir.as_fd()) {
            anyhow::bail!("{path}: durability \"power\" cannot be kept there: {problem}");
        }
        let mount = root
            .mount
            .as_ref()
            .with_context(|| format!("{path}: durability \"power\" needs the right to read it"))?;
        let handle = handle::of(root.dir.as_fd());
        handle::open(mount.as_fd(), &handle, OFlags::PATH).with_context(|| {
            format!(
                "{path}: durability \"power\" needs files to be opened by handle: run as root (CAP_DAC_READ_SEARCH), \
                 on a file system that has handles, or set it to \"process\""
            )
        })?;
        let mount = mount.try_clone()?;
        self.markers.forget(share);
        let number = self.markers.get(&self.roots, share);
        let marked = number.and_then(|number| self.markers.set(&self.roots, share, number.max(1)));
        marked.with_context(|| {
            format!(
                "{path}: durability \"power\" keeps a marker in it, {}, with an extended attribute: let no other \
                 server have it, and have a file system that has them",
                names::MARKER
            )
        })?;
        let added = syncers.add(share, mount);
        added.context("cannot start a thread")
    }

    /// [`FileSystem::perform_again`](crate::server::files::FileSystem::perform_again).
    ///
    /// # Errors
    /// As [`Fs::perform`].
    pub fn perform_again(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
        as_server: bool,
    ) -> Result<Outcome, NtStatus> {
        if !as_server {
            let root = find_root(&self.roots, actor.share)?;
            let run_as = root.run_as.as_deref();
            // The owner is unknown now, which is no reason to make the file root's.
            if let Err(Refused::NotNow) = self.accounts.choose(run_as, actor.user.as_deref()) {
                return Err(NtStatus::ACCESS_DENIED);
            }
            match self.perform(actor, op, intent) {
                Err(NtStatus::ACCESS_DENIED) => {}
                other => return other,
            }
        }
        self.as_server = true;
        let outcome = self.perform(actor, op, intent);
        self.as_server = false;
        outcome
    }

    /// [`FileSystem::drop_cached`](crate::server::files::FileSystem::drop_cached).
    ///
    /// ext4 writes into an extent that it has allocated as unwritten, and marks it as written when that has succeeded.
    /// If it has failed, a later write to the cached page succeeds, but the extent stays unwritten and is read as
    /// zeroes once the page is gone.
    pub fn drop_cached(&mut self, open: OpenId) {
        if let Ok(file) = self.open_file(open) {
            // The next sync reports whether everything reaches the medium.
            let _ = fdatasync(&file.fd);
            let _ = fadvise(&file.fd, 0, None, Advice::DontNeed);
        }
    }

    /// [`FileSystem::mark`](crate::server::files::FileSystem::mark).
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        let set = self.markers.set(&self.roots, share, number);
        set.inspect_err(|_| self.note_failure(NtStatus::IO_DEVICE_ERROR))
    }

    /// The marker of a share; 0 if it has none.
    ///
    /// # Errors
    /// The share is offline; as [`Fs::mark`].
    pub fn marked(&mut self, share: ShareId) -> std::io::Result<u64> {
        match find_root(&self.roots, share) {
            Ok(root) if root.read_only => Ok(0),
            Ok(_) => self.markers.get(&self.roots, share),
            Err(status) => Err(std::io::Error::other(status.to_string())),
        }
    }

    /// [`FileSystem::begin_sync`](crate::server::files::FileSystem::begin_sync).
    pub fn begin_sync(&mut self) {
        if let Some(syncers) = &mut self.syncers {
            syncers.begin();
        }
    }

    /// [`FileSystem::synced`](crate::server::files::FileSystem::synced).
    pub fn synced(&mut self) -> Option<Vec<ShareId>> {
        match &mut self.syncers {
            Some(syncers) => syncers.synced(),
            None => Some(Vec::new()),
        }
    }

    /// [`FileSystem::under_sync`](crate::server::files::FileSystem::under_sync).
    #[must_use]
    pub fn under_sync(&self) -> Vec<ShareId> {
        let syncers = self.syncers.iter();
        syncers.flat_map(Syncers::under_way).collect()
    }

    /// [`FileSystem::leave_sync`](crate::server::files::FileSystem::leave_sync).
    pub fn leave_sync(&mut self) {
        self.syncers.iter_mut().for_each(Syncers::leave);
    }

    /// [`FileSystem::late`](crate::server::files::FileSystem::late).
    pub fn late(&mut self) -> Vec<(ShareId, bool)> {
        let syncers = self.syncers.iter_mut();
        syncers.flat_map(Syncers::late).collect()
    }

    /// [`FileSystem::wait_synced`](crate::server::files::FileSystem::wait_synced).
    pub fn wait_synced(&mut self) -> Vec<ShareId> {
        self.syncers.iter_mut().for_each(Syncers::wait);
        self.synced().unwrap_or_default()
    }
}
