//! Small limits, so that clients can go to every one of them.

use outlast_smb::Held;

use crate::mutation::{Limited, Mutation};

/// The next connection's part of the last quarter of a total is none when there are two (`smb/src/held.rs`): what is
/// left of this number is what all clients may have together.
const TOTAL_OPENS: usize = 7;

/// What clients may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of a connection.
    pub sessions: usize,
    /// Trees of a connection.
    pub trees: usize,
    /// Opens of a connection.
    pub opens: usize,
    /// Locks of an open.
    pub locks: usize,
    /// Requests of a connection that wait.
    pub pending: usize,
    /// Watched directories of a connection.
    pub watches: usize,
    /// The client that comes when the others have left, and finds everything free that they had.
    pub newcomer: usize,
}

impl Limits {
    /// Opens of all clients.
    #[must_use]
    pub fn all_opens(&self) -> usize {
        TOTAL_OPENS - TOTAL_OPENS / 4
    }

    /// As the server is told; of what `mutation` says one too many.
    #[must_use]
    pub fn of_server(&self, mutation: Option<Mutation>) -> outlast_smb::Limits {
        let more = |what| usize::from(mutation == Some(Mutation::OneTooMany(what)));
        let usual = outlast_smb::Limits::default();
        outlast_smb::Limits {
            sessions: self.sessions + more(Limited::Sessions),
            trees: self.trees + more(Limited::Trees),
            opens: self.opens + more(Limited::Opens),
            locks: self.locks + more(Limited::Locks),
            pending: self.pending + more(Limited::Pending),
            watches: self.watches + more(Limited::Watches),
            total: Held {
                opens: TOTAL_OPENS + 2 * more(Limited::AllOpens),
                ..usual.total
            },
            ..usual
        }
    }
}
