//! The medium of durability `power`: a file to which a thread writes the log's bytes by pwrite and fdatasync.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use log::error;
use outlast_nvram::sink::Batch;

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
