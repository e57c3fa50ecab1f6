//! Tests signals to the server's processes: which of them end it, and which do not.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use support::client::{self, SMB3_1_1, Session, anonymous, smbclient};
use support::lab::{Lab, SERVER};
use support::server::{Server, Setup};
use support::{PATIENCE, can_run, wait_for};

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal).expect("a signal");
}

/// The earlier session still works.
fn finish(server: &Server, mut session: Session) {
    assert_eq!(server.status().connections[0].smb.opens, 1);
    session.close_held(|| server.status().connections[0].smb.opens == 0);
    session.say("quit");
    session.finish().well();
}

#[test]
fn a_plain_kill_of_the_worker_does_not_end_the_server() {
    if !can_run("a_plain_kill_of_the_worker_does_not_end_the_server") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let before = server.status();
    signal(before.worker_pid, Signal::TERM);
    let after = server.successor_of(before.worker_pid);
    assert_eq!(after.supervisor_pid, before.supervisor_pid);
    finish(&server, session);
    server.assert_sound();
}

#[test]
fn ignored_signals_end_nothing() {
    if !can_run("ignored_signals_end_nothing") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let before = wait_for("a worker that stands by", PATIENCE, || {
        server
            .try_status()
            .filter(|status| status.standby.is_some())
    });
    let standby = before.standby.as_ref().expect("one").pid;
    for pid in [before.supervisor_pid, before.worker_pid, standby] {
        signal(pid, Signal::USR1);
        signal(pid, Signal::USR2);
    }
    wait_for("the supervisor to say so", PATIENCE, || {
        server
            .log()
            .contains("SIGUSR1 and SIGUSR2 are ignored")
            .then_some(())
    });
    let after = server.status();
    assert_eq!(
        (after.supervisor_pid, after.worker_pid),
        (before.supervisor_pid, before.worker_pid)
    );
    assert_eq!(after.standby.map(|standby| standby.pid), Some(standby));
}

#[test]
fn sighup_reads_the_files_again() {
    if !can_run("sighup_reads_the_files_again") {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, Setup::default());
    let local = lab.make_dir("local");
    let session = Session::holding(smbclient(SMB3_1_1), server.share(), "held", &local);
    let bob = |share: &str| {
        let mut command = anonymous(&format!("//{SERVER}/{share}"));
        command.args(["-U", "bob%swordfish"]);
        client::run(command, &local, "ls")
    };
    server.add_user("bob", "swordfish");
    assert!(!bob("pub").success, "the previous users are used");
    let share = server.share().display();
    let more = format!(
        "[limits]\nmax_trees_per_connection = 7\n\n[[share]]\nname = \"more\"\npath = \"{share}\"\n\n[[share]]"
    );
    let good = server.rewrite("[[share]]", &more);
    let before = server.status();
    signal(before.supervisor_pid, Signal::HUP);
    let now = server.successor_of(before.worker_pid);
    assert_eq!(now.supervisor_pid, before.supervisor_pid);
    assert!(now.serves.shares.contains(&"more".to_owned()));
    bob("pub").well();
    bob("more").well();

    // A configuration that cannot be served is refused before anything happens.
    server.rewrite("max_trees_per_connection", "max_treees_per_connection");
    signal(before.supervisor_pid, Signal::HUP);
    wait_for("the refusal", PATIENCE, || {
        let log = server.log();
        let line = log
            .lines()
            .find(|line| line.contains("the previous configuration and users are kept"))?;
        assert!(
            line.contains("write \"max_trees_per_connection\""),
            "{line}"
        );
        Some(())
    });
    assert_eq!(server.status().worker_pid, now.worker_pid);
    std::fs::write(server.config(), good).expect("the configuration");
    signal(before.supervisor_pid, Signal::HUP);
    let last = server.successor_of(now.worker_pid);
    assert!(!last.serves.shares.contains(&"more".to_owned()));
    finish(&server, session);
    server.assert_sound();
}
