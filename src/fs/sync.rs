//! Bringing the shares' file systems onto their media, on a thread of its own: a loop that waits for a disk serves nobody.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use crossbeam::channel::{Receiver, Sender, bounded};
use log::error;

/// Asks for it, and hears when it is done. One without a thread has nothing to bring anywhere.
#[derive(Default)]
pub struct Syncer {
    thread: Option<(Sender<()>, Receiver<bool>)>,
    under_way: bool,
}

impl Syncer {
    /// `mounts`: a descriptor on each file system. `wake`, an eventfd, is written to when they are synced.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn new(mounts: Vec<OwnedFd>, wake: Arc<OwnedFd>) -> anyhow::Result<Syncer> {
        let (ask, asked) = bounded(1);
        let (report, done) = bounded(1);
        std::thread::Builder::new()
            .name("sync".into())
            .spawn(move || {
                for () in asked {
                    let synced = mounts.iter().all(|mount| {
                        rustix::fs::syncfs(mount)
                            .inspect_err(|error| {
                                error!("a share's file system cannot be synced: {error}")
                            })
                            .is_ok()
                    });
                    if report.send(synced).is_err() {
                        return;
                    }
                    // only wakes
                    let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
                }
            })
            .context("no thread can be started")?;
        Ok(Syncer {
            thread: Some((ask, done)),
            under_way: false,
        })
    }

    /// Begins. Everything done to the files before is to be on the medium.
    pub fn begin(&mut self) {
        if let Some((ask, _)) = &self.thread {
            // The thread ends with the process only.
            self.under_way = ask.send(()).is_ok();
        }
    }

    /// Is it there? `None`: not yet; `Some(false)`: it could not be brought there.
    pub fn poll(&mut self) -> Option<bool> {
        let Some((_, done)) = self.thread.as_ref().filter(|_| self.under_way) else {
            return Some(true);
        };
        let synced = done.try_recv().ok()?;
        self.under_way = false;
        Some(synced)
    }

    /// Waits for it.
    pub fn wait(&mut self) -> bool {
        let Some((_, done)) = self.thread.as_ref().filter(|_| self.under_way) else {
            return true;
        };
        self.under_way = false;
        done.recv().unwrap_or(false)
    }
}
