//! Plays the loop's part: records are committed, operations performed, tasks run, connections dropped.

use super::client::{Client, Opening, Protection, lock, write};
use crate::auth;
use crate::files::Files;
use outlast::server::files::FileSystem as _;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::Change;
use outlast_nvram::codec;
use outlast_smb::crypto::{Cipher, PreauthHash, Secret, SessionKeys, SigningAlgorithm};
use outlast_smb::record::WorkId;
use outlast_smb::state::{Negotiation, Resource, Security, SessionState, Tree};
use outlast_smb::{
    Admit, Clock, Config, ConnId, Dialect, Entropy, FormerShare, Held, Journal, Limits, Oplocks,
    Output, Planned, Record, Requirement, Share, Smb, Step, Task,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The other client: its connection, its session, the content of its file.
pub(super) const BEN: ConnId = 1;
pub(super) const BEN_SESSION: u64 = 1001;
pub(super) const PRECIOUS: &[u8] = b"precious";
/// The largest number of steps of a message or a task, and of successive tasks: far more than any needs.
const ENOUGH: usize = 2000;
/// Bytes of the encoded state of one connection, as bounded by its limits.
const STATE_BYTES: usize = 8 << 20;

/// The records that are not committed yet.
#[derive(Default)]
struct Log {
    pending: Vec<(ConnId, Vec<u8>)>,
    ids: u64,
}

impl Journal for Log {
    fn append(&mut self, conn: ConnId, record: &Record) {
        let mut bytes = Vec::new();
        codec::encode(record, &mut bytes);
        self.pending.push((conn, bytes));
    }

    fn unique_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

/// Predictable randomness suffices: nothing here guesses.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

pub(super) struct World {
    smb: Smb,
    /// The fold of the committed records.
    shadow: Smb,
    log: Log,
    pub(super) files: Files,
    now: Duration,
    unread: BTreeMap<ConnId, Vec<Vec<u8>>>,
    /// Connections to tear down, after the step that says so.
    dropped: BTreeSet<ConnId>,
    conns: BTreeSet<ConnId>,
    pub(super) bens_open: u64,
    /// The server crashes after this many commits within operations.
    pub(super) crash_in: Option<u8>,
    /// Everything that was ever committed.
    pub(super) history: Vec<(ConnId, Record)>,
}

pub(crate) fn config() -> Config {
    let share = |name: &str, guest, users: &[&str]| Share {
        name: name.into(),
        comment: "a share".into(),
        read_only: false,
        guest,
        users: users.iter().map(|name| (*name).into()).collect(),
        directory: 0,
        continuous_availability: true,
        encryption: Requirement::Enabled,
    };
    Config {
        name: "OUTLAST".into(),
        guid: [7; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares: vec![share("pub", true, &[]), share("theirs", false, &["ben"])],
        users: ["user", "ben"]
            .map(|name| outlast_smb::User {
                name: name.into(),
                nt_hash: outlast_smb::auth::nt_hash(auth::PASSWORD),
            })
            .into(),
        limits: Limits {
            sessions: 4,
            failed_logins: 4,
            trees: 4,
            opens: 12,
            pending: 4,
            watches: 4,
            locks: 16,
            total: Held {
                opens: 20,
                locks: 32,
                pending: 8,
                watches: 8,
                bytes: 1 << 20,
            },
            credits: 64,
            io_bytes: 128 << 10,
        },
    }
}

impl World {
    pub(super) fn new() -> World {
        World {
            smb: Smb::new(config()),
            shadow: Smb::new(config()),
            log: Log {
                ids: 5000,
                ..Log::default()
            },
            files: Files::default(),
            now: Duration::from_secs(1),
            unread: BTreeMap::new(),
            dropped: BTreeSet::new(),
            conns: BTreeSet::new(),
            bens_open: 0,
            crash_in: None,
            history: Vec::new(),
        }
    }

    fn clock(&self) -> Clock {
        Clock {
            now: self.now,
            wall: 1_000_000,
        }
    }

    /// A connection on which nothing has been sent.
    pub(super) fn unauthenticated(&mut self) -> Client {
        let conn = self.conns.last().copied().unwrap_or(0) + 1;
        self.conns.insert(conn);
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.smb.connected(conn, client, &mut self.log);
        self.commit(Output::default());
        let keys = keys(
            Dialect::Smb311,
            SigningAlgorithm::AesGmac,
            Cipher::Aes128Gcm,
            conn,
        );
        Client {
            conn,
            session: 0,
            tree: 1,
            next_message_id: 0,
            protection: Protection::Plain,
            mirrored: mirrored(&keys),
            keys,
            nonce: 0,
            credits: 16,
        }
    }

    /// A session with trees on "pub" and IPC$.
    pub(super) fn session(&mut self, protection: Protection, kind: u8) -> Client {
        let pub_tree = (Resource::Disk(0), "pub");
        self.login(
            protection,
            kind,
            "user",
            &[pub_tree, (Resource::Ipc, "IPC$")],
        )
    }

    /// Ben has a file open, with a lock on it, that no other client may use.
    pub(super) fn ben(&mut self) -> Client {
        let mut ben = self.login(
            Protection::Signed,
            0,
            "ben",
            &[(Resource::Disk(1), "theirs")],
        );
        assert_eq!((ben.conn, ben.session), (BEN, BEN_SESSION));
        self.send(&mut ben, Opening::of("mine").ask());
        self.bens_open = self.smb.opens().next().expect("ben's open").open;
        let open = self.bens_open;
        self.send(&mut ben, write(open, 0, PRECIOUS));
        self.send(&mut ben, lock(open, &[(0, 4, 2)]));
        self.unread.clear();
        ben
    }

    fn send(&mut self, client: &mut Client, ask: super::client::Ask) {
        let message = client.message(&[ask]);
        self.deliver(client.conn, &message.into());
    }

    fn login(
        &mut self,
        protection: Protection,
        kind: u8,
        user: &str,
        trees: &[(Resource, &str)],
    ) -> Client {
        let (dialect, signing, cipher) = match kind % 6 {
            0 => (
                Dialect::Smb311,
                SigningAlgorithm::AesGmac,
                Cipher::Aes128Gcm,
            ),
            1 => (
                Dialect::Smb311,
                SigningAlgorithm::AesCmac,
                Cipher::Aes256Ccm,
            ),
            2 => (
                Dialect::Smb300,
                SigningAlgorithm::AesCmac,
                Cipher::Aes128Ccm,
            ),
            3 if protection != Protection::Encrypted => (
                Dialect::Smb210,
                SigningAlgorithm::HmacSha256,
                Cipher::Aes128Gcm,
            ),
            4 if protection != Protection::Encrypted => (
                Dialect::Smb202,
                SigningAlgorithm::HmacSha256,
                Cipher::Aes128Gcm,
            ),
            _ => (
                Dialect::Smb311,
                SigningAlgorithm::AesGmac,
                Cipher::Aes256Gcm,
            ),
        };
        let mut client = self.unauthenticated();
        let keys = keys(dialect, signing, cipher, client.conn);
        client.session = 1000 + client.conn;
        client.protection = protection;
        client.mirrored = mirrored(&keys);
        client.keys = keys.clone();
        let negotiation = Negotiation {
            dialect: Some(dialect),
            cipher: (dialect >= Dialect::Smb300).then_some(cipher),
            signing: Some(signing),
            ..Negotiation::default()
        };
        let security = Security {
            state: SessionState::Valid,
            user: Some(user.into()),
            password: config().password_of(user),
            keys: Some(keys),
            signing_required: protection == Protection::Signed,
            encrypt: protection == Protection::Encrypted,
            ..Security::default()
        };
        let session = client.session;
        self.record(client.conn, Record::Negotiated(Box::new(negotiation)));
        self.record(
            client.conn,
            Record::Session {
                id: session,
                security: Box::new(security),
            },
        );
        for (id, (resource, name)) in (1..).zip(trees) {
            let tree = Tree {
                resource: *resource,
                name: (*name).into(),
                maximal_access: 0x001F_01FF,
                encrypt: false,
                directory: 0,
            };
            let tree = Box::new(tree);
            self.record(client.conn, Record::TreeConnected { session, id, tree });
        }
        let work = WorkId::Message;
        self.record(client.conn, Record::Done { work, credits: 30 });
        self.commit(Output::default());
        client
    }

    fn record(&mut self, conn: ConnId, record: Record) {
        Journal::append(&mut self.log, conn, &record);
        self.smb.apply(conn, &record);
    }

    /// Commits the appended records, and sends the output. False: the server crashed during it, and has recovered.
    fn commit(&mut self, out: Output) -> bool {
        for (conn, bytes) in std::mem::take(&mut self.log.pending) {
            let record: Record = codec::decode(&bytes).expect("a record can be read back");
            self.shadow.apply(conn, &record);
            self.history.push((conn, record));
        }
        for (conn, parts) in out.sends {
            self.unread.entry(conn).or_default().push(parts.concat());
        }
        self.dropped.extend(out.drop);
        match &mut self.crash_in {
            None => true,
            Some(0) => {
                self.crash_in = None;
                self.recover();
                false
            }
            Some(points) => {
                *points -= 1;
                true
            }
        }
    }

    /// Recovers everything from the committed records.
    pub(super) fn recover(&mut self) {
        self.log.pending.clear();
        let mut smb = Smb::new(config());
        for conn in &self.conns {
            if let Some(checkpoint) = self.shadow.checkpoint(*conn) {
                let mut bytes = Vec::new();
                codec::encode(&checkpoint, &mut bytes);
                smb.restore(
                    *conn,
                    codec::decode(&bytes).expect("state can be read back"),
                );
            }
        }
        self.smb = smb;
        let former = config().shares.into_iter().map(|share| FormerShare {
            name: share.name,
            directory: share.directory,
        });
        self.smb
            .recovered(&former.collect::<Vec<_>>(), &mut self.log);
        self.smb.readmit(&mut self.log);
        for open in self.smb.opens().collect::<Vec<_>>() {
            self.files.remember(open);
        }
        self.commit(Output::default());
        for task in self.smb.in_progress() {
            if !matches!(task, Task::Message(_)) {
                self.run_task(task);
            }
        }
    }

    /// Delivers a message, processes it, and everything that becomes possible by it.
    pub(super) fn deliver(&mut self, conn: ConnId, message: &Pieces) {
        for _ in 0..ENOUGH {
            let mut out = Output::default();
            let clock = self.clock();
            let step = self
                .smb
                .step(conn, message, clock, &mut Zeros, &mut self.log, &mut out);
            if !matches!(self.follow(step, out), Step::Again) {
                return self.run_tasks();
            }
        }
        panic!("a message without end");
    }

    /// Begins a message and stops at point 2 of its first operation, like a server that crashes there.
    pub(super) fn begin(&mut self, conn: ConnId, message: &Pieces) {
        for _ in 0..ENOUGH {
            let mut out = Output::default();
            let clock = self.clock();
            let step = self
                .smb
                .step(conn, message, clock, &mut Zeros, &mut self.log, &mut out);
            self.commit(out);
            let Step::Op(planned) = step else {
                continue;
            };
            let prepared = self.files.prepare(&planned.actor, &planned.op);
            let mut out = Output::default();
            let admitted = self.smb.admit(
                &planned,
                prepared,
                clock,
                &mut Zeros,
                &mut self.log,
                &mut out,
            );
            assert_eq!(admitted, Admit::Go);
            self.commit(out);
            return;
        }
        panic!("no operation");
    }

    fn follow(&mut self, mut step: Step, mut out: Output) -> Step {
        while let Step::Op(planned) = step {
            step = match self.operate(&planned, &mut out) {
                Some(step) => step,
                None => return Step::Again,
            };
        }
        match self.commit(out) {
            true => step,
            // Its end is recorded: no part of it is done again.
            false if matches!(step, Step::Done) => step,
            false => Step::Again,
        }
    }

    /// One operation. `None`: it was not to be done, or the server died before its result was recorded.
    fn operate(&mut self, planned: &Planned, out: &mut Output) -> Option<Step> {
        let clock = self.clock();
        let intent = match &planned.intent {
            Some(intent) => intent.clone(),
            None => {
                let prepared = self.files.prepare(&planned.actor, &planned.op);
                let found = prepared.clone();
                match self
                    .smb
                    .admit(planned, found, clock, &mut Zeros, &mut self.log, out)
                {
                    Admit::Go if !self.commit(std::mem::take(out)) => return None,
                    Admit::Go => prepared.expect("what is let pass was possible"),
                    Admit::Done => {
                        self.commit(std::mem::take(out));
                        return None;
                    }
                    Admit::Wait => return Some(Step::Done),
                }
            }
        };
        let outcome = self.files.perform(&planned.actor, &planned.op, &intent);
        Some(
            self.smb
                .complete(planned, outcome, clock, &mut Zeros, &mut self.log, out),
        )
    }

    /// Runs tasks until none is left, then tears down what was dropped.
    fn run_tasks(&mut self) {
        for _ in 0..ENOUGH {
            let clock = self.clock();
            if let Some(task) = self.smb.next_runnable(clock) {
                self.run_task(task);
            } else if let Some(conn) = self.dropped.pop_first() {
                self.disconnect(conn);
            } else {
                return self.compare();
            }
        }
        panic!("tasks without end");
    }

    fn run_task(&mut self, task: Task) {
        for _ in 0..ENOUGH {
            let mut out = Output::default();
            let clock = self.clock();
            let step = self
                .smb
                .step_task(task, clock, &mut Zeros, &mut self.log, &mut out);
            if !matches!(self.follow(step, out), Step::Again) {
                return;
            }
        }
        panic!("a task without end");
    }

    /// The connection has closed.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        assert_ne!(conn, BEN, "ben is disconnected");
        self.smb.disconnected(conn, &mut self.log);
        self.commit(Output::default());
        self.run_tasks();
        if self.smb.drop_ready(conn) {
            self.smb.forget(conn);
            self.shadow.forget(conn);
        }
    }

    pub(super) fn is_gone(&self, conn: ConnId) -> bool {
        self.smb.drop_ready(conn) || self.dropped.contains(&conn)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.run_tasks();
    }

    pub(super) fn local_change(&mut self, change: &Change) {
        let mut out = Output::default();
        let clock = self.clock();
        self.smb.changed(change, clock, &mut self.log, &mut out);
        self.commit(out);
        self.run_tasks();
    }

    pub(super) fn received(&mut self, conn: ConnId) -> Vec<Vec<u8>> {
        self.unread.remove(&conn).unwrap_or_default()
    }

    fn compare(&self) {
        for conn in &self.conns {
            assert!(
                self.smb.checkpoint(*conn) == self.shadow.checkpoint(*conn),
                "the state of connection {conn} is not the fold of its records"
            );
        }
    }

    /// Checks that no client holds more than the limits permit.
    pub(super) fn check_limits(&self) {
        let limits = config().limits;
        for conn in &self.conns {
            let Some(checkpoint) = self.smb.checkpoint(*conn) else {
                continue;
            };
            assert_eq!(
                checkpoint.contradiction(),
                None,
                "a state that recovery would refuse"
            );
            let state = &checkpoint.0;
            if *conn != BEN {
                let mut trees = state
                    .sessions
                    .values()
                    .flat_map(|session| session.trees.values());
                assert!(
                    trees.all(|tree| tree.resource != Resource::Disk(1)),
                    "a share for ben alone"
                );
            }
            assert!(state.sessions.len() <= limits.sessions, "sessions");
            let trees = state.sessions.values().map(|session| session.trees.len());
            assert!(trees.max().unwrap_or(0) <= limits.trees, "trees");
            assert!(state.opens.len() <= limits.opens, "opens");
            assert!(state.parked.len() <= limits.pending, "waiting requests");
            assert!(
                state.credits.outstanding() <= limits.credits.into(),
                "credits"
            );
            // a client may skip an id, and use all that it is granted after it
            assert!(
                state.credits.high - state.credits.low <= 2 * u64::from(limits.credits),
                "the window of ids"
            );
            let mut bytes = Vec::new();
            codec::encode(&checkpoint, &mut bytes);
            assert!(bytes.len() < STATE_BYTES, "{} bytes of state", bytes.len());
        }
    }
}

fn keys(dialect: Dialect, signing: SigningAlgorithm, cipher: Cipher, conn: ConnId) -> SessionKeys {
    let cipher = (dialect >= Dialect::Smb300).then_some(cipher);
    let secret = Secret::new(vec![conn as u8; 16]);
    SessionKeys::derive(dialect, signing, cipher, &secret, &PreauthHash::START)
}

/// The client's view: the two directions exchanged.
fn mirrored(keys: &SessionKeys) -> SessionKeys {
    SessionKeys {
        signing: keys.signing.clone(),
        encryption: keys.decryption.clone(),
        decryption: keys.encryption.clone(),
    }
}
