//! Performs large writes on a thread, so that the loop receives and acknowledges frames meanwhile.
//!
//! It performs one write at a time: no second effect is begun before the first one's result is recorded (law 5).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use outlast_fsa::Pieces;
use outlast_fsa::fileop::{Actor, FileOp, Intent, OpenId, Outcome};
use outlast_fsa::status::NtStatus;

use super::account::{Account, Assumed};
use super::errno::status;
use super::{Fs, attributes, data, find_root};

/// The size from which on a write is given to the thread, in bytes.
pub const LARGE_BYTES: usize = 256 << 10;

/// A large write.
pub struct Write {
    /// The file.
    pub fd: Arc<OwnedFd>,
    /// The account whose rights, quota and reserve apply.
    pub account: Arc<Account>,
    /// The server's own account.
    pub own: Arc<Account>,
    /// The offset in bytes.
    pub offset: u64,
    /// The bytes.
    pub data: Pieces,
    /// Whether the write has to be on the medium before it is done.
    pub write_through: bool,
}

/// The result of a write.
pub type Written = Result<Outcome, NtStatus>;

/// Performs a write.
///
/// # Errors
/// The status of the response.
pub fn perform(write: &Write) -> Written {
    let assumed = Assumed::instead_of(&write.own, &write.account)?;
    let Write {
        fd,
        offset,
        data,
        write_through,
        ..
    } = write;
    let count = data::write(fd.as_fd(), *offset, data, *write_through)?;
    drop(assumed);
    attributes::note_modified(fd.as_fd()).map_err(status)?;
    Ok(Outcome::Written {
        count,
        offset: *offset,
    })
}

impl Fs {
    /// Performs as [`Fs::perform`]; a large write is only begun, by the writer thread: `None`. No other operation may
    /// follow until [`Fs::finished`] has returned its outcome.
    pub fn begin(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Option<Result<Outcome, NtStatus>> {
        match (op, intent) {
            (
                FileOp::Write {
                    open,
                    data,
                    write_through,
                    ..
                },
                Intent::Write { offset },
            ) if data.len() >= LARGE_BYTES && !self.opens.is_of_stream(*open) => {
                self.watcher.collect();
                let begun = self.with_descriptors(|fs| {
                    fs.ready(op)?;
                    fs.begin_write(actor, *open, *offset, data, *write_through)
                });
                begun.err().map(Err)
            }
            _ => Some(self.perform(actor, op, intent)),
        }
    }

    fn begin_write(
        &mut self,
        actor: &Actor,
        open: OpenId,
        offset: u64,
        data: &Pieces,
        write_through: bool,
    ) -> Result<(), NtStatus> {
        let root = find_root(&self.roots, actor.share)?;
        let account = self
            .accounts
            .choose(root.run_as.as_deref(), actor.user.as_deref())?;
        let fd = Arc::clone(&self.written(open)?.fd);
        self.writer.begin(Write {
            fd,
            account,
            own: self.accounts.own(),
            offset,
            data: data.clone(),
            write_through,
        });
        Ok(())
    }

    /// Returns whether the operation that was begun has ended.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.writer.has_finished()
    }

    /// The outcome of the operation that was begun, once, when it has ended.
    pub fn finished(&mut self) -> Option<Result<Outcome, NtStatus>> {
        let outcome = self.writer.finished()?;
        Some(outcome.inspect_err(|status| self.note_failure(*status)))
    }

    /// Waits until the operation that was begun has ended.
    pub fn wait(&mut self) {
        self.writer.wait();
    }
}
