//! Admits sessions and tree connects again after each restart, because the configuration may have changed. Those that
//! it no longer admits end, as by LOGOFF and TREE_DISCONNECT; its new requirements apply to the others.

use crate::policy::{self, Refused};
use crate::record::Record;
use crate::server::{ConnId, Journal, Smb};
use crate::state::{Connection, Security, SessionState, Tree};

impl Smb {
    /// Admits every session and tree connect again. Skips connections with an operation in progress: the caller
    /// finishes it and calls again. Repeated calls do not change what was readmitted. Returns the connections that must
    /// be closed: their dialect is no longer allowed, or the last of their sessions has ended.
    pub fn readmit(&mut self, journal: &mut dyn Journal) -> Vec<ConnId> {
        let there = self.connections.iter();
        let there = there.filter(|(_, connection)| !connection.gone && !is_at_work(connection));
        let there: Vec<ConnId> = there.map(|(conn, _)| *conn).collect();
        let mut closed = Vec::new();
        for conn in there {
            let sessions = self.connection(conn).sessions.iter();
            let valid = sessions.filter(|(_, s)| s.security.state == SessionState::Valid);
            let valid: Vec<u64> = valid.map(|(id, _)| *id).collect();
            for id in &valid {
                self.readmit_session(conn, *id, journal);
            }
            let connection = self.connection(conn);
            let dialect = connection.negotiation.dialect;
            let is_spoken = dialect.is_none_or(|d| policy::dialect(&self.config, d).is_ok());
            let is_deserted = !valid.is_empty() && connection.valid_sessions().next().is_none();
            if !is_spoken || is_deserted {
                closed.push(conn);
            }
        }
        closed
    }

    fn readmit_session(&mut self, conn: ConnId, id: u64, journal: &mut dyn Journal) {
        let connection = self.connection(conn);
        let Some(session) = connection.sessions.get(&id) else {
            return;
        };
        let mut security = session.security.clone();
        if let Err(why) = policy::session(&self.config, &connection.negotiation, &mut security) {
            log::warn!(
                "client {}: the session of {} is closed: {why}",
                connection.client,
                name(&security)
            );
            return self.emit(conn, Record::SessionEnded { id }, journal);
        }
        let mut changes = Vec::new();
        for (tree_id, tree) in &session.trees {
            match self.tree_again(&security, tree) {
                Err(why) => {
                    log::warn!(
                        "client {}: the share {:?} is disconnected from {}: {why}",
                        connection.client,
                        tree.name,
                        name(&security)
                    );
                    changes.push(Record::TreeEnded {
                        session: id,
                        id: *tree_id,
                    });
                }
                Ok(now) if now != *tree => {
                    security.raised |= now.encrypt && !tree.encrypt;
                    changes.push(Record::TreeChanged {
                        session: id,
                        id: *tree_id,
                        tree: Box::new(now),
                    });
                }
                Ok(_) => {}
            }
        }
        let before = &session.security;
        security.raised |= (security.signing_required, security.encrypt)
            != (before.signing_required, before.encrypt);
        if security != *before {
            log::info!(
                "client {}: the configuration now requires more protection for the session of {}",
                connection.client,
                name(&security)
            );
            let security = Box::new(security);
            changes.insert(0, Record::Session { id, security });
        }
        for record in changes {
            self.emit(conn, record, journal);
        }
    }

    /// Returns a tree connect as the present configuration determines it.
    fn tree_again(&self, security: &Security, tree: &Tree) -> Result<Tree, Refused> {
        let mut now = policy::tree(&self.config, security, &tree.name)?;
        now.encrypt |= tree.encrypt;
        Ok(now)
    }
}

/// Returns whether the intent of an operation is on record without its result.
fn is_at_work(connection: &Connection) -> bool {
    let parked = connection.parked.values().map(|parked| &parked.work);
    let mut works = connection.work.iter().chain(parked);
    works.any(|work| work.doing.is_some())
}

/// Returns the name of a session's user, for messages.
fn name(security: &Security) -> String {
    match &security.user {
        Some(user) => format!("the user {user:?}"),
        None => "a guest".to_owned(),
    }
}
