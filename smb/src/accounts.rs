//! Accounts for the bytes of the log that each connection's and each account's durable state takes ([`crate::size`]).
//! The sums are derived from the state of all connections, and [`crate::Smb::apply`] updates them.
//!
//! An account may have at most as many bytes as remain free (dynamic thresholds, Choudhury and Hahne, 1998): one
//! account alone may have half of the room, several get equal parts without being counted, and some room remains for
//! another one.

use crate::record::Touched;
use crate::server::{ConnId, Principal};
use crate::size;
use crate::state::Connection;
use std::collections::BTreeMap;

/// The account and the bytes of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Own {
    principal: Principal,
    bytes: usize,
}

/// The bytes of each connection and of each account.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    connections: BTreeMap<ConnId, Own>,
    accounts: BTreeMap<Principal, usize>,
    total: usize,
}

impl Accounts {
    /// Subtracts the parts that a record is about to change.
    pub(crate) fn forget(&mut self, conn: ConnId, connection: &Connection, touched: Touched) {
        let Some(own) = self.connections.get_mut(&conn) else {
            return;
        };
        let bytes = measure(connection, touched);
        own.bytes -= bytes;
        self.total -= bytes;
        if let Some(account) = self.accounts.get_mut(&own.principal) {
            *account -= bytes;
        }
    }

    /// Adds the parts that a record has changed.
    pub(crate) fn learn(&mut self, conn: ConnId, connection: &Connection, touched: Touched) {
        let bytes = measure(connection, touched);
        self.total += bytes;
        let own = self.connections.entry(conn).or_default();
        own.bytes += bytes;
        *self.accounts.entry(own.principal.clone()).or_default() += bytes;
        if touched.everything || touched.session.is_some() || connection.gone {
            self.refresh_principal(conn, connection);
        }
    }

    /// Determines the account of a connection again: its first session may be another one now.
    fn refresh_principal(&mut self, conn: ConnId, connection: &Connection) {
        let now = principal(connection);
        let Some(own) = self.connections.get_mut(&conn) else {
            return;
        };
        let bytes = own.bytes;
        let before = std::mem::replace(&mut own.principal, now.clone());
        self.take_from(&before, bytes);
        *self.accounts.entry(now).or_default() += bytes;
    }

    fn take_from(&mut self, principal: &Principal, bytes: usize) {
        if let Some(account) = self.accounts.get_mut(principal) {
            *account -= bytes;
            let still = |own: &Own| own.principal == *principal;
            if *account == 0 && !self.connections.values().any(still) {
                self.accounts.remove(principal);
            }
        }
    }

    pub(crate) fn add_all(&mut self, conn: ConnId, connection: &Connection) {
        self.learn(conn, connection, Touched::everything());
    }

    pub(crate) fn remove_all(&mut self, conn: ConnId) {
        if let Some(own) = self.connections.remove(&conn) {
            self.total -= own.bytes;
            self.take_from(&own.principal, own.bytes);
        }
    }

    /// Returns the bytes of one connection.
    pub(crate) fn of(&self, conn: ConnId) -> usize {
        self.connections.get(&conn).map_or(0, |own| own.bytes)
    }

    /// Returns the bytes of all connections.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Iterates over the connections, with account and bytes.
    pub(crate) fn each(&self) -> impl Iterator<Item = (ConnId, &Principal, usize)> {
        let connections = self.connections.iter();
        connections.map(|(conn, own)| (*conn, &own.principal, own.bytes))
    }

    /// Returns the account that a connection belongs to.
    pub(crate) fn principal(&self, conn: ConnId) -> Principal {
        let own = self.connections.get(&conn);
        own.map(|own| own.principal.clone()).unwrap_or_default()
    }

    /// Returns whether the account of this connection may have `more` bytes, out of `limit` for all.
    pub(crate) fn has_room(&self, conn: ConnId, more: usize, limit: usize) -> bool {
        let own = self.connections.get(&conn);
        let account = own.and_then(|own| self.accounts.get(&own.principal));
        let account = account.copied().unwrap_or_default();
        account.saturating_add(more) <= limit.saturating_sub(self.total)
    }
}

/// Measures the parts that a record touches, in bytes.
fn measure(connection: &Connection, touched: Touched) -> usize {
    if touched.everything {
        let opens: usize = connection.opens.values().map(size::open).sum();
        let parked: usize = connection.parked.values().map(size::parked).sum();
        let sessions: usize = connection.sessions.values().map(size::session).sum();
        return size::shell(connection) + opens + parked + sessions;
    }
    let frame = touched.frame.then(|| size::shell(connection));
    let open = touched.open.and_then(|id| connection.opens.get(&id));
    let parked = touched.parked().filter_map(|id| connection.parked.get(&id));
    let session = touched.session.and_then(|id| connection.sessions.get(&id));
    let parts = [frame, open.map(size::open), session.map(size::session)];
    parts.into_iter().flatten().sum::<usize>() + parked.map(size::parked).sum::<usize>()
}

/// Determines the account of a connection: that of its first session. The rest of a disconnected one keeps its account.
fn principal(connection: &Connection) -> Principal {
    let of = |user: &Option<String>| match user {
        None => Principal::Guest,
        Some(user) => Principal::User(user.to_lowercase().into()),
    };
    let session = connection.valid_sessions().next();
    if let Some(session) = session {
        return of(&session.security.user);
    }
    let first = connection.opens.values().next();
    match first.filter(|_| connection.gone) {
        Some(open) => of(&open.actor.user),
        None => Principal::Unknown,
    }
}

#[cfg(test)]
mod tests;
