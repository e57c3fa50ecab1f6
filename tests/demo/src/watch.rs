//! Watches the client's traffic: captures every packet of a device, and shows the rate.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use outlast::trace::file::Writer;
use outlast::trace::live::Device;
use outlast::trace::{Connection, Connections, words};

use crate::screen::Live;

/// The interval at which the rate is updated.
const TICK: Duration = Duration::from_millis(100);
/// The number of rates that are shown side by side.
const HISTORY: usize = 64;
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PORT: u16 = 445;

/// The threads that capture and show.
pub struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<Connections>,
    rates: Mutex<Rates>,
    is_over: AtomicBool,
    missed: AtomicU32,
}

impl Watch {
    /// Begins to capture on this device.
    ///
    /// # Errors
    /// The device cannot be captured, or the file cannot be written.
    pub fn start(device: &str, save: Option<&Path>, live: Live) -> anyhow::Result<Watch> {
        let listening =
            Device::open(device).with_context(|| format!("{device} cannot be captured"))?;
        let writer = match save {
            Some(path) => {
                let file = File::create(path).with_context(|| path.display().to_string())?;
                Some(Writer::new(BufWriter::new(file))?)
            }
            None => None,
        };
        let shared = Arc::new(Shared::default());
        let (capturing, showing) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || capture(listening, writer, &capturing)),
            std::thread::spawn(move || {
                show(&showing, &live);
                Ok(())
            }),
        ];
        Ok(Watch { shared, threads })
    }

    /// Returns the connections so far.
    pub fn connections(&self) -> MutexGuard<'_, Connections> {
        lock(&self.shared.connections)
    }

    /// Evaluates the latest connection with the server.
    pub fn latest<T>(&self, look: impl Fn(&Connection) -> T) -> Option<T> {
        let connections = self.connections();
        let mut servers = connections.all().iter().rev();
        servers.find(|one| one.server.port() == PORT).map(look)
    }

    /// Returns the number of bytes that have passed.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Marks a fault in the line of rates.
    pub fn mark(&self) {
        lock(&self.shared.rates).mark();
    }

    /// Ends the capture; returns the connections, and the number of lost frames.
    ///
    /// # Errors
    /// The capture has failed.
    pub fn finish(mut self) -> anyhow::Result<(Connections, u32)> {
        self.end()?;
        let connections = std::mem::take(&mut *self.connections());
        Ok((connections, self.shared.missed.load(Ordering::SeqCst)))
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the capture panicked")))?;
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // `finish` has reported an error, or it no longer matters.
        let _ = self.end();
    }
}

impl Shared {
    fn bytes(&self) -> u64 {
        lock(&self.connections)
            .all()
            .iter()
            .map(Connection::bytes)
            .sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn capture(
    mut device: Device,
    mut writer: Option<Writer<BufWriter<File>>>,
    shared: &Shared,
) -> anyhow::Result<()> {
    loop {
        // Checked before the buffer is emptied: frames from before the end are in it.
        let is_last = shared.is_over.load(Ordering::SeqCst);
        while let Some(captured) = device.next_frame()? {
            let Some(segment) = captured.segment() else {
                continue;
            };
            lock(&shared.connections).add(&segment);
            if let Some(writer) = &mut writer {
                writer.add(captured.at, captured.frame, captured.wire_bytes)?;
            }
        }
        if is_last {
            shared.missed.store(device.missed()?, Ordering::SeqCst);
            if let Some(writer) = writer {
                writer.finish()?;
            }
            return Ok(());
        }
        device.wait(TICK / 5)?;
    }
}

fn show(shared: &Shared, live: &Live) {
    let mut before = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        let bytes = shared.bytes();
        let line = {
            let mut rates = lock(&shared.rates);
            rates.add((bytes.saturating_sub(before) as f64 / TICK.as_secs_f64()) as u64);
            rates.line()
        };
        before = bytes;
        live.show(&line);
        std::thread::sleep(TICK);
    }
    live.show("");
}

/// The latest rates in bytes per second, and the faults between them.
#[derive(Debug, Default)]
struct Rates(VecDeque<Rate>);

#[derive(Clone, Copy, Debug)]
enum Rate {
    Bytes(u64),
    Fault,
}

impl Rates {
    fn add(&mut self, bytes: u64) {
        self.push(Rate::Bytes(bytes));
    }

    fn mark(&mut self) {
        self.push(Rate::Fault);
    }

    fn push(&mut self, rate: Rate) {
        self.0.push_back(rate);
        if self.0.len() > HISTORY {
            self.0.pop_front();
        }
    }

    /// Shows the present rate, and past ones as bars of eighths, with a cross at each fault.
    fn line(&self) -> String {
        let bytes = |rate: &Rate| match rate {
            Rate::Bytes(bytes) => Some(*bytes),
            Rate::Fault => None,
        };
        let most = self.0.iter().filter_map(bytes).max().unwrap_or(0).max(1);
        let now = self.0.iter().rev().find_map(bytes).unwrap_or(0);
        let bars = self.0.iter().map(|rate| match rate {
            // A rate that is not zero is visible.
            Rate::Bytes(bytes) => {
                let eighths = (bytes * 8).div_ceil(most);
                BARS[eighths as usize].to_string()
            }
            Rate::Fault => "\x1b[31m✗\x1b[0m".to_owned(),
        });
        let bars: String = bars.collect();
        format!("   {:>10}/s │{bars}", words::bytes(now))
    }
}

#[cfg(test)]
mod tests;
