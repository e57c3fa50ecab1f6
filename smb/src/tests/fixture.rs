//! Provides a connection for tests of single handlers: a session with a share and IPC$ connected.

use crate::command::{Handled, Reply, Request, finish, start};
use crate::config::{Config, Limits, Oplocks, Requirement, Share};
use crate::context::Context;
use crate::entropy::Entropy;
use crate::record::Record;
use crate::rpc::Pipe;
use crate::server::{Clock, ConnId, Journal, Output, Smb};
use crate::state::{Negotiation, Open, Resource, Security, SessionState, Target, Tree};
use crate::wire::{self, Command, Dialect, FileId, Flags, Header, Route};
use bytes::Bytes;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::{Actor, FileKey, FileOp, Metadata, OpenId, Outcome};
use outlast_fsa::open::FileOpen;
use outlast_fsa::status::NtStatus;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub(crate) const CONN: ConnId = 1;
pub(crate) const SESSION: u64 = 7;
/// TreeId of the share.
pub(crate) const DISK: u32 = 1;
/// TreeId of IPC$.
pub(crate) const IPC: u32 = 2;

#[derive(Default)]
struct Records(Vec<Record>);

impl Journal for Records {
    fn append(&mut self, _conn: ConnId, record: &Record) {
        self.0.push(record.clone());
    }

    fn unique_id(&mut self) -> u64 {
        panic!("no handler here draws ids")
    }
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _bytes: &mut [u8]) {
        panic!("no handler here draws random bytes")
    }
}

pub(crate) struct Fixture {
    pub(crate) smb: Smb,
    journal: Records,
}

impl Fixture {
    pub(crate) fn new(dialect: Dialect) -> Fixture {
        let share = Share {
            name: "pub".into(),
            comment: "Files for all".into(),
            read_only: false,
            guest: false,
            users: Vec::new(),
            directory: 0,
            continuous_availability: false,
            encryption: Requirement::Off,
        };
        let config = Config {
            name: "OUTLAST".into(),
            guid: [0xAA; 16],
            min_dialect: Dialect::Smb202,
            max_dialect: Dialect::Smb311,
            signing: Requirement::Enabled,
            encryption: Requirement::Enabled,
            oplocks: Oplocks::On,
            shares: vec![share],
            users: Vec::new(),
            limits: Limits::default(),
        };
        let mut fixture = Fixture {
            smb: Smb::new(config),
            journal: Records::default(),
        };
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        fixture.emit(Record::Connected { client });
        fixture.emit(Record::Negotiated(Box::new(Negotiation {
            dialect: Some(dialect),
            client_guid: [0xCC; 16],
            client_capabilities: 0x7F,
            client_security_mode: 1,
            capabilities: 4,
            security_mode: 1,
            ..Negotiation::default()
        })));
        fixture.emit(Record::Session {
            id: SESSION,
            security: Box::new(Security {
                state: SessionState::Valid,
                ..Security::default()
            }),
        });
        for (id, resource, name) in [
            (DISK, Resource::Disk(0), "pub"),
            (IPC, Resource::Ipc, "IPC$"),
        ] {
            fixture.emit(Record::TreeConnected {
                session: SESSION,
                id,
                tree: Box::new(Tree {
                    resource,
                    name: name.into(),
                    maximal_access: 0x001F_01FF,
                    encrypt: false,
                    directory: 0,
                }),
            });
        }
        fixture
    }

    pub(crate) fn emit(&mut self, record: Record) {
        self.smb.emit(CONN, record, &mut self.journal);
    }

    /// Opens of the same path are opens of the same file.
    pub(crate) fn open_file(&mut self, id: OpenId, path: &str, is_dir: bool, access: u32) {
        let file = FileOpen {
            share_access: 7,
            ..FileOpen::new(key(path), path.into(), is_dir)
        };
        self.open(id, DISK, access, Target::File(file));
    }

    pub(crate) fn open_pipe(&mut self, id: OpenId, name: &str) {
        let pipe = Pipe::open(name).expect("a pipe of this name");
        self.open(id, IPC, 0x0012_019F, Target::Pipe(pipe));
    }

    fn open(&mut self, id: OpenId, tree: u32, granted_access: u32, target: Target) {
        self.emit(Record::Opened(Box::new(Open {
            id,
            session: SESSION,
            tree,
            actor: Actor {
                share: 0,
                user: None,
            },
            granted_access,
            target,
            channel_sequence: 0,
            closing: None,
            durable: None,
            create: None,
        })));
    }

    pub(crate) fn file(&self, id: OpenId) -> &FileOpen {
        match &self.smb.connection(CONN).opens[&id].target {
            Target::File(file) => file,
            Target::Pipe(_) => panic!("open {id} is a pipe"),
        }
    }

    pub(crate) fn with_context<T>(&mut self, act: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut out = Output::default();
        let mut context = Context {
            smb: &mut self.smb,
            conn: CONN,
            clock: Clock {
                now: Duration::ZERO,
                wall: 0,
            },
            entropy: &mut NoEntropy,
            journal: &mut self.journal,
            out: &mut out,
        };
        act(&mut context)
    }

    /// Starts a handler. A second call, as after a crash, must return the same.
    pub(crate) fn start(&mut self, tree: u32, body: &wire::Request) -> Result<Handled, NtStatus> {
        self.with_context(|ctx| start(ctx, &request(tree), body))
    }

    /// Runs a request that is answered without a file operation, or refused.
    pub(crate) fn reply(&mut self, tree: u32, body: &wire::Request) -> Result<Reply, NtStatus> {
        match self.start(tree, body)? {
            Handled::Reply(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    /// Runs a request from start to finish, with this outcome of its operation.
    pub(crate) fn run(
        &mut self,
        body: &wire::Request,
        perform: impl FnOnce(&FileOp) -> Result<Outcome, NtStatus>,
    ) -> Result<Reply, NtStatus> {
        let before = self.journal.0.len();
        let op = match self.start(DISK, body)? {
            Handled::Reply(reply) => return Ok(reply),
            Handled::Op(op) => op,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            self.journal.0.len(),
            before,
            "start asks and changes nothing"
        );
        let again = self.start(DISK, body);
        assert!(matches!(again, Ok(Handled::Op(again)) if again == op));
        let outcome = perform(&op);
        match self.with_context(|ctx| finish(ctx, &request(DISK), body, &op, outcome))? {
            Handled::Reply(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn key(path: &str) -> FileKey {
    FileKey {
        dev: 1,
        ino: path.bytes().fold(5u64, |sum, b| {
            sum.wrapping_mul(31).wrapping_add(u64::from(b))
        }),
        birth_ns: 0,
    }
}

pub(crate) fn file_id(id: OpenId) -> FileId {
    FileId {
        persistent: id,
        volatile: id,
    }
}

pub(crate) fn metadata(path: &str, is_dir: bool) -> Metadata {
    Metadata {
        key: key(path),
        creation_time: 1,
        last_access_time: 2,
        last_write_time: 3,
        change_time: 4,
        end_of_file: 5,
        allocation_size: 4096,
        attributes: if is_dir { 0x10 } else { 0x20 },
        links: 1,
        is_dir,
    }
}

pub(crate) fn request(tree: u32) -> Request {
    Request {
        header: Header {
            credit_charge: 1,
            status: NtStatus::SUCCESS,
            command: Command(0),
            credits: 1,
            flags: Flags(0),
            next_command: 0,
            message_id: 1,
            route: Route::Sync {
                process_id: 0,
                tree_id: tree,
            },
            session_id: SESSION,
            signature: [0; 16],
        },
        session: SESSION,
        tree,
        related_open: None,
        bytes: Bytes::new(),
        rest: Pieces::default(),
        sealed: false,
        waited: None,
        drawn: None,
        intent: None,
        parts_done: 0,
    }
}
