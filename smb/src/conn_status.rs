//! Summarizes a connection for `outlast status`.

use serde::Serialize;

use crate::server::{ConnId, Smb};
use crate::state::{Connection, Open, Session, Target};

/// What `outlast status` shows of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnStatus {
    /// "2.0.2" to "3.1.1"; empty before NEGOTIATE.
    pub dialect: String,
    /// Login names of the sessions.
    pub user: String,
    /// "HMAC-SHA256", "AES-CMAC", "AES-GMAC", or "off".
    pub signing: String,
    /// "AES-128-GCM" and so on, or "off".
    pub encryption: String,
    /// Names of the connected shares.
    pub trees: Vec<String>,
    /// Opens.
    pub opens: usize,
    /// Byte-range locks.
    pub locks: usize,
}

/// The sums over several connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Opens.
    pub opens: usize,
    /// Byte-range locks.
    pub locks: usize,
    /// Tree connects.
    pub trees: usize,
}

impl Smb {
    /// Returns what `outlast status` shows of a connection.
    #[must_use]
    pub fn status(&self, conn: ConnId) -> ConnStatus {
        let Some(connection) = self.connections.get(&conn) else {
            return ConnStatus::default();
        };
        let valid = || connection.valid_sessions();
        let name = |session: &Session| match &session.security {
            security if security.anonymous => "(anonymous)".to_string(),
            security if security.guest => "(guest)".to_string(),
            security => security.user.clone().unwrap_or_default(),
        };
        let keys = || valid().filter_map(|session| session.security.keys.as_ref());
        let sealing = valid()
            .filter(|session| session.nonces > 0)
            .filter_map(|session| session.security.keys.as_ref()?.encryption.as_ref())
            .next();
        ConnStatus {
            dialect: connection
                .negotiation
                .dialect
                .map(|d| d.name().to_string())
                .unwrap_or_default(),
            user: valid().map(name).collect::<Vec<_>>().join(", "),
            signing: keys()
                .next()
                .map_or("off", |keys| keys.signing.algorithm().name())
                .to_string(),
            encryption: sealing.map_or("off", |key| key.cipher().name()).to_string(),
            trees: valid()
                .flat_map(|session| session.trees.values())
                .map(|tree| tree.name.clone())
                .collect(),
            opens: connection.opens.len(),
            locks: locks(connection),
        }
    }

    /// Sums these connections' [`ConnStatus::opens`], [`ConnStatus::locks`] and [`ConnStatus::trees`].
    #[must_use]
    pub fn totals(&self, conns: impl Iterator<Item = ConnId>) -> Totals {
        let mut totals = Totals::default();
        for connection in conns.filter_map(|conn| self.connections.get(&conn)) {
            totals.opens += connection.opens.len();
            totals.locks += locks(connection);
            totals.trees += (connection.valid_sessions())
                .map(|session| session.trees.len())
                .sum::<usize>();
        }
        totals
    }
}

fn locks(connection: &Connection) -> usize {
    let locks = |open: &Open| match &open.target {
        Target::File(file) => file.locks.len(),
        Target::Pipe(_) => 0,
    };
    connection.opens.values().map(locks).sum()
}
