//! `outlast lab`: a command in a private network, with a server that it can reach.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::CONFIG_VARIABLE;
use super::serve::Admit;
use crate::config::Config;
use crate::temporary::scratch::Scratch;
use crate::temporary::{Access, namespace};

/// Exit code of a failure of the lab itself, as for env(1) and container engines; the command's exit codes are lower.
pub(super) const EXIT_FAILED: u8 = 125;
/// The command cannot be executed.
const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
const EXIT_NOT_FOUND: u8 = 127;
/// The offset that is added to the number of a signal which ended the command, as shells do.
const EXIT_SIGNAL: i32 = 128;
/// How long the server may take until it serves.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(super) struct Lab {
    /// Directory to serve [default: an empty one, removed at the end].
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    admit: Admit,
    /// Command to run. It finds $OUTLAST_ADDRESS, $OUTLAST_CONFIG, $OUTLAST_DIRECTORY, $OUTLAST_USER, $OUTLAST_PASSWORD
    /// and $OUTLAST (this program). The share is called pub.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command; returns its exit code.
pub(super) fn run(lab: Lab) -> anyhow::Result<u8> {
    // First, since only a process with one thread can enter a user namespace.
    namespace::enter()?;
    let access = Access::new(lab.admit.guest, lab.admit.user.as_deref())?;
    let own;
    let directory = match &lab.directory {
        Some(directory) => directory.as_path(),
        None => {
            own = Scratch::new(0)?;
            own.path()
        }
    };
    let mut server = Server::start(directory, &access)?;
    let code = command(&lab.command, &server, directory, &access)?;
    if let Err(error) = server.end() {
        eprintln!("outlast: {error:#}");
    }
    Ok(code)
}

/// The server's supervisor.
struct Server {
    child: Child,
    config: PathBuf,
}

impl Server {
    /// Starts a server, and waits until it serves.
    fn start(directory: &Path, access: &Access) -> anyhow::Result<Server> {
        let (read, write) = io::pipe().context("cannot make a pipe")?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("serve")
            .arg(directory)
            .arg(format!("--ready-fd={}", write.as_raw_fd()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // The terminal's signals are for the command.
            .process_group(0);
        match access {
            Access::Guest => command.arg("--guest"),
            // Arguments are visible to every account.
            Access::User { name, password } => command
                .arg(format!("--user={name}"))
                .env("OUTLAST_PASSWORD", password.as_str()),
        };
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        let lab = rustix::process::getpid();
        let descriptor = write.as_raw_fd();
        let prepare = move || {
            // It removes everything it has made.
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            if rustix::process::getppid() != Some(lab) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            // SAFETY: the descriptor is open in the parent until the child has been started, so it is open here.
            let write = unsafe { BorrowedFd::borrow_raw(descriptor) };
            Ok(rustix::io::fcntl_setfd(write, FdFlags::empty())?)
        };
        // SAFETY: between fork and exec it makes only system calls: no allocation, no lock.
        let child = unsafe { command.pre_exec(prepare) }.spawn();
        let mut child = child.context("the server cannot be started")?;
        drop(write);
        match first_line(read) {
            Ok(config) => Ok(Server {
                child,
                config: config.into(),
            }),
            Err(error) => {
                // It may have ended already.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Ends it, and waits until everything it made is removed.
    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().context("the server")? {
            bail!("the server ended before the command did: {status}");
        }
        // Not reaped yet, so the id cannot be another process's.
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)
            .context("the server cannot be ended")?;
        self.child.wait().context("the server")?;
        Ok(())
    }
}

/// Reads the line that the server writes when it serves.
fn first_line(mut pipe: PipeReader) -> anyhow::Result<String> {
    let begun = Instant::now();
    let mut line = String::new();
    while !line.ends_with('\n') {
        let left = TIMEOUT.saturating_sub(begun.elapsed());
        let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
        let left = Timespec::try_from(left).context("no time is left")?;
        if poll(&mut fds, Some(&left)).context("the server cannot be waited for")? == 0 {
            bail!("the server does not serve after {} s", TIMEOUT.as_secs());
        }
        let mut piece = [0; 4096];
        match pipe.read(&mut piece).context("the server's line")? {
            0 => bail!("the server cannot be started; the line above says why"),
            n => line += &String::from_utf8_lossy(&piece[..n]),
        }
    }
    Ok(line.trim_end().to_owned())
}

/// Runs the command to its end; returns its exit code.
fn command(
    words: &[String],
    server: &Server,
    directory: &Path,
    access: &Access,
) -> anyhow::Result<u8> {
    let [program, arguments @ ..] = words else {
        bail!("name a command");
    };
    let config = Config::load(&server.config)?;
    let address = config.network.addresses.first();
    let address = address.context("the server has no address")?.address;
    let own = std::env::current_exe().context("this binary cannot find itself")?;
    let directory = std::path::absolute(directory).context("the directory")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("OUTLAST", own)
        .env("OUTLAST_ADDRESS", address.to_string())
        .env("OUTLAST_DIRECTORY", directory)
        .env(CONFIG_VARIABLE, &server.config);
    match access {
        Access::Guest => command
            .env_remove("OUTLAST_USER")
            .env_remove("OUTLAST_PASSWORD"),
        Access::User { name, password } => command
            .env("OUTLAST_USER", name)
            .env("OUTLAST_PASSWORD", password.as_str()),
    };
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])
        .context("signals cannot be handled")?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("outlast: {program:?} cannot be run: {error}");
            return Ok(match error.kind() {
                io::ErrorKind::NotFound => EXIT_NOT_FOUND,
                _ => EXIT_NOT_EXECUTABLE,
            });
        }
    };
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
        .context("the command cannot be signalled")?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            signals
                .forever()
                .for_each(|signal| forward(&process, signal))
        })
        .context("cannot start a thread")?;
    let status = child.wait().context("the command cannot be waited for")?;
    Ok(exit_code(status))
}

/// A terminal sends SIGINT and SIGQUIT to the command as well; the other signals are for this process only.
fn forward(process: &OwnedFd, signal: i32) {
    let signal = match signal {
        SIGTERM => Signal::TERM,
        SIGHUP => Signal::HUP,
        _ => return,
    };
    // It may have ended.
    let _ = pidfd_send_signal(process, signal);
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| EXIT_SIGNAL + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(EXIT_FAILED)
}
