//! Indexes the durable state of all connections: the opens of a stream, the requests that wait for it, the deadlines of
//! breaks, directory watches. The index is never stored; [`crate::Smb::apply`] updates it.

use crate::held::Held;
use crate::record::Touched;
use crate::server::{ConnId, Task};
use crate::state::{Connection, Durable, Holding, Open, Parked, Target, Wait};
use outlast_fsa::file_opens::FileOpens;
use outlast_fsa::fileop::{FileKey, OpenId};
use outlast_fsa::lease::{Lease, LeaseId};
use outlast_fsa::open::FileOpen;
use outlast_fsa::stream::StreamKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A stream without opens.
static UNOPENED: FileOpens = FileOpens::new();

/// The index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FileTable {
    opens: HashMap<StreamKey, FileOpens>,
    /// The named streams among them.
    named: BTreeSet<StreamKey>,
    /// Ordered by AsyncId, the order of arrival.
    waiters: BTreeMap<FileKey, BTreeSet<(u64, ConnId)>>,
    deadlines: BTreeSet<(Duration, ConnId, OpenId)>,
    watches: BTreeSet<(ConnId, OpenId)>,
    leases: HashMap<LeaseId, BTreeSet<(ConnId, OpenId)>>,
    /// Durable opens without a connection.
    detached: HashMap<OpenId, ConnId>,
    /// Opens by the CreateGuid of their CREATE.
    created: HashMap<[u8; 16], BTreeSet<(ConnId, OpenId)>>,
    /// The resources of each connection that has any, and of all connections.
    held: BTreeMap<ConnId, Held>,
    held_by_all: Held,
}

/// Returns when a durable open without a connection needs processing: at once if its timeout has not begun.
fn deadline(durable: &Durable) -> Duration {
    match durable.holding {
        Holding::Until(until) => until,
        Holding::Connected | Holding::Left => Duration::ZERO,
    }
}

impl FileTable {
    pub(crate) fn add(&mut self, conn: ConnId, open: &Open) {
        self.count(conn, Held::of_open(open));
        if let Some(durable) = &open.durable {
            self.add_durable(conn, open, durable);
        }
        if let Some(create) = &open.create {
            let made = self.created.entry(create.guid).or_default();
            made.insert((conn, open.id));
        }
        if let Target::File(file) = &open.target {
            let key = StreamKey::of(file);
            if !key.stream.is_default() {
                self.named.insert(key);
            }
            self.opens
                .entry(key)
                .or_default()
                .add((conn, open.id), open.granted_access, file);
            self.add_details(conn, open.id, file);
        }
    }

    pub(crate) fn remove(&mut self, conn: ConnId, open: &Open) {
        self.discount(conn, Held::of_open(open));
        if let Some(durable) = &open.durable {
            self.remove_durable(conn, open, durable);
        }
        if let Some(create) = &open.create {
            self.remove_created(conn, open.id, create.guid);
        }
        if let Target::File(file) = &open.target {
            let key = StreamKey::of(file);
            if let Some(opens) = self.opens.get_mut(&key) {
                opens.remove((conn, open.id), open.granted_access, file);
                if opens.is_empty() {
                    self.opens.remove(&key);
                    self.named.remove(&key);
                }
            }
            self.watches.remove(&(conn, open.id));
            if let Some(breaking) = file.breaking {
                self.deadlines.remove(&(breaking.deadline, conn, open.id));
            }
            if let Some(lease) = &file.lease {
                self.remove_lease(conn, open.id, lease);
            }
        }
    }

    fn add_durable(&mut self, conn: ConnId, open: &Open, durable: &Durable) {
        if open.is_detached() {
            self.detached.insert(open.id, conn);
            self.deadlines.insert((deadline(durable), conn, open.id));
        }
    }

    fn remove_durable(&mut self, conn: ConnId, open: &Open, durable: &Durable) {
        if open.is_detached() {
            self.detached.remove(&open.id);
            self.deadlines.remove(&(deadline(durable), conn, open.id));
        }
    }

    fn remove_created(&mut self, conn: ConnId, open: OpenId, guid: [u8; 16]) {
        if let Some(made) = self.created.get_mut(&guid) {
            made.remove(&(conn, open));
            if made.is_empty() {
                self.created.remove(&guid);
            }
        }
    }

    /// Returns the former connection of a durable open without one.
    pub(crate) fn detached(&self, open: OpenId) -> Option<ConnId> {
        self.detached.get(&open).copied()
    }

    /// Iterates over the opens that were made with this CreateGuid.
    pub(crate) fn created_by(&self, guid: [u8; 16]) -> impl Iterator<Item = (ConnId, OpenId)> + '_ {
        self.created.get(&guid).into_iter().flatten().copied()
    }

    fn remove_lease(&mut self, conn: ConnId, open: OpenId, lease: &Lease) {
        if let Some(breaking) = lease.breaking {
            self.deadlines.remove(&(breaking.deadline, conn, open));
        }
        if let Some(opens) = self.leases.get_mut(&lease.id) {
            opens.remove(&(conn, open));
            if opens.is_empty() {
                self.leases.remove(&lease.id);
            }
        }
    }

    fn count(&mut self, conn: ConnId, held: Held) {
        self.held.entry(conn).or_default().add(held);
        self.held_by_all.add(held);
    }

    fn discount(&mut self, conn: ConnId, held: Held) {
        self.held_by_all.subtract(held);
        if let Some(own) = self.held.get_mut(&conn) {
            own.subtract(held);
            if *own == Held::default() {
                self.held.remove(&conn);
            }
        }
    }

    /// Returns the resources of a connection.
    pub(crate) fn held(&self, conn: ConnId) -> Held {
        self.held.get(&conn).copied().unwrap_or_default()
    }

    /// Returns the resources of all connections.
    pub(crate) fn held_by_all(&self) -> Held {
        self.held_by_all
    }

    fn add_details(&mut self, conn: ConnId, id: OpenId, file: &FileOpen) {
        if file.watch.is_some() {
            self.watches.insert((conn, id));
        }
        if let Some(breaking) = file.breaking {
            self.deadlines.insert((breaking.deadline, conn, id));
        }
        if let Some(lease) = &file.lease {
            self.leases.entry(lease.id).or_default().insert((conn, id));
            if let Some(breaking) = lease.breaking {
                self.deadlines.insert((breaking.deadline, conn, id));
            }
        }
    }

    pub(crate) fn add_parked(&mut self, conn: ConnId, id: u64, parked: &Parked) {
        self.count(conn, Held::OF_PARKED);
        if let Wait::Lock(key) | Wait::Break(key) = parked.wait {
            self.waiters.entry(key).or_default().insert((id, conn));
        }
    }

    pub(crate) fn remove_parked(&mut self, conn: ConnId, id: u64, parked: &Parked) {
        self.discount(conn, Held::OF_PARKED);
        if let Wait::Lock(key) | Wait::Break(key) = parked.wait
            && let Some(waiters) = self.waiters.get_mut(&key)
        {
            waiters.remove(&(id, conn));
            if waiters.is_empty() {
                self.waiters.remove(&key);
            }
        }
    }

    /// Removes the parts that a record is about to change.
    pub(crate) fn forget(&mut self, conn: ConnId, connection: &Connection, touched: Touched) {
        if touched.everything {
            return self.remove_all(conn, connection);
        }
        if let Some(open) = touched.open.and_then(|id| connection.opens.get(&id)) {
            self.remove(conn, open);
        }
        for id in touched.parked() {
            if let Some(parked) = connection.parked.get(&id) {
                self.remove_parked(conn, id, parked);
            }
        }
    }

    /// Adds the parts that a record has changed.
    pub(crate) fn learn(&mut self, conn: ConnId, connection: &Connection, touched: Touched) {
        if touched.everything {
            return self.add_all(conn, connection);
        }
        if let Some(open) = touched.open.and_then(|id| connection.opens.get(&id)) {
            self.add(conn, open);
        }
        for id in touched.parked() {
            if let Some(parked) = connection.parked.get(&id) {
                self.add_parked(conn, id, parked);
            }
        }
    }

    pub(crate) fn add_all(&mut self, conn: ConnId, connection: &Connection) {
        for open in connection.opens.values() {
            self.add(conn, open);
        }
        for (id, parked) in &connection.parked {
            self.add_parked(conn, *id, parked);
        }
    }

    pub(crate) fn remove_all(&mut self, conn: ConnId, connection: &Connection) {
        for open in connection.opens.values() {
            self.remove(conn, open);
        }
        for (id, parked) in &connection.parked {
            self.remove_parked(conn, *id, parked);
        }
    }

    /// Returns the opens of a stream.
    pub(crate) fn opens(&self, key: impl Into<StreamKey>) -> &FileOpens {
        self.opens.get(&key.into()).unwrap_or(&UNOPENED)
    }

    /// Iterates over the streams of a file that may be open: the default one, and the named ones that are.
    pub(crate) fn streams(&self, file: FileKey) -> impl Iterator<Item = StreamKey> + '_ {
        let default = StreamKey::from(file);
        let named = self.named.range(default..);
        let named = named.copied().take_while(move |key| key.file == file);
        std::iter::once(default).chain(named)
    }

    /// Iterates over the opens of all streams of a file.
    pub(crate) fn opens_of_file(
        &self,
        file: FileKey,
    ) -> impl Iterator<Item = (ConnId, OpenId)> + '_ {
        self.streams(file).flat_map(|key| self.opens(key).all())
    }

    /// Iterates over the opens of a lease.
    pub(crate) fn of_lease(&self, id: LeaseId) -> impl Iterator<Item = (ConnId, OpenId)> + '_ {
        self.leases.get(&id).into_iter().flatten().copied()
    }

    /// Iterates over the requests that wait for locks or breaks of a file.
    pub(crate) fn waiters(&self, key: FileKey) -> impl Iterator<Item = Task> + '_ {
        self.waiters
            .get(&key)
            .into_iter()
            .flatten()
            .map(|(id, conn)| Task::Parked(*conn, *id))
    }

    /// Returns the break or durable open with the earliest deadline.
    pub(crate) fn first_deadline(&self) -> Option<(Duration, ConnId, OpenId)> {
        self.deadlines.first().copied()
    }

    /// Iterates over the directory watches.
    pub(crate) fn watches(&self) -> impl Iterator<Item = (ConnId, OpenId)> + '_ {
        self.watches.iter().copied()
    }

    pub(crate) fn has_watches(&self) -> bool {
        !self.watches.is_empty()
    }
}

#[cfg(test)]
mod tests;
