//! The supervisor's signals: SIGTERM and SIGINT end the server, SIGHUP has it read its files again.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::info;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use super::reload::Reload;

/// Set when a signal has come; the pipe wakes the wait.
pub(super) struct Signals {
    terminate: Arc<AtomicBool>,
    hang_up: Arc<AtomicBool>,
    ignored: Arc<AtomicBool>,
    reload: Option<Reload>,
    pipe: UnixStream,
    write: UnixStream,
}

impl Signals {
    /// Without `reload` there is nothing to read again, and SIGHUP ends the server, too.
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
        // The flag before the pipe: after the pipe has woken the loop, the flag must be set.
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

    /// What wakes the wait.
    pub(super) fn pipe(&self) -> &UnixStream {
        &self.pipe
    }

    /// What wakes the wait, for other threads.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub(super) fn waker(&self) -> io::Result<UnixStream> {
        self.write.try_clone()
    }

    /// Empties the pipe, and begins a reload if one is wanted; has the server been asked to end since the last call?
    pub(super) fn take(&self) -> bool {
        let mut buffer = [0; 64];
        while matches!(io::Read::read(&mut &self.pipe, &mut buffer), Ok(n) if n > 0) {}
        let is_set = |flag: &AtomicBool| flag.swap(false, Ordering::SeqCst);
        if is_set(&self.ignored) {
            info!("SIGUSR1 and SIGUSR2 mean nothing here; `outlast status` says how the server is");
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
