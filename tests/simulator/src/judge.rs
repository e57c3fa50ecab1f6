//! The judge: a file server of a few hundred lines that never crashes. It says how each request is to be answered, and what the
//! files are in the end. It shares no code with the server.

use std::collections::{BTreeMap, BTreeSet};

use crate::status;
use crate::workload::{BATCH, DELETE_ON_CLOSE, DIRECTORY, Handle, LEVEL_II, Op, Verb, disposition};

/// What an answer holds besides its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing that is looked at.
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

/// How a component is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Status.
    pub status: u32,
    /// The rest.
    pub content: Content,
}

/// How an operation is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Component by component; empty: it is not sent at all, what it needs is not there.
    pub verdicts: Vec<Verdict>,
    /// It is answered with STATUS_PENDING first.
    pub waits: bool,
    /// It is answered only because time passes.
    pub by_time: bool,
}

/// What is on a disk: a file's bytes by its path, `None` for a directory.
pub type Contents = BTreeMap<String, Option<Vec<u8>>>;

type Node = usize;

#[derive(Clone, Debug, Default)]
struct File {
    is_dir: bool,
    data: Vec<u8>,
    links: u32,
    delete_pending: bool,
}

#[derive(Clone, Debug)]
struct Open {
    client: usize,
    node: Node,
    path: String,
    delete_on_close: bool,
    oplock: u8,
    /// A break is not acknowledged.
    breaking: bool,
    locks: Vec<(u64, u64)>,
    notify: Option<usize>,
    shared: bool,
    walked: bool,
}

#[derive(Clone, Debug)]
enum Waiting {
    Lock(Handle, u64, u64),
    Create(Box<Op>),
}

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    names: BTreeMap<String, Node>,
    nodes: Vec<File>,
    opens: BTreeMap<Handle, Open>,
    waiting: BTreeMap<usize, Waiting>,
    expected: BTreeMap<usize, Expected>,
}

fn verdict(status: u32, content: Content) -> Verdict {
    Verdict { status, content }
}

fn plain(status: u32) -> Verdict {
    verdict(status, Content::Any)
}

/// Judges a whole workload: what is expected of each operation, by its id, and the files in the end.
#[must_use]
pub fn judge(ops: &[Op]) -> (BTreeMap<usize, Expected>, Contents) {
    let mut judge = Judge::default();
    for op in ops {
        judge.see(op);
    }
    judge.give_up_waiting();
    let handles: Vec<Handle> = judge.opens.keys().copied().collect();
    for handle in handles {
        judge.close(handle);
    }
    let names = &judge.names;
    let files = names.iter().map(|(path, node)| {
        let file = &judge.nodes[*node];
        (path.clone(), (!file.is_dir).then(|| file.data.clone()))
    });
    (judge.expected.clone(), files.collect())
}

impl Judge {
    /// The open handles of a client in its own directory, and whether they are directories.
    #[must_use]
    pub fn handles_of(&self, client: usize) -> Vec<(Handle, bool)> {
        let own = self.opens.iter();
        own.filter(|(_, open)| open.client == client && !open.shared)
            .map(|(handle, open)| (*handle, self.nodes[open.node].is_dir))
            .collect()
    }

    /// A file's length.
    #[must_use]
    pub fn length_of(&self, handle: Handle) -> u64 {
        let open = self.opens.get(&handle);
        open.map_or(0, |open| self.nodes[open.node].data.len() as u64)
    }

    /// The next operation.
    pub fn see(&mut self, op: &Op) {
        // What waits for an acknowledgement that does not come is let through by time, before anything else is done about that file.
        self.pass_time(op);
        let mut expected = Expected {
            verdicts: Vec::new(),
            waits: false,
            by_time: false,
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
            if !verb.handles().iter().all(known) || !self.makes_sense(verb) {
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

    /// An acknowledgement needs a break, and a cancel something that waits.
    fn makes_sense(&self, verb: &Verb) -> bool {
        match verb {
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
        };
        self.expected.insert(op, finished);
    }

    /// `None`: the answer comes later.
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
            Verb::Echo | Verb::SecondSession => plain(status::SUCCESS),
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
                // MS-FSCC 2.4.47: a file about to go has a link less.
                let links = file.links - u32::from(file.delete_pending);
                let end = file.data.len() as u64;
                verdict(
                    status::SUCCESS,
                    Content::Standard(end, links, file.delete_pending),
                )
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
            } => return self.lock(op.id, handle, (*offset, *length), *flags),
            Verb::Notify { .. } => {
                self.opens.get_mut(&handle)?.notify = Some(op.id);
                return None;
            }
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
            ..
        } = verb
        else {
            return None;
        };
        use disposition::{CREATE, OPEN, OVERWRITE, OVERWRITE_IF, SUPERSEDE};
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
                    () if file.delete_pending => Some(status::DELETE_PENDING),
                    () => None,
                };
                if let Some(status) = refused {
                    return Some(plain(status));
                }
                let mut breaks = false;
                for open in self.opens.values_mut().filter(|open| open.node == node) {
                    if open.oplock == BATCH {
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
            shared: op.shared,
            walked: false,
        };
        self.opens.insert(*handle, open);
        let end = self.nodes[node].data.len() as u64;
        Some(verdict(
            status::SUCCESS,
            Content::Created(action, end, granted),
        ))
    }

    fn is_dir(&self, path: &str) -> bool {
        let node = self.names.get(path);
        node.is_some_and(|node| self.nodes[*node].is_dir)
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
        let file = &mut self.nodes[open.node];
        file.delete_pending |= open.delete_on_close;
        let last = !self.opens.values().any(|other| other.node == open.node);
        if last && file.delete_pending {
            let below = format!("{}/", open.path);
            if !(file.is_dir && self.names.keys().any(|name| name.starts_with(&below))) {
                file.links -= 1;
                file.delete_pending = false;
                self.names.remove(&open.path);
                self.notice(&open.path, 2);
            } else {
                file.delete_pending = false;
            }
        }
        self.let_go(open.node);
    }

    /// Something that others may wait for has happened to a file.
    fn let_go(&mut self, node: Node) {
        let waiting: Vec<(usize, Waiting)> = self
            .waiting
            .iter()
            .map(|(op, waiting)| (*op, waiting.clone()))
            .collect();
        for (id, waiting) in waiting {
            match waiting {
                Waiting::Lock(handle, offset, length) => {
                    let concerned = self.opens.get(&handle).is_some_and(|it| it.node == node);
                    if concerned && !self.excluded(node, offset, length) {
                        self.waiting.remove(&id);
                        if let Some(open) = self.opens.get_mut(&handle) {
                            open.locks.push((offset, length));
                        }
                        self.finish(id, plain(status::SUCCESS));
                    }
                }
                Waiting::Create(op) => {
                    self.waiting.remove(&id);
                    if let Some(verdict) = self.create(&op, &op.verbs[0]) {
                        self.finish(id, verdict);
                    }
                }
            }
        }
    }

    /// An operation on a file whose oplock break nobody acknowledges comes after the time for that is over.
    fn pass_time(&mut self, op: &Op) {
        let waits: BTreeSet<Handle> = self
            .waiting
            .values()
            .filter_map(|waiting| match waiting {
                Waiting::Create(op) => match &op.verbs[0] {
                    Verb::Create { handle, .. } => Some(*handle),
                    _ => None,
                },
                Waiting::Lock(..) => None,
            })
            .collect();
        let needed = op
            .verbs
            .iter()
            .flat_map(Verb::handles)
            .any(|handle| waits.contains(&handle));
        if needed {
            self.give_up_waiting();
        }
    }

    fn give_up_waiting(&mut self) {
        let late: Vec<usize> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| matches!(waiting, Waiting::Create(_)))
            .map(|(id, _)| *id)
            .collect();
        let mut nodes = BTreeSet::new();
        for open in self.opens.values_mut().filter(|open| open.breaking) {
            open.breaking = false;
            open.oplock = 0;
            nodes.insert(open.node);
        }
        for node in nodes {
            self.let_go(node);
        }
        for id in late {
            if let Some(expected) = self.expected.get_mut(&id) {
                expected.by_time = true;
            }
        }
    }

    fn acknowledge(&mut self, handle: Handle, level: u8) -> Option<Verdict> {
        let open = self.opens.get_mut(&handle)?;
        if !open.breaking {
            return None;
        }
        open.breaking = false;
        open.oplock = level;
        let node = open.node;
        self.let_go(node);
        Some(plain(status::SUCCESS))
    }

    /// Level II oplocks of others are gone.
    fn changed(&mut self, handle: Handle) {
        let Some(node) = self.opens.get(&handle).map(|open| open.node) else {
            return;
        };
        for (_, open) in self
            .opens
            .iter_mut()
            .filter(|(other, open)| **other != handle && open.node == node)
        {
            if open.oplock == LEVEL_II {
                open.oplock = 0;
            }
        }
    }

    fn cancel(&mut self, op: usize) -> Option<Verdict> {
        let notify = self
            .opens
            .values_mut()
            .find(|open| open.notify == Some(op))
            .and_then(|open| open.notify.take());
        if self.waiting.remove(&op).is_some() || notify.is_some() {
            self.finish(op, plain(status::CANCELLED));
            return Some(plain(status::SUCCESS));
        }
        None
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

    /// Is a part of this range locked by another open?
    fn locked(&self, handle: Handle, offset: u64, length: u64) -> bool {
        let node = self.opens[&handle].node;
        self.opens
            .iter()
            .filter(|(other, open)| **other != handle && open.node == node)
            .flat_map(|(_, open)| &open.locks)
            .any(|lock| overlap(*lock, (offset, length)))
    }

    fn excluded(&self, node: Node, offset: u64, length: u64) -> bool {
        self.opens
            .values()
            .filter(|open| open.node == node)
            .flat_map(|open| &open.locks)
            .any(|lock| overlap(*lock, (offset, length)))
    }

    fn lock(
        &mut self,
        id: usize,
        handle: Handle,
        range: (u64, u64),
        flags: u32,
    ) -> Option<Verdict> {
        let open = self.opens.get_mut(&handle)?;
        let node = open.node;
        if flags & 4 != 0 {
            let Some(at) = open.locks.iter().position(|lock| *lock == range) else {
                return Some(plain(status::RANGE_NOT_LOCKED));
            };
            open.locks.remove(at);
            self.let_go(node);
            return Some(plain(status::SUCCESS));
        }
        if self.excluded(node, range.0, range.1) {
            if flags & 16 != 0 {
                return Some(plain(status::LOCK_NOT_GRANTED));
            }
            let waiting = Waiting::Lock(handle, range.0, range.1);
            self.waiting.insert(id, waiting);
            return None;
        }
        self.opens.get_mut(&handle)?.locks.push(range);
        Some(plain(status::SUCCESS))
    }

    fn rename(&mut self, handle: Handle, to: &str, replace: bool) -> u32 {
        let open = &self.opens[&handle];
        let (node, from) = (open.node, open.path.clone());
        if self.names.get(&from) != Some(&node) {
            return status::OBJECT_NAME_NOT_FOUND;
        }
        match self.target(node, to, replace) {
            Err(refused) => return refused,
            Ok(replaced) => {
                if let Some(replaced) = replaced {
                    self.nodes[replaced].links -= 1;
                }
            }
        }
        if from != to && self.names.get(to) == Some(&node) {
            // Two names of one file become one.
            self.nodes[node].links -= 1;
        }
        self.names.remove(&from);
        self.names.insert(to.to_owned(), node);
        for open in self.opens.values_mut().filter(|open| open.path == from) {
            open.path = to.to_owned();
        }
        status::SUCCESS
    }

    fn link(&mut self, handle: Handle, to: &str, replace: bool) -> u32 {
        let node = self.opens[&handle].node;
        if self.names.get(to) == Some(&node) {
            return if replace {
                status::SUCCESS
            } else {
                status::OBJECT_NAME_COLLISION
            };
        }
        match self.target(node, to, replace) {
            Err(refused) => refused,
            Ok(replaced) => {
                if let Some(replaced) = replaced {
                    self.nodes[replaced].links -= 1;
                }
                self.names.insert(to.to_owned(), node);
                self.nodes[node].links += 1;
                status::SUCCESS
            }
        }
    }

    /// May a file get this name, and whose was it?
    fn target(&self, node: Node, to: &str, replace: bool) -> Result<Option<Node>, u32> {
        if !self.is_dir(parent(to)) {
            return Err(status::OBJECT_PATH_NOT_FOUND);
        }
        match self.names.get(to).copied() {
            None => Ok(None),
            Some(there) if there == node => Ok(None),
            Some(_) if !replace => Err(status::OBJECT_NAME_COLLISION),
            Some(there) if self.opens.values().any(|open| open.node == there) => {
                Err(status::ACCESS_DENIED)
            }
            Some(there) if self.nodes[there].is_dir => Err(status::ACCESS_DENIED),
            Some(there) => Ok(Some(there)),
        }
    }

    fn dispose(&mut self, handle: Handle, delete: bool) -> u32 {
        let open = &self.opens[&handle];
        let below = format!("{}/", open.path);
        if delete
            && self.nodes[open.node].is_dir
            && self.names.keys().any(|name| name.starts_with(&below))
        {
            return status::DIRECTORY_NOT_EMPTY;
        }
        self.nodes[open.node].delete_pending = delete;
        status::SUCCESS
    }

    /// A listing goes on where it was: walked to the end, it gives nothing more.
    fn walk(&mut self, handle: Handle) -> Verdict {
        let walked = self.opens.get_mut(&handle).map(|open| &mut open.walked);
        if walked.is_some_and(|walked| std::mem::replace(walked, true)) {
            return verdict(status::SUCCESS, Content::Names(Vec::new()));
        }
        let open = &self.opens[&handle];
        if !self.nodes[open.node].is_dir {
            return plain(status::INVALID_DEVICE_REQUEST);
        }
        let below = format!("{}/", open.path);
        let mut names: Vec<String> = vec![".".into(), "..".into()];
        let beneath = self
            .names
            .keys()
            .filter_map(|name| name.strip_prefix(&below));
        names.extend(
            beneath
                .filter(|name| !name.contains('/'))
                .map(str::to_owned),
        );
        verdict(status::SUCCESS, Content::Names(names))
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

    /// A name has come (1) or gone (2): who watches its directory hears it.
    fn notice(&mut self, path: &str, action: u32) {
        let dir = parent(path).to_owned();
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let told: Vec<usize> = self
            .opens
            .values_mut()
            .filter(|open| open.path == dir)
            .filter_map(|open| open.notify.take())
            .collect();
        for op in told {
            let notice = Content::Notice(action, name.clone());
            self.finish(op, verdict(status::SUCCESS, notice));
        }
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

/// The bytes of a WRITE.
#[must_use]
pub fn bytes(fill: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| fill.wrapping_add((at % 251) as u8))
        .collect()
}
