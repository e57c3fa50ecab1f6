//! Runs the event loop: waits for frames, timers, local changes and requests, and lets the machine take its turn.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use log::{error, info, warn};
use outlast_nvram::Flag;
use outlast_stack::{RxFrame, TxFrame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock::{Clock, Time};
use super::digest::Marks;
use super::machine::Machine;
use super::observer::Observer;
use super::open::Company;
use super::recover::{Recovered, recover};
use super::{set_aside, setup, status};
use crate::config::Config;
use crate::control::{Command, ControlRequest, Outage, Reply, Serves};
use crate::discovery::Discovery;
use crate::fs::Fs;
use crate::pair;
use crate::supervisor::page::Page;
use crate::supervisor::pulse::BEAT;
use crate::supervisor::{End, Worker};
use crate::tap::{Received, Tap};
use crate::users::Users;

/// How long a handover waits for the partner to have the state.
const TRANSFER: Duration = Duration::from_secs(60);

/// Frames taken in before the machine takes its turn: enough to share a commit, few enough not to delay the
/// acknowledgement.
const FRAMES_PER_TURN: usize = 64;

/// How often a node of a pair announces its addresses after the first time (RFC 4861, 10: MAX_NEIGHBOR_ADVERTISEMENT).
const ANNOUNCEMENTS: u32 = 3;
/// Between two announcements (RFC 4861, 10: RETRANS_TIMER).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the server until it is asked to end or cannot continue.
///
/// # Errors
/// The reason why it could not start: one line that names the file, the key and the remedy. Later: the TAP has been
/// removed.
pub fn run(config: Config, users: Users, mut worker: Worker) -> anyhow::Result<End> {
    let (parts, tap, done_wake) = setup::parts(&config, &users, &mut worker)?;
    let received = Received::new(worker.received.take()).context("memory for received frames")?;
    let about = status::About {
        serves: Serves {
            weaker: parts.fs.weaker(),
            ..config.serves()
        },
        sandbox: std::mem::take(&mut worker.sandbox),
        supervisor_pid: worker.supervisor_pid,
        last_outage: None,
        standby: worker.standby.clone(),
        metrics: worker.metrics.clone(),
        pair: worker.pair.clone(),
    };
    let observer = Observer::new(worker.metrics.clone(), worker.capture.take())
        .context("memory for what is counted")?;
    let Recovered {
        mut machine,
        service_time,
        mut frames,
        set_aside,
        ..
    } = recover(parts).with_context(|| {
        format!(
            "{}: nvram.path: {}",
            config.path.display(),
            config.nvram.path.display()
        )
    })?;
    worker.standby.iter().for_each(Page::begin);
    *machine.counts() = observer.counts();
    let mut server = Server {
        machine,
        clock: Clock::starting_at(service_time),
        tap,
        received,
        about,
        worker,
        done_wake,
        end: None,
        transfer: None,
        marks: Marks::default(),
        looked_at_pair: Instant::now(),
        began: Instant::now(),
        announced: 0,
        observer,
        discovery: Discovery::new(&config, random(), service_time),
        has_spare_memory: true,
    };
    server.send(&mut frames);
    server.about.last_outage = outage(&server.worker);
    let epoch = server.machine.epoch();
    for (number, what) in set_aside.iter().enumerate() {
        set_aside::keep(&config.nvram.path, epoch, number, what);
    }
    server
        .worker
        .report
        .ready(epoch)
        .context("the supervisor has ended")?;
    server.machine.probe.serve();
    info!("epoch {epoch}: the gates are open");
    server.serve()
}

/// Any number. Without the kernel's, two servers that start at once are a little more likely to ask at once.
fn random() -> u64 {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    u64::from_ne_bytes(random)
}

/// The time since the worker before ended, which is over.
fn outage(worker: &Worker) -> Option<Outage> {
    let since = worker.away_since?;
    // A wall clock that was set back gives no length.
    let took = SystemTime::now().duration_since(since).unwrap_or_default();
    let began = since.duration_since(UNIX_EPOCH).ok()?;
    Some(Outage {
        began_unix_seconds: began.as_secs_f64(),
        seconds: took.as_secs_f64(),
        cause: worker.previous.describe().to_owned(),
    })
}

struct Server {
    machine: Machine<Fs>,
    clock: Clock,
    tap: Tap,
    /// The received frames of this turn.
    received: Received,
    about: status::About,
    worker: Worker,
    /// An eventfd that is readable when work in parallel to the loop has ended.
    done_wake: Arc<OwnedFd>,
    /// How it is going to end, once that has begun.
    end: Option<End>,
    /// How it is going to end when the partner is in step, and until when that is waited for.
    transfer: Option<(End, Instant)>,
    marks: Marks,
    /// When the flag was last updated by the state of the pair.
    looked_at_pair: Instant,
    /// Since when this worker serves.
    began: Instant,
    /// How often the addresses have been announced since then.
    announced: u32,
    observer: Observer,
    /// Answers clients that look for the server.
    discovery: Discovery,
    /// The recovery's memory has not been given back.
    has_spare_memory: bool,
}

impl Server {
    fn serve(mut self) -> anyhow::Result<End> {
        let mut time = self.clock.read();
        self.receive_left_frames(time);
        let mut frames = Vec::new();
        loop {
            self.take_requests();
            self.continue_transfer(time);
            // A share that was offline is looked for at the beginning of the turn, and may keep it waiting.
            let looks = self.machine.fs.next_look();
            if looks.is_some_and(|at| at <= Instant::now()) {
                self.machine.probe.at_disk(true);
            }
            self.machine.turn(time, &mut frames);
            self.machine.probe.at_disk(false);
            frames.extend(self.discovery.poll(time.now));
            self.send(&mut frames);
            self.observer.count(&mut self.machine);
            // What they brought is on record, and what is not (a neighbour's question) is answered.
            self.received.forget();
            if let Some(end) = self.end.take_if(|_| self.machine.at_rest(time)) {
                return Ok(self.leave(end));
            }
            self.wait()?;
            time = self.clock.read();
            self.receive(time)?;
        }
    }

    fn receive(&mut self, time: Time) -> anyhow::Result<()> {
        for _ in 0..FRAMES_PER_TURN {
            let received = self.received.receive(&self.tap);
            let Some(frame) = received.context("the TAP")? else {
                break;
            };
            self.observer.received(&mut self.machine, frame.bytes);
            self.discovery.hear(frame.bytes, time.now);
            self.machine.ingest(frame, time);
            // The next operation begins in the next turn, and its thread is idle until then.
            if self.machine.fs.has_finished() {
                break;
            }
        }
        Ok(())
    }

    /// Receives the frames that the worker before had read from the TAP and not recorded, or those that this node has
    /// kept while it was on standby.
    fn receive_left_frames(&mut self, time: Time) {
        let left = self.received.take_left(&self.tap);
        if left.is_empty() {
            return;
        }
        info!("{} kept frame(s) are received", left.len());
        // The worker before may have died before it put a frame into the capture.
        for (bytes, _) in &left {
            self.observer.received(&mut self.machine, bytes);
        }
        let frames = left.iter().map(|(bytes, checksum)| RxFrame {
            bytes,
            checksum: *checksum,
        });
        self.machine.ingest_kept(&frames.collect::<Vec<_>>(), time);
    }

    /// Waits until something has to be done. Everything received is recorded.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = if self.machine.busy() {
            Some(Duration::ZERO)
        } else {
            let now = self.clock.read().now;
            self.machine
                .next_deadline()
                .into_iter()
                .chain(self.discovery.deadline())
                .min()
                .map(|deadline| deadline.saturating_sub(now))
        };
        let look = self.machine.fs.next_look();
        let look = look.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = [timeout, look, self.machine.journal().pause()];
        let timeout = timeout.into_iter().flatten().min();
        // It may take some milliseconds, which no client that waited for the recovery has to wait as well.
        if timeout != Some(Duration::ZERO) && std::mem::take(&mut self.has_spare_memory) {
            setup::give_back_memory();
        }
        let begun = Instant::now();
        loop {
            self.machine.probe.beat();
            self.mark();
            self.look_at_pair();
            self.observer.measure(&self.machine, &self.about);
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            let wait = left.unwrap_or(BEAT).min(BEAT);
            if self.poll(wait)? || left.is_some_and(|left| left <= wait) {
                return Ok(());
            }
        }
    }

    /// Publishes a digest now and then, by which the standby worker can check its state. Between two turns everything
    /// is committed.
    fn mark(&mut self) {
        let Some(page) = &self.worker.standby else {
            return;
        };
        if self.marks.are_due(self.clock.read().now) && page.standing().pid != 0 {
            page.set_mark(&self.marks.make(&self.machine));
        }
    }

    /// Waits at most this long; returns whether something has happened.
    fn poll(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [
            PollFd::from_borrowed_fd(self.tap.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.worker.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.machine.fs.watch_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.done_wake.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Updates the flag when the partner has joined, or is no longer in step.
    fn look_at_pair(&mut self) {
        let Some(page) = &self.worker.pair else {
            return;
        };
        if self.looked_at_pair.elapsed() < BEAT || self.end.is_some() {
            return;
        }
        self.looked_at_pair = Instant::now();
        let in_step = page.in_step();
        self.machine.set_flag(Company::Pair { in_step }.flag());
        // The service may have been elsewhere on the link, and a first announcement may be lost.
        if self.announced < ANNOUNCEMENTS
            && self.began.elapsed() >= ANNOUNCE_INTERVAL * (self.announced + 1)
        {
            self.announced += 1;
            let mut frames = self.machine.stack().announce();
            self.send(&mut frames);
        }
    }

    /// Sends frames, and releases what they hold of the log.
    fn send(&mut self, frames: &mut Vec<TxFrame>) {
        for frame in frames.drain(..) {
            self.observer.sent(&mut self.machine, &frame);
            // a frame the device did not take is a frame the network lost
            if let Err(error) = self.tap.send(&frame) {
                warn!("a frame of {} bytes was not sent: {error}", frame.len());
            }
        }
    }

    fn take_requests(&mut self) {
        // the eventfds only wake; how often they were written does not matter
        let _ = rustix::io::read(&self.worker.wake, &mut [0; 8]);
        let _ = rustix::io::read(&self.done_wake, &mut [0; 8]);
        while let Ok(ControlRequest { command, reply }) = self.worker.requests.try_recv() {
            let answer = self.answer(command);
            // the requester may have gone
            let _ = reply.send(answer);
        }
    }

    fn answer(&mut self, command: Command) -> Reply {
        let time = self.clock.read();
        let end = match command {
            Command::Status => {
                let uptime = self.clock.uptime(time);
                return Reply::Status(Box::new(status::status(&self.machine, &self.about, uptime)));
            }
            Command::Metrics | Command::Capture { .. } => {
                return Reply::Refused {
                    reason: "the loop is not asked this".to_owned(),
                };
            }
            Command::Disconnect { client_or_user } => {
                let connections = self.machine.disconnect(&client_or_user) as u64;
                return Reply::Disconnected { connections };
            }
            Command::Reboot { exec, hold_seconds } => {
                let Ok(hold) = Duration::try_from_secs_f64(hold_seconds) else {
                    return Reply::Refused {
                        reason: "--hold: not a number of seconds".to_owned(),
                    };
                };
                End::Reboot { exec, hold }
            }
            Command::RebootSystem => End::System,
            Command::Shutdown => End::Shutdown,
            Command::Stop => End::Stopped,
            Command::Takeover { .. } => match self.may_hand_over(false) {
                Ok(()) => End::HandedOver { is_return: false },
                Err(reason) => return Reply::Refused { reason },
            },
            Command::Giveback => match self.may_hand_over(true) {
                Ok(()) => End::HandedOver { is_return: true },
                Err(reason) => return Reply::Refused { reason },
            },
        };
        let is_handover = matches!(end, End::HandedOver { .. });
        if self.end.is_some() || (is_handover && self.transfer.is_some()) {
            return Reply::Refused {
                reason: "the server is already ending".to_owned(),
            };
        }
        let partner = self.machine.journal().partner();
        let is_elsewhere = partner.is_some_and(|partner| !partner.is_in_step());
        if is_handover && is_elsewhere {
            self.machine.want_partner(true);
            self.transfer = Some((end, Instant::now() + TRANSFER));
        } else {
            self.transfer = None;
            self.begin_end(end, time);
        }
        Reply::Accepted {
            epoch: self.machine.epoch(),
            supervisor_pid: self.worker.supervisor_pid,
        }
    }

    fn begin_end(&mut self, end: End, time: Time) {
        if end == End::Stopped {
            self.machine.begin_closing(time);
        } else {
            self.machine.begin_drain(time);
        }
        self.end = Some(end);
    }

    /// The state goes to the partner before the service does. If it cannot, the service stays.
    //= patent fig2-225
    fn continue_transfer(&mut self, time: Time) {
        let partner = self.machine.journal().partner();
        let is_there = partner.is_some_and(|partner| partner.is_in_step());
        match self.transfer.take() {
            Some((end, _)) if is_there => self.begin_end(end, time),
            Some((end, until)) if Instant::now() < until => self.transfer = Some((end, until)),
            Some(_) => {
                let limit = TRANSFER.as_secs();
                error!(
                    "the other node has not taken the state within {limit} s, so the service stays here; see \
                     `outlast status`"
                );
                self.machine.want_partner(false);
            }
            None => {}
        }
    }

    /// Returns whether there is a node that would take over.
    fn may_hand_over(&self, is_return: bool) -> Result<(), String> {
        let pair = self.worker.pair.as_ref().and_then(pair::page::Page::read);
        let Some(pair) = pair else {
            return Err("this server is alone: there is no [partner] in its configuration".into());
        };
        let partner = &pair.partner;
        // A cluster manager knows which nodes run, and may want none to serve.
        if !pair.partner_runs && !pair.by_order {
            return Err(format!(
                "node {partner} does not run: start its server first (outlast serve)"
            ));
        }
        if is_return && pair.taken_from.as_ref() != Some(partner) {
            return Err(format!(
                "node {} has not taken the service over from node {partner}: use `outlast takeover` to move it there",
                pair.node
            ));
        }
        Ok(())
    }

    /// Ends: saves the state and sets the flag.
    fn leave(mut self, end: End) -> End {
        //= patent fig2-217, fig2-223, claim-12
        let flag = match end {
            End::Stopped => Flag::Clean,
            End::HandedOver { .. } => Flag::ElectiveTakeover,
            End::Shutdown | End::System | End::Reboot { .. } => Flag::ElectiveReboot,
        };
        // From here on there are no turns, and everything waits for media.
        self.machine.probe.at_disk(true);
        // After these ends no server would redo what a power cut undoes.
        let machine_too = !matches!(end, End::Reboot { .. });
        let standby = self.worker.standby.as_ref().map(Page::standing);
        let is_followed = !machine_too && standby.is_some_and(|standing| standing.pid != 0);
        let time = self.clock.read();
        if end == End::Stopped {
            let mut frames = self.discovery.goodbye();
            self.send(&mut frames);
        }
        let mut frames = self.machine.save(time, flag, machine_too, is_followed);
        self.send(&mut frames);
        if let Some(log) = self.machine.journal().log() {
            info!("saved; flag {}", log.superblock().flag);
        }
        // The process ends next. Dropping the state piece by piece would keep the next one waiting.
        std::mem::forget(self.machine);
        end
    }
}
