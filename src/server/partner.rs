//! Ships the log to the other node's NVRAM over the interconnect, and decides whether output waits for it.

use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use outlast_nvram::copy::Beginning;
use outlast_nvram::sink::Batch;
use outlast_nvram::{Home, Log};

use super::medium::Medium;
use super::open::Company;
use crate::control::LinkStatus;
use crate::pair::link::sender::{Link, News};
use crate::pair::mirror::{Action, Facts, Mirror};
use crate::pair::page::Page;
use crate::supervisor::Report;
use crate::supervisor::worker::{EXIT_ERROR, Message};

/// The longest wait for news before conditions without news are checked.
const PATIENCE: Duration = Duration::from_millis(2);
/// The same while no output waits for the partner.
const IDLE: Duration = Duration::from_millis(50);
/// The longest time for wiping a copy that no node will resume.
const FAREWELL: Duration = Duration::from_secs(2);

/// The parts from which the partner's home is made.
pub struct Setup {
    /// The thread of the interconnect.
    pub link: Link,
    /// The page with the supervisor's record.
    pub page: Page,
    /// The channel to the supervisor.
    pub report: Report,
    /// The name of the other node.
    pub name: String,
    /// The durability requires a partner in step.
    pub is_wanted: bool,
    /// The longest time for which the partner may delay output.
    pub timeout: Duration,
}

/// The partner.
pub struct Partner {
    link: Link,
    page: Page,
    report: Report,
    name: String,
    mirror: Mirror,
    /// The durability requires a partner in step.
    is_wanted: bool,
    /// The service must move to the partner.
    is_asked_for: bool,
    timeout: Duration,
    began: Instant,
    is_attached: bool,
    /// The time since which the connection is lost; `None`: it exists.
    away_since: Option<Instant>,
    /// The time since which a batch is in progress.
    batch_since: Option<Instant>,
    is_done: bool,
    is_lost: bool,
    problem: Option<String>,
}

impl Partner {
    /// Makes the state of a new worker.
    #[must_use]
    pub fn new(setup: Setup) -> Partner {
        let Setup {
            link,
            page,
            report,
            name,
            is_wanted,
            timeout,
        } = setup;
        let mirror = Mirror::new(page.in_step(), page.answered());
        link.want(is_wanted || mirror.is_required());
        Partner {
            link,
            page,
            report,
            name,
            mirror,
            is_wanted,
            is_asked_for: false,
            timeout,
            began: Instant::now(),
            is_attached: false,
            away_since: Some(Instant::now()),
            batch_since: None,
            is_done: false,
            is_lost: false,
            problem: None,
        }
    }

    fn process_link_events(&mut self, log: &mut Log) {
        while let Some(news) = self.link.news() {
            match news {
                News::Up(beginning) => self.attach(log, beginning),
                News::Done => {
                    self.is_done = true;
                    self.batch_since = None;
                }
                News::Down(why) => {
                    if self.problem.as_ref() != Some(&why) {
                        warn!("node {} does not take the log: {why}", self.name);
                    }
                    self.problem = Some(why);
                    self.leave(log);
                }
                News::Superseded(epoch) => {
                    error!(
                        "node {} knows of epoch {epoch}, which is newer than this node's: the server ends here",
                        self.name
                    );
                    std::process::exit(EXIT_ERROR.into());
                }
            }
        }
    }

    fn attach(&mut self, log: &mut Log, beginning: Vec<u8>) {
        // The batch in progress was for another connection.
        self.is_lost |= self.is_attached;
        let is_blank = beginning.iter().all(|byte| *byte == 0);
        let memory_len = log.memory_len();
        match log.attach(Home::Partner, &Beginning::new(memory_len, beginning)) {
            Ok(()) => {
                debug!("node {} takes the log", self.name);
                self.is_attached = true;
                self.away_since = None;
                self.batch_since = None;
                self.problem = None;
            }
            Err(_) if !is_blank => {
                info!("node {} takes the log from its beginning", self.name);
                self.link.begin_anew();
            }
            Err(error) => {
                self.problem = Some(error.to_string());
                self.leave(log);
            }
        }
    }

    fn leave(&mut self, log: &mut Log) {
        log.detach(Home::Partner);
        self.is_lost |= self.is_attached;
        self.is_attached = false;
        self.batch_since = None;
        self.away_since.get_or_insert_with(Instant::now);
    }

    fn facts(&self, log: &Log) -> Facts {
        let is_over = |since: Option<Instant>| since.is_some_and(|at| at.elapsed() > self.timeout);
        let received = log.durable(Home::Partner).filter(|_| self.is_attached);
        Facts {
            committed: log.committed().0,
            received: received.map(|at| at.0),
            is_overdue: is_over(self.away_since) || is_over(self.batch_since),
            answered: self.page.answered(),
            in_step: self.page.in_step(),
            is_wanted: self.is_wanted || self.is_asked_for,
            now: self.began.elapsed(),
        }
    }

    fn act(&mut self, action: Action, log: &mut Log) {
        match action {
            Action::Ask { number, in_step } => {
                if !in_step {
                    let why = self.problem.as_deref().unwrap_or("it does not answer");
                    error!(
                        "node {} keeps the clients waiting ({why}): the server continues alone when that is recorded",
                        self.name
                    );
                }
                if let Err(error) = self.report.send(&Message::InStep { number, in_step }) {
                    error!(
                        "the supervisor is gone ({error}): the server ends here, its sessions are kept"
                    );
                    std::process::exit(EXIT_ERROR.into());
                }
            }
            Action::Flag { in_step } => {
                log.set_flag(Company::Pair { in_step }.flag());
                match in_step {
                    true => info!(
                        "node {} is in step: it has all that any client has",
                        self.name
                    ),
                    false => warn!(
                        "NOT IN STEP: node {} does not have what clients are shown from now on",
                        self.name
                    ),
                }
            }
        }
    }
}

impl Medium for Partner {
    fn begin(&mut self, batch: Batch) {
        self.is_done = false;
        self.is_lost = false;
        self.batch_since = Some(Instant::now());
        self.link.ship(batch);
    }

    fn poll(&mut self) -> bool {
        std::mem::take(&mut self.is_done)
    }

    fn wait(&mut self) {
        self.link.wait(PATIENCE);
    }

    fn turn(&mut self, log: &mut Log) {
        self.process_link_events(log);
        self.link.set_committed(log.committed().0);
        let facts = self.facts(log);
        // The largest number of changes of state.
        for _ in 0..4 {
            if let Some(action) = self.mirror.turn(&facts) {
                self.act(action, log);
            }
        }
        self.link.want(facts.is_wanted || self.mirror.is_required());
    }

    fn pause(&self) -> Option<Duration> {
        let may_be_late = self.away_since.is_some() || self.batch_since.is_some();
        let is_due = self.mirror.is_asking() || (self.mirror.is_required() && may_be_late);
        let is_wanted = self.is_wanted || self.is_asked_for;
        let is_idle = is_wanted && self.is_attached && !self.mirror.is_required();
        match (is_due, is_idle) {
            (true, _) => Some(PATIENCE),
            (false, true) => Some(IDLE),
            (false, false) => None,
        }
    }

    fn is_lost(&mut self) -> bool {
        std::mem::take(&mut self.is_lost)
    }

    fn is_required(&self) -> bool {
        self.mirror.is_required()
    }

    fn erase(&mut self, _blank: Batch) {
        if !self.is_attached {
            return;
        }
        self.link.begin_anew();
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until {
            match self.link.news() {
                Some(News::Up(_) | News::Down(_) | News::Superseded(_)) => return,
                Some(News::Done) => {}
                None => self.link.wait(PATIENCE),
            }
        }
    }

    fn link(&self, log: &Log) -> Option<LinkStatus> {
        let received = log.durable(Home::Partner).filter(|_| self.is_attached);
        Some(LinkStatus {
            is_connected: self.is_attached,
            problem: self.problem.clone(),
            lag_bytes: received.map(|at| log.committed().0.saturating_sub(at.0)),
            round_trip_us: self.link.round_trip_us(),
            heard_ms_ago: self.link.silence().map(|it| it.as_millis() as u64),
        })
    }

    fn want(&mut self, yes: bool) {
        self.is_asked_for = yes;
    }

    fn is_in_step(&self) -> bool {
        self.mirror.is_in_step()
    }
}
