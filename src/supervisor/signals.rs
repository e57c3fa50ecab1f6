//! Handles the supervisor's signals: SIGTERM and SIGINT end the server, SIGHUP reloads the configuration.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::info;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use super::reload::Reload;

/// Flags set by signals; the pipe wakes the wait.
pub(super) struct Signals {
    terminate: Arc<AtomicBool>,
    hang_up: Arc<AtomicBool>,
    ignored: Arc<AtomicBool>,
    reload: Option<Reload>,
    pipe: UnixStream,
    write: UnixStream,
}

impl Signals {
    /// Installs the handlers. Without `reload` there is nothing to read again, and SIGHUP ends the server too.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn register(reload: Option<Reload>) -> io::Result<Signals> {
        let (pipe, write) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let signals = Signals {
            terminate: Arc::default(),
            hang_up: Arc::default(),
            ignored: Arc::default(),
            reload,
            pipe,
            write,
        };
        // The flag is set before the pipe is written: when the pipe has woken the loop, the flag must be set.
        for (signal, flag) in [
            (SIGTERM, &signals.terminate),
            (SIGINT, &signals.terminate),
            (SIGHUP, &signals.hang_up),
            (SIGUSR1, &signals.ignored),
            (SIGUSR2, &signals.ignored),
        ] {
            signal_hook::flag::register(signal, flag.clone())?;
        }
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD] {
            signal_hook::low_level::pipe::register(signal, signals.write.try_clone()?)?;
        }
        signals.write.set_nonblocking(true)?;
        Ok(signals)
    }

    /// The pipe that wakes the wait.
    pub(super) fn pipe(&self) -> &UnixStream {
        &self.pipe
    }

    /// A descriptor for other threads to wake the wait.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub(super) fn waker(&self) -> io::Result<UnixStream> {
        self.write.try_clone()
    }

    /// Empties the pipe, and begins a reload if one is requested. Returns whether the server has been asked to end
    /// since the last call.
    pub(super) fn take(&self) -> bool {
        let mut buffer = [0; 64];
        while matches!(io::Read::read(&mut &self.pipe, &mut buffer), Ok(n) if n > 0) {}
        let is_set = |flag: &AtomicBool| flag.swap(false, Ordering::SeqCst);
        if is_set(&self.ignored) {
            info!(
                "SIGUSR1 and SIGUSR2 are ignored; `outlast status` shows the state of the server"
            );
        }
        let terminate = is_set(&self.terminate);
        match (is_set(&self.hang_up), &self.reload) {
            (true, None) => true,
            (true, Some(reload)) if !terminate => {
                reload.ask();
                false
            }
            _ => terminate,
        }
    }
}
