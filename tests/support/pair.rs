//! Provides two servers of one service on one bridge, with one log and one share.

use std::any::Any;

use outlast::control::{PairStatus, Status};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Dialect;
use super::lab::Lab;
use super::server::{Server, Setup, error};
use super::speakers::MAC;
use super::{PATIENCE, wait_for};

/// Both nodes, of which `servers[0]` is node a.
pub struct Pair {
    pub servers: [Server; 2],
    /// Resources of the servers within the lab, dropped after the servers and before the lab.
    pub between: Vec<Box<dyn Any>>,
    pub lab: Lab,
}

impl Pair {
    /// Node a serves, and node b is on standby, in step. `section`: more lines of `[partner]`.
    pub fn start(dialect: Dialect, section: &str) -> Pair {
        Pair::prepare(dialect, section, "").started()
    }

    /// Node a serves, and node b stands by, in step.
    pub fn started(mut self) -> Pair {
        self.begin();
        self
    }

    /// Starts both, until node a serves, and node b is on standby, in step.
    pub fn begin(&mut self) {
        self.servers[0].start_again();
        self.wait_until_serving(0);
        self.servers[1].start_again();
        self.wait_until_in_step(0);
    }

    /// Both nodes, with the arbiter `lock`; none is started.
    pub fn prepare(dialect: Dialect, section: &str, nvram: &str) -> Pair {
        let lab = Lab::new();
        lab.bridge();
        let section = format!(
            "lock = \"{}\"\n{section}",
            lab.path("outlast.lock").display()
        );
        Pair::on(lab, dialect, &section, nvram)
    }

    /// Both nodes on an existing bridge. `section`: all lines of `[partner]` except the node's name.
    pub fn on(lab: Lab, dialect: Dialect, section: &str, nvram: &str) -> Pair {
        let a = Server::prepare(
            &lab,
            Setup {
                protection: dialect.protection,
                share: "guest = true".to_owned(),
                nvram: nvram.to_owned(),
                more: format!("[partner]\nnode = \"a\"\n{section}\n"),
                ..Setup::default()
            },
        );
        a.rewrite(
            "tap = \"tap0\"",
            &format!("tap = \"tap0\"\nmac = \"{MAC}\""),
        );
        let other = [
            ("tap = \"tap0\"", "tap = \"tap1\""),
            ("node = \"a\"", "node = \"b\""),
        ];
        let b = a.twin(&lab, "b", &other);
        Pair {
            servers: [a, b],
            between: Vec::new(),
            lab,
        }
    }

    pub fn status(&self, node: usize) -> PairStatus {
        self.servers[node].status().pair.expect("a pair")
    }

    /// Waits until the node serves; returns its whole status.
    pub fn wait_until_serving(&self, node: usize) -> Status {
        wait_for("the node to serve", PATIENCE, || {
            let status = self.servers[node].try_status()?;
            let serves = status.worker_pid != 0 && status.pair.as_ref()?.role == "serving";
            serves.then_some(status)
        })
    }

    /// Waits until the node serves and the other one could take over, also according to the flag.
    pub fn wait_until_in_step(&self, node: usize) -> Status {
        wait_for("the other node to be in step", PATIENCE, || {
            let status = self.servers[node].try_status()?;
            let pair = status.pair.as_ref()?;
            let in_step = pair.in_step && pair.partner_runs;
            (in_step && status.flag == "non-elective-takeover").then_some(status)
        })
    }

    /// Runs `outlast COMMAND` on a node, which must succeed.
    pub fn order(&self, node: usize, words: &[&str]) {
        let output = self.servers[node].outlast(words);
        assert!(output.status.success(), "{words:?}: {}", error(&output));
    }

    /// Kills every process of a serving node by kill -9.
    pub fn kill(&mut self, node: usize) {
        let worker = self.servers[node].status().worker_pid;
        self.servers[node].kill_tree(worker);
    }

    /// Returns the processes of a node: its supervisor, its worker, and its standby worker, if they exist.
    pub fn processes(&self, node: usize) -> Vec<u32> {
        let status = self.servers[node].status();
        let standby = status.standby.as_ref().map(|standby| standby.pid);
        let worker = Some(status.worker_pid).filter(|pid| *pid != 0);
        let all = [Some(status.supervisor_pid), worker, standby];
        all.into_iter().flatten().collect()
    }
}

/// Sends a signal to each of these processes, some of which may have ended.
pub fn signal(processes: &[u32], signal: Signal) {
    for pid in processes {
        let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
        let _ = kill_process(pid, signal);
    }
}
