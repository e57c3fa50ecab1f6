//! Defines the file system interface of the machine, and implements it by the real file system.

use std::time::Duration;

use outlast_fsa::fileop::{
    Actor, Change, FileKey, FileOp, FileTime, Intent, OpenId, Outcome, ShareId,
};
use outlast_fsa::status::NtStatus;
use outlast_smb::{OpenInfo, WatchInfo};

use super::record::Ids;
use crate::fs::Fs;

/// File operations; see [`outlast_fsa::fileop`]. The methods after `discard_changes` are for durability `power`; their
/// defaults are those of a file system that loses nothing.
pub trait FileSystem {
    /// Finds out what an operation will meet, and changes nothing.
    ///
    /// # Errors
    /// The operation's answer, if it cannot be done.
    fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus>;
    /// Performs it; repeatedly with the same result, given the same intent.
    ///
    /// # Errors
    /// The operation's answer.
    fn perform(&mut self, actor: &Actor, op: &FileOp, intent: &Intent)
    -> Result<Outcome, NtStatus>;
    /// Performs it as [`FileSystem::perform`], or begins it: `None` if it is under way, in parallel to the caller,
    /// until [`FileSystem::finished`] has its outcome.
    fn begin(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Option<Result<Outcome, NtStatus>> {
        Some(self.perform(actor, op, intent))
    }
    /// Returns the outcome of the operation under way, once.
    fn finished(&mut self) -> Option<Result<Outcome, NtStatus>> {
        None
    }
    /// Waits for the operation under way, if there is one.
    fn wait(&mut self) {}
    /// Lets time pass before an operation is tried again; by default none.
    fn pause(&mut self, time: Duration) {
        let _ = time;
    }
    /// Opens a file again that was open before a recovery, at once.
    ///
    /// # Errors
    /// FILE_CLOSED if it does not exist any more; otherwise as `open`.
    fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus>;
    /// Notes an open from before a recovery. Its file is opened when it is used: an operation that finds it missing is
    /// answered with FILE_CLOSED, and after any other error the next operation tries again. Directories that it watched
    /// are watched again.
    fn remember(&mut self, open: OpenInfo) {
        if let Err(status) = self.reopen(&open) {
            log::warn!("{}: cannot be opened again: {status}", open.path);
        }
    }
    /// Returns whether what an open watches may have changed after this wall time without the server noticing. Asked
    /// when the open has been remembered.
    fn may_have_changed(&mut self, open: OpenId, watch: WatchInfo, since: FileTime) -> bool {
        let _ = (open, watch, since);
        true
    }
    /// Closes the open with this id, if there is one.
    fn forget(&mut self, open: OpenId);
    /// Returns changes in watched directories that were made by others.
    fn changes(&mut self) -> Vec<Change>;
    /// Discards the changes that our own operation has just made.
    fn discard_changes(&mut self);
    /// Returns the shares' directories that have been opened since the last call; by default none.
    fn found_roots(&mut self) -> Vec<(ShareId, FileKey)> {
        Vec::new()
    }
    /// Returns the new answers of the name service about local accounts since the last call. `None`: there is no such
    /// account.
    fn learnt_accounts(&mut self) -> Vec<(String, Option<Ids>)> {
        Vec::new()
    }
    /// Notes the last answer of the name service from an earlier run.
    fn expect_account(&mut self, name: &str, ids: &Ids) {
        let _ = (name, ids);
    }
    /// The shares whose directories are missing now.
    fn offline(&self) -> Vec<ShareId> {
        Vec::new()
    }
    /// Notes that a share had this directory before, so that no other is served in its place.
    fn expect_root(&mut self, share: ShareId, key: FileKey) {
        let _ = (share, key);
    }
    /// Performs an operation once more, after a power cut: with the server's own rights if `as_server`, since the
    /// account may have lost rights since then; otherwise with the account's, and if these do not suffice with the
    /// server's.
    ///
    /// # Errors
    /// The operation's answer.
    fn perform_again(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
        as_server: bool,
    ) -> Result<Outcome, NtStatus> {
        let _ = as_server;
        self.perform(actor, op, intent)
    }
    /// Writes back the cached pages of an open file, as far as possible, and reads from the medium from now on. After a
    /// failed write the cache may show pages as written that are not, and would not write them with later ones.
    fn drop_cached(&mut self, open: OpenId) {
        let _ = open;
    }
    /// Sets the marker of a share, a metadata change that the file system keeps in order with all others: every effect
    /// on names up to this number has been done.
    ///
    /// # Errors
    /// It cannot be written.
    fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        let _ = (share, number);
        Ok(())
    }
    /// Returns the marker of a share on the file system; 0 if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn marked(&mut self, share: ShareId) -> std::io::Result<u64> {
        let _ = share;
        Ok(0)
    }
    /// Begins to write everything done so far to the media of the shares, except those with a sync under way that was
    /// left.
    fn begin_sync(&mut self) {}
    /// Returns, without waiting, the shares whose files could not be written; `None`: the sync is still under way.
    fn synced(&mut self) -> Option<Vec<ShareId>> {
        Some(Vec::new())
    }
    /// The shares that [`FileSystem::synced`] waits for.
    fn under_sync(&self) -> Vec<ShareId> {
        Vec::new()
    }
    /// Stops waiting for them: [`FileSystem::late`] returns their results.
    fn leave_sync(&mut self) {}
    /// Returns the shares that were left and whose sync has ended since the last call, and whether it succeeded.
    fn late(&mut self) -> Vec<(ShareId, bool)> {
        Vec::new()
    }
    /// Waits for the sync.
    fn wait_synced(&mut self) -> Vec<ShareId> {
        Vec::new()
    }
}

impl FileSystem for Fs {
    fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        Fs::prepare(self, actor, op)
    }

    fn perform(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        Fs::perform(self, actor, op, intent)
    }

    fn begin(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Option<Result<Outcome, NtStatus>> {
        Fs::begin(self, actor, op, intent)
    }

    fn finished(&mut self) -> Option<Result<Outcome, NtStatus>> {
        Fs::finished(self)
    }

    fn wait(&mut self) {
        Fs::wait(self);
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        Fs::reopen(self, open)
    }

    fn remember(&mut self, open: OpenInfo) {
        Fs::remember(self, open);
    }

    fn may_have_changed(&mut self, open: OpenId, watch: WatchInfo, since: FileTime) -> bool {
        Fs::may_have_changed(self, open, watch, since)
    }

    fn forget(&mut self, open: OpenId) {
        Fs::forget(self, open);
    }

    fn changes(&mut self) -> Vec<Change> {
        Fs::changes(self)
    }

    fn discard_changes(&mut self) {
        Fs::discard_changes(self);
    }

    fn found_roots(&mut self) -> Vec<(ShareId, FileKey)> {
        Fs::found_roots(self)
    }

    fn learnt_accounts(&mut self) -> Vec<(String, Option<Ids>)> {
        Fs::learnt_accounts(self)
    }

    fn expect_account(&mut self, name: &str, ids: &Ids) {
        Fs::expect_account(self, name, ids);
    }

    fn offline(&self) -> Vec<ShareId> {
        Fs::offline(self)
    }

    fn expect_root(&mut self, share: ShareId, key: FileKey) {
        Fs::expect_root(self, share, key);
    }

    fn perform_again(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
        as_server: bool,
    ) -> Result<Outcome, NtStatus> {
        Fs::perform_again(self, actor, op, intent, as_server)
    }

    fn drop_cached(&mut self, open: OpenId) {
        Fs::drop_cached(self, open);
    }

    fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        Fs::mark(self, share, number)
    }

    fn marked(&mut self, share: ShareId) -> std::io::Result<u64> {
        Fs::marked(self, share)
    }

    fn begin_sync(&mut self) {
        Fs::begin_sync(self);
    }

    fn synced(&mut self) -> Option<Vec<ShareId>> {
        Fs::synced(self)
    }

    fn wait_synced(&mut self) -> Vec<ShareId> {
        Fs::wait_synced(self)
    }

    fn under_sync(&self) -> Vec<ShareId> {
        Fs::under_sync(self)
    }

    fn leave_sync(&mut self) {
        Fs::leave_sync(self);
    }

    fn late(&mut self) -> Vec<(ShareId, bool)> {
        Fs::late(self)
    }
}
