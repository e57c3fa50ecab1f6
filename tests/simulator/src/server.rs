//! Runs the server in its simulated world: it lives, crashes at a step, and is started again over the same NVRAM and
//! disk.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use outlast::server::clock::Time;
use outlast::server::machine::Machine;
use outlast_nvram::Flag;
use outlast_stack::device::{Device, MAX_FRAME_LEN, MemoryDevice};
use outlast_stack::{Lost, RxChecksum, RxFrame, TxFrame};

use crate::clock::Clock;
use crate::configuration::{smb_config, stack_config};
use crate::failing::FailingRequests;
use crate::fuse::{Crash, Fuse};
use crate::inspect::Inspector;
use crate::memory::Nvram;
use crate::mutation::{Mutation, Reneging};
use crate::net::Net;
use crate::pair::{NodeFailure, Order, Pair};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::shadow::Shadow;
use crate::sink::SinkFile;
use crate::standby::Standby;
use crate::trace;
use crate::volumes::{Disks, Volumes};
use two::Kept;

mod begin;
mod checks;
mod mutated;

/// The wall-clock time at the beginning of every run.
const WALL: u64 = 133_000_000_000_000_000;
/// The maximum number of turns at one instant.
const TURNS: usize = 10_000;

/// The server and its surroundings.
pub struct Server {
    /// Counts the steps, and crashes the server at the planned ones.
    pub fuse: Fuse,
    /// The disks of the shares, which outlive the server.
    pub disks: Disks,
    /// Requests that fail once.
    pub failing: FailingRequests,
    nvram: Arc<Nvram>,
    /// The pair, if there are two servers. `nvrams` has the NVRAM of each node; `nvram` is that of the node that
    /// serves, or served last.
    pair: Option<Pair>,
    nvrams: [Arc<Nvram>; 2],
    node: usize,
    /// Frames of a node of a pair that have not left yet.
    outbox: VecDeque<TxFrame>,
    /// The node that is stopped while its frames leave, and the end of the stop.
    stopped: Option<(usize, Duration)>,
    /// The sink, under durability `power`.
    sink: Option<SinkFile>,
    device: MemoryDevice,
    buffer: Vec<u8>,
    /// The frames of the present turn. They outlive a worker that is killed.
    received: Vec<(Vec<u8>, RxChecksum)>,
    /// The server of a node that takes the service has not begun yet.
    takes_over: bool,
    /// What the other node of a pair has received.
    kept: Kept,
    clock: Clock,
    life: Option<Life>,
    down_until: Duration,
    /// The last life ended by an elective reboot.
    elective: bool,
    draining: bool,
    /// Follows the log.
    shadow: Shadow,
    /// Follows the log as far as it is on the medium, which survives a power cut.
    shipped: Option<Shadow>,
    /// The worker of the next life.
    standby: Standby,
    inspector: Inspector,
    scenario: Scenario,
    /// Crashes so far.
    pub crashes: u32,
    /// Power cuts among them.
    pub cuts: u32,
    /// Elective reboots so far.
    pub reboots: u32,
    /// The number of starts that were refused because the disk had failed.
    failed_starts: u32,
    /// The present crash of a pair kills only the worker.
    loses_its_worker: bool,
    /// The number of boots of each node's machine.
    boots: [u8; 2],
    /// The state of the mutation `SackedDataDiscarded`.
    reneging: Option<Reneging>,
    /// It runs with the configuration that takes something from a client.
    pub has_revoked: bool,
    /// The beginning and end of each outage.
    pub outages: Vec<(Duration, Duration)>,
    /// The beginnings of those outages in which a server was only stopped.
    pub stops: Vec<Duration>,
}

/// The way in which a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is killed.
    Killed,
    /// The power is cut.
    Cut,
    /// It reboots, electively.
    Elective,
    /// It reboots with its machine, electively.
    System,
}

/// The life of one worker.
struct Life {
    machine: Machine<Volumes>,
    /// The service time at its beginning, and the simulated time of that.
    base: Duration,
    began: Duration,
}

impl Server {
    /// Makes a server that has not been started yet.
    #[must_use]
    pub fn new(scenario: &Scenario, device: MemoryDevice) -> Server {
        let fuse = Fuse::default();
        let clock = Clock::default();
        let sink = scenario.power.map(|_| {
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
            disks: Disks::new(scenario, &fuse, &clock),
            failing: FailingRequests::default(),
            nvram,
            shipped: sink.as_ref().map(|_| new_shadow(scenario)),
            sink,
            fuse,
            clock,
            device,
            buffer: vec![0; MAX_FRAME_LEN],
            received: Vec::new(),
            takes_over: false,
            kept: Kept::default(),
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
            reneging: (scenario.mutation == Some(Mutation::SackedDataDiscarded))
                .then(Reneging::default),
            has_revoked: false,
            outages: Vec::new(),
            stops: Vec::new(),
        }
    }

    /// Returns whether the server has no state of any client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let machine = self.life.as_ref().map(|life| &life.machine);
        machine.is_some_and(|machine| {
            machine.smb().durable().next().is_none()
                && machine.stack().connections().next().is_none()
        })
    }

    /// Returns whether the server serves all shares.
    #[must_use]
    pub fn serves_all_shares(&self) -> bool {
        let machine = self.life.as_ref().map(|life| &life.machine);
        machine.is_some_and(|machine| machine.share_problems().is_empty())
    }

    /// Returns the used and the total bytes of the log, and whether its ring has wrapped.
    #[must_use]
    pub fn log_space(&self) -> (u64, u64, bool) {
        let log = self
            .life
            .as_ref()
            .and_then(|life| life.machine.journal().log());
        let (used, capacity) = log.map_or((0, 0), |log| (log.used(), log.capacity()));
        (used, capacity, self.nvram.head() > capacity)
    }

    /// Returns the time of the server's next event.
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
        let synced = self.disks.due();
        [deadline, self.device.next_arrival(), flushed, synced]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now).max(self.clock.now()))
    }

    /// Describes the server's state, for the report of a run that is stuck.
    #[must_use]
    pub fn state(&self) -> String {
        self.life.as_ref().map_or_else(
            || "the server is down".to_owned(),
            |life| format!("{:#?}", life.machine.stack().status()),
        )
    }

    /// Processes everything that is due at this instant.
    ///
    /// # Panics
    /// The server panics, or violates a law.
    pub fn turn(&mut self, now: Duration, net: &Net) {
        self.device.advance(now);
        let serves = self.turn_of_pair(now, net);
        if !serves || now < self.clock.now() {
            // The server waits for the arbiter, or for a medium.
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
            self.nvram.begin_life();
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

    /// Makes a random sequence that differs at every step.
    fn chance(&self, purpose: &str) -> Random {
        Random::at_step(self.scenario.seed, self.fuse.steps(), purpose)
    }

    /// Ends the present life, with its descriptors.
    fn end(&mut self, now: Duration, end: End) {
        let life = self.life.take();
        if let Some(life) = life.filter(|_| self.is(Mutation::ConnectionsEndedByCrash)) {
            self.end_connections(life, now);
        }
        self.disks.killed();
        self.failing.killed();
        self.follow();
        if let End::Cut | End::System = end {
            log::debug!("the machine is down: {end:?}");
            let mut random = self.chance("power cut");
            self.disks.cut(&mut random);
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
            && !self.is(Mutation::ReceivedFramesLost);
        if !keeps_frames {
            self.received.clear();
        }
        self.elective = matches!(end, End::Elective | End::System);
        self.draining = false;
        let now = self.clock.now();
        self.down_until = now + self.scenario.outage;
        self.outages.push((now, self.down_until));
    }

    /// Applies the newly committed records, and those that have reached the sink.
    fn follow(&mut self) {
        self.shadow.follow(self.nvram.take_committed());
        if let (Some(sink), Some(shadow)) = (&self.sink, &mut self.shipped) {
            let shipped = sink.take_shipped();
            if shipped.from_tail {
                *shadow = new_shadow(&self.scenario);
            }
            shadow.follow(shipped.entries);
        }
    }

    /// Cuts the power once more at the end of a run, when all requests have been answered, and starts the server again.
    ///
    /// # Panics
    /// As [`Server::turn`].
    pub fn cut_at_the_end(&mut self, net: &Net) {
        if self.scenario.power.is_none() {
            return;
        }
        self.fuse.disarm();
        // Either node may start: of the whole pair only the disk is left.
        self.pair = None;
        self.end(self.clock.now(), End::Cut);
        while self.life.is_none() {
            self.clock.wait_until(self.down_until);
            self.nvram.begin_life();
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
            let is_dropped =
                self.is(Mutation::InOrderSegmentDropped) && self.chance("dropped").percent(10);
            let Some(life) = &mut self.life else { return };
            let time = life.time(now);
            let mut received = false;
            while let Ok(Some((length, checksum))) = self.device.receive(&mut self.buffer) {
                let bytes = &self.buffer[..length];
                trace::frame("client to server", now, bytes, &[]);
                self.fuse.takes_frame();
                self.inspector.promises.arrives(bytes);
                if is_dropped {
                    continue;
                }
                self.received.push((bytes.to_vec(), checksum));
                self.kept.put(self.scenario.pair, now, bytes, checksum);
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
            self.check_state();
            if let Some(life) = &self.life {
                self.standby.turn(&life.machine);
            }
            self.send(&frames, net);
            self.forget_received();
            self.check_promises();
            drop(frames);
            if late {
                self.nvram.release_commits();
            }
            if at_rest {
                return self.save(now, net);
            }
            if !busy && !received && self.device.next_arrival().is_none_or(|at| at > now) {
                return;
            }
        }
        panic!("the server is busy endlessly");
    }

    /// Returns whether the elective reboot begins now.
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
                // The other node may be another machine; without one, the service returns to this node.
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

    /// Discards the frames of a turn that is over. A crash after this leaves something else than one before it.
    fn forget_received(&mut self) {
        if !self.received.is_empty() {
            self.fuse.takes_frame();
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

/// Returns the simulated time of a wall-clock time, in whole microseconds.
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
            uptime: now,
        }
    }
}

/// Returns the message of a panic.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}
