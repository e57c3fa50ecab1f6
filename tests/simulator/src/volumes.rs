//! Implements the server's file system over the file systems of all shares, each on a disk of its own, and syncs them
//! as `src/fs/syncing.rs` does.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use outlast::server::files::FileSystem;
use outlast_fsa::fileop::{
    Actor, Change, FileKey, FileOp, FileTime, Intent, OpenId, Outcome, ShareId,
};
use outlast_fsa::status::NtStatus;
use outlast_smb::{Config, OpenInfo, WatchInfo};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::failing::FailingRequests;
use crate::faults::Call;
use crate::files::Files;
use crate::fuse::Fuse;
use crate::image::Look;
use crate::judge::Contents;
use crate::mutation::Mutation;
use crate::player::{SECOND_SHARE, SHARE};
use crate::random::Random;
use crate::scenario::Scenario;

/// The disks of the shares, which outlive servers.
pub struct Disks(Vec<Rc<RefCell<Disk>>>);

impl Disks {
    /// Makes the empty disks of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario, fuse: &Fuse, clock: &Clock) -> Disks {
        let sickness = scenario.sickness;
        let make = |number: u64| {
            let seed = scenario.seed ^ (number << 40);
            let mut disk = Disk::new(fuse.clone(), seed, clock.clone());
            disk.set_device(1 + number);
            if scenario.lacks.births {
                disk.forget_births();
            }
            if scenario.power.is_some() {
                disk.keep_journal(clock.clone(), scenario.mutation);
            }
            match sickness {
                Some(sickness) if number > 0 => disk.is_sick_during(sickness),
                Some(_) => disk.never_fails(),
                None => {}
            }
            Rc::new(RefCell::new(disk))
        };
        let count = 1 + u64::from(sickness.is_some());
        Disks((0..count).map(make).collect())
    }

    fn all(&self) -> impl Iterator<Item = RefMut<'_, Disk>> {
        self.0.iter().map(|disk| disk.borrow_mut())
    }

    /// Returns the disk of the first share.
    #[must_use]
    pub fn first(&self) -> RefMut<'_, Disk> {
        self.0[0].borrow_mut()
    }

    /// Returns the disk of the last share, which is the one that fails.
    #[must_use]
    pub fn last(&self) -> RefMut<'_, Disk> {
        self.0[self.0.len() - 1].borrow_mut()
    }

    /// Makes the file systems of a life, without open files.
    #[must_use]
    pub fn mount(
        &self,
        failing: &FailingRequests,
        config: &Config,
        scenario: &Scenario,
        life: u32,
    ) -> Volumes {
        let names = [SHARE, SECOND_SHARE];
        let volumes = self.0.iter().zip(names).map(|(disk, name)| {
            let (share, _) = config.share_named(name).expect("the clients' share");
            let files = Files::new(disk.clone(), failing.clone(), share, scenario, life);
            Volume {
                share,
                files,
                sync: Sync::None,
            }
        });
        Volumes {
            all: volumes.collect(),
            failed: Vec::new(),
            mutation: scenario.mutation,
        }
    }

    /// Returns every file's path and bytes, and every directory's path. The clients of different shares use different
    /// paths.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.all().flat_map(|disk| disk.contents()).collect()
    }

    /// Returns the attributes and times of every file and directory.
    #[must_use]
    pub fn looks(&self) -> BTreeMap<String, Look> {
        self.all().flat_map(|disk| disk.looks()).collect()
    }

    /// Returns whether the server may have answered a CHANGE_NOTIFY with STATUS_NOTIFY_ENUM_DIR.
    #[must_use]
    pub fn may_send_enum_dir(&self) -> bool {
        self.all().any(|disk| disk.may_send_enum_dir)
    }

    /// Returns the time at which the next sync ends.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.all().filter_map(|disk| disk.due()).min()
    }

    /// Notes whether a server is starting.
    pub fn starting(&self, yes: bool) {
        self.all().for_each(|mut disk| disk.starting(yes));
    }

    /// Returns whether a call of a redo has failed since the last call of this function.
    #[must_use]
    pub fn take_failure(&self) -> bool {
        // Each of them is asked.
        self.all()
            .fold(false, |any, mut disk| disk.take_failure() | any)
    }

    /// Returns the number of failures of a redo, by the call that failed, and whether it failed midway.
    #[must_use]
    pub fn redo_failures(&self) -> BTreeMap<(Call, bool), u32> {
        let mut sum = BTreeMap::new();
        for disk in self.all() {
            for (call, count) in &disk.redo_failures {
                *sum.entry(*call).or_default() += count;
            }
        }
        sum
    }

    /// Notes the death of a server.
    pub fn killed(&self) {
        self.all().for_each(|mut disk| disk.killed());
    }

    /// Simulates a power cut.
    pub fn cut(&self, random: &mut Random) {
        self.all().for_each(|mut disk| disk.cut(random));
    }
}

/// The file systems of the shares.
pub struct Volumes {
    all: Vec<Volume>,
    /// The shares for which a sync has failed, until all have ended.
    failed: Vec<ShareId>,
    mutation: Option<Mutation>,
}

/// The file system of a share.
struct Volume {
    share: ShareId,
    files: Files,
    sync: Sync,
}

/// The sync of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    /// None is under way.
    None,
    /// The server waits for it.
    Awaited,
    /// The server does not wait for it.
    Left,
}

impl Volumes {
    fn of(&mut self, share: ShareId) -> &mut Files {
        let found = self.all.iter_mut().find(|volume| volume.share == share);
        let volume = found.unwrap_or_else(|| panic!("another share's files: {share}"));
        &mut volume.files
    }

    fn find(&mut self, share: ShareId) -> Option<&mut Files> {
        let mut all = self.all.iter_mut();
        // A mutation exchanges the markers.
        let index = all.position(|volume| volume.share == share)?;
        let index = match self.mutation {
            Some(Mutation::MarkerOfOtherFileSystem) => self.all.len() - 1 - index,
            _ => index,
        };
        Some(&mut self.all[index].files)
    }

    /// Returns the shares whose syncs have ended, and whether they have succeeded.
    fn take_results(&mut self, wanted: Sync) -> Vec<(ShareId, bool)> {
        let mut results = Vec::new();
        let count = self.all.len();
        for (index, volume) in self.all.iter_mut().enumerate() {
            if volume.sync != wanted {
                continue;
            }
            if let Some(is_synced) = volume.files.poll_sync() {
                volume.sync = Sync::None;
                let is_ignored = self.mutation == Some(Mutation::OnlyFirstSyncCounts) && index > 0;
                results.push((volume.share, is_synced || is_ignored));
            }
        }
        let is_any_failed = results.iter().any(|(_, is_synced)| !is_synced);
        if is_any_failed && count > 1 && self.mutation == Some(Mutation::OneFailedSyncFailsAll) {
            results = self.all.iter().map(|of| (of.share, false)).collect();
        }
        results
    }

    fn note_failed(&mut self, results: Vec<(ShareId, bool)>) {
        let failed = results.into_iter().filter(|(_, is_synced)| !is_synced);
        self.failed.extend(failed.map(|(share, _)| share));
    }
}

impl FileSystem for Volumes {
    fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        self.of(actor.share).prepare(actor, op)
    }

    fn perform(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        self.of(actor.share).perform(actor, op, intent)
    }

    fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        self.of(open.actor.share).reopen(open)
    }

    fn remember(&mut self, open: OpenInfo) {
        self.of(open.actor.share).remember(open);
    }

    fn may_have_changed(&mut self, open: OpenId, _watch: WatchInfo, since: FileTime) -> bool {
        let mut all = self.all.iter_mut();
        all.any(|volume| volume.files.may_have_changed(open, since))
    }

    fn forget(&mut self, open: OpenId) {
        for volume in &mut self.all {
            volume.files.forget(open);
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        for volume in &mut self.all {
            volume.files.look_for_share();
        }
        Vec::new()
    }

    fn discard_changes(&mut self) {}

    fn found_roots(&mut self) -> Vec<(ShareId, FileKey)> {
        let all = self.all.iter_mut();
        all.filter_map(|volume| volume.files.take_found()).collect()
    }

    fn offline(&self) -> Vec<ShareId> {
        let offline = self.all.iter().filter(|volume| volume.files.is_offline());
        offline.map(|volume| volume.share).collect()
    }

    fn expect_root(&mut self, share: ShareId, key: FileKey) {
        for volume in &mut self.all {
            volume.files.expect(share, key);
        }
    }

    fn pause(&mut self, time: Duration) {
        for volume in &mut self.all {
            volume.files.pause(time);
        }
    }

    fn perform_again(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
        _as_server: bool,
    ) -> Result<Outcome, NtStatus> {
        self.of(actor.share).perform_again(actor, op, intent)
    }

    fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        self.of(share).mark(number)
    }

    fn marked(&mut self, share: ShareId) -> std::io::Result<u64> {
        match self.find(share) {
            Some(files) => files.marked(),
            None => Ok(0),
        }
    }

    fn begin_sync(&mut self) {
        for volume in &mut self.all {
            if volume.sync != Sync::Left {
                volume.files.begin_sync();
                volume.sync = Sync::Awaited;
            }
        }
    }

    fn synced(&mut self) -> Option<Vec<ShareId>> {
        let results = self.take_results(Sync::Awaited);
        self.note_failed(results);
        let is_through = self.under_sync().is_empty();
        is_through.then(|| std::mem::take(&mut self.failed))
    }

    fn under_sync(&self) -> Vec<ShareId> {
        let awaited = self.all.iter().filter(|of| of.sync == Sync::Awaited);
        awaited.map(|volume| volume.share).collect()
    }

    fn leave_sync(&mut self) {
        for volume in self.all.iter_mut().filter(|of| of.sync == Sync::Awaited) {
            volume.sync = Sync::Left;
        }
    }

    fn late(&mut self) -> Vec<(ShareId, bool)> {
        self.take_results(Sync::Left)
    }

    fn wait_synced(&mut self) -> Vec<ShareId> {
        for volume in self.all.iter_mut().filter(|of| of.sync == Sync::Awaited) {
            volume.files.await_sync();
        }
        self.synced().unwrap_or_default()
    }
}
