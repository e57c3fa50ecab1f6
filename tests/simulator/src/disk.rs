//! Simulates the disk, which outlives servers. Every change is a step, and a write at which a crash occurs is cut off.
//! Where the power can be cut, the file system has a journal: a power cut leaves a prefix of the changes of names since
//! the last sync, and any part of the changes of file contents.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use outlast_fsa::fileop::{FileTime, OpenId, ShareId};
use outlast_fsa::status::NtStatus;

use crate::clock::Clock;
use crate::faults::{self, Call};
use crate::fuse::{Fuse, Step};
use crate::image::{Change, Image, Ino};
use crate::mutation::Mutation;
use crate::random::Random;
use crate::sickness::{self, Sickness};
use crate::status;

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
    /// The time in which it is sick, if it is the second of two.
    sickness: Option<Sickness>,
    /// A request that is not answered yet could not be repeated.
    pub is_in_doubt: bool,
    /// The fault of the present call of a redo.
    fault: Option<Fault>,
    /// The number of failures of a redo, by the call that failed, and whether it failed midway.
    pub redo_failures: BTreeMap<(Call, bool), u32>,
}

/// A fault in the middle of an operation.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: Call,
    /// It does not occur at once, but at a change.
    is_midway: bool,
    /// The number of changes that succeed before it.
    after: u64,
    has_occurred: bool,
    status: NtStatus,
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
    /// The percentage of syncs that fail.
    failing_percent: u64,
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
            sickness: None,
            is_in_doubt: false,
            fault: None,
            redo_failures: BTreeMap::new(),
        }
    }

    /// Sets the number of its file system.
    pub fn set_device(&mut self, device: u64) {
        self.now.set_device(device);
    }

    /// Makes it one of two disks that never fails.
    pub fn never_fails(&mut self) {
        if let Some(journal) = &mut self.journal {
            (journal.faults_left, journal.failing_percent) = (0, 0);
        }
    }

    /// Makes it one of two disks that is sick for a while.
    pub fn is_sick_during(&mut self, sickness: Sickness) {
        self.sickness = Some(sickness);
    }

    fn fails_now(&self) -> bool {
        let now = self.clock.now();
        self.sickness.is_some_and(|of| of.fails_at(now))
    }

    /// Returns the error of a sick disk for a request, before anything is done.
    ///
    /// # Errors
    /// The error.
    pub fn meet_sickness(&self) -> Result<(), NtStatus> {
        let mut random = Random::at_step(self.seed, self.fuse.steps(), "sick");
        match self.fails_now() && random.percent(40) {
            true => Err(NtStatus(*random.pick(&sickness::STATUSES))),
            false => Ok(()),
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
        self.has_failed &= !yes;
    }

    /// Begins a call of a redo, and draws whether it fails, and after how many changes.
    ///
    /// # Errors
    /// It fails at once.
    pub fn begin_redo(&mut self, call: Call) -> Result<(), NtStatus> {
        let purpose = format!("faults of {call:?}");
        let mut random = Random::at_step(self.seed, self.fuse.steps(), &purpose);
        let fails = match self.sickness {
            Some(_) => self.fails_now() && !(self.is_starting && self.is_in_doubt),
            None => self.is_starting && self.journal.as_ref().is_some_and(|of| of.faults_left > 0),
        };
        // The marker is read and set for each operation, so these calls fail less often.
        let percent = match call {
            Call::Perform => 25,
            Call::Open | Call::Mark => 8,
            Call::ReadMarker => 4,
        };
        let times = if self.sickness.is_some() { 2 } else { 1 };
        if !fails || !random.percent(percent * times) {
            return Ok(());
        }
        // FILE_CLOSED is left out: the server correctly treats such a file as deleted.
        let all = faults::STATUSES.into_iter();
        let all: Vec<u32> = all.filter(|it| *it != status::FILE_CLOSED).collect();
        self.fault = Some(Fault {
            call,
            is_midway: call == Call::Perform && random.percent(70),
            after: *random.pick(&[0, 0, 1, 1, 2, 3]),
            has_occurred: false,
            status: NtStatus(*random.pick(&all)),
        });
        match self.fault {
            Some(fault) if !fault.is_midway => Err(self.occurs(fault)),
            _ => Ok(()),
        }
    }

    /// Ends a call of a redo. Returns whether it has failed midway.
    pub fn end_redo(&mut self) -> bool {
        let fault = self.fault.take();
        fault.is_some_and(|fault| fault.is_midway && fault.has_occurred)
    }

    /// Returns the error of the next change, if it fails.
    fn fails(&mut self) -> Option<NtStatus> {
        let fault = self.fault.filter(|fault| fault.after == 0)?;
        Some(self.occurs(fault))
    }

    /// Counts a fault that occurs.
    fn occurs(&mut self, fault: Fault) -> NtStatus {
        log::debug!("the disk fails: {fault:?}");
        if !fault.has_occurred {
            if let Some(journal) = &mut self.journal {
                journal.faults_left = journal.faults_left.saturating_sub(1);
            }
            let count = self.redo_failures.entry((fault.call, fault.is_midway));
            *count.or_default() += 1;
        }
        self.fault = Some(Fault {
            has_occurred: true,
            ..fault
        });
        self.has_failed = true;
        fault.status
    }

    /// Counts a change that succeeds.
    fn succeeds(&mut self) {
        if let Some(fault) = &mut self.fault {
            fault.after = fault.after.saturating_sub(1);
        }
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
            faults_left: match self.seed.is_multiple_of(2) {
                true => FAULTS,
                false => 0,
            },
            failing_percent: 5,
            clock,
            random: Random::new(self.seed, "syncs"),
            mutation,
        });
    }

    /// Notes the death of a server: its descriptors are closed, so files without a name are removed.
    pub fn killed(&mut self) {
        self.now.drop_nameless();
        self.is_starting = false;
        self.fault = None;
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
            let mut done = journal.clock.when_done(random) + long;
            if let Some(sickness) = self.sickness {
                done = sickness.end_of_sync(journal.clock.now(), done);
            }
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
        let is_sick = self.fails_now();
        let Some(journal) = &mut self.journal else {
            return Some(true);
        };
        let Some((count, due)) = journal.syncing else {
            return Some(true);
        };
        if journal.clock.now() < due {
            return (journal.mutation == Some(Mutation::SyncNotAwaited)).then_some(true);
        }
        // The disk may fail in some places only, so that a redo fails and the sync after it does not.
        let is_sick = is_sick && journal.random.percent(60);
        if journal.to_fail > 0 || is_sick {
            journal.to_fail = journal.to_fail.saturating_sub(1);
            self.fuse.step(Step::Sync);
            journal.fail(count);
            let is_last = journal.to_fail == 0;
            return Some(
                is_last && journal.mutation == Some(Mutation::SecondFailedSyncReportedDone),
            );
        }
        let is_believed = journal.mutation == Some(Mutation::FailedSyncReportedDone);
        let percent = match is_believed {
            true => 100,
            false => journal.failing_percent,
        };
        if journal.random.percent(percent) && !journal.has_failed {
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

    /// Waits for the end of the sync.
    pub fn await_sync(&mut self) {
        if let Some(journal) = &self.journal
            && let Some((_, due)) = journal.syncing
            && journal.mutation != Some(Mutation::SyncNotAwaited)
        {
            journal.clock.wait_until(due);
        }
    }

    /// Creates an inode without a name.
    ///
    /// # Errors
    /// The disk fails, as in all of these methods.
    pub fn make(
        &mut self,
        is_dir: bool,
        stamp: Option<OpenId>,
        attributes: u32,
    ) -> Result<Ino, NtStatus> {
        let ino = self.now.free_ino(self.next_ino);
        let inode = self.now.new_inode(is_dir, stamp, attributes);
        self.step(Change::Make(ino, Box::new(inode)))?;
        self.next_ino = self.next_ino.max(ino + 1);
        Ok(ino)
    }

    /// Stores which open has created an inode.
    ///
    /// # Errors
    /// As [`Disk::make`].
    pub fn stamp(&mut self, ino: Ino, open: OpenId) -> Result<(), NtStatus> {
        self.step(Change::Stamp(ino, open))
    }

    /// Removes the birth times of the file system from now on.
    pub fn forget_births(&mut self) {
        self.now.forget_births();
    }

    /// Adds a name to an inode.
    ///
    /// # Errors
    /// OBJECT_NAME_COLLISION: the name exists already; as [`Disk::make`].
    pub fn link(&mut self, dir: Ino, name: &str, ino: Ino) -> Result<(), NtStatus> {
        if self.entry(dir, name).is_some() {
            self.fuse.step(Step::Operation);
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        self.step(Change::Link(dir, name.to_owned(), ino))
    }

    /// Removes a name.
    ///
    /// # Errors
    /// As [`Disk::make`].
    pub fn unlink(&mut self, dir: Ino, name: &str) -> Result<(), NtStatus> {
        self.step(Change::Unlink(dir, name.to_owned()))
    }

    /// Renames a file, and replaces the file that has the new name, if there is one.
    ///
    /// # Errors
    /// As [`Disk::make`].
    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) -> Result<(), NtStatus> {
        self.step(Change::Rename(
            (from.0, from.1.to_owned()),
            (to.0, to.1.to_owned()),
        ))
    }

    /// Writes bytes, which may lie beyond the end.
    ///
    /// # Errors
    /// As [`Disk::make`]; a part of the bytes may have been written.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), NtStatus> {
        let crashes = self.fuse.crashes_at(Step::Operation);
        let failure = self.fails();
        if crashes || failure.is_some() {
            let mut random = Random::at_step(self.seed, self.fuse.steps(), "torn writes");
            let part = random.index(bytes.len() + 1);
            self.change(Change::Write(ino, offset, bytes[..part].to_vec()));
        }
        if crashes {
            self.fuse.crash();
        }
        if let Some(status) = failure {
            return Err(status);
        }
        self.succeeds();
        self.change(Change::Write(ino, offset, bytes.to_vec()));
        Ok(())
    }

    /// Sets a file's length.
    ///
    /// # Errors
    /// As [`Disk::make`].
    pub fn set_length(&mut self, ino: Ino, length: u64) -> Result<(), NtStatus> {
        self.step(Change::Length(ino, length))
    }

    /// Sets attributes and times; `None` leaves a value unchanged.
    ///
    /// # Errors
    /// As [`Disk::make`].
    pub fn set_basic(
        &mut self,
        ino: Ino,
        attributes: Option<u32>,
        times: [Option<FileTime>; 3],
    ) -> Result<(), NtStatus> {
        self.step(Change::Basic(ino, attributes, times))
    }

    /// Sets the marker of a share.
    ///
    /// # Errors
    /// As [`Disk::make`].
    pub fn mark(&mut self, share: ShareId, number: u64) -> Result<(), NtStatus> {
        self.step(Change::Mark(share, number))
    }

    fn step(&mut self, change: Change) -> Result<(), NtStatus> {
        self.fuse.step(Step::Operation);
        if let Some(status) = self.fails() {
            return Err(status);
        }
        self.succeeds();
        self.change(change);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        self.now.apply(&change);
        for dir in change.directories() {
            self.changed.insert(dir, self.clock.now());
        }
        let Some(journal) = &mut self.journal else {
            return;
        };
        let is_early = matches!(change, Change::Mark(..))
            && journal.mutation == Some(Mutation::MarkerBeforeChanges);
        let at = match is_early {
            true => journal.operation,
            false => journal.changes.len(),
        };
        journal.changes.insert(at, change);
    }
}
