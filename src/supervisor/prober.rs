//! What a worker asks its supervisor before it leaves for a reboot: whether the next one can take over. The worker's
//! sandbox lets it execute nothing. A thread of the supervisor's probes the binary of `outlast reboot --exec`; then the
//! supervisor's own thread lets the next worker stand by ([`super::standby`]). The number of the worker's socket is in
//! the environment, as that of the pulse.

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

/// Names the descriptor.
pub(super) const VARIABLE: &str = "OUTLAST_PROBER_FD";
/// Longest path, and longest answer.
const MESSAGE_MAX_BYTES: usize = 16 << 10;
/// How long the next worker may take to read the log.
pub(super) const TRIAL: Duration = Duration::from_secs(20);
/// The supervisor's own thread answers within this.
const ANSWER: Duration = TRIAL.saturating_add(Duration::from_secs(2));
/// The supervisor's answer takes no longer than the probe and that.
const PATIENCE: Duration = probe::PATIENCE.saturating_add(ANSWER);
/// Stands for the binary that the worker runs. It cannot be in a path.
const THE_SAME: &[u8] = b"\0";

/// Before what is wanted of a capture, which is JSON. It cannot be in a path either.
const CAPTURE: &[u8] = b"\0capture ";

/// What came of a question; or the reason, in one line.
type Answer = Result<(), String>;

/// May a worker leave for a reboot?
#[derive(Debug)]
pub(super) struct Ask {
    /// The binary of the next worker; `None`: the one of the worker that asks.
    pub binary: Option<PathBuf>,
    /// Where the answer goes to.
    pub answer: mpsc::Sender<Answer>,
}

/// Where the supervisor's own thread is asked.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    questions: mpsc::Sender<Ask>,
    /// A byte in it wakes that thread.
    waker: Arc<UnixStream>,
}

impl Asks {
    /// A way to ask, and where the questions arrive.
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
        // A pipe that is full has bytes to wake by.
        let _ = (&*self.waker).write(&[1]);
        answered.recv_timeout(ANSWER).map_err(no_answer)?
    }
}

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

    /// Lets the next worker, of `binary` or of the present one's, prove that it can take over; the reason if it does
    /// not.
    ///
    /// # Errors
    /// The reason, in one line.
    pub fn ask(&self, binary: Option<&Path>) -> Answer {
        let path = binary.map_or(THE_SAME, |binary| binary.as_os_str().as_bytes());
        self.exchange(path)
    }

    /// Has the supervisor begin or end a capture.
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
pub(super) fn answer(socket: OwnedFd, config: PathBuf, asks: Asks, captures: Capture) {
    let thread = std::thread::Builder::new().name("prober".into());
    let started = thread.spawn(move || {
        // A message of no bytes is the other side's end.
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
        let (woken, waker) = UnixStream::pair().unwrap();
        let (asks, asked) = Asks::new(waker);
        let captures = Capture::new().unwrap();
        answer(supervisor, PathBuf::from("/nowhere/o.toml"), asks, captures);
        let refused = |binary: &str| prober.ask(Some(Path::new(binary))).unwrap_err();
        for _ in 0..2 {
            assert!(refused("/nowhere/outlast").contains("/nowhere/outlast cannot be run"));
            assert!(refused("/bin/true").contains("it is not an outlast binary"));
        }
        assert!(
            asked.try_recv().is_err(),
            "what is no such binary does not stand by"
        );
        let answers = std::thread::spawn(move || {
            for answer in [Ok(()), Err("it cannot".to_owned())] {
                io::Read::read(&mut &woken, &mut [0]).unwrap();
                let ask = asked.recv().unwrap();
                assert_eq!(ask.binary, None);
                ask.answer.send(answer).unwrap();
            }
        });
        assert_eq!(prober.ask(None), Ok(()));
        assert_eq!(prober.ask(None), Err("it cannot".to_owned()));
        answers.join().unwrap();
    }

    #[test]
    fn a_supervisor_without_a_thread_refuses() {
        let (prober, supervisor) = Prober::new().unwrap();
        drop(supervisor);
        let refused = prober.ask(Some(Path::new("/bin/true"))).unwrap_err();
        assert!(refused.contains("the supervisor"), "{refused}");
    }
}
