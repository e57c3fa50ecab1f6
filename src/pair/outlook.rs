//! Describes the status of a pair, for `outlast status`.

use super::arbiter::{Rest, Seen};
use super::role::Nodes;
use crate::control::{LinkStatus, PairStatus};

/// A node's knowledge of its pair.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// The names of the nodes.
    pub nodes: &'a Nodes,
    /// The arbiter's record.
    pub seen: &'a Seen,
    /// Whether this node serves, or is about to.
    pub serves: bool,
    /// Whether a crashed node is fenced.
    pub fences: bool,
    /// A cluster manager orders which node serves.
    pub by_order: bool,
    /// What prevents this node from taking the service, or from leaving it.
    pub trouble: Option<&'a str>,
    /// The interconnect, if the nodes have an NVRAM each.
    pub link: Option<&'a LinkStatus>,
}

/// Describes the pair as this node sees it.
#[must_use]
pub fn outlook(known: &Known<'_>) -> PairStatus {
    let Known {
        nodes,
        seen,
        serves,
        trouble,
        ..
    } = known;
    let holder = seen.is_held.then(|| seen.term.holder.clone());
    let role = match (serves, &holder) {
        (true, _) => "serving",
        (false, Some(holder)) if *holder == nodes.own => "taking over",
        (false, Some(_)) => "standing by",
        (false, None) => "waiting",
    };
    PairStatus {
        node: nodes.own.clone(),
        partner: nodes.partner.clone(),
        role: role.to_owned(),
        holder,
        epoch: seen.term.epoch,
        in_step: seen.term.in_step,
        in_step_since_unix_seconds: seen.term.since_unix_seconds,
        partner_runs: seen.partner_runs,
        taken_from: seen.term.taken_from.clone(),
        by_order: known.by_order,
        has_state: seen.term.in_step || seen.term.holder == nodes.own || seen.term.epoch == 0,
        if_died: match serves {
            true => after_own_death(known),
            false => while_standing(known),
        },
        trouble: trouble.map(str::to_owned),
        link: known.link.cloned(),
    }
}

/// Describes what happens if this node, which serves, crashes now.
fn after_own_death(known: &Known<'_>) -> String {
    let partner = &known.nodes.partner;
    let seen = known.seen;
    match (seen.partner_runs, seen.term.in_step) {
        (_, true) if known.by_order => {
            format!("the cluster manager fences this node and promotes node {partner}")
        }
        (true, true) if known.fences => format!("node {partner} fences this one and takes over"),
        (true, true) => format!("node {partner} takes over at once"),
        (false, true) => format!(
            "no node takes over, because node {partner} does not run; the first node that is started resumes every \
             session"
        ),
        (runs, false) => {
            let why = match (runs, seen.partner) {
                (_, None) => "was never started",
                _ if known.link.is_some() => "does not have what clients were shown",
                _ => {
                    "is on another machine, which durability \"process\" does not reach (use \"power\")"
                }
            };
            format!(
                "no node takes over, because node {partner} {why}; this node resumes at its next start"
            )
        }
    }
}

/// Describes what this node, which does not serve, waits for.
fn while_standing(known: &Known<'_>) -> String {
    let Nodes { own, partner } = known.nodes;
    let term = &known.seen.term;
    if known.by_order && (!known.seen.is_held || term.in_step) {
        return "no session is lost; this node serves when the cluster manager promotes it"
            .to_owned();
    }
    if known.seen.is_held {
        return match term.in_step {
            true => {
                format!("no session is lost; if node {partner} dies, this one takes over")
            }
            false => {
                format!("no session is lost; if node {partner} dies, its sessions wait for it")
            }
        };
    }
    let force = "(`outlast takeover --force` takes it here)";
    match &term.rest {
        Rest::Not if term.holder == *own || term.in_step => "this node takes over".to_owned(),
        Rest::Not => format!(
            "node {partner} has died, and what it had committed is not all here: start it again"
        ),
        Rest::HandedTo { node, .. } => format!("the service was handed to node {node}"),
        Rest::Rebooting => {
            format!("node {partner} has left and its state waits for it {force}")
        }
        Rest::Stopped => format!("the service was stopped: start a server {force}"),
    }
}

#[cfg(test)]
mod tests;
