//! Runs a line-based key-value service on `outlast-stack` and `outlast-nvram` alone: its connections survive kill -9,
//! and a second process takes them over.
//!
//!   key-value TAP ADDRESS FILE
//!
//! It answers `set KEY VALUE` and `get KEY` on TCP port 7000, a line each. What a command changes, that its
//! line is used up, and its answer are committed together, and the answer leaves after that: a command that was
//! acknowledged is never lost, and none is done twice. A second process with the same FILE, and a TAP of its own on the
//! same link, waits until the first one has ended, and continues.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outlast_nvram::{Error, FileProblem, Identity, Incarnation, Kind, Log, Mapping, codec};
use outlast_stack::{Config, ConnId, Lost, Record as Tcp, RxChecksum, RxFrame, Stack, State};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use tun_tap::{Iface, Mode};

const LOG_BYTES: u64 = 64 << 20;
/// The object of the service; connections have larger numbers.
const SERVICE: u64 = 0;
/// Recorded times are this far ahead of the present one.
const AHEAD: Duration = Duration::from_secs(1);
/// Longest line, bytes of answers that may wait for a client, most keys.
const LINE_MAX: usize = 4096;
const UNREAD_MAX: usize = 64 << 10;
const KEYS_MAX: usize = 1000;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Service {
    /// The last number of a connection and the last time; neither is used again.
    last_id: u64,
    time: Duration,
    table: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
enum Record {
    Service(Service),
    Marks { last_id: u64, time: Duration },
    Set(String, String),
    Tcp(Tcp),
}

impl Service {
    /// The only function that changes the state, live and in recovery.
    fn apply(&mut self, record: Record) {
        match record {
            Record::Service(whole) => *self = whole,
            Record::Marks { last_id, time } => (self.last_id, self.time) = (last_id, time),
            Record::Set(key, value) => drop(self.table.insert(key, value)),
            Record::Tcp(_) => {}
        }
    }
}

struct Journal {
    log: Log,
    service: Service,
}

impl Journal {
    fn put(&mut self, object: u64, kind: Kind, record: Record, data: &[&[u8]]) -> Bytes {
        let mut meta = Vec::new();
        codec::encode(&record, &mut meta);
        self.service.apply(record);
        // What may come is bounded by the limits above and by the stack's, and is far less than the log.
        self.log.use_reserve(true);
        let appended = self.log.append(object, kind, &meta, data);
        appended.expect("a log that is larger than what may come")
    }

    /// A snapshot of object 0.
    fn snapshot(&mut self) {
        let whole = Record::Service(self.service.clone());
        self.put(SERVICE, Kind::Snapshot, whole, &[]);
    }

    /// This number, and times before this one, may be used after the next commit.
    fn mark(&mut self, last_id: u64, time: Duration) {
        self.put(SERVICE, Kind::Delta, Record::Marks { last_id, time }, &[]);
    }
}

impl outlast_stack::Journal for Journal {
    fn append(&mut self, conn: ConnId, record: &Tcp, data: &[&[u8]]) -> Bytes {
        let kind = match record {
            Tcp::Opened(_) => Kind::Snapshot,
            Tcp::Closed => Kind::End,
            _ => Kind::Delta,
        };
        self.put(conn, kind, Record::Tcp(record.clone()), data)
    }

    fn room(&self, _conn: ConnId) -> usize {
        usize::try_from(self.log.room()).unwrap_or(usize::MAX)
    }

    fn unique_id(&mut self) -> u64 {
        self.mark(self.service.last_id + 1, self.service.time);
        self.service.last_id
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tap, address, file] = arguments.as_slice() else {
        anyhow::bail!("usage: key-value TAP ADDRESS FILE");
    };
    let config = Config {
        addresses: vec![(address.parse()?, 24)],
        ports: vec![7000],
        receive_buffer: LINE_MAX * 4,
        max_connections: 64,
        ..Config::default()
    };
    let (mut journal, mut stack) = open(file.as_ref(), config)?;
    let tap = Iface::without_packet_info(tap, Mode::Tap)?;
    let (base, began) = (journal.service.time, Instant::now());
    let (mut out, mut frame, mut is_ready) = (Vec::new(), vec![0; 64 << 10], false);
    stack.resume(base, Lost::Frames, &mut journal, &mut out);
    println!("serves");
    loop {
        let now = base + began.elapsed();
        if is_ready {
            let length = tap.recv(&mut frame)?;
            let (bytes, checksum) = (&frame[..length], RxChecksum::Verify);
            stack.ingest(RxFrame { bytes, checksum }, now, &mut journal);
        }
        stack.events().for_each(drop);
        let all: Vec<_> = stack.connections().map(|one| one.0).collect();
        all.iter()
            .for_each(|conn| serve(*conn, &mut stack, &mut journal));
        stack.poll(now, &mut journal, &mut out);
        // So that the log's tail moves on, the oldest object is written again.
        while let Some(old) = journal.log.wants_relocation(LOG_BYTES / 8, LOG_BYTES / 2) {
            if let Some(tcp) = stack.checkpoint(old.object) {
                let opened = Record::Tcp(Tcp::Opened(Box::new(tcp)));
                journal.put(old.object, Kind::Snapshot, opened, &[]);
                stack.relocate(old.object, &mut journal);
            } else {
                journal.snapshot();
            }
        }
        if now > journal.service.time {
            journal.mark(journal.service.last_id, now + AHEAD);
        }
        // Only what is committed may be seen.
        journal.log.commit();
        for frame in out.drain(..) {
            // A queue that is full loses frames, as networks do.
            let _ = tap.send(&[frame.header, frame.payload.concat()].concat());
        }
        let until = stack.next_deadline().unwrap_or(now + AHEAD);
        let pause = until.saturating_sub(base + began.elapsed());
        // SAFETY: the interface outlives the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(tap.as_raw_fd()) };
        let ready = PollFd::from_borrowed_fd(fd, PollFlags::IN);
        is_ready = poll(&mut [ready], Some(&pause.try_into()?))? > 0;
    }
}

/// Waits until no other process has the file, creates it if it does not exist, and recovers its content.
fn open(file: &std::path::Path, config: Config) -> anyhow::Result<(Journal, Stack)> {
    let mapping = loop {
        match Mapping::create(file, LOG_BYTES).or_else(|_| Mapping::open(file, LOG_BYTES)) {
            Err(Error::File {
                problem: FileProblem::Locked,
                ..
            }) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => break Arc::new(opened?),
        }
    };
    let (host, boot, mut instance) = ([0; 16], [0; 16], [0; 16]);
    getrandom::fill(&mut instance)?;
    let incarnation = Incarnation { host, boot };
    let (log, records) = match Log::open(mapping.clone()) {
        Err(Error::Blank) => {
            let identity = Identity {
                instance,
                incarnation,
            };
            (Log::format(mapping, identity)?, Vec::new())
        }
        opened => {
            let (mut log, contents) = opened?;
            log.begin_epoch(incarnation)?;
            (log, contents.records)
        }
    };
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(&log.superblock().instance);
    let mut stack = Stack::new(config, secret, Duration::ZERO);
    let mut service = Service::default();
    for found in records {
        match codec::decode(&found.meta)? {
            Record::Tcp(tcp) => stack.apply(found.object, &tcp, found.data),
            record => service.apply(record),
        }
    }
    let mut journal = Journal { log, service };
    journal.snapshot();
    Ok((journal, stack))
}

/// Answers the complete lines of a client, while it reads the answers.
fn serve(conn: ConnId, stack: &mut Stack, journal: &mut Journal) {
    while stack.send_queued(conn) < UNREAD_MAX {
        let received = stack.received(conn).into_iter().flatten().flatten();
        let line: Vec<u8> = received.copied().take(LINE_MAX).collect();
        let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
            if line.len() == LINE_MAX || stack.state(conn) == Some(State::CloseWait) {
                stack.close(conn, journal);
            }
            return;
        };
        let answer = answer(&String::from_utf8_lossy(&line[..end]), journal);
        stack.consume(conn, end + 1, journal);
        stack.send(conn, &[answer.as_bytes(), b"\n"], journal);
    }
}

fn answer(line: &str, journal: &mut Journal) -> String {
    let table = &journal.service.table;
    let words: Vec<&str> = line.trim_end().splitn(3, ' ').collect();
    match words.as_slice() {
        ["get", key] => table.get(*key).cloned().unwrap_or_else(|| "none".into()),
        ["set", ..] if table.len() >= KEYS_MAX => "full".into(),
        ["set", key, value] => {
            let change = Record::Set((*key).into(), (*value).into());
            journal.put(SERVICE, Kind::Delta, change, &[]);
            "ok".into()
        }
        _ => "error: set KEY VALUE or get KEY".into(),
    }
}
