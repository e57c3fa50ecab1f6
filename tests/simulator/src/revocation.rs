//! Gives a later life of the server a configuration that takes something from one client. That client's session or tree
//! connect is closed properly, and its later requests are refused; the others notice nothing.
//!
//! The client shares no files with the others. Until the server runs with that configuration, the client is answered as
//! usual, and from then on it is not. So its files at the end are those of some first part of its operations.

use std::collections::BTreeSet;

use outlast_smb::{Config, Dialect, Requirement};

use crate::judge::{self, Contents};
use crate::random::Random;
use crate::rules::Rules;
use crate::scenario::Scenario;
use crate::status;
use crate::workload::{Op, Verb};

/// What the configuration takes from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its user is removed.
    User,
    /// The share admits the other users only.
    Share,
    /// The server does not accept its dialect any more.
    Dialect,
    /// Encryption is required, which its dialect does not have.
    Encryption,
}

/// The client that loses something, what it loses, and the life in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The client.
    pub victim: usize,
    /// What it loses.
    pub how: How,
    /// The first life of the server with that configuration, counted from 0.
    pub from_life: u32,
    /// Signing is required as well, which all clients support.
    pub signs: bool,
}

/// Returns whether this seed has a revocation: one of twelve usual scenarios and one of eight small ones has.
#[must_use]
pub fn is_of(seed: u64) -> bool {
    matches!(seed % 32, 8 | 11 | 15)
}

impl Revocation {
    /// Derives the revocation of a seed, if it has one.
    #[must_use]
    pub fn of(seed: u64, clients: usize) -> Option<Revocation> {
        let mut random = Random::new(seed, "revocation");
        is_of(seed).then(|| Revocation {
            victim: random.index(clients),
            how: *random.pick(&[How::User, How::Share, How::Dialect, How::Encryption]),
            from_life: if seed % 32 == 8 {
                1 + random.below(2) as u32
            } else {
                1
            },
            signs: random.percent(50),
        })
    }

    /// Returns whether the client's connection ends.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        self.how != How::Share
    }

    /// Changes the configuration. `users`: the users of the clients, in order.
    pub fn change(&self, config: &mut Config, users: &[String]) {
        let victim = &users[self.victim];
        let others = users.iter().filter(|user| *user != victim);
        match self.how {
            How::User => config.users.retain(|user| user.name != *victim),
            How::Share => {
                for share in &mut config.shares {
                    share.users = others.clone().cloned().collect();
                }
            }
            How::Dialect => config.min_dialect = Dialect::Smb210,
            How::Encryption => config.encryption = Requirement::Required,
        }
        if self.signs {
            config.signing = Requirement::Required;
        }
    }

    /// Sets the dialects of the clients, so that the new configuration concerns only the victim.
    pub fn prepare(&self, scenario: &mut Scenario) {
        for (client, profile) in scenario.profiles.iter_mut().enumerate() {
            match (self.how, client == self.victim) {
                (How::Dialect | How::Encryption, true) => {
                    profile.dialect = Dialect::Smb202;
                    profile.sealed = false;
                }
                (How::Dialect, false) if profile.dialect == Dialect::Smb202 => {
                    profile.dialect = Dialect::Smb210;
                }
                (How::Encryption, false) => {
                    profile.dialect = profile.dialect.max(Dialect::Smb300);
                    profile.sealed = true;
                }
                _ => {}
            }
        }
    }

    /// Returns whether the victim may be refused with this status, at its log-in or later.
    #[must_use]
    pub fn refuses_with(&self, status: u32) -> bool {
        match self.how {
            How::User => matches!(status, status::LOGON_FAILURE | status::USER_SESSION_DELETED),
            How::Share => matches!(status, status::ACCESS_DENIED | status::NETWORK_NAME_DELETED),
            How::Dialect => matches!(
                status,
                status::NOT_SUPPORTED | status::ACCESS_DENIED | status::USER_SESSION_DELETED
            ),
            How::Encryption => {
                matches!(status, status::ACCESS_DENIED | status::USER_SESSION_DELETED)
            }
        }
    }

    /// Returns whether the victim is still answered to a request that needs no tree.
    #[must_use]
    pub fn still_answers(&self, verb: &Verb) -> bool {
        let is_without_tree = matches!(verb, Verb::Echo | Verb::SecondSession);
        self.how == How::Share && is_without_tree
    }

    /// Returns whether a path is the victim's directory, or lies beneath it.
    #[must_use]
    pub fn is_of_victim(&self, path: &str) -> bool {
        let home = format!("c{}", self.victim);
        path == home
            || path
                .strip_prefix(&home)
                .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Returns all permitted contents of the files at the end, if the victim has been answered to these operations
    /// only: a part of its next operation may have been done without an answer.
    #[must_use]
    pub fn outcomes(&self, ops: &[Op], answered: &BTreeSet<usize>, rules: Rules) -> Vec<Contents> {
        let is_done = |op: &Op| op.client != self.victim || answered.contains(&op.id);
        let next = ops.iter().find(|op| !is_done(op));
        let parts = next.map_or(0, |op| op.verbs.len());
        let outcome = |part: usize| {
            let some = ops.iter().filter_map(|op| {
                if is_done(op) {
                    return Some(op.clone());
                }
                let is_begun = part > 0 && next.is_some_and(|next| next.id == op.id);
                is_begun.then(|| Op {
                    verbs: op.verbs[..part].to_vec(),
                    ..op.clone()
                })
            });
            judge::judge(&some.collect::<Vec<_>>(), rules).1
        };
        (0..=parts).map(outcome).collect()
    }
}
