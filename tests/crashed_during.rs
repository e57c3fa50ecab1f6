//! Tests that a request during which the worker crashes three times, by any signal, is set aside, and all other clients
//! continue (law 5).

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use support::capture::Capture;
use support::client::{SMB3_1_1, Session, smbclient};
use support::lab::Lab;
use support::raw::{self, Client};
use support::server::{Server, Setup};
use support::{PATIENCE, Rng, can_run, files, wait_for};

const BIG: u64 = 512 << 20;

/// A server whose workers have a fault.
struct Scene {
    // dropped before the lab
    server: Server,
    /// The file that defines the fault; a worker reads it when it starts.
    trigger: PathBuf,
    lab: Lab,
}

impl Scene {
    /// `None`: the test cannot run here. `fault`: of the first worker.
    fn start(test: &str, fault: Option<&str>) -> Option<Scene> {
        if !can_run(test) {
            return None;
        }
        let lab = Lab::new();
        let trigger = lab.path("fault");
        if let Some(fault) = fault {
            std::fs::write(&trigger, fault).expect("the fault");
        }
        let setup = Setup {
            share: "guest = true".to_owned(),
            environment: vec![("OUTLAST_FAULT", trigger.clone())],
            ..Setup::default()
        };
        Some(Scene {
            server: Server::start(&lab, setup),
            trigger,
            lab,
        })
    }

    /// Kills the worker; the workers after it have this fault.
    fn kill_and_arm(&self, fault: &str) {
        std::fs::write(&self.trigger, fault).expect("the fault");
        self.server.kill_worker(self.server.status().worker_pid);
    }

    /// Returns the one file beside the NVRAM that keeps what killed the worker too often: the log names it, and other
    /// accounts may not read it.
    fn set_aside(&self) -> Vec<u8> {
        let kept: Vec<PathBuf> = std::fs::read_dir(self.lab.dir())
            .expect("the lab")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.to_string_lossy().contains("nvram.crash-"))
            .collect();
        let [kept] = &kept[..] else {
            panic!("one file is set aside: {kept:?}");
        };
        let mode = std::fs::metadata(kept).expect("it").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let log = self.server.log();
        assert!(log.contains(kept.to_str().expect("UTF-8")), "{log}");
        std::fs::read(kept).expect("its bytes")
    }
}

/// The outcome for the client of the request.
#[derive(PartialEq, Eq)]
enum End {
    /// It is answered with INTERNAL_ERROR and continues.
    Answered,
    /// Its connection is dropped.
    Dropped,
}

/// Another client downloads while `fault` kills the worker at the request of this one.
fn a_request_kills_the_worker(test: &str, fault: &str, end: End) {
    let Some(scene) = Scene::start(test, Some(fault)) else {
        return;
    };
    let (server, lab) = (&scene.server, &scene.lab);
    files::random_file(&server.share().join("big"), BIG, &mut Rng::named(test));
    let local = lab.make_dir("local");
    let capture = Capture::start();
    let before = server.status();

    let mut evil = Client::guest();
    let file = evil.create("file", 0x0017_019F, 2, 0);
    let mut bystander = Session::start(smbclient(SMB3_1_1), &local, "get big");
    wait_for("the bystander to have begun", PATIENCE, || {
        assert!(!bystander.has_ended(), "{}", bystander.text());
        (files::size(&local.join("big")) > 0).then_some(())
    });
    let mut basic = [0; 40];
    basic[32] = 0x20;
    let number = evil.request(raw::SET_INFO, &raw::set_info(file, 1, 4, 0, &basic));
    if end == End::Answered {
        let answer = evil.answer(number);
        assert_eq!(answer.status, raw::STATUS_INTERNAL_ERROR, "{answer:x?}");
        // it did not lose its session
        evil.write(file, 0, b"still there");
        evil.close(file);
    } else {
        assert!(evil.is_dropped());
    }
    assert!(
        files::size(&local.join("big")) < BIG,
        "the bystander was through before the faults were over"
    );
    let evil_port = evil.stream.local_addr().expect("an address").port();
    drop(evil);

    bystander.finish().well();
    files::assert_same(&server.share().join("big"), &local.join("big"));
    server.wait_until_left_alone();
    assert_eq!(server.status().epoch, before.epoch + 3, "deaths");
    let verdict = capture.verdict();
    assert_eq!(verdict.syns.len(), 2);
    for (port, syns) in &verdict.syns {
        assert_eq!(syns.len(), 1, "port {port} connected again");
    }
    let dropped = if end == End::Dropped {
        vec![evil_port]
    } else {
        Vec::new()
    };
    assert_eq!(
        verdict.reset.into_iter().collect::<Vec<_>>(),
        dropped,
        "connections with a reset"
    );

    let message = scene.set_aside();
    assert_eq!(message[..4], *b"\xFESMB");
    assert_eq!(message[12..14], raw::SET_INFO.to_le_bytes());
    assert!(message.ends_with(&basic));
}

#[test]
fn before_the_operation_is_recorded() {
    a_request_kills_the_worker(
        "before_the_operation_is_recorded",
        "2:before:set-basic:1:abort",
        End::Dropped,
    );
}

#[test]
fn when_the_operation_is_redone() {
    a_request_kills_the_worker(
        "when_the_operation_is_redone",
        "3:before:set-basic:1:abort",
        End::Answered,
    );
}

/// The kernel kills by SIGKILL when memory is short: no signal of the worker's own shows that the request caused it.
#[test]
fn killed_each_time_that_it_is_processed() {
    a_request_kills_the_worker(
        "killed_each_time_that_it_is_processed",
        "3:before:set-basic:1:kill",
        End::Answered,
    );
}

/// A server that is killed often while the same connection is busy blames no request: each time some work was done in
/// between.
#[test]
fn killed_often_with_work_done_between() {
    let Some(scene) = Scene::start("killed_often_with_work_done_between", None) else {
        return;
    };
    let server = &scene.server;
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 2, 0);
    let before = server.status();
    for round in 0..5 {
        scene.kill_and_arm("3:before:write:1");
        client.write(file, round, b"x");
        assert!(!scene.trigger.exists(), "the worker has died at the write");
    }
    client.close(file);
    let after = server.status();
    assert_eq!(
        after.epoch,
        before.epoch + 10,
        "a kill and a death each time"
    );
    assert_eq!(
        std::fs::read(server.share().join("file")).expect("the file"),
        b"xxxxx"
    );
}

/// The object in the log of the client with this port.
fn object_of(lab: &Lab, port: u16) -> u64 {
    let shown = Command::new(env!("CARGO_BIN_EXE_outlast"))
        .args(["nvram", "show", "--json"])
        .arg(lab.path("nvram"))
        .output()
        .expect("outlast");
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let clients = shown["clients"].as_array().expect("clients");
    let is_its = |client: &&serde_json::Value| {
        let address = client["connection"]["client"].as_str();
        address.is_some_and(|address| address.ends_with(&format!(":{port}")))
    };
    let client = clients.iter().find(is_its).expect("its connection");
    client["object"].as_u64().expect("an id")
}

#[test]
fn an_object_that_cannot_be_recovered() {
    an_object_is_dropped("an_object_that_cannot_be_recovered", "abort");
}

#[test]
fn an_object_that_takes_all_memory_when_it_is_recovered() {
    an_object_is_dropped(
        "an_object_that_takes_all_memory_when_it_is_recovered",
        "kill",
    );
}

/// A connection whose state kills every worker that recovers it is dropped after the third time; the others continue.
fn an_object_is_dropped(test: &str, fault: &str) {
    let Some(scene) = Scene::start(test, None) else {
        return;
    };
    let server = &scene.server;
    let mut bystander = Client::guest();
    let others = bystander.create("others", 0x0017_019F, 2, 0);
    let mut evil = Client::guest();
    let file = evil.create("file", 0x0017_019F, 2, 0);
    let port = evil.stream.local_addr().expect("an address").port();
    let object = object_of(&scene.lab, port);
    let before = server.status();
    scene.kill_and_arm(&format!("object:before:{object}:1:{fault}"));

    bystander.write(others, 0, b"still there");
    bystander.close(others);
    // Its next segment is for a missing connection.
    evil.request(raw::CLOSE, &raw::close(file));
    assert!(evil.is_dropped());
    assert_eq!(server.status().epoch, before.epoch + 4, "a kill and deaths");
    let bytes = scene.set_aside();
    assert!(
        bytes.windows(4).any(|part| part == b"file"),
        "the open's path is in it"
    );
    let log = server.log();
    assert!(log.contains(&format!("connection {object} could not be recovered")));
}
