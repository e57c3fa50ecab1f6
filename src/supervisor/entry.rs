//! Runs the worker from its entry point: from arguments and inherited descriptors to the event loop, and from its end
//! to an exit code.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail};
use log::{error, warn};
use rustix::io::FdFlags;
use signal_hook::consts::{SIGBUS, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use super::page::Page;
use super::prober::Prober;
use super::process::RECEIVED_VARIABLE;
use super::pulse::Pulse;
use super::teardown::Teardown;
use super::worker::{
    EXIT_GIVEN_BACK, EXIT_HANDED_OVER, EXIT_REBOOT, EXIT_SHUTDOWN, EXIT_STOPPED, EXIT_SYSTEM,
    Message,
};
use super::{End, Report, Worker, WorkerArgs, settings};
use super::{environment, follow};
use crate::config::Config;
use crate::control::{Command, Gate, Submit};
use crate::metrics;
use crate::one_line::OneLine;
use crate::pair::{self, lease::Deadline};
use crate::server::Following;
use crate::users::Users;

/// Runs the worker; returns its exit code.
///
/// # Errors
/// The reason why it could not start or continue.
pub fn run(args: &WorkerArgs) -> anyhow::Result<u8> {
    crate::system::keep_memory_private();
    fatal_faults()?;
    let Inherited {
        tap,
        control,
        report,
        settings,
    } = inherit(args)?;
    let pulse = Pulse::inherited(is_open);
    let prober = Prober::inherited(is_open);
    let (config, users) = match settings {
        Some([config, users]) => settings::inherited(&args.config, config.as_fd(), users.as_fd())?,
        // The supervisor's version has none.
        None => {
            let config = Config::load(&args.config)?;
            config.check_system()?;
            let users = Users::for_server(&config)?;
            (config, users)
        }
    };
    crate::logging::configure(config.log.format);
    let page = Page::inherited(is_open);
    let received = environment::inherited(RECEIVED_VARIABLE, is_open);
    let capture = environment::inherited(crate::capture::VARIABLE, is_open);
    let metrics = environment::inherited(metrics::VARIABLE, is_open);
    let metrics = metrics::Page::inherited(metrics).context("no memory for what is counted")?;
    let pair = environment::inherited(pair::PAGE_VARIABLE, is_open).map(pair::page::Page::from);
    let admitted = environment::inherited(pair::ADMITTED_VARIABLE, is_open);
    let lease = environment::inherited(pair::LEASE_VARIABLE, is_open).map(Deadline::from);
    if config.partner.is_some() && (pair.is_none() || admitted.is_none() && lease.is_none()) {
        bail!(
            "[partner] needs a supervisor that knows it: end the server with SIGTERM and start it again"
        );
    }
    // Before a thread, or the process that unmaps the address space, shares the memory.
    let sandbox = crate::sandbox::restrict(&config, prober.is_none());
    let open = [tap.as_fd(), control.as_fd(), report.as_fd()].into_iter();
    let open = open.chain(pulse.iter().map(|pulse| pulse.memory().as_fd()));
    let open = open.chain(page.iter().map(|page| page.memory().as_fd()));
    let open = open.chain(pair.iter().map(|page| page.memory().as_fd()));
    let open = open.chain(admitted.iter().map(AsFd::as_fd));
    let open = open.chain(lease.iter().map(|page| page.memory().as_fd()));
    teardown(open.chain(prober.iter().map(AsFd::as_fd)));
    let report = Report::new(report);
    let (go, following) = if args.standby {
        pulse.iter().for_each(Pulse::announce);
        ignore_the_terminal()?;
        let followed = Following::begin(&config, &users, tap.as_fd())
            .and_then(|following| follow::until_ordered(following, page.clone(), &report));
        if let Err(error) = &followed {
            let why = OneLine(&format!("{error:#}")).to_string();
            // The supervisor may have ended, and does not need it then.
            let _ = report.send(&Message::Failed { why });
        }
        match followed? {
            Some((go, following)) => (go, Some(following)),
            // The supervisor has ended.
            None => return Ok(EXIT_STOPPED),
        }
    } else {
        (args.go(), None)
    };

    // Before it can speak: from here on this process ends with the lease of its node.
    lease
        .map_or(Ok(()), pair::lease::keep)
        .context("the node's lease cannot be kept")?;
    let (submit, requests, wake) = Submit::channel().context("no eventfd can be had")?;
    signals(submit.clone())?;
    let gate = Gate {
        config: config.clone(),
        supervisor_pid: args.supervisor_pid,
        pulse: pulse.clone(),
        metrics: metrics.clone(),
        prober,
    };
    let answers = crate::control::serve(control.into(), submit, gate)?;

    let nvram = config.nvram.path.clone();
    let end = crate::server::run(
        config,
        users,
        Worker {
            tap,
            received,
            requests,
            wake,
            report: report.clone(),
            supervisor_pid: args.supervisor_pid,
            previous: go.previous,
            attempts: go.attempts,
            tap_fresh: go.tap_fresh,
            away_since: go
                .away_since_ms
                .map(|ms| UNIX_EPOCH + Duration::from_millis(ms)),
            pulse,
            standby: page,
            following,
            sandbox,
            pair,
            metrics,
            capture,
            admitted,
        },
    )?;
    answers.wait();
    match end {
        End::Stopped => Ok(EXIT_STOPPED),
        End::Shutdown => Ok(EXIT_SHUTDOWN),
        End::HandedOver { is_return: false } => Ok(EXIT_HANDED_OVER),
        End::HandedOver { is_return: true } => Ok(EXIT_GIVEN_BACK),
        End::System => leave_for_system(&nvram, &report),
        End::Reboot { exec, hold } => {
            report.send(&Message::Reboot {
                exec,
                hold_seconds: hold.as_secs_f64(),
            })?;
            Ok(EXIT_REBOOT)
        }
    }
}

/// Writes the NVRAM to its medium, and leaves the reboot of the machine to the supervisor. If that fails, the server
/// continues. Returns the exit code.
fn leave_for_system(nvram: &Path, report: &Report) -> anyhow::Result<u8> {
    match File::open(nvram).and_then(|file| file.sync_all()) {
        Ok(()) => Ok(EXIT_SYSTEM),
        Err(error) => {
            error!("the machine is not rebooted: {error}; the server continues");
            report.send(&Message::Reboot {
                exec: None,
                hold_seconds: 0.0,
            })?;
            Ok(EXIT_REBOOT)
        }
    }
}

/// The descriptors that the supervisor passes on.
struct Inherited {
    tap: OwnedFd,
    control: OwnedFd,
    report: OwnedFd,
    /// Configuration and users.
    settings: Option<[OwnedFd; 2]>,
}

/// Takes the descriptors. The supervisor's death must end this process.
fn inherit(args: &WorkerArgs) -> anyhow::Result<Inherited> {
    if std::os::unix::process::parent_id() != args.supervisor_pid {
        bail!("the worker is started by `outlast serve`, not by hand");
    }
    let mut fds = vec![args.tap_fd, args.control_fd, args.report_fd];
    fds.extend(args.config_fd.into_iter().chain(args.users_fd));
    let distinct: BTreeSet<i32> = fds.iter().copied().collect();
    if distinct.len() != fds.len() || fds.iter().any(|fd| *fd <= 2 || !is_open(*fd)) {
        bail!("the worker is started by `outlast serve`, not by hand");
    }
    let mut all = Vec::new();
    for fd in fds {
        // SAFETY: open, distinct, passed to this process for its own use by its parent, and nothing has been opened
        // here before that could have one of these numbers: the process has just begun.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Child processes (the probe of a new binary) must not inherit the TAP.
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)
            .context("cannot use an inherited descriptor")?;
        all.push(fd);
    }
    let mut all = all.into_iter();
    let mut next = || all.next().context("a descriptor is missing");
    Ok(Inherited {
        tap: next()?,
        control: next()?,
        report: next()?,
        settings: match args.config_fd {
            Some(_) => Some([next()?, next()?]),
            None => None,
        },
    })
}

/// Starts the process that unmaps the address space. Without it the next worker starts a little later.
fn teardown<'a>(open: impl Iterator<Item = BorrowedFd<'a>>) {
    let open: Vec<RawFd> = open.map(|fd| fd.as_raw_fd()).collect();
    match Teardown::start(&open) {
        // it lasts until the process ends
        Ok(teardown) => std::mem::forget(teardown),
        Err(error) => {
            warn!("cannot start the process that unmaps the address space: {error}");
        }
    }
}

fn is_open(fd: RawFd) -> bool {
    Path::new("/proc/self/fd")
        .join(fd.to_string())
        .symlink_metadata()
        .is_ok()
}

/// Makes a panic on any thread end the process at once, without unwinding: a dead server is silent, and its state is in
/// the log. SIGBUS (the disk under a mapping failed or is full) prints its cause first.
fn fatal_faults() -> io::Result<()> {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        signal_hook::low_level::abort();
    }));
    let fatal = || {
        const TEXT: &[u8] = b"outlast: fatal: SIGBUS: the storage under a mapped file (nvram.path) failed or is full\n";
        let _ = rustix::io::write(std::io::stderr(), TEXT);
        signal_hook::low_level::abort();
    };
    // SAFETY: the action is async-signal-safe: it calls only write(2) and abort(3), and does not return to the faulting
    // access.
    unsafe { signal_hook::low_level::register(SIGBUS, fatal) }?;
    Ok(())
}

/// Ignores the terminal's signals to the foreground group while the worker stands by: the supervisor ends it.
fn ignore_the_terminal() -> anyhow::Result<()> {
    for signal in [SIGINT, SIGHUP, SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::default()).context("cannot handle signals")?;
    }
    Ok(())
}

/// Makes SIGTERM a request to the loop. SIGINT and SIGHUP go to the whole foreground group and are handled by the
/// supervisor, so they are ignored here.
fn signals(submit: Submit) -> anyhow::Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])
            .context("cannot handle signals")?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == SIGTERM {
                    submit.submit(Command::Shutdown);
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

#[cfg(test)]
mod tests;
