//! Implements leases: the caching that a client holds on a file by all opens with one LeaseKey (MS-SMB2 3.3.1.12).
//!
//! Each open of a lease holds a copy of the lease's state, and all copies are equal. A lease thus exists as long as one
//! of its opens, and a change of the lease is a record for each of them.

use crate::caching::Caching;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Identifies a lease. Leases belong to clients, not to connections.
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
    /// With an epoch, and the key of the parent directory's lease.
    Two {
        /// Epoch, which counts the changes of the state.
        epoch: u16,
        /// ParentLeaseKey.
        parent: Option<[u8; 16]>,
    },
}

impl Version {
    /// Returns the lease of the parent directory that the context names: one of the same client.
    #[must_use]
    pub fn parent(self, client: [u8; 16]) -> Option<LeaseId> {
        match self {
            Version::One => None,
            Version::Two { parent, .. } => parent.map(|key| LeaseId { client, key }),
        }
    }
}

/// A break that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseBreak {
    /// NewLeaseState of the notification.
    pub to: Caching,
    /// The state that operations have required since. If it is less, another break follows the acknowledgment.
    pub required: Caching,
    /// Service time at which the wait for the acknowledgment ends.
    pub deadline: Duration,
}

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its identity.
    pub id: LeaseId,
    /// Its version.
    pub version: Version,
    /// LeaseState.
    pub state: Caching,
    /// A break that is not acknowledged.
    pub breaking: Option<LeaseBreak>,
}

/// The content of a LEASE_BREAK notification (MS-SMB2 2.2.23.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// CurrentLeaseState.
    pub from: Caching,
    /// NewLeaseState.
    pub to: Caching,
    /// SMB2_NOTIFY_BREAK_LEASE_FLAG_ACK_REQUIRED.
    pub is_acknowledged: bool,
    /// NewEpoch.
    pub epoch: u16,
}

/// The reason to refuse an acknowledgment (MS-SMB2 3.3.5.22.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No break is in progress.
    NotBreaking,
    /// The acknowledged state is no subset of the one that the break is to.
    TooMuch,
}

impl Lease {
    /// Makes a lease with the state that its first CREATE is granted.
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

    /// Returns the epoch; 0 for version 1.
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

    /// Upgrades the state for another open. The lease is granted the whole requested state or is left unchanged
    /// (MS-SMB2 3.3.5.9.8).
    pub fn upgrade(&mut self, wanted: Caching, granted: Caching) {
        let is_more = self.state.is_within(wanted) && granted == wanted && wanted != self.state;
        if is_more && self.breaking.is_none() {
            self.state = granted;
            self.count();
        }
    }

    /// Breaks the lease to the part of its state that is in `to`. Returns the notification to send, if any: while a
    /// break is in progress a further one waits for its acknowledgment.
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

    /// A lease with READ caching alone has no data to write back and no handle to close: its break is not acknowledged.
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

    /// Processes an acknowledgment: the client keeps `state`. If that is more than what is required by now, another
    /// break follows: first of HANDLE caching, then of READ.
    ///
    /// # Errors
    /// [`Refusal`]; the lease is unchanged.
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

    /// Ends a break that the client has not acknowledged in time: the lease has no caching any more (MS-SMB2 3.3.6.5).
    pub fn give_up(&mut self) {
        self.breaking = None;
        self.state = Caching::NONE;
    }
}

#[cfg(test)]
mod tests;
