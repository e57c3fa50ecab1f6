//! Runs the worker's side: a thread that reads requests, checks what can be checked without the loop, and returns
//! answers.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use log::{debug, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use super::protocol::{Command, Reply, Status};
use super::{probe, read_line, write_line};
use crate::capture::Wanted;
use crate::config::Config;
use crate::metrics;
use crate::one_line::OneLine;
use crate::preflight;
use crate::supervisor::prober::Prober;
use crate::supervisor::pulse::Pulse;

/// The longest request, in bytes.
pub(super) const REQUEST_MAX_BYTES: usize = 16 << 10;
/// How long a client may take to send its request, and to read its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the loop may take for its answer.
const LOOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval of checks whether the loop makes progress.
const LOOK: Duration = Duration::from_millis(100);

/// A request for the event loop, with the channel for its answer. A dropped `reply` is answered as an error.
#[derive(Debug)]
pub struct ControlRequest {
    /// The request.
    pub command: Command,
    /// The channel for exactly one answer.
    pub reply: Sender<Reply>,
}

/// The channel to the event loop, with the eventfd that wakes it.
#[derive(Clone, Debug)]
pub struct Submit {
    requests: Sender<ControlRequest>,
    wake: Arc<OwnedFd>,
}

impl Submit {
    /// Makes the channel; returns both ends, and the eventfd that is readable when there are requests.
    ///
    /// # Errors
    /// The kernel provides no eventfd.
    pub fn channel() -> io::Result<(Submit, Receiver<ControlRequest>, Arc<OwnedFd>)> {
        let (requests, arriving) = unbounded();
        let wake = crate::job_thread::wake()?;
        let submit = Submit {
            requests,
            wake: wake.clone(),
        };
        Ok((submit, arriving, wake))
    }

    /// Sends a request to the loop. The answer, if any, arrives on the channel.
    pub fn submit(&self, command: Command) -> Receiver<Reply> {
        let (reply, answer) = bounded(1);
        // A loop that has ended drops the request and with it `reply`, which ends the wait for the answer.
        if self
            .requests
            .send(ControlRequest { command, reply })
            .is_ok()
            && let Err(error) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes())
        {
            warn!("the event loop cannot be woken: {error}");
        }
        answer
    }
}

/// Whether a request is under way between the loop and its client. The worker ends only when none is: the client that
/// requests a reboot should be notified that it has begun.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    under_way: Arc<(Mutex<bool>, Condvar)>,
}

impl Answers {
    /// Waits until the client has its answer, but not for long.
    pub fn wait(&self) {
        let (under_way, changed) = &*self.under_way;
        let guard = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // A client that does not read its answer is not waited for.
        let _ = changed.wait_timeout_while(guard, CLIENT_TIMEOUT, |under_way| *under_way);
    }

    fn set(&self, now: bool) {
        let (under_way, changed) = &*self.under_way;
        *under_way.lock().unwrap_or_else(PoisonError::into_inner) = now;
        changed.notify_all();
    }
}

/// The data with which the thread checks requests.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The served configuration: a reboot with an invalid one is refused.
    pub config: Config,
    /// The supervisor, whose death ends this process.
    pub supervisor_pid: u32,
    /// The page on which the loop beats.
    pub pulse: Option<Pulse>,
    /// Where the loop counts.
    pub metrics: metrics::Page,
    /// Executes for this process what that may not; `None`: the supervisor is of a version that does not, and this
    /// process may.
    pub prober: Option<Prober>,
}

/// Starts the thread.
///
/// # Errors
/// It cannot be started.
pub fn serve(listener: UnixListener, submit: Submit, gate: Gate) -> anyhow::Result<Answers> {
    let answers = Answers::default();
    let theirs = answers.clone();
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            end_with(gate.supervisor_pid);
            accept(&listener, &submit, &gate, &theirs);
        })
        .context("cannot start a thread")?;
    Ok(answers)
}

/// The parent-death signal belongs to a thread, and the kernel clears it when the thread changes its file-system user,
/// as the event loop does (prctl(2)). This thread never does, so it stays set here.
fn end_with(supervisor_pid: u32) {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        warn!("the supervisor's death will not end this process: {error}");
    }
    if std::os::unix::process::parent_id() != supervisor_pid {
        signal_hook::low_level::abort();
    }
}

fn accept(listener: &UnixListener, submit: &Submit, gate: &Gate, answers: &Answers) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = answer(stream, submit, gate, answers) {
                    debug!("a control connection ended early: {error}");
                }
            }
            // The supervisor may have been quicker.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => {
                // Probably out of descriptors, which may pass.
                warn!("the control socket cannot accept: {error}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Serves one connection: one request, one answer.
///
/// # Errors
/// The client sent no complete request in time, or did not read its answer.
pub fn answer(
    mut stream: UnixStream,
    submit: &Submit,
    gate: &Gate,
    answers: &Answers,
) -> io::Result<()> {
    let line = read_line(
        &mut stream,
        REQUEST_MAX_BYTES,
        Instant::now() + CLIENT_TIMEOUT,
    )?;
    answers.set(true);
    let reply = match serde_json::from_slice(&line) {
        Ok(command) => carry_out(command, submit, gate),
        Err(error) => {
            // the message quotes the request
            let error = error.to_string();
            refused(format!("the request is malformed: {}", OneLine(&error)))
        }
    };
    let written = serde_json::to_vec(&reply)
        .map_err(io::Error::from)
        .and_then(|reply| write_line(&mut stream, reply, Instant::now() + CLIENT_TIMEOUT));
    answers.set(false);
    written
}

fn carry_out(command: Command, submit: &Submit, gate: &Gate) -> Reply {
    if let Command::Reboot { exec, hold_seconds } = &command
        && let Err(reason) = may_reboot(exec.as_deref(), *hold_seconds, gate)
    {
        return refused(format!(
            "the reboot is refused, nothing has happened: {reason}"
        ));
    }
    if let Command::RebootSystem = &command
        && let Err(reason) = may_reboot_system(gate)
    {
        return refused(format!(
            "the reboot of the machine is refused, nothing has happened: {reason}"
        ));
    }
    match command {
        Command::Metrics => return metrics_of(&gate.metrics),
        Command::Capture { file, headers_only } => return capture(file, headers_only, gate),
        _ => {}
    }
    let asks = command == Command::Status;
    match wait_for_reply(&submit.submit(command), asks, gate) {
        Ok(Reply::Status(mut status)) => {
            status.executable = std::fs::read_link("/proc/self/exe").unwrap_or_default();
            Reply::Status(status)
        }
        Ok(reply) => reply,
        Err(RecvTimeoutError::Timeout) => refused("the server is busy; try again".into()),
        Err(RecvTimeoutError::Disconnected) => refused("the server is ending; try again".into()),
    }
}

/// What is counted, as text.
pub fn metrics_of(page: &metrics::Page) -> Reply {
    let text = metrics::text(page);
    Reply::Metrics { text }
}

/// Requests the supervisor to begin or end a capture, because the worker's sandbox forbids it to create the file.
fn capture(file: Option<PathBuf>, headers_only: bool, gate: &Gate) -> Reply {
    let asked = match &gate.prober {
        Some(prober) => prober.capture(&Wanted { file, headers_only }),
        None => Err(
            "the supervisor is of an older version, which captures nothing: end it with SIGTERM and start it again"
                .into(),
        ),
    };
    asked.map_or_else(refused, |()| Reply::Done)
}

/// Waits for the loop's answer. If the loop takes no turn, a status request is answered with that at once.
fn wait_for_reply(
    answer: &Receiver<Reply>,
    asks: bool,
    gate: &Gate,
) -> Result<Reply, RecvTimeoutError> {
    let begun = Instant::now();
    let pulse = gate.pulse.as_ref().filter(|_| asks);
    loop {
        let waited = answer.recv_timeout(LOOK);
        if !matches!(waited, Err(RecvTimeoutError::Timeout)) || begun.elapsed() >= LOOP_TIMEOUT {
            return waited;
        }
        if let Some(silence) = pulse.and_then(|pulse| pulse.signs().silence()) {
            let worker_pid = std::process::id();
            return Ok(Reply::Status(Box::new(Status {
                trouble: Some(format!("worker {worker_pid} {silence}")),
                supervisor_pid: gate.supervisor_pid,
                worker_pid,
                ..Status::unknown()
            })));
        }
    }
}

/// The supervisor's answer to one client while its worker takes no turn.
pub fn stand_in(mut stream: UnixStream, status: Status, metrics: &metrics::Page) {
    let answer = || {
        let deadline = || Instant::now() + CLIENT_TIMEOUT;
        let line = read_line(&mut stream, REQUEST_MAX_BYTES, deadline())?;
        let reply = match serde_json::from_slice(&line) {
            Ok(Command::Status) => Reply::Status(Box::new(status)),
            Ok(Command::Metrics) => metrics_of(metrics),
            _ => refused(format!(
                "{}; if it stays silent it is killed and restarted: try again",
                status.trouble.unwrap_or_default()
            )),
        };
        write_line(&mut stream, serde_json::to_vec(&reply)?, deadline())
    };
    if let Err(error) = answer() {
        debug!("a control connection ended early: {error}");
    }
}

/// Serves one connection to a supervisor without a worker: the supervisor's loop answers.
///
/// # Errors
/// As [`answer`].
pub fn relay(mut stream: UnixStream, submit: &Submit) -> io::Result<()> {
    let deadline = || Instant::now() + CLIENT_TIMEOUT;
    let line = read_line(&mut stream, REQUEST_MAX_BYTES, deadline())?;
    let reply = match serde_json::from_slice(&line) {
        Ok(command) => {
            let answer = submit.submit(command).recv_timeout(LOOP_TIMEOUT);
            answer.unwrap_or_else(|_| refused("the server is busy: try again".into()))
        }
        Err(_) => refused("the request is malformed".into()),
    };
    write_line(&mut stream, serde_json::to_vec(&reply)?, deadline())
}

/// Checks that the server after a reboot could start.
fn may_reboot(
    exec: Option<&std::path::Path>,
    hold_seconds: f64,
    gate: &Gate,
) -> Result<(), String> {
    if Duration::try_from_secs_f64(hold_seconds).is_err() {
        return Err("hold is not a number of seconds".into());
    }
    match exec {
        // It proves the configuration by its own rules, which may be newer than these.
        Some(binary) => {
            if let Ok(config) = Config::load(&gate.config.path) {
                may_become(&gate.config, &config)?;
            } // else it has keys that are newer than this binary
            match &gate.prober {
                Some(prober) => prober.ask(Some(binary)),
                None => probe::ask(binary, &gate.config.path),
            }
        }
        None => {
            let config = Config::load(&gate.config.path).map_err(|error| error.to_string())?;
            may_become(&gate.config, &config)?;
            preflight::would_start(&config).map_err(|error| format!("{error:#}"))?;
            gate.prober
                .as_ref()
                .map_or(Ok(()), |prober| prober.ask(None))
        }
    }
}

fn may_become(running: &Config, new: &Config) -> Result<(), String> {
    preflight::may_become(running, new).map_err(|error| format!("{error:#}"))
}

/// Checks that the sessions survive a reboot of the machine, and that a server could start. The supervisor executes the
/// reboot.
fn may_reboot_system(gate: &Gate) -> Result<(), String> {
    if gate.config.partner.is_some() {
        return Err(
            "the other node of the pair is there for that: run `outlast takeover`, then reboot this machine"
                .into(),
        );
    }
    if gate.prober.is_none() {
        return Err(
            "the supervisor is of an older version, which cannot do it: end it with SIGTERM and start it again"
                .into(),
        );
    }
    may_reboot(None, 0.0, gate)?;
    let config = Config::load(&gate.config.path).map_err(|error| error.to_string())?;
    crate::system::would_survive(&config)
}

fn refused(reason: String) -> Reply {
    Reply::Refused { reason }
}
