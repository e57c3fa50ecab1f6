//! What follows the log: for durability `power` a file to which a thread writes the log's bytes by pwrite and
//! fdatasync.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use log::error;
use outlast_nvram::sink::Batch;
use outlast_nvram::{Home, Log, Lsn};

use crate::control::LinkStatus;
use crate::job_thread::JobThread;
use crate::supervisor::worker::EXIT_ERROR;

/// A medium that takes batches, one at a time.
pub trait Medium {
    /// Begins to write a batch. None is under way.
    fn begin(&mut self, batch: Batch);
    /// Returns whether the batch under way is written. Does not wait.
    fn poll(&mut self) -> bool;
    /// Waits until the batch under way is written.
    fn wait(&mut self);

    /// Takes note of what has happened, before and after each batch. One that comes and goes attaches the log and
    /// detaches it here.
    fn turn(&mut self, _log: &mut Log) {}

    /// The loop is to come back after so long, although nothing wakes it.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// The batch under way will never be there. Said once.
    fn is_lost(&mut self) -> bool {
        false
    }

    /// Must nobody be shown what is not there?
    fn is_required(&self) -> bool {
        true
    }

    /// Wipes what is there: nobody takes it up. `blank` is a batch that does so.
    fn erase(&mut self, blank: Batch) {
        self.begin(blank);
        self.wait();
    }

    /// How the interconnect is, for `outlast status`.
    fn link(&self, _log: &Log) -> Option<LinkStatus> {
        None
    }

    /// From now on the partner is to be in step, although the durability does not ask for it: the service is to move
    /// there. False: it is not to any more.
    fn want(&mut self, _yes: bool) {}

    /// The partner is in step, as the record says.
    fn is_in_step(&self) -> bool {
        false
    }
}

/// A medium, and what is on its way there.
pub(super) struct Shipping {
    pub home: Home,
    pub medium: Box<dyn Medium>,
    /// A batch is.
    pub is_under_way: bool,
    /// What operations do to files is on record for those that take the log up from there.
    pub has_effects: bool,
}

impl Shipping {
    /// Takes note of what has come there, and has the rest follow.
    pub(super) fn ship(&mut self, log: &mut Log) {
        self.medium.turn(log);
        if self.is_under_way && self.medium.poll() {
            log.batch_done(self.home);
            self.is_under_way = false;
            self.medium.turn(log);
        }
        self.is_under_way &= !self.medium.is_lost();
        if !self.is_under_way
            && let Some(batch) = log.next_batch(self.home)
        {
            self.medium.begin(batch);
            self.is_under_way = true;
        }
    }

    /// What is before this would be found again there.
    pub(super) fn durable(&self, log: &Log) -> Lsn {
        log.durable(self.home).unwrap_or(Lsn(0))
    }
}

/// A file, and the thread that writes to it.
pub struct SinkFile(JobThread<Batch, ()>);

impl SinkFile {
    /// Starts the thread. `wake`, an eventfd, is written to when a batch is on the medium.
    ///
    /// An error of the medium ends the process: records that could not be written must not be shown, and a second
    /// fdatasync would report success.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn new(file: File, path: PathBuf, wake: Arc<OwnedFd>) -> anyhow::Result<SinkFile> {
        let thread = JobThread::start("sink", wake, move |batch| {
            if let Err(error) = bring(&file, &batch) {
                error!(
                    "nvram.sink: {}: {error}: the server ends, its sessions are kept",
                    path.display()
                );
                std::process::exit(EXIT_ERROR.into());
            }
        });
        Ok(SinkFile(thread.context("no thread can be started")?))
    }
}

fn bring(file: &File, batch: &Batch) -> std::io::Result<()> {
    for (at, bytes) in &batch.writes {
        file.write_all_at(bytes, *at)?;
    }
    file.sync_data()
}

impl Medium for SinkFile {
    fn begin(&mut self, batch: Batch) {
        self.0.begin(batch);
    }

    fn poll(&mut self) -> bool {
        self.0.finished().is_some()
    }

    fn wait(&mut self) {
        self.0.wait();
    }
}
