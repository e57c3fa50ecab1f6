//! Manages a worker process: starts it with its descriptors, reads its reports, reaps it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use log::{error, warn};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::machine::{Ended, Order};
use super::page::{self, Page};
use super::prober::{self, Asks, Prober};
use super::pulse::{self, Pulse, Verdict, Watch};
use super::settings::Settings;
use super::worker::{
    EXIT_GIVEN_BACK, EXIT_HANDED_OVER, EXIT_REBOOT, EXIT_SHUTDOWN, EXIT_STOPPED, EXIT_SYSTEM, Go,
    Message, PreviousEnd,
};
use crate::capture::{self, Capture};
use crate::metrics;
use crate::pair::lease::Deadline;
use crate::pair::{ADMITTED_VARIABLE, LEASE_VARIABLE, PAGE_VARIABLE};

/// The longest line that a worker may report, in bytes.
const LINE_MAX_BYTES: usize = 64 << 10;

/// The variable with the descriptor of the memory for received frames.
pub(super) const RECEIVED_VARIABLE: &str = "OUTLAST_RECEIVED_FD";

/// The descriptors that every worker inherits.
pub(super) struct Inherited<'a> {
    /// The supervisor's own binary.
    pub program: &'a Path,
    pub config: PathBuf,
    pub tap: BorrowedFd<'a>,
    pub control: BorrowedFd<'a>,
    /// The memory for the received frames of a turn ([`crate::tap::Received`]).
    pub received: BorrowedFd<'a>,
    pub settings: &'a Rc<Settings>,
    pub pair: Option<&'a Paired>,
}

/// Descriptors that every worker of a node of a pair inherits besides.
pub(super) struct Paired {
    /// The lock by which the arbiter admits the node, if it is one.
    pub admitted: Option<OwnedFd>,
    /// Until when the arbiter admits the node, if that is for a time only.
    pub lease: Option<Deadline>,
    pub page: crate::pair::page::Page,
}

/// Memory and channel that all workers of a supervisor share.
pub(super) struct Shared {
    /// The page in which the standby worker reports its state.
    pub page: Page,
    /// The channel for a worker's questions.
    pub asks: Asks,
    /// Where they count.
    pub metrics: metrics::Page,
    /// What writes frames into a file.
    pub capture: Capture,
}

/// A running worker.
pub(super) struct Process {
    /// Only [`Process::reap`] reaps it.
    child: Child,
    /// The reading end of the report pipe; `None` after its end.
    report: Option<std::fs::File>,
    unread: Vec<u8>,
    pulse: Pulse,
    watch: Watch,
}

impl Process {
    /// Starts a worker. `away_since`: when the one before ended.
    pub(super) fn start(
        inherited: &Inherited<'_>,
        order: &Order,
        away_since: Option<SystemTime>,
        shared: &Shared,
    ) -> io::Result<Process> {
        let program = order.binary.as_deref().unwrap_or(inherited.program);
        Process::spawn(program, inherited, shared, |command| {
            command
                .arg(format!("--attempts={}", order.attempts))
                .args(previous(order.previous))
                .stdin(Stdio::null());
            if let Some(ms) = since_1970_ms(away_since) {
                command.arg(format!("--away-since-ms={ms}"));
            }
            if order.tap_fresh {
                command.arg("--tap-fresh");
            }
        })
    }

    /// Starts a standby worker, which follows the serving one.
    pub(super) fn stand_by(
        inherited: &Inherited<'_>,
        binary: Option<&Path>,
        shared: &Shared,
    ) -> io::Result<Process> {
        let program = binary.unwrap_or(inherited.program);
        Process::spawn(program, inherited, shared, |command| {
            command
                .arg("--standby")
                .args(previous(PreviousEnd::Elective))
                .stdin(Stdio::piped());
        })
    }

    /// Orders a standby worker to serve.
    pub(super) fn order(
        &mut self,
        order: &Order,
        away_since: Option<SystemTime>,
    ) -> io::Result<()> {
        let go = Go {
            previous: order.previous,
            attempts: order.attempts,
            tap_fresh: order.tap_fresh,
            away_since_ms: since_1970_ms(away_since),
        };
        let mut line = serde_json::to_vec(&go)?;
        line.push(b'\n');
        let mut pipe = self.child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        pipe.write_all(&line)
    }

    fn spawn(
        program: &Path,
        inherited: &Inherited<'_>,
        shared: &Shared,
        describe: impl FnOnce(&mut Command),
    ) -> io::Result<Process> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let pulse = Pulse::new()?;
        let (asks, answers) = Prober::new()?;
        let page = shared.page.memory();
        let (metrics, capture) = (shared.metrics.memory(), shared.capture.memory());
        let [config, users] = inherited.settings.descriptors();
        let mut command = Command::new(program);
        command
            .arg0("outlast")
            .arg("worker")
            .arg("--config")
            .arg(&inherited.config)
            .arg(format!("--tap-fd={}", inherited.tap.as_raw_fd()))
            .arg(format!("--control-fd={}", inherited.control.as_raw_fd()))
            .arg(format!("--report-fd={}", write.as_raw_fd()))
            .arg(format!("--config-fd={config}"))
            .arg(format!("--users-fd={users}"))
            .arg(format!("--supervisor-pid={}", std::process::id()))
            // It speaks for the supervisor, which alone speaks to the service manager.
            .env_remove(super::service_manager::NOTIFY_SOCKET)
            .env(pulse::VARIABLE, pulse.memory().as_raw_fd().to_string())
            .env(page::VARIABLE, page.as_raw_fd().to_string())
            .env(prober::VARIABLE, asks.as_raw_fd().to_string())
            .env(metrics::VARIABLE, metrics.as_raw_fd().to_string())
            .env(capture::VARIABLE, capture.as_raw_fd().to_string())
            .env(
                RECEIVED_VARIABLE,
                inherited.received.as_raw_fd().to_string(),
            );
        let mut keep = vec![
            inherited.tap.as_raw_fd(),
            inherited.control.as_raw_fd(),
            write.as_raw_fd(),
            config,
            users,
            pulse.memory().as_raw_fd(),
            page.as_raw_fd(),
            asks.as_raw_fd(),
            metrics.as_raw_fd(),
            capture.as_raw_fd(),
            inherited.received.as_raw_fd(),
        ];
        if let Some(pair) = inherited.pair {
            let lease = pair.lease.as_ref().map(|lease| lease.memory().as_raw_fd());
            for (variable, fd) in [
                (
                    ADMITTED_VARIABLE,
                    pair.admitted.as_ref().map(AsRawFd::as_raw_fd),
                ),
                (LEASE_VARIABLE, lease),
                (PAGE_VARIABLE, Some(pair.page.memory().as_raw_fd())),
            ] {
                let Some(fd) = fd else { continue };
                command.env(variable, fd.to_string());
                keep.push(fd);
            }
        }
        if let Some(format) = crate::logging::forced() {
            command.env(crate::logging::VARIABLE, format);
        }
        describe(&mut command);
        let supervisor = rustix::process::getpid();
        let prepare = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The supervisor may have died before the line above; then nothing would end this process.
            if rustix::process::getppid() != Some(supervisor) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            for fd in &keep {
                // SAFETY: these descriptors are open in the supervisor until the child has been started, so they are
                // open here.
                rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(*fd) }, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes only system calls: no allocation, no lock.
        let child = unsafe { command.pre_exec(prepare) }.spawn()?;
        let (asks, captures) = (shared.asks.clone(), shared.capture.clone());
        prober::answer(answers, inherited.config.clone(), asks, captures);
        Ok(Process {
            child,
            report: Some(read.into()),
            unread: Vec::new(),
            pulse,
            watch: Watch::default(),
        })
    }

    /// Returns whether its loop makes progress. Called every [`pulse::TICK`].
    pub(super) fn look(&mut self) -> Verdict {
        self.watch
            .look(self.pulse.signs(), pulse::state(self.child.id()))
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The descriptor to wait for.
    pub(super) fn report(&self) -> Option<BorrowedFd<'_>> {
        self.report.as_ref().map(AsFd::as_fd)
    }

    /// Reaps the worker if it has ended: then nothing of it runs any more, not even a write under way. The first
    /// process of a container inherits orphans, here the processes that unmap the address spaces of former workers, and
    /// reaps them too.
    pub(super) fn reap(&mut self) -> io::Result<Option<Ended>> {
        let worker = Pid::from_child(&self.child);
        let whom = (!rustix::process::getpid().is_init()).then_some(worker);
        loop {
            let status = match rustix::process::waitpid(whom, WaitOptions::NOHANG)? {
                Some((pid, status)) if pid == worker => status,
                Some(_) => continue,
                None => return Ok(None),
            };
            let status = ExitStatus::from_raw(status.as_raw());
            let ended = how(status);
            if matches!(ended, Ended::OwnFault | Ended::Killed) {
                warn!("worker {} ended: {status}", self.child.id());
            }
            return Ok(Some(ended));
        }
    }

    /// Reaps only this process. If it was reaped with others, how it ended is unknown.
    pub(super) fn reap_alone(&mut self) -> io::Result<Option<Ended>> {
        let worker = Pid::from_child(&self.child);
        match rustix::process::waitpid(Some(worker), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => Ok(Some(how(ExitStatus::from_raw(status.as_raw())))),
            Ok(None) => Ok(None),
            Err(rustix::io::Errno::CHILD) => Ok(Some(Ended::Killed)),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a standby worker that is not needed.
    pub(super) fn dismiss(mut self) {
        self.kill();
        let worker = Pid::from_child(&self.child);
        // Nothing delays its end.
        let _ = rustix::process::waitpid(Some(worker), WaitOptions::empty());
    }

    /// Returns its messages since the last call.
    pub(super) fn messages(&mut self) -> std::vec::IntoIter<Message> {
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.report {
            match pipe.read(&mut buffer) {
                Ok(0) => self.report = None,
                Ok(n) => {
                    self.unread.extend_from_slice(&buffer[..n]);
                    self.split(&mut messages);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    error!("the worker's reports cannot be read: {error}");
                    self.report = None;
                }
            }
        }
        messages.into_iter()
    }

    fn split(&mut self, messages: &mut Vec<Message>) {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(message) => messages.push(message),
                Err(error) => {
                    warn!("the worker's message is unknown to this supervisor: {error}")
                }
            }
        }
        if self.unread.len() > LINE_MAX_BYTES {
            warn!("the worker's report line is too long; its reports are ignored from now on");
            self.unread.clear();
            self.report = None;
        }
    }

    /// Sends SIGTERM.
    pub(super) fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGKILL.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    fn signal(&mut self, signal: Signal) {
        // Not reaped yet, so the id cannot be another process's.
        if let Err(error) = rustix::process::kill_process(Pid::from_child(&self.child), signal) {
            error!("the worker cannot be signalled: {error}");
        }
    }
}

fn previous(end: PreviousEnd) -> Option<String> {
    let value = end.to_possible_value()?;
    Some(format!("--previous={}", value.get_name()))
}

fn since_1970_ms(time: Option<SystemTime>) -> Option<u64> {
    let since = time?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Interprets the status of wait(2).
fn how(status: ExitStatus) -> Ended {
    if let Some(signal) = status.signal() {
        return match signal {
            libc::SIGSEGV
            | libc::SIGABRT
            | libc::SIGBUS
            | libc::SIGILL
            | libc::SIGFPE
            | libc::SIGTRAP
            | libc::SIGSYS => Ended::OwnFault,
            _ => Ended::Killed,
        };
    }
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(EXIT_STOPPED) => Ended::Stopped,
        Some(EXIT_SHUTDOWN) => Ended::Shutdown,
        Some(EXIT_REBOOT) => Ended::Reboot,
        Some(EXIT_SYSTEM) => Ended::System,
        Some(EXIT_HANDED_OVER) => Ended::HandedOver { is_return: false },
        Some(EXIT_GIVEN_BACK) => Ended::HandedOver { is_return: true },
        // 101: a panic of the main thread, if it ever ends so.
        Some(101) | None => Ended::OwnFault,
        Some(code) => Ended::Error(code),
    }
}
