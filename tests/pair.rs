//! Tests two servers on one link, with one log, one lock and one share: the service moves between them, and clients
//! continue on the same TCP connections.

mod support;

use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use support::capture::Capture;
use support::client::{Dialect, ENCRYPTED, SMB3_1_1, Session, smbclient};
use support::idle::Idle;
use support::lab::run;
use support::pair::{Pair, signal};
use support::raw::{self, Client};
use support::server::{Server, error};
use support::speakers::Speakers;
use support::{PATIENCE, Rng, can_run, files, wait_for};

const SIZE: u64 = 256 << 20;

/// The work of a client.
#[derive(Clone, Copy, Debug)]
enum Workload {
    Get,
    Put,
}

/// A fault of the service meanwhile.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// `outlast takeover`, then `outlast giveback`.
    Elective,
    /// kill -9 of the whole first server.
    Kill,
}

fn transfer(workload: Workload, fault: Fault, dialect: Dialect) {
    let mut pair = Pair::start(dialect, "");
    let local = pair.lab.make_dir("local");
    let share = pair.servers[0].share().to_owned();
    let (from, to) = match workload {
        Workload::Get => (share.join("big"), local.join("copy")),
        Workload::Put => (local.join("big"), share.join("copy")),
    };
    let mut rng = Rng::named(&format!("{workload:?} {fault:?}"));
    files::random_file(&from, SIZE, &mut rng);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", "tap1"]));
    let command = match workload {
        Workload::Get => "get big copy",
        Workload::Put => "put big copy",
    };
    let client = Session::start(smbclient(dialect), &local, command);
    files::wait_until_written(&to, SIZE, 10);
    let turns = match fault {
        Fault::Elective => {
            pair.order(0, &["takeover"]);
            files::wait_until_written(&to, SIZE, 40);
            pair.wait_until_in_step(1);
            pair.order(1, &["giveback"]);
            3
        }
        Fault::Kill => {
            pair.kill(0);
            2
        }
    };
    client.finish().well();
    let serving = usize::from(matches!(fault, Fault::Kill));
    pair.wait_until_serving(serving);
    files::assert_same(&from, &to);
    pair.servers[serving].wait_until_left_alone();
    speakers.assert_alternate(turns);
    capture.verdict().assert_untouched(1);
    pair.servers.iter().for_each(Server::assert_sound);
}

//= patent claim-12, claim-13, claim-15, claim-16, claim-17, claim-20
//= patent claim-33, claim-34, claim-36, claim-37, claim-38, claim-41
//= patent fig2-217, fig2-225
#[test]
fn a_get_continues_through_takeover_and_giveback() {
    if can_run("a_get_continues_through_takeover_and_giveback") {
        transfer(Workload::Get, Fault::Elective, SMB3_1_1);
    }
}

#[test]
fn a_put_continues_through_takeover_and_giveback() {
    if can_run("a_put_continues_through_takeover_and_giveback") {
        transfer(Workload::Put, Fault::Elective, ENCRYPTED);
    }
}

//= patent claim-15, claim-16, claim-17, claim-20, claim-36, claim-37, claim-38, claim-41
//= patent fig4-409, fig4-411, fig4-413, fig4-415
#[test]
fn a_get_continues_when_the_first_server_is_killed() {
    if can_run("a_get_continues_when_the_first_server_is_killed") {
        transfer(Workload::Get, Fault::Kill, ENCRYPTED);
    }
}

#[test]
fn a_put_continues_when_the_first_server_is_killed() {
    if can_run("a_put_continues_when_the_first_server_is_killed") {
        transfer(Workload::Put, Fault::Kill, SMB3_1_1);
    }
}

fn idle(mut fault: impl FnMut(&mut Pair), turns: usize) {
    let mut pair = Pair::start(SMB3_1_1, "");
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", "tap1"]));
    let mut idle = Idle::begin();
    fault(&mut pair);
    idle.check();
    // The two clients end first, so that no FIN is the server's.
    drop(idle);
    let last = usize::from(turns.is_multiple_of(2));
    pair.servers[last].wait_until_left_alone();
    speakers.assert_alternate(turns);
    capture.verdict().assert_untouched(2);
}

#[test]
fn locks_and_oplocks_go_with_the_service() {
    if can_run("locks_and_oplocks_go_with_the_service") {
        idle(|pair| pair.order(0, &["takeover"]), 2);
    }
}

#[test]
fn locks_and_oplocks_come_back_with_it() {
    if !can_run("locks_and_oplocks_come_back_with_it") {
        return;
    }
    idle(
        |pair| {
            pair.order(0, &["takeover"]);
            pair.wait_until_in_step(1);
            pair.order(1, &["giveback"]);
        },
        3,
    );
}

#[test]
fn locks_and_oplocks_survive_the_death_of_their_server() {
    if can_run("locks_and_oplocks_survive_the_death_of_their_server") {
        idle(|pair| pair.kill(0), 2);
    }
}

/// The bridge has learned where the service is, and a node on standby receives nothing.
#[test]
fn a_node_that_has_received_no_frames_takes_over() {
    if !can_run("a_node_that_has_received_no_frames_takes_over") {
        return;
    }
    let learn_and_kill = |pair: &mut Pair| {
        for tap in ["tap0", "tap1"] {
            run(&format!("bridge link set dev {tap} learning on"));
        }
        pair.kill(0);
    };
    idle(learn_and_kill, 2);
}

/// The client's TCP does not repeat the request: its timer is longer than the test.
#[test]
fn a_request_that_was_lost_with_its_server_is_answered_by_the_other() {
    if !can_run("a_request_that_was_lost_with_its_server_is_answered_by_the_other") {
        return;
    }
    let pair = Pair::start(SMB3_1_1, "");
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", "tap1"]));
    run("ip route change 10.77.0.0/24 dev br0 src 10.77.0.2 rto_min 100s");
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 3, 0);
    client.write(file, 0, b"before");
    pair.wait_until_in_step(0);
    let processes = pair.processes(0);
    signal(&processes, Signal::STOP);
    let asked = client.request(raw::READ, &raw::read(file, 0, 6));
    signal(&processes, Signal::KILL);
    let answer = client.answer(asked).ok();
    assert!(answer.body.ends_with(b"before"));
    drop(client);
    pair.servers[1].wait_until_left_alone();
    speakers.assert_alternate(2);
    capture.verdict().assert_untouched(1);
}

#[test]
fn a_holder_that_is_stopped_stays_the_holder() {
    if !can_run("a_holder_that_is_stopped_stays_the_holder") {
        return;
    }
    let pair = Pair::start(SMB3_1_1, "");
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", "tap1"]));
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 3, 0);
    client.write(file, 0, b"before");
    pair.wait_until_in_step(0);
    let processes = pair.processes(0);
    // Whichever of them lives longest keeps the lock.
    let lock = pair.lab.path("outlast.lock");
    for pid in &processes {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
        let mut open = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        assert!(open.any(|file| file == lock), "process {pid}");
    }
    signal(&processes, Signal::STOP);
    let asked = client.request(raw::READ, &raw::read(file, 0, 6));
    // The other node has checked many times by then, and would have taken over in a fraction of the time.
    let before = pair.servers[1].status().uptime_seconds;
    wait_for("the other node to have waited", PATIENCE, || {
        let status = pair.servers[1].try_status()?;
        let seen = status.pair?;
        assert_eq!(
            (&*seen.role, seen.holder.as_deref()),
            ("standing by", Some("a"))
        );
        (status.uptime_seconds > before + 2.0).then_some(())
    });
    let refused = pair.servers[1].outlast(&["takeover", "--force"]);
    assert!(
        error(&refused).contains("partner.fence_command"),
        "{refused:?}"
    );
    signal(&processes, Signal::CONT);
    let answer = client.answer(asked).ok();
    assert!(answer.body.ends_with(b"before"));
    drop(client);
    pair.servers[0].wait_until_left_alone();
    speakers.assert_alternate(1);
    capture.verdict().assert_untouched(1);
}

#[test]
fn a_stopped_holder_is_fenced_and_its_service_taken() {
    if !can_run("a_stopped_holder_is_fenced_and_its_service_taken") {
        return;
    }
    let pids = std::env::temp_dir().join(format!("outlast-pair-pids-{}", std::process::id()));
    let fence = format!(
        "fence_command = \"test $OUTLAST_NODE = a && kill -9 $(cat {})\"",
        pids.display()
    );
    let pair = Pair::start(SMB3_1_1, &fence);
    let mut idle = Idle::begin();
    let status = pair.wait_until_in_step(0);
    let supervisor = pair.servers[0].supervisor_pid();
    std::fs::write(&pids, format!("{supervisor} {}", status.worker_pid)).expect("written");
    signal(&[supervisor, status.worker_pid], Signal::STOP);
    pair.order(1, &["takeover", "--force"]);
    pair.wait_until_serving(1);
    idle.check();
    std::fs::remove_file(&pids).expect("removed");
}

#[test]
fn a_node_that_leaves_for_a_reboot_is_waited_for() {
    if !can_run("a_node_that_leaves_for_a_reboot_is_waited_for") {
        return;
    }
    let mut pair = Pair::start(SMB3_1_1, "");
    let mut idle = Idle::begin();
    pair.servers[0].terminate();
    wait_for("the other node to wait", PATIENCE, || {
        let seen = pair.servers[1].try_status()?.pair?;
        (seen.role == "waiting" && seen.if_died.contains("its state waits")).then_some(())
    });
    pair.servers[0].start_again();
    pair.wait_until_serving(0);
    // If it does not restart, its state is taken over.
    pair.servers[0].terminate();
    pair.order(1, &["takeover", "--force"]);
    pair.wait_until_serving(1);
    idle.check();
}

#[test]
fn a_service_that_is_stopped_stays_stopped() {
    if !can_run("a_service_that_is_stopped_stays_stopped") {
        return;
    }
    let mut pair = Pair::start(SMB3_1_1, "");
    pair.order(0, &["stop"]);
    assert_eq!(pair.servers[0].ended(), Some(0));
    wait_for("the other node to wait", PATIENCE, || {
        let seen = pair.servers[1].try_status()?.pair?;
        (seen.role == "waiting" && seen.if_died.contains("was stopped")).then_some(())
    });
    pair.servers[0].start_again();
    pair.wait_until_serving(0);
}

#[test]
fn hooks_run_in_their_order() {
    if !can_run("hooks_run_in_their_order") {
        return;
    }
    let notes = std::env::temp_dir().join(format!("outlast-pair-notes-{}", std::process::id()));
    let note = |what: &str| format!("echo {what} $OUTLAST_NODE >> {}", notes.display());
    let section = format!(
        "fence_command = \"{}\"\nmount_command = \"{}\"\nunmount_command = \"{}\"",
        note("fence"),
        note("mount"),
        note("unmount")
    );
    let mut pair = Pair::start(SMB3_1_1, &section);
    pair.order(0, &["takeover"]);
    pair.wait_until_in_step(1);
    pair.kill(1);
    pair.wait_until_serving(0);
    let text = std::fs::read_to_string(&notes).expect("notes");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        ["mount a", "unmount a", "mount b", "fence b", "mount a"]
    );
    std::fs::remove_file(&notes).expect("removed");
}

#[test]
fn status_says_what_would_happen() {
    if !can_run("status_says_what_would_happen") {
        return;
    }
    let mut pair = Pair::prepare(SMB3_1_1, "", "");
    pair.servers[0].start_again();
    let alone = pair.wait_until_serving(0);
    assert_eq!(alone.flag, "non-elective-reboot");
    let seen = alone.pair.expect("a pair");
    assert!(!seen.in_step && !seen.partner_runs);
    let refused = pair.servers[0].outlast(&["takeover"]);
    assert!(
        error(&refused).contains("node b does not run"),
        "{refused:?}"
    );
    pair.servers[1].start_again();
    pair.wait_until_in_step(0);
    let refused = pair.servers[0].outlast(&["giveback"]);
    assert!(error(&refused).contains("outlast takeover"), "{refused:?}");
    let refused = pair.servers[1].outlast(&["takeover"]);
    assert!(
        error(&refused).contains("run this on node a"),
        "{refused:?}"
    );
    for (node, says) in [(0, "takes over at once"), (1, "this one takes over")] {
        let output = pair.servers[node].outlast(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let in_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(in_one_line.contains(says), "{text}");
        assert!(in_one_line.contains("in step for"), "{text}");
        let too_long = text.lines().find(|line| {
            let long = line.chars().count() > 80;
            long && line.split_whitespace().count() > 1
        });
        assert_eq!(too_long, None);
    }
    assert_eq!(pair.status(1).epoch, 1);
}

/// The nodes are two machines: each has an NVRAM of its own, and the sink is on storage that both reach.
#[test]
fn on_two_machines_the_sink_is_taken_over() {
    if !can_run("on_two_machines_the_sink_is_taken_over") {
        return;
    }
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let opened = std::fs::File::open(disk).expect("a directory");
    let problem = outlast::fs::features::power_problem(opened.as_fd());
    let needs = (
        problem.is_none(),
        "a disk on which durability power serves a share",
    );
    if !support::has("on_two_machines_the_sink_is_taken_over", &[needs]) {
        return;
    }
    let shared = Removed(disk.join("pair"));
    let files = shared.0.join("share");
    make_for_every_account(&files);
    let sink = shared.0.join("sink");
    let nvram = format!("durability = \"power\"\nsink = \"{}\"", sink.display());
    let mut pair = Pair::prepare(SMB3_1_1, "", &nvram);
    let share = format!("{}/share\"", pair.lab.dir().display());
    for server in &pair.servers {
        server.rewrite(&share, &format!("{}\"", files.display()));
    }
    pair.servers[1].rewrite("/nvram\"", "/nvram-b\"");
    for (server, boot) in pair.servers.iter_mut().zip(["a", "b"]) {
        server.set_environment("OUTLAST_BOOT_ID", &boot.repeat(32));
    }
    pair.servers[0].start_again();
    pair.wait_until_serving(0);
    pair.servers[1].start_again();
    pair.wait_until_in_step(0);
    let mut idle = Idle::begin();
    pair.kill(0);
    pair.wait_until_serving(1);
    idle.client.write(idle.locked, 0, &[7; 5000]);
    // Node a's own NVRAM is of this boot of its machine, and old.
    pair.servers[0].start_again();
    pair.wait_until_in_step(1);
    pair.order(1, &["takeover"]);
    pair.wait_until_serving(0);
    idle.check();
}

fn make_for_every_account(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory");
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir, everybody).expect("its mode");
}

/// A directory that is removed with the test.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
