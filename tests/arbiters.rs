//! Tests arbiters other than `lock`: etcd, with its leases, and a cluster manager that promotes.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outlast::pair::arbiter::{Arbiter as _, ArbiterError, Rest, Seen, Term};
use outlast::pair::etcd::EtcdArbiter;
use outlast::pair::role::Nodes;
use outlast_nvram::Incarnation;
use rustix::process::Signal;

use support::capture::Capture;
use support::client::SMB3_1_1;
use support::etcd::Etcd;
use support::lab::Lab;
use support::pair::{Pair, signal};
use support::raw::{self, Client};
use support::server::has_ended;
use support::speakers::Speakers;
use support::{PATIENCE, can_run, etcd, has, wait_for};

const LEASE: Duration = Duration::from_secs(3);
const HERE: Incarnation = Incarnation {
    host: [7; 16],
    boot: [9; 16],
};

fn node(etcd: &Etcd, own: &str, partner: &str) -> EtcdArbiter {
    let nodes = Nodes {
        own: own.to_owned(),
        partner: partner.to_owned(),
    };
    EtcdArbiter::open(&etcd.config(LEASE), &nodes, HERE).expect("etcd")
}

/// Waits until a node reads such a state.
fn wait_until(arbiter: &mut EtcdArbiter, what: &str, is_so: impl Fn(&Seen) -> bool) -> Seen {
    wait_for(what, PATIENCE, || arbiter.look().ok().filter(&is_so))
}

#[test]
fn etcd_admits_one_node_and_keeps_the_record() {
    let name = "etcd_admits_one_node_and_keeps_the_record";
    if !can_run(name) || !etcd::can_run(name) {
        return;
    }
    let lab = Lab::new();
    let etcd = Etcd::start(lab.dir());
    let (mut a, mut b) = (node(&etcd, "a", "b"), node(&etcd, "b", "a"));
    assert_eq!(a.ask().expect("an answer"), Some(Term::first()));
    assert_eq!(b.ask().expect("an answer"), None);
    let term = Term {
        in_step: true,
        ..Term::first().next("a")
    };
    a.write(&term).expect("written");
    a.renew().expect("admitted");
    assert!(matches!(b.write(&term), Err(ArbiterError::Lost(_))));
    assert!(matches!(b.renew(), Err(ArbiterError::Lost(_))));
    let seen = wait_until(&mut b, "node b to see", |seen| {
        seen.term == term && seen.is_held
    });
    assert!(seen.is_held && seen.partner_runs && seen.partner == Some(HERE));
    // Longer than a lease: it is renewed.
    std::thread::sleep(LEASE * 2);
    a.renew().expect("admitted");
    let handed = Term {
        rest: Rest::HandedTo {
            node: "b".into(),
            is_return: false,
        },
        ..term
    };
    a.write(&handed).expect("written");
    a.release();
    assert!(!a.look().expect("seen").is_held);
    wait_until(&mut b, "node b to see", |seen| !seen.is_held);
    assert_eq!(b.ask().expect("an answer"), Some(handed.clone()));
    assert!(matches!(a.write(&handed), Err(ArbiterError::Lost(_))));
    b.write(&handed.next("b")).expect("written");
    // Its end is visible at once, and its record remains.
    drop(b);
    let seen = wait_until(&mut a, "node a to see", |seen| {
        seen.term.epoch == 2 && !seen.is_held
    });
    assert_eq!(seen.term.holder, "b");
    assert!(!seen.partner_runs);
    // A running node must not be started twice.
    let nodes = Nodes {
        own: "a".into(),
        partner: "b".into(),
    };
    let second = EtcdArbiter::open(&etcd.config(LEASE), &nodes, HERE);
    let refused = second.expect_err("it runs already").to_string();
    assert!(refused.contains("runs as node a already"), "{refused}");
}

#[test]
fn a_node_that_starts_waits_for_etcd() {
    let name = "a_node_that_starts_waits_for_etcd";
    if !can_run(name) || !etcd::can_run(name) {
        return;
    }
    let lab = Lab::new();
    let etcd = Etcd::start(lab.dir());
    signal(&[etcd.pid()], Signal::STOP);
    let mut started = std::thread::scope(|scope| {
        let starting = scope.spawn(|| node(&etcd, "a", "b"));
        // Longer than one request may take, shorter than the node waits.
        std::thread::sleep(Duration::from_secs(2));
        signal(&[etcd.pid()], Signal::CONT);
        starting.join().expect("a node")
    });
    assert_eq!(started.ask().expect("an answer"), Some(Term::first()));
}

/// A pair by etcd; node a serves.
fn pair_by_etcd(lease: Duration) -> (Etcd, Pair) {
    let lab = Lab::new();
    lab.bridge();
    let etcd = Etcd::start(&lab.make_dir("arbiter"));
    let pair = Pair::on(lab, SMB3_1_1, &etcd.section(lease), "");
    (etcd, pair.started())
}

#[test]
fn with_etcd_a_stopped_holder_is_killed_and_its_service_taken() {
    let name = "with_etcd_a_stopped_holder_is_killed_and_its_service_taken";
    if !can_run(name) || !etcd::can_run(name) {
        return;
    }
    let (_etcd, mut pair) = pair_by_etcd(LEASE);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", "tap1"]));
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 3, 0);
    client.write(file, 0, b"before");
    let processes = pair.processes(0);
    signal(&processes, Signal::STOP);
    let asked = client.request(raw::READ, &raw::read(file, 0, 6));
    pair.wait_until_serving(1);
    // The kernel's timer has ended them: nothing else ends a stopped process.
    for pid in &processes {
        assert!(has_ended(*pid), "process {pid} is there yet");
    }
    let answer = client.answer(asked).ok();
    assert!(answer.body.ends_with(b"before"));
    // A planned takeover does not wait for the end of a lease.
    pair.servers[0].reap();
    pair.servers[0].start_again();
    pair.wait_until_in_step(1);
    pair.order(1, &["giveback"]);
    client.write(file, 0, b"after");
    drop(client);
    pair.servers[0].wait_until_left_alone();
    let turns: Vec<usize> = speakers.turns().iter().map(|turn| turn.0).collect();
    assert_eq!(turns, [0, 1, 0]);
    capture.verdict().assert_untouched(1);
}

#[test]
fn a_node_that_cannot_renew_falls_silent() {
    let name = "a_node_that_cannot_renew_falls_silent";
    if !can_run(name) || !etcd::can_run(name) {
        return;
    }
    let (etcd, mut pair) = pair_by_etcd(LEASE);
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 3, 0);
    client.write(file, 0, b"before");
    let processes = pair.processes(0);
    signal(&[etcd.pid()], Signal::STOP);
    wait_for("the holder's end", PATIENCE, || {
        processes.iter().all(|pid| has_ended(*pid)).then_some(())
    });
    let other = pair.servers[1].any_status().and_then(|status| status.pair);
    assert_ne!(other.expect("a pair").role, "serving");
    signal(&[etcd.pid()], Signal::CONT);
    pair.wait_until_serving(1);
    pair.servers[0].reap();
    assert_eq!(client.read(file, 0, 6), b"before");
}

/// The agent, where every user may execute it.
fn agent(lab: &Lab) -> PathBuf {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package/ocf/outlast");
    let copy = lab.path("outlast-agent");
    std::fs::copy(agent, &copy).expect("the agent");
    copy
}

/// A pair whose nodes wait for orders; none is started.
fn pair_by_order() -> Pair {
    let lab = Lab::new();
    lab.bridge();
    let lock = lab.path("outlast.lock");
    let section = format!("arbiter = \"pacemaker\"\nlock = \"{}\"", lock.display());
    Pair::on(lab, SMB3_1_1, &section, "")
}

/// The parameters of the agent for one node.
fn parameters(pair: &Pair, node: usize) -> [(&'static str, PathBuf); 4] {
    let file = |name: &str| pair.lab.path(&format!("{name}-{node}"));
    [
        ("config", pair.servers[node].config().to_owned()),
        ("binary", env!("CARGO_BIN_EXE_outlast").into()),
        ("log", file("agent.log")),
        ("pidfile", file("pid")),
    ]
}

/// Runs one action of the agent; returns its exit code.
fn act(pair: &Pair, agent: &Path, node: usize, action: &str) -> i32 {
    let mut command = Command::new(agent);
    command
        .arg(action)
        .env("OCF_ROOT", "/usr/lib/ocf")
        .env("OCF_RESOURCE_INSTANCE", format!("outlast-{node}"))
        .env("OCF_RESKEY_CRM_meta_timeout", "60000");
    for (name, value) in parameters(pair, node) {
        command.env(format!("OCF_RESKEY_{name}"), value);
    }
    let output = command.output().expect("the agent");
    output.status.code().expect("an exit code")
}

fn has_agents(test: &str) -> bool {
    let functions = Path::new("/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs");
    has(
        test,
        &[(
            functions.exists(),
            "ocf-shellfuncs (Debian: resource-agents)",
        )],
    )
}

/// Exit codes of OCF.
const SUCCESS: i32 = 0;
const GENERIC: i32 = 1;
const NOT_RUNNING: i32 = 7;
const PROMOTED: i32 = 8;

#[test]
fn a_cluster_manager_promotes_and_demotes() {
    let name = "a_cluster_manager_promotes_and_demotes";
    if !can_run(name) || !has_agents(name) {
        return;
    }
    let pair = Stopped(pair_by_order());
    let agent = agent(&pair.0.lab);
    let act = |node, action| act(&pair.0, &agent, node, action);
    assert_eq!(act(0, "monitor"), NOT_RUNNING);
    for node in [0, 1] {
        assert_eq!(act(node, "start"), SUCCESS);
        assert_eq!(act(node, "monitor"), SUCCESS);
    }
    // Neither node takes the service by itself.
    wait_for("a node to await its promotion", PATIENCE, || {
        awaits_promotion(&pair.0, 0)
    });
    assert_eq!(act(0, "promote"), SUCCESS);
    assert_eq!(act(0, "monitor"), PROMOTED);
    pair.0.wait_until_in_step(0);
    let (capture, speakers) = (Capture::start(), Speakers::start(["tap0", "tap1"]));
    let mut client = Client::guest();
    let file = client.create("file", 0x0017_019F, 3, 0);
    client.write(file, 0, b"before");
    // The other node is not promoted before this one is demoted.
    assert_eq!(act(1, "promote"), GENERIC);
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(act(from, "demote"), SUCCESS);
        assert_eq!(act(from, "monitor"), SUCCESS);
        assert_eq!(act(to, "promote"), SUCCESS);
        assert_eq!(act(to, "notify"), SUCCESS);
        assert_eq!(act(to, "monitor"), PROMOTED);
        assert_eq!(client.read(file, 0, 6), b"before");
    }
    // After a crash of a node, only the cluster manager promotes the other one.
    pair.0.wait_until_in_step(0);
    signal(&pair.0.processes(0), Signal::KILL);
    wait_for("the agent to notice", PATIENCE, || {
        (act(0, "monitor") == NOT_RUNNING).then_some(())
    });
    wait_for("the other node to notice", PATIENCE, || {
        awaits_promotion(&pair.0, 1)
    });
    assert_eq!(act(1, "promote"), SUCCESS);
    assert_eq!(client.read(file, 0, 6), b"before");
    drop(client);
    pair.0.servers[1].wait_until_left_alone();
    let turns: Vec<usize> = speakers.turns().iter().map(|turn| turn.0).collect();
    assert_eq!(turns, [0, 1, 0, 1]);
    capture.verdict().assert_untouched(1);
    for action in ["demote", "stop"] {
        assert_eq!(act(1, action), SUCCESS);
    }
    assert_eq!(act(1, "monitor"), NOT_RUNNING);
}

/// Whether a node has seen that no other serves; fails if it serves without a promotion.
fn awaits_promotion(pair: &Pair, node: usize) -> Option<()> {
    let role = pair.status(node).role;
    assert!(
        ["standing by", "waiting"].contains(&role.as_str()),
        "node {node} is {role}"
    );
    (role == "waiting").then_some(())
}

/// Ends what the agent has started.
struct Stopped(Pair);

impl Drop for Stopped {
    fn drop(&mut self) {
        for node in [0, 1] {
            if self.0.servers[node].any_status().is_some() {
                signal(&self.0.processes(node), Signal::KILL);
            }
        }
    }
}

#[test]
fn the_agent_passes_ocf_tester() {
    let name = "the_agent_passes_ocf_tester";
    if !can_run(name) || !has_agents(name) {
        return;
    }
    let programs = ["/usr/sbin/ocf-tester", "/usr/bin/xmllint"];
    let there = programs.iter().all(|program| Path::new(program).exists());
    let needs = "ocf-tester and xmllint (Debian: resource-agents, libxml2-utils)";
    if !has(name, &[(there, needs)]) {
        return;
    }
    let pair = Stopped(pair_by_order());
    let agent = agent(&pair.0.lab);
    let mut tester = Command::new("/usr/sbin/ocf-tester");
    tester.args(["-v", "-n", "outlast"]);
    for (name, value) in parameters(&pair.0, 0) {
        tester.arg("-o").arg(format!("{name}={}", value.display()));
    }
    let output = tester.arg(agent).output().expect("ocf-tester");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("passed all tests"), "{text}{errors}");
}
