//! After a sync of the shares' file systems that has failed (durability `power`).
//!
//! The kernel may have dropped the pages that it could not write, and the next sync then succeeds without them. So a
//! failed one is put on record, and what was done since the last one that succeeded is done once more, from the log,
//! before another is asked for. A share for which that one fails, too, is *sick* ([`super::sick`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use log::info;
use outlast_fsa::fileop::{FileOp, OpenId, ShareId};
use outlast_nvram::Kind;

use super::files::FileSystem;
use super::fold::decode;
use super::machine::Machine;
use super::record::Record;
use super::redo::Files;

/// Failures in a row that make a share sick. A single one is mended before anyone notices.
pub(super) const FAILURES: u32 = 2;

impl<F: FileSystem> Machine<F> {
    /// A sync has failed for these shares: what was done until now is not known to be anywhere but in the log.
    pub(super) fn note_failed_sync(&mut self, failed: &[ShareId], now: Duration) {
        let effects = self.effects.as_ref();
        let begun = effects.map(|of| of.older.clone()).unwrap_or_default();
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
        if effects.failures >= FAILURES {
            let why = |share: &ShareId| {
                let why = "its file system cannot be synced; see the kernel's log (dmesg)";
                (*share, format!("share {}: {why}", self.share_name(*share)))
            };
            let why = failed.iter().map(why).collect();
            if self.isolate_or_wait(why) && self.set_more_apart() {
                // For the others it has succeeded.
                self.end_generations(&begun);
            }
        }
        self.journal.commit(now);
    }

    /// What these generations hold is on the media, or in another one.
    fn end_generations(&mut self, ended: &[u64]) {
        for object in ended {
            self.journal.put(*object, Kind::End, &Record::Closed, &[]);
        }
        if let Some(effects) = &mut self.effects {
            effects.older.retain(|object| !ended.contains(object));
            if effects.older.is_empty() {
                effects.failures = 0;
                effects.is_unsynced = false;
            }
        }
    }

    /// Law 5: what an operation beside the loop writes must not be written over by what was done before it.
    pub(super) fn may_mend(&self) -> bool {
        let effects = self.effects.as_ref();
        let is_to_be_mended = effects.is_some_and(|of| of.failures > 0 || !of.sick.is_empty());
        !is_to_be_mended || self.under_way.is_none()
    }

    /// If a sync has failed: does once more what was done since the last one that succeeded. `false`: that cannot be
    /// done now.
    pub(super) fn mend(&mut self, now: Duration) -> bool {
        let Some(effects) = self.effects.as_ref().filter(|of| of.failures > 0) else {
            return true;
        };
        let (older, object) = (
            effects.older.clone(),
            effects.generation.unwrap_or_default(),
        );
        let without = effects.sick.keys().copied().collect();
        info!("a sync has failed: what was done since the last one is done once more");
        let redone = self.do_again(|object| older.contains(&object), object, &without, now);
        match redone {
            Ok(sick) => self.isolate_or_wait(sick),
            Err(error) => {
                log::error!("{error:#}");
                if let Some(effects) = &mut self.effects {
                    effects.since = now;
                }
                false
            }
        }
    }

    /// Does once more what these generations hold. Gives the shares for which that cannot be done, and why.
    pub(super) fn do_again(
        &mut self,
        generations: impl Fn(u64) -> bool,
        object: u64,
        without: &BTreeSet<ShareId>,
        now: Duration,
    ) -> anyhow::Result<BTreeMap<ShareId, String>> {
        let files = self.read_back(generations)?;
        let made = files
            .effects
            .iter()
            .filter_map(|(effect, ..)| match &effect.op {
                FileOp::Create(create) => Some(create.open),
                _ => None,
            });
        let made: BTreeSet<OpenId> = made.collect();
        let failed = self.redo(files, object, without, now)?;
        // The redo of a create closes what it opens, and that may be a client's.
        for open in self.smb.opens().filter(|open| made.contains(&open.open)) {
            self.fs.remember(&open);
        }
        Ok(failed)
    }

    /// What is on record in these generations.
    pub(super) fn read_back(&self, generations: impl Fn(u64) -> bool) -> anyhow::Result<Files> {
        let mut files = Files::default();
        let Some(log) = self.journal.log() else {
            return Ok(files);
        };
        for (object, record, data) in decode(log.read_back(generations)?)? {
            files.take(object, record, data);
        }
        Ok(files)
    }
}
