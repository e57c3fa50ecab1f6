//! Does the loop's work for observation: it counts frames, copies the machine's counts into the memory that the
//! supervisor keeps, and hands frames to a capture.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use outlast_stack::TxFrame;

use super::files::FileSystem;
use super::machine::Machine;
use super::status::About;
use crate::capture::{Direction, Ring};
use crate::metrics::{Counts, Gauges, Page, Writer};
use crate::pair;

/// Between two measurements.
const PACE: Duration = Duration::from_millis(400);

/// The loop's side of metrics and captures.
pub(super) struct Observer {
    page: Page,
    writer: Writer,
    ring: Option<Ring>,
    /// Not before the first clients are answered: with many connections it takes a while.
    measured: Instant,
}

impl Observer {
    /// Counts in this page, and captures into this memory, if the supervisor has given one.
    ///
    /// # Errors
    /// The memory cannot be mapped.
    pub fn new(page: Page, capture: Option<OwnedFd>) -> io::Result<Observer> {
        Ok(Observer {
            writer: page.writer()?,
            page,
            ring: capture.map(Ring::inherited).transpose()?.flatten(),
            measured: Instant::now(),
        })
    }

    /// What the workers before this one have counted.
    pub fn counts(&self) -> Counts {
        self.page.counts()
    }

    /// A frame was received.
    pub fn received<F: FileSystem>(&mut self, machine: &mut Machine<F>, frame: &[u8]) {
        machine.counts().receive(frame.len());
        if let Some(ring) = &mut self.ring {
            ring.put(Direction::Received, &[frame]);
        }
    }

    /// A frame is about to be sent.
    pub fn sent<F: FileSystem>(&mut self, machine: &mut Machine<F>, frame: &TxFrame) {
        machine.counts().send(frame.len());
        if let Some(ring) = self.ring.as_mut().filter(|ring| ring.is_on()) {
            let header = std::iter::once(&frame.header[..]);
            let parts: Vec<&[u8]> = header
                .chain(frame.payload.iter().map(|part| &part[..]))
                .collect();
            ring.put(Direction::Sent, &parts);
        }
    }

    /// The turn has ended.
    pub fn count<F: FileSystem>(&mut self, machine: &mut Machine<F>) {
        self.writer.count(machine.counts());
    }

    /// Measures what the server holds, if it is time.
    pub fn measure<F: FileSystem>(&mut self, machine: &Machine<F>, about: &About) {
        if self.measured.elapsed() < PACE {
            return;
        }
        self.measured = Instant::now();
        let standby = about.standby(machine.journal().committed().0);
        let pair = about.pair.as_ref().and_then(pair::page::Page::read);
        self.writer.measure(Gauges {
            standby: standby.is_some().into(),
            standby_lag_bytes: standby.map_or(0, |standby| standby.lag_bytes),
            standby_differences: about.compared().differences,
            pair: pair.is_some().into(),
            partner_runs: pair.as_ref().is_some_and(|pair| pair.partner_runs).into(),
            partner_in_step: pair.is_some_and(|pair| pair.in_step).into(),
            ..machine.gauges()
        });
    }
}
