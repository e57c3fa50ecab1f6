//! Tests that clients of a pair notice only delays: {get, put, small files, idle with locks and oplocks, pending
//! notify} x {takeover, giveback, kill -9 of the first server, its link down, SIGSTOP then SIGCONT} x {3.1.1, 3.1.1
//! encrypted}.
//!
//! A few cells are run with every change, the whole matrix by `scripts/test --full`, or by
//! `cargo test --profile checked --test pair_matrix -- --include-ignored`. `OUTLAST_CELLS=Put x Kill` runs the cells
//! whose names hold this.

mod support;

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use support::capture::Capture;
use support::client::{Dialect, SMB3_1_1, Session, smbclient};
use support::idle::Idle;
use support::lab::run;
use support::pair::{Pair, signal};
use support::speakers::Speakers;
use support::{PATIENCE, Rng, can_run, files, wait_for};

const SIZE: u64 = 128 << 20;
const FILES: usize = 300;
/// The time for which the first server is stopped or disconnected, in seconds.
const AWAY_SECONDS: f64 = 1.5;

/// As SMB3_1_1, with encryption that the client requests.
const ENCRYPTED: Dialect = Dialect {
    name: "3.1.1 encrypted",
    more: &["--client-protection=encrypt"],
    ..SMB3_1_1
};
const DIALECTS: [Dialect; 2] = [SMB3_1_1, ENCRYPTED];

#[derive(Clone, Copy, Debug)]
enum Workload {
    Get,
    Put,
    SmallFiles,
    Idle,
    Notify,
}

const WORKLOADS: [Workload; 5] = [
    Workload::Get,
    Workload::Put,
    Workload::SmallFiles,
    Workload::Idle,
    Workload::Notify,
];

#[derive(Clone, Copy, Debug)]
enum Fault {
    Takeover,
    Giveback,
    Kill,
    LinkDown,
    Stop,
}

const FAULTS: [Fault; 5] = [
    Fault::Takeover,
    Fault::Giveback,
    Fault::Kill,
    Fault::LinkDown,
    Fault::Stop,
];

impl Fault {
    /// Causes the fault; returns the node that serves afterwards, and how often the sender has changed. `halfway`:
    /// waits until the workload has progressed again.
    fn cause(self, pair: &mut Pair, halfway: impl FnOnce()) -> (usize, usize) {
        match self {
            Fault::Takeover => {
                pair.order(0, &["takeover"]);
                (1, 1)
            }
            Fault::Giveback => {
                pair.order(0, &["takeover"]);
                halfway();
                pair.wait_until_in_step(1);
                pair.order(1, &["giveback"]);
                (0, 2)
            }
            Fault::Kill => {
                pair.kill(0);
                (1, 1)
            }
            Fault::LinkDown => {
                run("ip link set tap0 down");
                be_away(pair);
                run("ip link set tap0 up");
                (0, 0)
            }
            Fault::Stop => {
                let processes = pair.processes(0);
                signal(&processes, Signal::STOP);
                be_away(pair);
                signal(&processes, Signal::CONT);
                (0, 0)
            }
        }
    }
}

/// Waits while the other node checks repeatedly whether it should take over. It must not.
fn be_away(pair: &Pair) {
    let before = pair.servers[1].status().uptime_seconds;
    wait_for("the other node to have waited", PATIENCE, || {
        let status = pair.servers[1].try_status()?;
        assert_eq!(status.pair?.role, "standing by");
        (status.uptime_seconds > before + AWAY_SECONDS).then_some(())
    });
}

/// Runs a cell on a thread of its own, because a lab's namespaces belong to its thread.
fn cell(workload: Workload, fault: Fault, dialect: Dialect) {
    eprintln!("{workload:?} x {fault:?} x {}", dialect.name);
    let cell = std::thread::spawn(move || try_cell(workload, fault, dialect));
    let name = dialect.name;
    cell.join()
        .unwrap_or_else(|_| panic!("{workload:?} x {fault:?} x {name} has failed"));
}

fn try_cell(workload: Workload, fault: Fault, dialect: Dialect) {
    let mut pair = Pair::start(dialect, "");
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", "tap1"]));
    let (serving, changes, connections) = match workload {
        Workload::Get | Workload::Put | Workload::SmallFiles => {
            let (serving, changes) = transfer(&mut pair, workload, fault, dialect);
            (serving, changes, 1)
        }
        Workload::Idle => {
            let mut idle = Idle::begin();
            let (serving, changes) = fault.cause(&mut pair, || ());
            idle.check();
            (serving, changes, 2)
        }
        Workload::Notify => {
            let (serving, changes) = notify(&mut pair, fault, dialect);
            (serving, changes, 1)
        }
    };
    pair.wait_until_serving(serving);
    pair.servers[serving].wait_until_left_alone();
    let spoken: Vec<usize> = speakers.turns().iter().map(|turn| turn.0).collect();
    let expected: Vec<usize> = (0..=changes).map(|turn| turn % 2).collect();
    assert_eq!(spoken, expected, "the nodes that have spoken, in turn");
    capture.verdict().assert_untouched(connections);
    pair.servers
        .iter()
        .for_each(support::server::Server::assert_sound);
}

/// Transfers files; the received files must equal the sent ones.
fn transfer(pair: &mut Pair, workload: Workload, fault: Fault, dialect: Dialect) -> (usize, usize) {
    let local = pair.lab.make_dir("local");
    let share = pair.servers[0].share().to_owned();
    let mut rng = Rng::named(&format!("{workload:?} {fault:?} {}", dialect.name));
    let (from, to, commands) = match workload {
        Workload::Get => (share.join("big"), local.join("copy"), "get big copy"),
        Workload::Put => (local.join("big"), share.join("copy"), "put big copy"),
        _ => (
            local.clone(),
            share.clone(),
            "prompt; mput f*; rename f0 g0; del g0",
        ),
    };
    let has_arrived = match workload {
        Workload::SmallFiles => {
            let names = (0..FILES).map(|number| format!("f{number}"));
            for name in names {
                files::random_file(&from.join(name), 4096, &mut rng);
            }
            Box::new(move |part: f64| count(&share) as f64 >= part * FILES as f64)
                as Box<dyn Fn(f64) -> bool>
        }
        _ => {
            files::random_file(&from, SIZE, &mut rng);
            let to = to.clone();
            Box::new(move |part| files::written(&to).unwrap_or(0) as f64 >= part * SIZE as f64)
        }
    };
    let client = Session::start(smbclient(dialect), &local, commands);
    let wait = |part| {
        wait_for("the transfer", 4 * PATIENCE, || {
            has_arrived(part).then_some(())
        });
    };
    wait(0.1);
    let result = fault.cause(pair, || wait(0.4));
    client.finish().well();
    match workload {
        Workload::SmallFiles => {
            for number in 1..FILES {
                let name = format!("f{number}");
                files::assert_same(&from.join(&name), &to.join(&name));
            }
            assert_eq!(count(&to), FILES - 1);
        }
        _ => files::assert_same(&from, &to),
    }
    result
}

/// A client waits for changes in a directory.
fn notify(pair: &mut Pair, fault: Fault, dialect: Dialect) -> (usize, usize) {
    let local = pair.lab.make_dir("local");
    let share = pair.servers[0].share().to_owned();
    std::fs::create_dir(share.join("watched")).expect("a directory");
    let mut client = Session::interactive(smbclient(dialect), &local);
    client.say("notify watched");
    // Then the next request is in flight, or received.
    see_a_change(&mut client, &share, "before");
    let result = fault.cause(pair, || ());
    see_a_change(&mut client, &share, "after");
    result
}

/// Makes files until the client is notified of one; after NOTIFY_ENUM_DIR the client requests again.
fn see_a_change(client: &mut Session, share: &Path, name: &str) {
    let mut looks = 0;
    wait_for("the client to be notified", PATIENCE, || {
        assert!(!client.has_ended(), "smbclient ended: {}", client.text());
        if looks % 200 == 0 {
            let file = share.join(format!("watched/{name}-{looks}"));
            std::fs::write(file, "new").expect("a file");
        }
        looks += 1;
        client.text().contains(name).then_some(())
    });
}

fn count(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let is_small = |name: &PathBuf| name.file_name().is_some_and(|name| name.len() < 6);
    entries
        .map(|entry| entry.expect("a name").path())
        .filter(is_small)
        .count()
}

/// Each workload and each fault at least once, and both dialects.
#[test]
fn clients_notice_a_delay() {
    if !can_run("clients_notice_a_delay") {
        return;
    }
    for (number, workload) in WORKLOADS.into_iter().enumerate() {
        cell(workload, FAULTS[(number + 3) % 5], DIALECTS[number % 2]);
    }
    for (number, workload) in [Workload::SmallFiles, Workload::Notify]
        .into_iter()
        .enumerate()
    {
        cell(workload, Fault::Kill, DIALECTS[number]);
    }
}

#[test]
#[ignore = "the whole matrix takes some minutes: scripts/test --full"]
fn clients_notice_a_delay_in_every_cell() {
    if !can_run("clients_notice_a_delay_in_every_cell") {
        return;
    }
    let wanted = std::env::var("OUTLAST_CELLS").unwrap_or_default();
    for dialect in DIALECTS {
        for workload in WORKLOADS {
            for fault in FAULTS {
                if format!("{workload:?} x {fault:?} x {}", dialect.name).contains(&wanted) {
                    cell(workload, fault, dialect);
                }
            }
        }
    }
}
