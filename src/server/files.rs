//! What the machine asks of a file system, and the real one.

use std::time::Duration;

use outlast_fsa::fileop::{
    Actor, Change, FileKey, FileOp, FileTime, Intent, OpenId, Outcome, ShareId,
};
use outlast_fsa::status::NtStatus;
use outlast_smb::OpenInfo;

use super::record::Ids;
use crate::fs::Fs;

/// File operations; see [`outlast_fsa::fileop`]. What comes after `discard_changes` is for durability `power`; as it stands, it is that of a
/// file system that loses nothing.
pub trait FileSystem {
    /// Looks at what an operation will meet, and changes nothing.
    ///
    /// # Errors
    /// The operation's answer, if it cannot be done.
    fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus>;
    /// Does it; again and again with the same result, given the same intent.
    ///
    /// # Errors
    /// The operation's answer.
    fn perform(&mut self, actor: &Actor, op: &FileOp, intent: &Intent)
    -> Result<Outcome, NtStatus>;
    /// As [`FileSystem::perform`], or begins it: `None` if it is under way, beside the caller, until [`FileSystem::finished`] has its outcome.
    fn begin(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Option<Result<Outcome, NtStatus>> {
        Some(self.perform(actor, op, intent))
    }
    /// The outcome of the operation under way, once.
    fn finished(&mut self) -> Option<Result<Outcome, NtStatus>> {
        None
    }
    /// Waits for the operation under way, if there is one.
    fn wait(&mut self) {}
    /// Lets time pass before an operation is tried again; as it stands, none.
    fn pause(&mut self, time: Duration) {
        let _ = time;
    }
    /// Opens a file again that was open before a recovery, at once.
    ///
    /// # Errors
    /// FILE_CLOSED if it is gone; else as `open`.
    fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus>;
    /// Takes note of an open from before a recovery. Its file is opened when it is used: an operation that finds it
    /// gone is answered with FILE_CLOSED, and after any other error the next operation tries again. What it watched is
    /// watched again.
    fn remember(&mut self, open: &OpenInfo) {
        if let Err(status) = self.reopen(open) {
            log::warn!("{}: cannot be opened again: {status}", open.path);
        }
    }
    /// May what an open watches have changed after this wall time without the server being told? Asked when the open
    /// has been remembered.
    fn may_have_changed(&mut self, open: &OpenInfo, since: FileTime) -> bool {
        let _ = (open, since);
        true
    }
    /// Closes what is open under this id, if anything is.
    fn forget(&mut self, open: OpenId);
    /// Changes in watched directories that others made.
    fn changes(&mut self) -> Vec<Change>;
    /// Passes over the changes our own operation has just made.
    fn discard_changes(&mut self);
    /// The shares' directories that have been opened since the last call; as it stands, those of a file system that has no others.
    fn found_roots(&mut self) -> Vec<(ShareId, FileKey)> {
        Vec::new()
    }
    /// What the name service has answered about local accounts since the last call, where that is new. `None`: there is
    /// no such account.
    fn learnt_accounts(&mut self) -> Vec<(String, Option<Ids>)> {
        Vec::new()
    }
    /// What the name service has answered last, in an earlier life.
    fn expect_account(&mut self, name: &str, ids: &Ids) {
        let _ = (name, ids);
    }
    /// The shares whose directories are not there now.
    fn offline(&self) -> Vec<ShareId> {
        Vec::new()
    }
    /// A share had this directory before: no other is served in its place.
    fn expect_root(&mut self, share: ShareId, key: FileKey) {
        let _ = (share, key);
    }
    /// Does an operation once more that has been done, after a power cut: with the server's own rights if `as_server`, for the account may have
    /// lost since what it had then; else with the account's, and if these do not suffice with the server's.
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
    /// Has what is cached of an open file written, as far as it can be, and read from the medium from now on. After a
    /// write that failed the cache may take blocks for written that are not, and would not write them with what comes
    /// next.
    fn drop_cached(&mut self, open: OpenId) {
        let _ = open;
    }
    /// Sets the marker of a share, a change of metadata that the file system keeps in order with all others: every effect on names up
    /// to this number has been done.
    ///
    /// # Errors
    /// It cannot be written.
    fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        let _ = (share, number);
        Ok(())
    }
    /// The marker of a share as the file system has it; 0 if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn marked(&mut self, share: ShareId) -> std::io::Result<u64> {
        let _ = share;
        Ok(0)
    }
    /// Begins to bring everything done so far onto the media of the shares, but for those of which a sync is under way
    /// that was left.
    fn begin_sync(&mut self) {}
    /// Is it there? `None`: not yet; else the shares whose files could not be brought there. Does not wait.
    fn synced(&mut self) -> Option<Vec<ShareId>> {
        Some(Vec::new())
    }
    /// The shares that [`FileSystem::synced`] waits for.
    fn under_sync(&self) -> Vec<ShareId> {
        Vec::new()
    }
    /// It waits for them no more: [`FileSystem::late`] has what comes of them.
    fn leave_sync(&mut self) {}
    /// The shares that were left and of which the sync has come to its end since the last call; has it succeeded?
    fn late(&mut self) -> Vec<(ShareId, bool)> {
        Vec::new()
    }
    /// Waits for it.
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

    fn remember(&mut self, open: &OpenInfo) {
        Fs::remember(self, open);
    }

    fn may_have_changed(&mut self, open: &OpenInfo, since: FileTime) -> bool {
        Fs::may_have_changed(self, open, since)
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
