//! Answers a worker's question before a reboot, whether the next worker can take over. The worker's sandbox prevents it
//! from executing anything. A thread of the supervisor probes the binary of `outlast reboot --exec`; then the
//! supervisor's own thread starts the next worker as standby worker ([`super::standby`]). The number of the worker's
//! socket is in the environment, like that of the pulse.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use log::warn;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use super::environment;
use crate::capture::{Capture, Wanted};
use crate::control::probe;

/// The variable with the descriptor.
pub(super) const VARIABLE: &str = "OUTLAST_PROBER_FD";
/// Length of the longest path, and of the longest answer, in bytes.
const MESSAGE_MAX_BYTES: usize = 16 << 10;
/// The time within which the next worker must read the log.
pub(super) const TRIAL: Duration = Duration::from_secs(20);
/// The time within which the supervisor's own thread answers.
const ANSWER: Duration = TRIAL.saturating_add(Duration::from_secs(2));
/// The time within which the supervisor answers, probe included.
const TIMEOUT: Duration = probe::TIMEOUT.saturating_add(ANSWER);
/// A value for the worker's own binary, which no path can have.
const THE_SAME: &[u8] = b"\0";

/// The prefix of a request for a capture, which is JSON. No path can begin with it, either.
const CAPTURE: &[u8] = b"\0capture ";

/// The answer to a question; an error is the reason, in one line.
type Answer = Result<(), String>;

/// The question whether a worker may end for a reboot.
#[derive(Debug)]
pub(super) struct Ask {
    /// The binary of the next worker; `None`: that of the worker that asks.
    pub binary: Option<PathBuf>,
    /// The channel for the answer.
    pub answer: mpsc::Sender<Answer>,
}

/// The channel to the supervisor's own thread.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    questions: mpsc::Sender<Ask>,
    /// A byte in it wakes that thread.
    waker: Arc<UnixStream>,
}

impl Asks {
    /// Makes both ends of the channel.
    pub(super) fn new(waker: UnixStream) -> (Asks, mpsc::Receiver<Ask>) {
        let (questions, asked) = mpsc::channel();
        let waker = Arc::new(waker);
        (Asks { questions, waker }, asked)
    }

    fn ask(&self, binary: Option<PathBuf>) -> Answer {
        let no_answer = |_| "the supervisor does not answer; see the server's log".to_owned();
        let (answer, answered) = mpsc::channel();
        let sent = self.questions.send(Ask { binary, answer });
        sent.map_err(|error| error.to_string())?;
        // A full pipe has bytes that wake.
        let _ = (&*self.waker).write(&[1]);
        answered.recv_timeout(ANSWER).map_err(no_answer)?
    }
}

/// The worker's side.
#[derive(Clone, Debug)]
pub struct Prober(Arc<OwnedFd>);

impl Prober {
    /// Makes a pair of sockets: the worker's one, and the one for [`answer`].
    ///
    /// # Errors
    /// The kernel provides none.
    pub(super) fn new() -> io::Result<(Prober, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        let (worker, supervisor) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&worker, Timeout::Recv, Some(TIMEOUT))?;
        Ok((Prober(Arc::new(worker)), supervisor))
    }

    /// Takes the socket that the supervisor has passed to this process, if it has; to be called once, before anything
    /// else is opened.
    pub(super) fn inherited(is_open: impl FnOnce(RawFd) -> bool) -> Option<Prober> {
        environment::inherited(VARIABLE, is_open).map(|socket| Prober(Arc::new(socket)))
    }

    /// Asks whether the next worker, of `binary` or of the current one, can take over.
    ///
    /// # Errors
    /// The reason why not, in one line.
    pub fn ask(&self, binary: Option<&Path>) -> Answer {
        let path = binary.map_or(THE_SAME, |binary| binary.as_os_str().as_bytes());
        self.exchange(path)
    }

    /// Requests the supervisor to begin or end a capture.
    ///
    /// # Errors
    /// The reason, in one line.
    pub fn capture(&self, wanted: &Wanted) -> Answer {
        let json = serde_json::to_vec(wanted).map_err(|error| error.to_string())?;
        self.exchange(&[CAPTURE, &json].concat())
    }

    fn exchange(&self, question: &[u8]) -> Answer {
        let ask = || {
            send(&*self.0, question, SendFlags::NOSIGNAL)?;
            receive(self.0.as_fd())
        };
        let answer = ask().map_err(|error| format!("the supervisor does not answer: {error}"))?;
        serde_json::from_slice(&answer)
            .unwrap_or_else(|error| Err(format!("the supervisor's answer is malformed: {error}")))
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
pub(super) fn answer(socket: OwnedFd, config: PathBuf, asks: Asks, captures: Capture) {
    let thread = std::thread::Builder::new().name("prober".into());
    let started = thread.spawn(move || {
        // An empty message is the end of the other side.
        while let Some(path) = receive(socket.as_fd()).ok().filter(|path| !path.is_empty()) {
            if let Some(wanted) = path.strip_prefix(CAPTURE) {
                let wanted = serde_json::from_slice(wanted).map_err(|error| error.to_string());
                let answer: Answer = wanted.and_then(|wanted| captures.want(&wanted));
                let answer = serde_json::to_vec(&answer).unwrap_or_default();
                if send(&socket, &answer, SendFlags::NOSIGNAL).is_err() {
                    return;
                }
                continue;
            }
            let binary =
                (path != THE_SAME).then(|| PathBuf::from(std::ffi::OsString::from_vec(path)));
            let probed = binary
                .as_ref()
                .map_or(Ok(()), |binary| probe::ask(binary, &config));
            let answer = probed.and_then(|()| asks.ask(binary));
            let answer = serde_json::to_vec(&answer).unwrap_or_default();
            if send(&socket, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    });
    if let Err(error) = started {
        warn!("outlast reboot --exec will be refused: {error}");
    }
}

/// Receives one whole message; empty: the other side has ended.
fn receive(socket: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut message = vec![0; MESSAGE_MAX_BYTES];
    let (length, _) = retry_on_intr(|| recv(socket, &mut message[..], RecvFlags::empty()))?;
    message.truncate(length);
    Ok(message)
}

#[cfg(test)]
mod tests;
