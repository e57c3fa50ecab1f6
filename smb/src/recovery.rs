//! Recovers the server after the fold and before the network is opened again.

use crate::config::{FormerShare, Share};
use crate::record::Record;
use crate::server::{ConnId, Journal, OpenInfo, Smb, Task, WatchInfo};
use crate::state::{Connection, Open, Resource, Target, Tree};
use outlast_fsa::fileop::{FileHandle, FileKey, Intent, OpenId, ShareId};
use outlast_fsa::path;
use std::collections::BTreeSet;

impl Smb {
    /// Adapts the state to the present configuration, after the fold and before files are opened again. The `former`
    /// shares are found by name and path, and tree connects to missing ones end. [`Smb::readmit`] comes later.
    pub fn recovered(&mut self, former: &[FormerShare], journal: &mut dyn Journal) {
        self.wake_everyone();
        for conn in self.connections.keys().copied().collect::<Vec<_>>() {
            let connection = self.connection(conn);
            let now = |id: ShareId| self.config.id_now(former, id);
            let moved = shares_used(connection).into_iter();
            let moved = moved.map(|id| (id, now(id))).filter(|(id, now)| id != now);
            let moved: Vec<(ShareId, ShareId)> = moved.collect();
            let mut ended: Vec<(u64, u32)> = Vec::new();
            for (session, tree_id, tree) in trees(connection) {
                if let Resource::Disk(id) = tree.resource
                    && now(id) == ShareId::MAX
                {
                    log::warn!(
                        "client {}: the share {:?} is disconnected: it is gone, or has another path",
                        connection.client,
                        tree.name
                    );
                    ended.push((session, tree_id));
                }
            }
            let lost = self
                .connection(conn)
                .opens
                .values()
                .filter(|open| open.is_detached() && now(open.actor.share) == ShareId::MAX);
            let lost: Vec<OpenId> = lost.map(|open| open.id).collect();
            if !moved.is_empty() {
                self.emit(conn, Record::SharesMoved { moved }, journal);
            }
            for open in lost {
                self.emit(conn, Record::Orphaned { open }, journal);
            }
            for (session, id) in ended {
                self.emit(conn, Record::TreeEnded { session, id }, journal);
            }
        }
    }

    /// Wakes every waiting request and every close. The fold does not determine which ones to wake: the event that one
    /// client waits for may be part of another client's snapshot.
    fn wake_everyone(&mut self) {
        for (conn, connection) in &self.connections {
            let parked = connection.parked.keys();
            let parked = parked.map(|id| Task::Parked(*conn, *id));
            let opens = connection.opens.values();
            let closing = opens.filter(|open| open.closing.is_some());
            let closing = closing.map(|open| Task::Close(*conn, open.id));
            self.wake.extend(parked.chain(closing).map(Task::in_order));
        }
    }

    /// Returns whether a client watches a directory.
    #[must_use]
    pub fn has_watches(&self) -> bool {
        self.files.has_watches()
    }

    /// Marks a watch whose directory may have changed unobserved while the server was down: its client receives
    /// NOTIFY_ENUM_DIR.
    pub fn changes_may_be_missed(&mut self, conn: ConnId, open: OpenId, journal: &mut dyn Journal) {
        let record = Record::Noticed {
            open,
            notices: Vec::new(),
            overflow: true,
        };
        self.emit(conn, record, journal);
    }

    /// Returns the tasks in progress at the end of the log. At most one operation has its intent on record without its
    /// result: the first task, which must be stepped before all others.
    #[must_use]
    pub fn in_progress(&self) -> Vec<Task> {
        let mut tasks: Vec<(bool, Task)> = Vec::new();
        for (conn, connection) in &self.connections {
            if let Some(work) = &connection.work {
                tasks.push((work.doing.is_none(), Task::Message(*conn)));
            }
            for (id, parked) in &connection.parked {
                if parked.running {
                    tasks.push((parked.work.doing.is_none(), Task::Parked(*conn, *id)));
                }
            }
            for open in connection.opens.values() {
                if open
                    .closing
                    .as_ref()
                    .is_some_and(|closing| closing.doing.is_some())
                {
                    tasks.push((false, Task::Close(*conn, open.id)));
                }
            }
        }
        tasks.sort_unstable();
        tasks.into_iter().map(|(_, task)| task).collect()
    }

    /// Counts a crash of the server during this task and returns the count. At the third one the task is answered with
    /// INTERNAL_ERROR or its connection is dropped, instead of another attempt.
    pub fn crashed_during(&mut self, task: Task, journal: &mut dyn Journal) -> u32 {
        let Some((conn, work)) = task.work() else {
            return 0;
        };
        let record = match (work, task) {
            (Some(work), _) => Record::Crashed { work },
            (None, Task::Close(_, open)) => Record::CloseCrashed { open },
            _ => return 0,
        };
        if !self.connections.contains_key(&conn) {
            return 0;
        }
        self.emit(conn, record, journal);
        let connection = self.connection(conn);
        let attempts = match task {
            Task::Message(_) => connection.work.as_ref().map(|work| work.attempts),
            Task::Parked(_, id) => connection
                .parked
                .get(&id)
                .map(|parked| parked.work.attempts),
            Task::Close(_, open) => {
                let closing = connection
                    .opens
                    .get(&open)
                    .and_then(|open| open.closing.as_ref());
                closing.map(|closing| closing.attempts)
            }
            Task::Break(..) => None,
        };
        attempts.unwrap_or(0)
    }

    /// Returns the message of a parked request as received, decrypted. Messages of other tasks are in the TCP stream,
    /// or do not exist.
    #[must_use]
    pub fn parked_message(&self, task: Task) -> Option<&[u8]> {
        let Task::Parked(conn, id) = task else {
            return None;
        };
        let parked = self.connections.get(&conn)?.parked.get(&id)?;
        Some(&parked.message)
    }

    /// Iterates over the open files, for the file system to reopen.
    pub fn opens(&self) -> impl Iterator<Item = OpenInfo> + '_ {
        let rename = self.rename_under_way();
        self.connections.iter().flat_map(move |(conn, connection)| {
            let opens = connection.opens.values();
            opens.filter_map(move |open| info(*conn, open, rename))
        })
    }

    /// Returns one open file.
    #[must_use]
    pub fn open_info(&self, conn: ConnId, open: OpenId) -> Option<OpenInfo> {
        info(conn, self.connections.get(&conn)?.opens.get(&open)?, None)
    }

    /// Returns the shares, indexed by their ids.
    #[must_use]
    pub fn shares(&self) -> &[Share] {
        &self.config.shares
    }

    /// Returns whether a share with this name and path is connected or has an open file.
    #[must_use]
    pub fn uses_share(&self, share: &Share) -> bool {
        let is_connected = |connection: &Connection| {
            trees(connection)
                .any(|(.., tree)| tree.name == share.name && tree.directory == share.directory)
        };
        let mut connections = self.connections.values();
        connections.any(|connection| !connection.opens.is_empty() || is_connected(connection))
    }

    /// Returns the names of the shares, indexed by their ids.
    #[must_use]
    pub fn share_names(&self) -> Vec<String> {
        let shares = self.config.shares.iter();
        shares.map(|share| share.name.clone()).collect()
    }

    /// Puts the new key of a file on record that had to be made again after a power cut.
    pub fn rekeyed(
        &mut self,
        from: FileKey,
        key: FileKey,
        handle: &FileHandle,
        journal: &mut dyn Journal,
    ) {
        for conn in self.connections.keys().copied().collect::<Vec<_>>() {
            let record = Record::Rekeyed {
                from,
                key,
                handle: handle.clone(),
            };
            let mut changed = self.connection(conn).clone();
            record.apply(&mut changed);
            if changed != *self.connection(conn) {
                self.emit(conn, record, journal);
            }
        }
    }

    /// Returns share, old and new path of the rename whose intent is on record without its result.
    fn rename_under_way(&self) -> Option<(ShareId, &str, &str)> {
        self.connections.values().find_map(|connection| {
            let parked = connection.parked.values().map(|parked| &parked.work);
            let mut works = connection.work.iter().chain(parked);
            works.find_map(|work| {
                let doing = work.doing.as_ref()?;
                let Intent::Rename { from, to, .. } = &doing.intent else {
                    return None;
                };
                let share = connection.opens.get(&doing.id)?.actor.share;
                Some((share, from.as_str(), to.as_str()))
            })
        })
    }
}

/// Iterates over SessionId, TreeId and tree connect.
fn trees(connection: &Connection) -> impl Iterator<Item = (u64, u32, &Tree)> {
    let sessions = connection.sessions.iter();
    sessions.flat_map(|(session, of)| of.trees.iter().map(|(id, tree)| (*session, *id, tree)))
}

/// Returns the shares that a connection has connected or has open files of, which may outlive the tree connect.
fn shares_used(connection: &Connection) -> BTreeSet<ShareId> {
    let connected = trees(connection).filter_map(|(.., tree)| match tree.resource {
        Resource::Disk(share) => Some(share),
        Resource::Ipc => None,
    });
    let opens = connection.opens.values();
    let files = opens.filter(|open| matches!(open.target, Target::File(_)));
    connected
        .chain(files.map(|open| open.actor.share))
        .filter(|share| *share != ShareId::MAX)
        .collect()
}

fn info(conn: ConnId, open: &Open, rename: Option<(ShareId, &str, &str)>) -> Option<OpenInfo> {
    let Target::File(file) = &open.target else {
        return None;
    };
    Some(OpenInfo {
        conn,
        open: open.id,
        actor: open.actor.clone(),
        path: file.path.clone(),
        moved_to: rename
            .filter(|(share, ..)| *share == open.actor.share)
            .and_then(|(_, from, to)| moved(&file.path, from, to)),
        key: file.key,
        handle: file.handle.clone(),
        is_dir: file.is_dir,
        granted_access: open.granted_access,
        stopped: file.stopped,
        watch: file.watch.as_ref().map(|watch| WatchInfo {
            recursive: watch.recursive,
            filter: watch.filter,
        }),
    })
}

/// Returns a path's new value after a rename; `None`: it is unchanged.
fn moved(file: &str, from: &str, to: &str) -> Option<String> {
    if file == from {
        return Some(to.to_owned());
    }
    path::below(file, from).map(|name| format!("{to}/{name}"))
}
