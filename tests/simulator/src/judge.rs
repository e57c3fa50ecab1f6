//! Implements the judge: a small file server that never crashes. It determines how each request must be answered, and
//! the files at the end. It shares no code with the server.

mod limits;
mod names;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use crate::faults;
use crate::rules::Rules;
use crate::status;
use crate::workload::{
    BATCH, DELETE_ON_CLOSE, DIRECTORY, Handle, LEASE, LEVEL_II, Op, Verb, disposition,
};

/// The content of an answer besides its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Content that is not checked.
    Any,
    /// READ.
    Bytes(Vec<u8>),
    /// WRITE.
    Written(u32),
    /// CREATE: CreateAction, EndofFile, OplockLevel.
    Created(u32, u64, u8),
    /// FileStandardInformation: EndOfFile, NumberOfLinks, DeletePending.
    Standard(u64, u32, bool),
    /// All names of a directory, in order.
    Names(Vec<String>),
    /// CHANGE_NOTIFY: action and name.
    Notice(u32, String),
}

/// The answer that a component of a message must receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Status.
    pub status: u32,
    /// The content.
    pub content: Content,
}

/// The expected course of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The answer to each component. Empty: the operation is not sent at all, as something that it needs does not
    /// exist.
    pub verdicts: Vec<Verdict>,
    /// It first receives STATUS_PENDING.
    pub waits: bool,
    /// It is answered only because time passes.
    pub by_time: bool,
    /// The operation that ends its wait.
    pub ended_by: Option<usize>,
}

/// The content of a disk: a file's bytes by its path, `None` for a directory.
pub type Contents = BTreeMap<String, Option<Vec<u8>>>;

type Node = usize;

#[derive(Clone, Debug, Default)]
struct File {
    is_dir: bool,
    data: Vec<u8>,
    links: u32,
}

#[derive(Clone, Debug)]
struct Open {
    client: usize,
    node: Node,
    path: String,
    delete_on_close: bool,
    oplock: u8,
    /// Its oplock break is not acknowledged yet.
    breaking: bool,
    locks: Vec<(u64, u64)>,
    notify: Option<usize>,
    /// It watches a directory: a CHANGE_NOTIFY has been sent by it.
    watched: bool,
    shared: bool,
    walked: bool,
    /// Its access rights allow only appending.
    appends: bool,
    /// It has opened a directory with the right to delete it.
    deletes_directory: bool,
}

#[derive(Clone, Debug)]
enum Waiting {
    Lock(Handle, u64, u64),
    Create(Box<Op>),
}

/// The model of the file server.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    names: BTreeMap<String, Node>,
    /// The names that are deleted when their last open is closed.
    doomed: BTreeSet<String>,
    nodes: Vec<File>,
    opens: BTreeMap<Handle, Open>,
    waiting: BTreeMap<usize, Waiting>,
    expected: BTreeMap<usize, Expected>,
    /// The operation that is being judged.
    judging: Option<usize>,
    rules: Rules,
    newcomer_is_there: bool,
    /// The number of a client's additional trees.
    trees: BTreeMap<usize, usize>,
}

fn verdict(status: u32, content: Content) -> Verdict {
    Verdict { status, content }
}

fn plain(status: u32) -> Verdict {
    verdict(status, Content::Any)
}

/// Judges a whole workload: returns what is expected of each operation, by its id, and the files at the end.
#[must_use]
pub fn judge(ops: &[Op], rules: Rules) -> (BTreeMap<usize, Expected>, Contents) {
    let mut judge = Judge::new(rules);
    for op in ops {
        judge.see(op);
    }
    judge.close_all();
    let names = &judge.names;
    let files = names.iter().map(|(path, node)| {
        let file = &judge.nodes[*node];
        (path.clone(), (!file.is_dir).then(|| file.data.clone()))
    });
    (judge.expected.clone(), files.collect())
}

impl Judge {
    /// Returns the open handles of a client in its own directory, and whether they are directories.
    #[must_use]
    pub fn handles_of(&self, client: usize) -> Vec<(Handle, bool)> {
        let own = self.opens.iter();
        own.filter(|(_, open)| open.client == client && !open.shared)
            .map(|(handle, open)| (*handle, self.nodes[open.node].is_dir))
            .collect()
    }

    /// Returns a file's length.
    #[must_use]
    pub fn length_of(&self, handle: Handle) -> u64 {
        let open = self.opens.get(&handle);
        open.map_or(0, |open| self.nodes[open.node].data.len() as u64)
    }

    /// Returns whether writes by this handle append.
    #[must_use]
    pub fn appends(&self, handle: Handle) -> bool {
        self.opens.get(&handle).is_some_and(|open| open.appends)
    }

    /// Judges the next operation.
    pub fn see(&mut self, op: &Op) {
        self.judging = Some(op.id);
        self.note_newcomer(op);
        // A break that is never acknowledged ends by time. This must happen before the next operation on that file.
        self.pass_time(op);
        let mut expected = Expected {
            verdicts: Vec::new(),
            waits: false,
            by_time: false,
            ended_by: None,
        };
        let mut failed = None;
        for verb in &op.verbs {
            if let Some(status) = failed {
                expected.verdicts.push(plain(status));
                continue;
            }
            let known = |handle: &Handle| {
                let open = self.opens.get(handle);
                open.is_some_and(|open| open.client == op.client)
            };
            if !verb.handles().iter().all(known) || !self.makes_sense(op.client, verb) {
                expected.verdicts.clear();
                break;
            }
            match self.answer(op, verb) {
                Some(verdict) => {
                    let failing = verdict.status & 0xC000_0000 == 0xC000_0000;
                    if matches!(verb, Verb::Create { .. }) && failing {
                        failed = Some(verdict.status);
                    }
                    expected.verdicts.push(verdict);
                }
                None => expected.waits = true,
            }
        }
        self.expected.entry(op.id).or_insert(expected);
    }

    /// Returns whether a request has the state that it needs: an acknowledgement needs a break, and a cancel a waiting
    /// operation.
    fn makes_sense(&self, client: usize, verb: &Verb) -> bool {
        match verb {
            Verb::Untree => self.trees.get(&client).is_some_and(|trees| *trees > 0),
            Verb::Acknowledge { handle, .. } => {
                self.opens.get(handle).is_some_and(|open| open.breaking)
            }
            Verb::Cancel { op } => {
                let watches = self.opens.values().any(|open| open.notify == Some(*op));
                watches || self.waiting.contains_key(op)
            }
            _ => true,
        }
    }

    fn finish(&mut self, op: usize, verdict: Verdict) {
        let finished = Expected {
            verdicts: vec![verdict],
            waits: true,
            by_time: false,
            ended_by: self.judging,
        };
        self.expected.insert(op, finished);
    }

    /// Returns the answer to a component. `None`: the answer follows later.
    fn answer(&mut self, op: &Op, verb: &Verb) -> Option<Verdict> {
        let handle = verb.handles().first().copied().unwrap_or(0);
        let node = self.opens.get(&handle).map_or(0, |open| open.node);
        Some(match verb {
            Verb::Create { .. } => return self.create(op, verb),
            Verb::Close { .. } => {
                self.close(handle);
                plain(status::SUCCESS)
            }
            Verb::Flush { .. } | Verb::ResumeKey { .. } | Verb::SetTime { .. } => {
                plain(status::SUCCESS)
            }
            Verb::Echo => plain(status::SUCCESS),
            Verb::SecondSession => self.second_session(),
            Verb::Tree => self.connect_tree(op.client),
            Verb::Untree => {
                *self.trees.get_mut(&op.client)? -= 1;
                plain(status::SUCCESS)
            }
            Verb::Read { offset, .. }
            | Verb::Write {
                offset: Some(offset),
                ..
            }
            | Verb::SetEnd { length: offset, .. }
                if faults::at(*offset).is_some() =>
            {
                plain(faults::at(*offset)?)
            }
            Verb::Read { offset, length, .. } => self.read(handle, *offset, *length),
            Verb::Write {
                offset,
                length,
                fill,
                ..
            } => {
                let offset = offset.unwrap_or(self.nodes[node].data.len() as u64);
                if self.locked(handle, offset, *length as u64) {
                    return Some(plain(status::FILE_LOCK_CONFLICT));
                }
                self.changed(handle);
                put(&mut self.nodes[node].data, offset, &bytes(*fill, *length));
                verdict(status::SUCCESS, Content::Written(*length as u32))
            }
            Verb::SetEnd { .. } if self.appends(handle) => plain(status::ACCESS_DENIED),
            Verb::SetEnd { length, .. } => {
                self.nodes[node].data.resize(*length as usize, 0);
                plain(status::SUCCESS)
            }
            Verb::Rename { to, replace, .. } => plain(self.rename(handle, to, *replace)),
            Verb::Link { to, replace, .. } => plain(self.link(handle, to, *replace)),
            Verb::Dispose { delete, .. } => plain(self.dispose(handle, *delete)),
            Verb::Walk { .. } => self.walk(handle),
            Verb::Stat { .. } => {
                let file = &self.nodes[node];
                // MS-FSCC 2.4.47: a file with delete pending has one link less.
                let is_doomed = self.doomed.contains(&self.opens[&handle].path);
                let links = file.links - u32::from(is_doomed);
                let end = file.data.len() as u64;
                verdict(status::SUCCESS, Content::Standard(end, links, is_doomed))
            }
            Verb::Copy {
                source,
                target,
                chunks,
            } => plain(self.copy(*source, *target, chunks)),
            Verb::Lock {
                offset,
                length,
                flags,
                ..
            } => return self.lock(op, handle, (*offset, *length), *flags),
            Verb::Notify { .. } => return self.notify(op, handle),
            Verb::Cancel { op } => return self.cancel(*op),
            Verb::Acknowledge { level, .. } => return self.acknowledge(handle, *level),
        })
    }

    fn create(&mut self, op: &Op, verb: &Verb) -> Option<Verdict> {
        let Verb::Create {
            handle,
            path,
            disposition,
            options,
            oplock,
            appends,
            ..
        } = verb
        else {
            return None;
        };
        use disposition::{CREATE, OPEN, OVERWRITE, OVERWRITE_IF, SUPERSEDE};
        if self.rules.without_account == Some(op.client) {
            return Some(plain(status::ACCESS_DENIED));
        }
        if let Some(refusal) = self.too_many_opens(op.client) {
            return Some(refusal);
        }
        if let Some(status) = faults::of(path) {
            return Some(plain(status));
        }
        let is_dir = options & DIRECTORY != 0;
        let overwrites = matches!(*disposition, SUPERSEDE | OVERWRITE | OVERWRITE_IF);
        let action;
        let node = match self.names.get(path).copied() {
            None => {
                let parent = parent(path);
                if !parent.is_empty() && !self.is_dir(parent) {
                    return Some(plain(status::OBJECT_PATH_NOT_FOUND));
                }
                if matches!(*disposition, OPEN | OVERWRITE) {
                    return Some(plain(status::OBJECT_NAME_NOT_FOUND));
                }
                action = 2;
                self.nodes.push(File {
                    is_dir,
                    links: 1,
                    ..File::default()
                });
                self.names.insert(path.clone(), self.nodes.len() - 1);
                self.notice(path, 1);
                self.nodes.len() - 1
            }
            Some(node) => {
                let file = &self.nodes[node];
                let refused = match () {
                    () if *disposition == CREATE => Some(status::OBJECT_NAME_COLLISION),
                    () if is_dir && !file.is_dir => Some(status::NOT_A_DIRECTORY),
                    () if file.is_dir && overwrites => Some(status::OBJECT_NAME_COLLISION),
                    () if self.doomed.contains(path) => Some(status::DELETE_PENDING),
                    () => None,
                };
                if let Some(status) = refused {
                    return Some(plain(status));
                }
                let mut breaks = false;
                for open in self.opens.values_mut().filter(|open| open.node == node) {
                    if open.oplock == BATCH || open.oplock == LEASE {
                        open.breaking = true;
                        breaks = true;
                    }
                }
                if breaks {
                    self.waiting
                        .insert(op.id, Waiting::Create(Box::new(op.clone())));
                    return None;
                }
                if overwrites {
                    self.nodes[node].data.clear();
                }
                action = match *disposition {
                    SUPERSEDE => 0,
                    OVERWRITE | OVERWRITE_IF => 3,
                    _ => 1,
                };
                node
            }
        };
        let alone = !self.opens.values().any(|open| open.node == node);
        let granted = match *oplock {
            0 => 0,
            wanted if alone => wanted,
            _ => LEVEL_II,
        };
        let open = Open {
            client: op.client,
            node,
            path: path.clone(),
            delete_on_close: options & DELETE_ON_CLOSE != 0,
            oplock: granted,
            breaking: false,
            locks: Vec::new(),
            notify: None,
            watched: false,
            shared: op.shared,
            walked: false,
            appends: *appends,
            deletes_directory: self.nodes[node].is_dir
                && options & (DIRECTORY | DELETE_ON_CLOSE) != DIRECTORY,
        };
        self.opens.insert(*handle, open);
        let end = self.nodes[node].data.len() as u64;
        Some(verdict(
            status::SUCCESS,
            Content::Created(action, end, granted),
        ))
    }

    fn close(&mut self, handle: Handle) {
        let Some(open) = self.opens.remove(&handle) else {
            return;
        };
        if let Some(notify) = open.notify {
            self.finish(notify, plain(status::NOTIFY_CLEANUP));
        }
        self.waiting
            .retain(|_, waiting| !matches!(waiting, Waiting::Lock(other, ..) if *other == handle));
        if open.delete_on_close {
            self.doom(&open.path);
        }
        let last = !self.opens.values().any(|other| other.path == open.path);
        if last && self.doomed.remove(&open.path) {
            let file = &mut self.nodes[open.node];
            let below = format!("{}/", open.path);
            if !(file.is_dir && self.names.keys().any(|name| name.starts_with(&below))) {
                file.links -= 1;
                self.names.remove(&open.path);
                self.notice(&open.path, 2);
            }
        }
        self.continue_waiting(open.node);
    }

    fn read(&self, handle: Handle, offset: u64, length: u32) -> Verdict {
        let data = &self.nodes[self.opens[&handle].node].data;
        if self.locked(handle, offset, length.into()) {
            return plain(status::FILE_LOCK_CONFLICT);
        }
        let from = (offset as usize).min(data.len());
        let to = (from + length as usize).min(data.len());
        if from == to {
            return plain(status::END_OF_FILE);
        }
        verdict(status::SUCCESS, Content::Bytes(data[from..to].to_vec()))
    }

    fn copy(&mut self, source: Handle, target: Handle, chunks: &[(u64, u64, u32)]) -> u32 {
        for (from, to, length) in chunks {
            let data = &self.nodes[self.opens[&source].node].data;
            let from = *from as usize;
            let Some(bytes) = data.get(from..from + *length as usize).map(<[u8]>::to_vec) else {
                return status::INVALID_VIEW_SIZE;
            };
            let node = self.opens[&target].node;
            put(&mut self.nodes[node].data, *to, &bytes);
        }
        status::SUCCESS
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.0 + b.1 && b.0 < a.0 + a.1
}

fn put(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + bytes.len());
    if data.len() < to {
        data.resize(to, 0);
    }
    data[from..to].copy_from_slice(bytes);
}

/// Returns the bytes of a WRITE.
#[must_use]
pub fn bytes(fill: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| fill.wrapping_add((at % 251) as u8))
        .collect()
}
