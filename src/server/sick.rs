//! A share whose file system fails (durability `power`): it is set apart, so that the others go on.
//!
//! What was done on it since the last sync that succeeded is put on record once more, in a generation of its own, and
//! the others' generations end without it. Operations on it are refused. At each consistency point what that generation
//! holds is done again; when the sync after that succeeds, too, the share is well and the generation ends.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use log::{error, info};
use outlast_nvram::Kind;
use outlast_smb::Planned;
use outlast_smb::fileop::{FileOp, ShareId};
use outlast_smb::status::NtStatus;

use super::files::FileSystem;
use super::machine::Machine;
use super::record::Record;
use super::redo::Files;

/// The shares that are apart.
#[derive(Debug)]
pub(super) struct Sick {
    /// What has to be done once more on them.
    pub generation: u64,
    shares: BTreeSet<ShareId>,
    /// It has been done once more; the next sync says whether they are well.
    is_redone: bool,
}

impl Sick {
    pub fn has(&self, share: ShareId) -> bool {
        self.shares.contains(&share)
    }

    pub fn shares(&self) -> impl Iterator<Item = ShareId> {
        self.shares.iter().copied()
    }
}

impl<F: FileSystem> Machine<F> {
    /// Why an operation is not to be done, whatever it would find.
    pub(super) fn refusal(&self, planned: &Planned) -> Option<NtStatus> {
        let sick = self.effects.as_ref()?.sick.as_ref()?;
        // A close changes nothing but what is open.
        let closes = matches!(planned.op, FileOp::Close { delete: None, .. });
        (sick.has(planned.actor.share) && !closes).then_some(NtStatus::IO_DEVICE_ERROR)
    }

    /// As [`Machine::isolate`]; `false` if that cannot be done now.
    pub(super) fn isolate_or_wait(&mut self, failed: BTreeMap<ShareId, String>) -> bool {
        match self.isolate(failed) {
            Ok(()) => true,
            Err(error) => {
                error!("{error:#}");
                false
            }
        }
    }

    /// Sets shares apart, with all that was done on them since the last sync that succeeded. The present generation has
    /// no effects yet.
    ///
    /// # Errors
    /// The log cannot be read back, or has no room.
    pub(super) fn isolate(&mut self, failed: BTreeMap<ShareId, String>) -> anyhow::Result<()> {
        let Some(effects) = self.effects.as_ref().filter(|_| !failed.is_empty()) else {
            return Ok(());
        };
        for why in failed.values() {
            error!(
                "{why}; operations on it are refused until it can be written, which is tried every 10 s"
            );
        }
        let before = effects.sick.as_ref();
        let mut shares: BTreeSet<ShareId> = failed.into_keys().collect();
        shares.extend(before.into_iter().flat_map(Sick::shares));
        let before = before.map(|sick| sick.generation);
        let of_them = |object| effects.older.contains(&object) || before == Some(object);
        let files = self.read_back(of_them)?;
        self.put_sick(files, shares, before)
    }

    /// The sick shares' generation is written again at the head of the log, and the one before ends.
    pub(super) fn copy_sick(&mut self) {
        let Some(sick) = self.effects.as_mut().and_then(|of| of.sick.take()) else {
            return;
        };
        let before = sick.generation;
        let copied = self.read_back(|object| object == before);
        let put = copied.and_then(|files| self.put_sick(files, sick.shares.clone(), Some(before)));
        if let Err(error) = put {
            error!("{error:#}");
            if let Some(effects) = &mut self.effects {
                effects.sick = Some(sick);
            }
        }
    }

    pub(super) fn is_sick_generation(&self, object: u64) -> bool {
        let sick = self.effects.as_ref().and_then(|of| of.sick.as_ref());
        sick.is_some_and(|sick| sick.generation == object)
    }

    fn put_sick(
        &mut self,
        mut files: Files,
        shares: BTreeSet<ShareId>,
        before: Option<u64>,
    ) -> anyhow::Result<()> {
        use outlast_stack::Journal as _;
        self.find_data(&mut files)?;
        let names = self.smb.share_names();
        let is_of_them = |name: &String| {
            let share = names.iter().position(|other| other == name);
            share
                .and_then(|share| ShareId::try_from(share).ok())
                .filter(|share| shares.contains(share))
        };
        // A generation that has not ended yet may hold what another one has.
        files.effects.sort_by_key(|(effect, ..)| effect.number);
        files.effects.dedup_by_key(|(effect, ..)| effect.number);
        let effects = files.effects.into_iter();
        let effects: Vec<_> = effects
            .filter_map(|(effect, data, name)| Some((is_of_them(&name)?, effect, data)))
            .collect();
        let bytes: usize = effects
            .iter()
            .flat_map(|(.., data)| data)
            .map(Bytes::len)
            .sum();
        anyhow::ensure!(
            self.journal
                .has_room(self.stack.receive_room(), bytes as u64),
            "the log has no room to set a share apart: all shares wait for it"
        );
        let generation = self.journal.unique_id();
        let Some(of) = &mut self.effects else {
            return Ok(());
        };
        let begins = Record::Generation {
            first: of.next,
            boot_id: of.boot_id,
            shares: names.clone(),
        };
        self.journal.put(generation, Kind::Snapshot, &begins, &[]);
        self.journal
            .put(generation, Kind::Delta, &Record::Unsynced, &[]);
        for (from, now) in &files.remade {
            let now = Cow::Borrowed(now);
            let record = Record::Remade { from: *from, now };
            self.journal.put(generation, Kind::Delta, &record, &[]);
        }
        for (share, mut effect, data) in effects {
            effect.actor.share = share;
            effect.places.clear();
            let data: Vec<&[u8]> = data.iter().map(Bytes::as_ref).collect();
            let record = Record::Effect(Cow::Owned(effect));
            self.journal.put(generation, Kind::Delta, &record, &data);
        }
        if let Some(before) = before {
            self.journal.put(before, Kind::End, &Record::Closed, &[]);
        }
        of.sick = Some(Sick {
            generation,
            shares,
            is_redone: false,
        });
        Ok(())
    }

    /// Tries to do once more what has to be done on the sick shares.
    pub(super) fn treat(&mut self, now: Duration) {
        let Some(sick) = self.effects.as_ref().and_then(|of| of.sick.as_ref()) else {
            return;
        };
        let generation = sick.generation;
        let redone = self.do_again(
            |object| object == generation,
            generation,
            &BTreeSet::new(),
            now,
        );
        let is_redone = match redone {
            Ok(failed) => failed.is_empty(),
            Err(error) => {
                error!("{error:#}");
                false
            }
        };
        if let Some(sick) = self.effects.as_mut().and_then(|of| of.sick.as_mut()) {
            sick.is_redone = is_redone;
        }
    }

    /// A sync has failed for these shares, and succeeded for all others. If the sick ones are among the others they are
    /// well.
    pub(super) fn discharge(&mut self, failed: &[ShareId]) {
        let Some(effects) = &mut self.effects else {
            return;
        };
        let is_well =
            |sick: &mut Sick| sick.is_redone && !failed.iter().any(|share| sick.has(*share));
        let Some(sick) = effects.sick.take_if(is_well) else {
            return;
        };
        self.journal
            .put(sick.generation, Kind::End, &Record::Closed, &[]);
        info!("the shares that were apart are well: all that clients were told is there");
        // What is known of their files is older than what was done again.
        for open in self.smb.opens().filter(|open| sick.has(open.actor.share)) {
            self.fs.remember(&open);
        }
    }
}
