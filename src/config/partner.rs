//! `[partner]`: the pair that the server is one node of.

use std::path::PathBuf;

use serde::Deserialize;

use super::check::Check;
use super::{Durability, Error, Nvram};
use crate::pair::role::Nodes;

/// `[partner]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// `node` and `nodes`: which of the two this server is.
    pub nodes: Nodes,
    /// 0 or 1: the place of this node in `nodes`.
    pub number: usize,
    /// `lock`: the file of the arbiter `lock`.
    pub lock: PathBuf,
    /// `fence_command`: makes sure that the other node is dead.
    pub fence_command: Option<String>,
    /// `mount_command`: mounts the mass storage, before this node serves.
    pub mount_command: Option<String>,
    /// `unmount_command`: unmounts it, before the other node may serve.
    pub unmount_command: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    node: String,
    #[serde(default = "default_nodes")]
    nodes: Vec<String>,
    #[serde(default = "default_arbiter")]
    arbiter: String,
    lock: String,
    fence_command: Option<String>,
    mount_command: Option<String>,
    unmount_command: Option<String>,
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
        if written.arbiter != "lock" {
            return self.fail(
                "partner.arbiter",
                format!("unknown value {:?}", written.arbiter),
                "use \"lock\", the only one that this version has",
            );
        }
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
            lock: self.path("partner.lock", &written.lock)?,
            fence_command: written.fence_command.clone(),
            mount_command: written.mount_command.clone(),
            unmount_command: written.unmount_command.clone(),
        })
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
        // A killed node still has it mounted.
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
