//! Tests that a worker whose loop makes no progress is detected, and killed by the supervisor unless it has a reason.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use outlast::control::Status;
use rustix::process::{Pid, Signal, kill_process};

use support::lab::{Lab, run};
use support::raw::{self, Client};
use support::server::{Server, Setup};
use support::{PATIENCE, can_run, has, wait_for};

fn setup() -> Setup {
    Setup {
        share: "guest = true".to_owned(),
        ..Setup::default()
    }
}

/// Waits for a status that reports a worker without turns.
fn trouble(server: &Server) -> Status {
    wait_for("status to say so", PATIENCE, || {
        server
            .any_status()
            .filter(|status| status.trouble.is_some())
    })
}

/// Checks that the session continues with the next worker.
fn continues(server: &Server, client: &mut Client, file: raw::FileId, worker: u32) {
    client.write(file, 0, b"still there");
    assert_eq!(client.read(file, 0, 11), b"still there");
    let next = server.successor_of(worker);
    assert!(server.log().contains("it is killed"));
    assert_eq!(next.connections.len(), 1);
}

/// Returns whether all threads of a process have stopped (proc_pid_stat(5)).
fn is_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, state)| state.starts_with('T'))
    })
}

#[test]
fn a_stopped_worker_is_killed() {
    if !can_run("a_stopped_worker_is_killed") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, setup());
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 2, 0);
    let worker = server.status().worker_pid;
    let pid = Pid::from_raw(worker.cast_signed()).expect("a process");
    kill_process(pid, Signal::STOP).expect("SIGSTOP");
    wait_for("every thread to have stopped", PATIENCE, || {
        is_stopped(worker).then_some(())
    });
    let status = trouble(&server);
    assert_eq!(status.worker_pid, worker);
    assert!(status.trouble.expect("trouble").contains("SIGSTOP"));
    continues(&server, &mut client, file, worker);
}

#[test]
fn a_spinning_worker_is_killed() {
    if !can_run("a_spinning_worker_is_killed") {
        return;
    }
    let lab = Lab::new();
    let trigger = lab.path("fault");
    let environment = vec![("OUTLAST_FAULT", trigger.clone())];
    let server = Server::start(
        &lab,
        Setup {
            environment,
            ..setup()
        },
    );
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 2, 0);
    // The next worker spins when it has received something.
    std::fs::write(&trigger, "1:after:tcp:1:spin").expect("the fault");
    let first = server.status().worker_pid;
    server.kill_worker(first);
    let worker = server.successor_of(first).worker_pid;
    client.request(raw::FLUSH, &raw::close(file));
    wait_for("it to spin", PATIENCE, || (!trigger.exists()).then_some(()));
    let status = trouble(&server);
    assert!(status.trouble.expect("trouble").contains("spins"));
    continues(&server, &mut client, file, worker);
}

/// A file system that blocks every access until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(path: &Path) -> Frozen {
        run(&format!("fsfreeze -f {}", path.display()));
        Frozen(path.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

/// A disk that blocks the loop is no reason to kill the worker: the next one would wait for the same disk.
#[test]
fn a_worker_that_waits_for_a_disk_is_left_alone() {
    const TEST: &str = "a_worker_that_waits_for_a_disk_is_left_alone";
    let program = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let loops = Path::new("/dev/loop-control").exists();
    if !can_run(TEST)
        || !has(
            TEST,
            &[
                (program("mkfs.ext4"), "mkfs.ext4"),
                (program("fsfreeze"), "fsfreeze"),
                (loops, "loop devices"),
            ],
        )
    {
        return;
    }
    let lab = Lab::new();
    let (image, disk) = (lab.path("image"), lab.make_dir("share"));
    run(&format!("truncate -s 64M {}", image.display()));
    run(&format!("mkfs.ext4 -q -F {}", image.display()));
    run(&format!(
        "mount -o loop {} {}",
        image.display(),
        disk.display()
    ));
    let server = Server::start(&lab, setup());
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 2, 0);
    let worker = server.status().worker_pid;
    let frozen = Frozen::new(&disk);
    let number = client.request(raw::WRITE, &raw::write(file, 0, b"slow"));
    // Longer than a worker without a reason is tolerated.
    let looks = wait_for("a long silence", PATIENCE, || {
        let trouble = server.any_status()?.trouble?;
        trouble.contains("for 4.").then_some(trouble)
    });
    assert!(
        looks.contains("disk") || looks.contains("file operation"),
        "{looks}"
    );
    drop(frozen);
    assert_eq!(client.answer(number).status, 0);
    let status = server.status();
    assert_eq!(status.worker_pid, worker, "the same worker");
    assert!(status.trouble.is_none());
    client.close(file);
    drop((client, server));
    run(&format!("umount {}", disk.display()));
}
