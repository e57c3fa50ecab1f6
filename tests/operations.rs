//! Tests commands of administrators for a running server, and for its files.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::client::{SIGNED, SMB3_1_1, Session, smbclient};
use support::lab::Lab;
use support::server::{Server, Setup, USER};
use support::{PATIENCE, can_run, wait_for};

/// The beginning of the records in an NVRAM file (`docs/log-format.md`).
const RING_AT: usize = 12_288;

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(error)
}

fn outlast(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outlast"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("outlast")
}

#[test]
fn a_crash_by_command_is_one_that_clients_do_not_see() {
    if !can_run("a_crash_by_command_is_one_that_clients_do_not_see") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let mut session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let before = server.status();
    assert_eq!(before.last_outage, None);
    let output = server.outlast(&["crash"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("1 connections kept"),
        "{}",
        text(&output)
    );
    let after = server.status();
    assert_ne!(after.worker_pid, before.worker_pid);
    let outage = after.last_outage.expect("an outage");
    assert_eq!(outage.cause, "the worker was killed");
    assert!(outage.seconds > 0.0);
    session.say("get held back");
    session.expect("as back");
    server.reboot();
    let planned = server.status().last_outage.expect("an outage");
    assert_eq!(planned.cause, "planned restart");
    session.say("quit");
    session.finish().well();
}

/// Returns whether a thread has given up gaining rights, as each does together with the sandbox (proc_pid_status(5)).
fn is_confined(status: &Path) -> bool {
    let text = std::fs::read_to_string(status).expect("a thread's status");
    text.lines().any(|line| line == "NoNewPrivs:\t1")
}

#[test]
fn every_thread_of_a_worker_is_in_its_sandbox_and_the_supervisor_is_not() {
    if !can_run("every_thread_of_a_worker_is_in_its_sandbox_and_the_supervisor_is_not") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    if server.status().sandbox.starts_with("none") {
        eprintln!("SKIPPED: {}", server.status().sandbox);
        return;
    }
    for _ in 0..2 {
        let status = server.status();
        let of = |pid: u32| PathBuf::from(format!("/proc/{pid}"));
        let threads = std::fs::read_dir(of(status.worker_pid).join("task")).expect("its threads");
        let threads: Vec<PathBuf> = threads.map(|thread| thread.expect("one").path()).collect();
        assert!(threads.len() > 1, "{threads:?}");
        for thread in threads {
            assert!(is_confined(&thread.join("status")), "{thread:?}");
        }
        assert!(!is_confined(&of(status.supervisor_pid).join("status")));
        let shown = text(&server.outlast(&["status"]));
        assert!(shown.contains("sandbox: landlock ABI"), "{shown}");
        server.kill_worker(status.worker_pid);
    }
    server.assert_sound();
}

#[test]
fn only_the_named_user_is_disconnected() {
    if !can_run("only_the_named_user_is_disconnected") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let _session = Session::holding(smbclient(SIGNED), server.share(), "held", &local);
    let output = server.outlast(&["disconnect", "somebody-else"]);
    assert!(!output.status.success());
    assert!(
        text(&output).contains("outlast status"),
        "the remedy: {}",
        text(&output)
    );
    let output = server.outlast(&["disconnect", USER]);
    assert!(output.status.success(), "{}", text(&output));
    let is_alone = || server.status().connections.is_empty().then_some(());
    wait_for("the connection's end", PATIENCE, is_alone);

    let _again = Session::holding(smbclient(SIGNED), server.share(), "held", &local);
    let client = server.status().connections[0].client.to_string();
    let output = server.outlast(&["disconnect", &client]);
    assert!(output.status.success(), "{}", text(&output));
    wait_for("the connection's end", PATIENCE, is_alone);
}

#[test]
fn nothing_secret_is_left_of_a_stopped_server() {
    if !can_run("nothing_secret_is_left_of_a_stopped_server") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let mut session = Session::interactive(smbclient(SIGNED), &local);
    session.say("ls");
    session.expect("blocks");
    for pid in [server.status().worker_pid, server.status().supervisor_pid] {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let core = limits.lines().find(|line| line.contains("core file"));
        let words: Vec<&str> = core.expect("a limit").split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "no core dump");
    }
    let nvram = lab.path("nvram");
    let is_empty = || {
        let bytes = std::fs::read(&nvram).expect("the NVRAM");
        bytes[RING_AT..].iter().all(|byte| *byte == 0)
    };
    assert!(!is_empty());
    let output = server.outlast(&["stop"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(server.ended(), Some(0));
    assert!(is_empty());
}

#[test]
fn a_checkpoint_is_reset_only_when_it_is_not_in_use() {
    if !can_run("a_checkpoint_is_reset_only_when_it_is_not_in_use") {
        return;
    }
    let lab = Lab::new();
    let mut server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let _session = Session::holding(smbclient(SIGNED), server.share(), "held", &local);
    let nvram = lab.path("nvram");
    let name = nvram.to_str().expect("UTF-8");
    let reset = |more: &[&str]| {
        let output = outlast(&[&["nvram", "reset", name], more].concat());
        (output.status.success(), text(&output))
    };
    let (done, said) = reset(&["--yes"]);
    assert!(!done && said.contains("outlast stop"), "in use: {said}");
    server.terminate();
    let (done, said) = reset(&[]);
    assert!(
        !done && said.contains("--yes"),
        "no terminal to ask: {said}"
    );
    assert!(
        said.contains("1 connection(s) with 1 open file(s)"),
        "{said}"
    );
    let (done, said) = reset(&["--yes"]);
    assert!(done && !nvram.exists(), "{said}");
    server.start_again();
    assert!(server.status().connections.is_empty());
    let (done, said) = reset(&["--yes"]);
    assert!(!done, "in use: {said}");
    std::fs::write(lab.path("other"), "no checkpoint").expect("a file");
    let other = lab.path("other");
    let output = outlast(&["nvram", "reset", other.to_str().expect("UTF-8")]);
    assert!(!output.status.success() && other.exists());
}

#[test]
fn a_check_reports_all_errors_of_a_configuration() {
    if !can_run("a_check_reports_all_errors_of_a_configuration") {
        return;
    }
    let lab = Lab::new();
    let server = Server::prepare(&lab, Setup::default());
    let output = server.outlast(&["check"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        !lab.path("nvram").exists(),
        "it is looked at before the first start, and nothing is made"
    );
    let right = std::fs::read_to_string(server.config()).expect("the configuration");
    for (changes, expected) in [
        (
            [
                ("signing = \"enabled\"", "signing = \"maybe\""),
                ("10.77.0.1/24", "10.77.0.1/33"),
            ],
            ["server.signing", "network.addresses"],
        ),
        (
            [
                ("/share\"", "/nowhere\""),
                ("tap = \"tap0\"", "tap = \"tap9\""),
            ],
            ["nowhere", "network.tap"],
        ),
    ] {
        let mut wrong = right.clone();
        for (from, to) in changes {
            assert!(wrong.contains(from), "{from}");
            wrong = wrong.replacen(from, to, 1);
        }
        std::fs::write(server.config(), wrong).expect("the configuration");
        let output = server.outlast(&["check"]);
        assert!(!output.status.success(), "{}", text(&output));
        let said = text(&output);
        assert_eq!(said.matches("error: ").count(), 2, "{said}");
        for word in expected {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
