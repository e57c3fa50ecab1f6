//! Runs the demonstration: one smbclient transfers the file repeatedly on one connection, while its server is killed.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use outlast::trace::picture::Gap;
use outlast::trace::{Connections, Picture, Silence, draw, words};

use crate::client::Client;
use crate::fault::{Fault, Server, counted, tally};
use crate::files;
use crate::keys::Keys;
use crate::local::LOGIN;
use crate::place::Place;
use crate::screen::Screen;
use crate::watch::Watch;

/// The shortest time between two faults of the script.
const INTERVAL: Duration = Duration::from_millis(1500);
/// The longest silence for the client after the server serves again: smbclient waits for two minutes.
const PATIENCE: Duration = Duration::from_secs(120);
/// At a terminal, the demonstration ends after this time without a key.
const KEYS_PATIENCE: Duration = Duration::from_secs(60);
/// The interval of checks.
const TICK: Duration = Duration::from_millis(20);
/// The part of a file after which a fault occurs.
const MIDDLE_PERCENT: RangeInclusive<u64> = 10..=60;
/// The number of names that the copies of the file have in turn.
const COPIES: usize = 2;

/// The transfer of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// It downloads the file.
    Get,
    /// It uploads it.
    Put,
}

/// The faults of the server, each with the client's transfer at that time.
pub type Script = [(Transfer, Fault)];

/// The script for a server of processes.
pub const OF_PROCESSES: [(Transfer, Fault); 6] = [
    (Transfer::Get, Fault::Kill),
    (Transfer::Get, Fault::Kill),
    (Transfer::Get, Fault::Reboot),
    (Transfer::Put, Fault::Upgrade),
    (Transfer::Put, Fault::Kill),
    (Transfer::Put, Fault::KillAll),
];
/// The script for a server that is a virtual machine.
pub const OF_MACHINE: [(Transfer, Fault); 4] = [
    (Transfer::Get, Fault::Kill),
    (Transfer::Get, Fault::Reboot),
    (Transfer::Put, Fault::Power),
    (Transfer::Put, Fault::Power),
];

/// The parameters of the demonstration.
pub struct Act<'a> {
    /// The server.
    pub server: Box<dyn Server>,
    /// The sentence that announces a fault, if it can occur.
    pub announcement: fn(Fault) -> Option<&'static str>,
    /// The device with its packets.
    pub device: &'a str,
    /// Its address.
    pub address: &'a str,
    /// The directory of the files.
    pub place: &'a Place,
    /// The faults of the server.
    pub script: &'a Script,
    /// The server's directory is this machine's, so that uploads can be compared.
    pub is_local: bool,
    /// The path of the picture; a PNG is written beside it.
    pub picture: PathBuf,
    /// The path of the capture.
    pub capture: Option<&'a Path>,
    /// The user has requested its end.
    pub ended: &'a AtomicBool,
}

/// The running demonstration.
struct Play<'a> {
    screen: &'a Screen,
    place: &'a Place,
    watch: &'a Watch,
    is_local: bool,
    client: Client,
    announcement: fn(Fault) -> Option<&'static str>,
    server: ServerThread,
    /// The fault in progress.
    fault: Option<FaultInProgress>,
    past_faults: Vec<PastFault>,
    /// The time at which the client continued after the last fault.
    calm_since: Instant,
    /// The present transfer, and the preceding one.
    transfer: Option<Transfer>,
    before: Option<Transfer>,
    /// The number of bytes that had passed when it began.
    bytes_before: u64,
    /// Transfers that are complete: downloads and uploads.
    complete: [usize; 2],
    /// The last upload, until it has been downloaded again, if that is how it is compared.
    uploaded: Option<String>,
    comparisons: VecDeque<JoinHandle<io::Result<bool>>>,
    is_well: bool,
}

struct FaultInProgress {
    fault: Fault,
    /// The time of its begin, since 1970.
    from: Duration,
    begun: Instant,
    /// The time at which the server served again, since 1970.
    back: Option<Duration>,
}

/// The thread that controls the server. It causes the faults while the client is checked; a machine ends with the
/// thread that started it.
struct ServerThread {
    orders: Sender<Fault>,
    reports: Receiver<anyhow::Result<Option<String>>>,
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl ServerThread {
    fn new(mut server: Box<dyn Server>) -> ServerThread {
        let (orders, taken) = mpsc::channel();
        let (report, reports) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            for fault in taken {
                // The receiver has ended if the demonstration has failed.
                let _ = report.send(server.cause(fault));
            }
            let lives = server.lives()?;
            server.stop().map(|()| lives)
        });
        ServerThread {
            orders,
            reports,
            thread,
        }
    }

    /// Ends the server; returns the number of its lives.
    fn finish(self) -> anyhow::Result<u64> {
        drop(self.orders);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(anyhow::anyhow!("the server could not be ended")))
    }
}

/// A fault, and how long the client received nothing.
struct PastFault {
    fault: Fault,
    silence: Option<Silence>,
}

fn now() -> Duration {
    // A clock before 1970 gives pictures without labels, and no more.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

impl Act<'_> {
    /// Runs it; returns whether everything was correct.
    ///
    /// # Errors
    /// It cannot continue.
    pub fn play(self, screen: &Screen) -> anyhow::Result<bool> {
        let keys = Keys::new();
        let watch = Watch::start(self.device, self.capture, screen.live())?;
        screen.say(&format!(
            "Outlast serves {}:445. One smbclient transfers a file of {} again and again, on one connection.",
            self.address,
            words::bytes(self.place.bytes)
        ));
        if keys.are_there() {
            screen.say(&format!("Keys: {}, q to end.", keys_of(self.announcement)));
        }
        let mut play = Play {
            screen,
            place: self.place,
            watch: &watch,
            is_local: self.is_local,
            client: Client::start(self.address, LOGIN, &self.place.client(), None)?,
            announcement: self.announcement,
            server: ServerThread::new(self.server),
            fault: None,
            past_faults: Vec::new(),
            calm_since: Instant::now(),
            transfer: None,
            before: None,
            bytes_before: 0,
            complete: [0; 2],
            uploaded: None,
            comparisons: VecDeque::new(),
            is_well: true,
        };
        play.perform(self.script, &keys, self.ended)?;
        let Play {
            client,
            server,
            past_faults,
            mut is_well,
            complete,
            ..
        } = play.compared()?;
        is_well &= finish(client, complete, screen)?;
        let lives = server.finish()?;
        let (connections, missed) = watch.finish()?;
        is_well &= judge(&connections, missed, screen);
        is_well &= count(&past_faults, lives, screen);
        picture(&connections, &past_faults, lives, &self.picture, screen)?;
        Ok(is_well)
    }
}

/// Describes the keys.
fn keys_of(announcement: fn(Fault) -> Option<&'static str>) -> String {
    let keys = ['k', 'r', 'u', 'p'].into_iter();
    let named = keys.filter_map(|key| Fault::of_key(key).map(|fault| (key, fault)));
    let possible = named.filter(|(_, fault)| announcement(*fault).is_some());
    let names: Vec<String> = possible
        .map(|(key, fault)| format!("{key} {}", fault.label()))
        .collect();
    names.join(", ")
}

impl Play<'_> {
    fn perform(&mut self, script: &Script, keys: &Keys, ended: &AtomicBool) -> anyhow::Result<()> {
        let mut script: VecDeque<(Transfer, Fault)> = script.iter().copied().collect();
        let mut keys_until = None;
        let mut is_over = false;
        let mut pressed = None;
        loop {
            if ended.load(Ordering::SeqCst) {
                bail!("ended by a signal");
            }
            let wanted = script.front().map(|(transfer, _)| *transfer);
            let is_idle = self.client()?;
            let is_free = self.check_fault()?;
            match (is_idle, is_over && is_free, &self.uploaded) {
                (false, ..) => {}
                (true, false, _) => self.ask(wanted)?,
                (true, true, Some(_)) => self.ask(Some(Transfer::Get))?,
                (true, true, None) => return Ok(()),
            }
            let key = keys.next(TICK);
            if key.is_some_and(|key| matches!(key, 'q' | 'Q' | '\x1b' | '\x04')) {
                script.clear();
                is_over = true;
            }
            pressed = key.and_then(Fault::of_key).or(pressed);
            if pressed.is_some() {
                keys_until = Some(Instant::now() + KEYS_PATIENCE);
            }
            if !is_free || is_over {
                continue;
            }
            let is_time = self.is_in_the_middle() && self.calm_since.elapsed() >= INTERVAL;
            if let Some(fault) = pressed.take_if(|_| self.is_in_the_middle()) {
                self.cause(fault)?;
            } else if is_time && self.transfer == wanted {
                if let Some((_, fault)) = script.pop_front() {
                    self.cause(fault)?;
                }
            } else if script.is_empty() && pressed.is_none() {
                is_over = !keys.are_there() || self.turn_is_over(&mut keys_until);
            } else if self.calm_since.elapsed() > PATIENCE {
                bail!(
                    "the transfers do not continue; the file may be too small for this machine's speed"
                );
            }
        }
    }

    /// Returns whether no key was pressed for too long.
    fn turn_is_over(&self, keys_until: &mut Option<Instant>) -> bool {
        let until = keys_until.get_or_insert_with(|| {
            let seconds = KEYS_PATIENCE.as_secs();
            let text = "Your turn: keys as above; it ends";
            self.screen
                .say(&format!("{text} {seconds} s after the last one."));
            Instant::now() + KEYS_PATIENCE
        });
        Instant::now() >= *until
    }

    /// Returns whether the client is in the middle of a transfer. At its ends it may not wait for the server.
    fn is_in_the_middle(&self) -> bool {
        let percent = (self.watch.bytes() - self.bytes_before) * 100 / self.place.bytes;
        self.transfer.is_some() && MIDDLE_PERCENT.contains(&percent)
    }

    /// Checks the client, compares its transfers, and returns whether it is idle.
    fn client(&mut self) -> anyhow::Result<bool> {
        if let Some(status) = self.client.ended()? {
            bail!("smbclient ended ({status}): {}", self.client.last_line());
        }
        if let Some(error) = self.client.error() {
            bail!("smbclient: {error}");
        }
        let is_complete = self.client.is_complete();
        if is_complete && let Some(transfer) = self.transfer.take() {
            self.before = Some(transfer);
            self.compare(transfer)?;
        }
        Ok(is_complete)
    }

    /// Lets the client begin the next transfer, when the preceding one is complete.
    fn ask(&mut self, wanted: Option<Transfer>) -> anyhow::Result<()> {
        // The comparison of the copy that is overwritten now must be over.
        while self.comparisons.len() >= COPIES
            && let Some(before) = self.comparisons.pop_front()
        {
            self.note(before)?;
        }
        // Without a script it alternates between both.
        let transfer = wanted.unwrap_or(match self.before {
            Some(Transfer::Get) => Transfer::Put,
            _ => Transfer::Get,
        });
        self.transfer = Some(transfer);
        self.bytes_before = self.watch.bytes();
        let name = self.name(transfer);
        let command = match transfer {
            Transfer::Get => {
                let remote = self.uploaded.take().unwrap_or("big".to_owned());
                format!("get {remote} {name}")
            }
            Transfer::Put => format!("put {} {name}", self.place.source().display()),
        };
        self.client.ask(&command)
    }

    /// The name of the copy that is made now.
    fn name(&self, transfer: Transfer) -> String {
        let number = self.complete[transfer as usize] % COPIES;
        match transfer {
            Transfer::Get => format!("copy-{number}"),
            Transfer::Put => format!("back-{number}"),
        }
    }

    /// Compares the last transferred file.
    fn compare(&mut self, transfer: Transfer) -> anyhow::Result<()> {
        let name = self.name(transfer);
        self.complete[transfer as usize] += 1;
        let copy = match transfer {
            Transfer::Get => self.place.client().join(name),
            Transfer::Put if self.is_local => self.place.share().join(name),
            Transfer::Put => {
                self.uploaded = Some(name);
                return Ok(());
            }
        };
        let comparison = files::compare(&self.place.source(), &copy);
        self.comparisons.push_back(comparison);
        Ok(())
    }

    fn note(&mut self, comparison: JoinHandle<io::Result<bool>>) -> anyhow::Result<()> {
        let are_equal = comparison
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        if !are_equal.context("a copy cannot be compared")? {
            self.screen.bad("a copy differs from the file");
            self.is_well = false;
        }
        Ok(())
    }

    /// Waits for the comparisons in progress.
    fn compared(mut self) -> anyhow::Result<Self> {
        for comparison in std::mem::take(&mut self.comparisons) {
            self.note(comparison)?;
        }
        Ok(self)
    }

    fn cause(&mut self, fault: Fault) -> anyhow::Result<()> {
        // Some keys are only for some servers.
        let Some(announcement) = (self.announcement)(fault) else {
            return Ok(());
        };
        self.screen.fault(&format!("✗ {announcement}"));
        self.watch.mark();
        self.fault = Some(FaultInProgress {
            fault,
            from: now(),
            begun: Instant::now(),
            back: None,
        });
        self.server.orders.send(fault).context("the server is gone")
    }

    /// Checks the fault in progress; returns whether there is none.
    fn check_fault(&mut self) -> anyhow::Result<bool> {
        let Some(in_progress) = &mut self.fault else {
            return Ok(true);
        };
        match self.server.reports.try_recv() {
            Ok(report) => {
                if let Some(note) = report? {
                    self.screen.say(&format!("  {note}"));
                }
                in_progress.back = Some(now());
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => bail!("the server is gone"),
        }
        let Some(back) = in_progress.back else {
            return Ok(false);
        };
        let (from, fault) = (in_progress.from, in_progress.fault);
        let look = |one: &outlast::trace::Connection| {
            let continues = one.last_progress().is_some_and(|at| at > back);
            (continues, one.longest_silence_after(from))
        };
        match self.watch.latest(look) {
            Some((true, silence)) => {
                self.fault = None;
                self.calm_since = Instant::now();
                self.report(fault, silence);
                Ok(true)
            }
            _ if in_progress.begun.elapsed() > PATIENCE => {
                bail!("the client does not continue after the server is back")
            }
            _ => Ok(false),
        }
    }

    fn report(&mut self, fault: Fault, silence: Option<Silence>) {
        match silence {
            Some(silence) => self.screen.say(&format!(
                "  the client received nothing for {}, and continued",
                words::duration(silence.length())
            )),
            None => self.screen.say("  the client noticed nothing"),
        }
        self.past_faults.push(PastFault { fault, silence });
    }
}

/// Ends the client, and checks its output.
fn finish(client: Client, complete: [usize; 2], screen: &Screen) -> anyhow::Result<bool> {
    let (status, text) = client.finish(PATIENCE)?;
    let is_well = status.success() && !text.contains("NT_STATUS");
    let [gets, puts] = complete;
    match is_well {
        true => screen.good(&format!(
            "smbclient: exit 0 after {} and {}; each copy was compared",
            counted(gets, "download", "downloads"),
            counted(puts, "upload", "uploads"),
        )),
        false => screen.bad(&format!("smbclient: {status}")),
    }
    Ok(is_well)
}

/// Judges the packets.
fn judge(connections: &Connections, missed: u32, screen: &Screen) -> bool {
    let all: Vec<_> = connections
        .all()
        .iter()
        .filter(|one| one.server.port() == 445)
        .collect();
    let syns: usize = all.iter().map(|one| one.syns()).sum();
    let resets = all.iter().filter(|one| one.was_reset()).count();
    let is_well = (all.len(), syns, resets) == (1, 1, 0);
    let bytes = words::bytes(all.iter().map(|one| one.bytes()).sum());
    match is_well {
        true => screen.good(&format!(
            "on the wire: {bytes}, 1 connection, 1 SYN, no RST"
        )),
        false => screen.bad(&format!(
            "on the wire: {bytes}, {} connections, {syns} SYNs, {resets} reset",
            all.len()
        )),
    }
    if missed > 0 {
        screen.say(&format!(
            "{missed} frames were not captured: the machine is too busy"
        ));
    }
    is_well
}

/// Checks that each fault ended one life of the server, and that no life ended otherwise.
fn count(past_faults: &[PastFault], lives: u64, screen: &Screen) -> bool {
    let faults: Vec<Fault> = past_faults.iter().map(|one| one.fault).collect();
    let is_well = lives == faults.len() as u64 + 1;
    let silences = past_faults.iter().filter_map(|one| one.silence);
    let lengths = silences.map(|silence| silence.length());
    let range = lengths.clone().min().zip(lengths.max());
    match is_well {
        true => screen.good(&format!("{lives} lives of the server: {}", tally(&faults))),
        false => screen.bad(&format!(
            "the server is in life {lives} after {}: it has also crashed by itself",
            tally(&faults)
        )),
    }
    if let Some((least, most)) = range {
        let (least, most) = (words::duration(least), words::duration(most));
        screen.good(&format!(
            "the client received nothing for {least} to {most} each time, and nothing else \
            happened to it"
        ));
    }
    is_well
}

fn picture(
    connections: &Connections,
    past_faults: &[PastFault],
    lives: u64,
    path: &Path,
    screen: &Screen,
) -> anyhow::Result<()> {
    let gap = |one: &PastFault| {
        Some(Gap {
            silence: one.silence?,
            cause: Some(one.fault.label().to_owned()),
        })
    };
    let gaps: Vec<Gap> = past_faults.iter().filter_map(gap).collect();
    let title = format!("One TCP connection through {lives} lives of its server");
    let chosen = connections.busiest(Some(445));
    let picture = Picture::of(&title, &chosen, &gaps).context("nothing was captured")?;
    save(&picture, path, screen)
}

/// Writes a picture in both formats, and shows its path.
///
/// # Errors
/// It cannot be written.
pub fn save(picture: &Picture, path: &Path, screen: &Screen) -> anyhow::Result<()> {
    let png = path.with_extension("png");
    draw::save(picture, path)?;
    draw::save(picture, &png)?;
    screen.say(&format!(
        "the picture: {} and {}",
        path.display(),
        png.display()
    ));
    Ok(())
}
