//! Follows the log of a server that is at work: folds its records a little after they have been committed, so that next
//! to nothing is left to fold when that server is gone.
//!
//! A follower has the whole state of TCP and SMB. It does nothing with it: no frame, no file, no store to the log.

use std::sync::Arc;

use outlast_nvram::{Contents, Error, Followed, Kind, Log, Lsn, Memory, codec};

use super::digest::Mark;
use super::fold::Fold;

/// Records that are read at a time.
const PORTION: usize = 1024;
/// So often one that takes over may read a whole log: it begins again if it falls behind, which it does once at most if
/// nobody writes any more.
const ATTEMPTS: usize = 3;

/// Follows a server's log.
pub struct Follower {
    memory: Arc<dyn Memory>,
    stack: outlast_stack::Config,
    smb: outlast_smb::Config,
    log: outlast_nvram::Follower,
    fold: Fold,
    /// Records read since it began.
    records: u64,
}

/// The log, taken over, and the state that it amounts to.
pub(super) struct TakenOver {
    pub log: Log,
    /// Without records.
    pub contents: Contents,
    pub fold: Fold,
    /// Records that were still to be folded.
    pub replayed: u64,
}

impl Follower {
    /// Begins to follow the log in this memory. The configurations are those that the next server is to have.
    ///
    /// # Errors
    /// There is no log yet, or what is wrong with it.
    pub fn begin(
        memory: Arc<dyn Memory>,
        stack: outlast_stack::Config,
        smb: outlast_smb::Config,
    ) -> Result<Follower, Error> {
        Ok(Follower {
            log: outlast_nvram::Follower::begin(memory.clone())?,
            fold: Fold::new(stack.clone(), smb.clone()),
            memory,
            stack,
            smb,
            records: 0,
        })
    }

    /// The memory of the log.
    #[must_use]
    pub fn memory(&self) -> Arc<dyn Memory> {
        self.memory.clone()
    }

    /// How far it has read, in bytes since the log was formatted.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.log.position().0
    }

    /// Reads and folds some of what has been committed, and no more than up to `limit` if that lies ahead; begins again
    /// if that has been written over. False: there is more.
    ///
    /// # Errors
    /// The log is damaged, or has what cannot be folded.
    pub fn advance(&mut self, limit: Option<u64>) -> anyhow::Result<bool> {
        let Follower {
            log, fold, records, ..
        } = self;
        let mut problem = Ok(());
        let advanced = log.advance(PORTION, limit.map(Lsn), &mut |followed| {
            *records += 1;
            if problem.is_ok() {
                problem = take(fold, followed);
            }
        });
        problem?;
        self.fold.let_sleep();
        match advanced {
            Err(Error::FellBehind) => {
                let (stack, smb) = (self.stack.clone(), self.smb.clone());
                *self = Follower::begin(self.memory.clone(), stack, smb)?;
                Ok(false)
            }
            advanced => Ok(advanced?),
        }
    }

    /// Is the state the one that the server had when it made the mark? `None`: this is another place of the log, or the
    /// state is not whole yet.
    #[must_use]
    pub fn agrees(&self, mark: &Mark) -> Option<bool> {
        if self.position() != mark.position || !self.log.is_whole() {
            return None;
        }
        let (digest, _) = self.fold.state()?.digest(mark.from);
        Some(digest == mark.digest)
    }

    /// Folds what is left and takes the log over: its server is gone.
    ///
    /// # Errors
    /// The log is to be read anew.
    pub(super) fn take_over(mut self) -> anyhow::Result<TakenOver> {
        let before = self.records;
        // Each time it reads a portion, or what is left, or begins again. A record is longer than a byte.
        let portions = self.memory.len() as usize / PORTION + 2;
        let mut times = 0..ATTEMPTS * portions;
        while !self.advance(None)? {
            anyhow::ensure!(times.next().is_some(), "the log changes under the follower");
        }
        let replayed = self.records.saturating_sub(before);
        let (log, contents) = self.log.take_over()?;
        Ok(TakenOver {
            log,
            contents,
            fold: self.fold,
            replayed,
        })
    }
}

fn take(fold: &mut Fold, followed: Followed) -> anyhow::Result<()> {
    let Followed {
        object,
        kind,
        is_known,
        meta,
        data,
    } = followed;
    match kind {
        Kind::End => {
            fold.end(object);
            return Ok(());
        }
        // The state is what the records before have made of it (law 2).
        Kind::Begin | Kind::Part if is_known => return Ok(()),
        Kind::Snapshot | Kind::Begin | Kind::Part | Kind::Complete | Kind::Delta => {}
    }
    fold.take(object, codec::decode(&meta)?, data)
}

#[cfg(test)]
mod tests;
