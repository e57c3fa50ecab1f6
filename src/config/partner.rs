//! Checks `[partner]`, the configuration of the pair to which the server belongs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::check::Check;
use super::etcd::Etcd;
use super::{Durability, Error, Nvram};
use crate::pair::role::Nodes;

/// `[partner]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// `node` and `nodes`: the names of this node and of the other one.
    pub nodes: Nodes,
    /// The index of this node in `nodes`: 0 or 1.
    pub number: usize,
    /// `arbiter`: admits one node at a time.
    pub arbiter: Arbitration,
    /// `fence_command`: ensures that the other node can no longer send or write.
    pub fence_command: Option<String>,
    /// `mount_command`: mounts the mass storage, before this node serves.
    pub mount_command: Option<String>,
    /// `unmount_command`: unmounts it, before the other node may serve.
    pub unmount_command: Option<String>,
    /// `interconnect`, `key` and `timeout_ms`; `None`: the nodes have one NVRAM, or one sink.
    pub interconnect: Option<Interconnect>,
}

/// The interconnect of two nodes that have an NVRAM each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interconnect {
    /// The address on which this node listens.
    pub own: SocketAddr,
    /// The address on which the other node listens.
    pub partner: SocketAddr,
    /// `key`: the file that `outlast pair init` has made for this node.
    pub key: PathBuf,
    /// `timeout_ms`: the longest time for which the partner may delay clients. Default 1 s.
    pub timeout: Duration,
}

/// The arbiter, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arbitration {
    /// `lock`: a lock on this file.
    Lock(PathBuf),
    /// `pacemaker`: the cluster manager orders which node serves; the record is in this file, whose lock is held, too.
    Pacemaker(PathBuf),
    /// `etcd`: a lease of etcd.
    Etcd(Etcd),
}

impl Arbitration {
    /// Returns the arbiter's file, if it has one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Arbitration::Lock(file) | Arbitration::Pacemaker(file) => Some(file),
            Arbitration::Etcd(_) => None,
        }
    }

    /// Returns whether a node takes the service only upon an order.
    #[must_use]
    pub fn orders(&self) -> bool {
        matches!(self, Arbitration::Pacemaker(_))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    node: String,
    #[serde(default = "default_nodes")]
    nodes: Vec<String>,
    #[serde(default = "default_arbiter")]
    arbiter: String,
    lock: Option<String>,
    pub(super) etcd: Option<Vec<String>>,
    pub(super) etcd_prefix: Option<String>,
    pub(super) etcd_ca: Option<String>,
    pub(super) etcd_certificate: Option<String>,
    pub(super) etcd_key: Option<String>,
    pub(super) lease_seconds: Option<u64>,
    fence_command: Option<String>,
    mount_command: Option<String>,
    unmount_command: Option<String>,
    interconnect: Option<Vec<String>>,
    key: Option<String>,
    #[serde(default = "default_timeout")]
    timeout_ms: u64,
}

fn default_timeout() -> u64 {
    1000
}

fn default_nodes() -> Vec<String> {
    vec!["a".into(), "b".into()]
}

fn default_arbiter() -> String {
    "lock".into()
}

impl Check<'_> {
    pub(super) fn partner(&self, written: &Written, nvram: &Nvram) -> Result<Partner, Error> {
        let is_name = |name: &String| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
            (1..=32).contains(&name.len()) && name.chars().all(allowed)
        };
        let [first, second] = written.nodes.as_slice() else {
            let problem = format!("has {} names", written.nodes.len());
            return self.fail("partner.nodes", problem, "name the two nodes of the pair");
        };
        if first == second || ![first, second].into_iter().all(is_name) {
            return self.fail(
                "partner.nodes",
                format!("{first:?} and {second:?} are not two names"),
                "use 1 to 32 letters, digits and hyphens for each, such as \"a\" and \"b\"",
            );
        }
        let Some(number) = written.nodes.iter().position(|name| *name == written.node) else {
            return self.fail(
                "partner.node",
                format!("{:?} is not one of partner.nodes", written.node),
                &format!("use {first:?} or {second:?}"),
            );
        };
        let arbiter = self.arbitration(written)?;
        if nvram.durability == Durability::None {
            return self.fail(
                "nvram.durability",
                "\"none\" leaves nothing that the other node could take over",
                "use \"process\" or \"power\", or remove [partner]",
            );
        }
        self.commands(written)?;
        let (own, partner) = match number {
            0 => (first, second),
            _ => (second, first),
        };
        Ok(Partner {
            nodes: Nodes {
                own: own.clone(),
                partner: partner.clone(),
            },
            number,
            arbiter,
            fence_command: written.fence_command.clone(),
            mount_command: written.mount_command.clone(),
            unmount_command: written.unmount_command.clone(),
            interconnect: self.interconnect(written, nvram, number)?,
        })
    }

    pub(super) fn has_no_mirror(&self, nvram: &Nvram) -> Result<(), Error> {
        if nvram.durability.has_mirror() {
            return self.fail(
                "nvram.durability",
                format!("{:?} needs a partner", nvram.durability.name()),
                "add [partner] with interconnect and key, or use \"power\" or \"process\"",
            );
        }
        Ok(())
    }

    fn interconnect(
        &self,
        written: &Written,
        nvram: &Nvram,
        number: usize,
    ) -> Result<Option<Interconnect>, Error> {
        let (Some(addresses), Some(key)) = (&written.interconnect, &written.key) else {
            if written.interconnect.is_some() || written.key.is_some() {
                return self.fail(
                    "partner.interconnect",
                    "and key belong together, and one is missing",
                    "set both, or neither; `outlast pair init` makes the keys",
                );
            }
            self.has_no_mirror(nvram)?;
            return Ok(None);
        };
        let parsed: Option<Vec<SocketAddr>> =
            addresses.iter().map(|text| text.parse().ok()).collect();
        let addresses = match parsed.as_deref() {
            Some([first, second]) if first != second => [*first, *second],
            _ => {
                return self.fail(
                    "partner.interconnect",
                    format!("{addresses:?} are not the addresses of two nodes"),
                    "write address and port of each node, in the order of partner.nodes, such as \"10.9.0.1:4450\" \
                     and \"[fd09::2]:4450\"",
                );
            }
        };
        if !(100..=30_000).contains(&written.timeout_ms) {
            return self.fail(
                "partner.timeout_ms",
                format!("{} is out of range", written.timeout_ms),
                "use 100 to 30000",
            );
        }
        Ok(Some(Interconnect {
            own: addresses[number],
            partner: addresses[1 - number],
            key: self.path("partner.key", key)?,
            timeout: Duration::from_millis(written.timeout_ms),
        }))
    }

    fn arbitration(&self, written: &Written) -> Result<Arbitration, Error> {
        let is_etcd = written.arbiter == "etcd";
        let foreign = match is_etcd {
            true => written.lock.is_some().then_some("partner.lock"),
            false => written.key_of_etcd(),
        };
        if let Some(key) = foreign {
            let problem = format!("is not a key of the arbiter {:?}", written.arbiter);
            return self.fail(key, problem, "remove it, or choose another partner.arbiter");
        }
        if is_etcd {
            return self.etcd(written).map(Arbitration::Etcd);
        }
        let of_file = match written.arbiter.as_str() {
            "lock" => Arbitration::Lock,
            "pacemaker" => Arbitration::Pacemaker,
            other => {
                return self.fail(
                    "partner.arbiter",
                    format!("unknown value {other:?}"),
                    "use \"lock\", \"etcd\" or \"pacemaker\"",
                );
            }
        };
        match &written.lock {
            Some(lock) => self.path("partner.lock", lock).map(of_file),
            None => self.fail(
                "partner.lock",
                "is missing",
                "name a file on storage that both nodes reach",
            ),
        }
    }

    fn commands(&self, written: &Written) -> Result<(), Error> {
        for (key, command) in [
            ("partner.fence_command", &written.fence_command),
            ("partner.mount_command", &written.mount_command),
            ("partner.unmount_command", &written.unmount_command),
        ] {
            if command.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return self.fail(
                    key,
                    "is empty",
                    "write a command of the shell, or remove it",
                );
            }
        }
        if written.mount_command.is_some() != written.unmount_command.is_some() {
            return self.fail(
                "partner.mount_command",
                "and unmount_command belong together, and one is missing",
                "set both, or neither",
            );
        }
        // A killed node still has the mass storage mounted.
        if written.mount_command.is_some() && written.fence_command.is_none() {
            return self.fail(
                "partner.fence_command",
                "is missing, and a file system that two machines mount is destroyed",
                "set it, or remove mount_command and unmount_command",
            );
        }
        Ok(())
    }
}
