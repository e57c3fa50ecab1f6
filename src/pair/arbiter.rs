//! Defines the arbiter, which admits one node at a time. [`super::lock`] is one.
//!
//! An arbiter keeps one record, the [`Term`], which only the node that it admits may change. It is an existing engine
//! behind this trait (the kernel's locks, a lock manager of a cluster file system), never a protocol of this project.

use std::fmt;
use std::sync::Arc;

use outlast_nvram::Incarnation;
use serde::{Deserialize, Serialize};

use super::lease::Lease;

/// The record of the arbiter about the service: its holder, the epoch, and how the last holder ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Incremented each time that a node is admitted and takes the service; 0: no node has ever taken it.
    pub epoch: u64,
    /// The present or last holder; empty: there was none.
    pub holder: String,
    /// How the last holder ended, if in order.
    pub rest: Rest,
    /// The partner has everything that the holder has committed.
    pub in_step: bool,
    /// The time of the last change of `in_step`; seconds since 1970.
    pub since_unix_seconds: u64,
    /// The node from which the holder took over the service, and to which it may return it.
    pub taken_from: Option<String>,
    /// Where each node has an NVRAM of its own: the epoch of the state that the holder has resumed.
    #[serde(default)]
    pub resumes: Option<u64>,
}

/// How the last holder ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// Not in order: it serves, or crashed.
    Not,
    /// It has handed the service over to this node.
    HandedTo {
        /// The node.
        node: String,
        /// The service returns to the node that had it before.
        is_return: bool,
    },
    /// It restarts, and its state is kept for it.
    Rebooting,
    /// The service was stopped.
    Stopped,
}

impl Term {
    /// Returns the term before the first holder.
    #[must_use]
    pub fn first() -> Term {
        Term {
            epoch: 0,
            holder: String::new(),
            rest: Rest::Not,
            in_step: false,
            since_unix_seconds: 0,
            taken_from: None,
            resumes: None,
        }
    }

    /// Returns the term in which `node` has taken the service.
    #[must_use]
    pub fn next(&self, node: &str) -> Term {
        let taken_from = match &self.rest {
            Rest::HandedTo {
                is_return: true, ..
            } => None,
            _ if self.holder.is_empty() => None,
            _ if self.holder == node => self.taken_from.clone(),
            _ => Some(self.holder.clone()),
        };
        Term {
            epoch: self.epoch + 1,
            holder: node.to_owned(),
            rest: Rest::Not,
            taken_from,
            ..self.clone()
        }
    }
}

/// The machine and boot of a node, in the arbiter's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    host: String,
    boot: String,
    pid: u32,
}

impl Running {
    /// Describes this process.
    pub(super) fn new(incarnation: Incarnation) -> Running {
        let hex = |bytes| format!("{:032x}", u128::from_be_bytes(bytes));
        Running {
            host: hex(incarnation.host),
            boot: hex(incarnation.boot),
            pid: std::process::id(),
        }
    }

    /// Returns the machine and the boot.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        let number = |text| Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes());
        Some(Incarnation {
            host: number(&self.host)?,
            boot: number(&self.boot)?,
        })
    }
}

/// What every node may read at the arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The record.
    pub term: Term,
    /// A node is admitted now.
    pub is_held: bool,
    /// The other node runs: it serves or stands by.
    pub partner_runs: bool,
    /// The machine and the boot on which the other node was last started; `None`: it was never started.
    pub partner: Option<Incarnation>,
}

/// An error of an arbiter: one line that names the remedy.
#[derive(Debug)]
pub enum ArbiterError {
    /// It cannot be reached or used now; a later attempt may succeed.
    Unavailable(String),
    /// An administrator has to correct it.
    Wrong(String),
    /// This node is no longer the holder.
    Lost(String),
}

impl fmt::Display for ArbiterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArbiterError::Unavailable(why) | ArbiterError::Wrong(why) | ArbiterError::Lost(why) => {
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for ArbiterError {}

/// Admits one holder at a time.
pub trait Arbiter {
    /// Reads the record. Changes nothing.
    ///
    /// # Errors
    /// The record cannot be read.
    fn look(&mut self) -> Result<Seen, ArbiterError>;

    /// Asks for admission, and does not wait. `None`: another node is admitted. The record does not change any more
    /// until this node changes it or is no longer admitted.
    ///
    /// # Errors
    /// The arbiter does not answer.
    fn ask(&mut self) -> Result<Option<Term>, ArbiterError>;

    /// Writes the record, by the admitted node. It is durable when this returns.
    ///
    /// # Errors
    /// The record is not written, or must not be.
    fn write(&mut self, term: &Term) -> Result<(), ArbiterError>;

    /// Checks that this node is still admitted.
    ///
    /// # Errors
    /// [`ArbiterError::Lost`]: it is not admitted, and must not send.
    fn renew(&mut self) -> Result<(), ArbiterError>;

    /// Ends the admission of this node.
    fn release(&mut self);

    /// Returns the lease for which this arbiter admits the node. `None`: the arbiter detects the end of the node's last
    /// process and admits no other node before it, so no renewal is needed.
    fn lease(&self) -> Option<Arc<Lease>> {
        None
    }
}
