//! Simulates the disk, which outlives servers. Every change is a step, and a write at which a crash occurs is cut off.
//! Where the power can be cut, the file system has a journal: a power cut leaves a prefix of the changes of names since
//! the last sync, and any part of the changes of file contents.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use outlast_fsa::fileop::{FileTime, OpenId, ShareId};
use outlast_fsa::status::NtStatus;

use crate::clock::Clock;
use crate::faults;
use crate::fuse::{Fuse, Step};
use crate::image::{Change, Image, Ino};
use crate::mutation::Mutation;
use crate::random::Random;
use crate::status;

/// The error that a name exists already.
#[derive(Debug)]
pub struct Taken;

/// The disk, and the state of its file system.
pub struct Disk {
    now: Image,
    journal: Option<Journal>,
    next_ino: Ino,
    fuse: Fuse,
    seed: u64,
    clock: Clock,
    /// The time at which names in a directory were last created or removed.
    changed: BTreeMap<Ino, Duration>,
    /// The times at which servers died.
    deaths: Vec<Duration>,
    /// The server may have answered a CHANGE_NOTIFY with STATUS_NOTIFY_ENUM_DIR.
    pub may_send_enum_dir: bool,
    /// The times at which the share was missing: the beginning, and the end if that is over.
    away: Vec<(Duration, Option<Duration>)>,
    /// An operation has been done on the share.
    has_served: bool,
    /// A server is starting.
    is_starting: bool,
    /// A call of its redo has failed since this was last read.
    has_failed: bool,
}

/// The time before a death in which the server may not know whether a directory was changed by itself.
const UNSURE: Duration = Duration::from_millis(100);

/// The file system's journal, from which a power cut determines what is left.
struct Journal {
    /// What is certainly on the medium.
    medium: Image,
    /// The changes made since.
    changes: Vec<Change>,
    /// The number of changes that the present sync covers, and the time of its end.
    syncing: Option<(usize, Duration)>,
    /// The index of the last operation's first change.
    operation: usize,
    /// The last sync has failed.
    has_failed: bool,
    /// The sync before it has failed.
    had_failed: bool,
    /// The number of next syncs that fail in any case.
    to_fail: u32,
    /// The number of calls of a redo that may still fail.
    faults_left: u32,
    clock: Clock,
    random: Random,
    mutation: Option<Mutation>,
}

impl Journal {
    /// Fails a sync: half of the file contents that it covers will never be written, although they can still be read.
    fn fail(&mut self, count: usize) {
        self.syncing = None;
        self.has_failed = true;
        let mut left = Vec::new();
        for (index, change) in self.changes.drain(..).enumerate() {
            let is_dropped = index < count && !change.is_ordered() && self.random.percent(50);
            if is_dropped {
                self.operation -= usize::from(left.len() < self.operation);
            } else {
                left.push(change);
            }
        }
        self.changes = left;
    }

    /// Counts the last sync as a failure if the one before it has failed: a server that dies may not have recorded the
    /// success, and takes another failure for the second in a row, after which it isolates the share.
    fn forget_success(&mut self) {
        self.has_failed |= std::mem::take(&mut self.had_failed);
    }
}

/// The maximum number of calls of a redo that fail in a run.
const FAULTS: u32 = 3;

/// Bytes that reach the medium as one.
const SECTOR: usize = 512;

impl Deref for Disk {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.now
    }
}

impl Disk {
    /// Makes an empty disk.
    #[must_use]
    pub fn new(fuse: Fuse, seed: u64, clock: Clock) -> Disk {
        let now = Image::default();
        Disk {
            next_ino: now.last_ino() + 1,
            now,
            journal: None,
            fuse,
            seed,
            clock,
            changed: BTreeMap::new(),
            deaths: Vec::new(),
            may_send_enum_dir: false,
            away: Vec::new(),
            has_served: false,
            is_starting: false,
            has_failed: false,
        }
    }

    /// Returns whether names in a directory have been created or removed after a time.
    ///
    /// # Panics
    /// The time is too long ago, so that the server would report its own changes without need.
    pub fn has_changed(&mut self, dir: Ino, since: Duration) -> bool {
        let changed = self.changed.get(&dir).copied().unwrap_or_default();
        let has_changed = changed.as_micros() > since.as_micros();
        let died = self.deaths.iter().find(|died| **died >= changed);
        let died = died.copied().unwrap_or_default();
        assert!(
            !has_changed || changed + UNSURE > died,
            "a directory that changed at {changed:?} counts as changed after {since:?}; the server died at {died:?}"
        );
        self.may_send_enum_dir |= has_changed;
        has_changed
    }

    /// Returns the server's time.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.clock.now()
    }

    /// Advances the server's time.
    pub fn pause(&mut self, time: Duration) {
        self.clock.wait_until(self.clock.now() + time);
    }

    /// Makes the share's directory missing from now on.
    pub fn share_is_away(&mut self) {
        self.share_is_back();
        self.away.push((self.clock.now(), None));
    }

    /// Makes the share's directory available again.
    pub fn share_is_back(&mut self) {
        if let Some((_, end)) = self.away.last_mut() {
            end.get_or_insert(self.clock.now());
        }
    }

    /// Notes that an operation has been done on the share.
    pub fn serves(&mut self) {
        self.has_served = true;
    }

    /// Returns whether a server has done any operation on the share, and so has its directory on record.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.has_served
    }

    /// Returns the times at which the share was missing: the beginning, and the end if that is over.
    #[must_use]
    pub fn away(&self) -> &[(Duration, Option<Duration>)] {
        &self.away
    }

    /// Notes whether a server is starting.
    pub fn starting(&mut self, yes: bool) {
        self.is_starting = yes;
    }

    /// Returns the error of a call of a redo, if it fails.
    pub fn fault(&mut self) -> Option<NtStatus> {
        if !self.is_starting {
            return None;
        }
        let journal = self.journal.as_mut()?;
        let mut random = Random::at_step(self.seed, self.fuse.steps(), "faults");
        if journal.faults_left == 0 || !random.percent(10) {
            return None;
        }
        journal.faults_left -= 1;
        self.has_failed = true;
        // FILE_CLOSED is left out: the server correctly treats such a file as deleted.
        let all = faults::STATUSES.into_iter();
        let all: Vec<u32> = all.filter(|it| *it != status::FILE_CLOSED).collect();
        Some(NtStatus(*random.pick(&all)))
    }

    /// Returns whether a call of a redo has failed since the last call of this function.
    pub fn take_failure(&mut self) -> bool {
        std::mem::take(&mut self.has_failed)
    }

    /// Keeps a journal from now on, so that the power can be cut.
    pub fn keep_journal(&mut self, clock: Clock, mutation: Option<Mutation>) {
        self.journal = Some(Journal {
            medium: self.now.clone(),
            changes: Vec::new(),
            syncing: None,
            operation: 0,
            has_failed: false,
            had_failed: false,
            to_fail: 0,
            faults_left: if self.seed.is_multiple_of(2) {
                FAULTS
            } else {
                0
            },
            clock,
            random: Random::new(self.seed, "syncs"),
            mutation,
        });
    }

    /// Notes the death of a server: its descriptors are closed, so files without a name are removed.
    pub fn killed(&mut self) {
        self.now.drop_nameless();
        self.is_starting = false;
        self.share_is_back();
        self.deaths.push(self.clock.now());
        if let Some(journal) = &mut self.journal {
            journal.syncing = None;
            journal.forget_success();
        }
    }

    /// Simulates a power cut.
    pub fn cut(&mut self, random: &mut Random) {
        // Times of an earlier boot of the kernel cannot be compared.
        self.may_send_enum_dir = true;
        let Some(journal) = &mut self.journal else {
            return;
        };
        let count = journal.changes.len();
        let kept = match random.below(5) {
            0 => 0,
            1 => count,
            _ => random.index(count + 1),
        };
        log::debug!("{kept} of {count} changes of the file system are left");
        let image = &mut journal.medium;
        for (index, change) in journal.changes.drain(..).enumerate() {
            match change {
                change if change.is_ordered() => {
                    if index < kept {
                        image.apply(&change);
                    }
                }
                Change::Write(ino, offset, bytes) => {
                    let whole = random.percent(40);
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        if whole || random.percent(40) {
                            let at = offset + (number * SECTOR) as u64;
                            image.apply(&Change::Write(ino, at, sector.to_vec()));
                        }
                    }
                }
                change => {
                    if random.percent(50) {
                        image.apply(&change);
                    }
                }
            }
        }
        image.drop_nameless();
        image.begin_generation();
        self.now = image.clone();
        journal.syncing = None;
        journal.forget_success();
        journal.operation = 0;
        self.next_ino = self.now.last_ino() + 1;
    }

    /// Notes the beginning of an operation.
    pub fn begin_operation(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.operation = journal.changes.len();
        }
    }

    /// Begins a sync of everything.
    pub fn begin_sync(&mut self) {
        if let Some(journal) = &mut self.journal {
            let random = &mut journal.random;
            // A sync of the whole disk may take long.
            let long = Duration::from_millis(*random.pick(&[0, 100, 3000]));
            let done = journal.clock.when_done(random) + long;
            journal.syncing = Some((journal.changes.len(), done));
        }
    }

    /// Makes the next two syncs fail.
    pub fn fail_two_syncs(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.to_fail = 2;
        }
    }

    /// Returns the time at which the present sync ends.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.journal.as_ref()?.syncing.map(|(_, due)| due)
    }

    /// Returns whether the last sync has succeeded. `None`: it is in progress.
    pub fn synced(&mut self) -> Option<bool> {
        let Some(journal) = &mut self.journal else {
            return Some(true);
        };
        let Some((count, due)) = journal.syncing else {
            return Some(true);
        };
        if journal.clock.now() < due {
            return (journal.mutation == Some(Mutation::SyncNotAwaited)).then_some(true);
        }
        if journal.to_fail > 0 {
            journal.to_fail -= 1;
            self.fuse.step(Step::Sync);
            journal.fail(count);
            let is_last = journal.to_fail == 0;
            return Some(is_last && journal.mutation == Some(Mutation::SecondFailureBelieved));
        }
        let is_believed = journal.mutation == Some(Mutation::FailedSyncBelieved);
        if journal.random.percent(if is_believed { 100 } else { 5 }) && !journal.has_failed {
            self.fuse.step(Step::Sync);
            journal.fail(count);
            return Some(is_believed);
        }
        (journal.had_failed, journal.has_failed) = (journal.has_failed, false);
        let crashes = self.fuse.crashes_at(Step::Sync);
        if !crashes || journal.random.percent(50) {
            for change in journal.changes.drain(..count) {
                journal.medium.apply(&change);
            }
            journal.operation = journal.operation.saturating_sub(count);
        }
        journal.syncing = None;
        if crashes {
            self.fuse.crash();
        }
        Some(true)
    }

    /// Waits for the end of the sync, and returns whether it has succeeded.
    pub fn wait_synced(&mut self) -> bool {
        if let Some(journal) = &self.journal
            && let Some((_, due)) = journal.syncing
            && journal.mutation != Some(Mutation::SyncNotAwaited)
        {
            journal.clock.wait_until(due);
        }
        self.synced().unwrap_or(false)
    }

    /// Creates an inode without a name.
    pub fn make(&mut self, is_dir: bool, stamp: Option<OpenId>, attributes: u32) -> Ino {
        let ino = self.now.free_ino(self.next_ino);
        let inode = self.now.new_inode(is_dir, stamp, attributes);
        self.step(Change::Make(ino, Box::new(inode)));
        self.next_ino = self.next_ino.max(ino + 1);
        ino
    }

    /// Stores which open has created an inode.
    pub fn stamp(&mut self, ino: Ino, open: OpenId) {
        self.step(Change::Stamp(ino, open));
    }

    /// Removes the birth times of the file system from now on.
    pub fn forget_births(&mut self) {
        self.now.forget_births();
    }

    /// Adds a name to an inode.
    ///
    /// # Errors
    /// The name exists already.
    pub fn link(&mut self, dir: Ino, name: &str, ino: Ino) -> Result<(), Taken> {
        if self.entry(dir, name).is_some() {
            self.fuse.step(Step::Operation);
            return Err(Taken);
        }
        self.step(Change::Link(dir, name.to_owned(), ino));
        Ok(())
    }

    /// Removes a name.
    pub fn unlink(&mut self, dir: Ino, name: &str) {
        self.step(Change::Unlink(dir, name.to_owned()));
    }

    /// Renames a file, and replaces the file that has the new name, if there is one.
    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) {
        self.step(Change::Rename(
            (from.0, from.1.to_owned()),
            (to.0, to.1.to_owned()),
        ));
    }

    /// Writes bytes, which may lie beyond the end.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        if self.fuse.crashes_at(Step::Operation) {
            let mut random = Random::at_step(self.seed, self.fuse.steps(), "torn writes");
            let part = random.index(bytes.len() + 1);
            self.change(Change::Write(ino, offset, bytes[..part].to_vec()));
            self.fuse.crash();
        }
        self.change(Change::Write(ino, offset, bytes.to_vec()));
    }

    /// Sets a file's length.
    pub fn set_length(&mut self, ino: Ino, length: u64) {
        self.step(Change::Length(ino, length));
    }

    /// Sets attributes and times; `None` leaves a value unchanged.
    pub fn set_basic(&mut self, ino: Ino, attributes: Option<u32>, times: [Option<FileTime>; 3]) {
        self.step(Change::Basic(ino, attributes, times));
    }

    /// Sets the marker of a share.
    pub fn mark(&mut self, share: ShareId, number: u64) {
        self.step(Change::Mark(share, number));
    }

    fn step(&mut self, change: Change) {
        self.fuse.step(Step::Operation);
        self.change(change);
    }

    fn change(&mut self, change: Change) {
        self.now.apply(&change);
        for dir in change.directories() {
            self.changed.insert(dir, self.clock.now());
        }
        let Some(journal) = &mut self.journal else {
            return;
        };
        let is_early =
            matches!(change, Change::Mark(..)) && journal.mutation == Some(Mutation::MarkerFirst);
        let at = match is_early {
            true => journal.operation,
            false => journal.changes.len(),
        };
        journal.changes.insert(at, change);
    }
}
