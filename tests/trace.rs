//! Tests `outlast trace`: a picture of a download whose server is killed, from the device and from the capture that it
//! saves.

#[path = "support/mod.rs"]
mod support;

use std::process::{Command, Stdio};

use support::client::{SMB3_1_1, Session, smbclient};
use support::lab::Lab;
use support::server::{Server, Setup};
use support::{PATIENCE, Rng, can_run, files, wait_for};

const MEGABYTES: u64 = 64;

#[test]
fn a_download_through_two_deaths_is_one_line_live_and_from_the_file() {
    const TEST: &str = "a_download_through_two_deaths_is_one_line_live_and_from_the_file";
    if !can_run(TEST) {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let size = MEGABYTES << 20;
    files::random_file(&server.share().join("big"), size, &mut Rng::named(TEST));
    let local = lab.make_dir("client");
    let (capture, picture) = (lab.path("live.pcap"), lab.path("live.svg"));
    let trace = server
        .command(&["trace", "--live", "tap0", "--seconds", "600"])
        .args(["--save".as_ref(), capture.as_os_str()])
        .args(["--output".as_ref(), picture.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("outlast trace");
    // The file exists once it captures.
    wait_for("the capture", PATIENCE, || {
        std::fs::metadata(&capture).ok().map(drop)
    });

    let mut session = Session::start(smbclient(SMB3_1_1), &local, "get big first; get big again");
    for (copy, part) in [("first", 1), ("again", 2)] {
        wait_for("the download", PATIENCE, || {
            (files::size(&local.join(copy)) >= size * part / 4 || session.has_ended()).then_some(())
        });
        let worker = server.status().worker_pid;
        server.kill_worker(worker);
        server.successor_of(worker);
    }
    session.finish().well();
    let pid = rustix::process::Pid::from_child(&trace);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("SIGINT");
    let output = trace.wait_with_output().expect("outlast trace");
    let live = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{live}");
    assert!(
        live.contains("1 connection, 1 SYN of the client, no RST"),
        "{live}"
    );
    let svg = std::fs::read_to_string(&picture).expect("the picture");
    assert!(svg.starts_with("<svg") && svg.contains("10.77.0.2 to 10.77.0.1:445"));

    // The same from the file, with a PNG.
    let again = lab.path("again.png");
    let mut read = Command::new(env!("CARGO_BIN_EXE_outlast"));
    read.arg("trace").arg(&capture).arg("--output").arg(&again);
    let output = read.output().expect("outlast trace");
    let text = String::from_utf8_lossy(&output.stdout);
    let without_pictures = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("picture: "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(without_pictures(&live), without_pictures(&text));
    assert!(
        std::fs::read(again)
            .expect("the picture")
            .starts_with(b"\x89PNG")
    );
}
