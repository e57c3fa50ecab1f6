//! Leases: what a client caches of a file by all its opens that name one key (MS-SMB2 3.3.1.12).
//!
//! Each open of a lease has the lease's state, and all have the same. So a lease lives as long as one of its opens, and
//! its changes are records of these.

use crate::caching::Caching;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which lease it is: leases belong to clients, not to connections.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct LeaseId {
    /// ClientGuid.
    pub client: [u8; 16],
    /// LeaseKey.
    pub key: [u8; 16],
}

/// The version of the context that made a lease (MS-SMB2 2.2.13.2.8, 2.2.13.2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Without epoch.
    One,
    /// With epoch, and the key of the parent directory's lease.
    Two {
        /// Epoch: changes of the state are counted.
        epoch: u16,
        /// ParentLeaseKey.
        parent: Option<[u8; 16]>,
    },
}

/// A break that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseBreak {
    /// What the client has been asked for.
    pub to: Caching,
    /// What is needed since. If it is less, another break follows the acknowledgment.
    pub required: Caching,
    /// Service time at which the server stops waiting.
    pub deadline: Duration,
}

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which one.
    pub id: LeaseId,
    /// Its version.
    pub version: Version,
    /// LeaseState.
    pub state: Caching,
    /// A break that is not acknowledged.
    pub breaking: Option<LeaseBreak>,
}

/// What a client must be sent: a LEASE_BREAK notification (MS-SMB2 2.2.23.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// CurrentLeaseState.
    pub from: Caching,
    /// NewLeaseState.
    pub to: Caching,
    /// It must be acknowledged.
    pub is_acknowledged: bool,
    /// NewEpoch.
    pub epoch: u16,
}

/// An acknowledgment that is refused (MS-SMB2 3.3.5.22.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing is being broken.
    NotBreaking,
    /// The client wants to keep more than it may.
    TooMuch,
}

impl Lease {
    /// A lease with a request's first state.
    #[must_use]
    pub fn new(id: LeaseId, version: Version, state: Caching) -> Lease {
        let mut lease = Lease {
            id,
            version,
            state,
            breaking: None,
        };
        lease.count();
        lease
    }

    /// Epoch; 0 for version 1.
    #[must_use]
    pub fn epoch(&self) -> u16 {
        match self.version {
            Version::One => 0,
            Version::Two { epoch, .. } => epoch,
        }
    }

    fn count(&mut self) {
        if let Version::Two { epoch, .. } = &mut self.version {
            *epoch = epoch.wrapping_add(1);
        }
    }

    /// Another open asks for more. It is given all that it asks for, or nothing (MS-SMB2 3.3.5.9.8).
    pub fn upgrade(&mut self, wanted: Caching, granted: Caching) {
        let is_more = self.state.is_within(wanted) && granted == wanted && wanted != self.state;
        if is_more && self.breaking.is_none() {
            self.state = granted;
            self.count();
        }
    }

    /// Breaks it to `to` and less. Returns what the client must be sent, if anything: while a break is under way a
    /// further one waits for its acknowledgment.
    pub fn break_to(&mut self, to: Caching, deadline: Duration) -> Option<Notification> {
        if let Some(breaking) = &mut self.breaking {
            breaking.required = breaking.required.and(to);
            return None;
        }
        let to = self.state.and(to);
        if to == self.state {
            return None;
        }
        self.count();
        Some(self.begin(to, to, deadline))
    }

    /// A client that only reads from its cache has nothing to write back and keeps no handle: it does not acknowledge.
    fn begin(&mut self, to: Caching, required: Caching, deadline: Duration) -> Notification {
        let from = self.state;
        let is_acknowledged = from.has(Caching::HANDLE.or(Caching::WRITE));
        if is_acknowledged {
            self.breaking = Some(LeaseBreak {
                to,
                required,
                deadline,
            });
        } else {
            self.state = to;
        }
        Notification {
            from,
            to,
            is_acknowledged,
            epoch: self.epoch(),
        }
    }

    /// The client gives up what is not in `state`. If it keeps more than is required by now, it is asked for the rest:
    /// for its handles first, then for the data that it has read.
    ///
    /// # Errors
    /// The lease is not changed.
    pub fn acknowledge(
        &mut self,
        state: Caching,
        deadline: Duration,
    ) -> Result<Option<Notification>, Refusal> {
        let breaking = self.breaking.ok_or(Refusal::NotBreaking)?;
        if !state.is_within(breaking.to) {
            return Err(Refusal::TooMuch);
        }
        self.breaking = None;
        self.state = state;
        if state.is_within(breaking.required) {
            return Ok(None);
        }
        let to = match state == Caching::READ {
            true => breaking.required,
            false => breaking.required.or(Caching::READ),
        };
        Ok(Some(self.begin(to, breaking.required, deadline)))
    }

    /// The client has not acknowledged in time: it caches nothing any more (MS-SMB2 3.3.6.5).
    pub fn give_up(&mut self) {
        self.breaking = None;
        self.state = Caching::NONE;
    }
}

#[cfg(test)]
mod tests;
