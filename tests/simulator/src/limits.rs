//! Defines small limits, so that clients can reach every one of them.

use outlast_smb::Held;

use crate::mutation::{LimitKind, Mutation};

/// The server's limit for the opens of all clients. The last quarter of it is divided among further connections, and
/// with two connections there is none left for the next (`smb/src/held.rs`). So the clients together may have the rest
/// of this number.
const TOTAL_OPENS: usize = 7;

/// The limits of what clients may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of sessions of a connection.
    pub sessions: usize,
    /// The maximum number of trees of a connection.
    pub trees: usize,
    /// The maximum number of opens of a connection.
    pub opens: usize,
    /// The maximum number of locks of an open.
    pub locks: usize,
    /// The maximum number of waiting requests of a connection.
    pub pending: usize,
    /// The maximum number of watched directories of a connection.
    pub watches: usize,
    /// The client that connects when the others have left: everything that they held must be free.
    pub newcomer: usize,
}

impl Limits {
    /// Returns the maximum number of opens of all clients.
    #[must_use]
    pub fn all_opens(&self) -> usize {
        TOTAL_OPENS - TOTAL_OPENS / 4
    }

    /// Returns the limits in the server's configuration. A mutation may raise one of them.
    #[must_use]
    pub fn of_server(&self, mutation: Option<Mutation>) -> outlast_smb::Limits {
        let more = |what| usize::from(mutation == Some(Mutation::LimitOneTooHigh(what)));
        let usual = outlast_smb::Limits::default();
        outlast_smb::Limits {
            sessions: self.sessions + more(LimitKind::Sessions),
            trees: self.trees + more(LimitKind::Trees),
            opens: self.opens + more(LimitKind::Opens),
            locks: self.locks + more(LimitKind::Locks),
            pending: self.pending + more(LimitKind::Pending),
            watches: self.watches + more(LimitKind::Watches),
            total: Held {
                opens: TOTAL_OPENS + 2 * more(LimitKind::AllOpens),
                ..usual.total
            },
            ..usual
        }
    }
}
