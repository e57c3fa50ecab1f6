//! A request that fells the worker by its own fault three times is put aside, and everyone else lives (law 5).

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use support::capture::Capture;
use support::client::{SMB3_1_1, Session, smbclient};
use support::lab::Lab;
use support::raw::{self, Client};
use support::server::{Server, Setup};
use support::{PATIENCE, Rng, can_run, files, wait_for};

const BIG: u64 = 512 << 20;

/// What becomes of the client with the request.
#[derive(PartialEq, Eq)]
enum End {
    /// It is answered with INTERNAL_ERROR and goes on.
    Answered,
    /// Its connection is dropped.
    Dropped,
}

/// Another client downloads while `fault` fells the worker at the request of this one.
fn a_request_fells_the_worker(test: &str, fault: &str, end: End) {
    if !can_run(test) {
        return;
    }
    let lab = Lab::new();
    let trigger = lab.path("fault");
    std::fs::write(&trigger, fault).expect("the fault");
    let setup = Setup {
        share: "guest = true".to_owned(),
        environment: vec![("OUTLAST_FAULT", trigger)],
        ..Setup::default()
    };
    let server = Server::start(&lab, setup);
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
        // it did not cost it its session
        evil.write(file, 0, b"still there");
        evil.close(file);
    } else {
        assert!(evil.is_dropped());
    }
    assert!(
        files::size(&local.join("big")) < BIG,
        "the bystander was through before the blows were over"
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

    let kept: Vec<PathBuf> = std::fs::read_dir(lab.dir())
        .expect("the lab")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains("nvram.felled-"))
        .collect();
    let [kept] = &kept[..] else {
        panic!("one request is kept aside: {kept:?}")
    };
    let message = std::fs::read(kept).expect("the request");
    assert_eq!(message[..4], *b"\xFESMB");
    assert_eq!(message[12..14], raw::SET_INFO.to_le_bytes());
    assert!(message.ends_with(&basic));
    assert_eq!(
        std::fs::metadata(kept)
            .expect("the file")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert!(
        server.log().contains(kept.to_str().expect("UTF-8")),
        "the log names it"
    );
}

#[test]
fn before_the_operation_is_on_record() {
    a_request_fells_the_worker(
        "before_the_operation_is_on_record",
        "2:before:set-basic:1:abort",
        End::Dropped,
    );
}

#[test]
fn when_the_operation_is_redone() {
    a_request_fells_the_worker(
        "when_the_operation_is_redone",
        "3:before:set-basic:1:abort",
        End::Answered,
    );
}
