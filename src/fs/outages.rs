//! Temporary outages: shares that are offline, directories that cannot be watched. Nothing is given up because of them;
//! they are retried.

use std::time::{Duration, Instant};

use log::debug;
use outlast_fsa::fileop::{Change, ChangeKind, FileKey, OpenId, ShareId};
use outlast_fsa::status::NtStatus;

use super::lookup::Lookup;
use super::{Fs, find_root};

/// The interval of retries without a request.
const PAUSE: Duration = Duration::from_secs(1);

impl Fs {
    /// When [`Fs::changes`] should be called although nothing has happened.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Retries an offline share, because of a request for it.
    pub(super) fn look_for_share(&mut self, share: ShareId) {
        let is_offline = matches!(self.roots.get(share), Err(NtStatus::IO_DEVICE_ERROR));
        if is_offline && self.revive(share) {
            self.watch_all_again();
        }
    }

    /// Restores a share that is available again, with everything that depends on it.
    fn revive(&mut self, share: ShareId) -> bool {
        if !self.roots.retry_offline(share) {
            return false;
        }
        match self.expect_power_cuts_of(share) {
            Ok(()) => {
                self.roots.note_available(share);
                true
            }
            Err(why) => {
                self.roots.take_offline(share, &format!("{why:#}"));
                false
            }
        }
    }

    /// Handles a failed operation: if the file system of a share died and was mounted again, the share is served from
    /// there.
    pub(super) fn note_failure(&mut self, status: NtStatus) {
        // EIO; a file system that made itself read-only; ESTALE.
        let may_be_dead = matches!(
            status,
            NtStatus::IO_DEVICE_ERROR | NtStatus::MEDIA_WRITE_PROTECTED | NtStatus::FILE_CLOSED
        );
        if !may_be_dead {
            return;
        }
        for share in self.roots.ids() {
            if !self.roots.is_mounted_again(share) {
                continue;
            }
            self.roots
                .take_offline(share, "its file system was mounted again");
            // Opens there are dead; their files are opened again when they are used.
            for open in self.opens.shut_all(share) {
                self.listings.forget(open);
                if let Some(recursive) = self.watcher.forget(open) {
                    self.unwatched.insert(open, recursive);
                }
            }
            self.lookup = Lookup::default();
            self.look_for_share(share);
        }
    }

    /// Retries everything that is missing, if it is due.
    pub(super) fn retry_offline(&mut self) {
        let is_missing = self.roots.offline().next().is_some() || !self.unwatched.is_empty();
        if !is_missing {
            self.next_look = None;
            return;
        }
        let now = Instant::now();
        if self.next_look.is_some_and(|at| now < at) {
            return;
        }
        self.next_look = Some(now + PAUSE);
        for share in self.roots.offline().collect::<Vec<_>>() {
            self.revive(share);
        }
        self.watch_all_again();
    }

    fn watch_all_again(&mut self) {
        for (open, recursive) in std::mem::take(&mut self.unwatched) {
            if !self.watch_again(open, recursive) {
                continue;
            }
            // Changes in the meantime are unknown.
            if let Ok(known) = self.opens.get(open) {
                self.watcher.missed(Change {
                    share: known.share(),
                    path: known.path.clone(),
                    is_dir: true,
                    kind: ChangeKind::Overflow,
                });
            }
        }
    }

    /// Watches again what an open watched before a restart. After a failure the open stays, and it is retried later.
    pub(super) fn watch_again(&mut self, open: OpenId, recursive: bool) -> bool {
        let watched = self.with_descriptors(|fs| {
            if !fs.is_ready(open)? {
                return Err(NtStatus::FILE_CLOSED);
            }
            let file = fs.opens.get(open)?;
            let root = find_root(&fs.roots, file.share())?;
            fs.watcher.watch(open, root, file, recursive)
        });
        match watched {
            Ok(()) => true,
            // It is missing, which its next use reports.
            Err(NtStatus::FILE_CLOSED) => false,
            Err(status) => {
                debug!("open {open} cannot watch its directory now: {status}");
                self.unwatched.insert(open, recursive);
                self.next_look.get_or_insert_with(|| Instant::now() + PAUSE);
                false
            }
        }
    }

    /// Returns the directories of shares that have been opened since the last call.
    pub fn found_roots(&mut self) -> Vec<(ShareId, FileKey)> {
        self.roots.take_found()
    }

    /// The shares that are offline.
    #[must_use]
    pub fn offline(&self) -> Vec<ShareId> {
        self.roots.offline().collect()
    }

    /// Notes a share's former directory, so that no other is served in its place.
    pub fn expect_root(&mut self, share: ShareId, key: FileKey) {
        self.roots.expect(share, key);
    }
}
