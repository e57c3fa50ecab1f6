//! Generates the workload from the seed: an ordered list of operations, of which any part can be omitted.

mod copies;
pub mod limits;
mod steps;
pub mod uploads;

use crate::failing::{self, RequestFailure};
use crate::faults;
use crate::judge::Judge;
use crate::random::Random;
use crate::rules::Rules;

/// A handle in the workload; the server's FileId is known when its CREATE has been answered.
pub type Handle = u32;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the requests
pub enum Verb {
    Create {
        handle: Handle,
        path: String,
        disposition: u32,
        options: u32,
        share: u32,
        oplock: u8,
        /// The open has the right to append, but not to write elsewhere.
        appends: bool,
    },
    Close {
        handle: Handle,
    },
    Flush {
        handle: Handle,
    },
    Read {
        handle: Handle,
        offset: u64,
        length: u32,
    },
    /// `offset` is `None` for a write at the end.
    Write {
        handle: Handle,
        offset: Option<u64>,
        length: usize,
        fill: u8,
    },
    SetEnd {
        handle: Handle,
        length: u64,
    },
    SetTime {
        handle: Handle,
        time: u64,
    },
    Rename {
        handle: Handle,
        to: String,
        replace: bool,
    },
    Link {
        handle: Handle,
        to: String,
        replace: bool,
    },
    Dispose {
        handle: Handle,
        delete: bool,
    },
    /// Reads every page of a directory.
    Walk {
        handle: Handle,
    },
    Stat {
        handle: Handle,
    },
    ResumeKey {
        handle: Handle,
    },
    Copy {
        source: Handle,
        target: Handle,
        chunks: Vec<(u64, u64, u32)>,
    },
    Lock {
        handle: Handle,
        offset: u64,
        length: u64,
        flags: u32,
    },
    Notify {
        handle: Handle,
    },
    /// Cancels a waiting operation, given by its id.
    Cancel {
        op: usize,
    },
    Acknowledge {
        handle: Handle,
        level: u8,
    },
    Echo,
    /// Sets up another session on the same connection, and logs it off.
    SecondSession,
    /// Connects another tree (TREE_CONNECT).
    Tree,
    /// Disconnects the last of these trees (TREE_DISCONNECT).
    Untree,
}

impl Verb {
    /// Returns the handles that it needs.
    #[must_use]
    pub fn handles(&self) -> Vec<Handle> {
        match self {
            Verb::Create { .. }
            | Verb::Cancel { .. }
            | Verb::Echo
            | Verb::SecondSession
            | Verb::Tree
            | Verb::Untree => Vec::new(),
            Verb::Copy { source, target, .. } => vec![*source, *target],
            Verb::Close { handle }
            | Verb::Flush { handle }
            | Verb::Read { handle, .. }
            | Verb::Write { handle, .. }
            | Verb::SetEnd { handle, .. }
            | Verb::SetTime { handle, .. }
            | Verb::Rename { handle, .. }
            | Verb::Link { handle, .. }
            | Verb::Dispose { handle, .. }
            | Verb::Walk { handle }
            | Verb::Stat { handle }
            | Verb::ResumeKey { handle }
            | Verb::Lock { handle, .. }
            | Verb::Notify { handle }
            | Verb::Acknowledge { handle, .. } => vec![*handle],
        }
    }
}

/// One message of a client: a request, or a related compound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The client that sends it.
    pub client: usize,
    /// Its components.
    pub verbs: Vec<Verb>,
    /// It uses shared files: it is sent when all earlier operations on shared files are done or wait.
    pub shared: bool,
    /// Its place in the original list, which does not change when others are omitted.
    pub id: usize,
    /// It fails once.
    pub failure: Option<RequestFailure>,
}

/// The values of CreateDisposition (MS-SMB2 2.2.13).
#[allow(missing_docs)]
pub mod disposition {
    pub const SUPERSEDE: u32 = 0;
    pub const OPEN: u32 = 1;
    pub const CREATE: u32 = 2;
    pub const OPEN_IF: u32 = 3;
    pub const OVERWRITE: u32 = 4;
    pub const OVERWRITE_IF: u32 = 5;
}

/// FILE_DIRECTORY_FILE.
pub const DIRECTORY: u32 = 0x1;
/// FILE_DELETE_ON_CLOSE.
pub const DELETE_ON_CLOSE: u32 = 0x1000;
/// SMB2_OPLOCK_LEVEL_BATCH.
pub const BATCH: u8 = 9;
/// SMB2_OPLOCK_LEVEL_LEASE: a lease that caches everything. Its key is the handle's number.
pub const LEASE: u8 = 0xFF;
/// SMB2_OPLOCK_LEVEL_II.
pub const LEVEL_II: u8 = 1;
/// FILE_SHARE_READ, FILE_SHARE_WRITE and FILE_SHARE_DELETE.
pub const SHARE_ALL: u32 = 7;
const EXCLUSIVE: u32 = 2;
const UNLOCK: u32 = 4;
const AT_ONCE: u32 = 16;

/// Generates a workload. `leases`: for each client, whether its dialect has leases.
#[must_use]
pub fn generate(seed: u64, leases: &[bool], length: usize, rules: Rules) -> Vec<Op> {
    let clients = leases.len();
    let mut maker = Maker::new(seed, clients, rules);
    maker.leases = leases.to_vec();
    for client in 0..clients {
        maker.make_home(client);
    }
    maker.copy_in_chunks(0);
    maker.make_in_steps(seed);
    while maker.ops.len() < length {
        if maker.random.percent(25) {
            maker.meeting();
        } else {
            let client = maker.random.index(clients);
            maker.alone(client);
        }
    }
    maker.ops
}

fn home(client: usize) -> String {
    format!("c{client}")
}

struct Maker {
    random: Random,
    judge: Judge,
    ops: Vec<Op>,
    last_handle: Handle,
    clients: usize,
    /// For each client, whether it may request leases.
    leases: Vec<bool>,
    rules: Rules,
    shared_files: usize,
    /// The disk has bad places.
    bad: Option<Random>,
    /// Requests fail once.
    failing: Option<Random>,
}

impl Maker {
    fn new(seed: u64, clients: usize, rules: Rules) -> Maker {
        Maker {
            random: Random::new(seed, "workload"),
            judge: Judge::new(rules),
            ops: Vec::new(),
            last_handle: 0,
            clients,
            leases: vec![false; clients],
            rules,
            shared_files: 0,
            bad: (seed % 4 == 2).then(|| Random::new(seed, "bad places")),
            failing: failing::is_of(seed).then(|| Random::new(seed, "troubles")),
        }
    }

    fn make_home(&mut self, client: usize) {
        let open = self.create(&home(client), disposition::OPEN_IF, DIRECTORY);
        let close = Verb::Close {
            handle: self.last_handle,
        };
        // In scenarios with limits its order among the operations of the others matters.
        let shared = self.judge.has_limits();
        self.push(client, vec![open, close], shared);
    }

    fn push(&mut self, client: usize, verbs: Vec<Verb>, shared: bool) {
        let failing = self.failing.as_mut().filter(|_| !shared);
        let failure = failing.and_then(|random| RequestFailure::pick(&verbs[0], random));
        let op = Op {
            client,
            failure,
            verbs,
            shared,
            id: self.ops.len(),
        };
        self.judge.see(&op);
        self.ops.push(op);
    }

    fn create(&mut self, path: &str, disposition: u32, options: u32) -> Verb {
        self.last_handle += 1;
        Verb::Create {
            handle: self.last_handle,
            path: path.to_owned(),
            disposition,
            options,
            share: SHARE_ALL,
            oplock: 0,
            appends: false,
        }
    }

    fn write(&mut self, handle: Handle) -> Verb {
        let offset = self.random.below(300);
        Verb::Write {
            handle,
            offset: (!self.judge.appends(handle)).then_some(offset),
            length: 1 + self.random.index(if self.random.clone().percent(15) {
                3000
            } else {
                200
            }),
            fill: self.random.draw() as u8,
        }
    }

    /// Adds an operation in the client's own directory.
    fn alone(&mut self, client: usize) {
        self.touch_bad_places(client);
        let open = self.judge.handles_of(client);
        if open.is_empty() || (open.len() < 3 && self.random.percent(30)) {
            return self.open_something(client);
        }
        let (handle, is_dir) = *self.random.pick(&open);
        let verb = if is_dir {
            match self.random.below(4) {
                0 => Verb::Stat { handle },
                1 => Verb::Close { handle },
                _ => Verb::Walk { handle },
            }
        } else {
            self.on_file(client, handle)
        };
        if let Verb::Copy { source, .. } = &verb {
            let key = Verb::ResumeKey { handle: *source };
            self.push(client, vec![key], false);
        }
        self.push(client, vec![verb], false);
    }

    /// Sometimes adds an operation on a bad place of the disk.
    fn touch_bad_places(&mut self, client: usize) {
        let Some(bad) = &mut self.bad else { return };
        if !bad.percent(30) {
            return;
        }
        let (offset, name, what) = (faults::offset(bad), faults::name(bad), bad.index(5));
        // A write by an open that only appends has no offset.
        let judge = &self.judge;
        let mut files = judge.handles_of(client).into_iter();
        let file = files.find(|(handle, is_dir)| !is_dir && !judge.appends(*handle));
        let file = file.map(|(handle, _)| handle);
        let write = |handle| Verb::Write {
            handle,
            offset: Some(offset),
            length: 50,
            fill: 7,
        };
        let verbs = match (what, file) {
            (0, Some(handle)) => vec![Verb::Read {
                handle,
                offset,
                length: 100,
            }],
            (1, Some(handle)) => vec![Verb::SetEnd {
                handle,
                length: offset,
            }],
            (2, Some(handle)) => vec![write(handle)],
            (3, _) => {
                let path = format!("{}/f0", home(client));
                let open = self.create(&path, disposition::OPEN_IF, 0);
                let handle = self.last_handle;
                vec![open, write(handle), Verb::Close { handle }]
            }
            _ => {
                let path = format!("{}/{name}", home(client));
                vec![self.create(&path, disposition::OPEN_IF, 0)]
            }
        };
        self.push(client, verbs, false);
    }

    fn on_file(&mut self, client: usize, handle: Handle) -> Verb {
        match self.random.below(26) {
            0..=4 => self.write(handle),
            5..=7 => Verb::Read {
                handle,
                offset: self.random.below(200),
                length: 1 + self.random.below(600) as u32,
            },
            8..=10 => Verb::Rename {
                handle,
                to: self.name(client),
                replace: self.random.percent(50),
            },
            11 => Verb::Link {
                handle,
                to: self.name(client),
                replace: self.random.percent(30),
            },
            12 => Verb::SetEnd {
                handle,
                length: self.random.below(400),
            },
            13 | 22 => {
                let delete = self.random.percent(80);
                self.push(client, vec![Verb::Dispose { handle, delete }], false);
                match self.random.percent(70) {
                    true => Verb::Close { handle },
                    false => Verb::Stat { handle },
                }
            }
            14 => Verb::Stat { handle },
            15 => Verb::Flush { handle },
            16 | 23 | 24 => {
                let files = self.judge.handles_of(client);
                let files: Vec<Handle> = files
                    .iter()
                    .filter(|(_, is_dir)| !is_dir)
                    .map(|(handle, _)| *handle)
                    .collect();
                // Often within one file, where source and target may overlap.
                let source = match self.random.percent(60) {
                    true => handle,
                    false => *self.random.pick(&files),
                };
                let length = self.judge.length_of(source);
                let part = self.random.below(length.min(1000) + 1) as u32;
                let from = length - u64::from(part);
                let to = from.saturating_sub(20) + self.random.below(60);
                let chunks = vec![(from, to, part)];
                if part == 0 {
                    return Verb::Stat { handle };
                }
                Verb::Copy {
                    source,
                    target: handle,
                    chunks,
                }
            }
            17 => Verb::SetTime {
                handle,
                time: 130_000_000_000_000_000 + self.random.below(1 << 40),
            },
            18 => match self.random.below(6) {
                0 if !self.rules.is_alone(client) => Verb::SecondSession,
                _ => Verb::Echo,
            },
            19 => Verb::Lock {
                handle,
                offset: 10_000 + u64::from(self.last_handle) * 10 + self.ops.len() as u64 * 1000,
                length: 10,
                flags: EXCLUSIVE | AT_ONCE,
            },
            _ => Verb::Close { handle },
        }
    }

    fn name(&mut self, client: usize) -> String {
        let home = home(client);
        match self.random.below(8) {
            0 => format!("{home}/d/f0"),
            other => format!("{home}/f{}", other % 4),
        }
    }

    fn open_something(&mut self, client: usize) {
        use disposition::{CREATE, OPEN, OPEN_IF, OVERWRITE, OVERWRITE_IF, SUPERSEDE};
        let home = home(client);
        match self.random.below(10) {
            0 => {
                let open = self.create(&home, OPEN, DIRECTORY);
                self.push(client, vec![open], false);
            }
            1 => {
                let open = self.create(&format!("{home}/d"), OPEN_IF, DIRECTORY);
                self.push(client, vec![open], false);
            }
            5 => self.copy_within(client),
            2 | 3 => {
                // CREATE, WRITE and CLOSE in one message.
                let path = self.name(client);
                let open = self.create(&path, OVERWRITE_IF, 0);
                let handle = self.last_handle;
                let write = self.write(handle);
                self.push(client, vec![open, write, Verb::Close { handle }], false);
            }
            4 => {
                let path = self.name(client);
                let open = self.create(&path, OPEN, 0);
                let handle = self.last_handle;
                let read = Verb::Read {
                    handle,
                    offset: 0,
                    length: 500,
                };
                self.push(client, vec![open, read, Verb::Close { handle }], false);
            }
            _ => {
                let path = self.name(client);
                let kinds = [
                    CREATE,
                    CREATE,
                    CREATE,
                    OPEN,
                    OPEN_IF,
                    OPEN_IF,
                    OVERWRITE,
                    OVERWRITE_IF,
                    SUPERSEDE,
                ];
                let kind = *self.random.pick(&kinds);
                let options = if self.random.percent(15) {
                    DELETE_ON_CLOSE
                } else {
                    0
                };
                let mut open = self.create(&path, kind, options);
                if let Verb::Create { appends, .. } = &mut open {
                    *appends = self.last_handle.is_multiple_of(3);
                }
                self.push(client, vec![open], false);
            }
        }
    }

    /// Adds operations of two clients on one file.
    fn meeting(&mut self) {
        let clients = (0..self.clients).filter(|client| !self.rules.is_alone(*client));
        let clients: Vec<usize> = clients.collect();
        let count = clients.len();
        if count == 0 {
            return;
        }
        let first = self.random.index(count);
        let second = (first + 1 + self.random.index(count.max(2) - 1)) % count;
        let (first, second) = (clients[first], clients[second]);
        self.shared_files += 1;
        let path = format!("s{}", self.shared_files);
        match self.random.below(4) {
            0 => self.locks(first, second, &path),
            1 | 2 => self.oplock(first, second, &path),
            _ => self.notify(first, second, &path),
        }
    }

    fn open_shared(&mut self, client: usize, path: &str, oplock: u8) -> Handle {
        let mut open = self.create(path, disposition::OPEN_IF, 0);
        if let Verb::Create { oplock: wanted, .. } = &mut open {
            *wanted = oplock;
        }
        self.push(client, vec![open], true);
        self.last_handle
    }

    fn locks(&mut self, first: usize, second: usize, path: &str) {
        let (a, b) = (
            self.open_shared(first, path, 0),
            self.open_shared(second, path, 0),
        );
        let lock = |handle, flags| Verb::Lock {
            handle,
            offset: 0,
            length: 100,
            flags,
        };
        self.push(first, vec![lock(a, EXCLUSIVE)], true);
        if self.random.percent(50) {
            let write = Verb::Write {
                handle: b,
                offset: Some(10),
                length: 5,
                fill: 1,
            };
            self.push(second, vec![write], true);
        }
        if self.random.percent(30) {
            self.push(second, vec![lock(b, EXCLUSIVE | AT_ONCE)], true);
        }
        let waiting = self.ops.len();
        self.push(second, vec![lock(b, EXCLUSIVE)], true);
        let cancel = self.random.percent(25);
        if cancel {
            self.push(second, vec![Verb::Cancel { op: waiting }], true);
        }
        let end = if self.random.percent(60) {
            lock(a, UNLOCK)
        } else {
            Verb::Close { handle: a }
        };
        let closed = matches!(end, Verb::Close { .. });
        self.push(first, vec![end], true);
        if !cancel && self.random.percent(50) {
            self.push(second, vec![lock(b, UNLOCK)], true);
        }
        self.push(second, vec![Verb::Close { handle: b }], true);
        if !closed {
            self.push(first, vec![Verb::Close { handle: a }], true);
        }
    }

    fn oplock(&mut self, first: usize, second: usize, path: &str) {
        let level = if self.random.percent(50) || !self.leases[first] {
            BATCH
        } else {
            LEASE
        };
        let a = self.open_shared(first, path, level);
        let b = self.open_shared(second, path, 0);
        match self.random.below(5) {
            // The break is never acknowledged: after 35 s the server continues.
            0 => {}
            1 | 2 => self.push(first, vec![Verb::Close { handle: a }], true),
            _ => {
                let level = if self.random.percent(50) { LEVEL_II } else { 0 };
                self.push(first, vec![Verb::Acknowledge { handle: a, level }], true);
            }
        }
        let write = self.write(b);
        self.push(second, vec![write], true);
        self.push(second, vec![Verb::Close { handle: b }], true);
    }

    fn notify(&mut self, first: usize, second: usize, path: &str) {
        let open = self.create(path, disposition::CREATE, DIRECTORY);
        let a = self.last_handle;
        self.push(first, vec![open], true);
        let waiting = self.ops.len();
        self.push(first, vec![Verb::Notify { handle: a }], true);
        if self.random.percent(20) {
            self.push(first, vec![Verb::Cancel { op: waiting }], true);
        }
        let inside = format!("{path}/n");
        let open = self.create(&inside, disposition::CREATE, 0);
        let b = self.last_handle;
        self.push(second, vec![open], true);
        self.push(second, vec![Verb::Close { handle: b }], true);
        self.push(first, vec![Verb::Close { handle: a }], true);
    }
}
