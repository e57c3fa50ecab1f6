//! Follows the log of a running server: folds its records shortly after they are committed, so that very little is left
//! to fold when that server ends.
//!
//! A follower has the complete state of TCP and SMB. It does nothing with it: no frame, no file operation, no store to
//! the log.

use std::sync::Arc;

use outlast_nvram::{Contents, Error, Followed, Kind, Log, Lsn, Memory, codec};

use super::digest::Mark;
use super::fold::Fold;

/// The number of records that are read at a time.
const PORTION: usize = 1024;
/// The number of times that a follower which takes over may read a whole log. It starts again if it falls behind, which
/// happens at most once if nothing is written any more.
const ATTEMPTS: usize = 3;

/// Follows a server's log.
pub struct Follower {
    memory: Arc<dyn Memory>,
    stack: outlast_stack::Config,
    smb: outlast_smb::Config,
    log: outlast_nvram::Follower,
    fold: Fold,
    /// The number of records read since it began.
    records: u64,
}

/// The log that was taken over, and its state.
pub(super) struct TakenOver {
    pub log: Log,
    /// The contents without records.
    pub contents: Contents,
    pub fold: Fold,
    /// The number of records that were still to be folded.
    pub replayed: u64,
}

impl Follower {
    /// Starts to follow the log in this memory. The configurations are those of the next server.
    ///
    /// # Errors
    /// There is no log yet, or it is damaged.
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

    /// The position up to which it has read, in bytes since the log was formatted.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.log.position().0
    }

    /// Reads and folds some committed records, up to `limit` at most if that lies ahead; starts again if they have been
    /// overwritten. False: there are more.
    ///
    /// # Errors
    /// The log is damaged, or contains a record that cannot be folded.
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
        self.fold.forget_wakeups();
        match advanced {
            Err(Error::FellBehind) => {
                let (stack, smb) = (self.stack.clone(), self.smb.clone());
                *self = Follower::begin(self.memory.clone(), stack, smb)?;
                Ok(false)
            }
            advanced => Ok(advanced?),
        }
    }

    /// Returns whether the state is the one that the server had when it made the mark. `None`: this is another position
    /// of the log, or the state is not complete yet.
    #[must_use]
    pub fn agrees(&self, mark: &Mark) -> Option<bool> {
        if self.position() != mark.position || !self.log.is_whole() {
            return None;
        }
        let (digest, _) = self.fold.state()?.digest(mark.from);
        Some(digest == mark.digest)
    }

    /// Folds what is left and takes over the log, whose server has ended.
    ///
    /// # Errors
    /// The log has to be read from its tail.
    pub(super) fn take_over(mut self) -> anyhow::Result<TakenOver> {
        let before = self.records;
        // Each iteration reads a portion, or what is left, or starts again. A record is longer than a byte.
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
        // The records before have made the same state (law 2).
        Kind::Begin | Kind::Part if is_known => return Ok(()),
        Kind::Snapshot | Kind::Begin | Kind::Part | Kind::Complete | Kind::Delta => {}
    }
    fold.take(object, codec::decode(&meta)?, data)
}

#[cfg(test)]
mod tests;
