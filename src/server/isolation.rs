//! Isolates a share whose file system fails, or does not answer (durability `power`), so that the others are served.
//!
//! The effects on it since the last successful sync are recorded once more, in a generation of its own, and the others'
//! generations end without it. Operations on a share that fails are refused. At each consistency point the effects in
//! its generation are done again. Operations on a share that does not answer wait. When a sync that was begun after all
//! effects in the generation has succeeded, the share is served again and the generation ends.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use log::{error, info, warn};
use outlast_fsa::fileop::{FileKey, FileOp, ShareId};
use outlast_fsa::status::NtStatus;
use outlast_nvram::{Kind, codec};
use outlast_smb::Planned;

use super::effect::{Effect, Identity};
use super::files::FileSystem;
use super::machine::Machine;
use super::record::Record;
use super::redo::Files;
use crate::one_line::OneLine;

/// Service time after which an unfinished sync no longer holds up other shares.
pub(super) const HANGS: Duration = Duration::from_secs(20);

/// The time between two attempts to isolate a hanging share for which the log had no room.
const PAUSE: Duration = Duration::from_secs(1);

/// An isolated share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Isolated {
    /// The generation with the effects that are not known to be on its medium.
    pub generation: u64,
    state: State,
    /// All of these were done, or done once more, before the last sync was begun.
    is_covered: bool,
    /// The number of its last effect; 0: it has none.
    up_to: u64,
}

/// The state of an isolated share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A sync of it has failed, or an effect on it cannot be done again.
    Fails,
    /// A sync of it is under way that no operation waits for.
    Hangs,
    /// It answers again.
    Answers,
}

/// Effects of a share, each with the data of a write, in pieces.
type Effects = Vec<(Effect, Vec<Bytes>)>;

/// Bytes that an effect takes in the log.
fn size((effect, data): &(Effect, Vec<Bytes>)) -> usize {
    const AROUND: usize = 128;
    let mut meta = Vec::new();
    codec::encode(&Record::Effect(Cow::Borrowed(effect)), &mut meta);
    AROUND + meta.len() + data.iter().map(Bytes::len).sum::<usize>()
}

impl<F: FileSystem> Machine<F> {
    fn isolated(&self, share: ShareId) -> Option<&Isolated> {
        self.effects.as_ref()?.isolated.get(&share)
    }

    /// Returns the error with which an operation has to be refused in any case.
    pub(super) fn refusal(&self, planned: &Planned) -> Option<NtStatus> {
        let of = self.effects.as_ref()?;
        let isolated = of.isolated.get(&planned.actor.share);
        let fails = isolated.is_some_and(|isolated| isolated.state == State::Fails)
            || of.not_redone.contains(&planned.actor.share);
        // A close changes nothing but the open.
        let closes = matches!(planned.op, FileOp::Close { delete: None, .. });
        (fails && !closes).then_some(NtStatus::IO_DEVICE_ERROR)
    }

    /// Returns whether an operation waits until its share answers. One whose intent is recorded does not: it precedes
    /// all others.
    pub(super) fn has_to_wait(&self, planned: &Planned) -> bool {
        planned.intent.is_none() && self.is_waited_for(planned.actor.share)
    }

    /// Returns whether the operations of this share wait.
    pub(super) fn is_waited_for(&self, share: ShareId) -> bool {
        self.isolated(share)
            .is_some_and(|isolated| isolated.state != State::Fails)
    }

    /// Describes what keeps shares from being served, a sentence each.
    #[must_use]
    pub fn share_problems(&self) -> Vec<String> {
        let line = |share| {
            format!(
                "share {}: its directory is not there",
                self.share_name(share)
            )
        };
        let offline = self.fs.offline().into_iter().map(line);
        offline.chain(self.isolated_shares()).collect()
    }

    fn isolated_shares(&self) -> Vec<String> {
        let isolated = self.effects.iter().flat_map(|of| &of.isolated);
        let isolated = isolated.map(|(share, isolated)| (share, isolated.state));
        let not_redone = self.effects.iter().flat_map(|of| &of.not_redone);
        let not_redone = not_redone.map(|share| (share, State::Fails));
        let line = |(share, state): (&ShareId, State)| {
            let what = match state {
                State::Fails => "its file system fails: operations on it are refused",
                State::Hangs | State::Answers => {
                    "its file system does not answer: operations on it wait"
                }
            };
            format!("share {}: {what}", self.share_name(*share))
        };
        isolated.chain(not_redone).map(line).collect()
    }

    pub(super) fn share_name(&self, share: ShareId) -> String {
        let name = self.smb.shares().get(share as usize);
        OneLine(name.map_or("", |share| &share.name)).to_string()
    }

    /// As [`Machine::isolate`]; `false` if it is not possible now.
    pub(super) fn isolate_or_wait(
        &mut self,
        failed: BTreeMap<ShareId, String>,
        now: Duration,
    ) -> bool {
        let isolated = self.isolate(failed, now);
        isolated.inspect_err(|error| error!("{error:#}")).is_ok()
    }

    /// Isolates failing shares, with all effects on them since the last successful sync. The current generation has no
    /// effects yet.
    ///
    /// # Errors
    /// The log cannot be read back, or has no room.
    pub(super) fn isolate(
        &mut self,
        failed: BTreeMap<ShareId, String>,
        now: Duration,
    ) -> anyhow::Result<()> {
        for why in failed.values() {
            error!(
                "{why}; operations on it are refused until it can be written, which is tried every 10 s"
            );
        }
        let failed = failed.into_keys().map(|share| (share, State::Fails));
        self.isolate_shares(failed.collect(), now)
    }

    /// Isolates shares whose sync has taken too long, if others have to wait because of it. `false`: that is not so, or
    /// it is not possible now.
    pub(super) fn isolate_hanging(&mut self, now: Duration) -> bool {
        let half_full = self.journal.is_half_full();
        let Some(of) = &mut self.effects else {
            return false;
        };
        let is_short = of.wanted || half_full;
        if !is_short || now < of.since + HANGS || now < of.left_at + PAUSE {
            return false;
        }
        of.left_at = now;
        let hanging = self.fs.under_sync();
        // Without another share there is nothing to gain.
        if hanging.is_empty() || hanging.len() == self.smb.shares().len() {
            return false;
        }
        let apart = hanging.iter().map(|share| (*share, State::Hangs));
        if let Err(error) = self.isolate_shares(apart.collect(), now) {
            error!("{error:#}");
            return false;
        }
        for share in &hanging {
            warn!(
                "share {}: its file system has not answered for {} s: operations on it wait until it does, and the \
                 other shares are served",
                self.share_name(*share),
                (now - self.effects.as_ref().map_or(now, |of| of.since)).as_secs()
            );
        }
        self.fs.leave_sync();
        true
    }

    /// Moves effects on shares since their isolation to their generations, before the older generations end. `false`:
    /// it is not possible now.
    pub(super) fn isolate_more(&mut self, now: Duration) -> bool {
        let Some(of) = &self.effects else { return true };
        let last = |share: &ShareId| of.last_of.get(share).copied().unwrap_or(0);
        let more = of
            .isolated
            .iter()
            .filter(|(share, isolated)| isolated.up_to < last(share));
        let more = more
            .map(|(share, isolated)| (*share, isolated.state))
            .collect();
        let put = self.isolate_shares(more, now);
        put.inspect_err(|error| error!("{error:#}")).is_ok()
    }

    /// Isolates shares; the effects in an existing generation of theirs are included.
    fn isolate_shares(
        &mut self,
        shares: BTreeMap<ShareId, State>,
        now: Duration,
    ) -> anyhow::Result<()> {
        let Some(of) = self.effects.as_ref().filter(|_| !shares.is_empty()) else {
            return Ok(());
        };
        let before = shares.keys().filter_map(|share| of.isolated.get(share));
        let before = before.map(|isolated| isolated.generation);
        let wanted: BTreeSet<u64> = before.chain(of.older.iter().copied()).collect();
        let files = self.read_back(|object| wanted.contains(&object), now)?;
        self.put_isolated(files, &shares)
    }

    /// Relocates the generation of an isolated share, and ends the one before.
    pub(super) fn copy_isolated(&mut self, object: u64, now: Duration) {
        let mut isolated = self.effects.iter().flat_map(|of| &of.isolated);
        let Some((share, before)) = isolated.find(|(_, isolated)| isolated.generation == object)
        else {
            return;
        };
        let (share, before) = (*share, *before);
        let copied = self.read_back(|other| other == object, now);
        let put = copied
            .and_then(|files| self.put_isolated(files, &BTreeMap::from([(share, before.state)])));
        if let Err(error) = put {
            error!("{error:#}");
        }
    }

    pub(super) fn is_isolated_generation(&self, object: u64) -> bool {
        let mut isolated = self.effects.iter().flat_map(|of| of.isolated.values());
        isolated.any(|isolated| isolated.generation == object)
    }

    fn put_isolated(
        &mut self,
        mut files: Files,
        shares: &BTreeMap<ShareId, State>,
    ) -> anyhow::Result<()> {
        self.find_data(&mut files)?;
        // A generation that has not ended yet may hold the same effects as another one.
        files.effects.sort_by_key(|(effect, ..)| effect.number);
        files.effects.dedup_by_key(|(effect, ..)| effect.number);
        let names = self.smb.share_names();
        let mut of_shares: BTreeMap<ShareId, Effects> = shares
            .keys()
            .map(|share| (*share, Effects::new()))
            .collect();
        for (effect, data, name) in files.effects {
            let share = names.iter().position(|other| *other == name);
            let share = share.and_then(|share| ShareId::try_from(share).ok());
            if let Some(of_share) = share.and_then(|share| of_shares.get_mut(&share)) {
                of_share.push((effect, data));
            }
        }
        // This makes room, since the older generations end.
        self.journal.make_room(true);
        let bytes: usize = of_shares.values().flatten().map(size).sum();
        let fits = self.journal.has_room(0, bytes as u64);
        if fits {
            self.put_all(shares, of_shares, &names, &files.remade);
        }
        self.journal.make_room(false);
        anyhow::ensure!(
            fits,
            "the log has no room to set a share apart: the others wait for it"
        );
        Ok(())
    }

    fn put_all(
        &mut self,
        shares: &BTreeMap<ShareId, State>,
        of_shares: BTreeMap<ShareId, Effects>,
        names: &[String],
        remade: &[(FileKey, Identity)],
    ) {
        for (share, effects) in of_shares {
            let up_to = effects.last().map_or(0, |(effect, _)| effect.number);
            let generation = self.put_generation_of(share, names, remade, effects);
            let state = shares.get(&share).copied().unwrap_or(State::Fails);
            let Some(of) = &mut self.effects else {
                continue;
            };
            let before = of.isolated.get(&share).copied();
            let isolated = Isolated {
                generation,
                state,
                // A hanging sync was begun after all effects in the generation were done.
                is_covered: match before {
                    Some(before) => before.is_covered && before.up_to == up_to,
                    None => state == State::Hangs,
                },
                up_to,
            };
            of.isolated.insert(share, isolated);
            if let Some(before) = before {
                self.journal
                    .put(before.generation, Kind::End, &Record::Closed, &[]);
            }
        }
    }

    /// Records a generation that holds these effects of a share, and no others.
    fn put_generation_of(
        &mut self,
        share: ShareId,
        names: &[String],
        remade: &[(FileKey, Identity)],
        effects: Effects,
    ) -> u64 {
        use outlast_stack::Journal as _;
        let generation = self.journal.unique_id();
        let of = self.effects.as_ref();
        let begins = Record::Generation {
            first: of.map_or(1, |of| of.next),
            boot_id: of.map_or([0; 16], |of| of.boot_id),
            shares: names.to_vec(),
        };
        let journal = &mut self.journal;
        journal.put(generation, Kind::Snapshot, &begins, &[]);
        journal.put(generation, Kind::Delta, &Record::Unsynced, &[]);
        for (from, now) in remade {
            let now = Cow::Borrowed(now);
            let record = Record::Remade { from: *from, now };
            journal.put(generation, Kind::Delta, &record, &[]);
        }
        for (mut effect, data) in effects {
            effect.actor.share = share;
            effect.places.clear();
            let data: Vec<&[u8]> = data.iter().map(Bytes::as_ref).collect();
            let record = Record::Effect(Cow::Owned(effect));
            journal.put(generation, Kind::Delta, &record, &data);
        }
        generation
    }

    /// Does the effects on failing shares once more, before a sync is begun.
    pub(super) fn retry_isolated(&mut self, now: Duration) {
        let Some(of) = &self.effects else { return };
        let failing = of
            .isolated
            .iter()
            .filter(|(_, isolated)| isolated.state == State::Fails);
        let failing: BTreeMap<u64, ShareId> = failing
            .map(|(share, isolated)| (isolated.generation, *share))
            .collect();
        // All of them together, in order: shares of one file system may have files in common.
        let object = failing.keys().next().copied();
        let redone = object.map(|object| {
            let is_of_them = |other| failing.contains_key(&other);
            self.do_again(is_of_them, object, &BTreeSet::new(), now)
        });
        let failed: Option<BTreeSet<ShareId>> = match redone {
            None => Some(BTreeSet::new()),
            Some(Ok(failed)) => Some(failed.into_keys().collect()),
            Some(Err(error)) => {
                error!("{error:#}");
                None
            }
        };
        let Some(of) = &mut self.effects else { return };
        for (share, isolated) in &mut of.isolated {
            match isolated.state {
                State::Fails => {
                    let failed = failed.as_ref();
                    isolated.is_covered = failed.is_some_and(|failed| !failed.contains(share));
                }
                State::Answers => isolated.is_covered = true,
                State::Hangs => {}
            }
        }
    }

    /// Handles the ends of syncs that no operation waits for.
    pub(super) fn take_late(&mut self) {
        let late = self.fs.late();
        let Some(of) = self.effects.as_mut().filter(|_| !late.is_empty()) else {
            return;
        };
        let ended: BTreeSet<ShareId> = late.iter().map(|(share, _)| *share).collect();
        let failed = late.iter().filter(|(_, is_synced)| !is_synced);
        let failed: Vec<ShareId> = failed.map(|(share, _)| *share).collect();
        for (share, isolated) in &mut of.isolated {
            if ended.contains(share) {
                isolated.state = State::Answers;
            }
        }
        self.end_isolation(&failed, |share| ended.contains(share));
    }

    /// Handles the end of a sync of these shares, which has failed for some of them. The others are served again if it
    /// covers all effects.
    pub(super) fn end_isolation(&mut self, failed: &[ShareId], ended: impl Fn(&ShareId) -> bool) {
        let Some(of) = &mut self.effects else {
            return;
        };
        let mut recovered = BTreeMap::new();
        of.isolated.retain(|share, isolated| {
            if isolated.state == State::Hangs || !ended(share) {
                return true;
            }
            if failed.contains(share) {
                isolated.state = State::Fails;
                isolated.is_covered = false;
            }
            let is_well = isolated.is_covered;
            if is_well {
                recovered.insert(*share, *isolated);
            }
            !is_well
        });
        for (share, isolated) in recovered {
            self.journal
                .put(isolated.generation, Kind::End, &Record::Closed, &[]);
            info!(
                "share {}: it works again, and all acknowledged changes are on its medium",
                self.share_name(share)
            );
            // The cached metadata of its files are older than the effects done again.
            for open in self.smb.opens().filter(|open| open.actor.share == share) {
                self.fs.remember(open);
            }
            // What waited for it may continue, and nothing else may wake the loop.
            self.busy = true;
        }
    }
}

#[cfg(test)]
mod tests;
