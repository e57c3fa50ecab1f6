//! Syncs the shares' file systems (durability `power`), each on a thread of its own, so that one that hangs holds up no
//! other.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use log::error;
use outlast_fsa::fileop::ShareId;
use rustix::fs::fstat;

use crate::job_thread::JobThread;

/// The largest number of threads. If there are more file systems, the last ones share one.
const MOST_THREADS: usize = 32;

/// The syncing threads of all file systems.
pub struct Syncers {
    all: Vec<Syncer>,
    /// An eventfd that is written to when a sync has ended.
    wake: Arc<OwnedFd>,
    /// The shares for which one has failed, until all have ended.
    failed: Vec<ShareId>,
}

/// The syncing thread of one file system.
struct Syncer {
    device: u64,
    mounts: Vec<Mount>,
    thread: JobThread<Vec<Mount>, Vec<(ShareId, bool)>>,
    /// The sync under way is not waited for.
    is_left: bool,
}

/// The directory of a share. Each share on one file system is notified of a failure by its own descriptor.
#[derive(Clone)]
struct Mount {
    share: ShareId,
    directory: Arc<OwnedFd>,
    /// The file system was mounted again since the last sync: data that were not on the medium were lost with the
    /// former mount.
    is_again: bool,
}

impl Syncers {
    /// Makes the set without shares.
    #[must_use]
    pub fn new(wake: Arc<OwnedFd>) -> Syncers {
        Syncers {
            all: Vec::new(),
            wake,
            failed: Vec::new(),
        }
    }

    /// Sets the directory of a share, and with it the file system.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn add(&mut self, share: ShareId, directory: OwnedFd) -> io::Result<()> {
        let device = fstat(&directory)?.st_dev;
        let mut is_again = false;
        for syncer in &mut self.all {
            let before = syncer.mounts.len();
            syncer.mounts.retain(|mount| mount.share != share);
            is_again |= syncer.mounts.len() < before;
        }
        let mount = Mount {
            share,
            directory: Arc::new(directory),
            is_again,
        };
        let is_full = self.all.len() >= MOST_THREADS;
        let mut all = self.all.iter_mut();
        let there = all.rposition(|syncer| syncer.device == device || syncer.mounts.is_empty());
        let at = there.or(is_full.then_some(MOST_THREADS - 1));
        match at.and_then(|at| self.all.get_mut(at)) {
            Some(syncer) => {
                if syncer.mounts.is_empty() {
                    syncer.device = device;
                }
                syncer.mounts.push(mount);
            }
            None => self.all.push(Syncer {
                device,
                mounts: vec![mount],
                thread: JobThread::start("sync", Arc::clone(&self.wake), sync)?,
                is_left: false,
            }),
        }
        Ok(())
    }

    /// Begins a sync of each file system, except those with one under way.
    pub fn begin(&mut self) {
        for syncer in &mut self.all {
            if syncer.thread.is_under_way() || syncer.mounts.is_empty() {
                continue;
            }
            syncer.thread.begin(syncer.mounts.clone());
            for mount in &mut syncer.mounts {
                mount.is_again = false;
            }
        }
    }

    /// The shares for which a sync has failed; `None`: they have not ended.
    pub fn synced(&mut self) -> Option<Vec<ShareId>> {
        for syncer in self.all.iter_mut().filter(|syncer| !syncer.is_left) {
            let results = syncer.thread.finished().into_iter().flatten();
            let failed = results.filter(|(_, is_synced)| !is_synced);
            self.failed.extend(failed.map(|(share, _)| share));
        }
        let is_through = self.waited_for().next().is_none();
        is_through.then(|| std::mem::take(&mut self.failed))
    }

    fn waited_for(&self) -> impl Iterator<Item = &Syncer> {
        let all = self.all.iter();
        all.filter(|syncer| !syncer.is_left && syncer.thread.is_under_way())
    }

    /// The shares for which [`Syncers::synced`] waits.
    pub fn under_way(&self) -> impl Iterator<Item = ShareId> {
        let mounts = self.waited_for().flat_map(|syncer| &syncer.mounts);
        mounts.map(|mount| mount.share)
    }

    /// Stops waiting for them.
    pub fn leave(&mut self) {
        for syncer in &mut self.all {
            syncer.is_left |= syncer.thread.is_under_way();
        }
    }

    /// The results of syncs that were left and have ended since the last call.
    pub fn late(&mut self) -> Vec<(ShareId, bool)> {
        let mut late = Vec::new();
        for syncer in self.all.iter_mut().filter(|syncer| syncer.is_left) {
            if let Some(results) = syncer.thread.finished() {
                syncer.is_left = false;
                late.extend(results);
            }
        }
        late
    }

    /// Waits for everything for which [`Syncers::synced`] waits.
    pub fn wait(&mut self) {
        for syncer in self.all.iter_mut().filter(|syncer| !syncer.is_left) {
            syncer.thread.wait();
        }
    }
}

/// Syncs, and returns for each share whether everything done on it is on its medium.
fn sync(mounts: Vec<Mount>) -> Vec<(ShareId, bool)> {
    let sync = |mount: Mount| {
        let synced = rustix::fs::syncfs(&mount.directory);
        let share = mount.share;
        let synced = synced.inspect_err(|error| error!("share {share} cannot be synced: {error}"));
        (share, synced.is_ok() && !mount.is_again)
    };
    mounts.into_iter().map(sync).collect()
}

#[cfg(test)]
mod tests;
