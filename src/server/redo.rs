//! Redoes effects on files after a power cut: the file systems are a few seconds behind the replies that clients
//! received. Every effect on files since the last consistency point is redone, in order.
//!
//! A journalling file system recovers to some prefix of the name changes, and its marker, which is set after each of
//! them, says to which. These effects are skipped; at most the next one is in doubt, as after the death of a process.
//! The *content* of files may be lost in any order and is done again completely, by handle: each such effect describes
//! the final content.
//!
//! A file that was created and lost is created again and is then another file to the file system. That is recorded
//! before the marker says that it was made.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use log::{debug, error, info};
use outlast_fsa::access;
use outlast_fsa::fileop::{Actor, FileKey, FileOp, Intent, OpenId, Outcome, SetBasic, ShareId};
use outlast_fsa::status::NtStatus;
use outlast_nvram::{Kind, Lsn};
use outlast_smb::OpenInfo;

use super::clock::Time;
use super::consistency::Effects;
use super::effect::{Effect, Identity, Target};
use super::files::FileSystem;
use super::machine::Machine;
use super::record::{GLOBAL, Record};
use crate::one_line::OneLine;

/// The records about files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The generations, the oldest first: object, number of its first effect, boot id.
    pub generations: Vec<(u64, u64, [u8; 16])>,
    /// The effects, in order, each with the data of a write, in pieces, and the name of its share.
    pub effects: Vec<(Effect, Vec<Bytes>, String)>,
    /// Files that were made again, in order: the former and the current identity.
    pub remade: Vec<(FileKey, Identity)>,
    /// A sync has failed since: the file systems show content that is not on their media.
    pub is_unsynced: bool,
    /// The shares' names by the ids in a generation's effects.
    shares: BTreeMap<u64, Vec<String>>,
}

impl Files {
    /// Takes a record about files; returns any other.
    pub fn take(
        &mut self,
        object: u64,
        record: Record<'static>,
        data: Bytes,
    ) -> Option<(u64, Record<'static>, Bytes)> {
        match record {
            Record::Generation {
                first,
                boot_id,
                shares,
            } => {
                self.generations.push((object, first, boot_id));
                self.shares.insert(object, shares);
            }
            Record::Effect(effect) => {
                let shares = self.shares.get(&object);
                let name = shares.and_then(|shares| shares.get(effect.actor.share as usize));
                let name = name.cloned().unwrap_or_default();
                self.effects.push((effect.into_owned(), vec![data], name));
            }
            Record::Remade { from, now } => self.remade.push((from, now.into_owned())),
            Record::Unsynced => self.is_unsynced = true,
            _ => return Some((object, record, data)),
        }
        None
    }

    /// The boot of the kernel that shows the files with every effect.
    pub fn boot_id(&self) -> Option<[u8; 16]> {
        self.generations.last().map(|(_, _, boot_id)| *boot_id)
    }

    /// The number of the next effect.
    pub fn next(&self) -> u64 {
        let firsts = self.generations.iter().map(|(_, first, _)| *first);
        let effects = self.effects.iter();
        let after = effects.map(|(effect, ..)| effect.number.saturating_add(1));
        firsts.chain(after).max().unwrap_or(1)
    }
}

/// The boot of the kernel that shows the files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    pub id: [u8; 16],
    /// It shows all effects that were done under it. Not so if another node may have had the service since then.
    pub shows_all: bool,
}

/// The open under which files are opened once more. Ids of clients' opens begin above it, and theirs may be in use.
const AGAIN: OpenId = 0;

/// The final times of a file.
struct Times {
    actor: Actor,
    target: Target,
    basic: SetBasic,
}

/// The current identities of files that were made again.
#[derive(Default)]
struct Remade(BTreeMap<FileKey, Identity>);

impl Remade {
    /// Notes a file that was made again, and returns the keys by which it was known until now.
    fn insert(&mut self, original: FileKey, now: &Identity) -> BTreeSet<FileKey> {
        let before = self.now(original);
        // Effects after an earlier redo refer to the file made then.
        let earlier = self.0.iter().filter(|(_, of)| of.key == before);
        let mut known: BTreeSet<FileKey> = earlier.map(|(from, _)| *from).collect();
        known.extend([original, before]);
        known.remove(&now.key);
        for from in &known {
            self.0.insert(*from, now.clone());
        }
        known
    }

    /// The current key of a file.
    fn now(&self, original: FileKey) -> FileKey {
        self.0.get(&original).map_or(original, |now| now.key)
    }

    fn bring_up_to_date(&self, effect: &mut Effect) {
        for key in effect.keys_mut() {
            *key = self.now(*key);
        }
        if let Some(target) = &mut effect.target
            && let Some(now) = self.0.get(&target.identity.key)
        {
            target.identity = now.clone();
        }
    }
}

impl<F: FileSystem> Machine<F> {
    /// Recovers the files by the records: does the effects once more if another kernel shows the files now.
    ///
    /// A share whose effects cannot be done again is isolated from the start ([`super::isolation`]).
    ///
    /// # Errors
    /// There is no other share, or none may be isolated.
    pub(super) fn recover_files(
        &mut self,
        mut files: Files,
        boot: Boot,
        sets_apart: bool,
        time: Time,
    ) -> anyhow::Result<()> {
        let power = self.journal.has_effects();
        if !power && files.generations.is_empty() {
            return Ok(());
        }
        let is_unsynced = files.is_unsynced;
        let is_shown = |of| boot.shows_all && of == boot.id;
        let are_shown = files.boot_id().is_none_or(is_shown);
        let mut generations: Vec<u64> = files
            .generations
            .iter()
            .map(|(object, ..)| *object)
            .collect();
        let generation = generations.pop();
        // The worker before may have ended after a sync had failed and before that was recorded. The kernel reports a
        // failure once, so the next sync would succeed without what was dropped.
        let may_be_unsynced = is_unsynced || !generations.is_empty();
        let count = self.smb.share_names().len();
        self.effects = Some(Effects {
            generation,
            older: generations,
            next: files.next(),
            boot_id: boot.id,
            since: time.now,
            count: files.effects.len() as u64,
            begins: self.journal.head(),
            syncing: false,
            // What was done again is not on the media yet, and the next failure of a sync is not the first.
            failures: u32::from(is_unsynced),
            is_unsynced,
            wanted: false,
            left_at: Duration::ZERO,
            last_of: BTreeMap::new(),
            isolated: BTreeMap::new(),
            not_redone: BTreeSet::new(),
        });
        let mut isolated = BTreeMap::new();
        files.is_unsynced = may_be_unsynced;
        if !are_shown {
            // Before the first change: a worker that finds an older generation does its effects once more, too.
            self.begin_generation(time.now);
            self.journal.commit(time.now);
        }
        if !are_shown || may_be_unsynced {
            let object = generation.unwrap_or(GLOBAL);
            isolated = self.redo(files, object, &BTreeSet::new(), time.now)?;
        }
        let is_refused = !power || !sets_apart || isolated.len() == count;
        if let Some(why) = isolated.values().next().filter(|_| is_refused) {
            bail!("{why}");
        }
        if are_shown {
            self.begin_generation(time.now);
        }
        self.isolate(isolated, time.now)?;
        self.journal.commit(time.now);
        if !power {
            // These generations are not kept any more.
            self.fs.begin_sync();
            let effects = self.effects.take();
            let objects = effects
                .into_iter()
                .flat_map(|effects| effects.older.into_iter().chain(effects.generation));
            for object in objects {
                self.journal.put(object, Kind::End, &Record::Closed, &[]);
            }
        }
        Ok(())
    }

    /// Does once more what was done to files, except on the shares in `without`, and records, in the generation
    /// `object`, what was made again. As [`redo`].
    ///
    /// # Errors
    /// The log lacks what an effect refers to.
    pub(super) fn redo(
        &mut self,
        mut files: Files,
        object: u64,
        without: &BTreeSet<ShareId>,
        now: Duration,
    ) -> anyhow::Result<BTreeMap<ShareId, String>> {
        // An earlier redo may have died between its record and the medium. This redo learns from that record what was
        // made, and would set the marker beyond it without waiting for another.
        self.journal.wait_durable();
        self.find_data(&mut files)?;
        let shares = self.smb.share_names();
        let Machine {
            fs,
            smb,
            journal,
            probe,
            ..
        } = self;
        let mut remade = |keys: &BTreeSet<FileKey>, which: &Identity| {
            for from in keys {
                let record = Record::Remade {
                    from: *from,
                    now: Cow::Borrowed(which),
                };
                journal.put(object, Kind::Delta, &record, &[]);
                smb.rekeyed(*from, which.key, &which.handle, journal);
            }
            journal.commit(now);
            journal.wait_durable();
        };
        probe.at_disk(true);
        let redone = redo(fs, files, &shares, without, &mut remade, &mut || {
            probe.beat()
        });
        probe.at_disk(false);
        Ok(redone)
    }

    /// Finds the data of writes, at the places where they were received.
    pub(super) fn find_data(&self, files: &mut Files) -> anyhow::Result<()> {
        let log = self.journal.log();
        for (effect, pieces, _) in &mut files.effects {
            if effect.places.is_empty() {
                continue;
            }
            let places = effect.places.iter();
            let found = places.map(|(position, len)| log?.bytes_at(Lsn(*position), *len as usize));
            *pieces = found
                .collect::<Option<_>>()
                .context("an effect refers to what is not in the log any more")?;
        }
        Ok(())
    }
}

/// Does all effects once more. `remade` is called for each file that was made again, with every key by which it was
/// known, and its record is on the medium when it returns. `beat` is called at each step.
///
/// Returns the shares of which an effect cannot be done again, although its file is not known to be deleted, and why:
/// later effects on that share are not done either. Nothing has been lost, and it can be tried again.
fn redo<F: FileSystem>(
    fs: &mut F,
    mut files: Files,
    shares: &[String],
    without: &BTreeSet<ShareId>,
    remade: &mut dyn FnMut(&BTreeSet<FileKey>, &Identity),
    beat: &mut dyn FnMut(),
) -> BTreeMap<ShareId, String> {
    // The effects of isolated shares are recorded once more.
    files.effects.sort_by_key(|(effect, ..)| effect.number);
    files.effects.dedup_by_key(|(effect, ..)| effect.number);
    let mut known = Remade::default();
    for (original, now) in &files.remade {
        known.insert(*original, now);
    }
    info!(
        "{} effect(s) on files since the last consistency point are done once more",
        files.effects.len()
    );
    let mut times: BTreeMap<FileKey, Times> = BTreeMap::new();
    // After a failed write the kernel's cache is not reliable, until it has been dropped once for each of these files.
    let mut doubted = files.is_unsynced.then(BTreeSet::new);
    let (mut gone, mut not_served) = (0, BTreeMap::<String, u32>::new());
    let mut failed: BTreeMap<ShareId, String> = BTreeMap::new();
    for (mut effect, pieces, name) in files.effects {
        beat();
        // The configuration may have changed.
        let share = shares.iter().position(|share| *share == name);
        let Some(share) = share.and_then(|share| ShareId::try_from(share).ok()) else {
            *not_served.entry(name).or_default() += 1;
            continue;
        };
        if without.contains(&share) || failed.contains_key(&share) {
            continue;
        }
        effect.actor.share = share;
        let by_name = effect.is_of_names();
        let original = effect.made.as_ref().map(|made| made.key);
        let marked = match fs.marked(share) {
            Ok(marked) => marked,
            Err(error) => {
                let why = format!("the marker of share {name} cannot be read: {error}");
                failed.insert(share, why);
                continue;
            }
        };
        if by_name && effect.number <= marked {
            // Made again by an earlier redo, which did not reach the times.
            if let Some(identity) = original.and_then(|original| known.0.get(&original)) {
                effect.target = Some(Target {
                    // the handle finds it
                    path: String::new(),
                    identity: identity.clone(),
                    is_dir: effect.made_directory(),
                });
                note_times(&mut times, effect);
            }
            continue;
        }
        known.bring_up_to_date(&mut effect);
        match redo_one(fs, &mut effect, pieces, &mut doubted) {
            Ok(Outcome::Created(created)) => {
                let now = Identity {
                    key: created.metadata.key,
                    handle: created.handle,
                };
                if let Some(original) = original
                    && known.now(original) != now.key
                {
                    let keys = known.insert(original, &now);
                    remade(&keys, &now);
                }
                effect.target = Some(Target {
                    path: created.path,
                    identity: now,
                    is_dir: created.metadata.is_dir,
                });
            }
            Ok(_) => {}
            Err(status) if is_gone(status) => {
                // It was deleted since, by us or by a local process.
                gone += 1;
                debug!("effect {} ({:?}): {status}", effect.number, effect.target);
            }
            Err(status) => {
                failed.insert(share, refusal(&name, &path_of(&effect), status));
                continue;
            }
        }
        if by_name && let Err(error) = fs.mark(share, effect.number) {
            let why = format!("the marker of share {name} cannot be set: {error}");
            failed.insert(share, why);
            continue;
        }
        note_times(&mut times, effect);
    }
    for times in times.values() {
        beat();
        let share = times.actor.share;
        if failed.contains_key(&share) {
            continue;
        }
        match set_times(fs, times) {
            Err(status) if !is_gone(status) => {
                let name = shares.get(share as usize).map_or("", String::as_str);
                failed.insert(share, refusal(name, &times.target.path, status));
            }
            _ => {}
        }
    }
    if gone > 0 {
        info!("{gone} of them were on files that no longer exist");
    }
    for (name, count) in not_served {
        error!(
            "{count} of them are not done again: the configuration no longer has the share {name}, and acknowledged \
             changes may be missing"
        );
    }
    failed
}

/// Law 10: the statuses of a file that certainly does not exist. No other error says so.
fn is_gone(status: NtStatus) -> bool {
    matches!(
        status,
        NtStatus::FILE_CLOSED | NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::OBJECT_PATH_NOT_FOUND
    )
}

/// The path of an effect.
fn path_of(effect: &Effect) -> String {
    match (&effect.target, &effect.op) {
        (Some(target), _) => target.path.clone(),
        (None, FileOp::Create(create)) => create.path.clone(),
        (None, _) => String::new(),
    }
}

/// Describes why an effect cannot be done again, and the remedy.
fn refusal(share: &str, path: &str, status: NtStatus) -> String {
    let (path, share) = (OneLine(path), OneLine(share));
    let remedy = match status {
        NtStatus::DISK_FULL => "make room on its file system",
        NtStatus::QUOTA_EXCEEDED => "raise the quota of the account",
        NtStatus::MEDIA_WRITE_PROTECTED => "mount its file system so that it can be written",
        NtStatus::OBJECT_NAME_COLLISION => "another file has the name now: move that away",
        NtStatus::DIRECTORY_NOT_EMPTY => "move what is in the directory away",
        NtStatus::ACCESS_DENIED => {
            "let it be written (read_only in the configuration, chattr +i), and make sure that local accounts can be \
             looked up"
        }
        _ => "repair its file system; see the kernel's log (dmesg)",
    };
    format!(
        "share {share}: an acknowledged change of {path} cannot be made again: {status}: {remedy}; nothing has been \
         lost, and it is tried again"
    )
}

fn note_times(times: &mut BTreeMap<FileKey, Times>, effect: Effect) {
    let Some(target) = effect.target else { return };
    let actor = effect.actor;
    let basic = SetBasic::default();
    let Times { basic, .. } = times.entry(target.identity.key).or_insert(Times {
        actor,
        target,
        basic,
    });
    let set = |time| Some(time).filter(|time| *time != 0);
    basic.last_write_time = set(effect.modified).or(basic.last_write_time);
    let created = match &effect.op {
        FileOp::SetBasic { basic, .. } => basic.creation_time.and_then(set),
        _ => set(effect.created),
    };
    basic.creation_time = created.or(basic.creation_time);
    // Every change of a file sets its ChangeTime, except those that keep it.
    basic.change_time = match (&effect.op, &effect.intent) {
        (_, Intent::Keeping { times, .. }) => times.change,
        (FileOp::SetBasic { basic, .. }, _) => basic.change_time.and_then(set),
        _ => None,
    };
}

fn redo_one<F: FileSystem>(
    fs: &mut F,
    effect: &mut Effect,
    pieces: Vec<Bytes>,
    doubted: &mut Option<BTreeSet<FileKey>>,
) -> Result<Outcome, NtStatus> {
    // A file that a create made carries the id of its open.
    if !matches!(effect.op, FileOp::Create(_)) {
        effect.op.set_open(AGAIN);
    }
    let open = effect.op.open();
    let writes = matches!(
        effect.op,
        FileOp::Write { .. }
            | FileOp::SetEndOfFile { .. }
            | FileOp::SetAllocation { .. }
            | FileOp::ZeroData { .. }
    );
    let info = effect
        .target
        .as_ref()
        .map(|target| open_info(open, &effect.actor, target, writes));
    if let Some(info) = info
        && let Err(status) = fs.reopen(&info)
    {
        // A file that must be deleted may still have its name.
        if !is_gone(status) || !matches!(effect.op, FileOp::Close { .. }) {
            return Err(status);
        }
    }
    if writes
        && let (Some(known), Some(target)) = (doubted, &effect.target)
        && known.insert(target.identity.key)
    {
        fs.drop_cached(open);
    }
    if let FileOp::Write { data, .. } = &mut effect.op {
        *data = pieces.into_iter().collect();
    }
    let as_server = !effect.is_of_names();
    let outcome = fs.perform_again(&effect.actor, &effect.op, &effect.intent, as_server);
    fs.forget(open);
    fs.discard_changes();
    outcome
}

/// Restores the times: doing an effect again was no change, and a file that was made again is not younger.
fn set_times<F: FileSystem>(fs: &mut F, times: &Times) -> Result<(), NtStatus> {
    let Times {
        actor,
        target,
        basic,
    } = times;
    if *basic == SetBasic::default() {
        return Ok(());
    }
    let basic = basic.clone();
    let set = FileOp::SetBasic { open: AGAIN, basic };
    let outcome = fs
        .reopen(&open_info(AGAIN, actor, target, false))
        .and_then(|()| fs.perform_again(actor, &set, &Intent::None, true));
    fs.forget(AGAIN);
    fs.discard_changes();
    outcome.map(|_| ())
}

/// Describes a file that is opened once more to redo an effect.
fn open_info(open: OpenId, actor: &Actor, target: &Target, writes: bool) -> OpenInfo {
    const READ_WRITE: u32 = access::READ_DATA | access::WRITE_DATA;
    OpenInfo {
        conn: 0,
        open,
        actor: actor.clone(),
        path: target.path.clone(),
        moved_to: None,
        key: target.identity.key,
        handle: target.identity.handle.clone(),
        is_dir: target.is_dir,
        granted_access: if writes { READ_WRITE } else { 0 },
        stopped: outlast_fsa::fileop::Times::default(),
        watch: None,
    }
}

#[cfg(test)]
mod tests;
