//! What durability `power` asks of the shares' file systems: that effects can be done once more, that they are marked, that they are synced.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use log::error;
use outlast_smb::fileop::{Actor, FileOp, Intent, Outcome, ShareId};
use outlast_smb::status::NtStatus;
use rustix::fs::OFlags;

use super::account::Refused;
use super::{Fs, features, find_root, handle, names};
use crate::beside::Beside;

impl Fs {
    /// Makes sure that what durability `power` needs of the shares' file systems is there. A share that is offline is looked at when it is
    /// back.
    ///
    /// # Errors
    /// A line that names the share's directory, and the remedy.
    pub fn expect_power_cuts(&mut self) -> anyhow::Result<()> {
        let mounts = Mounts::default();
        let theirs = Arc::clone(&mounts);
        let syncer = Beside::start("sync", Arc::clone(&self.wake), move |()| sync(&theirs));
        self.syncer = Some((syncer.context("no thread can be started")?, mounts));
        for share in self.roots.ids() {
            if self.roots.get(share).is_ok() {
                self.expect_power_cuts_of(share)?;
            }
        }
        Ok(())
    }

    /// The same of one share; nothing under another durability.
    ///
    /// # Errors
    /// As [`Fs::expect_power_cuts`].
    pub(super) fn expect_power_cuts_of(&mut self, share: ShareId) -> anyhow::Result<()> {
        let Some((_, mounts)) = &self.syncer else {
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
                "{path}: durability \"power\" needs files to be opened by handle: run as root (CAP_DAC_READ_SEARCH), on a file \
                 system that has handles, or set it to \"process\""
            )
        })?;
        let mount = mount.try_clone()?;
        let number = self.markers.get(&self.roots, share);
        let marked = number.and_then(|number| self.markers.set(&self.roots, share, number.max(1)));
        marked.with_context(|| {
            format!(
                "{path}: durability \"power\" keeps a marker in it, {}, with an extended attribute: let no other server have it, \
                 and have a file system that has them",
                names::MARKER
            )
        })?;
        mounts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((share, mount));
        Ok(())
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
            // What belongs to whom cannot be told now: that is no reason to make it root's.
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

    /// [`FileSystem::mark`](crate::server::files::FileSystem::mark).
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        self.markers.set(&self.roots, share, number)
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
        if let Some((syncer, _)) = &mut self.syncer {
            syncer.begin(());
        }
    }

    /// [`FileSystem::synced`](crate::server::files::FileSystem::synced).
    pub fn synced(&mut self) -> Option<Vec<ShareId>> {
        let syncer = self.syncer.as_mut().map(|(syncer, _)| syncer);
        match syncer.filter(|syncer| syncer.is_under_way()) {
            Some(syncer) => syncer.finished(),
            None => Some(Vec::new()),
        }
    }

    /// [`FileSystem::wait_synced`](crate::server::files::FileSystem::wait_synced).
    pub fn wait_synced(&mut self) -> Vec<ShareId> {
        if let Some((syncer, _)) = &mut self.syncer {
            syncer.wait();
        }
        self.synced().unwrap_or_default()
    }
}

/// The directories whose file systems are synced: one of each share that is online.
pub(super) type Mounts = Arc<Mutex<Vec<(ShareId, OwnedFd)>>>;

/// Brings file systems onto their media. Gives the shares for which that has failed: of shares on one file system each hears of it.
fn sync(mounts: &Mounts) -> Vec<ShareId> {
    let mounts = mounts.lock().unwrap_or_else(PoisonError::into_inner);
    let has_failed = |(share, mount): &(ShareId, OwnedFd)| {
        let synced = rustix::fs::syncfs(mount);
        let synced = synced.inspect_err(|error| error!("share {share} cannot be synced: {error}"));
        synced.is_err().then_some(*share)
    };
    mounts.iter().filter_map(has_failed).collect()
}
