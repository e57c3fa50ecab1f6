//! The medium of durability `power`: a file that takes the log's bytes by pwrite and fdatasync, on a thread of its own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use crossbeam::channel::{Receiver, Sender, bounded};
use log::error;
use outlast_nvram::sink::Batch;

use crate::supervisor::worker::EXIT_ERROR;

/// Where batches go, one at a time.
pub trait Medium {
    /// Has a batch brought onto the medium. None is under way.
    fn begin(&mut self, batch: Batch);
    /// Is the batch under way there? Does not wait.
    fn poll(&mut self) -> bool;
    /// Waits until the batch under way is there.
    fn wait(&mut self);
}

/// A file, and the thread that writes to it.
pub struct SinkFile {
    batches: Sender<Batch>,
    done: Receiver<()>,
    finished: bool,
}

impl SinkFile {
    /// Starts the thread. `wake`, an eventfd, is written to when a batch is on the medium.
    ///
    /// An error of the medium ends the process: what could not be brought there must not be shown, and a second fdatasync would say that all
    /// is well.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn new(file: File, path: PathBuf, wake: Arc<OwnedFd>) -> anyhow::Result<SinkFile> {
        let (batches, work) = bounded::<Batch>(1);
        let (report, done) = bounded(1);
        std::thread::Builder::new()
            .name("sink".into())
            .spawn(move || {
                for batch in work {
                    if let Err(error) = bring(&file, &batch) {
                        error!(
                            "nvram.sink: {}: {error}: the server ends here, its sessions are kept",
                            path.display()
                        );
                        std::process::exit(EXIT_ERROR.into());
                    }
                    // what it holds of the log is let go of before anyone hears of it
                    drop(batch);
                    if report.send(()).is_err() {
                        return;
                    }
                    let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
                }
            })
            .context("no thread can be started")?;
        Ok(SinkFile {
            batches,
            done,
            finished: false,
        })
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
        self.finished = false;
        // The thread ends with the process only.
        let _ = self.batches.send(batch);
    }

    fn poll(&mut self) -> bool {
        self.finished |= self.done.try_recv().is_ok();
        self.finished
    }

    fn wait(&mut self) {
        if !self.finished {
            self.finished = self.done.recv().is_ok();
        }
    }
}
