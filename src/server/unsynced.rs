//! After a sync of the shares' file systems that has failed (durability `power`).
//!
//! The kernel may have dropped the pages that it could not write, and the next sync then succeeds without them. So a failed one is put on
//! record, and what was done since the last one that succeeded is done once more, from the log, before another is asked for. If that one
//! fails, too, the file systems are *sick*: operations on them are refused until a sync has succeeded.

use std::time::Duration;

use log::{error, info};
use outlast_nvram::Kind;
use outlast_smb::fileop::FileOp;
use outlast_smb::status::NtStatus;

use super::consistency::Effects;
use super::files::FileSystem;
use super::machine::Machine;
use super::record::Record;
use super::recover::decode;
use super::redo::Files;

/// Failures in a row that make a file system sick. A single one is mended before anyone notices.
const FAILURES: u32 = 2;

impl Effects {
    /// What was done may be read wrongly, and may be lost: nothing is done to files.
    pub fn is_sick(&self) -> bool {
        self.failures >= FAILURES
    }
}

impl<F: FileSystem> Machine<F> {
    /// A sync has failed: what was done until now is not known to be anywhere but in the log.
    pub(super) fn note_failed_sync(&mut self, now: Duration) {
        // Also what was done after it had begun.
        if self.effects.as_ref().is_some_and(|of| of.count > 0) {
            self.begin_generation(now);
        }
        let Some(effects) = &mut self.effects else {
            return;
        };
        effects.failures = effects.failures.saturating_add(1);
        if let Some(oldest) = effects.older.first()
            && !std::mem::replace(&mut effects.is_unsynced, true)
        {
            self.journal
                .put(*oldest, Kind::Delta, &Record::Unsynced, &[]);
        }
        if effects.failures == FAILURES {
            error!(
                "the shares' file systems cannot be synced: operations on them are refused until they can; see the kernel's log (dmesg)"
            );
        }
        self.journal.commit(now);
    }

    /// Law 5: what an operation beside the loop writes must not be written over by what was done before it.
    pub(super) fn may_mend(&self) -> bool {
        !self.is_to_be_mended() || self.under_way.is_none()
    }

    fn is_to_be_mended(&self) -> bool {
        self.effects.as_ref().is_some_and(|of| of.failures > 0)
    }

    /// If a sync has failed: does once more what was done since the last one that succeeded. `false`: that cannot be done now.
    pub(super) fn mend(&mut self, now: Duration) -> bool {
        if !self.is_to_be_mended() {
            return true;
        }
        let mended = self.do_again(now);
        let Some(effects) = &mut self.effects else {
            return true;
        };
        match mended {
            Ok(()) => {
                info!("a sync has failed: what was done since the last one has been done once more")
            }
            Err(error) => {
                error!("{error:#}");
                effects.failures = effects.failures.max(FAILURES);
                effects.since = now;
                return false;
            }
        }
        true
    }

    fn do_again(&mut self, now: Duration) -> anyhow::Result<()> {
        let (Some(log), Some(effects)) = (self.journal.log(), &self.effects) else {
            return Ok(());
        };
        let records = log.read_back(|object| effects.older.contains(&object))?;
        let mut files = Files::default();
        for (object, record, data) in decode(records)? {
            files.take(object, record, data);
        }
        let made = files
            .effects
            .iter()
            .filter_map(|(effect, ..)| match &effect.op {
                FileOp::Create(create) => Some(create.open),
                _ => None,
            });
        let made: std::collections::BTreeSet<_> = made.collect();
        self.redo(files, now)?;
        // The redo of a create closes what it opens, and that may be a client's.
        for open in self.smb.opens().filter(|open| made.contains(&open.open)) {
            self.fs.remember(&open);
        }
        Ok(())
    }

    /// Why an operation is not to be done, whatever it would find.
    pub(super) fn refusal(&self, op: &FileOp) -> Option<NtStatus> {
        let is_sick = self.effects.as_ref().is_some_and(Effects::is_sick);
        // A close changes nothing but what is open.
        let closes = matches!(op, FileOp::Close { delete: None, .. });
        (is_sick && !closes).then_some(NtStatus::IO_DEVICE_ERROR)
    }
}
