//! The arbiter, which admits one node at a time. [`super::lock`] is one.
//!
//! An arbiter keeps one record, the [`Term`], which only the node that it admits may change. It is an existing engine
//! behind this trait (the kernel's locks, a lock manager of a cluster file system), never a protocol of our own.

use std::fmt;
use std::sync::Arc;

use outlast_nvram::Incarnation;
use serde::{Deserialize, Serialize};

use super::lease::Lease;

/// What the arbiter keeps of the service: who has it, since which epoch, and how the last holder has left it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Raised each time that a node is admitted and takes the service; 0: none ever has.
    pub epoch: u64,
    /// The node that had it last, or has it now; empty: none ever had.
    pub holder: String,
    /// How the last holder has ended, if in order.
    pub rest: Rest,
    /// The partner would have everything that the holder has committed.
    pub in_step: bool,
    /// The time since when that has been true or false; seconds since 1970.
    pub since_unix_seconds: u64,
    /// The node that the holder has taken the service over from, and may give it back to.
    pub taken_from: Option<String>,
    /// Where each node has an NVRAM of its own: the epoch of the state that the holder has resumed.
    #[serde(default)]
    pub resumes: Option<u64>,
}

/// How the last holder has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// Not in order: it serves, or died.
    Not,
    /// It has handed the service over to this node.
    HandedTo {
        /// The node.
        node: String,
        /// The service is given back to where it was before.
        is_return: bool,
    },
    /// It restarts: the state waits for it.
    Rebooting,
    /// The service was stopped.
    Stopped,
}

impl Term {
    /// The term before any node has had the service.
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

    /// The term after `node` has taken the service.
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

/// Where a node runs, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    host: String,
    boot: String,
    pid: u32,
}

impl Running {
    /// This process.
    pub(super) fn new(incarnation: Incarnation) -> Running {
        let hex = |bytes| format!("{:032x}", u128::from_be_bytes(bytes));
        Running {
            host: hex(incarnation.host),
            boot: hex(incarnation.boot),
            pid: std::process::id(),
        }
    }

    /// The machine and the boot.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        let number = |text| Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes());
        Some(Incarnation {
            host: number(&self.host)?,
            boot: number(&self.boot)?,
        })
    }
}

/// What anybody may see of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The record.
    pub term: Term,
    /// A node is admitted now.
    pub is_held: bool,
    /// The other node runs: it serves or stands by.
    pub partner_runs: bool,
    /// The machine and the boot on which the other node was last started; `None`: it never was.
    pub partner: Option<Incarnation>,
}

/// An error of an arbiter: one line that names the remedy.
#[derive(Debug)]
pub enum ArbiterError {
    /// It cannot be reached or used now; this may pass.
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
    /// It cannot be read.
    fn look(&mut self) -> Result<Seen, ArbiterError>;

    /// Asks for admission, and does not wait. `None`: another node is admitted. The record does not change any more
    /// until this node changes it or is no longer admitted.
    ///
    /// # Errors
    /// The arbiter cannot answer.
    fn ask(&mut self) -> Result<Option<Term>, ArbiterError>;

    /// Writes the record, by the admitted node. It is durable when this returns.
    ///
    /// # Errors
    /// It is not written, or may not be.
    fn write(&mut self, term: &Term) -> Result<(), ArbiterError>;

    /// Checks that this node is still admitted.
    ///
    /// # Errors
    /// [`ArbiterError::Lost`]: it is not, and must not send.
    fn renew(&mut self) -> Result<(), ArbiterError>;

    /// Ends the admission of this node.
    fn release(&mut self);

    /// The lease that this arbiter admits the node for. `None`: it sees the end of the node's last process, and admits
    /// no other node before, however long that takes; then there is nothing to renew in time.
    fn lease(&self) -> Option<Arc<Lease>> {
        None
    }
}
