//! Describes the clients in a log for `outlast nvram show`: made by the same fold as in a recovery, without keys,
//! hashes or bytes of files.

use std::time::Duration;

use outlast_nvram::Replayed;
use outlast_smb::Entropy;
use serde::Serialize;

use super::fold::{Fold, Folded, decode};
use super::status;
use crate::control::ConnectionStatus;

/// The content of a log.
#[derive(Debug, Serialize)]
pub struct Saved {
    /// The service time that may have been shown at most.
    pub service_time_seconds: f64,
    /// Ids below this may have been used.
    pub ids_up_to: u64,
    /// The clients' objects, connection or none.
    pub clients: Vec<SavedClient>,
}

/// One client's object.
#[derive(Debug, Serialize)]
pub struct SavedClient {
    /// Its id.
    pub object: u64,
    /// Its connection; `None` if TCP has closed it and its files are still to be closed.
    pub connection: Option<ConnectionStatus>,
    /// Its open files.
    pub open_files: Vec<SavedOpen>,
}

/// One open file.
#[derive(Debug, Serialize)]
pub struct SavedOpen {
    /// Path beneath the share.
    pub path: String,
    /// The user that opened it; `None` for guest.
    pub user: Option<String>,
    /// GrantedAccess (MS-DTYP 2.4.3).
    pub granted_access: u32,
}

/// An entropy source for a log that is only read, which draws no secrets.
struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// The configuration of a server without shares and users, since the fold needs neither.
pub(super) fn no_service() -> outlast_smb::Config {
    outlast_smb::Config {
        name: String::new(),
        guid: [0; 16],
        min_dialect: outlast_smb::Dialect::Smb202,
        max_dialect: outlast_smb::Dialect::Smb311,
        signing: outlast_smb::Requirement::Enabled,
        encryption: outlast_smb::Requirement::Enabled,
        oplocks: outlast_smb::Oplocks::On,
        shares: Vec::new(),
        users: Vec::new(),
        limits: outlast_smb::Limits::default(),
    }
}

/// Folds the records.
///
/// # Errors
/// The records are of another version.
pub fn saved(records: Vec<Replayed>) -> anyhow::Result<Saved> {
    let mut fold = Fold::new(outlast_stack::Config::default(), no_service());
    for (object, record, data) in decode(records)? {
        fold.take(object, record, data)?;
    }
    let Folded {
        stack,
        smb,
        clients: objects,
        global,
        ..
    } = fold.finish(&mut NoEntropy)?;
    let mut connections = stack.status();
    let opens: Vec<_> = smb.opens().collect();
    let clients = objects.into_iter().map(|object| {
        let connection = connections.iter().position(|tcp| tcp.conn == object);
        let connection = connection.map(|at| status::connection(connections.swap_remove(at), &smb));
        let opens = opens.iter().filter(|open| open.conn == object);
        let open_files = opens.map(|open| SavedOpen {
            path: open.path.clone(),
            user: open.actor.user.clone(),
            granted_access: open.granted_access,
        });
        SavedClient {
            object,
            connection,
            open_files: open_files.collect(),
        }
    });
    Ok(Saved {
        service_time_seconds: Duration::as_secs_f64(&global.clock_up_to),
        ids_up_to: global.ids_up_to,
        clients: clients.collect(),
    })
}
