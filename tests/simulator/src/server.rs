//! The server in its world: it lives, dies at a step, and is put up again over the same NVRAM and disk.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outlast::server::clock::Time;
use outlast::server::machine::Machine;
use outlast_nvram::Flag;
use outlast_stack::device::{Device, MAX_FRAME_LEN, MemoryDevice};
use outlast_stack::{Lost, RxChecksum, RxFrame, TxFrame};

use crate::clock::Clock;
use crate::configuration::{smb_config, stack_config};
use crate::disk::Disk;
use crate::files::Files;
use crate::fuse::{Crash, Fuse};
use crate::inspect::Inspector;
use crate::memory::Nvram;
use crate::mutation::{Forgetful, Mutation};
use crate::net::Net;
use crate::pair::{Blow, Order, Pair};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::shadow::Shadow;
use crate::sink::SinkFile;
use crate::standby::Standby;
use crate::trace;
use crate::trouble::Troubles;

mod begin;
mod looks;
mod mutated;

/// Wall time at the beginning of every run.
const WALL: u64 = 133_000_000_000_000_000;
/// Turns at one instant, at most.
const TURNS: usize = 10_000;

/// The server and what it stands on.
pub struct Server {
    /// The steps.
    pub fuse: Fuse,
    /// What outlives it.
    pub disk: Rc<RefCell<Disk>>,
    /// Requests that are to fail.
    pub troubles: Troubles,
    nvram: Arc<Nvram>,
    /// Of two servers, the NVRAM of each node; `nvram` is that of the node that serves, or served last.
    pair: Option<Pair>,
    nvrams: [Arc<Nvram>; 2],
    node: usize,
    /// Frames of a node of a pair that have not left yet.
    outbox: VecDeque<TxFrame>,
    /// The node that is stopped while its frames leave, and until when.
    stopped: Option<(usize, Duration)>,
    /// Under durability `power`.
    sink: Option<SinkFile>,
    device: MemoryDevice,
    buffer: Vec<u8>,
    /// The frames of the turn that is under way. They outlive a worker that is killed.
    received: Vec<(Vec<u8>, RxChecksum)>,
    clock: Clock,
    life: Option<Life>,
    down_until: Duration,
    /// The end before was an elective one.
    elective: bool,
    draining: bool,
    /// What follows the log.
    shadow: Shadow,
    /// What follows it where a power cut would leave it.
    shipped: Option<Shadow>,
    /// The next life's worker.
    standby: Standby,
    inspector: Inspector,
    scenario: Scenario,
    /// Crashes so far.
    pub crashes: u32,
    /// Power cuts among them.
    pub cuts: u32,
    /// Elective reboots so far.
    pub reboots: u32,
    /// Starts that were refused, because the disk has failed.
    failed_starts: u32,
    /// Of a pair: the crash that is coming takes the worker alone.
    loses_its_worker: bool,
    /// How often the machine of each node was started.
    boots: [u8; 2],
    /// What became of a mutated server's memory.
    forgetful: Option<Forgetful>,
    /// It has come up with the configuration that takes something from a client.
    pub has_revoked: bool,
    /// When it was not there.
    pub outages: Vec<(Duration, Duration)>,
    /// When those outages began in which a server was stopped.
    pub stops: Vec<Duration>,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is killed.
    Killed,
    /// The power is cut.
    Cut,
    /// By an elective reboot.
    Elective,
    /// By one of the machine.
    System,
}

/// One worker.
struct Life {
    machine: Machine<Files>,
    /// Service time when it began, and when that was.
    base: Duration,
    began: Duration,
}

impl Server {
    /// A server that is about to be started.
    #[must_use]
    pub fn new(scenario: &Scenario, device: MemoryDevice) -> Server {
        let fuse = Fuse::default();
        let clock = Clock::default();
        let mut disk = Disk::new(fuse.clone(), scenario.seed, clock.clone());
        if scenario.lacks.births {
            disk.forget_births();
        }
        let sink = scenario.power.map(|_| {
            disk.keep_journal(clock.clone(), scenario.mutation);
            SinkFile::new(
                scenario.nvram_bytes,
                fuse.clone(),
                clock.clone(),
                scenario.seed,
                scenario.mutation,
            )
        });
        let nvram = Arc::new(Nvram::new(scenario, fuse.clone()));
        let other = match scenario.pair {
            Some(plan) if plan.machines => Arc::new(Nvram::new(scenario, fuse.clone())),
            _ => nvram.clone(),
        };
        Server {
            pair: scenario.pair.map(|plan| Pair::new(plan, scenario.seed)),
            nvrams: [nvram.clone(), other],
            node: 0,
            outbox: VecDeque::new(),
            stopped: None,
            disk: Rc::new(RefCell::new(disk)),
            troubles: Troubles::default(),
            nvram,
            shipped: sink.as_ref().map(|_| new_shadow(scenario)),
            sink,
            fuse,
            clock,
            device,
            buffer: vec![0; MAX_FRAME_LEN],
            received: Vec::new(),
            life: None,
            down_until: Duration::ZERO,
            elective: false,
            draining: false,
            shadow: new_shadow(scenario),
            standby: Standby::new(scenario),
            inspector: Inspector::default(),
            scenario: scenario.clone(),
            crashes: 0,
            cuts: 0,
            reboots: 0,
            failed_starts: 0,
            loses_its_worker: false,
            boots: [1; 2],
            forgetful: (scenario.mutation == Some(Mutation::ReportedForgotten))
                .then(Forgetful::default),
            has_revoked: false,
            outages: Vec::new(),
            stops: Vec::new(),
        }
    }

    /// Is nothing left of any client?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let machine = self.life.as_ref().map(|life| &life.machine);
        machine.is_some_and(|machine| {
            machine.smb().durable().next().is_none()
                && machine.stack().connections().next().is_none()
        })
    }

    /// Bytes of the log that are in use, and all of them; and whether the ring has been filled once.
    #[must_use]
    pub fn log_space(&self) -> (u64, u64, bool) {
        let log = self
            .life
            .as_ref()
            .and_then(|life| life.machine.journal().log());
        let (used, capacity) = log.map_or((0, 0), |log| (log.used(), log.capacity()));
        (used, capacity, self.nvram.head() > capacity)
    }

    /// When something is to be done next.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        let Some(pair) = &self.pair else {
            return self.next_alone(now);
        };
        let serves = pair.serving().is_some() && self.stopped.is_none();
        let own = serves.then(|| self.next_alone(now)).flatten();
        let stopped = self.stopped.map(|(_, until)| until);
        let next = [pair.next(), own, stopped].into_iter().flatten().min();
        next.map(|at| at.max(now))
    }

    fn next_alone(&self, now: Duration) -> Option<Duration> {
        let Some(life) = &self.life else {
            return Some(self.down_until.max(now));
        };
        let service = life.service(now);
        let deadline = life
            .machine
            .next_deadline()
            .map(|at| now + at.saturating_sub(service));
        let flushed = self.sink.as_ref().and_then(SinkFile::due);
        let synced = self.disk.borrow().due();
        [deadline, self.device.next_arrival(), flushed, synced]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now).max(self.clock.now()))
    }

    /// What the server is at, for whoever looks into a run that got stuck.
    #[must_use]
    pub fn state(&self) -> String {
        self.life.as_ref().map_or_else(
            || "the server is down".to_owned(),
            |life| format!("{:#?}", life.machine.stack().status()),
        )
    }

    /// Everything that can be done at this instant.
    ///
    /// # Panics
    /// The server panics, or breaks a law.
    pub fn turn(&mut self, now: Duration, net: &Net) {
        self.device.advance(now);
        let serves = self.turn_of_pair(now, net);
        if !serves || now < self.clock.now() {
            // It waits for the arbiter, or for a medium.
            return;
        }
        self.clock.wait_until(now);
        if self.life.is_none() {
            if self.scenario.lost == Lost::Frames && !self.elective {
                self.device.discard();
            }
            if now < self.down_until {
                return;
            }
            self.fuse.replace();
            self.nvram.change_hands();
        }
        match catch_unwind(AssertUnwindSafe(|| self.live(now, net))) {
            Ok(()) => {}
            Err(payload) if payload.is::<Crash>() => {
                if self.is_only_stopped() {
                    return;
                }
                self.crashes += 1;
                let cuts_percent = self.scenario.power.map_or(0, |power| power.cuts_percent);
                let end = match self.chance("which crash").percent(cuts_percent) {
                    true if !self.loses_its_worker => End::Cut,
                    _ => End::Killed,
                };
                self.end(now, end);
                self.node_died();
            }
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Chance that is another at every step.
    fn chance(&self, purpose: &str) -> Random {
        Random::at_step(self.scenario.seed, self.fuse.steps(), purpose)
    }

    /// The worker is no more; its descriptors go with it.
    fn end(&mut self, now: Duration, end: End) {
        let life = self.life.take();
        if let Some(life) = life.filter(|_| self.is(Mutation::LastWords)) {
            self.say_last_words(life, now);
        }
        self.disk.borrow_mut().killed();
        self.troubles.killed();
        self.follow();
        if let End::Cut | End::System = end {
            log::debug!("the machine is down: {end:?}");
            let mut random = self.chance("power cut");
            self.disk.borrow_mut().cut(&mut random);
            self.nvram.cut(&mut random);
            if let Some(sink) = &self.sink {
                sink.cut(&mut random);
            }
            self.shadow = new_shadow(&self.scenario);
            self.standby.take();
            self.boots[self.node] += 1;
            self.cuts += u32::from(end == End::Cut);
        } else if let Some(sink) = &self.sink {
            sink.killed(&mut self.chance("killed"));
        }
        let keeps_frames = end == End::Killed
            && self.scenario.lost == Lost::Nothing
            && !self.is(Mutation::ReceivedForgotten);
        if !keeps_frames {
            self.received.clear();
        }
        self.elective = matches!(end, End::Elective | End::System);
        self.draining = false;
        let now = self.clock.now();
        self.down_until = now + self.scenario.outage;
        self.outages.push((now, self.down_until));
    }

    /// Takes up what was committed, and what came to the sink.
    fn follow(&mut self) {
        self.shadow.follow(self.nvram.take_committed());
        if let (Some(sink), Some(shadow)) = (&self.sink, &mut self.shipped) {
            let shipped = sink.take_shipped();
            if shipped.anew {
                *shadow = new_shadow(&self.scenario);
            }
            shadow.follow(shipped.entries);
        }
    }

    /// In the end, when everybody has been answered: the power is cut once more, and the server comes back.
    ///
    /// # Panics
    /// As [`Server::turn`].
    pub fn cut_at_the_end(&mut self, net: &Net) {
        if self.scenario.power.is_none() {
            return;
        }
        self.fuse.disarm();
        // Whichever node it is: nothing of it is left but its disk.
        self.pair = None;
        self.end(self.clock.now(), End::Cut);
        while self.life.is_none() {
            self.clock.wait_until(self.down_until);
            self.nvram.change_hands();
            self.begin(self.clock.now(), net);
        }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.scenario.mutation == Some(mutation)
    }

    fn live(&mut self, now: Duration, net: &Net) {
        if self.life.is_none() {
            self.begin(now, net);
        }
        let began = self.began(now);
        for _ in 0..TURNS {
            let is_deaf = self.is(Mutation::InOrderDropped) && self.chance("deaf").percent(10);
            let Some(life) = &mut self.life else { return };
            let time = life.time(now);
            let mut received = false;
            while let Ok(Some((length, checksum))) = self.device.receive(&mut self.buffer) {
                let bytes = &self.buffer[..length];
                trace::frame("client to server", now, bytes, &[]);
                self.fuse.takes();
                self.inspector.promises.arrives(bytes);
                if is_deaf {
                    continue;
                }
                self.received.push((bytes.to_vec(), checksum));
                life.machine.ingest(RxFrame { bytes, checksum }, time);
                received = true;
            }
            if began {
                life.machine.begin_drain(time);
            }
            let late = self.scenario.mutation == Some(Mutation::FramesBeforeCommit);
            if late {
                self.nvram.hold_commits();
            }
            let mut frames = Vec::new();
            life.machine.turn(time, &mut frames);
            let busy = life.machine.busy();
            let at_rest = self.draining && life.machine.at_rest(time);
            self.look_inside();
            if let Some(life) = &self.life {
                self.standby.turn(&life.machine);
            }
            self.send(&frames, net);
            self.forget_received();
            self.look_at_promises();
            drop(frames);
            if late {
                self.nvram.let_commits_go();
            }
            if at_rest {
                return self.save(now, net);
            }
            if !busy && !received && self.device.next_arrival().is_none_or(|at| at > now) {
                return;
            }
        }
        panic!("the server is busy for ever");
    }

    /// Is it time for the elective reboot?
    fn began(&mut self, _now: Duration) -> bool {
        let due = self
            .scenario
            .reboot_at
            .is_some_and(|at| self.fuse.steps() >= at);
        let begins = due && self.reboots == 0 && !self.draining;
        self.draining |= begins;
        begins
    }

    fn save(&mut self, now: Duration, net: &Net) {
        log::debug!("elective reboot");
        if let Some(life) = &mut self.life {
            let time = life.time(now);
            let mut system = self
                .scenario
                .power
                .is_some_and(|power| power.system_reboots);
            let mut is_followed = self.standby.is_there() && !system;
            let mut flag = Flag::ElectiveReboot;
            let moves = self
                .pair
                .as_ref()
                .is_some_and(|pair| pair.may_hand_over(self.node));
            if self.pair.is_some() {
                // The other node may be another machine; the service comes back to this one where there is none.
                (system, is_followed) = (false, false);
            }
            if moves {
                flag = Flag::ElectiveTakeover;
            }
            let frames = (life.machine).save(time, flag, system || moves, is_followed);
            self.follow();
            self.send(&frames, net);
            self.reboots += 1;
            self.end(
                now,
                match system {
                    true => End::System,
                    false => End::Elective,
                },
            );
            if let Some(pair) = self.pair.as_mut().filter(|_| moves) {
                pair.left(self.node, now);
            }
        }
    }

    /// The turn is over. A crash after this leaves something else than one before.
    fn forget_received(&mut self) {
        if !self.received.is_empty() {
            self.fuse.takes();
            self.received.clear();
        }
    }
}

mod two;

fn new_shadow(scenario: &Scenario) -> Shadow {
    Shadow::new(
        stack_config(scenario),
        smb_config(scenario, 0),
        scenario.sees_inside,
    )
}

fn wall(now: Duration) -> u64 {
    WALL + now.as_micros() as u64 * 10
}

/// The simulated time of a wall time, in whole microseconds.
#[must_use]
pub fn since_start(wall: u64) -> Duration {
    Duration::from_micros(wall.saturating_sub(WALL) / 10)
}

impl Life {
    fn service(&self, now: Duration) -> Duration {
        self.base + now.saturating_sub(self.began)
    }

    fn time(&self, now: Duration) -> Time {
        Time {
            now: self.service(now),
            wall: wall(now),
        }
    }
}

/// What a panic said.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
