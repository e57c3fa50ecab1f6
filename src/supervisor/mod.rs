//! Implements the supervisor, which holds the TAP and the control socket, and restarts the worker when it ends. It
//! never sends a frame.
//!
//! [`machine`] decides, [`process`] starts and reaps, [`run`] joins the two; [`entry`] is the worker's side.

pub mod entry;
mod environment;
mod follow;
mod interconnect;
mod listening;
pub mod machine;
pub mod page;
mod paired;
pub mod prober;
mod process;
mod provision;
pub mod pulse;
mod ready;
mod reload;
mod service_manager;
mod settings;
mod signals;
mod stand_in;
mod standby;
mod teardown;
#[cfg(test)]
mod tests;
pub mod worker;

pub use ready::Ready;
pub use worker::{End, PreviousEnd, Report, Worker, WorkerArgs};

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use log::{error, info};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::Config;
use crate::control::{BindError, Listener};
use crate::metrics::{Cause, Return};
use crate::predecessor::outwait;
use crate::tap::{Tap, TapError};
use machine::{Action, Ended, Input, Machine};
use paired::Node;
use process::Process;
use provision::{Held, Provision};
use reload::Reload;
use service_manager::Kept;
use settings::Settings;
use signals::Signals;
use stand_in::StandIn;
use standby::Standby;
use worker::Message;

/// Options of a server besides its configuration.
#[derive(Debug, Default)]
pub struct Start {
    /// The receivers of the ready signal.
    pub ready: Ready,
    /// A TAP that was made for this server; `None`: the one named in the configuration.
    pub tap: Option<Tap>,
    /// The configuration was made for this server: a terminal that hangs up ends it, and nothing is read again.
    pub is_temporary: bool,
}

/// Runs `outlast serve`: checks everything that can be checked before there is a worker, then supervises. Returns the
/// exit code.
///
/// # Errors
/// An error of the configuration, the TAP or the control socket.
pub fn serve(path: &Path, start: Start) -> anyhow::Result<u8> {
    crate::system::keep_memory_private();
    let (kept, config) = Settings::read(path)?;
    crate::logging::configure(config.log.format);
    if let Some(partner) = config.partner.clone() {
        return paired::serve(kept, &config, &partner, start.ready);
    }
    let config = &config;
    crate::preflight::first_start(config)?;
    let control = bind_control(config)?;
    let mut left = Kept::take();
    let network = &config.network;
    let kept_tap = left.tap(&network.tap, network.offload);
    let is_tap_kept = kept_tap.is_some();
    let tap = match start.tap.or(kept_tap) {
        Some(tap) => tap,
        None => open_tap(config)?,
    };
    announce(config);
    serve_metrics(config)?;
    let mut held =
        Held::new(config, kept, control, tap).context("there is no memory for received frames")?;
    if is_tap_kept {
        held.continue_with(left.received);
    }
    let reload = match start.is_temporary {
        true => None,
        false => Some(Reload::of(config)?),
    };
    let mut desk = Desk::open(start.ready, reload)?;
    let waker = desk.signals.waker().context("no pipe")?;
    let mut standby = Standby::new(waker).context("no memory for the standby worker")?;
    let over = supervise(&mut held, &mut standby, &mut desk, None)?;
    Ok(over.code)
}

fn announce(config: &Config) {
    let paths: Vec<String> = config.serves().unc_paths().collect();
    info!(
        "serving {} on {} as process {}",
        paths.join(", "),
        config.network.tap,
        std::process::id()
    );
}

/// Serves metrics over HTTP, if the configuration says so.
fn serve_metrics(config: &Config) -> anyhow::Result<()> {
    let Some(listen) = config.metrics.listen else {
        return Ok(());
    };
    crate::metrics::http::serve(listen, &config.server.control_socket)
        .with_context(|| config.path.display().to_string())
}

/// What the supervisor has as long as it lives.
struct Desk {
    signals: Signals,
    ready: Ready,
    /// The origin of its times.
    start: Instant,
}

impl Desk {
    /// Installs the signal handlers. `reload`: the action of SIGHUP; `None`: it ends the server.
    fn open(ready: Ready, reload: Option<Reload>) -> anyhow::Result<Desk> {
        Ok(Desk {
            signals: Signals::register(reload).context("cannot handle signals")?,
            ready,
            start: Instant::now(),
        })
    }
}

/// How the last worker has ended.
struct Over {
    /// The supervisor's exit code, if it ends now.
    code: u8,
    /// As [`machine::Ended`]; `None`: no worker was started.
    ended: Option<Ended>,
    /// SIGTERM was received.
    is_terminating: bool,
}

/// Starts workers until one ends that has no successor. `node`: the node of a pair that the arbiter has admitted.
fn supervise(
    provision: &mut dyn Provision,
    standby: &mut Standby,
    desk: &mut Desk,
    mut node: Option<&mut Node>,
) -> anyhow::Result<Over> {
    let Desk {
        signals,
        ready,
        start,
    } = desk;
    let start = *start;
    let (mut machine, first) = Machine::new(start.elapsed());
    let mut last_ended = None;
    let mut worker: Option<Process> = None;
    let mut gone_since: Option<Instant> = None;
    let mut missing: Option<String> = None;
    let mut stand_in = StandIn::default();
    let mut action = Some(first);
    loop {
        while let Some(next) = action.take() {
            match next {
                Action::Start(mut order) => {
                    let is_fresh = match provision.prepare(order.renew) {
                        Ok(is_fresh) => is_fresh,
                        Err(why) => {
                            let why = format!("{why:#}");
                            if missing.as_ref() != Some(&why) {
                                error!("no worker can be started until this is fixed: {why}");
                                missing = Some(why);
                            }
                            action = machine.handle(Input::Missing, start.elapsed());
                            continue;
                        }
                    };
                    missing = None;
                    order.tap_fresh &= !provision.is_tap_kept();
                    order.tap_fresh |= is_fresh;
                    let inherited = provision.inherited()?;
                    let away_since = gone_since.map(|since| SystemTime::now() - since.elapsed());
                    let followed = standby.take(&order, &inherited, is_fresh, away_since);
                    let started = match followed {
                        Some(process) => Ok(process),
                        None => Process::start(&inherited, &order, away_since, standby.shared()),
                    };
                    match started {
                        Ok(process) => {
                            stand_in = stand_in.next_worker(start.elapsed());
                            worker = Some(process);
                        }
                        Err(why) => {
                            error!("the worker cannot be started: {why}");
                            action = machine.handle(Input::SpawnFailed, start.elapsed());
                        }
                    }
                }
                Action::Terminate => worker.iter_mut().for_each(Process::terminate),
                Action::Kill => worker.iter_mut().for_each(Process::kill),
                Action::RebootSystem => match crate::system::reboot() {
                    Ok(()) => {
                        return Ok(Over {
                            code: 0,
                            ended: last_ended,
                            is_terminating: true,
                        });
                    }
                    Err(error) => {
                        error!("the machine is not rebooted: {error}; the server continues");
                        action = machine.handle(Input::NotRebooted, start.elapsed());
                    }
                },
                Action::Exit(code) => {
                    return Ok(Over {
                        code,
                        ended: last_ended,
                        is_terminating: machine.is_terminating(),
                    });
                }
            }
        }
        let wake = [
            machine.deadline(),
            stand_in.next_look(worker.as_ref()),
            standby.deadline(),
            ready.manager().next_sign(),
            node.as_ref().map(|node| node.next_look(start.elapsed())),
        ];
        let wake = wake.into_iter().flatten().min();
        let asked = stand_in.is_needed().then(|| provision.control());
        let reports = [worker.as_ref().and_then(Process::report), standby.report()];
        wait(signals, reports, asked, wake, start)?;
        if let Some(process) = &mut worker {
            let metrics = &standby.shared().metrics;
            stand_in.look_after(process, provision.control(), metrics, start.elapsed());
        }
        if let Some(node) = &mut node
            && let Err(why) = node.look_after(start.elapsed())
        {
            // If the service may run elsewhere, it must not run here.
            error!("this node may no longer serve: {why}");
            worker.take().into_iter().for_each(Process::dismiss);
            standby.retire();
            return Ok(Over {
                code: worker::EXIT_ERROR,
                ended: None,
                is_terminating: true,
            });
        }
        ready.manager().live(start.elapsed());
        let mut inputs = Vec::new();
        if signals.take() {
            ready.stopping();
            standby.retire();
            inputs.push(Input::Terminate);
        }
        standby.look_after(provision, start.elapsed());
        if let Some(process) = &mut worker {
            // Reaped before its messages are read: then they are complete.
            let ended = process.reap()?;
            let mut steps = Vec::new();
            inputs.extend(process.messages().filter_map(|message| match message {
                Message::Ready { epoch } => {
                    stand_in.epoch = epoch;
                    let worker = process.id();
                    match gone_since.take().map(|since| since.elapsed()) {
                        Some(gap) => {
                            let metrics = &standby.shared().metrics;
                            metrics.add_return(returned(gap, last_ended));
                            let ms = gap.as_secs_f64() * 1e3;
                            info!("worker {worker} serves, epoch {epoch}; away for {ms:.1} ms")
                        }
                        None => info!("worker {worker} serves, epoch {epoch}"),
                    }
                    Some(Input::Ready)
                }
                Message::Reboot { exec, hold_seconds } => Some(Input::Rebooting {
                    exec,
                    hold: Duration::try_from_secs_f64(hold_seconds).unwrap_or_default(),
                }),
                Message::InStep { number, in_step } => {
                    steps.push((number, in_step));
                    None
                }
                // Of the time when it stood by.
                Message::Follows | Message::Failed { .. } | Message::Differs { .. } => None,
            }));
            if let Some(node) = &mut node {
                steps
                    .into_iter()
                    .for_each(|(number, in_step)| node.step(number, in_step));
            }
            if let Some(ended) = ended {
                inputs.push(Input::Ended(ended));
                last_ended = Some(ended);
                worker = None;
                gone_since.get_or_insert_with(Instant::now);
            }
        }
        inputs.push(Input::Tick);
        for input in inputs {
            if input == Input::Ready {
                provision.proven();
                provision.keep(ready.manager());
                ready.serves();
                standby.serves(machine.binary(), start.elapsed());
            }
            let next = machine.handle(input, start.elapsed());
            action = next.or(action);
        }
    }
}

/// A worker serves, this long after the end of the preceding one.
fn returned(gap: Duration, last_ended: Option<Ended>) -> Return {
    let began = SystemTime::now() - gap;
    let since_1970 = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
    Return {
        began_unix_ms: whole(since_1970.as_millis()),
        gap_us: whole(gap.as_micros()),
        cause: match last_ended {
            Some(Ended::Killed) => Cause::Killed,
            Some(Ended::OwnFault) => Cause::Crashed,
            Some(Ended::Error(_)) => Cause::Failed,
            _ => Cause::Planned,
        },
    }
}

/// Waits for a signal or a question, a message of a worker, a request on the control socket, or the deadline.
fn wait(
    signals: &Signals,
    reports: [Option<BorrowedFd<'_>>; 2],
    asked: Option<BorrowedFd<'_>>,
    deadline: Option<Duration>,
    start: Instant,
) -> anyhow::Result<()> {
    let timeout = deadline.map(|at| at.saturating_sub(start.elapsed()));
    let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
    let mut fds = vec![PollFd::new(signals.pipe(), PollFlags::IN)];
    for fd in reports.into_iter().chain([asked]).flatten() {
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
    }
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("the supervisor cannot wait"),
    }
}

/// Binds the control socket. The worker of a supervisor that has just been killed may hold it for another moment.
fn bind_control(config: &Config) -> anyhow::Result<Listener> {
    let is_held = |error: &BindError| matches!(error, BindError::InUse { .. });
    outwait(is_held, || Listener::bind(&config.server.control_socket)).map_err(|error| {
        anyhow::anyhow!("{}: server.control_socket: {error}", config.path.display())
    })
}

/// Attaches to the TAP. The worker of a supervisor that has just been killed may hold it for another moment.
fn open_tap(config: &Config) -> anyhow::Result<Tap> {
    let network = &config.network;
    let is_held = |error: &TapError| matches!(error, TapError::Busy { .. });
    outwait(is_held, || Tap::open(&network.tap, network.offload))
        .map_err(|error| anyhow::anyhow!("{}: network.tap: {error}", config.path.display()))
}
