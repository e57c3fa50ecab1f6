//! Implements the fold (law 2): it makes the server's state from the records of its log, by the same `apply` that made
//! it. A recovery gives it the live records, a follower each record after its commit.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use outlast_nvram::{Replayed, codec};
use outlast_smb::{Entropy, Smb};
use outlast_stack::Stack;

use super::digest::State;
use super::record::{GLOBAL, Global, Record};
use super::redo::Files;

/// Decoded records.
pub type Replay = Vec<(u64, Record<'static>, Bytes)>;

/// Decodes the log's records.
pub(super) fn decode(records: Vec<Replayed>) -> anyhow::Result<Replay> {
    records
        .into_iter()
        .map(|record| Ok((record.object, codec::decode(&record.meta)?, record.data)))
        .collect::<Result<_, outlast_nvram::Error>>()
        .context("the log's records are of another version of Outlast")
}

/// The longest service time that is accepted: a thousand years. What is added to it cannot overflow.
const LONGEST_SERVICE: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// The highest id that is accepted.
const MOST_IDS: u64 = u64::MAX / 2;

/// The error for a record that no server writes, although its checksum is correct.
pub(super) fn impossible(object: u64, what: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "object {object} of the log has an impossible state: {what}; keep a copy of the file for a bug report and \
         remove it: the next start makes a new one, without its sessions"
    )
}

fn check(global: &Global) -> anyhow::Result<()> {
    let anchor = global.anchor.iter();
    let mut times = anchor.flat_map(|of| [of.uptime, of.real]);
    let is_late = times.any(|time| time > LONGEST_SERVICE);
    if is_late || global.clock_up_to > LONGEST_SERVICE || global.ids_up_to > MOST_IDS {
        return Err(impossible(
            GLOBAL,
            "its clock or its ids are impossibly high",
        ));
    }
    Ok(())
}

/// The state made by the records so far.
pub struct Fold {
    stack: outlast_stack::Config,
    smb: outlast_smb::Config,
    /// `None`: object 0's snapshot has not been read yet.
    server: Option<Server>,
    /// The records before that.
    early: Replay,
    /// The records about files, as read.
    files: Replay,
}

struct Server {
    stack: Stack,
    smb: Smb,
    clients: BTreeSet<u64>,
    global: Global,
}

/// The state made by all records.
pub(super) struct Folded {
    pub stack: Stack,
    pub smb: Smb,
    pub clients: BTreeSet<u64>,
    pub global: Global,
    pub files: Files,
}

impl Fold {
    /// Makes the state without records. The GUID is filled in from the log.
    #[must_use]
    pub fn new(stack: outlast_stack::Config, smb: outlast_smb::Config) -> Fold {
        Fold {
            stack,
            smb,
            server: None,
            early: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The number of clients so far.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.server
            .as_ref()
            .map_or(0, |server| server.clients.len())
    }

    /// Applies one record.
    ///
    /// # Errors
    /// See [`fold_one`].
    pub fn take(
        &mut self,
        object: u64,
        record: Record<'static>,
        data: Bytes,
    ) -> anyhow::Result<()> {
        let Some(server) = &mut self.server else {
            return match record {
                Record::Global(global) => self.begin(global),
                record => {
                    self.early.push((object, record, data));
                    Ok(())
                }
            };
        };
        match record {
            record @ (Record::Generation { .. }
            | Record::Effect(_)
            | Record::Remade { .. }
            | Record::Unsynced) => {
                if matches!(record, Record::Generation { .. }) {
                    self.files.retain(|(of, ..)| *of != object);
                }
                self.files.push((object, record, data));
                Ok(())
            }
            record => server.take(object, record, data),
        }
    }

    /// Makes the server when object 0 is known, and applies the records before it.
    fn begin(&mut self, global: Global) -> anyhow::Result<()> {
        check(&global)?;
        let mut smb = self.smb.clone();
        smb.guid = global.guid;
        self.server = Some(Server {
            stack: Stack::new(self.stack.clone(), global.secret, global.clock_up_to),
            smb: Smb::new(smb),
            clients: BTreeSet::new(),
            global,
        });
        for (object, record, data) in std::mem::take(&mut self.early) {
            self.take(object, record, data)?;
        }
        Ok(())
    }

    /// Ends an object.
    pub fn end(&mut self, object: u64) {
        self.early.retain(|(of, ..)| *of != object);
        self.files.retain(|(of, ..)| *of != object);
        if let Some(server) = &mut self.server {
            server.smb.forget(object);
            server
                .stack
                .apply(object, &outlast_stack::Record::Closed, Bytes::new());
            server.clients.remove(&object);
        }
    }

    /// The state of which digests are made; `None`: object 0's snapshot has not been read yet.
    pub(super) fn state(&self) -> Option<State<'_>> {
        let Server {
            stack, smb, global, ..
        } = self.server.as_ref()?;
        Some(State { stack, smb, global })
    }

    /// Forgets which waiting requests may continue, since a follower runs none.
    pub(super) fn forget_wakeups(&mut self) {
        if let Some(server) = &mut self.server {
            server.smb.clear_wakeups();
        }
    }

    /// Finishes the fold when all records have been applied. Without object 0's snapshot it is a new log, which gets
    /// its secrets from `entropy`.
    ///
    /// # Errors
    /// The log contains an impossible state.
    pub(super) fn finish(mut self, entropy: &mut dyn Entropy) -> anyhow::Result<Folded> {
        if self.server.is_none() {
            self.begin(Global::new(entropy))?;
        }
        let Some(Server {
            stack,
            smb,
            clients,
            global,
        }) = self.server
        else {
            return Err(impossible(GLOBAL, "it is missing"));
        };
        check(&global)?;
        let given_out = 1..global.ids_up_to;
        if let Some(object) = clients.iter().find(|object| !given_out.contains(object)) {
            return Err(impossible(*object, "no such id has been given out"));
        }
        let mut files = Files::default();
        for (object, record, data) in self.files {
            files.take(object, record, data);
        }
        Ok(Folded {
            stack,
            smb,
            clients,
            global,
            files,
        })
    }
}

impl Server {
    fn take(&mut self, object: u64, record: Record<'static>, data: Bytes) -> anyhow::Result<()> {
        let global = &mut self.global;
        match record {
            Record::Global(snapshot) => *global = snapshot,
            Record::ClockUpTo(mark) => global.clock_up_to = global.clock_up_to.max(mark),
            Record::WatchedUntil(until) => global.watched_until = until,
            Record::Root { share, key } => global.note_root(share, key),
            Record::Account { name, ids } => global.note_account(&name, ids),
            Record::Address { record, anchor } => global.note_address(&record, anchor),
            Record::IdsUpTo(mark) => global.ids_up_to = global.ids_up_to.max(mark),
            record => {
                if fold_one(&mut self.stack, &mut self.smb, object, record, data)? {
                    self.clients.insert(object);
                }
            }
        }
        Ok(())
    }
}

/// Folds the clients' state from their records, and returns the clients.
///
/// # Errors
/// See [`fold_one`].
pub fn fold(stack: &mut Stack, smb: &mut Smb, replay: Replay) -> anyhow::Result<BTreeSet<u64>> {
    let mut clients = BTreeSet::new();
    for (object, record, data) in replay {
        if fold_one(stack, smb, object, record, data)? {
            clients.insert(object);
        }
    }
    Ok(clients)
}

/// Folds one record. Returns whether it begins a client's state.
///
/// # Errors
/// A record of an object that is not a client's, or the end of one, which a log does not return.
pub fn fold_one(
    stack: &mut Stack,
    smb: &mut Smb,
    object: u64,
    record: Record<'static>,
    data: Bytes,
) -> anyhow::Result<bool> {
    let begins = matches!(record, Record::Client { .. } | Record::Copy { .. });
    match record {
        Record::Client {
            tcp,
            smb: checkpoint,
        } => {
            restore_tcp(stack, object, tcp, data)?;
            restore_smb(smb, object, checkpoint)?;
        }
        Record::Copy { smb: checkpoint } => restore_smb(smb, object, Some(checkpoint))?,
        Record::Copied { tcp } => restore_tcp(stack, object, tcp, data)?,
        Record::Tcp(record) => stack.apply(object, &record, data),
        Record::Smb(record) => smb.apply(object, &record),
        _ => {
            let what = format!("a record is out of place ({})", record.name());
            return Err(impossible(object, &what));
        }
    }
    Ok(begins)
}

fn restore_tcp(
    stack: &mut Stack,
    object: u64,
    tcp: Option<Cow<'static, outlast_stack::Checkpoint>>,
    data: Bytes,
) -> anyhow::Result<()> {
    let Some(tcp) = tcp else { return Ok(()) };
    if let Some(what) = tcp.contradiction() {
        return Err(impossible(object, what));
    }
    let opened = outlast_stack::Record::Opened(Box::new(tcp.into_owned()));
    stack.apply(object, &opened, data);
    Ok(())
}

fn restore_smb(
    smb: &mut Smb,
    object: u64,
    checkpoint: Option<Cow<'static, outlast_smb::Checkpoint>>,
) -> anyhow::Result<()> {
    let Some(checkpoint) = checkpoint else {
        return Ok(());
    };
    if let Some(what) = checkpoint.contradiction() {
        return Err(impossible(object, what));
    }
    smb.restore(object, checkpoint.into_owned());
    Ok(())
}

#[cfg(test)]
mod tests;
