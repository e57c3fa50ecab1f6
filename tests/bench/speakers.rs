//! Stops processes of a real pair and cuts its links, and checks that two of its nodes never send at the same time.
//!
//!   cargo bench --bench speakers -- [--rounds N] [--minutes M] [--seed S] [--arbiter lock|etcd]
//!
//! `scripts/soak --pair` builds and runs it. Half of the rounds (default 1,000) use a pair with the arbiter `lock`,
//! half one with a real etcd and leases of 2 s, if it is installed. In each round the serving node has one of these
//! faults, for a time drawn from the seed:
//!
//! * SIGSTOP, then SIGCONT, of all its processes, of its supervisor alone, or of its worker alone;
//! * its link to the clients is down, then up;
//! * with etcd: it does not reach etcd, or no node does (every connection to it stands still);
//! * occasionally kill -9 of all its processes, or `outlast takeover`, so that each node serves.
//!
//! Ended processes are started again. A client makes small requests on one connection all the time. Every frame from
//! the service's MAC address is recorded with its TAP. Successive holders send in turns, and each turn begins with the
//! arbiter's record of another holder; nodes that send at the same time cause more turns than holders. This excess is
//! counted.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::client::SMB3_1_1;
use support::etcd::Etcd;
use support::lab::{Lab, run};
use support::pair::{Pair, signal};
use support::raw::{self, Client};
use support::server::has_ended;
use support::speakers::Speakers;
use support::{PATIENCE, Rng, can_run, etcd, wait_for};

const LEASE: Duration = Duration::from_secs(2);
const TAPS: [&str; 2] = ["tap0", "tap1"];

#[derive(Debug)]
struct Wanted {
    rounds: u32,
    minutes: u32,
    seed: u64,
    /// `None`: both.
    by_etcd: Option<bool>,
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!("speakers: {problem}");
            return ExitCode::from(2);
        }
    };
    if !can_run("the soak of a pair") {
        return ExitCode::FAILURE;
    }
    let has_etcd = etcd::can_run("the soak of a pair by etcd");
    let all: &[bool] = if has_etcd { &[false, true] } else { &[false] };
    let kinds: Vec<bool> = all
        .iter()
        .copied()
        .filter(|by_etcd| wanted.by_etcd.is_none_or(|wanted| wanted == *by_etcd))
        .collect();
    println!("| arbiter | rounds | by kind | holders | nodes that ended | frames | two speakers |");
    println!("|---------|-------:|---------|--------:|-----------------:|-------:|-------------:|");
    let mut excess = 0;
    for by_etcd in &kinds {
        let share = kinds.len() as u32;
        let until = Instant::now() + Duration::from_secs(60) * wanted.minutes / share;
        let (by_etcd, seed, rounds) = (*by_etcd, wanted.seed, wanted.rounds / share);
        // A lab's namespaces belong to its thread.
        let scene = std::thread::spawn(move || Scene::new(by_etcd, seed).run(rounds, until));
        let Ok(two) = scene.join() else {
            return ExitCode::FAILURE;
        };
        excess += two;
    }
    if excess == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        rounds: 1000,
        minutes: 60,
        seed: 1,
        by_etcd: None,
    };
    while let Some(argument) = arguments.next() {
        if argument == "--bench" {
            // cargo passes this to every benchmark
            continue;
        }
        let value = arguments.next().unwrap_or_default();
        if argument == "--arbiter" {
            wanted.by_etcd = match value.as_str() {
                "lock" => Some(false),
                "etcd" => Some(true),
                _ => return Err("--arbiter: lock or etcd".to_owned()),
            };
            continue;
        }
        let number = value.parse::<u32>();
        let number = number.map_err(|_| format!("{argument}: {value:?} is not a number"))?;
        match argument.as_str() {
            "--rounds" => wanted.rounds = number.max(2),
            "--minutes" => wanted.minutes = number.max(1),
            "--seed" => wanted.seed = number.into(),
            _ => return Err(format!("there is no option {argument:?}")),
        }
    }
    Ok(wanted)
}

/// A fault of the serving node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    StopAll,
    StopSupervisor,
    StopWorker,
    LinkDown,
    CutOff,
    CutAllOff,
    Kill,
    Takeover,
}

/// The pair, its arbiter and its client.
struct Scene {
    pair: Pair,
    /// The link of each node to etcd.
    etcd: Option<(Etcd, [Link; 2])>,
    rng: Rng,
    client: Load,
    speakers: Speakers,
    /// The number of changes of the holder.
    changes: usize,
    holder: usize,
    ended: usize,
}

impl Scene {
    fn new(by_etcd: bool, seed: u64) -> Scene {
        let (pair, etcd) = match by_etcd {
            false => (Pair::start(SMB3_1_1, ""), None),
            true => pair_by_etcd(),
        };
        Scene {
            pair,
            etcd,
            rng: Rng(seed),
            speakers: Speakers::start(TAPS),
            client: Load::start(),
            changes: 0,
            holder: 0,
            ended: 0,
        }
    }

    /// Returns how often two nodes have sent at the same time.
    fn run(mut self, rounds: u32, until: Instant) -> usize {
        let mut counts: BTreeMap<Fault, u32> = BTreeMap::new();
        let mut done = 0;
        while done < rounds && Instant::now() < until {
            let fault = self.draw();
            self.cause(fault);
            self.settle();
            *counts.entry(fault).or_default() += 1;
            done += 1;
        }
        self.client.stop();
        self.pair.servers[self.holder].wait_until_left_alone();
        let turns = self.speakers.turns();
        let frames: usize = turns.iter().map(|turn| turn.1).sum();
        let excess = turns.len().saturating_sub(1 + self.changes);
        let kinds: Vec<String> = counts
            .iter()
            .map(|(fault, count)| format!("{fault:?} {count}"))
            .collect();
        println!(
            "| {} | {done} | {} | {} | {} | {frames} | {excess} |",
            if self.etcd.is_some() { "etcd" } else { "lock" },
            kinds.join(", "),
            1 + self.changes,
            self.ended,
        );
        excess
    }

    fn draw(&mut self) -> Fault {
        let usual = [
            Fault::StopAll,
            Fault::StopSupervisor,
            Fault::StopWorker,
            Fault::LinkDown,
        ];
        let with_etcd = [Fault::CutOff, Fault::CutAllOff];
        match self.rng.below(12) {
            0 => Fault::Kill,
            1 => Fault::Takeover,
            draw if self.etcd.is_some() => {
                let all = [usual.as_slice(), &with_etcd].concat();
                all[draw % all.len()]
            }
            draw => usual[draw % usual.len()],
        }
    }

    /// Draws the time of a fault. With etcd it is near the end of a lease, which is the hard case; the lock has no
    /// times.
    fn time(&mut self) -> Duration {
        let longest_ms = if self.etcd.is_some() { 2600 } else { 300 };
        Duration::from_millis(10 + self.rng.next() % longest_ms)
    }

    fn cause(&mut self, fault: Fault) {
        let time = self.time();
        let all = self.pair.processes(self.holder);
        let server = &self.pair.servers[self.holder];
        let supervisor = all[0];
        let stopped = match fault {
            Fault::StopAll => all.clone(),
            Fault::StopSupervisor => vec![supervisor],
            Fault::StopWorker => vec![server.status().worker_pid],
            _ => Vec::new(),
        };
        match fault {
            Fault::StopAll | Fault::StopSupervisor | Fault::StopWorker => {
                signal(&stopped, Signal::STOP);
                std::thread::sleep(time);
                signal(&stopped, Signal::CONT);
            }
            Fault::LinkDown => {
                run(&format!("ip link set {} down", TAPS[self.holder]));
                std::thread::sleep(time.min(Duration::from_millis(300)));
                run(&format!("ip link set {} up", TAPS[self.holder]));
            }
            Fault::CutOff | Fault::CutAllOff => {
                let (_, links) = self.etcd.as_ref().expect("drawn with etcd only");
                let cut = match fault {
                    Fault::CutOff => &links[self.holder..=self.holder],
                    _ => &links[..],
                };
                cut.iter().for_each(|link| link.set(true));
                std::thread::sleep(time);
                cut.iter().for_each(|link| link.set(false));
            }
            Fault::Kill => signal(&all, Signal::KILL),
            Fault::Takeover => {
                let output = server.outlast(&["takeover"]);
                // The takeover may be refused or reverted; then the service has not moved.
                drop(output);
            }
        }
    }

    /// Starts ended nodes, and waits until a node serves, the other one is in step, and the client continues.
    fn settle(&mut self) {
        let done = self.client.done();
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            for node in [0, 1] {
                let server = &mut self.pair.servers[node];
                if has_ended(server.supervisor_pid()) {
                    server.reap();
                    self.ended += 1;
                    server.start_again();
                }
            }
            let in_step = (0..2).find(|node| {
                let status = self.pair.servers[*node].try_status();
                let pair = status.and_then(|status| status.pair);
                pair.is_some_and(|pair| pair.role == "serving" && pair.in_step && pair.partner_runs)
            });
            if let Some(node) = in_step.filter(|_| self.client.done() > done + 2) {
                self.changes += usize::from(node != self.holder);
                self.holder = node;
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no node serves, or the client does not continue"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A pair whose nodes have a link each to etcd.
fn pair_by_etcd() -> (Pair, Option<(Etcd, [Link; 2])>) {
    let lab = Lab::new();
    lab.bridge();
    let etcd = Etcd::start(&lab.make_dir("arbiter"));
    let links = [Link::to(etcd.port()), Link::to(etcd.port())];
    let section = etcd.section(LEASE);
    let pair = Pair::on(lab, SMB3_1_1, &section, "");
    for (server, link) in pair.servers.iter().zip(&links) {
        let port = |port: u16| format!("https://127.0.0.1:{port}\"");
        server.rewrite(&port(etcd.port()), &port(link.port));
    }
    (pair.started(), Some((etcd, links)))
}

/// Forwards TCP connections, unless it is cut: then no data move, and none are lost.
struct Link {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Link {
    fn to(port: u16) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("its address").port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        std::thread::spawn(move || {
            for one in listener.incoming() {
                let (Ok(one), Ok(other)) = (one, TcpStream::connect(("127.0.0.1", port))) else {
                    continue;
                };
                for (from, to) in [(&one, &other), (&other, &one)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let cut = Arc::clone(&cut);
                    std::thread::spawn(move || carry(from?, to?, &cut));
                }
            }
        });
        Link { port: own, is_cut }
    }

    fn set(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let length = from.read(&mut buffer)?;
        while is_cut.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if length == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        to.write_all(&buffer[..length])?;
    }
}

/// A client that makes small requests all the time.
struct Load {
    done: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start() -> Load {
        let (done, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, is_over) = (Arc::clone(&done), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut client = Client::guest();
            let file = client.create("small", 0x0017_019F, 3, 0);
            let mut number = 0_u64;
            while !is_over.load(Ordering::SeqCst) {
                let text = number.to_le_bytes();
                client.write(file, 0, &text);
                let read = client.call(raw::READ, &raw::read(file, 0, 8)).ok();
                assert!(read.body.ends_with(&text), "what was written is read");
                number += 1;
                count.store(number, Ordering::SeqCst);
                // Frequent enough for the record, and little work for the machine.
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Load {
            done,
            over,
            thread: Some(thread),
        }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn stop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("a client");
        wait_for("the client's end", PATIENCE, || {
            thread.is_finished().then_some(())
        });
        thread
            .join()
            .expect("the client's connection lives, and so do its data");
    }
}
