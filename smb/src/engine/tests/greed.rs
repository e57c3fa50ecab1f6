//! Drives clients to every limit, one alone or all together: their durable state stays within its room, every record
//! within the length that follows from the limits, the fold of the records equals the state, and another client still
//! logs in and is served.

use super::client::{
    ANY, Ask, BATCH, Client, DIRECTORY, EXCLUSIVE_LOCK, NOW, Opening, Protection, Response, close,
    empty, lock, notify, read, rename, tree_connect, write,
};
use super::disk::Disk;
use super::world;
use crate::record::Record;
use crate::server::{Admit, Clock, ConnId, Journal, Output, Principal, Smb, Step};
use crate::tests::bytes::{from_bytes, to_bytes};
use crate::tests::testing::{ALICE, Records, Server, config, setup_body};
use crate::tests::testing::{SHA_512, negotiate_body};
use crate::wire::{Command, Dialect};
use crate::{Config, Entropy, size};
use bytes::{BufMut, Bytes};
use outlast_fsa::status::NtStatus;
use std::time::Duration;

/// Folds the appended records, and keeps the length of the longest.
struct Log {
    shadow: Smb,
    longest: usize,
    ids: u64,
}

impl Journal for Log {
    fn append(&mut self, conn: ConnId, record: &Record) {
        let bytes = to_bytes(record);
        self.longest = self.longest.max(bytes.len());
        let record: Record = from_bytes(&bytes).unwrap();
        self.shadow.apply(conn, &record);
    }

    fn unique_id(&mut self) -> u64 {
        self.ids += 1;
        // as large as ids become
        (1 << 62) + self.ids
    }
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

const CLOCK: Clock = Clock {
    now: Duration::from_secs(1),
    wall: 1_000_000,
};

/// A server whose clients never yield: breaks are not acknowledged, locks are not released.
struct Stage {
    smb: Smb,
    log: Log,
    disk: Disk,
    sent: Vec<(ConnId, Vec<u8>)>,
    next_conn: ConnId,
    /// The number of connections that the server has closed for lack of room.
    parted: usize,
}

impl Stage {
    fn new(config: Config) -> Stage {
        Stage {
            smb: Smb::new(config.clone()),
            log: Log {
                shadow: Smb::new(config),
                longest: 0,
                ids: 0,
            },
            disk: Disk::default(),
            sent: Vec::new(),
            next_conn: 1,
            parted: 0,
        }
    }

    fn client(&mut self, user: &str) -> Client {
        let conn = self.next_conn;
        self.next_conn += 1;
        let mut client =
            world::log_in(&mut self.smb, &mut self.log, conn, user, Protection::Signed);
        client.credits = u16::MAX;
        client
    }

    /// Executes one message until it is done or waits, and returns the responses to its client.
    fn ask(&mut self, client: &mut Client, asks: &[Ask]) -> Vec<Response> {
        let message = client.message(asks);
        self.deliver(client.conn, &message);
        let mine = |(conn, _): &(ConnId, Vec<u8>)| *conn == client.conn;
        let sent = self.sent.iter().filter(|one| mine(one));
        let responses = sent
            .flat_map(|(_, bytes)| client.responses(bytes))
            .collect();
        self.sent.clear();
        responses
    }

    fn status(&mut self, client: &mut Client, ask: Ask) -> NtStatus {
        let responses = self.ask(client, &[ask]);
        responses
            .first()
            .map_or(NtStatus::PENDING, Response::status)
    }

    fn open(&mut self, client: &mut Client, opening: Opening<'_>) -> Option<u64> {
        let responses = self.ask(client, &[opening.ask()]);
        let response = responses.first()?;
        (response.status() == NtStatus::SUCCESS).then(|| response.open())
    }

    fn deliver(&mut self, conn: ConnId, message: &Bytes) {
        for _ in 0..10_000 {
            let mut out = Output::default();
            let log = &mut self.log;
            let mut step = self.smb.step(
                conn,
                &message.clone().into(),
                CLOCK,
                &mut Zeros,
                log,
                &mut out,
            );
            while let Step::Op(planned) = step {
                let prepared = self.disk.prepare(&planned.op);
                let found = prepared.clone();
                let log = &mut self.log;
                let admitted = self
                    .smb
                    .admit(&planned, found, CLOCK, &mut Zeros, log, &mut out);
                step = match (admitted, prepared) {
                    (Admit::Go, Ok(intent)) => {
                        let outcome = self.disk.perform(&planned.op, &intent);
                        let log = &mut self.log;
                        self.smb
                            .complete(&planned, outcome, CLOCK, &mut Zeros, log, &mut out)
                    }
                    (Admit::Wait, _) => Step::Done,
                    _ => Step::Again,
                };
            }
            let sends = out.sends.into_iter();
            self.sent
                .extend(sends.map(|(conn, parts)| (conn, parts.concat())));
            assert_eq!(out.drop, [], "a client that keeps to the protocol");
            self.part();
            if !matches!(step, Step::Again) {
                return;
            }
        }
        panic!("a message without end");
    }

    /// Closes connections for lack of room, as the loop does.
    fn part(&mut self) {
        while let Some((conn, _)) = self.smb.to_part_with() {
            self.smb.disconnected(conn, &mut self.log);
            self.smb.close_detached(conn, &mut self.log);
            self.parted += 1;
        }
    }

    /// Checks the invariants.
    fn check(&self) {
        let limits = &self.smb.config.limits;
        assert!(self.smb.all_durable_bytes() <= limits.total.bytes + slack());
        let longest = self.log.longest;
        assert!(longest <= limits.largest_delta(), "{longest}");
        for (conn, connection) in self.smb.durable() {
            let encoded = to_bytes(&self.smb.checkpoint(conn).unwrap()).len();
            assert!(encoded <= self.smb.durable_bytes(conn), "{encoded}");
            let opens = connection.opens.values().map(size::open);
            let parked = connection.parked.values().map(size::parked);
            let sessions = connection.sessions.values().map(size::session);
            let parts = opens.chain(parked).chain(sessions);
            let longest = parts.chain([size::shell(connection)]).max();
            assert!(longest <= Some(limits.largest_part()), "{longest:?}");
            assert_eq!(self.log.shadow.checkpoint(conn), self.smb.checkpoint(conn));
        }
        assert_eq!(self.log.shadow.accounts, self.smb.accounts);
    }

    /// Lets a new client log in, connect a share, open a file and lock it.
    fn serve_a_newcomer(mut self) {
        let mut carol = self.client("carol");
        assert_eq!(
            self.status(&mut carol, tree_connect("pub")),
            NtStatus::SUCCESS
        );
        let open = self.open(&mut carol, Opening::of("carol's")).unwrap();
        let locked = lock(open, &[(0, 1, EXCLUSIVE_LOCK | NOW)]);
        assert_eq!(self.status(&mut carol, locked), NtStatus::SUCCESS);
        let conn = self.next_conn;
        let mut server = Server {
            smb: self.smb,
            journal: Records {
                ids: 1 << 40,
                ..Records::default()
            },
        };
        server.connect(conn);
        let body = negotiate_body(&[Dialect::Smb311.revision()], 0, &[SHA_512]);
        server.negotiate_on(conn, &body).unwrap();
        server.login_on(conn, 0, &ALICE, 1, 0).unwrap();
    }
}

/// The number of bytes by which state without a check may exceed the room before the server closes a connection: the
/// answers of one message.
fn slack() -> usize {
    1 << 20
}

/// The number of refusals after which a client stops.
const REFUSALS: usize = 3;

type Greed = fn(&mut Stage, &mut Client, usize);

/// Repeats a request until it is refused often enough, or `most` times.
fn until_refused(most: usize, mut ask: impl FnMut(usize) -> bool) {
    let mut refused = 0;
    for at in 0..most {
        refused += usize::from(!ask(at));
        if refused >= REFUSALS {
            return;
        }
    }
}

fn long_name(at: usize) -> String {
    let component = "d".repeat(250);
    format!("{}\\{at}", vec![component; 16].join("\\"))
}

fn directory(name: &str) -> Opening<'_> {
    Opening {
        options: DIRECTORY,
        ..Opening::of(name)
    }
}

fn opens(stage: &mut Stage, client: &mut Client, most: usize) {
    until_refused(most, |at| {
        stage
            .open(client, Opening::of(&long_name(at % 4)))
            .is_some()
    });
}

fn cursors(stage: &mut Stage, client: &mut Client, most: usize) {
    until_refused(most, |_| {
        let Some(open) = stage.open(client, directory("dir")) else {
            return false;
        };
        let pattern = "\u{FF1F}".repeat(255);
        stage.status(client, query_directory(open, &pattern)) != NtStatus::INSUFFICIENT_RESOURCES
    });
}

fn query_directory(open: u64, pattern: &str) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(33);
    body.put_u8(37);
    body.put_u8(0);
    body.put_u32_le(0);
    body.put_u64_le(open);
    body.put_u64_le(open);
    body.put_u16_le(64 + 32);
    body.put_u16_le(2 * pattern.chars().count() as u16);
    body.put_u32_le(4096);
    crate::wire::utf16::push(pattern, &mut body);
    Ask::new(Command::QUERY_DIRECTORY, body)
}

fn locks(stage: &mut Stage, client: &mut Client, most: usize) {
    let name = format!("locked {}", client.conn);
    until_refused(most, |at| {
        let Some(open) = stage.open(client, Opening::of(&format!("{name} {at}"))) else {
            return false;
        };
        let ranges: Vec<(u64, u64, u32)> = (0..512)
            .map(|at| (u64::MAX / 2 + 2 * at, 1, EXCLUSIVE_LOCK | NOW))
            .collect();
        stage.status(client, lock(open, &ranges)) == NtStatus::SUCCESS
    });
}

/// Requests that wait for locks that are not released.
fn waits(stage: &mut Stage, client: &mut Client, most: usize) {
    let name = format!("waited for {}", client.conn);
    let (Some(held), Some(open)) = (
        stage.open(client, Opening::of(&name)),
        stage.open(client, Opening::of(&name)),
    ) else {
        return;
    };
    stage.status(client, lock(held, &[(0, 1, EXCLUSIVE_LOCK | NOW)]));
    until_refused(most, |_| {
        let asked = lock(open, &[(0, 1, EXCLUSIVE_LOCK)]);
        stage.status(client, asked) == NtStatus::PENDING
    });
}

/// Chains that wait for an oplock break, with a long answer before and a long WRITE after it.
fn chains(stage: &mut Stage, client: &mut Client, most: usize) {
    let name = format!("chained {}", client.conn);
    let batch = Opening {
        oplock: BATCH,
        ..Opening::of(&name)
    };
    let (Some(full), Some(_)) = (
        stage.open(client, Opening::of("full")),
        stage.open(client, batch),
    ) else {
        return;
    };
    let mut write_long = write(full, 0, &vec![7; 1 << 20]);
    write_long.charge = 16;
    stage.status(client, write_long);
    for bytes in [8 << 20, 1 << 19, 1 << 16] {
        until_refused(most, |_| {
            let mut before = read(full, 0, 1 << 19);
            before.charge = 8;
            let mut after = write(ANY, 0, &vec![7; bytes]).related();
            after.charge = bytes.div_ceil(1 << 16) as u16;
            let asks = [
                before,
                Opening::of(&name).ask(),
                after,
                close(ANY).related(),
            ];
            stage.ask(client, &asks).is_empty()
        });
    }
}

fn watches(stage: &mut Stage, client: &mut Client, most: usize) {
    let name = format!("watched {}", client.conn);
    until_refused(most, |_| {
        let Some(open) = stage.open(client, directory(&name)) else {
            return false;
        };
        let asked = stage.status(client, notify(open, 3, true));
        asked == NtStatus::PENDING || asked == NtStatus::SUCCESS
    });
    // changes there are kept for watches without a waiting request
    for at in 0..64 {
        let name = format!("{name}\\{}{at}", "n".repeat(250));
        if let Some(open) = stage.open(client, Opening::of(&name)) {
            stage.status(client, rename(open, &format!("{name} then"), true));
            stage.status(client, close(open));
        }
    }
}

fn trees(stage: &mut Stage, client: &mut Client, most: usize) {
    until_refused(most, |_| {
        stage.status(client, tree_connect("pub")) == NtStatus::SUCCESS
    });
}

fn set_ups(stage: &mut Stage, client: &mut Client, most: usize) {
    let session = std::mem::take(&mut client.session);
    client.protection = Protection::Plain;
    let mut token = ALICE.negotiate();
    token.resize(1024, 0);
    until_refused(most, |_| {
        let ask = Ask::new(Command::SESSION_SETUP, setup_body(1, 0, &token));
        stage.status(client, ask) == NtStatus::MORE_PROCESSING_REQUIRED
    });
    client.protection = Protection::Signed;
    client.session = session;
}

/// Skips every second MessageId.
fn holes(stage: &mut Stage, client: &mut Client, most: usize) {
    for _ in 0..most.min(4000) {
        client.next_message_id += 1;
        stage.status(client, empty(Command::ECHO));
    }
}

/// Messages of many requests with long answers.
fn compounds(stage: &mut Stage, client: &mut Client, _most: usize) {
    let Some(open) = stage.open(client, Opening::of("full")) else {
        return;
    };
    let mut write_long = write(open, 0, &vec![7; 1 << 20]);
    write_long.charge = 16;
    stage.status(client, write_long);
    let mut long = read(open, 0, 1 << 20);
    long.charge = 16;
    let asks = vec![long; 12];
    stage.ask(client, &asks);
    let asks = vec![empty(Command::ECHO); 1000];
    stage.ask(client, &asks);
}

const ALL: [Greed; 11] = [
    opens, cursors, locks, waits, chains, watches, trees, set_ups, holes, compounds, opens,
];

/// A configuration with the shares of `world`, with users and guests, and with the room of a log of 64 MiB.
fn setting() -> Config {
    let mut setting = Config {
        shares: world::config().shares,
        ..config()
    };
    setting.limits.total.bytes = (64 << 20) / 10;
    setting
}

fn run(greeds: &[Greed], users: &[&str]) {
    let mut stage = Stage::new(setting());
    let mut clients: Vec<Client> = users.iter().map(|user| stage.client(user)).collect();
    for greed in greeds {
        for client in &mut clients {
            if stage.smb.principal(client.conn) != Principal::Unknown {
                greed(&mut stage, client, 4000);
            }
        }
        stage.check();
    }
    stage.serve_a_newcomer();
}

#[test]
fn each_limit_alone() {
    for greed in ALL {
        run(&[greed], &["ann"]);
    }
}

#[test]
fn all_limits_together() {
    run(&ALL, &["ann", "ann", "bob"]);
    let mut backwards = ALL;
    backwards.reverse();
    run(&backwards, &["ann", "bob", "dan"]);
}
