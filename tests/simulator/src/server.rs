//! The server in its world: it lives, dies at a step, and is put up again over the same NVRAM and disk.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outlast::server::clock::Time;
use outlast::server::eviction::EvictionLimits;
use outlast::server::machine::Machine;
use outlast::server::recover::{Parts, recover};
use outlast_nvram::{Flag, Incarnation};
use outlast_stack::device::{Device, MAX_FRAME_LEN, MemoryDevice};
use outlast_stack::{Lost, RxChecksum, RxFrame, TxFrame};

use crate::clock::{Clock, Processor};
use crate::configuration::{receive_total, smb_config, stack_config};
use crate::disk::Disk;
use crate::files::Files;
use crate::fuse::{Crash, Fuse, Step};
use crate::inspect::{Inspector, Known};
use crate::memory::Nvram;
use crate::mutation::{Forgetful, Mutation};
use crate::net::{FIRST_PORT, Net};
use crate::player::SHARE;
use crate::random::Random;
use crate::revocation::Revocation;
use crate::scenario::Scenario;
use crate::shadow::Shadow;
use crate::sink::SinkFile;
use crate::standby::Standby;
use crate::stranger::{self, Stranger};
use crate::surroundings::{Nothing, Saboteur, Seeded};
use crate::trace;
use crate::trouble::Troubles;

/// Wall time at the beginning of every run.
const WALL: u64 = 133_000_000_000_000_000;
/// Room for the longest reply of these workloads and its records.
const REPLY_ROOM: u64 = 5 << 10;
/// The same for the longest effect on files, and all that a compound may do.
const EFFECT_ROOM: u64 = 5 << 10;
/// Turns at one instant, at most.
const TURNS: usize = 10_000;
/// How long a mutated server is silent when it has come back.
const SILENCE: Duration = Duration::from_secs(5);

/// The server and what it stands on.
pub struct Server {
    /// The steps.
    pub fuse: Fuse,
    /// What outlives it.
    pub disk: Rc<RefCell<Disk>>,
    /// Requests that are to fail.
    pub troubles: Troubles,
    nvram: Arc<Nvram>,
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
    /// How often the machine was started.
    boots: u8,
    /// What became of a mutated server's memory.
    forgetful: Option<Forgetful>,
    /// It has come up with the configuration that takes something from a client.
    pub has_revoked: bool,
    /// When it was not there.
    pub outages: Vec<(Duration, Duration)>,
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
    pub fn new(scenario: &Scenario, device: MemoryDevice, blows: &[u64]) -> Server {
        let fuse = Fuse::new(blows);
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
        let nvram = Nvram::new(scenario, fuse.clone());
        Server {
            disk: Rc::new(RefCell::new(disk)),
            troubles: Troubles::default(),
            nvram: Arc::new(nvram),
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
            boots: 1,
            forgetful: (scenario.mutation == Some(Mutation::ReportedForgotten))
                .then(Forgetful::default),
            has_revoked: false,
            outages: Vec::new(),
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
        if now < self.clock.now() {
            // It waits for a medium.
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
                self.crashes += 1;
                let cuts_percent = self.scenario.power.map_or(0, |power| power.cuts_percent);
                let end = match self.chance("which crash").percent(cuts_percent) {
                    true => End::Cut,
                    false => End::Killed,
                };
                self.end(now, end);
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
            self.boots += 1;
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

    /// A server that says good-bye when it dies.
    fn say_last_words(&mut self, mut life: Life, now: Duration) {
        let mut frames = Vec::new();
        let time = life.time(now);
        life.machine.begin_closing(time);
        life.machine.turn(time, &mut frames);
        for frame in &frames {
            let _ = self.device.send(frame);
        }
    }

    /// A server that does not know its connections yet.
    fn answer_too_early(&mut self, now: Duration) {
        let mut stack = outlast_stack::Stack::new(stack_config(&self.scenario), [0; 32], now);
        let mut frames = Vec::new();
        stack.resume(now, Lost::Nothing, &mut Nothing, &mut frames);
        while let Ok(Some((length, checksum))) = self.device.receive(&mut self.buffer) {
            let bytes = &self.buffer[..length];
            stack.ingest(RxFrame { bytes, checksum }, now, &mut Nothing);
        }
        stack.poll(now, &mut Nothing, &mut frames);
        for frame in &frames {
            let _ = self.device.send(frame);
        }
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

    /// Law 8: no more is promised, by all windows together, than is set aside for it.
    fn look_at_promises(&self) {
        let Some(life) = &self.life else { return };
        let usage = life.machine.stack().usage();
        let (held, dropped) = (usage.receive_held, usage.in_window_dropped);
        assert_eq!(
            dropped, 0,
            "the server has dropped segments within a window"
        );
        let may_send = |state| {
            use outlast_stack::State;
            matches!(
                state,
                State::SynReceived | State::Established | State::FinWait1 | State::FinWait2
            )
        };
        let connections = life.machine.stack().connections();
        let ports = connections
            .filter(|(.., state)| may_send(*state))
            .map(|(_, remote, _)| remote.port());
        let promised = self.inspector.promises.promised(&ports.collect());
        let room = receive_total(&self.scenario);
        assert!(
            promised <= room && held <= room,
            "{promised} bytes are promised by windows ({held} as the server counts, with what is queued), of {room} that are set aside"
        );
    }

    /// Laws 1 and 2: what is committed is the state.
    fn look_inside(&mut self) {
        self.follow();
        if let Some(life) = &self.life {
            let dropped = life.machine.stack().usage().in_window_dropped;
            assert_eq!(
                dropped, 0,
                "segments within a window are dropped for want of room in the log"
            );
        }
        if let Some(life) = self.life.as_ref().filter(|_| self.scenario.sees_inside) {
            self.shadow.compare(&life.machine);
        }
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
            let system = self
                .scenario
                .power
                .is_some_and(|power| power.system_reboots);
            let is_followed = self.standby.is_there() && !system;
            let frames = (life.machine).save(time, Flag::ElectiveReboot, system, is_followed);
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
        }
    }

    fn begin(&mut self, now: Duration, net: &Net) {
        log::debug!("the server begins at {now:?}");
        self.inspector.promises.begin_anew();
        let lives = u64::from(self.lives());
        let seed = self.scenario.seed ^ (lives << 48);
        if lives > 0 && self.is(Mutation::AnswersTooEarly) {
            self.answer_too_early(now);
        }
        let (mut stack, smb) = self.configurations(self.lives());
        // Only in a stranger's case: the others may be silent for long when their TCP has backed off.
        let limit = |of| match self.scenario.stranger == Some(of) {
            true => stranger::PATIENCE,
            false => Duration::from_secs(3600),
        };
        if self.is(Mutation::WindowsWithoutRoom) {
            stack.receive_total *= 64;
            stack.receive_reserve = 0;
        }
        let (share, _) = smb.share_named(SHARE).expect("the clients' share");
        let follower = self.standby.take();
        let is_followed = follower.is_some();
        self.disk.borrow_mut().starting(true);
        let recovered = recover(Parts {
            memory: Some(self.nvram.clone()),
            follower,
            sink: self.sink.as_ref().map(SinkFile::open),
            reply_room: REPLY_ROOM,
            effect_room: EFFECT_ROOM,
            wall: wall(now),
            incarnation: Incarnation {
                host: [1; 16],
                boot: [self.boots; 16],
            },
            company: outlast::server::open::Company::Alone,
            copy_units: self.scenario.copy_units,
            // The judge knows no disk that is away for a while: such a start is refused, and comes again.
            sets_apart: false,
            stack,
            smb,
            fs: Files::new(
                self.disk.clone(),
                self.troubles.clone(),
                share,
                &self.scenario,
            ),
            entropy: Box::new(Seeded(Random::new(seed, "entropy"))),
            probe: Box::new(Saboteur {
                nvram: self.nvram.clone(),
                mutation: self.scenario.mutation,
            }),
            stopwatch: Box::new(Processor::new(
                self.scenario.speed,
                Random::new(seed, "processor"),
            )),
            crashed: !self.elective,
            eviction: EvictionLimits {
                login: limit(Stranger::Silent),
                idle: None,
                stalled: limit(Stranger::Halting),
                stalled_when_short: Duration::from_secs(3600),
                unauthenticated: 64,
                connections: 64,
                unread: self.scenario.unread,
            },
            lost: match self.elective {
                true => Lost::Nothing,
                false => self.scenario.lost,
            },
        });
        self.disk.borrow_mut().starting(false);
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(error) => {
                assert!(
                    self.disk.borrow_mut().take_failure(),
                    "the server does not come back: {error:#}"
                );
                log::debug!("the server does not start: {error:#}");
                self.failed_starts += 1;
                return self.end(now, End::Killed);
            }
        };
        assert_eq!(
            recovered.was_followed, is_followed,
            "a follower does not take over"
        );
        let base = match self.scenario.mutation {
            Some(Mutation::OutageIsTime) if lives > 0 => {
                recovered.service_time + self.scenario.outage
            }
            _ => recovered.service_time,
        };
        self.life = Some(Life {
            machine: recovered.machine,
            base,
            began: self.clock.now(),
        });
        let revocation = self.scenario.rules.revocation;
        self.has_revoked = revocation.is_some_and(|it| it.from_life <= self.lives());
        self.look_inside();
        self.send(&recovered.frames, net);
        self.take_left_frames(now);
        if self.life.is_some() {
            let (stack, smb) = self.configurations(self.lives() + 1);
            self.standby.begin(&self.nvram, stack, smb);
        }
    }

    /// The turn is over. A crash after this leaves something else than one before.
    fn forget_received(&mut self) {
        if !self.received.is_empty() {
            self.fuse.takes();
            self.received.clear();
        }
    }

    /// Receives what the worker before had read, as the server's loop does; once.
    fn take_left_frames(&mut self, now: Duration) {
        let left = std::mem::take(&mut self.received);
        let Some(life) = &mut self.life else { return };
        let time = life.time(now);
        for (bytes, checksum) in &left {
            let checksum = *checksum;
            life.machine.ingest(RxFrame { bytes, checksum }, time);
        }
    }

    /// Those of a life, by how many there were before it.
    fn configurations(&self, lives: u32) -> (outlast_stack::Config, outlast_smb::Config) {
        let mut stack = stack_config(&self.scenario);
        if lives > 0 && self.scenario.smaller_window {
            stack.receive_buffer /= 2;
        }
        (stack, smb_config(&self.scenario, lives))
    }

    /// The port of the client whose connection it may have ended.
    fn port_cut(&self) -> Option<u16> {
        let revocation = self.scenario.rules.revocation.filter(|_| self.has_revoked);
        let victim = revocation.filter(Revocation::ends_connection)?.victim;
        Some(FIRST_PORT + u16::try_from(victim).ok()?)
    }

    /// How many there were before this one.
    fn lives(&self) -> u32 {
        self.crashes + self.reboots + self.failed_starts
    }

    fn send(&mut self, frames: &[TxFrame], net: &Net) {
        let returned = self.life.as_ref().filter(|_| self.lives() > 0);
        let is_silent = returned.is_some_and(|life| self.clock.now() < life.began + SILENCE);
        if is_silent && self.is(Mutation::SilentAfterReturn) {
            return;
        }
        let cut = self.port_cut();
        for frame in frames {
            self.fuse.step(Step::Frame);
            let forgotten = self.forgetful.as_mut().and_then(|it| it.forget(frame));
            let frame = forgotten.as_ref().unwrap_or(frame);
            let known = |port| Known {
                may_end: net.may_end(port) || cut == Some(port),
                may_reset: cut == Some(port),
                draining: self.draining,
                at_once: self.sink.is_none(),
            };
            trace::frame(
                "server to client",
                self.clock.now(),
                &frame.header,
                &frame.payload,
            );
            let on_record = self.shipped.as_ref().unwrap_or(&self.shadow);
            let committed = self.scenario.sees_inside.then_some(&on_record.stack);
            self.inspector.look(frame, committed, known);
            // the wire takes every frame; what it loses is its own affair
            let _ = self.device.send(frame);
        }
    }
}

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
