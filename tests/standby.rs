//! The worker that stands by: it takes over when the one that serves is gone, and its own end is nobody's loss.

mod support;

use outlast::control::{StandbyStatus, Status};
use rustix::process::{Pid, Signal, kill_process};

use support::lab::Lab;
use support::raw::{Client, FileId};
use support::server::{Server, Setup};
use support::{PATIENCE, can_run, wait_for};

fn setup() -> Setup {
    Setup {
        share: "guest = true".to_owned(),
        ..Setup::default()
    }
}

/// A server, and a client that has a file open.
fn served(lab: &Lab) -> (Server, Client, FileId) {
    let server = Server::start(lab, setup());
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 2, 0);
    (server, client, file)
}

/// The server's status when a worker stands by that has read all of the log.
fn ready(server: &Server) -> (Status, StandbyStatus) {
    wait_for("a worker to stand by", PATIENCE, || {
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
    assert!(server.log().contains("the others followed before"));
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
    wait_for("nobody to stand by", PATIENCE, || {
        server
            .try_status()
            .filter(|status| status.standby.is_none())
    });
    server.kill_worker(status.worker_pid);
    assert_eq!(client.read(file, 0, 12), b"still served");
    server.successor_of(status.worker_pid);
}

#[test]
fn one_that_is_stopped_is_not_waited_for() {
    if !can_run("one_that_is_stopped_is_not_waited_for") {
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
    wait_for("another worker to stand by", PATIENCE, || {
        let (status, standby) = ready(server);
        (standby.pid != before.pid).then_some((status, standby))
    })
}

#[test]
fn a_changed_configuration_is_not_served_by_it() {
    if !can_run("a_changed_configuration_is_not_served_by_it") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, setup());
    let (status, standby) = ready(&server);
    server.rewrite("guest = true", "guest = true\ncomment = \"another\"");
    server.reboot();
    let next = server.successor_of(status.worker_pid);
    assert_ne!(next.worker_pid, standby.pid);
    let (again, standby) = ready_after(&server, &standby);
    server.kill_worker(again.worker_pid);
    let next = server.successor_of(again.worker_pid);
    assert_eq!(next.worker_pid, standby.pid);
}

#[test]
fn there_is_none_if_that_is_not_wanted() {
    if !can_run("there_is_none_if_that_is_not_wanted") {
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
    assert!(!server.log().contains("stood by"));
}
