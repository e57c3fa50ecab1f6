//! Plays the loop's part, with a crash at any chosen point: before or after each commit, and between an operation and
//! its result.

use super::client::{Ask, Client, Protection, Response};
use super::disk::Disk;
use crate::crypto::{Cipher, PreauthHash, Secret, SessionKeys, SigningAlgorithm};
use crate::record::{Record, WorkId};
use crate::server::{Admit, Clock, ConnId, Journal, Output, Planned, Smb, Step, Task};
use crate::state::{Negotiation, Resource, Security, SessionState, Tree};
use crate::tests::bytes::{from_bytes, to_bytes};
use crate::wire::Dialect;
use crate::wire::negotiate::capabilities;
use crate::{Config, Entropy, FormerShare, Limits, Oplocks, Requirement, Share, User};
use bytes::Bytes;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Bytes of a segment: so few that most messages consist of several.
const SEGMENT_BYTES: usize = 100;

/// The log: committed and uncommitted records.
#[derive(Default)]
struct Log {
    committed: Vec<(ConnId, Vec<u8>)>,
    pending: Vec<(ConnId, Vec<u8>)>,
    ids: u64,
    committed_ids: u64,
}

impl Journal for Log {
    fn append(&mut self, conn: ConnId, record: &Record) {
        self.pending.push((conn, to_bytes(record)));
    }

    fn unique_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// The result of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lived,
    DiedBefore,
    DiedAfter,
}

pub(super) struct World {
    pub(super) smb: Smb,
    /// The fold of the committed records.
    shadow: Smb,
    config: Config,
    /// The shares on record, and those of the next commit.
    former: Vec<FormerShare>,
    listed: Vec<FormerShare>,
    log: Log,
    /// The output of the next commit.
    kept: Output,
    pub(super) disk: Disk,
    pub(super) now: Duration,
    /// The sent messages, in order.
    pub(super) sent: Vec<(ConnId, Vec<u8>)>,
    /// Those of them that the test has not read yet.
    unread: BTreeMap<ConnId, Vec<Vec<u8>>>,
    pub(super) dropped: Vec<ConnId>,
    /// Crash points passed so far, and the one to crash at.
    pub(super) points: usize,
    crash_at: Option<usize>,
    pub(super) deaths: usize,
    /// Connections that a restart closes.
    pub(super) closed: BTreeSet<ConnId>,
    /// Every step takes longer than a turn.
    pub(super) is_slow: bool,
    next_conn: ConnId,
}

pub(super) fn config() -> Config {
    let share = |name: &str, read_only, encryption| Share {
        name: name.into(),
        comment: String::new(),
        read_only,
        guest: false,
        users: Vec::new(),
        directory: 7,
        continuous_availability: name == "pub",
        encryption,
    };
    let user = |name: &str| User {
        name: name.into(),
        nt_hash: [0; 16],
    };
    Config {
        name: "OUTLAST".into(),
        guid: [7; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares: vec![
            share("pub", false, Requirement::Enabled),
            share("ro", true, Requirement::Enabled),
            share("secret", false, Requirement::Required),
        ],
        users: ["ann", "bob"].map(user).into(),
        limits: Limits {
            pending: 4,
            opens: 8,
            credits: 128,
            ..Limits::default()
        },
    }
}

fn former(config: &Config) -> Vec<FormerShare> {
    let shares = config.shares.iter();
    let former = shares.map(|share| FormerShare {
        name: share.name.clone(),
        directory: share.directory,
    });
    former.collect()
}

/// A client on a connection of its own that has negotiated 3.1.1, logged in and connected the share "pub".
pub(super) fn log_in(
    smb: &mut Smb,
    journal: &mut dyn Journal,
    conn: ConnId,
    user: &str,
    protection: Protection,
) -> Client {
    let session = 1000 + conn;
    let keys = SessionKeys::derive(
        Dialect::Smb311,
        SigningAlgorithm::AesGmac,
        Some(Cipher::Aes128Gcm),
        &Secret::new(vec![conn as u8; 16]),
        &PreauthHash::START,
    );
    let mirrored: SessionKeys = SessionKeys {
        signing: keys.signing.clone(),
        encryption: keys.decryption.clone(),
        decryption: keys.encryption.clone(),
    };
    smb.connected(conn, IpAddr::V4(Ipv4Addr::LOCALHOST), journal);
    let tree = Tree {
        resource: Resource::Disk(0),
        name: "pub".into(),
        maximal_access: 0x001F_01FF,
        encrypt: false,
        directory: 7,
    };
    for record in [
        Record::Negotiated(Box::new(Negotiation {
            dialect: Some(Dialect::Smb311),
            cipher: Some(Cipher::Aes128Gcm),
            signing: Some(SigningAlgorithm::AesGmac),
            client_guid: [conn as u8; 16],
            capabilities: capabilities::LEASING
                | capabilities::PERSISTENT_HANDLES
                | capabilities::DIRECTORY_LEASING,
            ..Negotiation::default()
        })),
        Record::Session {
            id: session,
            security: Box::new(Security {
                state: SessionState::Valid,
                user: Some(user.into()),
                password: config().password_of(user),
                keys: Some(keys.clone()),
                signing_required: protection == Protection::Signed,
                encrypt: protection == Protection::Encrypted,
                ..Security::default()
            }),
        },
        Record::TreeConnected {
            session,
            id: 1,
            tree: Box::new(tree),
        },
        Record::Done {
            work: WorkId::Message,
            credits: 15,
        },
    ] {
        smb.emit(conn, record, journal);
    }
    Client {
        conn,
        session,
        tree: 1,
        next_message_id: 0,
        protection,
        keys,
        mirrored,
        nonce: 0,
        credits: 16,
    }
}

impl World {
    pub(super) fn new(crash_at: Option<usize>) -> World {
        World {
            smb: Smb::new(config()),
            shadow: Smb::new(config()),
            config: config(),
            former: former(&config()),
            listed: former(&config()),
            log: Log::default(),
            kept: Output::default(),
            disk: Disk::default(),
            now: Duration::from_secs(1),
            sent: Vec::new(),
            unread: BTreeMap::new(),
            dropped: Vec::new(),
            points: 0,
            crash_at,
            deaths: 0,
            closed: BTreeSet::new(),
            is_slow: false,
            next_conn: 1,
        }
    }

    fn clock(&self) -> Clock {
        Clock {
            now: self.now,
            wall: 1_000_000,
        }
    }

    /// A client that has negotiated 3.1.1, logged in as "ann" and connected the share "pub".
    pub(super) fn client(&mut self, protection: Protection) -> Client {
        self.client_of("ann", protection)
    }

    /// The same for another user.
    pub(super) fn client_of(&mut self, user: &str, protection: Protection) -> Client {
        let conn = self.next_conn;
        self.next_conn += 1;
        let client = log_in(&mut self.smb, &mut self.log, conn, user, protection);
        let crash_at = self.crash_at.take();
        self.commit(Output::default());
        self.crash_at = crash_at;
        client
    }

    /// Commits the appended records and sends the output, unless the server crashes just before or just after.
    fn commit(&mut self, out: Output) -> Fate {
        if self.dies() {
            self.lose();
            return Fate::DiedBefore;
        }
        if !self.log.pending.is_empty() {
            // Ids that no record contains may be drawn again.
            self.log.committed_ids = self.log.ids;
        }
        self.former.clone_from(&self.listed);
        for (conn, record) in self.log.pending.drain(..) {
            let decoded: Record = from_bytes(&record).unwrap();
            self.shadow.apply(conn, &decoded);
            self.log.committed.push((conn, record));
        }
        for (conn, parts) in out.sends {
            let bytes = parts.concat();
            self.unread.entry(conn).or_default().push(bytes.clone());
            self.sent.push((conn, bytes));
        }
        self.dropped.extend(out.drop);
        self.compare();
        if self.dies() {
            self.lose();
            return Fate::DiedAfter;
        }
        Fate::Lived
    }

    /// Crashes the server: uncommitted records are lost.
    fn lose(&mut self) {
        self.log.pending.clear();
        self.kept = Output::default();
        self.log.ids = self.log.committed_ids;
        self.deaths += 1;
        self.recover();
    }

    /// Returns whether to crash at this point.
    fn dies(&mut self) -> bool {
        let here = self.crash_at == Some(self.points);
        self.points += 1;
        here
    }

    /// Recovers the committed state: some clients from their records, the others from snapshots, as after a rewrite at
    /// the head of the log.
    fn recover(&mut self) {
        let mut smb = Smb::new(self.config.clone());
        let is_relocated = |conn: ConnId| (self.points >> (conn % 3)) % 2 == 1;
        for (conn, record) in &self.log.committed {
            if !is_relocated(*conn) {
                smb.apply(*conn, &from_bytes(record).unwrap());
            }
        }
        for conn in (1..self.next_conn).filter(|conn| is_relocated(*conn)) {
            if let Some(checkpoint) = self.shadow.checkpoint(conn) {
                smb.restore(conn, from_bytes(&to_bytes(&checkpoint)).unwrap());
            }
        }
        self.smb = smb;
        self.compare();
        self.smb.recovered(&self.former, &mut self.log);
        self.listed = former(&self.config);
        self.closed.extend(self.smb.readmit(&mut self.log));
    }

    fn compare(&self) {
        for conn in 0..=self.next_conn {
            assert_eq!(self.smb.checkpoint(conn), self.shadow.checkpoint(conn));
        }
        assert_eq!(self.smb.files, self.shadow.files);
    }

    /// Executes a received message and every task that it wakes. The message is consumed in the commit that ends it.
    pub(super) fn deliver(&mut self, conn: ConnId, message: &Bytes) {
        let message = &as_received(message);
        for attempt in 0..1000 {
            let mut out = Output::default();
            let clock = self.clock();
            let step = self
                .smb
                .step(conn, message, clock, &mut Zeros, &mut self.log, &mut out);
            if !matches!(self.follow(step, out), Step::Again) {
                self.run();
                return;
            }
            // The loop may interrupt it at any step; a slow loop does so after every step.
            if self.is_slow || attempt % 3 == 2 {
                self.smb.release_message(conn);
            }
        }
        panic!("a message without end");
    }

    /// Performs a step and returns the next one; `Again` after a crash that undid it.
    fn follow(&mut self, mut step: Step, out: Output) -> Step {
        let mut out = Output {
            sends: [std::mem::take(&mut self.kept.sends), out.sends].concat(),
            drop: out.drop,
            answered: out.answered,
        };
        while let Step::Op(planned) = step {
            let intent = match &planned.intent {
                Some(intent) => intent.clone(),
                None => {
                    let prepared = self.disk.prepare(&planned.op);
                    let clock = self.clock();
                    let found = prepared.clone();
                    let admitted =
                        self.smb
                            .admit(&planned, found, clock, &mut Zeros, &mut self.log, &mut out);
                    match admitted {
                        Admit::Go if self.commit(std::mem::take(&mut out)) != Fate::Lived => {
                            return Step::Again;
                        }
                        Admit::Go => prepared.unwrap(),
                        Admit::Done => {
                            // At most an unused id could be committed here.
                            self.kept = out;
                            return Step::Again;
                        }
                        Admit::Wait => {
                            step = Step::Done;
                            break;
                        }
                    }
                }
            };
            step = match self.operate(&planned, &intent, &mut out) {
                Some(step) => step,
                None => return Step::Again,
            };
        }
        match self.commit(out) {
            Fate::DiedBefore => Step::Again,
            Fate::Lived | Fate::DiedAfter => step,
        }
    }

    fn operate(
        &mut self,
        planned: &Planned,
        intent: &outlast_fsa::fileop::Intent,
        out: &mut Output,
    ) -> Option<Step> {
        let outcome = self.disk.perform(&planned.op, intent);
        if self.dies() {
            self.lose();
            return None;
        }
        let clock = self.clock();
        Some(
            self.smb
                .complete(planned, outcome, clock, &mut Zeros, &mut self.log, out),
        )
    }

    /// Runs tasks until none is left.
    pub(super) fn run(&mut self) {
        for _ in 0..1000 {
            let clock = self.clock();
            let Some(task) = self.smb.next_runnable(clock) else {
                return;
            };
            self.run_task(task);
        }
        panic!("tasks without end");
    }

    fn run_task(&mut self, task: Task) {
        for _ in 0..1000 {
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

    /// Sends requests as one message, and returns the client's unread responses.
    pub(super) fn ask(&mut self, client: &mut Client, asks: &[Ask]) -> Vec<Response> {
        let message = client.message(asks);
        self.deliver(client.conn, &message);
        self.received(client)
    }

    /// Sends one request, and returns its one response.
    pub(super) fn one(&mut self, client: &mut Client, ask: Ask) -> Response {
        let mut responses = self.ask(client, &[ask]);
        assert_eq!(responses.len(), 1, "{responses:?}");
        responses.remove(0)
    }

    pub(super) fn received(&mut self, client: &Client) -> Vec<Response> {
        let messages = self.unread.remove(&client.conn).unwrap_or_default();
        messages
            .iter()
            .flat_map(|message| client.responses(message))
            .collect()
    }

    /// Bytes of the longest record of an intent.
    pub(super) fn longest_intent(&self) -> usize {
        let records = self.log.committed.iter().map(|(_, record)| record);
        let intent =
            |record: &&Vec<u8>| matches!(from_bytes::<Record>(record), Ok(Record::Doing { .. }));
        records
            .filter(intent)
            .map(Vec::len)
            .max()
            .unwrap_or_default()
    }

    /// Appends and applies a record that no message causes.
    pub(super) fn record(&mut self, conn: ConnId, record: Record) {
        self.smb.emit(conn, record, &mut self.log);
        let crash_at = self.crash_at.take();
        self.commit(Output::default());
        self.crash_at = crash_at;
    }

    pub(super) fn disconnect(&mut self, conn: ConnId) {
        loop {
            self.smb.disconnected(conn, &mut self.log);
            if self.commit(Output::default()) != Fate::DiedBefore {
                break;
            }
        }
        self.run();
    }

    /// Restarts with another configuration.
    pub(super) fn restart_with(&mut self, config: Config) {
        self.return_with(config);
        self.run();
    }

    /// Restarts with another configuration, and runs no task yet.
    pub(super) fn return_with(&mut self, config: Config) {
        self.config = config;
        self.recover();
        self.commit(Output::default());
    }

    /// Ends the TCP connection, without closing its opens yet.
    pub(super) fn lose_connection(&mut self, conn: ConnId) {
        self.smb.disconnected(conn, &mut self.log);
        self.commit(Output::default());
    }

    /// Crashes the server after this many further crash points, and restarts it with another configuration.
    pub(super) fn next_life_with(&mut self, config: Config, points: usize) {
        self.config = config;
        self.crash_at = Some(self.points + points);
    }

    /// Readmits all sessions, as after a restart once operations in progress are done.
    pub(super) fn readmit(&mut self) {
        self.closed.extend(self.smb.readmit(&mut self.log));
        self.commit(Output::default());
        self.run();
    }

    pub(super) fn local_change(&mut self, change: &Change) {
        let mut out = Output::default();
        let clock = self.clock();
        self.smb.changed(change, clock, &mut self.log, &mut out);
        // The file system reports a change once. A crash here would lose it, which a recovery reports in another way.
        let crash_at = self.crash_at.take();
        self.commit(out);
        self.crash_at = crash_at;
        self.run();
    }

    pub(super) fn crashed_during(&mut self, task: Task) -> u32 {
        let deaths = self.smb.crashed_during(task, &mut self.log);
        let crash_at = self.crash_at.take();
        self.commit(Output::default());
        self.crash_at = crash_at;
        deaths
    }

    /// Begins a message and stops there, as a server that crashes by it.
    pub(super) fn begin(&mut self, conn: ConnId, message: &Bytes) {
        let message = &as_received(message);
        let mut out = Output::default();
        let clock = self.clock();
        let step = self
            .smb
            .step(conn, message, clock, &mut Zeros, &mut self.log, &mut out);
        assert!(matches!(step, Step::Again));
        self.commit(out);
        self.recover();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.run();
    }
}

/// A message in the pieces in which it arrived.
fn as_received(message: &Bytes) -> Pieces {
    let pieces = message.chunks(SEGMENT_BYTES);
    pieces.map(|piece| message.slice_ref(piece)).collect()
}
