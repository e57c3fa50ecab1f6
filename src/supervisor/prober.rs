//! Probing the binary of `outlast reboot --exec`. The worker's sandbox lets it execute nothing, so it asks its
//! supervisor, over a pair of sockets. The number of its socket is in the environment, as that of the pulse.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use super::environment;
use crate::control::probe;

/// Names the descriptor.
pub(super) const VARIABLE: &str = "OUTLAST_PROBER_FD";
/// Longest path, and longest answer.
const MESSAGE_MAX_BYTES: usize = 16 << 10;
/// The supervisor's answer takes no longer than the probe and this.
const PATIENCE: Duration = probe::PATIENCE.saturating_add(Duration::from_secs(2));

/// The worker's side.
#[derive(Clone, Debug)]
pub struct Prober(Arc<OwnedFd>);

impl Prober {
    /// A pair of sockets: the worker's, and the one to [`answer`] on.
    ///
    /// # Errors
    /// There can be none.
    pub(super) fn new() -> io::Result<(Prober, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        let (worker, supervisor) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&worker, Timeout::Recv, Some(PATIENCE))?;
        Ok((Prober(Arc::new(worker)), supervisor))
    }

    /// The one that the supervisor has given this process, if it has; to be called once, before anything else is
    /// opened.
    pub(super) fn inherited(is_open: impl FnOnce(RawFd) -> bool) -> Option<Prober> {
        environment::inherited(VARIABLE, is_open).map(|socket| Prober(Arc::new(socket)))
    }

    /// Lets `binary` prove that it can take over; the reason if it does not.
    ///
    /// # Errors
    /// The reason, in one line.
    pub fn ask(&self, binary: &Path) -> Result<(), String> {
        let ask = || {
            let path = binary.as_os_str().as_bytes();
            send(&*self.0, path, SendFlags::NOSIGNAL)?;
            receive(self.0.as_fd())
        };
        let answer = ask().map_err(|error| format!("the supervisor does not answer: {error}"))?;
        serde_json::from_slice(&answer)
            .unwrap_or_else(|error| Err(format!("the supervisor's answer is none: {error}")))
    }
}

impl AsFd for Prober {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Prober {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Starts the supervisor's thread, which answers one worker for as long as that lives.
pub(super) fn answer(socket: OwnedFd, config: PathBuf) {
    let thread = std::thread::Builder::new().name("prober".into());
    let started = thread.spawn(move || {
        // A message of no bytes is the other side's end.
        while let Some(path) = receive(socket.as_fd()).ok().filter(|path| !path.is_empty()) {
            let binary = PathBuf::from(std::ffi::OsString::from_vec(path));
            let answer = serde_json::to_vec(&probe::ask(&binary, &config)).unwrap_or_default();
            if send(&socket, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    });
    if let Err(error) = started {
        warn!("outlast reboot --exec will be refused: {error}");
    }
}

/// One whole message; none: the other side has ended.
fn receive(socket: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut message = vec![0; MESSAGE_MAX_BYTES];
    let (length, _) = retry_on_intr(|| recv(socket, &mut message[..], RecvFlags::empty()))?;
    message.truncate(length);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_probed_by_the_other_side() {
        let (prober, supervisor) = Prober::new().unwrap();
        answer(supervisor, PathBuf::from("/nowhere/o.toml"));
        let refused = |binary: &str| prober.ask(Path::new(binary)).unwrap_err();
        for _ in 0..2 {
            assert!(refused("/nowhere/outlast").contains("/nowhere/outlast cannot be run"));
            assert!(refused("/bin/true").contains("it is not an outlast binary"));
        }
    }

    #[test]
    fn a_supervisor_without_a_thread_refuses() {
        let (prober, supervisor) = Prober::new().unwrap();
        drop(supervisor);
        let refused = prober.ask(Path::new("/bin/true")).unwrap_err();
        assert!(refused.contains("the supervisor"), "{refused}");
    }
}
