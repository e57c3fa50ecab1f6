//! Measures from a capture how long a client receives nothing when a service moves to the other node of a pair.
//!
//!   cargo bench --bench takeover -- [--quick] [--events N] [--warm SECONDS] [--show]
//!       [--arbiter lock|etcd] [--event planned|kill]... [--load idle|small|download|upload]...
//!
//! `scripts/bench --takeover` builds and runs it. Both nodes are on this machine, each with a TAP on one bridge, and
//! share NVRAM, lock and files. Each row is one kind of event, N times (default 100), from the node that serves to the
//! other one and back: `outlast takeover`, or kill -9 of every process of the node. With `--arbiter etcd` a real etcd
//! with TLS admits the nodes, by leases of 2 s: there the other node detects a crash when the lease has ended.
//!
//! The silence is measured as `--return` does (tests/bench/return/main.rs): the longest time between two segments with
//! progress, as the client's side of the bridge sees them; of an idle client, between an ECHO that it sends just after
//! the event and the answer.

#[path = "../../support/mod.rs"]
mod support;

#[path = "../return/load.rs"]
mod load;
#[path = "../return/measured.rs"]
mod measured;
#[path = "../return/silence.rs"]
mod silence;

use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::time::Duration;

use load::{FILE_BYTES, Load};
use measured::{Meanwhile, Moments, Row, TRIES, member, now, pause, text, warm_up};
use outlast::control::{self, Command, Reply};
use rustix::process::Signal;
use support::client::SMB3_1_1;
use support::etcd::Etcd;
use support::lab::Lab;
use support::pair::{Pair, signal};
use support::raw::{Client, FileId};
use support::timeline::Timeline;
use support::{PATIENCE, Rng, can_run, etcd, files, wait_for};

const LEASE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Planned,
    Kill,
}

/// The options of the command line.
#[derive(Debug)]
struct Wanted {
    number: usize,
    warm: Duration,
    show: bool,
    by_etcd: bool,
    events: Vec<Event>,
    loads: Vec<Load>,
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!("takeover: {problem}");
            return ExitCode::from(2);
        }
    };
    let name = "the benchmark takeover";
    if !can_run(name) || wanted.by_etcd && !etcd::can_run(name) {
        return ExitCode::FAILURE;
    }
    measure(&wanted)
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        number: 100,
        warm: Duration::from_secs(5),
        show: false,
        by_etcd: false,
        events: Vec::new(),
        loads: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        let number = |text: String| match text.parse() {
            Ok(number @ 1..=65_536_u32) => Ok(number),
            _ => Err(format!(
                "{argument}: {text:?} is not a number of 1 to 65536"
            )),
        };
        match argument.as_str() {
            // cargo passes this to every benchmark
            "--bench" => {}
            "--quick" => (wanted.number, wanted.warm) = (5, Duration::from_secs(1)),
            "--show" => wanted.show = true,
            "--events" => wanted.number = number(value())? as usize,
            "--warm" => wanted.warm = Duration::from_secs(number(value())?.into()),
            "--arbiter" => match value().as_str() {
                "lock" => wanted.by_etcd = false,
                "etcd" => wanted.by_etcd = true,
                _ => return Err("--arbiter: lock or etcd".to_owned()),
            },
            "--event" => wanted.events.push(match value().as_str() {
                "planned" => Event::Planned,
                "kill" => Event::Kill,
                _ => return Err("--event: planned or kill".to_owned()),
            }),
            "--load" => wanted.loads.push(match value().as_str() {
                "idle" => Load::Idle,
                "small" => Load::Small,
                "download" => Load::Download,
                "upload" => Load::Upload,
                _ => return Err("--load: idle, small, download or upload".to_owned()),
            }),
            _ => return Err(format!("there is no option {argument:?}")),
        }
    }
    if wanted.events.is_empty() {
        wanted.events = vec![Event::Planned, Event::Kill];
    }
    if wanted.loads.is_empty() {
        wanted.loads = Load::ALL.to_vec();
    }
    Ok(wanted)
}

fn measure(wanted: &Wanted) -> ExitCode {
    let mut scene = Scene::new(wanted);
    let mut failed = false;
    println!(
        "Silence of the service as a client sees it, ms; {} events a row",
        wanted.number
    );
    println!("| event   | load           | median |    p99 |    max |");
    println!("|---------|----------------|-------:|-------:|-------:|");
    for load in &wanted.loads {
        for event in &wanted.events {
            let name = format!("{event:?}").to_lowercase();
            match scene.row(*load, *event, wanted) {
                Ok([median, p99, max]) => {
                    println!("| {name:7} | {load:14} | {median:>6.1} | {p99:>6.1} | {max:>6.1} |");
                }
                Err(problem) => {
                    println!("| {name:7} | {load:14} | failed: {problem}");
                    failed = true;
                    // its connection has ended
                    scene.measured = None;
                }
            }
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The pair and its client.
struct Scene {
    /// The client with its file open, while no load has it.
    measured: Option<(Client, FileId)>,
    rng: Rng,
    timeline: Timeline,
    /// The serving node.
    serving: usize,
    // dropped last
    pair: Pair,
    _etcd: Option<Etcd>,
}

impl Scene {
    fn new(wanted: &Wanted) -> Scene {
        let (pair, etcd) = match wanted.by_etcd {
            false => (Pair::start(SMB3_1_1, ""), None),
            true => {
                let lab = Lab::new();
                lab.bridge();
                let etcd = Etcd::start(&lab.make_dir("arbiter"));
                let pair = Pair::on(lab, SMB3_1_1, &etcd.section(LEASE), "");
                (pair.started(), Some(etcd))
            }
        };
        let big = pair.servers[0].share().join("big");
        files::random_file(&big, FILE_BYTES, &mut Rng::named("big"));
        // for guests, too
        let mode = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&big, mode).expect("the file's mode");
        let measured = warm_up(alone(), wanted.warm).expect("small requests");
        Scene {
            measured: Some(measured),
            rng: Rng::named("takeover"),
            timeline: Timeline::start(),
            serving: 0,
            pair,
            _etcd: etcd,
        }
    }

    /// One row of the table: median, 99th percentile, maximum.
    fn row(&mut self, load: Load, event: Event, wanted: &Wanted) -> Result<[f64; 3], String> {
        let (client, file) = self.measured.take().unwrap_or_else(alone);
        let port = client.stream.local_addr().map_err(text)?.port();
        let mut client = Meanwhile::begin(load, client, file);
        let mut row = Row::new(load, port);
        for _ in 0..TRIES * wanted.number {
            if row.len() == wanted.number {
                break;
            }
            self.await_partner();
            // each event's capture begins with a client that is being served
            self.timeline.take();
            pause(&mut self.rng);
            let processes = self.pair.processes(self.serving);
            let began = now();
            self.provoke(event, &processes)?;
            let asked = now();
            self.see_it_progress(&mut client, port)?;
            // events some time after the return are captured, too
            pause(&mut self.rng);
            let frames = self.timeline.take();
            let is_whole = self.timeline.missed() == 0;
            self.restore(event);
            if is_whole {
                row.add(&frames, &Moments { began, asked })?;
            }
        }
        let row = row.finish(wanted.number, wanted.show)?;
        self.measured = Some((client.end().map_err(text)?, file));
        Ok(row)
    }

    /// Waits until the other node could take over at once: its standby worker has read the whole log.
    fn await_partner(&self) {
        self.pair.wait_until_in_step(self.serving);
        wait_for("a worker to stand by", PATIENCE, || {
            let status = self.pair.servers[1 - self.serving].any_status()?;
            status.standby.filter(|standby| standby.lag_bytes < 1 << 20)
        });
    }

    fn provoke(&self, event: Event, processes: &[u32]) -> Result<(), String> {
        match event {
            Event::Planned => {
                let socket = self.pair.servers[self.serving].control();
                let command = Command::Takeover { force: false };
                match control::client::request(socket, &command, PATIENCE) {
                    Ok(Reply::Accepted { .. }) => Ok(()),
                    Ok(reply) => Err(format!("takeover: {reply:?}")),
                    Err(error) => Err(format!("takeover: {error}")),
                }
            }
            Event::Kill => {
                signal(processes, Signal::KILL);
                Ok(())
            }
        }
    }

    /// Waits until the other node serves, and the client progresses.
    fn see_it_progress(&mut self, client: &mut Meanwhile, port: u16) -> Result<(), String> {
        client.ask()?;
        self.pair.wait_until_serving(1 - self.serving);
        client.wait_for_progress(&self.timeline, port, now())
    }

    /// Waits until the node that ended is on standby again.
    fn restore(&mut self, event: Event) {
        if event == Event::Kill {
            let server = &mut self.pair.servers[self.serving];
            server.reap();
            server.start_again();
        }
        self.serving = 1 - self.serving;
    }
}

/// A client with that file alone.
fn alone() -> (Client, FileId) {
    member(std::iter::empty())
}
