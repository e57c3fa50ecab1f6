//! A share whose file system fails, or does not answer (durability `power`): it is set apart, so that the others go on.
//!
//! What was done on it since the last sync that succeeded is put on record once more, in a generation of its own, and
//! the others' generations end without it. Operations on a share that fails are refused. At each consistency point what
//! its generation holds is done again. Operations on one that does not answer wait. When a sync that was begun after
//! all that the generation holds has succeeded, the share is well and the generation ends.

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

/// Service time after which a sync that has not come to its end holds up nobody else.
pub(super) const HANGS: Duration = Duration::from_secs(20);

/// Between two attempts to set apart what hangs, for which the log had no room.
const PAUSE: Duration = Duration::from_secs(1);

/// A share that is apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sick {
    /// What is not known to be on its medium.
    pub generation: u64,
    state: State,
    /// All of that was done, or done once more, before the last sync was begun.
    is_covered: bool,
    /// The number of the last effect that it holds; 0: it has none.
    up_to: u64,
}

/// What is known of a share that is apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A sync of it has failed, or what was done on it cannot be done again.
    Fails,
    /// A sync of it is under way that nobody waits for.
    Hangs,
    /// It has answered again.
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
    fn sick(&self, share: ShareId) -> Option<&Sick> {
        self.effects.as_ref()?.sick.get(&share)
    }

    /// Why an operation is not to be done, whatever it would find.
    pub(super) fn refusal(&self, planned: &Planned) -> Option<NtStatus> {
        let fails = self.sick(planned.actor.share)?.state == State::Fails;
        // A close changes nothing but what is open.
        let closes = matches!(planned.op, FileOp::Close { delete: None, .. });
        (fails && !closes).then_some(NtStatus::IO_DEVICE_ERROR)
    }

    /// Does an operation wait until its share answers? Not one whose intent is on record: it comes before all others.
    pub(super) fn has_to_wait(&self, planned: &Planned) -> bool {
        planned.intent.is_none() && self.is_waited_for(planned.actor.share)
    }

    /// Do the operations of this share wait?
    pub(super) fn is_waited_for(&self, share: ShareId) -> bool {
        self.sick(share)
            .is_some_and(|sick| sick.state != State::Fails)
    }

    /// What keeps shares from being served: a sentence each.
    #[must_use]
    pub fn trouble_of_shares(&self) -> Vec<String> {
        let line = |share| {
            format!(
                "share {}: its directory is not there",
                self.share_name(share)
            )
        };
        let offline = self.fs.offline().into_iter().map(line);
        offline.chain(self.shares_apart()).collect()
    }

    fn shares_apart(&self) -> Vec<String> {
        let sick = self.effects.iter().flat_map(|of| &of.sick);
        let line = |(share, sick): (&ShareId, &Sick)| {
            let what = match sick.state {
                State::Fails => "its file system fails: operations on it are refused",
                State::Hangs | State::Answers => {
                    "its file system does not answer: operations on it wait"
                }
            };
            format!("share {}: {what}", self.share_name(*share))
        };
        sick.map(line).collect()
    }

    pub(super) fn share_name(&self, share: ShareId) -> String {
        let name = self.smb.shares().get(share as usize);
        OneLine(name.map_or("", |share| &share.name)).to_string()
    }

    /// As [`Machine::isolate`]; `false` if that cannot be done now.
    pub(super) fn isolate_or_wait(&mut self, failed: BTreeMap<ShareId, String>) -> bool {
        let isolated = self.isolate(failed);
        isolated.inspect_err(|error| error!("{error:#}")).is_ok()
    }

    /// Sets shares that fail apart, with all that was done on them since the last sync that succeeded. The present
    /// generation has no effects yet.
    ///
    /// # Errors
    /// The log cannot be read back, or has no room.
    pub(super) fn isolate(&mut self, failed: BTreeMap<ShareId, String>) -> anyhow::Result<()> {
        for why in failed.values() {
            error!(
                "{why}; operations on it are refused until it can be written, which is tried every 10 s"
            );
        }
        let failed = failed.into_keys().map(|share| (share, State::Fails));
        self.set_apart(failed.collect())
    }

    /// Sets the shares apart whose sync has not come to its end for long, if others have to wait because of it.
    /// `false`: that is not so, or it cannot be done now.
    pub(super) fn leave_those_that_hang(&mut self, now: Duration) -> bool {
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
        // Where there is no other share nobody has anything of it.
        if hanging.is_empty() || hanging.len() == self.smb.shares().len() {
            return false;
        }
        let apart = hanging.iter().map(|share| (*share, State::Hangs));
        if let Err(error) = self.set_apart(apart.collect()) {
            error!("{error:#}");
            return false;
        }
        for share in &hanging {
            warn!(
                "share {}: its file system has not answered for {} s: operations on it wait until it does, and the other shares go on",
                self.share_name(*share),
                (now - self.effects.as_ref().map_or(now, |of| of.since)).as_secs()
            );
        }
        self.fs.leave_sync();
        true
    }

    /// What was done on shares since they are apart goes to what is apart of them, before the older generations end.
    /// `false`: that cannot be done now.
    pub(super) fn set_more_apart(&mut self) -> bool {
        let Some(of) = &self.effects else { return true };
        let last = |share: &ShareId| of.last_of.get(share).copied().unwrap_or(0);
        let more = of
            .sick
            .iter()
            .filter(|(share, sick)| sick.up_to < last(share));
        let more = more.map(|(share, sick)| (*share, sick.state)).collect();
        let put = self.set_apart(more);
        put.inspect_err(|error| error!("{error:#}")).is_ok()
    }

    /// Sets shares apart; what is apart of them already is joined to it.
    fn set_apart(&mut self, shares: BTreeMap<ShareId, State>) -> anyhow::Result<()> {
        let Some(of) = self.effects.as_ref().filter(|_| !shares.is_empty()) else {
            return Ok(());
        };
        let before = shares.keys().filter_map(|share| of.sick.get(share));
        let before: BTreeSet<u64> = before.map(|sick| sick.generation).collect();
        let is_of_them = |object| of.older.contains(&object) || before.contains(&object);
        let files = self.read_back(is_of_them)?;
        self.put_sick(files, &shares)
    }

    /// The generation of a share that is apart is written again at the head of the log, and the one before ends.
    pub(super) fn copy_sick(&mut self, object: u64) {
        let mut sick = self.effects.iter().flat_map(|of| &of.sick);
        let Some((share, before)) = sick.find(|(_, sick)| sick.generation == object) else {
            return;
        };
        let (share, before) = (*share, *before);
        let copied = self.read_back(|other| other == object);
        let put =
            copied.and_then(|files| self.put_sick(files, &BTreeMap::from([(share, before.state)])));
        if let Err(error) = put {
            error!("{error:#}");
        }
    }

    pub(super) fn is_sick_generation(&self, object: u64) -> bool {
        let mut sick = self.effects.iter().flat_map(|of| of.sick.values());
        sick.any(|sick| sick.generation == object)
    }

    fn put_sick(
        &mut self,
        mut files: Files,
        shares: &BTreeMap<ShareId, State>,
    ) -> anyhow::Result<()> {
        self.find_data(&mut files)?;
        // A generation that has not ended yet may hold what another one has.
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
        // It makes room: the older generations end.
        self.journal.make_room(true);
        let bytes: usize = of_shares.values().flatten().map(size).sum();
        let fits = self.journal.has_room(0, bytes as u64);
        if fits {
            self.put_all(shares, of_shares, &names, &files.remade);
        }
        self.journal.make_room(false);
        anyhow::ensure!(
            fits,
            "the log has no room to set a share apart: all shares wait for it"
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
            let before = of.sick.get(&share).copied();
            let sick = Sick {
                generation,
                state,
                // What hangs was begun after all that it is set apart with was done.
                is_covered: match before {
                    Some(before) => before.is_covered && before.up_to == up_to,
                    None => state == State::Hangs,
                },
                up_to,
            };
            of.sick.insert(share, sick);
            if let Some(before) = before {
                self.journal
                    .put(before.generation, Kind::End, &Record::Closed, &[]);
            }
        }
    }

    /// A generation that holds these effects of a share, and no others.
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

    /// Before a sync is begun: tries to do once more what has to be done on the shares that fail.
    pub(super) fn treat(&mut self, now: Duration) {
        let Some(of) = &self.effects else { return };
        let failing = of
            .sick
            .iter()
            .filter(|(_, sick)| sick.state == State::Fails);
        let failing: BTreeMap<u64, ShareId> = failing
            .map(|(share, sick)| (sick.generation, *share))
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
        for (share, sick) in &mut of.sick {
            match sick.state {
                State::Fails => {
                    let failed = failed.as_ref();
                    sick.is_covered = failed.is_some_and(|failed| !failed.contains(share));
                }
                State::Answers => sick.is_covered = true,
                State::Hangs => {}
            }
        }
    }

    /// Takes note of syncs that nobody waits for and that have come to their end.
    pub(super) fn take_late(&mut self) {
        let late = self.fs.late();
        let Some(of) = self.effects.as_mut().filter(|_| !late.is_empty()) else {
            return;
        };
        let ended: BTreeSet<ShareId> = late.iter().map(|(share, _)| *share).collect();
        let failed = late.iter().filter(|(_, is_synced)| !is_synced);
        let failed: Vec<ShareId> = failed.map(|(share, _)| *share).collect();
        for (share, sick) in &mut of.sick {
            if ended.contains(share) {
                sick.state = State::Answers;
            }
        }
        self.discharge(&failed, |share| ended.contains(share));
    }

    /// A sync of these shares has come to its end, and has failed for some of them. The others are well if it covers
    /// all.
    pub(super) fn discharge(&mut self, failed: &[ShareId], ended: impl Fn(&ShareId) -> bool) {
        let Some(of) = &mut self.effects else {
            return;
        };
        let mut well = BTreeMap::new();
        of.sick.retain(|share, sick| {
            if sick.state == State::Hangs || !ended(share) {
                return true;
            }
            if failed.contains(share) {
                sick.state = State::Fails;
                sick.is_covered = false;
            }
            let is_well = sick.is_covered;
            if is_well {
                well.insert(*share, *sick);
            }
            !is_well
        });
        for (share, sick) in well {
            self.journal
                .put(sick.generation, Kind::End, &Record::Closed, &[]);
            info!(
                "share {}: it is well again, and all that clients were told is on its medium",
                self.share_name(share)
            );
            // What is known of its files is older than what was done again.
            for open in self.smb.opens().filter(|open| open.actor.share == share) {
                self.fs.remember(&open);
            }
            // What waited for it may go on, and nothing else may come to wake the loop.
            self.busy = true;
        }
    }
}

#[cfg(test)]
mod tests;
