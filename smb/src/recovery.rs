//! Coming back: what the loop asks after the fold, before the gates open.

use crate::config::{FormerShare, Share};
use crate::record::Record;
use crate::server::{ConnId, Journal, OpenInfo, Smb, Task, WatchInfo};
use crate::state::{Connection, Open, Resource, Target, Tree};
use outlast_fsa::fileop::{FileHandle, FileKey, Intent, OpenId, ShareId};
use outlast_fsa::path;
use std::collections::BTreeSet;

impl Smb {
    /// After the fold and before files are opened again. The configuration may have changed: shares, which were
    /// `former` ones in the life before, are found by name and path, and the tree connects of those that are not there
    /// end. [`Smb::readmit`] comes later.
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

    /// The fold does not know which requests to wake: what one client waits for may have become part of another's
    /// snapshot.
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

    /// Does any client watch a directory?
    #[must_use]
    pub fn has_watches(&self) -> bool {
        self.files.has_watches()
    }

    /// Local changes of a watched directory may have been missed while the server was away: its client gets
    /// NOTIFY_ENUM_DIR.
    pub fn changes_may_be_missed(&mut self, conn: ConnId, open: OpenId, journal: &mut dyn Journal) {
        let record = Record::Noticed {
            open,
            notices: Vec::new(),
            overflow: true,
        };
        self.emit(conn, record, journal);
    }

    /// The work that was in progress at the end of the log. One operation at most has its intent on record without its
    /// result: step its task before anything else.
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

    /// The server crashed while at this task, by whatever signal. At the third time the task is answered with
    /// INTERNAL_ERROR or its connection dropped, instead of being tried again. Returns the deaths counted.
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

    /// A parked request's message as it came, decrypted; the messages of other tasks are the stream's, or there is
    /// none.
    #[must_use]
    pub fn parked_message(&self, task: Task) -> Option<&[u8]> {
        let Task::Parked(conn, id) = task else {
            return None;
        };
        let parked = self.connections.get(&conn)?.parked.get(&id)?;
        Some(&parked.message)
    }

    /// Every open file, for the file system to open again.
    pub fn opens(&self) -> impl Iterator<Item = OpenInfo> + '_ {
        let rename = self.rename_under_way();
        self.connections.iter().flat_map(move |(conn, connection)| {
            let opens = connection.opens.values();
            opens.filter_map(move |open| info(*conn, open, rename))
        })
    }

    /// One of them.
    #[must_use]
    pub fn open_info(&self, conn: ConnId, open: OpenId) -> Option<OpenInfo> {
        info(conn, self.connections.get(&conn)?.opens.get(&open)?, None)
    }

    /// The shares, by their ids.
    #[must_use]
    pub fn shares(&self) -> &[Share] {
        &self.config.shares
    }

    /// Is a share connected, or anything of it open, under this name and path?
    #[must_use]
    pub fn uses_share(&self, share: &Share) -> bool {
        let is_connected = |connection: &Connection| {
            trees(connection)
                .any(|(.., tree)| tree.name == share.name && tree.directory == share.directory)
        };
        let mut connections = self.connections.values();
        connections.any(|connection| !connection.opens.is_empty() || is_connected(connection))
    }

    /// The names of the shares, by their ids.
    #[must_use]
    pub fn share_names(&self) -> Vec<String> {
        let shares = self.config.shares.iter();
        shares.map(|share| share.name.clone()).collect()
    }

    /// After a power cut a file had to be made again: to the file system it is another one now.
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

    /// Share, old and new path of the rename whose intent is on record without its result.
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

/// Session, TreeId and tree of each tree connect.
fn trees(connection: &Connection) -> impl Iterator<Item = (u64, u32, &Tree)> {
    let sessions = connection.sessions.iter();
    sessions.flat_map(|(session, of)| of.trees.iter().map(|(id, tree)| (*session, *id, tree)))
}

/// The shares that a connection has connected, or has files open of: these may still have to be closed when the tree
/// connect is gone.
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

/// Where a path is after a rename; `None`: where it was.
fn moved(file: &str, from: &str, to: &str) -> Option<String> {
    if file == from {
        return Some(to.to_owned());
    }
    path::below(file, from).map(|name| format!("{to}/{name}"))
}
