//! Runs one node of a pair: it is on standby until the arbiter admits it, then supervises a server, then is on standby
//! again.
//!
//! [`role`](crate::pair::role) decides; this module executes. The lock that admits the node is one open file
//! description of this process and of all its workers: it is released when the last of them has ended, and not before.
//! A worker ends with its supervisor, so the end of a node releases it, and a node that is only stopped keeps it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use crossbeam::channel::{Receiver, Sender, unbounded};
use log::{debug, error, info, warn};
use outlast_nvram::{Incarnation, Log, Mapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketFlags;

use super::interconnect::Interconnect;
use super::page::Page as StandbyPage;
use super::process::{Paired, Shared};
use super::provision::{Held, Provision as _};
use super::reload::Reload;
use super::settings::Settings;
use super::standby::Standby;
use super::{Desk, Ended, Over, Ready, bind_control, open_tap, supervise};
use crate::config::{Arbitration, Config, Durability, Partner};
use crate::control::{
    Command, ControlRequest, PairStatus, Reply, StandbyStatus, Status, Submit, metrics_of, relay,
};
use crate::pair::arbiter::{Arbiter, ArbiterError, Rest, Seen, Term};
use crate::pair::etcd::EtcdArbiter;
use crate::pair::hook;
use crate::pair::lease::Lease;
use crate::pair::lock::LockFile;
use crate::pair::outlook::{Known, outlook};
use crate::pair::page::{Page, Tenure};
use crate::pair::role::{Action, Event, Leaving, PACE, Role};
use crate::predecessor::outwait;

/// The interval at which a serving node checks its admission, and looks for its partner.
const RENEWAL: Duration = Duration::from_secs(1);
/// The interval of attempts to put on record whether the partner is in step.
const RETRY: Duration = Duration::from_millis(50);
/// The same if the admission ends by itself.
const RENEWAL_OF_A_LEASE: Duration = Duration::from_millis(200);
/// The interval of checks whether a hook has ended.
const HOOK_PACE: Duration = Duration::from_millis(1);

/// Runs `outlast serve` on one node. Returns the exit code.
pub(super) fn serve(
    kept: Settings,
    config: &Config,
    partner: &Partner,
    ready: Ready,
) -> anyhow::Result<u8> {
    if partner.mount_command.is_none() {
        crate::preflight::first_start(config)?;
    }
    let control = bind_control(config)?;
    let tap = open_tap(config)?;
    super::serve_metrics(config)?;
    let (mut node, paired) = Node::open(config, partner)?;
    let held =
        Held::new(config, kept, control, tap).context("there is no memory for received frames")?;
    let mut held = held.of_pair(paired)?;
    let mut desk = Desk::open(ready, Some(Reload::of(config)?))?;
    let waker = desk.signals.waker().context("no pipe")?;
    let mut standby = Standby::new(waker).context("no memory for the standby worker")?;
    let counter = Counter::open()?;
    info!(
        "node {} of a pair, as process {}: stands by until it may serve",
        partner.nodes.own,
        std::process::id()
    );
    // A standby node counts as ready: its service manager must not wait until the other one fails.
    desk.ready.serves();
    let mut event = Event::Tick;
    let mut terminating = None;
    loop {
        let next = node.until_it_serves(
            event,
            &mut held,
            &mut standby,
            &mut desk,
            &counter,
            terminating.is_some(),
        )?;
        if !next {
            standby.retire();
            return Ok(terminating.unwrap_or(0));
        }
        // The supervisor reattaches to a missing TAP before a worker exists, and then receives from it.
        held.take_service()
            .unwrap_or_else(|error| warn!("{error:#}"));
        super::announce(held.config());
        let over = supervise(&mut held, &mut standby, &mut desk, Some(&mut node))?;
        standby.retire();
        held.listen().unwrap_or_else(|error| warn!("{error:#}"));
        let leaving = leaving(&over);
        if over.is_terminating || !matches!(leaving, Leaving::HandedOver { .. }) {
            terminating = Some(over.code);
        }
        event = Event::Left(leaving);
    }
}

fn leaving(over: &Over) -> Leaving {
    match over.ended {
        Some(Ended::HandedOver { is_return }) => Leaving::HandedOver { is_return },
        Some(Ended::Shutdown | Ended::Reboot | Ended::System) => Leaving::Rebooting,
        Some(Ended::Stopped) => Leaving::Stopped,
        Some(Ended::Error(_) | Ended::OwnFault | Ended::Killed) | None => Leaving::Died,
    }
}

/// Receives control requests to a node without a worker.
struct Counter {
    requests: Receiver<ControlRequest>,
    submit: Submit,
    wake: Arc<OwnedFd>,
}

impl Counter {
    fn open() -> anyhow::Result<Counter> {
        let (submit, requests, wake) = Submit::channel().context("cannot make an eventfd")?;
        Ok(Counter {
            requests,
            submit,
            wake,
        })
    }

    /// Receives all waiting requests; each on a thread, as one may be slow.
    fn receive(&self, held: &Held) {
        while let Ok(asked) = rustix::net::accept_with(held.control(), SocketFlags::CLOEXEC) {
            let submit = self.submit.clone();
            let stream = UnixStream::from(asked);
            let thread = std::thread::Builder::new().name("control".into());
            let heard = thread.spawn(move || {
                if let Err(error) = relay(stream, &submit) {
                    debug!("a control connection ended early: {error}");
                }
            });
            if let Err(error) = heard {
                warn!("a request cannot be answered: {error}");
            }
        }
    }
}

/// A node of a pair.
pub(super) struct Node {
    partner: Partner,
    arbiter: Box<dyn Arbiter>,
    role: Role,
    page: Page,
    incarnation: Incarnation,
    durability: Durability,
    /// `None`: both nodes reach the same NVRAM, or the same sink.
    interconnect: Option<Interconnect>,
    /// The term in which this node was last admitted, as the preceding holder left it.
    admitted: Option<Term>,
    /// A worker's request that the arbiter has not accepted yet.
    unanswered: Option<(u64, bool)>,
    /// The arbiter's state as last read.
    seen: Option<Seen>,
    next_look: Duration,
    /// The results of hooks.
    sender: Sender<Event>,
    events: Receiver<Event>,
    began: Instant,
    /// The last reported reason that prevents the node from serving.
    complaint: Option<String>,
}

impl Node {
    fn open(config: &Config, partner: &Partner) -> anyhow::Result<(Node, Paired)> {
        let incarnation = crate::server::incarnation()?;
        let (arbiter, admitted) = open_arbiter(partner, incarnation)
            .with_context(|| format!("{}: partner.arbiter", config.path.display()))?;
        let page = Page::new().context("no memory for what the node says")?;
        let lease = arbiter.lease();
        let paired = Paired {
            admitted,
            lease: lease.as_deref().map(Lease::deadline).cloned(),
            page: page.clone(),
        };
        let interconnect = Interconnect::open(config, partner, incarnation)?;
        let role = match partner.arbiter.orders() {
            true => Role::by_order,
            false => Role::new,
        };
        let (sender, events) = unbounded();
        let node = Node {
            interconnect,
            admitted: None,
            unanswered: None,
            partner: partner.clone(),
            arbiter,
            role: role(partner.nodes.clone()),
            page,
            incarnation,
            durability: config.nvram.durability,
            seen: None,
            next_look: Duration::ZERO,
            sender,
            events,
            began: Instant::now(),
            complaint: None,
        };
        Ok((node, paired))
    }

    /// Waits on standby until the node must serve; returns false if it must end.
    fn until_it_serves(
        &mut self,
        first: Event,
        held: &mut Held,
        standby: &mut Standby,
        desk: &mut Desk,
        counter: &Counter,
        mut is_terminating: bool,
    ) -> anyhow::Result<bool> {
        let start = desk.start;
        let now = || start.elapsed();
        standby.serves(None, now());
        let mut event = Some(first);
        loop {
            while let Some(next) = event.take() {
                let Some(action) = self.role.handle(next, now()) else {
                    continue;
                };
                match action {
                    // The lock ends with this process, and the other node may serve.
                    Action::Serve if is_terminating => return Ok(false),
                    Action::Serve => return self.begin(held, standby).map(|()| true),
                    Action::End => return Ok(false),
                    Action::Release(rest) => {
                        self.release(rest);
                        if is_terminating {
                            return Ok(false);
                        }
                    }
                    action => event = self.carry_out(action, held.config()),
                }
            }
            self.log_trouble();
            if is_terminating && self.role.deadline().is_some() {
                return Ok(false);
            }
            counter.receive(held);
            self.answer(counter, standby.shared(), &held.config().nvram.path, now());
            if self.may_follow(held.config()) {
                standby.look_after(held, now());
            }
            let pause = self.role.deadline().map(|at| at.saturating_sub(now()));
            let pause = pause.map_or(HOOK_PACE, |pause| pause.min(PACE));
            self.wait(held, desk, counter, pause)?;
            desk.ready.manager().live(now());
            if desk.signals.take() {
                is_terminating = true;
            }
            event = self.events.try_recv().ok().or(Some(Event::Tick));
        }
    }

    fn wait(
        &self,
        held: &Held,
        desk: &Desk,
        counter: &Counter,
        pause: Duration,
    ) -> anyhow::Result<()> {
        let timeout = Timespec::try_from(pause).ok();
        let control = held.control();
        let mut fds = [
            PollFd::new(desk.signals.pipe(), PollFlags::IN),
            PollFd::from_borrowed_fd(control, PollFlags::IN),
            PollFd::new(&counter.wake, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("the supervisor cannot wait"),
        }
        let _ = rustix::io::read(&counter.wake, &mut [0; 8]);
        Ok(())
    }

    /// Reads the files again before a server is started.
    fn begin(&mut self, held: &mut Held, standby: &mut Standby) -> anyhow::Result<()> {
        match held.read_again() {
            Ok(false) => {}
            Ok(true) => standby.retire(),
            Err(why) => error!("the previous configuration and users are kept: {why:#}"),
        }
        self.durability = held.config().nvram.durability;
        self.publish();
        self.complaint = None;
        Ok(())
    }

    /// Performs an action; `None`: it takes a while, or has no result.
    fn carry_out(&mut self, action: Action, config: &Config) -> Option<Event> {
        match action {
            Action::Look => Some(match self.arbiter.look() {
                Ok(seen) => {
                    if !seen.is_held {
                        self.update_state(&seen.term);
                    }
                    if let Some(interconnect) = &self.interconnect {
                        interconnect.admit(&seen, !self.role.serves());
                    }
                    self.seen = Some(seen.clone());
                    Event::Looked(seen)
                }
                Err(error) => Event::Failed(error.to_string()),
            }),
            // A node that asks for admission no longer acknowledges frames of a leader that may be ending.
            Action::Ask => Some(match self.close_and_ask() {
                Ok(term) => {
                    term.iter().for_each(|term| self.update_state(term));
                    self.admitted.clone_from(&term);
                    Event::Asked(term)
                }
                Err(error) => Event::Failed(error.to_string()),
            }),
            Action::Take(term) => Some(Event::Taken(self.take(term))),
            Action::Fence { node } => {
                let command = self.partner.fence_command.clone();
                if command.is_some() {
                    warn!("fencing node {node}");
                }
                let work = move || command_of("partner.fence_command", command, &node);
                self.beside(move || Event::Fenced(work()));
                None
            }
            Action::Mount => {
                let (command, node) = (self.partner.mount_command.clone(), self.own());
                let config = config.clone();
                self.beside(move || {
                    let mounted = command_of("partner.mount_command", command, &node);
                    let may_start = || crate::preflight::first_start(&config);
                    Event::Mounted(
                        mounted.and_then(|()| may_start().map_err(|why| format!("{why:#}"))),
                    )
                });
                None
            }
            Action::Unmount => {
                let (command, node) = (self.partner.unmount_command.clone(), self.own());
                self.beside(move || {
                    Event::Unmounted(command_of("partner.unmount_command", command, &node))
                });
                None
            }
            Action::Serve | Action::Release(_) | Action::End => None,
        }
    }

    fn close_and_ask(&mut self) -> Result<Option<Term>, ArbiterError> {
        self.interconnect.iter().for_each(Interconnect::close);
        self.arbiter.ask()
    }

    /// Informs the role whether this node has the state of a term.
    fn update_state(&mut self, term: &Term) {
        if let Some(interconnect) = &self.interconnect {
            let has_state = term.epoch == 0 || interconnect.resumes(term).is_some();
            self.role.set_has_state(has_state);
        }
    }

    fn own(&self) -> String {
        self.partner.nodes.own.clone()
    }

    /// Runs slow work on a thread.
    fn beside(&self, work: impl FnOnce() -> Event + Send + 'static) {
        let sender = self.sender.clone();
        let thread = std::thread::Builder::new().name("hook".into());
        let spawned = thread.spawn(move || drop(sender.send(work())));
        if let Err(error) = spawned {
            // No other event would continue the role, and no worker exists: the supervisor ends, and releases the lock.
            error!("cannot start a thread: {error}");
            std::process::exit(super::worker::EXIT_ERROR.into());
        }
    }

    fn take(&mut self, term: Term) -> Result<(), String> {
        let from = self.seen.as_ref().map(|seen| seen.term.holder.clone());
        let term = self.stepped(term, self.seen.as_ref().and_then(|seen| seen.partner));
        let term = match (&self.interconnect, &self.admitted) {
            (Some(interconnect), Some(last)) => Term {
                // The other one is not in step with this one.
                in_step: false,
                since_unix_seconds: unix_seconds(),
                resumes: interconnect.resumes(last),
                ..term
            },
            _ => term,
        };
        let tenure = Tenure {
            epoch: term.epoch,
            resumes: term.resumes,
        };
        let shown = self.page.set_tenure(tenure);
        shown.map_err(|error| format!("the workers cannot be shown the term: {error}"))?;
        self.unanswered = None;
        self.arbiter
            .write(&term)
            .map_err(|error| error.to_string())?;
        match from.filter(|from| *from == self.partner.nodes.partner) {
            Some(from) => info!(
                "epoch {}: takes the service over from node {from}",
                term.epoch
            ),
            None => info!("epoch {}: takes the service", term.epoch),
        }
        if let Some(seen) = &mut self.seen {
            (seen.term, seen.is_held) = (term, true);
        }
        Ok(())
    }

    /// The term with the current bit: under durability `power` the sink has everything; otherwise only a node on the
    /// same machine can read the stores to the NVRAM.
    fn stepped(&self, term: Term, partner: Option<Incarnation>) -> Term {
        let in_step = match self.interconnect {
            // The worker that serves knows it.
            Some(_) => term.in_step,
            None => self.durability == Durability::Power || partner == Some(self.incarnation),
        };
        match term.in_step == in_step && term.since_unix_seconds > 0 {
            true => term,
            false => Term {
                in_step,
                since_unix_seconds: unix_seconds(),
                ..term
            },
        }
    }

    fn release(&mut self, rest: Option<Rest>) {
        if let Some(rest) = rest {
            let written = self.arbiter.look().and_then(|seen| {
                let term = Term { rest, ..seen.term };
                self.arbiter.write(&term)
            });
            match written {
                Ok(()) => info!("the service is left to the other node, or to the next start"),
                // Then the state is the same as after a crash of this node, which is safe.
                Err(error) => error!("cannot record how this node has ended: {error}"),
            }
        }
        self.arbiter.release();
    }

    /// Returns the time of the next call of [`Node::look_after`].
    pub(super) fn next_look(&self, now: Duration) -> Duration {
        match self.unanswered {
            Some(_) => self.next_look.min(now + RETRY),
            None => self.next_look,
        }
    }

    /// Checks the admission while a worker serves, and looks for the partner.
    ///
    /// # Errors
    /// This node is no longer admitted.
    pub(super) fn look_after(&mut self, now: Duration) -> Result<(), ArbiterError> {
        if let Some((number, in_step)) = self.unanswered {
            self.step(number, in_step);
        }
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now
            + match self.arbiter.lease() {
                Some(_) => RENEWAL_OF_A_LEASE,
                None => RENEWAL,
            };
        let looked = self.arbiter.renew().and_then(|()| self.arbiter.look());
        let stepped = looked.and_then(|seen| {
            let term = self.stepped(seen.term.clone(), seen.partner);
            let seen = self.seen.insert(seen);
            if term != seen.term {
                // The bit comes first: the flag, and with it acknowledgments, follow.
                self.arbiter.write(&term)?;
                seen.term = term;
            }
            Ok(())
        });
        match stepped {
            Err(error @ ArbiterError::Lost(_)) => return Err(error),
            Err(error) => self.complain(error.to_string()),
            Ok(()) => self.complaint = None,
        }
        self.publish();
        Ok(())
    }

    /// Puts on record, upon a worker's request, whether the partner is in step. The answer is in the page, where the
    /// record is written before the number.
    pub(super) fn step(&mut self, number: u64, in_step: bool) {
        let write = |node: &mut Node| {
            let seen = node.arbiter.look()?;
            let term = Term {
                in_step,
                since_unix_seconds: match seen.term.in_step == in_step {
                    true => seen.term.since_unix_seconds,
                    false => unix_seconds(),
                },
                ..seen.term.clone()
            };
            node.arbiter.write(&term)?;
            node.seen = Some(Seen { term, ..seen });
            Ok(())
        };
        let written: Result<(), ArbiterError> = write(self);
        match written {
            Ok(()) => {
                self.unanswered = None;
                self.complaint = None;
                self.publish();
                if let Err(error) = self.page.answer(number) {
                    warn!("the worker cannot be answered: {error}");
                }
            }
            Err(error) => {
                self.unanswered = Some((number, in_step));
                self.complain(error.to_string());
            }
        }
    }

    fn complain(&mut self, why: String) {
        if self.complaint.as_ref() != Some(&why) {
            error!("{why}");
            self.complaint = Some(why);
        }
    }

    /// Logs what prevents this node from serving, once.
    fn log_trouble(&mut self) {
        match self.role.trouble().map(str::to_owned) {
            Some(why) => self.complain(why),
            None => self.complaint = None,
        }
    }

    /// Publishes the state to the workers.
    fn publish(&self) {
        let written = self
            .status()
            .map_or(Ok(()), |status| self.page.write(&status));
        if let Err(error) = written {
            warn!("the workers cannot read the state of the pair: {error}");
        }
    }

    fn status(&self) -> Option<PairStatus> {
        let seen = self.seen.as_ref()?;
        let link = self.interconnect.as_ref().map(Interconnect::status);
        Some(outlook(&Known {
            nodes: &self.partner.nodes,
            seen,
            serves: self.role.serves(),
            fences: self.partner.fence_command.is_some(),
            by_order: self.partner.arbiter.orders(),
            trouble: self.complaint.as_deref().or(self.role.trouble()),
            link: link.as_ref(),
        }))
    }

    /// Returns whether there is a log of the other node to follow, in memory that both have.
    fn may_follow(&self, config: &Config) -> bool {
        let held_by_partner = |seen: &&Seen| match &self.interconnect {
            Some(interconnect) => seen.is_held && interconnect.is_followed(seen),
            None => seen.is_held && seen.partner == Some(self.incarnation),
        };
        self.seen.as_ref().filter(held_by_partner).is_some() && config.nvram.path.exists()
    }

    /// Answers control requests while no worker does.
    fn answer(&mut self, counter: &Counter, shared: &Shared, nvram: &Path, now: Duration) {
        while let Ok(ControlRequest { command, reply }) = counter.requests.try_recv() {
            let answer = match command {
                Command::Status => Reply::Status(Box::new(self.whole_status(&shared.page, nvram))),
                Command::Metrics => metrics_of(&shared.metrics),
                Command::Takeover { force: true } => self.force(now),
                _ => Reply::Refused {
                    reason: self.refusal(),
                },
            };
            // The requester may have ended.
            let _ = reply.send(answer);
        }
    }

    fn force(&mut self, now: Duration) -> Reply {
        let can_fence = self.partner.fence_command.is_some();
        let seen = match self.arbiter.look() {
            Ok(seen) => seen,
            Err(error) => {
                return Reply::Refused {
                    reason: error.to_string(),
                };
            }
        };
        match self.role.force(&seen, can_fence, now) {
            Err(reason) => Reply::Refused { reason },
            Ok(action) => {
                warn!("`outlast takeover --force`: takes the service over");
                if let Some(Action::Fence { node }) = action {
                    let command = self.partner.fence_command.clone();
                    self.beside(move || {
                        Event::Fenced(command_of("partner.fence_command", command, &node))
                    });
                }
                Reply::Accepted {
                    epoch: self.seen.as_ref().map_or(0, |seen| seen.term.epoch),
                    supervisor_pid: std::process::id(),
                }
            }
        }
    }

    fn refusal(&self) -> String {
        let own = &self.partner.nodes.own;
        let holder = self.seen.as_ref().filter(|seen| seen.is_held);
        match holder {
            Some(_) => format!(
                "node {own} stands by: run this on node {}, which serves; or `outlast takeover --force` here, if that \
                 node does not answer",
                self.partner.nodes.partner
            ),
            None => format!(
                "node {own} does not serve, and no node does; see `outlast status`, and `outlast takeover --force`"
            ),
        }
    }

    fn whole_status(&self, page: &StandbyPage, nvram: &Path) -> Status {
        let follower = page.standing();
        let head = || {
            let mapping = Mapping::open_read_only(nvram).ok()?;
            Log::head_of(&mapping).ok()
        };
        Status {
            supervisor_pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            standby: (follower.pid != 0).then(|| StandbyStatus {
                pid: follower.pid,
                memory_bytes: crate::system::own_memory_bytes(follower.pid).unwrap_or(0),
                lag_bytes: head().map_or(0, |head| head.0.saturating_sub(follower.position)),
            }),
            pair: self.status(),
            ..Status::unknown()
        }
    }
}

/// Opens the arbiter, and its lock, if it is one. A server of this node that has just been killed may have its place
/// for another moment.
fn open_arbiter(
    partner: &Partner,
    incarnation: Incarnation,
) -> anyhow::Result<(Box<dyn Arbiter>, Option<OwnedFd>)> {
    let file = match &partner.arbiter {
        Arbitration::Lock(file) | Arbitration::Pacemaker(file) => file,
        Arbitration::Etcd(etcd) => {
            let arbiter = EtcdArbiter::open(etcd, &partner.nodes, incarnation)?;
            return Ok((Box::new(arbiter), None));
        }
    };
    let is_held = |error: &ArbiterError| matches!(error, ArbiterError::Wrong(_));
    let lock = outwait(is_held, || {
        LockFile::open(file, partner.number, incarnation)
    })?;
    let admitted = lock.descriptor().try_clone_to_owned()?;
    Ok((Box::new(lock), Some(admitted)))
}

/// Runs a command of the configuration, if there is one.
fn command_of(key: &str, command: Option<String>, node: &str) -> Result<(), String> {
    let Some(command) = command else {
        return Ok(());
    };
    hook::run(key, &command, &[("OUTLAST_NODE", node)], hook::TIMEOUT)
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
