//! Records the effects on files since the last *consistency point*, the moment up to which the file systems of the
//! shares have written everything to their media (durability `power`).
//!
//! Effects are records of an object of their own, a *generation*. At a consistency point a new generation begins, then
//! the file systems are synced, then the old one ends: so the log keeps what may have to be done once more, and no
//! longer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use log::error;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::{FileOp, Intent, Outcome, ShareId};
use outlast_fsa::status::NtStatus;
use outlast_nvram::{Kind, Lsn};
use outlast_smb::Planned;

use super::clock::Time;
use super::effect::{self, Draft, Effect, Place};
use super::failed_sync::FAILURES;
use super::files::FileSystem;
use super::isolation::Isolated;
use super::machine::Machine;
use super::record::Record;
use super::sizes::BYTES_PER_PLACE;

/// How long effects are kept before the file systems are synced.
const INTERVAL: Duration = Duration::from_secs(10);

/// The largest number of syncs at a planned end of the machine.
const SYNCS_AT_THE_END: usize = 2;

/// Data no longer than this are recorded again: a reference to them would be as long, and would keep the rest of their
/// frame in the log.
const WORTH_A_PLACE_BYTES: usize = 1024;

/// The state of the generations.
#[derive(Debug)]
pub(super) struct Effects {
    /// The generation that takes them.
    pub generation: Option<u64>,
    /// The generations before it, until the file systems are synced.
    pub older: Vec<u64>,
    /// The number of the next effect.
    pub next: u64,
    /// The kernel's boot id: every effect is visible under that kernel.
    pub boot_id: [u8; 16],
    /// Service time when the generation began, or the last consistency point.
    pub since: Duration,
    /// The number of effects in it.
    pub count: u64,
    /// The position of its beginning. It keeps the log's tail there, so its effects may refer to later data, but not to
    /// earlier ones.
    pub begins: Lsn,
    /// The file systems are being synced, for the generations in `older`.
    pub syncing: bool,
    /// Successive syncs that have failed ([`super::failed_sync`]).
    pub failures: u32,
    /// That has been recorded.
    pub is_unsynced: bool,
    /// The log is short of room because of the oldest generation.
    pub wanted: bool,
    /// Service time of the last attempt to isolate hanging shares.
    pub left_at: Duration,
    /// The number of the last effect on each share.
    pub last_of: BTreeMap<ShareId, u64>,
    /// The isolated shares.
    pub isolated: BTreeMap<ShareId, Isolated>,
    /// The shares of which effects could not be done again, and for whose isolation the log has no room: operations on
    /// them are refused, as they may show only a part of what was acknowledged.
    pub not_redone: BTreeSet<ShareId>,
}

impl Effects {
    fn is_due(&self, now: Duration, log_is_half_full: bool) -> bool {
        let has_any = self.has_any();
        // The generation of a recovery is synced without delay; a failed sync is repeated at once, but only once.
        let at_once = self.wanted || log_is_half_full || !self.older.is_empty();
        has_any && (now >= self.since + INTERVAL || (at_once && self.failures < FAILURES))
    }

    fn has_any(&self) -> bool {
        self.count > 0 || !self.older.is_empty() || !self.isolated.is_empty()
    }

    /// When [`Machine::keep_consistent`] will have something to do by the passing of time.
    pub fn deadline(&self) -> Option<Duration> {
        (self.has_any() && !self.syncing).then_some(self.since + INTERVAL)
    }
}

impl<F: FileSystem> Machine<F> {
    /// Handles finished syncs, and begins a consistency point if one is due.
    pub(super) fn keep_consistent(&mut self, time: Time) {
        let effects = self.effects.as_ref();
        let is_any_synced = effects.is_some_and(|of| of.syncing || !of.isolated.is_empty());
        // The effect of an operation in parallel to the loop goes into a generation that may have to be isolated.
        if is_any_synced && self.under_way.is_some() {
            return;
        }
        self.take_late();
        if self.effects.as_ref().is_some_and(|effects| effects.syncing) {
            let synced = self.fs.synced().or_else(|| {
                let is_left = self.isolate_hanging(time.now);
                is_left.then(|| self.fs.synced()).flatten()
            });
            let Some(synced) = synced else {
                return;
            };
            self.end_synced(&synced, time.now);
        }
        let half_full = self.journal.is_half_full();
        let effects = self.effects.as_ref();
        if !effects.is_some_and(|effects| effects.is_due(time.now, half_full)) {
            return;
        }
        if !self.may_redo_unsynced() {
            return;
        }
        if self.effects.as_ref().is_some_and(|of| of.count > 0) {
            self.begin_generation(time.now);
            self.journal.commit(time.now);
        }
        if !self.redo_unsynced(time.now) {
            return;
        }
        self.retry_isolated(time.now);
        self.fs.begin_sync();
        if let Some(effects) = &mut self.effects {
            effects.syncing = true;
            effects.since = time.now;
            effects.wanted = false;
        }
    }

    /// Makes a consistency point at once, and waits for it: for an end after which the machine may stop too. `false`:
    /// the file systems cannot be synced.
    pub(super) fn make_consistent(&mut self, time: Time) -> bool {
        if self.effects.is_none() {
            return true;
        }
        // A sync under way covers only older effects.
        if self.effects.as_ref().is_some_and(|effects| effects.syncing) {
            let failed = self.fs.wait_synced();
            self.end_synced(&failed, time.now);
        }
        for _ in 0..SYNCS_AT_THE_END {
            self.begin_generation(time.now);
            self.journal.commit(time.now);
            self.take_late();
            if !self.may_redo_unsynced() || !self.redo_unsynced(time.now) {
                return false;
            }
            self.retry_isolated(time.now);
            self.fs.begin_sync();
            let failed = self.fs.wait_synced();
            self.end_synced(&failed, time.now);
            let effects = self.effects.as_ref();
            if effects.is_none_or(|of| of.older.is_empty() && of.isolated.is_empty()) {
                return true;
            }
        }
        false
    }

    /// Handles the end of a sync, which has failed for these shares.
    fn end_synced(&mut self, failed: &[ShareId], now: Duration) {
        let Some(effects) = &mut self.effects else {
            return;
        };
        effects.syncing = false;
        let is_known = |share: &ShareId| effects.isolated.contains_key(share);
        let new: Vec<ShareId> = failed
            .iter()
            .copied()
            .filter(|share| !is_known(share))
            .collect();
        self.end_isolation(failed, |_| true);
        if !new.is_empty() {
            return self.note_failed_sync(&new, now);
        }
        if !self.isolate_more(now) {
            return;
        }
        let Some(effects) = &mut self.effects else {
            return;
        };
        effects.failures = 0;
        effects.is_unsynced = false;
        for generation in effects.older.drain(..) {
            self.journal
                .put(generation, Kind::End, &Record::Closed, &[]);
        }
    }

    /// Returns whether this object is a generation.
    pub(super) fn is_generation(&self, object: u64) -> bool {
        self.effects.as_ref().is_some_and(|effects| {
            effects.generation == Some(object) || effects.older.contains(&object)
        }) || self.is_isolated_generation(object)
    }

    /// Relocates a generation that holds the log's tail. One without effects is written again, like any object; one
    /// with effects needs a consistency point, which takes time: then `false`.
    pub(super) fn relocate_generation(&mut self, object: u64, now: Duration) -> bool {
        if self.is_isolated_generation(object) {
            // It is another object now.
            self.copy_isolated(object, now);
            return false;
        }
        let Some(effects) = &mut self.effects else {
            return false;
        };
        if effects.generation != Some(object) || effects.count > 0 {
            effects.wanted = true;
            return false;
        }
        self.put_generation(object);
        true
    }

    /// Writes a generation that has no effects yet.
    fn put_generation(&mut self, generation: u64) {
        let Some(effects) = &mut self.effects else {
            return;
        };
        effects.begins = self.journal.head();
        let record = Record::Generation {
            first: effects.next,
            boot_id: effects.boot_id,
            shares: self.smb.share_names(),
        };
        self.journal.put(generation, Kind::Snapshot, &record, &[]);
    }

    /// Begins a new generation for the effects from now on.
    pub(super) fn begin_generation(&mut self, now: Duration) {
        use outlast_stack::Journal as _;
        if self.effects.is_none() {
            return;
        }
        let generation = self.journal.unique_id();
        self.put_generation(generation);
        let Some(effects) = &mut self.effects else {
            return;
        };
        effects.older.extend(effects.generation.replace(generation));
        effects.since = now;
        effects.count = 0;
    }

    /// Records what an operation did with its result. Returns its outcome. `message`: the one that requested it, if
    /// that is in the receive queue.
    ///
    /// # Errors
    /// The operation's answer.
    pub(super) fn record_outcome(
        &mut self,
        planned: &Planned,
        intent: &Intent,
        outcome: Result<Outcome, NtStatus>,
    ) -> Result<Outcome, NtStatus> {
        let outcome = outcome?;
        if self.effects.is_none() || !planned.op.has_effect() {
            return Ok(outcome);
        }
        // The state still describes the open before the operation.
        let info = self.smb.open_info(planned.task.conn(), planned.op.open());
        let copied = self.copied(planned, intent)?;
        for draft in effect::of(planned, intent, &outcome, info.as_ref(), copied) {
            self.put_effect(planned, draft);
        }
        Ok(outcome)
    }

    fn put_effect(&mut self, planned: &Planned, draft: Draft) {
        let places = self.in_the_log(&draft.data);
        let modified = self.modified(planned, &draft.op);
        self.number_above_marker(planned.actor.share);
        let Some(effects) = &mut self.effects else {
            return;
        };
        let Draft {
            op,
            intent,
            target,
            made,
            modified: at_creation,
            created,
            data,
        } = draft;
        let effect = Effect {
            number: effects.next,
            actor: planned.actor.clone(),
            op,
            intent,
            target,
            made,
            modified: at_creation.max(modified),
            created,
            places,
        };
        effects.last_of.insert(planned.actor.share, effects.next);
        effects.next += 1;
        effects.count += 1;
        if effect.is_of_names()
            && let Err(error) = self.fs.mark(planned.actor.share, effect.number)
        {
            error!(
                "the marker of share {} cannot be set: {error}: a power cut in the next seconds may be taken for one \
                 before this",
                planned.actor.share
            );
            effects.wanted = true;
        }
        if let Some(generation) = effects.generation {
            // Data that are referred to are not recorded again.
            let own: Vec<&[u8]> = match effect.places[..] {
                [] => data.as_slice().iter().map(|piece| &piece[..]).collect(),
                _ => Vec::new(),
            };
            let record = Record::Effect(Cow::Owned(effect));
            self.journal.put(generation, Kind::Delta, &record, &own);
        }
    }

    /// Before the first effect on a share, takes numbers above its marker, whichever server set it: a marker states
    /// that no effect with a higher number is known.
    fn number_above_marker(&mut self, share: ShareId) {
        let Some(effects) = &mut self.effects else {
            return;
        };
        if effects.last_of.contains_key(&share) {
            return;
        }
        match self.fs.marked(share) {
            Ok(marked) => effects.next = effects.next.max(marked + 1),
            // If the marker cannot be set either, that is reported.
            Err(_) => effects.wanted = true,
        }
    }

    /// Returns the places of data in the log as they were received. Empty: none (they were encrypted, or one of several
    /// requests in a message), or not in the part that the generation keeps.
    fn in_the_log(&self, data: &Pieces) -> Vec<Place> {
        let places = || {
            let log = self.journal.log()?;
            let begins = self.effects.as_ref()?.begins;
            let place = |piece: &Bytes| {
                let position = log.position_of(piece).filter(|at| *at >= begins)?;
                Some((position.0, u32::try_from(piece.len()).ok()?))
            };
            data.as_slice()
                .iter()
                .map(place)
                .collect::<Option<Vec<_>>>()
        };
        if data.len() < WORTH_A_PLACE_BYTES {
            return Vec::new();
        }
        places()
            .filter(|places| places.len() * BYTES_PER_PLACE <= data.len())
            .unwrap_or_default()
    }

    /// LastWriteTime after an effect that changes it.
    fn modified(&mut self, planned: &Planned, op: &FileOp) -> u64 {
        let open = match op {
            FileOp::Write { open, .. }
            | FileOp::SetEndOfFile { open, .. }
            | FileOp::SetAllocation { open, .. }
            | FileOp::ZeroData { open, .. }
            | FileOp::SetBasic { open, .. } => *open,
            _ => return 0,
        };
        let stat = FileOp::Stat { open };
        match self.fs.perform(&planned.actor, &stat, &Intent::None) {
            Ok(Outcome::Metadata(metadata)) => metadata.last_write_time,
            _ => 0,
        }
    }

    /// Reads what a copy within the server has copied: its source may have changed by the time it is done once more.
    fn copied(&mut self, planned: &Planned, intent: &Intent) -> Result<Vec<Bytes>, NtStatus> {
        let FileOp::CopyChunks { source, chunks, .. } = &planned.op else {
            return Ok(Vec::new());
        };
        if let Intent::CopyChunks { source } = intent.itself() {
            return Ok(source.iter().cloned().map(Bytes::from).collect());
        }
        let read = |chunk: &outlast_fsa::fileop::Chunk| {
            let read = FileOp::Read {
                open: *source,
                offset: chunk.source_offset,
                length: chunk.length,
            };
            match self.fs.perform(&planned.actor, &read, &Intent::None)? {
                Outcome::Data(data) => Ok(data),
                _ => Err(NtStatus::INTERNAL_ERROR),
            }
        };
        chunks.iter().map(read).collect()
    }
}
