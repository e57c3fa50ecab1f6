//! Ships the log to a medium: for durability `power` a file to which a thread writes the log's bytes by pwrite and
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

/// A medium that writes batches, one at a time.
pub trait Medium {
    /// Begins to write a batch. No other one is in progress.
    fn begin(&mut self, batch: Batch);
    /// Returns whether the batch in progress is written. Does not wait.
    fn poll(&mut self) -> bool;
    /// Waits until the batch in progress is written.
    fn wait(&mut self);

    /// Processes events, before and after each batch. A medium that may be disconnected attaches and detaches the log
    /// here.
    fn turn(&mut self, _log: &mut Log) {}

    /// Returns the time after which the loop must call again without an event.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// Returns, once, whether the batch in progress is lost.
    fn is_lost(&mut self) -> bool {
        false
    }

    /// Returns whether output must wait for this medium.
    fn is_required(&self) -> bool {
        true
    }

    /// Wipes the content, which no server will resume. `blank` is the batch for it.
    fn erase(&mut self, blank: Batch) {
        self.begin(blank);
        self.wait();
    }

    /// Returns the status of the interconnect.
    fn link(&self, _log: &Log) -> Option<LinkStatus> {
        None
    }

    /// Sets whether the partner must be in step even if the durability does not require it, because the service must
    /// move to it.
    fn want(&mut self, _yes: bool) {}

    /// Returns whether the partner is in step, according to the record.
    fn is_in_step(&self) -> bool {
        false
    }
}

/// A medium, and the batch in progress.
pub(super) struct Shipping {
    pub home: Home,
    pub medium: Box<dyn Medium>,
    /// A batch is in progress.
    pub is_under_way: bool,
    /// A server that recovers from there needs the effects on files on record.
    pub has_effects: bool,
}

impl Shipping {
    /// Processes the progress of the medium, and begins the next batch.
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

    /// Returns the position up to which the medium has the log.
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
