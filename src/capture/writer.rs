//! Writes frames from the ring into the file, on a thread of the supervisor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use log::{error, info, warn};
use serde::{Deserialize, Serialize};

use super::file::Pcapng;
use super::ring::{Mode, Reader};

/// The interval at which the ring is emptied.
const PACE: Duration = Duration::from_millis(10);
/// The snap length of a file with headers only: no header is longer.
const HEADERS_MAX: u32 = 192;

/// The capture that is requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The absolute path of the file to write; `None`: end the capture.
    pub file: Option<PathBuf>,
    /// Write only the headers of each frame.
    pub headers_only: bool,
}

/// The writer of captures.
#[derive(Clone, Debug)]
pub struct Capture {
    reader: Reader,
    running: Arc<Mutex<Option<Running>>>,
}

/// A running capture.
#[derive(Debug)]
struct Running {
    file: PathBuf,
    /// The thread ends when this is dropped.
    end: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Capture {
    /// Makes a writer without a capture.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn new() -> io::Result<Capture> {
        Ok(Capture {
            reader: Reader::new()?,
            running: Arc::default(),
        })
    }

    /// Returns the memory that workers inherit.
    pub(crate) fn memory(&self) -> &impl AsRawFd {
        self
    }

    /// Begins or ends a capture. The file of an ended capture is complete.
    ///
    /// # Errors
    /// The reason, in one line.
    pub fn want(&self, wanted: &Wanted) -> Result<(), String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // A capture may have ended by itself.
        running.take_if(|running| running.thread.is_finished());
        match (&wanted.file, running.take()) {
            (None, None) => {
                Err("there is no capture: begin one with `outlast capture FILE`".into())
            }
            (None, Some(it)) => {
                self.end(it);
                Ok(())
            }
            (Some(_), Some(it)) => {
                let file = it.file.display().to_string();
                *running = Some(it);
                Err(format!(
                    "frames are already captured into {file}: end that with `outlast capture --stop`"
                ))
            }
            (Some(file), None) => {
                *running = Some(self.begin(file, wanted.headers_only)?);
                Ok(())
            }
        }
    }

    fn begin(&self, path: &Path, headers_only: bool) -> Result<Running, String> {
        let shown = path.display();
        let failed = |error: io::Error| format!("{shown} cannot be written: {error}");
        let (mode, snap_len) = match headers_only {
            true => (Mode::Headers, HEADERS_MAX),
            false => (Mode::Whole, 0),
        };
        let file = File::create(path).map_err(failed)?;
        let mut pcapng = Pcapng::begin(file, snap_len).map_err(failed)?;
        pcapng.flush().map_err(failed)?;
        let (end, ended) = mpsc::channel();
        let (reader, shown) = (self.reader.clone(), shown.to_string());
        let thread = std::thread::Builder::new().name("capture".into());
        let thread = thread
            .spawn(move || {
                if let Err(error) = write(&reader, &mut pcapng, &ended) {
                    error!("{shown}: the capture ends: {error}");
                    let _ = reader.set(Mode::Off);
                }
            })
            .map_err(|error| format!("no thread can be started: {error}"))?;
        self.reader.skip().map_err(failed)?;
        self.reader.set(mode).map_err(failed)?;
        info!("frames are captured into {}", path.display());
        Ok(Running {
            file: path.to_owned(),
            end,
            thread,
        })
    }

    fn end(&self, running: Running) {
        let _ = self.reader.set(Mode::Off);
        drop(running.end);
        if running.thread.join().is_err() {
            warn!("{}: the capture has failed", running.file.display());
        }
        info!("{}: the capture has ended", running.file.display());
    }
}

impl AsRawFd for Capture {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

/// Writes frames until the capture must end and the ring is empty.
fn write(reader: &Reader, file: &mut Pcapng, end: &mpsc::Receiver<()>) -> io::Result<()> {
    let mut lost = reader.lost();
    loop {
        let is_over = !matches!(end.recv_timeout(PACE), Err(mpsc::RecvTimeoutError::Timeout));
        while let Some(frame) = reader.take()? {
            let now = reader.lost();
            file.add(&frame, now - lost)?;
            lost = now;
        }
        file.flush()?;
        if is_over {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
