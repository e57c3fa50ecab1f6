//! Tests the standby worker: it takes over when the serving one ends, and its own end harms no client.

mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use outlast::control::{StandbyStatus, Status};
use outlast::server::digest::{Mark, Place};
use outlast::supervisor::page::Page;
use rustix::process::{Pid, Signal, kill_process};

use support::lab::Lab;
use support::raw::{Client, FileId};
use support::server::{Server, Setup, error};
use support::{PATIENCE, can_run, wait_for};

fn setup() -> Setup {
    Setup {
        share: "guest = true".to_owned(),
        ..Setup::default()
    }
}

/// A server, and a client with an open file.
fn served(lab: &Lab) -> (Server, Client, FileId) {
    let server = Server::start(lab, setup());
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 2, 0);
    (server, client, file)
}

/// The server's status when a standby worker has read all of the log.
fn ready(server: &Server) -> (Status, StandbyStatus) {
    wait_for("a standby worker", PATIENCE, || {
        let status = server.try_status()?;
        let standby = status.standby.clone()?;
        (standby.lag_bytes == 0).then_some((status, standby))
    })
}

fn send(signal: Signal, pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, signal).expect("a signal");
}

#[test]
fn it_takes_over_each_time() {
    if !can_run("it_takes_over_each_time") {
        return;
    }
    let lab = Lab::new();
    let (server, mut client, file) = served(&lab);
    for number in 0..4_u8 {
        let (status, standby) = ready(&server);
        client.write(file, 0, &[number; 60_000]);
        if number % 2 == 0 {
            server.kill_worker(status.worker_pid);
        } else {
            server.reboot();
        }
        assert_eq!(client.read(file, 0, 60_000), [number; 60_000]);
        let next = server.successor_of(status.worker_pid);
        assert_eq!(next.worker_pid, standby.pid);
        assert_eq!(next.connections.len(), 1);
    }
    assert!(server.log().contains("the others were followed before"));
}

#[test]
fn its_own_end_is_no_loss() {
    if !can_run("its_own_end_is_no_loss") {
        return;
    }
    let lab = Lab::new();
    let (server, mut client, file) = served(&lab);
    let (status, standby) = ready(&server);
    send(Signal::KILL, standby.pid);
    client.write(file, 0, b"still served");
    let (after, another) = ready_after(&server, &standby);
    assert_eq!(after.worker_pid, status.worker_pid);
    // Without one, the next worker is started and reads the log.
    send(Signal::KILL, another.pid);
    wait_for("no standby worker", PATIENCE, || {
        server
            .try_status()
            .filter(|status| status.standby.is_none())
    });
    server.kill_worker(status.worker_pid);
    assert_eq!(client.read(file, 0, 12), b"still served");
    server.successor_of(status.worker_pid);
}

#[test]
fn a_stopped_standby_worker_is_not_waited_for() {
    if !can_run("a_stopped_standby_worker_is_not_waited_for") {
        return;
    }
    let lab = Lab::new();
    let (server, mut client, file) = served(&lab);
    client.write(file, 0, b"before");
    let (status, standby) = ready(&server);
    send(Signal::STOP, standby.pid);
    server.kill_worker(status.worker_pid);
    assert_eq!(client.read(file, 0, 6), b"before");
    let next = server.successor_of(status.worker_pid);
    assert_ne!(next.worker_pid, standby.pid);
}

fn ready_after(server: &Server, before: &StandbyStatus) -> (Status, StandbyStatus) {
    wait_for("another standby worker", PATIENCE, || {
        let (status, standby) = ready(server);
        (standby.pid != before.pid).then_some((status, standby))
    })
}

#[test]
fn a_changed_configuration_is_served_by_one_that_was_started_with_it() {
    if !can_run("a_changed_configuration_is_served_by_one_that_was_started_with_it") {
        return;
    }
    let lab = Lab::new();
    let (server, mut client, file) = served(&lab);
    client.write(file, 0, b"before");
    let (status, standby) = ready(&server);
    server.rewrite("guest = true", "guest = true\ncomment = \"another\"");
    server.reboot();
    let next = server.successor_of(status.worker_pid);
    assert_ne!(next.worker_pid, standby.pid);
    assert!(server.log().contains("the next worker has read the log"));
    assert!(server.log().contains("the others were followed before"));
    assert_eq!(client.read(file, 0, 6), b"before");
    let (again, standby) = ready_after(&server, &standby);
    server.kill_worker(again.worker_pid);
    let next = server.successor_of(again.worker_pid);
    assert_eq!(next.worker_pid, standby.pid);
}

/// A copy of the binary, at another path.
fn copy(lab: &Lab) -> PathBuf {
    let copy = lab.path("next");
    std::fs::copy(env!("CARGO_BIN_EXE_outlast"), &copy).expect("a copy");
    copy
}

fn reboot_as(server: &Server, binary: &Path) -> Output {
    server.outlast(&["reboot", "--exec", binary.to_str().expect("UTF-8")])
}

#[test]
fn a_new_binary_has_read_the_log_before_the_old_one_leaves() {
    if !can_run("a_new_binary_has_read_the_log_before_the_old_one_leaves") {
        return;
    }
    let lab = Lab::new();
    let (server, mut client, file) = served(&lab);
    let binary = copy(&lab);
    // The second time the file of that name may be another one.
    for number in 1..=2 {
        client.write(file, 0, &[number; 60_000]);
        let (_, standby) = ready(&server);
        let output = reboot_as(&server, &binary);
        assert!(output.status.success(), "{}", error(&output));
        let status = server.status();
        assert_eq!(status.executable, binary);
        assert_ne!(status.worker_pid, standby.pid);
        assert_eq!(client.read(file, 0, 60_000), [number; 60_000]);
        let log = server.log();
        let taken_over = log.matches("the others were followed before").count();
        assert_eq!(taken_over, usize::from(number), "{log}");
    }
    // The standby worker is the new one too.
    let (status, standby) = ready(&server);
    server.kill_worker(status.worker_pid);
    let next = server.successor_of(status.worker_pid);
    assert_eq!((next.worker_pid, next.executable), (standby.pid, binary));
}

#[test]
fn a_new_binary_that_cannot_follow_is_refused() {
    if !can_run("a_new_binary_that_cannot_follow_is_refused") {
        return;
    }
    let lab = Lab::new();
    let (server, mut client, file) = served(&lab);
    let script = lab.path("next");
    let text = format!(
        "#!/bin/sh\ncase $1 in probe) exec {} \"$@\" ;; esac\nexit 7\n",
        env!("CARGO_BIN_EXE_outlast")
    );
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let (before, standby) = ready(&server);
    let output = reboot_as(&server, &script);
    assert!(!output.status.success());
    let refused = error(&output);
    assert!(
        refused.contains("cannot take over: it has ended"),
        "{refused}"
    );
    client.write(file, 0, b"still served");
    // A standby worker like the server is started again.
    let (after, another) = ready_after(&server, &standby);
    assert_eq!(after.worker_pid, before.worker_pid);
    assert_eq!(after.epoch, before.epoch);
    server.kill_worker(after.worker_pid);
    assert_eq!(client.read(file, 0, 12), b"still served");
    let next = server.successor_of(after.worker_pid);
    assert_eq!(next.worker_pid, another.pid);
}

/// The memory that the workers of a supervisor share.
fn page_of(supervisor: u32) -> Page {
    let descriptors = std::fs::read_dir(format!("/proc/{supervisor}/fd")).expect("descriptors");
    let is_page = |path: &PathBuf| {
        let target = std::fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().contains("outlast-standby")
    };
    let mut paths = descriptors.flatten().map(|entry| entry.path());
    let path = paths.find(is_page).expect("the page");
    let page = File::options().read(true).write(true).open(path);
    Page::from(OwnedFd::from(page.expect("the page can be opened")))
}

#[test]
fn a_standby_worker_with_another_state_is_ended() {
    if !can_run("a_standby_worker_with_another_state_is_ended") {
        return;
    }
    let lab = Lab::new();
    let (server, mut client, file) = served(&lab);
    let (before, standby) = ready(&server);
    let compared = wait_for("a digest to be compared", PATIENCE, || {
        let compared = server.try_status()?.compared;
        (compared.digests > 0).then_some(compared)
    });
    assert_eq!(compared.differences, 0, "{}", server.log());
    // The server's published state is changed to a wrong one.
    let page = page_of(before.supervisor_pid);
    wait_for("a difference", PATIENCE, || {
        page.set_mark(&Mark {
            from: Place::START,
            position: page.standing().position,
            digest: 0,
        });
        (server.try_status()?.compared.differences == 1).then_some(())
    });
    // The next standby worker must not find it.
    page.begin();
    let (after, another) = ready_after(&server, &standby);
    assert_eq!(after.worker_pid, before.worker_pid);
    assert!(
        server
            .log()
            .contains("differs from that of the serving one")
    );
    // The next one is compared too, and has the state.
    client.write(file, 0, b"after it");
    let digests = after.compared.digests;
    let status = wait_for("another digest to be compared", PATIENCE, || {
        let status = server.try_status()?;
        (status.compared.digests > digests).then_some(status)
    });
    assert_eq!(status.compared.differences, 1);
    server.kill_worker(status.worker_pid);
    assert_eq!(client.read(file, 0, 8), b"after it");
    let next = server.successor_of(status.worker_pid);
    assert_eq!(next.worker_pid, another.pid);
}

#[test]
fn there_is_none_if_it_is_switched_off() {
    if !can_run("there_is_none_if_it_is_switched_off") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(
        &lab,
        Setup {
            server: "standby = false".to_owned(),
            ..setup()
        },
    );
    for _ in 0..2 {
        let status = server.status();
        assert_eq!(status.standby, None);
        server.kill_worker(status.worker_pid);
        server.successor_of(status.worker_pid);
    }
    assert!(!server.log().contains("the standby worker"));
}
