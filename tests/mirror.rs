//! Tests two servers with an NVRAM each, with separate networks and boot ids as on two machines: the service moves
//! between them over the interconnect, and clients continue on the same TCP connections.

mod support;

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

use outlast::control::{PairStatus, Status};
use rustix::process::{Pid, Signal, kill_process};

use support::apart::{Apart, INTERCONNECT, INTERCONNECT_V6, LINK};
use support::capture::Capture;
use support::client::{Dialect, ENCRYPTED, SMB3_1_1, Session, smbclient};
use support::lab::{Lab, run};
use support::pair;
use support::power::{OnDisk, SinkPath, can_cut_power};
use support::raw::{Client, FileId};
use support::server::{Server, Setup, error};
use support::speakers::{MAC, Speakers};
use support::{PATIENCE, Rng, files, wait_for};

const SIZE: u64 = 256 << 20;

/// Both nodes, each with an NVRAM of its own.
struct Pair {
    nodes: pair::Pair,
    nvram: [PathBuf; 2],
}

impl Deref for Pair {
    type Target = pair::Pair;

    fn deref(&self) -> &pair::Pair {
        &self.nodes
    }
}

impl DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut pair::Pair {
        &mut self.nodes
    }
}

/// The configuration of a pair.
struct Kind {
    dialect: Dialect,
    durability: &'static str,
    addresses: [&'static str; 2],
    timeout_ms: u32,
}

const USUAL: Kind = Kind {
    dialect: SMB3_1_1,
    durability: "mirror",
    addresses: INTERCONNECT,
    timeout_ms: 1000,
};

impl Pair {
    /// Node a serves, and node b is on standby, in step.
    fn start(test: &str, kind: &Kind) -> Pair {
        let mut pair = Pair::prepare(test, kind);
        pair.begin();
        pair
    }

    fn prepare(test: &str, kind: &Kind) -> Pair {
        let lab = Lab::new();
        let disk = OnDisk::new(&lab, test);
        let apart = Apart::new();
        let init = Command::new(env!("CARGO_BIN_EXE_outlast"))
            .args(["pair", "init", "--directory"])
            .arg(lab.dir())
            .output()
            .expect("outlast pair init");
        assert!(init.status.success(), "{}", error(&init));
        let dir = lab.dir().display();
        let [a, b] = kind.addresses.map(|address| match address.contains(':') {
            true => format!("[{address}]:4450"),
            false => format!("{address}:4450"),
        });
        let sinks = ["a", "b"].map(|node| SinkPath::new(&format!("{test}-{node}")));
        let [sink_a, sink_b] = sinks.each_ref().map(|sink| match kind.durability {
            "power+mirror" => format!("sink = \"{}\"", sink.0.display()),
            _ => String::new(),
        });
        let mut first = Server::prepare(
            &lab,
            Setup {
                protection: kind.dialect.protection,
                share: "guest = true".to_owned(),
                nvram_size: "128MiB",
                nvram: format!("durability = \"{}\"\n{sink_a}", kind.durability),
                more: format!(
                    "[partner]\nnode = \"a\"\nlock = \"{dir}/outlast.lock\"\n\
                     interconnect = [\"{a}\", \"{b}\"]\nkey = \"{dir}/node-a.pem\"\ntimeout_ms = {}\n",
                    kind.timeout_ms
                ),
                ..Setup::default()
            },
        );
        first.rewrite(
            "tap = \"tap0\"",
            &format!("tap = \"tap0\"\nmac = \"{MAC}\""),
        );
        let other = [
            ("tap = \"tap0\"", "tap = \"tap1\""),
            ("node = \"a\"", "node = \"b\""),
            ("node-a.pem", "node-b.pem"),
            ("/nvram\"", "/nvram-b\""),
            (sink_a.as_str(), sink_b.as_str()),
        ];
        let mut second = first.twin(&lab, "b", &other);
        second.move_to(apart.path());
        for (server, boot) in [(&mut first, "a"), (&mut second, "b")] {
            server.set_environment("OUTLAST_BOOT_ID", &boot.repeat(32));
        }
        Pair {
            nvram: [lab.path("nvram"), lab.path("nvram-b")],
            nodes: pair::Pair {
                servers: [first, second],
                between: vec![Box::new(apart), Box::new(disk), Box::new(sinks)],
                lab,
            },
        }
    }

    /// Kills all processes of a node.
    fn end_by_power_cut(&mut self, node: usize) {
        let processes = self.processes(node);
        pair::signal(&processes, Signal::KILL);
        self.servers[node].reap();
    }

    /// Waits until the node reports that it serves alone.
    fn wait_until_alone(&self, node: usize) -> Status {
        wait_for("the other node not to be in step", PATIENCE, || {
            let status = self.servers[node].try_status()?;
            let in_step = status.pair.as_ref()?.in_step;
            (!in_step && status.flag == "non-elective-reboot").then_some(status)
        })
    }

    /// Waits until a node reports why it cannot serve, and returns its status.
    fn wait_until_waiting(&self, node: usize) -> PairStatus {
        wait_for("the node to wait", PATIENCE, || {
            let seen = self.servers[node].try_status()?.pair?;
            (seen.role == "waiting").then_some(seen)
        })
    }
}

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
    /// kill -9 of the first server's worker, three times: its supervisor starts the next one.
    KillWorker,
    /// The interconnect is down for a while.
    LinkDown,
}

fn transfer(test: &str, workload: Workload, fault: Fault, kind: &Kind) {
    if !can_cut_power(test) {
        return;
    }
    let mut pair = Pair::start(test, kind);
    let local = pair.lab.make_dir("local");
    let share = pair.servers[0].share().to_owned();
    let (from, to) = match workload {
        Workload::Get => (share.join("big"), local.join("copy")),
        Workload::Put => (local.join("big"), share.join("copy")),
    };
    let mut rng = Rng::named(test);
    files::random_file(&from, SIZE, &mut rng);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", LINK]));
    let command = match workload {
        Workload::Get => "get big copy",
        Workload::Put => "put big copy",
    };
    let client = Session::start(smbclient(kind.dialect), &local, command);
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
        Fault::KillWorker => {
            for percent in [20, 40, 60] {
                let server = &pair.servers[0];
                let worker = server.status().worker_pid;
                server.kill_worker(worker);
                server.successor_of(worker);
                files::wait_until_written(&to, SIZE, percent);
            }
            1
        }
        Fault::LinkDown => {
            run("ip link set ic0 down");
            pair.wait_until_alone(0);
            files::wait_until_written(&to, SIZE, 50);
            run("ip link set ic0 up");
            pair.wait_until_in_step(0);
            1
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

//= patent fig2-223, fig2-225
#[test]
fn a_get_continues_through_takeover_and_giveback() {
    let test = "mirror_get_elective";
    transfer(test, Workload::Get, Fault::Elective, &USUAL);
}

#[test]
fn a_put_continues_through_takeover_and_giveback() {
    let test = "mirror_put_elective";
    let kind = Kind {
        dialect: ENCRYPTED,
        ..USUAL
    };
    transfer(test, Workload::Put, Fault::Elective, &kind);
}

//= patent claim-20, claim-41
//= patent fig4-409, fig4-411, fig4-413, fig4-415
#[test]
fn a_get_continues_when_the_first_machine_is_lost() {
    let test = "mirror_get_kill";
    let kind = Kind {
        dialect: ENCRYPTED,
        addresses: INTERCONNECT_V6,
        ..USUAL
    };
    transfer(test, Workload::Get, Fault::Kill, &kind);
}

#[test]
fn a_put_continues_when_the_first_machine_is_lost() {
    transfer("mirror_put_kill", Workload::Put, Fault::Kill, &USUAL);
}

#[test]
fn a_put_continues_when_the_worker_is_killed() {
    let test = "mirror_put_worker";
    transfer(test, Workload::Put, Fault::KillWorker, &USUAL);
}

#[test]
fn a_get_continues_when_the_worker_is_killed() {
    let test = "mirror_get_worker";
    transfer(test, Workload::Get, Fault::KillWorker, &USUAL);
}

const POWER_AND_MIRROR: Kind = Kind {
    durability: "power+mirror",
    ..USUAL
};

#[test]
fn with_power_and_mirror_a_put_continues_when_the_first_machine_is_lost() {
    let test = "mirror_power_put_kill";
    transfer(test, Workload::Put, Fault::Kill, &POWER_AND_MIRROR);
}

/// Both machines lose power at once: both NVRAMs are in memory and are lost, and the sinks are not.
#[test]
fn with_power_and_mirror_sessions_survive_when_both_machines_lose_power() {
    let test = "mirror_power_both";
    if !can_cut_power(test) {
        return;
    }
    let mut pair = Pair::start(test, &POWER_AND_MIRROR);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", LINK]));
    let mut idle = Idle::begin();
    idle.write_and_read(1);
    pair.wait_until_in_step(0);
    for node in [1, 0] {
        pair.end_by_power_cut(node);
    }
    for (node, boot) in ["c", "d"].iter().enumerate() {
        std::fs::remove_file(&pair.nvram[node]).expect("the NVRAM");
        pair.servers[node].set_environment("OUTLAST_BOOT_ID", &boot.repeat(32));
    }
    pair.servers[0].start_again();
    pair.servers[1].start_again();
    idle.write_and_read(2);
    pair.wait_until_in_step(0);
    // The other machine has everything again.
    pair.kill(0);
    idle.write_and_read(3);
    pair.wait_until_serving(1);
    drop(idle);
    pair.servers[1].wait_until_left_alone();
    speakers.assert_alternate(2);
    capture.verdict().assert_untouched(1);
}

#[test]
fn a_put_continues_while_the_interconnect_is_down() {
    transfer("mirror_put_link", Workload::Put, Fault::LinkDown, &USUAL);
}

/// A client with an open file that it has written.
struct Idle {
    client: Client,
    file: FileId,
    written: Vec<u8>,
}

impl Idle {
    fn begin() -> Idle {
        let mut client = Client::guest();
        let file = client.create("file", 0x0017_019F, 3, 0);
        Idle {
            client,
            file,
            written: Vec::new(),
        }
    }

    /// Writes more data, and reads all of it back.
    fn write_and_read(&mut self, what: u8) {
        let at = self.written.len() as u64;
        self.client.write(self.file, at, &[what; 3000]);
        self.written.extend([what; 3000]);
        let len = u32::try_from(self.written.len()).expect("short");
        assert!(
            self.client.read(self.file, 0, len) == self.written,
            "other bytes"
        );
    }
}

#[test]
fn a_server_continues_without_its_partner_and_ships_to_it_again() {
    let test = "mirror_alone";
    if !can_cut_power(test) {
        return;
    }
    let mut pair = Pair::start(test, &USUAL);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", LINK]));
    let mut idle = Idle::begin();
    idle.write_and_read(1);
    let seen = pair.wait_until_in_step(0).pair.and_then(|pair| pair.link);
    assert!(seen.is_some_and(|link| link.is_connected && link.problem.is_none()));
    let follower = pair.status(1).link.expect("an interconnect");
    assert!(
        follower.is_connected && follower.heard_ms_ago.is_some(),
        "{follower:?}"
    );
    let mut other = pair.servers[1].outlast(&["status"]);
    let text = String::from_utf8_lossy(&std::mem::take(&mut other.stdout)).into_owned();
    assert!(text.contains("interconnect: connected"), "{text}");
    // The partner ends, and clients are still served.
    pair.servers[1].terminate();
    idle.write_and_read(2);
    let status = pair.wait_until_alone(0);
    assert!(
        status
            .pair
            .and_then(|pair| pair.link)
            .is_some_and(|link| !link.is_connected)
    );
    let text = pair.servers[0].outlast(&["status"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.contains("NOT IN STEP") && text.contains("NOT CONNECTED"),
        "{text}"
    );
    idle.write_and_read(3);
    // It cannot take over, because its copy is incomplete.
    pair.kill(0);
    pair.servers[1].start_again();
    let seen = pair.wait_until_waiting(1);
    assert!(seen.if_died.contains("not all here"), "{seen:?}");
    pair.servers[0].start_again();
    idle.write_and_read(4);
    // It is started again, and receives the whole log.
    pair.wait_until_in_step(0);
    pair.kill(0);
    idle.write_and_read(5);
    pair.wait_until_serving(1);
    drop(idle);
    pair.servers[1].wait_until_left_alone();
    speakers.assert_alternate(2);
    capture.verdict().assert_untouched(1);
}

#[test]
fn a_partner_that_is_too_slow_is_dropped() {
    let test = "mirror_slow";
    if !can_cut_power(test) {
        return;
    }
    let pair = Pair::start(test, &USUAL);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", LINK]));
    let mut idle = Idle::begin();
    idle.write_and_read(1);
    let supervisor = Pid::from_raw(pair.servers[1].supervisor_pid().cast_signed());
    let supervisor = supervisor.expect("a process");
    kill_process(supervisor, Signal::STOP).expect("a signal");
    idle.write_and_read(2);
    pair.wait_until_alone(0);
    kill_process(supervisor, Signal::CONT).expect("a signal");
    pair.wait_until_in_step(0);
    idle.write_and_read(3);
    pair.order(0, &["takeover"]);
    idle.write_and_read(4);
    drop(idle);
    pair.servers[1].wait_until_left_alone();
    speakers.assert_alternate(2);
    capture.verdict().assert_untouched(1);
}

#[test]
fn an_outdated_nvram_is_not_resumed() {
    let test = "mirror_old";
    if !can_cut_power(test) {
        return;
    }
    let mut pair = Pair::start(test, &USUAL);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", LINK]));
    let mut idle = Idle::begin();
    idle.write_and_read(1);
    pair.kill(0);
    let old = pair.nvram[0].with_extension("old");
    std::fs::copy(&pair.nvram[0], &old).expect("a copy");
    pair.wait_until_serving(1);
    idle.write_and_read(2);
    // Node a has an older state, and receives that of node b instead.
    pair.servers[0].start_again();
    pair.wait_until_in_step(1);
    idle.write_and_read(3);
    pair.kill(1);
    pair.wait_until_serving(0);
    idle.write_and_read(4);
    // The same if it was in step before: its old copy is restored while neither node runs.
    pair.kill(0);
    std::fs::copy(&old, &pair.nvram[0]).expect("a copy");
    pair.servers[0].start_again();
    pair.wait_until_serving(0);
    let log = pair.servers[0].log();
    assert!(log.contains("its sessions are dropped"), "{log}");
    drop(idle);
    speakers.assert_alternate(3);
    drop(capture);
}

//= patent fig3-307
#[test]
fn a_lost_nvram_is_had_back_from_the_partner() {
    let test = "mirror_lost";
    if !can_cut_power(test) {
        return;
    }
    let mut pair = Pair::start(test, &USUAL);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", LINK]));
    let mut idle = Idle::begin();
    idle.write_and_read(1);
    pair.servers[0].terminate();
    pair.wait_until_waiting(1);
    std::fs::remove_file(&pair.nvram[0]).expect("the NVRAM");
    pair.servers[0].start_again();
    pair.wait_until_serving(1);
    idle.write_and_read(2);
    pair.wait_until_in_step(1);
    pair.order(1, &["giveback"]);
    idle.write_and_read(3);
    pair.wait_until_serving(0);
    drop(idle);
    pair.servers[0].wait_until_left_alone();
    speakers.assert_alternate(3);
    capture.verdict().assert_untouched(1);
}

#[test]
fn a_takeover_without_a_standing_mirror_takes_the_state_along() {
    let test = "mirror_transfer";
    if !can_cut_power(test) {
        return;
    }
    let mut pair = Pair::prepare(
        test,
        &Kind {
            durability: "process",
            ..USUAL
        },
    );
    pair.servers[0].start_again();
    pair.wait_until_serving(0);
    pair.servers[1].start_again();
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", LINK]));
    let mut idle = Idle::begin();
    idle.write_and_read(1);
    wait_for("the other node to run", PATIENCE, || {
        pair.status(0).partner_runs.then_some(())
    });
    let seen = pair.status(0);
    assert!(
        !seen.in_step && seen.if_died.contains("no node takes over"),
        "{seen:?}"
    );
    pair.order(0, &["takeover"]);
    idle.write_and_read(2);
    wait_for("the first node to run", PATIENCE, || {
        pair.status(1).partner_runs.then_some(())
    });
    pair.order(1, &["giveback"]);
    idle.write_and_read(3);
    drop(idle);
    pair.servers[0].wait_until_left_alone();
    speakers.assert_alternate(3);
    capture.verdict().assert_untouched(1);
}
