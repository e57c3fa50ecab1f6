//! Measures how long a client receives nothing when the server dies or reboots, from a capture.
//!
//!   cargo bench --bench return -- [--quick] [--events N] [--warm SECONDS] [--show]
//!       [--event kill|reboot|exec]... [--load idle|small|download|upload]... [--nvram MIB]... [--connections N]...
//!
//! Ten thousand connections need `--nvram 2048`: their state is that of one account, which has a twentieth of it.
//! `scripts/bench --return` builds and runs it. Each row is one kind of event, N times (default 100): kill -9 of the
//! worker, `outlast reboot`, or `outlast reboot --exec` of the same binary. One client has the load; the other
//! connections have ten files open each and send nothing. Before the first row of a server the client makes small
//! requests for some seconds (default 15), so that the log has a past to replay.
//!
//! The silence is what the client's side of the TAP sees, by the kernel's time stamps. It is the longest time between
//! two segments of the server that go on: that carry bytes never sent before, or, when the client uploads, acknowledge
//! bytes not acknowledged before. The client waits for the server all that time, because it has always a request on its
//! way. When it is idle, it sends an ECHO just after the event, and the silence is the time between that request, be it
//! on the wire or not, and its answer. A silence counts for the event before its end, so that one that comes some time
//! after the return counts, too. "Supervisor": the time that the supervisor reports between the two workers.
//!
//! The last columns: the memory of the worker that stands by, and the most that it was behind before an event.
//!
//! `--show` prints the frames of the longest silence of each row.

#[path = "../../support/mod.rs"]
mod support;

mod load;
mod measured;
mod silence;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::time::Duration;

use load::{FILE_BYTES, Load};
use measured::{Meanwhile, Moments, Row, TRIES, member, now, pause, statistics, text, warm_up};
use outlast::control::{self, Command, Reply, StandbyStatus};
use rustix::process::{Resource, getrlimit, setrlimit};
use support::lab::Lab;
use support::raw::{Client, FileId};
use support::server::{Server, Setup};
use support::timeline::Timeline;
use support::{PATIENCE, Rng, files, has, wait_for};

/// The number of open files of each connection.
const OPENS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Kill,
    Reboot,
    Exec,
}

/// The options of the command line.
#[derive(Debug)]
struct Wanted {
    number: usize,
    warm: Duration,
    show: bool,
    events: Vec<Event>,
    loads: Vec<Load>,
    nvram_mib: Vec<u32>,
    connections: Vec<usize>,
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!("return: {problem}");
            return ExitCode::from(2);
        }
    };
    let root = rustix::process::geteuid().is_root();
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let needs = [
        (root, "root, or a user namespace (unshare -Urnm)"),
        (tun.is_ok(), "/dev/net/tun, to be read and written"),
    ];
    if !has("the benchmark return", &needs) {
        return ExitCode::FAILURE;
    }
    // A socket for each connection here, a descriptor for each open there; the server inherits the limit.
    let mut limit = getrlimit(Resource::Nofile);
    let most = wanted.connections.iter().max().unwrap_or(&0) * OPENS + 1024;
    limit.maximum = limit.maximum.map(|maximum| maximum.max(most as u64));
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        // Not permitted here: as many as possible.
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
    measure(&wanted)
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        number: 100,
        warm: Duration::from_secs(15),
        show: false,
        events: Vec::new(),
        loads: Vec::new(),
        nvram_mib: Vec::new(),
        connections: Vec::new(),
    };
    let mut all_nvram_mib: &[u32] = &[256, 1024];
    let mut all_connections: &[usize] = &[1, 100, 1000];
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        let number = |text: String| match text.parse() {
            Ok(number @ 1..=65_536) => Ok(number),
            _ => Err(format!(
                "{argument}: {text:?} is not a number of 1 to 65536"
            )),
        };
        match argument.as_str() {
            // an option that cargo passes to every benchmark
            "--bench" => {}
            "--quick" => {
                (wanted.number, wanted.warm) = (5, Duration::from_secs(1));
                (all_nvram_mib, all_connections) = (&[256], &[1, 100]);
            }
            "--show" => wanted.show = true,
            "--events" => wanted.number = number(value())? as usize,
            "--warm" => wanted.warm = Duration::from_secs(number(value())?.into()),
            "--nvram" => wanted.nvram_mib.push(number(value())?),
            "--connections" => wanted.connections.push(number(value())? as usize),
            "--event" => wanted.events.push(match value().as_str() {
                "kill" => Event::Kill,
                "reboot" => Event::Reboot,
                "exec" => Event::Exec,
                _ => return Err("--event: kill, reboot or exec".to_owned()),
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
    fn or<T: Clone>(list: &mut Vec<T>, all: &[T]) {
        if list.is_empty() {
            list.extend_from_slice(all);
        }
    }
    or(
        &mut wanted.events,
        &[Event::Kill, Event::Reboot, Event::Exec],
    );
    or(&mut wanted.loads, &Load::ALL);
    or(&mut wanted.nvram_mib, all_nvram_mib);
    or(&mut wanted.connections, all_connections);
    Ok(wanted)
}

fn measure(wanted: &Wanted) -> ExitCode {
    let lab = Lab::new();
    let mut failed = false;
    println!(
        "Silence of the server as a client sees it, ms; {} events a row",
        wanted.number
    );
    println!(
        "| event  | load           | NVRAM MiB | connections | median |    p99 |    max | supervisor median |    p99 \
         |    max | standby MiB | lag KiB |"
    );
    println!(
        "|--------|----------------|----------:|------------:|-------:|-------:|-------:|------------------:|-------:\
         |-------:|------------:|--------:|"
    );
    for nvram_mib in &wanted.nvram_mib {
        for connections in &wanted.connections {
            let mut scene = Scene::new(&lab, *nvram_mib, *connections, wanted.warm);
            for load in &wanted.loads {
                for event in &wanted.events {
                    let begin = format!(
                        "| {:6} | {load:14} | {nvram_mib:>9} | {connections:>11} |",
                        format!("{event:?}").to_lowercase()
                    );
                    match scene.row(*load, *event, wanted) {
                        Ok(row) => println!("{begin}{row}"),
                        Err(problem) => {
                            println!("{begin} failed: {problem}");
                            failed = true;
                            // its connection has ended
                            scene.measured = None;
                        }
                    }
                }
            }
            drop(scene);
            for file in ["nvram", "server.log"] {
                std::fs::remove_file(lab.path(file)).expect("what it leaves");
            }
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// A server and its clients.
struct Scene<'a> {
    lab: &'a Lab,
    /// The measured client, with its open file, while no load uses it.
    measured: Option<(Client, FileId)>,
    /// The other clients, with their open files.
    _crowd: Vec<Client>,
    rng: Rng,
    timeline: Timeline,
    reports: Reports,
    // dropped last
    server: Server,
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, nvram_mib: u32, connections: usize, warm: Duration) -> Scene<'a> {
        let setup = Setup {
            share: "guest = true".to_owned(),
            nvram_size: Box::leak(format!("{nvram_mib}MiB").into_boxed_str()),
            more: format!(
                "[limits]\nmax_connections = {}\nmax_opens = {}\n",
                1024.max(connections + connections / 8),
                65_536.max(2 * connections * OPENS),
            ),
            ..Setup::default()
        };
        let server = Server::start(lab, setup);
        let big = server.share().join("big");
        if !big.exists() {
            files::random_file(&big, FILE_BYTES, &mut Rng::named("big"));
            // for guests, too
            let mode = std::fs::Permissions::from_mode(0o666);
            std::fs::set_permissions(&big, mode).expect("the file's mode");
        }
        let crowd = (1..connections)
            .map(|number| one_of_many(number).0)
            .collect();
        let measured = warm_up(one_of_many(0), warm).expect("small requests");
        Scene {
            lab,
            measured: Some(measured),
            _crowd: crowd,
            rng: Rng::named("return"),
            timeline: Timeline::start(),
            reports: Reports::of(lab),
            server,
        }
    }

    /// Measures one row of the table.
    fn row(&mut self, load: Load, event: Event, wanted: &Wanted) -> Result<String, String> {
        let (client, file) = self.measured.take().unwrap_or_else(|| one_of_many(0));
        let port = client.stream.local_addr().map_err(text)?.port();
        let mut client = Meanwhile::begin(load, client, file);
        let (mut row, mut reported) = (Row::new(load, port), Vec::new());
        let (mut memory, mut lag) = (0, 0);
        for _ in 0..TRIES * wanted.number {
            if row.len() == wanted.number {
                break;
            }
            // each event's capture begins with a client that is being served
            self.timeline.take();
            pause(&mut self.rng);
            let standby = self.await_standby();
            memory = standby.memory_bytes.max(memory);
            lag = standby.lag_bytes.max(lag);
            let began = now();
            self.provoke(event)?;
            let asked = now();
            let away = self.return_of(&mut client, port)?;
            // a silence some time after the return is included
            pause(&mut self.rng);
            let frames = self.timeline.take();
            if self.timeline.missed() == 0 {
                row.add(&frames, &Moments { began, asked })?;
                reported.push(away);
            }
        }
        let [median, p99, max] = row.finish(wanted.number, wanted.show)?;
        self.measured = Some((client.end().map_err(text)?, file));
        let [away, away_p99, away_max] = statistics(reported);
        Ok(format!(
            " {median:>6.1} | {p99:>6.1} | {max:>6.1} | {away:>17.1} | {away_p99:>6.1} | {away_max:>6.1} | {:>11} | \
             {:>7} |",
            memory >> 20,
            lag >> 10,
        ))
    }

    /// Waits until the next worker serves and the client progresses; returns the supervisor's figure, ms.
    fn return_of(&mut self, client: &mut Meanwhile, port: u16) -> Result<f64, String> {
        client.ask()?;
        let away = wait_for("the next worker", PATIENCE, || self.reports.next());
        client.wait_for_progress(&self.timeline, port, now())?;
        Ok(away)
    }

    /// Waits for a standby worker that has read the log: in practice events are far apart.
    fn await_standby(&self) -> StandbyStatus {
        wait_for("a worker to stand by", PATIENCE, || {
            self.server.try_status()?.standby
        })
    }

    fn provoke(&self, event: Event) -> Result<(), String> {
        match event {
            Event::Kill => {
                self.server.kill_worker(self.reports.worker);
                Ok(())
            }
            Event::Reboot | Event::Exec => {
                let exec = (event == Event::Exec).then(|| env!("CARGO_BIN_EXE_outlast").into());
                let command = Command::Reboot {
                    exec,
                    hold_seconds: 0.0,
                };
                let socket = self.lab.path("control.sock");
                match control::client::request(&socket, &command, PATIENCE) {
                    Ok(Reply::Accepted { .. }) => Ok(()),
                    Ok(reply) => Err(format!("reboot: {reply:?}")),
                    Err(error) => Err(format!("reboot: {error}")),
                }
            }
        }
    }
}

/// The supervisor's reports in the log.
struct Reports {
    log: File,
    unread: Vec<u8>,
    /// The serving worker.
    worker: u32,
}

impl Reports {
    fn of(lab: &Lab) -> Reports {
        let log = File::open(lab.path("server.log")).expect("the server's log");
        let mut reports = Reports {
            log,
            unread: Vec::new(),
            worker: 0,
        };
        wait_for("the first worker", PATIENCE, || {
            reports.next();
            (reports.worker > 0).then_some(())
        });
        reports
    }

    /// The length of the outage, ms, if another worker has begun to serve since the last call.
    fn next(&mut self) -> Option<f64> {
        self.log.read_to_end(&mut self.unread).expect("the log");
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            // worker N serves, epoch E; away for T ms
            let Some((worker, rest)) = line
                .rsplit_once("worker ")
                .and_then(|(_, rest)| rest.split_once(" serves, epoch "))
            else {
                continue;
            };
            self.worker = worker.parse().expect("a process id");
            if let Some((_, away)) = rest.split_once("away for ") {
                let away = away.split(' ').next().and_then(|ms| ms.parse().ok());
                return Some(away.expect("milliseconds"));
            }
        }
        None
    }
}

/// A client with as many open files as each has.
fn one_of_many(number: usize) -> (Client, FileId) {
    member((1..OPENS).map(|file| format!("{number} {file}")))
}
