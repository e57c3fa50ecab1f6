//! Recovery from a failed sync of the shares' file systems (durability `power`).
//!
//! The kernel may have dropped the pages that it could not write, and the next sync then succeeds without them. So a
//! failed sync is recorded, and everything done since the last successful one is done once more, from the log, before
//! another sync. A share for which that one fails too is isolated ([`super::isolation`]).

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

/// The number of successive failures after which a share is isolated. A single one is repaired without any client
/// noticing.
pub(super) const FAILURES: u32 = 2;

impl<F: FileSystem> Machine<F> {
    /// Notes that a sync has failed for these shares: what was done until now is known to be in the log only.
    pub(super) fn note_failed_sync(&mut self, failed: &[ShareId], now: Duration) {
        let effects = self.effects.as_ref();
        let begun = effects.map(|of| of.older.clone()).unwrap_or_default();
        // Including what was done after it had begun.
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
            if self.isolate_or_wait(why, now) && self.isolate_more(now) {
                // For the others it has succeeded.
                self.end_generations(&begun);
            }
        }
        self.journal.commit(now);
    }

    /// Ends generations whose effects are on the media, or in another generation.
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

    /// Law 5: what an operation in parallel to the loop writes must not be overwritten by what was done before it.
    pub(super) fn may_redo_unsynced(&self) -> bool {
        let effects = self.effects.as_ref();
        let needs_redo = effects.is_some_and(|of| of.failures > 0 || !of.isolated.is_empty());
        !needs_redo || self.under_way.is_none()
    }

    /// After a failed sync, does once more what was done since the last successful one. `false`: it is not possible
    /// now.
    pub(super) fn redo_unsynced(&mut self, now: Duration) -> bool {
        let Some(effects) = self.effects.as_ref().filter(|of| of.failures > 0) else {
            return true;
        };
        let (older, object) = (
            effects.older.clone(),
            effects.generation.unwrap_or_default(),
        );
        let without = effects.isolated.keys().copied().collect();
        info!("a sync has failed: what was done since the last one is done once more");
        let redone = self.do_again(|object| older.contains(&object), object, &without, now);
        match redone {
            Ok(failed) => {
                let shares = failed.keys().copied().collect();
                let is_isolated = self.isolate_or_wait(failed, now);
                if let Some(effects) = &mut self.effects {
                    effects.not_redone = match is_isolated {
                        true => BTreeSet::new(),
                        false => shares,
                    };
                }
                is_isolated
            }
            Err(error) => {
                log::error!("{error:#}");
                if let Some(effects) = &mut self.effects {
                    effects.since = now;
                }
                false
            }
        }
    }

    /// Does the effects of these generations once more. Returns the shares for which that is not possible, and why.
    pub(super) fn do_again(
        &mut self,
        generations: impl Fn(u64) -> bool,
        object: u64,
        without: &BTreeSet<ShareId>,
        now: Duration,
    ) -> anyhow::Result<BTreeMap<ShareId, String>> {
        let files = self.read_back(generations, now)?;
        let made = files
            .effects
            .iter()
            .filter_map(|(effect, ..)| match &effect.op {
                FileOp::Create(create) => Some(create.open),
                _ => None,
            });
        let made: BTreeSet<OpenId> = made.collect();
        let failed = self.redo(files, object, without, now)?;
        // The redo of a create closes what it opens, which may be a client's open.
        for open in self.smb.opens().filter(|open| made.contains(&open.open)) {
            self.fs.remember(open);
        }
        Ok(failed)
    }

    /// Reads the recorded effects of these generations, including those recorded in this turn: the log gives back only
    /// what is committed.
    pub(super) fn read_back(
        &mut self,
        generations: impl Fn(u64) -> bool,
        now: Duration,
    ) -> anyhow::Result<Files> {
        self.journal.commit(now);
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
