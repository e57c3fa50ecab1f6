//! Measures the cost of attacks for other clients: a download by smbclient alone and during each attack in turn.
//!
//! cargo bench --bench hostile -- [--size MIB] [--rounds N] [ATTACK...]
//!
//! The server has its default limits and 256 MiB of NVRAM; share and NVRAM are on a tmpfs. Each round runs all attacks,
//! each on a new server: the download alone, then during the attack, which is in full swing before smbclient starts, or
//! as far as it gets in ten seconds. A new client's login is timed then too. The speed is smbclient's own figure; an
//! attack that makes the download fail is not tried again. The attackers run at the lowest priority; their actions are
//! counted, which shows that it was an attack. Ratios carry over to other machines; figures do not.

#[path = "../support/mod.rs"]
mod support;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use support::attack::{self, Attack, BIG, Field, crowd, flood, state, stream};
use support::can_run;
use support::client::{self, SMB3_1_1, smbclient};
use support::lab::{self, Lab};
use support::server::{Server, Setup};

/// Name, number of threads, action of each, description.
type Entry = (
    &'static str,
    usize,
    fn(&Field) -> io::Result<()>,
    &'static str,
);

const ATTACKS: [Entry; 20] = [
    (
        "syn_flood",
        1,
        |field| flood::syn_flood(field, 20_000),
        "20,000 SYNs a second from unused addresses",
    ),
    (
        "unauthenticated",
        1,
        |field| crowd::unauthenticated(field, 512, 1000),
        "512 connections that never log in; 1,000 new ones a second where they are dropped",
    ),
    (
        "half_messages",
        48,
        crowd::half_messages,
        "48 guests with a WRITE of 8 MiB that never ends",
    ),
    (
        "trickle",
        1,
        |field| crowd::trickle(field, 256),
        "256 guests that send ten bytes a second",
    ),
    (
        "slow_readers",
        1,
        |field| crowd::slow_readers(field, 64),
        "64 guests that ask for 256 MiB each and take next to nothing",
    ),
    (
        "handles",
        4,
        stream::handles,
        "4 guests that open without end",
    ),
    (
        "compounds",
        4,
        |field| stream::compounds(field, 500),
        "4 guests that send messages of 500 pairs of CREATE and CLOSE",
    ),
    (
        "listings",
        4,
        stream::listings,
        "4 guests that list 4,000 files from the beginning",
    ),
    (
        "locks",
        4,
        stream::locks,
        "4 guests that lock ever more of one file",
    ),
    (
        "watches",
        4,
        stream::watches,
        "4 guests that watch a directory ever more",
    ),
    (
        "half_done",
        64,
        state::half_done,
        "64 connections that begin 64 logins each, with long tokens, and do not finish one",
    ),
    (
        "half_done_by_guests",
        64,
        state::half_done_by_guests,
        "64 guests that do the same",
    ),
    (
        "long_paths",
        4,
        state::long_paths,
        "4 guests that open a path of 3,300 bytes without end",
    ),
    (
        "cursors",
        4,
        state::cursors,
        "4 guests that list a directory by ever more opens, with long patterns",
    ),
    (
        "listing_handles",
        4,
        state::listing_handles,
        "4 guests that begin to list 4,000 files by ever more opens",
    ),
    (
        "copies",
        4,
        state::copies,
        "4 guests that copy 16 MiB of a file onto itself",
    ),
    (
        "parking",
        4,
        state::parking,
        "4 guests whose chains with long WRITEs wait for an oplock that is not given up",
    ),
    (
        "idlers",
        1,
        |field| crowd::idlers(field, 1100),
        "1,100 guests that log in and do nothing",
    ),
    (
        "deep_names",
        4,
        state::deep_names,
        "4 guests that ask for a missing name 120 directories deep",
    ),
    (
        "failed_logins",
        4,
        stream::failed_logins,
        "4 that guess a password",
    ),
];

/// The options of the command line.
struct Wanted {
    megabytes: u64,
    rounds: usize,
    attacks: Vec<Entry>,
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!("hostile: {problem}");
            return ExitCode::from(2);
        }
    };
    if !can_run("the benchmark hostile") {
        return ExitCode::FAILURE;
    }
    measure(&wanted)
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        megabytes: 512,
        rounds: 3,
        attacks: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().unwrap_or_default();
            match text.parse() {
                Ok(number @ 1..=65_536) => Ok(number),
                _ => Err(format!(
                    "{argument}: {text:?} is not a number of 1 to 65536"
                )),
            }
        };
        match argument.as_str() {
            // an option that cargo passes to every benchmark
            "--bench" => {}
            "--size" => wanted.megabytes = number()?,
            "--rounds" => wanted.rounds = number()? as usize,
            name => {
                let attack = ATTACKS.iter().find(|(known, ..)| *known == name);
                let names = ATTACKS.map(|(known, ..)| known).join(", ");
                wanted
                    .attacks
                    .push(*attack.ok_or_else(|| format!("no attack {name:?}; there are {names}"))?);
            }
        }
    }
    if wanted.attacks.is_empty() {
        wanted.attacks = ATTACKS.to_vec();
    }
    Ok(wanted)
}

/// The results of one attack, and how often a download failed during it.
#[derive(Default)]
struct Measured {
    alone: Vec<f64>,
    beside: Vec<f64>,
    failed: usize,
    /// Seconds that a new client's login took.
    login_seconds: Vec<f64>,
    /// Whether the worker crashed.
    crashed: bool,
    did: String,
}

fn measure(wanted: &Wanted) -> ExitCode {
    let lab = Lab::new();
    let dir = lab.dir().display().to_string();
    // the file, two NVRAMs (a server's is removed with its last process), and what attackers write
    let room = wanted.megabytes + 1024;
    lab::run(&format!(
        "mount -t tmpfs -o size={room}m,mode=755 outlast-bench {dir}"
    ));
    attack::furnish(&lab.make_dir("share"), wanted.megabytes << 20);
    let mut measured: Vec<Measured> = wanted.attacks.iter().map(|_| Measured::default()).collect();
    for round in 1..=wanted.rounds {
        eprintln!("   round {round} of {}", wanted.rounds);
        for (&attack, measured) in wanted.attacks.iter().zip(&mut measured) {
            // each failure takes smbclient minutes, so one suffices
            if measured.failed == 0 {
                pair(&lab, attack, measured);
            }
        }
    }
    print(wanted, &measured);
    lab::run(&format!("umount -l {dir}"));
    let well = measured.iter().all(|one| one.failed == 0 && !one.crashed);
    ExitCode::from(u8::from(!well))
}

/// A download alone, and one during an attack, on a server that has not seen another.
fn pair(lab: &Lab, (name, threads, life, _): Entry, measured: &mut Measured) {
    let local = lab.make_dir("local");
    let setup = Setup {
        share: "guest = true".to_owned(),
        ..Setup::default()
    };
    let server = Server::start(lab, setup);
    // its first download uses memory that it has never touched
    get(&local).expect("the download of a client alone");
    let alone = get(&local).expect("the download of a client alone");
    measured.alone.push(alone);
    let attack = Attack::start(threads, life);
    attack.wait_until_steady();
    match log_in(&local) {
        Ok(seconds) => measured.login_seconds.push(seconds),
        Err(problem) => {
            eprintln!("      {name}: a newcomer: {}", problem.trim());
            measured.failed += 1;
        }
    }
    let before = attack.counts().get();
    match get(&local) {
        Ok(speed) => {
            eprintln!("      {name}: {speed:.0} MiB/s, alone {alone:.0}");
            measured.beside.push(speed);
        }
        Err(problem) => {
            eprintln!("      {name}: {}", problem.trim());
            measured.failed += 1;
        }
    }
    let after = attack.counts().get();
    let during: [u64; 5] = std::array::from_fn(|at| after[at] - before[at]);
    measured.did = format!(
        "{}; of these beside the download {during:?}",
        attack.counts()
    );
    attack.stop();
    let log = server.log();
    if let Some(at) = log.find("panicked at") {
        eprintln!(
            "      {name}: the worker {}",
            log[at..].lines().take(2).collect::<String>()
        );
        measured.crashed = true;
    }
    drop(server);
    // nor does the next server know of it
    for file in ["nvram", "server.log"] {
        std::fs::remove_file(lab.path(file)).expect("what it leaves");
    }
}

/// Seconds that a new client takes to log in and to disconnect.
fn log_in(local: &Path) -> Result<f64, String> {
    let begin = Instant::now();
    let finished = client::run(smbclient(SMB3_1_1), local, "pwd");
    match finished.success {
        true => Ok(begin.elapsed().as_secs_f64()),
        false => Err(finished.text),
    }
}

/// Downloads the big file; returns MiB/s.
fn get(local: &Path) -> Result<f64, String> {
    let finished = client::run(smbclient(SMB3_1_1), local, &format!("get {BIG} /dev/null"));
    // getting file \big of size N as /dev/null (123.4 KiloBytes/sec) (average 123.4 KiloBytes/sec)
    let speed = finished.text.rsplit_once("as /dev/null (");
    let speed = speed.and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    match speed {
        Some(speed) if finished.success => Ok(speed / 1024.0),
        _ => Err(finished.text),
    }
}

fn print(wanted: &Wanted, measured: &[Measured]) {
    println!(
        "\nget of {} MiB by smbclient 3.1.1, {} rounds, medians; ratio lowest to highest\n",
        wanted.megabytes, wanted.rounds
    );
    println!(
        "| attack              | alone MiB/s | beside MiB/s | ratio (low-high)   | longest login s | failed |"
    );
    println!(
        "|---------------------|------------:|-------------:|--------------------|----------------:|-------:|"
    );
    for ((name, ..), one) in wanted.attacks.iter().zip(measured) {
        // the download during an attack is compared with the one just before it; a failed one with none
        let mut ratios: Vec<f64> = match one.failed {
            0 => one
                .beside
                .iter()
                .zip(&one.alone)
                .map(|(b, a)| b / a)
                .collect(),
            _ => Vec::new(),
        };
        let ratio = match median(&mut ratios) {
            Some(middle) => format!(
                "{middle:.2} ({:.2}-{:.2})",
                ratios[0],
                ratios[ratios.len() - 1]
            ),
            None => "-".to_owned(),
        };
        let speed = |speeds: &[f64]| {
            median(&mut speeds.to_vec()).map_or("-".to_owned(), |speed| format!("{speed:.0}"))
        };
        println!(
            "| {name:19} | {:>11} | {:>12} | {ratio:18} | {:>15.2} | {:>6} |",
            speed(&one.alone),
            speed(&one.beside),
            one.login_seconds.iter().copied().fold(0.0, f64::max),
            one.failed
        );
    }
    println!();
    for ((name, _, _, what), one) in wanted.attacks.iter().zip(measured) {
        let crashed = if one.crashed {
            ". THE WORKER CRASHED"
        } else {
            ""
        };
        println!("{name}: {what}: {}{crashed}", one.did);
    }
}

/// The median of the sorted values.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (
        values.get((values.len().max(1) - 1) / 2)?,
        values.get(values.len() / 2)?,
    );
    Some(f64::midpoint(*low, *high))
}
