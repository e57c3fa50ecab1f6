//! Taking up the state the log holds: the fold, by the same `apply` that made it; then the files are opened again; then what was under
//! way is done; then, and only then, the gates open.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use log::{info, warn};
use outlast_nvram::{Handled, Incarnation, Log, Memory, Replayed, codec};
use outlast_smb::fileop::FileTime;
use outlast_smb::{ATTEMPTS, Entropy, Smb, Task};
use outlast_stack::{Lost, Stack, State, TxFrame};

use super::clock::{Stopwatch, Time};
use super::copying::Copier;
use super::fault::Probe;
use super::files::FileSystem;
use super::journal::Journal;
use super::machine::{Machine, Surroundings};
use super::open::{Opened, Sink, Walked, open};
use super::patience::Patience;
use super::record::{GLOBAL, Global, Record};
use super::redo::Files;
use super::roots::{former, has_moved};
use super::set_aside::{self, SetAside, doing};
use super::windows;

/// What the machine is made from.
pub struct Parts<F> {
    /// Where the log lives; `None` under durability `none`.
    pub memory: Option<Arc<dyn Memory>>,
    /// Where the log is shipped to, or was.
    pub sink: Option<Sink>,
    /// Room in the log kept for what a request in hand may append, bytes: [`super::journal::REPLY_ROOM`], unless messages are known to be
    /// shorter.
    pub reply_room: u64,
    /// The same under durability `power` for what it may do to files: [`super::journal::EFFECT_ROOM`].
    pub effect_room: u64,
    /// Wall time now.
    pub wall: FileTime,
    /// The machine, and its kernel's boot.
    pub incarnation: Incarnation,
    /// TCP/IP configuration.
    pub stack: outlast_stack::Config,
    /// SMB configuration; the GUID is filled in from the log.
    pub smb: outlast_smb::Config,
    /// Files.
    pub fs: F,
    /// Randomness.
    pub entropy: Box<dyn Entropy>,
    /// Told of each point.
    pub probe: Box<dyn Probe>,
    /// What a turn copies of the log at least, in units ([`super::copying::COPY_UNITS`]).
    pub copy_units: u64,
    /// A share whose effects cannot be done again is set apart, and the others are served; if not, the start is refused.
    pub sets_apart: bool,
    /// By which clients have their turns.
    pub stopwatch: Box<dyn Stopwatch>,
    /// Did the worker before die, by its own fault or killed? Then what it was at counts ([`super::set_aside`]).
    pub felled: bool,
    /// How long idle clients are borne with.
    pub patience: Patience,
    /// May frames have been lost since the last one was sent (nobody held the TAP)?
    pub lost: Lost,
}

/// A machine that is whole again.
pub struct Recovered<F> {
    /// It.
    pub machine: Machine<F>,
    /// Service time goes on from here: the recovery itself was part of the outage.
    pub service_time: Duration,
    /// The first frames.
    pub frames: Vec<TxFrame>,
    /// What killed the server too often and is not tried again.
    pub set_aside: Vec<SetAside>,
}

/// Makes a machine of what the log holds, or a new one if it holds nothing that may be taken up.
///
/// # Errors
/// The log is damaged, of another version, or not a log: it is left as it was.
pub fn recover<F: FileSystem>(parts: Parts<F>) -> anyhow::Result<Recovered<F>> {
    let Parts {
        memory,
        sink,
        reply_room,
        effect_room,
        wall,
        incarnation,
        stack,
        mut smb,
        fs,
        mut entropy,
        probe,
        copy_units,
        sets_apart,
        mut stopwatch,
        felled,
        patience,
        lost,
    } = parts;
    let mut phases = Phases::begin(&mut *stopwatch);
    let capacity = memory.as_ref().map_or(u64::MAX, |memory| memory.len());
    let (log, mut contents, walked, medium, is_of_this_boot) = match memory {
        Some(memory) => {
            let Opened {
                log,
                replay,
                walked,
                medium,
                is_of_this_boot,
            } = open(memory, sink, incarnation, &mut *entropy)?;
            (Some(log), replay, walked, medium, is_of_this_boot)
        }
        None => (None, Vec::new(), Walked::default(), None, false),
    };
    let replayed = contents.len();
    let at = log.as_ref().and_then(Log::take_handled).filter(|_| felled);
    let condemned = match (&log, at) {
        (Some(log), Some(at)) => set_aside::condemned(log, at, &mut contents),
        _ => None,
    };
    phases.end("log read", &mut *stopwatch);
    let (global, files, contents) = sort(contents, &mut *entropy)?;
    let time = Time {
        now: global.clock_up_to,
        wall,
    };
    // Times of changes compare within a boot, and while the wall clock does not run backwards.
    let is_comparable = is_of_this_boot && global.watched_until <= wall;
    let watched_until = Some(global.watched_until).filter(|until| is_comparable && *until > 0);
    smb.guid = global.guid;
    let stack = Stack::new(stack, global.secret, global.clock_up_to);
    let request_room = reply_room + medium.as_ref().map_or(0, |_| effect_room);
    let journal = Journal::new(log, medium, capacity, request_room, global);
    let surroundings = Surroundings {
        entropy,
        probe,
        stopwatch,
    };
    let copier = Copier::new(copy_units, journal.records());
    let smb = Smb::new(smb);
    let mut machine = Machine::assemble(stack, smb, fs, journal, surroundings, patience, copier);
    let taken_up = !contents.is_empty();
    machine.fold(contents)?;
    let before = machine.know_roots();
    let of_this_boot = files.boot_id().is_none_or(|of| of == incarnation.boot);
    let mut names = files.effects.iter().map(|(.., share)| share);
    if let Some(share) = names.find(|name| !of_this_boot && has_moved(&machine.smb, &before, name))
    {
        // Acknowledged effects on one directory must not be redone in another.
        anyhow::bail!(
            "share {share:?} has another path, and a power cut took acknowledged changes from its former directory: set the former path for one \
             start, and they are made again there"
        );
    }
    machine.journal.snapshot_global();
    // In the commit of the new list of shares: what is on record names them by their places in it.
    if taken_up {
        let Machine { smb, journal, .. } = &mut machine;
        smb.recovered(&former(&before), journal);
    }
    let mut set_aside = Vec::new();
    if let Some(condemned) = condemned {
        machine.drop_object(&condemned);
        set_aside.push(condemned);
    }
    phases.end("folded", &mut *machine.stopwatch);
    machine.take_up_files(files, incarnation.boot, sets_apart, time)?;
    if taken_up {
        machine.remember_files(watched_until);
        phases.end("files remembered", &mut *machine.stopwatch);
        set_aside.extend(machine.finish(at, time));
        phases.end("work finished", &mut *machine.stopwatch);
    }
    let mut frames = Vec::new();
    machine
        .stack
        .resume(time.now, lost, &mut machine.journal, &mut frames);
    machine.journal.commit(time.now);
    let frames = machine.hold_back(frames);
    phases.end("clients told", &mut *machine.stopwatch);
    if taken_up {
        info!(
            "recovered {} connection(s) by {replayed} of {} records in {} bytes of log: {phases}",
            machine.clients.len(),
            walked.records,
            walked.bytes
        );
    }
    Ok(Recovered {
        machine,
        service_time: time.now,
        frames,
        set_aside,
    })
}

/// How long each part of a recovery takes.
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

/// Records with what they mean.
pub type Replay = Vec<(u64, Record<'static>, Bytes)>;

/// What the log's records mean.
pub(super) fn decode(records: Vec<Replayed>) -> anyhow::Result<Replay> {
    records
        .into_iter()
        .map(|record| Ok((record.object, codec::decode(&record.meta)?, record.data)))
        .collect::<Result<_, outlast_nvram::Error>>()
        .context("the log's records are of another version of Outlast")
}

/// Object 0 as the log has it, or a new one; what there is about files; and the records of the clients.
pub(super) fn sort(
    replay: Replay,
    entropy: &mut dyn Entropy,
) -> anyhow::Result<(Global, Files, Replay)> {
    let mut global = Global {
        clock_up_to: Duration::ZERO,
        ids_up_to: 1,
        secret: [0; 32],
        guid: [0; 16],
        watched_until: 0,
        roots: Vec::new(),
    };
    entropy.fill(&mut global.secret);
    entropy.fill(&mut global.guid);
    let mut files = Files::default();
    let mut others = Vec::new();
    for (object, record, data) in replay {
        match record {
            Record::Global(snapshot) => global = snapshot,
            Record::ClockUpTo(mark) => global.clock_up_to = global.clock_up_to.max(mark),
            Record::WatchedUntil(until) => global.watched_until = until,
            Record::Root { share, key } => global.note_root(share, key),
            Record::IdsUpTo(mark) => global.ids_up_to = global.ids_up_to.max(mark),
            record => others.extend(files.take(object, record, data)),
        }
    }
    if global.clock_up_to > LONGEST_SERVICE || global.ids_up_to > MOST_IDS {
        return Err(impossible(
            GLOBAL,
            "its clock or its ids are beyond all that can be",
        ));
    }
    for (object, ..) in &others {
        if !(1..global.ids_up_to).contains(object) {
            return Err(impossible(*object, "no such id has been given out"));
        }
    }
    Ok((global, files, others))
}

/// No server has been in service for longer: a thousand years. What is added to it cannot overflow.
const LONGEST_SERVICE: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// No server has given out more ids.
const MOST_IDS: u64 = u64::MAX / 2;

/// A record that no server writes, though its checksum is right.
fn impossible(object: u64, what: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the log says of object {object} what cannot be: {what}; keep a copy of the file for whoever looks for the fault, and remove it: \
         it will be made anew, without its sessions"
    )
}

/// The fold (law 2): the clients' state from their records. Gives the clients.
///
/// # Errors
/// See [`fold_one`].
pub fn fold(stack: &mut Stack, smb: &mut Smb, replay: Replay) -> anyhow::Result<BTreeSet<u64>> {
    let mut clients = BTreeSet::new();
    for (object, record, data) in replay {
        if fold_one(stack, smb, object, record, data)? {
            clients.insert(object);
        }
    }
    Ok(clients)
}

/// One record's part of the fold. Says whether it begins a client's state.
///
/// # Errors
/// A record of an object that is not a client's, or the end of one, which a log does not give back.
pub fn fold_one(
    stack: &mut Stack,
    smb: &mut Smb,
    object: u64,
    record: Record<'static>,
    data: Bytes,
) -> anyhow::Result<bool> {
    let begins = matches!(record, Record::Client { .. } | Record::Copy { .. });
    match record {
        Record::Client {
            tcp,
            smb: checkpoint,
        } => {
            restore_tcp(stack, object, tcp, data)?;
            restore_smb(smb, object, checkpoint)?;
        }
        Record::Copy { smb: checkpoint } => restore_smb(smb, object, Some(checkpoint))?,
        Record::Copied { tcp } => restore_tcp(stack, object, tcp, data)?,
        Record::Tcp(record) => stack.apply(object, &record, data),
        Record::Smb(record) => smb.apply(object, &record),
        _ => {
            let what = format!("a record is out of place ({})", record.name());
            return Err(impossible(object, &what));
        }
    }
    Ok(begins)
}

fn restore_tcp(
    stack: &mut Stack,
    object: u64,
    tcp: Option<Cow<'static, outlast_stack::Checkpoint>>,
    data: Bytes,
) -> anyhow::Result<()> {
    let Some(tcp) = tcp else { return Ok(()) };
    if let Some(what) = tcp.contradiction() {
        return Err(impossible(object, what));
    }
    let opened = outlast_stack::Record::Opened(Box::new(tcp.into_owned()));
    stack.apply(object, &opened, data);
    Ok(())
}

fn restore_smb(
    smb: &mut Smb,
    object: u64,
    checkpoint: Option<Cow<'static, outlast_smb::Checkpoint>>,
) -> anyhow::Result<()> {
    let Some(checkpoint) = checkpoint else {
        return Ok(());
    };
    if let Some(what) = checkpoint.contradiction() {
        return Err(impossible(object, what));
    }
    smb.restore(object, checkpoint.into_owned());
    Ok(())
}

impl<F: FileSystem> Machine<F> {
    fn fold(&mut self, replay: Replay) -> anyhow::Result<()> {
        let mut at = None;
        for (object, record, data) in replay {
            if at.replace(object) != Some(object) {
                self.handle(object, doing::FOLD);
            }
            if fold_one(&mut self.stack, &mut self.smb, object, record, data)? {
                self.clients.entry(object).or_default();
            }
        }
        self.journal.handle(None);
        self.journal.acquit(|of| of.what == doing::FOLD);
        self.check_windows()
    }

    /// Promised bytes have room in the log, so no server promises more than it may at most, and a little for rounding.
    fn check_windows(&self) -> anyhow::Result<()> {
        let mut conns = self.stack.connections().map(|(conn, ..)| conn);
        let is_too_large = |conn: &u64| self.stack.holding(*conn).promised > 2 * windows::LARGEST;
        match conns.find(is_too_large) {
            Some(conn) => Err(impossible(conn, "a window beyond the largest")),
            None => Ok(()),
        }
    }

    /// Looks at every client once, finishes what was under way, and admits sessions and tree connects again. Gives the
    /// requests that are not tried again. `at`: what the worker before died at.
    fn finish(&mut self, at: Option<Handled>, time: Time) -> Vec<SetAside> {
        // What was under way comes before all else: before its connection is noticed to be gone, too.
        for client in self.clients.values_mut() {
            client.look = true;
        }
        let in_progress = self.smb.in_progress();
        let mut set_aside = Vec::new();
        let worked_on = in_progress
            .iter()
            .filter(|task| at == Some(set_aside::handled(**task)));
        for task in worked_on {
            let deaths = self.smb.felled(*task, &mut self.journal);
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
            self.settle(time);
        }
        refused.extend(self.smb.readmit(&mut self.journal));
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.look_at(conn, time);
        }
        for conn in refused {
            info!(
                "connection {conn} is closed: it has no session left, or its dialect is not spoken any more"
            );
            self.leave(conn);
            self.stack.close(conn, &mut self.journal);
        }
        self.bear_with_all(time.now);
        set_aside
    }

    /// The request that a task works on, as it came; a close that no request asked for has none.
    fn request(&mut self, task: Task) -> Option<Vec<u8>> {
        if let Task::Message(conn) = task {
            let message = self.take_message(conn)?;
            self.look_again(conn);
            return Some(message.bytes.to_vec());
        }
        self.smb.parked_message(task).map(<[u8]>::to_vec)
    }

    /// Files are opened when they are used. Directories that clients watch are watched again now; whose clients may
    /// have missed a change since the time on record are told to look for themselves.
    fn remember_files(&mut self, watched_until: Option<FileTime>) {
        for open in self.smb.opens().collect::<Vec<_>>() {
            self.handle(open.conn, doing::FOLD);
            self.fs.remember(&open);
            if open.watch.is_none() {
                continue;
            }
            let changed = |since| self.fs.may_have_changed(&open, since);
            if watched_until.is_none_or(changed) {
                self.smb
                    .changes_may_be_missed(open.conn, open.open, &mut self.journal);
            }
        }
        self.journal.handle(None);
    }

    /// What the stack's events would have said, had they survived.
    fn look_at(&mut self, conn: u64, time: Time) {
        match (
            self.stack.checkpoint(conn).map(|tcp| tcp.state),
            self.smb.checkpoint(conn).is_some(),
        ) {
            (None, _) => self.gone(conn),
            (Some(State::SynReceived), _) => {}
            (Some(state), known) => {
                if known {
                    self.meet(conn);
                    self.recognise(conn, time.now);
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
                    State::CloseWait | State::Closing | State::LastAck | State::TimeWait
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
