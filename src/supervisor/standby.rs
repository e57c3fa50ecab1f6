//! The worker that stands by: the supervisor starts it when another worker serves. It follows that one's log, and
//! serves as soon as it is ordered to, in place of a worker that would have to be started and to read the log first.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::{info, warn};
use rustix::fs::MemfdFlags;

use super::environment;
use super::machine::{Ended, Order};
use super::process::Process;
use super::provision::Provision;

/// Names the descriptor of the [`Page`].
pub(super) const VARIABLE: &str = "OUTLAST_STANDBY_FD";
/// After a worker has begun to serve. Its clients come first.
const DELAY: Duration = Duration::from_millis(100);
/// After the death of one that stood by; it doubles with each that follows.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the worker that stands by says of itself: memory that all workers of a supervisor share.
#[derive(Clone, Debug)]
pub struct Page(Arc<File>);

/// How a worker stands by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its process id; 0: there is none.
    pub pid: u32,
    /// How far it has read the log, in bytes since that was formatted.
    pub position: u64,
}

impl Page {
    /// One that says that nobody stands by.
    ///
    /// # Errors
    /// There can be none.
    pub(super) fn new() -> io::Result<Page> {
        let page = rustix::fs::memfd_create("outlast-standby", MemfdFlags::CLOEXEC)?;
        Ok(Page(Arc::new(page.into())))
    }

    /// The one that the supervisor has given this process, if it has.
    pub(super) fn inherited(is_open: impl FnOnce(RawFd) -> bool) -> Option<Page> {
        environment::inherited(VARIABLE, is_open).map(|page| Page(Arc::new(page.into())))
    }

    /// What it says. A page that cannot be read says nothing.
    #[must_use]
    pub fn read(&self) -> Standing {
        let mut words = [[0; 8]; 2];
        if self.0.read_exact_at(words.as_flattened_mut(), 0).is_err() {
            return Standing::default();
        }
        let [pid, position] = words.map(u64::from_ne_bytes);
        Standing {
            pid: u32::try_from(pid).unwrap_or_default(),
            position,
        }
    }

    /// Says it.
    pub(super) fn write(&self, standing: Standing) {
        let words = [u64::from(standing.pid), standing.position].map(u64::to_ne_bytes);
        // Memory; `status` alone depends on it.
        let _ = self.0.write_all_at(words.as_flattened(), 0);
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Page {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The supervisor's side.
pub(super) struct Standby {
    page: Page,
    process: Option<Process>,
    /// What it runs; `None`: the supervisor's own binary.
    binary: Option<PathBuf>,
    /// When one is started; `None`: not while no worker serves.
    start_at: Option<Duration>,
    /// Deaths in a row.
    deaths: u32,
}

impl Standby {
    /// Nobody stands by yet.
    ///
    /// # Errors
    /// There can be no page.
    pub(super) fn new() -> io::Result<Standby> {
        Ok(Standby {
            page: Page::new()?,
            process: None,
            binary: None,
            start_at: None,
            deaths: 0,
        })
    }

    /// What workers inherit.
    pub(super) fn page(&self) -> &Page {
        &self.page
    }

    /// A worker serves, which runs this binary. The next one is to run it, too.
    pub(super) fn serves(&mut self, binary: Option<&Path>, now: Duration) {
        self.binary = binary.map(Path::to_owned);
        self.deaths = 0;
        self.start_at = Some(now + DELAY);
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.start_at.filter(|_| self.process.is_none())
    }

    /// Starts one if it is time; takes note of the end of one.
    pub(super) fn look_after(&mut self, provision: &dyn Provision, now: Duration) {
        match self.process.as_mut().map(Process::reap_alone) {
            Some(Ok(Some(how))) => self.ended(how, now),
            Some(Err(error)) => warn!("the worker that stands by cannot be waited for: {error}"),
            _ => {}
        }
        if self.process.is_some() || self.start_at.is_none_or(|at| at > now) {
            return;
        }
        if !provision.stands_by() {
            self.start_at = None;
            return;
        }
        let started = provision.inherited().and_then(|inherited| {
            let process = Process::stand_by(&inherited, self.binary.as_deref(), &self.page)?;
            Ok(process)
        });
        match started {
            Ok(process) => self.process = Some(process),
            Err(why) => {
                warn!("no worker stands by: {why:#}");
                self.pause(now);
            }
        }
    }

    /// The server is ending: nobody takes over.
    pub(super) fn retire(&mut self) {
        self.start_at = None;
        self.page.write(Standing::default());
        if let Some(process) = self.process.take() {
            process.dismiss();
        }
    }

    fn ended(&mut self, how: Ended, now: Duration) {
        self.forget();
        // The log of a server that was stopped is nobody's.
        if how != Ended::Stopped {
            self.pause(now);
            warn!("the worker that stood by has ended; the one that serves is not affected");
        }
    }

    fn pause(&mut self, now: Duration) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.deaths.min(16));
        self.deaths += 1;
        self.start_at = Some(now + pause.min(PAUSE_MAX));
    }

    fn forget(&mut self) {
        self.process = None;
        self.page.write(Standing::default());
    }

    /// The one that stands by, ordered to serve; `None`: there is none, or it was started for something else.
    pub(super) fn take(
        &mut self,
        order: &Order,
        is_as_before: bool,
        away_since: Option<SystemTime>,
    ) -> Option<Process> {
        self.start_at = None;
        let mut process = self.process.take()?;
        self.page.write(Standing::default());
        let is_the_same = is_as_before && order.binary == self.binary;
        if is_the_same && process.order(order, away_since).is_ok() {
            info!("worker {}, which stood by, takes over", process.id());
            return Some(process);
        }
        process.dismiss();
        None
    }
}
