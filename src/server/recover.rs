//! Recovers the state in the log: folds it, or takes it from a follower; then opens the files again; then finishes what
//! was under way; and only then starts to send and receive.

use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use outlast_fsa::fileop::FileTime;
use outlast_nvram::{Handled, Home, Incarnation, Log, Memory};
use outlast_smb::{ATTEMPTS, Entropy, Task};
use outlast_stack::addressing::Sources;
use outlast_stack::{Lost, State as Tcp, TxFrame};

use super::clock::{Stopwatch, Time};
use super::copying::Copier;
use super::eviction::EvictionLimits;
use super::fault::Probe;
use super::files::FileSystem;
use super::fold::{Fold, Folded, Replay, impossible};
use super::following::Follower;
use super::journal::Journal;
use super::machine::{Client, Machine, Surroundings};
use super::medium::Medium;
use super::open::{Company, Opened, Sink, State, Walked, open};
use super::redo::Boot;
use super::roots::{former, has_moved};
use super::set_aside::{self, SetAside, doing};
use super::windows;

/// The parts of a machine.
pub struct Parts<F> {
    /// The memory of the log; `None` under durability `none`.
    pub memory: Option<Arc<dyn Memory>>,
    /// The follower of the log. Its configurations are the ones below.
    pub follower: Option<Follower>,
    /// The sink to which the log is shipped, or was.
    pub sink: Option<Sink>,
    /// The partner's NVRAM, if the log is shipped there.
    pub partner: Option<Partner>,
    /// Room in the log kept for what a request in hand may append, bytes: [`super::journal::REPLY_ROOM`], unless
    /// messages are known to be shorter.
    pub reply_room: u64,
    /// The same under durability `power` for its effect on files: [`super::journal::EFFECT_ROOM`].
    pub effect_room: u64,
    /// Wall time now.
    pub wall: FileTime,
    /// Time since the machine was booted.
    pub uptime: Duration,
    /// The sources of addresses besides the configuration.
    pub sources: Sources,
    /// The machine, and its kernel's boot.
    pub incarnation: Incarnation,
    /// Whether the server is one node of a pair.
    pub company: Company,
    /// Whether the other node may have had the service since this one had it. Then effects on files are done once more
    /// although this kernel has done them: the other node may have overwritten some, and may have lost that.
    pub takes_over: bool,
    /// TCP/IP configuration.
    pub stack: outlast_stack::Config,
    /// SMB configuration; the GUID is filled in from the log.
    pub smb: outlast_smb::Config,
    /// Files.
    pub fs: F,
    /// Randomness.
    pub entropy: Box<dyn Entropy>,
    /// Called at each point.
    pub probe: Box<dyn Probe>,
    /// The least amount of log that a turn copies, in units ([`super::copying::COPY_UNITS`]).
    pub copy_units: u64,
    /// Whether a share whose effects cannot be done again is isolated, and the others are served; otherwise the start
    /// is refused.
    pub sets_apart: bool,
    /// The stopwatch for the fair scheduling of clients.
    pub stopwatch: Box<dyn Stopwatch>,
    /// Whether the worker before died, by its own fault or killed. Then the operation in progress counts
    /// ([`super::set_aside`]).
    pub crashed: bool,
    /// The limits for idle clients.
    pub eviction: EvictionLimits,
    /// Whether frames may have been lost since the last one was sent (nothing held the TAP).
    pub lost: Lost,
}

/// The other node's NVRAM.
pub struct Partner {
    /// What brings bytes there.
    pub medium: Box<dyn Medium>,
    /// Another kernel may take the log up, without what this one has not brought to the mass storage.
    pub has_effects: bool,
}

/// A machine that is whole again.
pub struct Recovered<F> {
    /// The machine.
    pub machine: Machine<F>,
    /// Service time continues from here: the recovery itself was part of the outage.
    pub service_time: Duration,
    /// The first frames.
    pub frames: Vec<TxFrame>,
    /// Requests and objects that killed the server too often and are not tried again.
    pub set_aside: Vec<SetAside>,
    /// Whether a follower had the state; otherwise it was read from the log.
    pub was_followed: bool,
}

/// Makes a machine from the log, or a new one if the log holds nothing that may be recovered.
///
/// # Errors
/// The log is damaged, of another version, or not a log: it is left unchanged.
pub fn recover<F: FileSystem>(parts: Parts<F>) -> anyhow::Result<Recovered<F>> {
    let Parts {
        memory,
        follower,
        sink,
        partner,
        reply_room,
        effect_room,
        wall,
        uptime,
        sources,
        incarnation,
        company,
        takes_over,
        stack,
        smb,
        fs,
        mut entropy,
        mut probe,
        copy_units,
        sets_apart,
        mut stopwatch,
        crashed,
        eviction,
        lost,
    } = parts;
    let mut phases = Phases::begin(&mut *stopwatch);
    let capacity = memory.as_ref().map_or(u64::MAX, |memory| memory.len());
    let (log, state, walked, medium, is_of_this_boot) = match memory {
        Some(memory) => {
            let Opened {
                log,
                state,
                walked,
                medium,
                is_of_this_boot,
            } = open(memory, follower, sink, incarnation, company, &mut *entropy)?;
            (Some(log), state, walked, medium, is_of_this_boot)
        }
        None => {
            let nothing = State::Read(Vec::new());
            (None, nothing, Walked::default(), None, false)
        }
    };
    let at = log.as_ref().and_then(Log::take_handled).filter(|_| crashed);
    phases.end("log read", &mut *stopwatch);
    let was_followed = matches!(state, State::Followed(..));
    let (fold, replayed, condemned) = match state {
        State::Followed(fold, replayed) => {
            if let (Some(log), Some(at)) = (&log, at) {
                set_aside::condemned(log, at, &mut Vec::new());
            }
            (*fold, replayed, None)
        }
        State::Read(mut records) => {
            let replayed = records.len() as u64;
            let condemned = match (&log, at) {
                (Some(log), Some(at)) => set_aside::condemned(log, at, &mut records),
                _ => None,
            };
            let mut fold = Fold::new(stack, smb);
            replay(records, &mut fold, log.as_ref(), &mut *probe)?;
            (fold, replayed, condemned)
        }
    };
    if let Some(log) = &log {
        log.handle(None);
        log.forget_deaths(|of| of.what == doing::FOLD);
    }
    let Folded {
        stack,
        smb,
        clients,
        global,
        files,
    } = fold.finish(&mut *entropy)?;
    let time = Time {
        now: global.clock_up_to,
        wall,
        uptime,
    };
    // Change times can be compared within a boot, and while the wall clock does not run backwards.
    let is_comparable = is_of_this_boot && global.watched_until <= wall;
    let watched_until = Some(global.watched_until).filter(|until| is_comparable && *until > 0);
    let has_effects = medium.is_some() || partner.as_ref().is_some_and(|of| of.has_effects);
    let request_room = reply_room + if has_effects { effect_room } else { 0 };
    let mut journal = Journal::new(log, medium, capacity, request_room, global);
    if let Some(Partner {
        medium,
        has_effects,
    }) = partner
    {
        journal.ship_to(Home::Partner, medium, has_effects);
    }
    let surroundings = Surroundings {
        entropy,
        probe,
        stopwatch,
    };
    let copier = Copier::new(copy_units, journal.records());
    let mut machine = Machine::assemble(stack, smb, fs, journal, surroundings, eviction, copier);
    let recovers = !clients.is_empty();
    let clients = clients
        .into_iter()
        .map(|client| (client, Client::default()));
    machine.clients.extend(clients);
    machine.check_windows()?;
    let before = machine.load_roots();
    machine.load_accounts();
    let of_this_boot = files.boot_id().is_none_or(|of| of == incarnation.boot);
    let mut names = files.effects.iter().map(|(.., share)| share);
    if let Some(share) = names.find(|name| !of_this_boot && has_moved(&machine.smb, &before, name))
    {
        // Acknowledged effects on one directory must not be redone in another.
        anyhow::bail!(
            "share {share:?} has another path, and a power cut took acknowledged changes from its former directory: \
             set the former path for one start, and they are made again there"
        );
    }
    machine.journal.snapshot_global();
    // In the commit of the new list of shares: records name them by their places in it.
    if recovers {
        let Machine { smb, journal, .. } = &mut machine;
        smb.recovered(&former(&before), journal);
    }
    let mut set_aside = Vec::new();
    if let Some(condemned) = condemned {
        machine.drop_object(&condemned);
        set_aside.push(condemned);
    }
    machine.load_addresses(sources, incarnation.boot, time);
    phases.end("folded", &mut *machine.stopwatch);
    let boot = Boot {
        id: incarnation.boot,
        shows_all: !takes_over,
    };
    machine.recover_files(files, boot, sets_apart, time)?;
    if recovers {
        machine.remember_files(watched_until);
        phases.end("files reopened", &mut *machine.stopwatch);
        set_aside.extend(machine.finish(at, time));
        phases.end("work finished", &mut *machine.stopwatch);
    }
    machine.journal.continue_round();
    let mut frames = Vec::new();
    machine
        .stack
        .resume(time.now, lost, &mut machine.journal, &mut frames);
    machine.journal.commit(time.now);
    let frames = machine.hold_back(frames);
    phases.end("clients answered", &mut *machine.stopwatch);
    if recovers {
        info!(
            "recovered {} connection(s) by {replayed} of {} records in {} bytes of log{}: {phases}",
            machine.clients.len(),
            walked.records,
            walked.bytes,
            if was_followed {
                ", the others were followed before"
            } else {
                ""
            }
        );
    }
    Ok(Recovered {
        machine,
        service_time: time.now,
        frames,
        set_aside,
        was_followed,
    })
}

/// Folds the records of a log. The object of each is recorded, so that it is known if one kills the worker.
fn replay(
    records: Replay,
    fold: &mut Fold,
    log: Option<&Log>,
    probe: &mut dyn Probe,
) -> anyhow::Result<()> {
    let mut at = None;
    for (object, record, data) in records {
        if at.replace(object) != Some(object) {
            set_aside::handle(probe, log, object, doing::FOLD);
        }
        fold.take(object, record, data)?;
    }
    Ok(())
}

/// The durations of the parts of a recovery.
struct Phases {
    last: Duration,
    ended: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn begin(stopwatch: &mut dyn Stopwatch) -> Phases {
        Phases {
            last: stopwatch.read(),
            ended: Vec::new(),
        }
    }

    fn end(&mut self, name: &'static str, stopwatch: &mut dyn Stopwatch) {
        let now = stopwatch.read();
        self.ended.push((name, now.saturating_sub(self.last)));
        self.last = now;
    }
}

impl std::fmt::Display for Phases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, took)) in self.ended.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} in {:.1} ms", took.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

impl<F: FileSystem> Machine<F> {
    /// Offered bytes have room in the log, so no server offers more than the maximum, with a little for rounding.
    fn check_windows(&self) -> anyhow::Result<()> {
        let mut conns = self.stack.connections().map(|(conn, ..)| conn);
        let is_too_large = |conn: &u64| self.stack.holding(*conn).promised > 2 * windows::LARGEST;
        match conns.find(is_too_large) {
            Some(conn) => Err(impossible(conn, "a window beyond the largest")),
            None => Ok(()),
        }
    }

    /// Checks every client once, finishes what was under way, and admits sessions and tree connects again. Returns the
    /// requests that are not tried again. `at`: the operation at which the worker before died.
    fn finish(&mut self, at: Option<Handled>, time: Time) -> Vec<SetAside> {
        // Work under way precedes everything else, even the discovery that its connection has closed.
        for client in self.clients.values_mut() {
            client.look = true;
        }
        let in_progress = self.smb.in_progress();
        let mut set_aside = Vec::new();
        let worked_on = in_progress
            .iter()
            .filter(|task| at == Some(set_aside::handled(**task)));
        for task in worked_on {
            let deaths = self.smb.crashed_during(*task, &mut self.journal);
            warn!("the worker died while it was at {task:?}: {deaths} time(s) so far");
            if deaths == ATTEMPTS {
                set_aside.extend(self.request(*task).map(SetAside::Request));
            }
        }
        let mut refused = self.smb.readmit(&mut self.journal);
        self.journal.commit(time.now);
        for task in in_progress {
            self.probe.beat();
            if let Task::Message(conn) = task {
                if let Some(message) = self.take_message(conn) {
                    self.run_message(conn, message, time);
                }
            } else {
                self.run_task(task, time);
            }
            self.wait_for_operation(time);
        }
        refused.extend(self.smb.readmit(&mut self.journal));
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.look_at(conn, time);
        }
        for conn in refused {
            info!(
                "connection {conn} is closed: it has no session left, or its dialect is no longer permitted"
            );
            self.tear_down(conn);
            self.stack.close(conn, &mut self.journal);
        }
        self.grant_grace(time.now);
        set_aside
    }

    /// The request that a task processes, as received; a close that no request asked for has none.
    fn request(&mut self, task: Task) -> Option<Vec<u8>> {
        if let Task::Message(conn) = task {
            let message = self.take_message(conn)?;
            self.mark_ready(conn);
            return Some(message.bytes.together().to_vec());
        }
        self.smb.parked_message(task).map(<[u8]>::to_vec)
    }

    /// Notes the open files, which are opened when they are used. Directories that clients watch are watched again now;
    /// clients whose directory may have changed unnoticed since the recorded time are notified to list it again.
    fn remember_files(&mut self, watched_until: Option<FileTime>) {
        let Machine {
            smb,
            fs,
            journal,
            probe,
            ..
        } = self;
        let (mut at, mut missed) = (None, Vec::new());
        for info in smb.opens() {
            let (conn, open, watch) = (info.conn, info.open, info.watch);
            if at.replace(conn) != Some(conn) {
                set_aside::handle(&mut **probe, journal.log(), conn, doing::FOLD);
            }
            fs.remember(info);
            if let Some(watch) = watch
                && watched_until.is_none_or(|since| fs.may_have_changed(open, watch, since))
            {
                missed.push((conn, open));
            }
        }
        for (conn, open) in missed {
            smb.changes_may_be_missed(conn, open, journal);
        }
        journal.handle(None);
    }

    /// Makes up for the stack's events, which do not survive.
    fn look_at(&mut self, conn: u64, time: Time) {
        match (self.stack.state(conn), self.smb.knows(conn)) {
            (None, _) => self.gone(conn),
            (Some(Tcp::SynReceived), _) => {}
            (Some(state), known) => {
                if known {
                    self.track_unauthenticated(conn);
                    self.refresh_principal(conn, time.now);
                } else {
                    self.accept(conn, time.now);
                }
                let client = self.clients.entry(conn).or_default();
                client.look = true;
                self.windows.received(conn);
                client.active = time.now;
                client.unknown_since = Some(time.now);
                client.finished = matches!(
                    state,
                    Tcp::CloseWait | Tcp::Closing | Tcp::LastAck | Tcp::TimeWait
                );
            }
        }
    }
}
