//! Tests that Debian's smbclient continues through kill -9 and reboots of the server, on one TCP connection: {workload}
//! x {fault} x {dialect}.
//!
//! Some cells are run with every change; the whole matrix, at full size, by `scripts/test --full`.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use outlast::control::Status;
use support::capture::Capture;
use support::client::{
    self, DIALECTS, Dialect, ENCRYPTED, SIGNED, SMB2_1, SMB3_0, SMB3_1_1, Session, smbclient,
};
use support::lab::Lab;
use support::server::{Server, Setup, has_ended};
use support::{PATIENCE, Rng, can_run, files, wait_for};

/// The client's work.
#[derive(Clone, Copy, Debug)]
enum Workload {
    Get,
    Put,
    /// A recursive listing, repeatedly.
    List,
    /// Many small files to the server (mput) and back (mget).
    Small,
    /// Rename, delete, mkdir, rmdir.
    Names,
    /// An interactive session that holds a file open and idles.
    Idle,
}

const WORKLOADS: [Workload; 6] = [
    Workload::Get,
    Workload::Put,
    Workload::List,
    Workload::Small,
    Workload::Names,
    Workload::Idle,
];

/// A fault of the server meanwhile.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// kill -9 of the worker, three times.
    KillWorker,
    /// kill -9 of supervisor and worker, a start 3 s later.
    KillTree,
    /// `outlast reboot`, twice.
    Reboot,
    /// `outlast reboot --exec` a copy of the binary at another path.
    RebootExec,
    /// SIGTERM, a start 5 s later.
    Terminate,
}

const FAULTS: [Fault; 5] = [
    Fault::KillWorker,
    Fault::KillTree,
    Fault::Reboot,
    Fault::RebootExec,
    Fault::Terminate,
];

impl Fault {
    /// The client's progress at the fault, in percent.
    fn percents(self) -> &'static [u64] {
        match self {
            Fault::KillWorker => &[10, 35, 60],
            // the requirements of the next worker are checked first, while the client is served
            Fault::Reboot => &[3, 15],
            Fault::KillTree | Fault::Terminate => &[30],
            // the same, by the new binary
            Fault::RebootExec => &[5],
        }
    }

    /// Causes the fault. `during` is called while no worker serves.
    fn strike(self, server: &mut Server, lab: &Lab, during: &mut dyn FnMut()) {
        let Status {
            worker_pid, epoch, ..
        } = server.status();
        match self {
            Fault::KillWorker => {
                server.kill_worker(worker_pid);
                during();
            }
            Fault::KillTree => {
                server.kill_tree(worker_pid);
                during();
                std::thread::sleep(Duration::from_secs(3));
                server.start_again();
            }
            Fault::Terminate => {
                server.terminate();
                during();
                std::thread::sleep(Duration::from_secs(5));
                server.start_again();
            }
            Fault::Reboot => reboot(server, worker_pid, &["reboot"], during),
            Fault::RebootExec => {
                let copy = lab.path(NEXT);
                reboot(
                    server,
                    worker_pid,
                    &["reboot", "--exec", copy.to_str().expect("UTF-8")],
                    during,
                );
                assert_eq!(server.status().executable, copy);
            }
        }
        let status = server.successor_of(worker_pid);
        assert_eq!(status.epoch, epoch + 1, "one fault, one new epoch");
    }
}

fn reboot(server: &Server, worker: u32, words: &[&str], during: &mut dyn FnMut()) {
    let mut command = server.command(words);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = child.spawn().expect("outlast reboot");
    wait_for("the worker to leave", PATIENCE, || {
        has_ended(worker).then_some(())
    });
    during();
    let output = child.wait_with_output().expect("outlast reboot");
    assert!(
        output.status.success(),
        "reboot: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The name of the copy of the binary.
const NEXT: &str = "outlast-next";

/// The amount of work.
#[derive(Clone, Copy, Debug)]
struct Scale {
    big_file: u64,
    small_files: usize,
    listed_files: usize,
    names: usize,
}

const FULL: Scale = Scale {
    big_file: 1 << 30,
    small_files: 1000,
    listed_files: 5000,
    names: 1000,
};
const BRIEF: Scale = Scale {
    // At least a second of work: the second fault happens before its end on a busy machine too.
    big_file: 768 << 20,
    small_files: 600,
    listed_files: 5000,
    names: 700,
};

#[derive(Clone, Copy, Debug)]
struct Cell {
    workload: Workload,
    fault: Fault,
    dialect: Dialect,
    scale: Scale,
}

/// Units done, and their total number.
type Progress = Box<dyn Fn(&Session) -> (u64, u64)>;

impl Cell {
    fn name(&self) -> String {
        format!(
            "{:?} x {:?} x {}",
            self.workload, self.fault, self.dialect.name
        )
    }
}

/// A client at work: its progress, and a check of its results.
struct Work {
    session: Session,
    progress: Progress,
    /// Checks everything that it left behind and printed.
    check: Box<dyn FnOnce(&str)>,
}

fn run(cell: Cell) {
    let name = cell.name();
    if !can_run(&name) {
        return;
    }
    println!("{name}: {:?}", cell.scale);
    let mut rng = Rng::named(&name);
    let lab = Lab::new();
    let mut server = Server::start(
        &lab,
        Setup {
            protection: cell.dialect.protection,
            ..Setup::default()
        },
    );
    let local = lab.make_dir("local");
    if let Fault::RebootExec = cell.fault {
        std::fs::copy(env!("CARGO_BIN_EXE_outlast"), lab.path(NEXT)).expect("a copy of the binary");
    }
    if let Workload::List = cell.workload {
        lay_out_listing(server.share(), cell.scale.listed_files);
    }
    // the output of an undisturbed client, where that is compared
    let undisturbed = match cell.workload {
        Workload::List => {
            listing(&client::run(smbclient(cell.dialect), &local, "recurse; ls").well())
        }
        _ => String::new(),
    };
    server.wait_until_left_alone();
    let capture = Capture::start();
    let before = server.status();
    if let Workload::Idle = cell.workload {
        idle(cell, &mut server, &lab, &local, &mut rng);
    } else {
        disturb(cell, &mut server, &lab, &local, undisturbed, &mut rng);
    }
    server.wait_until_left_alone();
    capture.verdict().assert_untouched(1);
    let after = server.status();
    let faults = cell.fault.percents().len() as u64;
    assert_eq!(
        after.epoch,
        before.epoch + faults,
        "the server crashed by itself"
    );
    assert!(
        after.recoveries > before.recoveries,
        "nothing was recovered"
    );
    server.assert_sound();
}

/// A client with much work, and faults at these points of its progress.
fn disturb(
    cell: Cell,
    server: &mut Server,
    lab: &Lab,
    local: &Path,
    undisturbed: String,
    rng: &mut Rng,
) {
    let mut work = begin(cell, server.share(), local, undisturbed, rng);
    for percent in cell.fault.percents() {
        wait_for("the client to come so far", 2 * PATIENCE, || {
            let (done, all) = (work.progress)(&work.session);
            (done * 100 >= all * percent || work.session.has_ended()).then_some(())
        });
        let session = &mut work.session;
        let mut hit = None;
        cell.fault
            .strike(server, lab, &mut || hit = Some((work.progress)(session)));
        let (done, all) = hit.expect("a fault");
        assert!(
            0 < done && done < all,
            "the fault at {percent} % missed: {done} of {all} were done\n{}",
            work.session.text()
        );
    }
    (work.check)(&work.session.finish().well());
}

fn begin(cell: Cell, share: &Path, local: &Path, undisturbed: String, rng: &mut Rng) -> Work {
    let start = |commands: &str| Session::start(smbclient(cell.dialect), local, commands);
    let (share, local) = (share.to_owned(), local.to_owned());
    let scale = cell.scale;
    match cell.workload {
        Workload::Get => copy(
            share.join("big"),
            local.join("big"),
            scale.big_file,
            rng,
            || start("get big"),
        ),
        Workload::Put => copy(
            local.join("big"),
            share.join("big"),
            scale.big_file,
            rng,
            || start("put big"),
        ),
        Workload::List => {
            let again = 24;
            let session = start(&format!("recurse; {}", vec!["ls"; again].join("; ")));
            let all = undisturbed.len() as u64 * again as u64;
            Work {
                session,
                // the output is written in blocks: the last of them is there when the client has ended
                progress: Box::new(move |session| (files::size(session.output()), all)),
                check: Box::new(move |text| {
                    assert!(
                        listing(text) == undisturbed.repeat(again),
                        "the listings differ"
                    )
                }),
            }
        }
        Workload::Small => small_files(scale.small_files, share, local, rng, start),
        Workload::Names => names(scale.names, share, local, start),
        Workload::Idle => unreachable!("has a course of its own"),
    }
}

fn copy(
    from: PathBuf,
    to: PathBuf,
    size: u64,
    rng: &mut Rng,
    start: impl FnOnce() -> Session,
) -> Work {
    files::random_file(&from, size, rng);
    let target = to.clone();
    Work {
        session: start(),
        progress: Box::new(move |_| (files::size(&target), size)),
        check: Box::new(move |_| files::assert_same(&from, &to)),
    }
}

fn small_files(
    number: usize,
    share: PathBuf,
    local: PathBuf,
    rng: &mut Rng,
    start: impl FnOnce(&str) -> Session,
) -> Work {
    let (up, down) = (local.join("up"), local.join("down"));
    files::clear(&up);
    files::clear(&down);
    for i in 0..number {
        let size = rng.below(16 << 10);
        std::fs::write(up.join(format!("file {i:04}.dat")), rng.bytes(size)).expect("a small file");
    }
    let session = start("prompt; mkdir small; cd small; lcd up; mput *; lcd ../down; mget *");
    let (there, back) = (share.join("small"), down.clone());
    Work {
        session,
        progress: Box::new(move |_| {
            (
                files::count(&there) + files::count(&back),
                2 * number as u64,
            )
        }),
        check: Box::new(move |_| {
            let sent = files::tree(&up);
            assert_eq!(sent.len(), number);
            assert!(
                files::tree(&share.join("small")) == sent,
                "what is in the share differs"
            );
            assert!(files::tree(&down) == sent, "what came back differs");
        }),
    }
}

/// Directories are made, files move between them, every other directory is removed.
fn names(
    number: usize,
    share: PathBuf,
    local: PathBuf,
    start: impl FnOnce(&str) -> Session,
) -> Work {
    std::fs::write(local.join("seed"), "seed").expect("a file");
    let mut commands = vec!["put seed first".to_owned()];
    let mut expected = std::collections::BTreeMap::new();
    for i in 0..number {
        commands.push(format!(
            "mkdir d{i};mkdir d{i}/s;put seed d{i}/a;rename d{i}/a d{i}/s/b"
        ));
        if i % 2 == 0 {
            expected.insert(format!("d{i}"), None);
            expected.insert(format!("d{i}/s"), None);
            expected.insert(format!("d{i}/s/b"), Some(b"seed".to_vec()));
        } else {
            commands.push(format!("del d{i}/s/b; rmdir d{i}/s; rmdir d{i}"));
        }
    }
    commands.push("rename first last".to_owned());
    expected.insert("last".to_owned(), Some(b"seed".to_vec()));
    let there = share.clone();
    Work {
        session: start(&commands.join(";")),
        progress: Box::new(move |_| (files::count(&there), number as u64 / 2 + 2)),
        check: Box::new(move |_| {
            assert!(
                files::tree(&share) == expected,
                "the share holds something else"
            )
        }),
    }
}

/// Directories of fifty files each.
fn lay_out_listing(share: &Path, number: usize) {
    for i in 0..number {
        let dir = share.join(format!("dir {:03}", i / 50));
        if i % 50 == 0 {
            std::fs::create_dir(&dir).expect("a directory");
        }
        std::fs::write(
            dir.join(format!("a file with a longer name {i:05}")),
            vec![b'.'; i % 97],
        )
        .expect("a file");
    }
}

/// A listing without what changes by itself: free space, blank lines.
fn listing(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.contains("blocks of size"));
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// An interactive session holds a file open during the faults, and continues to use it.
fn idle(cell: Cell, server: &mut Server, lab: &Lab, local: &Path, rng: &mut Rng) {
    files::random_file(&local.join("held"), 300_000, rng);
    let mut session = Session::interactive(smbclient(cell.dialect), local);
    session.say("put held");
    wait_for("the put", PATIENCE, || {
        (files::size(&server.share().join("held")) == 300_000).then_some(())
    });
    session.say("open held");
    let opened = session.expect("for read/write fnum");
    let number = opened
        .split("fnum ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .expect("a number")
        .to_owned();
    let opens = |server: &Server| {
        let status = server.status();
        status
            .connections
            .iter()
            .map(|connection| connection.smb.opens)
            .collect::<Vec<_>>()
    };
    assert_eq!(opens(server), [1], "one client holds one file");
    for i in 0..cell.fault.percents().len() {
        cell.fault.strike(server, lab, &mut || ());
        assert_eq!(opens(server), [1], "the open file was lost");
        // only time was lost: the session works
        session.say(&format!("get held back{i}"));
        session.expect(&format!("as back{i}"));
        files::assert_same(&local.join("held"), &local.join(format!("back{i}")));
    }
    // held open for reading and writing by the same client: a close of that handle ends it
    session.say(&format!("close {number}"));
    wait_for("the close", PATIENCE, || {
        opens(server).eq(&[0]).then_some(())
    });
    session.say("del held");
    wait_for("the deletion", PATIENCE, || {
        (files::count(server.share()) == 0).then_some(())
    });
    session.say("quit");
    session.finish().well();
}

macro_rules! cells {
    ($($(#[$test:meta])* fn $name:ident() { $workload:ident, $fault:ident, $dialect:expr })*) => {
        $(
            $(#[$test])*
            fn $name() {
                run(Cell { workload: Workload::$workload, fault: Fault::$fault, dialect: $dialect, scale: BRIEF });
            }
        )*
    };
}

// each workload, each fault and each dialect at least twice
cells! {
    //= patent fig3-307, fig3-309
    //= patent claim-1, claim-2, claim-22, claim-23
    #[test]
    fn get_through_kills_of_the_worker() { Get, KillWorker, SMB3_1_1 }
    //= patent fig3-303, fig3-305, fig3-307
    //= patent claim-19, claim-40
    #[test]
    fn get_encrypted_through_a_kill_of_everything() { Get, KillTree, ENCRYPTED }
    //= patent fig2-207, fig2-209, fig2-211, fig2-213, fig2-227
    //= patent claim-6, claim-27
    #[test]
    fn get_signed_through_reboots() { Get, Reboot, SIGNED }
    //= patent fig4-403, fig4-405, fig4-407, fig4-409
    //= patent claim-1, claim-22
    #[test]
    fn put_through_kills_of_the_worker() { Put, KillWorker, SMB2_1 }
    //= patent fig2-203, fig2-205, fig2-221, fig2-227
    //= patent claim-6, claim-27
    #[test]
    fn put_through_sigterm() { Put, Terminate, SMB3_1_1 }
    #[test]
    fn put_encrypted_through_a_new_binary() { Put, RebootExec, ENCRYPTED }
    #[test]
    fn list_through_kills_of_the_worker() { List, KillWorker, SIGNED }
    #[test]
    fn list_through_reboots() { List, Reboot, SMB3_0 }
    #[test]
    fn small_files_through_kills_of_the_worker() { Small, KillWorker, ENCRYPTED }
    #[test]
    fn small_files_through_a_kill_of_everything() { Small, KillTree, SMB2_1 }
    #[test]
    fn names_through_kills_of_the_worker() { Names, KillWorker, SMB3_0 }
    #[test]
    fn names_through_a_new_binary() { Names, RebootExec, SIGNED }
    #[test]
    fn idle_through_kills_of_the_worker() { Idle, KillWorker, SMB3_1_1 }
    #[test]
    fn idle_through_sigterm() { Idle, Terminate, ENCRYPTED }
}

/// `OUTLAST_CELLS=Get x KillTree` runs only the cells whose names contain this.
#[test]
#[ignore = "the whole matrix takes a quarter of an hour: scripts/test --full"]
fn whole_matrix() {
    let wanted = std::env::var("OUTLAST_CELLS").unwrap_or_default();
    let mut failed = Vec::new();
    for workload in WORKLOADS {
        for fault in FAULTS {
            for dialect in DIALECTS {
                let cell = Cell {
                    workload,
                    fault,
                    dialect,
                    scale: FULL,
                };
                if !cell.name().contains(&wanted) {
                    continue;
                }
                // a thread of its own: each lab is a fresh network namespace
                if std::thread::spawn(move || run(cell)).join().is_err() {
                    failed.push(cell.name());
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} cells failed: {failed:#?}",
        failed.len()
    );
}
