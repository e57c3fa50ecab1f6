//! Recovers a whole server from a log with correct checksums and records that no server wrote.

mod absurd;

use crate::files::Files;
use crate::ingress::hand::{self, Seg};
use crate::input::Input;
use crate::{ingress, smb};
use bytes::Bytes;
use outlast::server::clock::{Ticking, Time};
use outlast::server::eviction::EvictionLimits;
use outlast::server::fault::Unarmed;
use outlast::server::journal::{EFFECT_ROOM, REPLY_ROOM};
use outlast::server::machine::Machine;
use outlast::server::record::{GLOBAL, Global, Record};
use outlast::server::recover::{Parts, Recovered, recover};
use outlast_nvram::{Flag, Identity, Incarnation, Kind, Log, VecMemory, codec};
use outlast_smb::Entropy;
use outlast_stack::addressing::Acquired;
use outlast_stack::addressing::Sources;
use outlast_stack::{Lost, RxChecksum, RxFrame, TxFrame};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Room for the longest reply and the reserve.
const MEMORY_BYTES: usize = 40 << 20;
const INCARNATION: Incarnation = Incarnation {
    host: [8; 16],
    boot: [9; 16],
};
const WALL: u64 = 133_000_000_000_000_000;
/// The largest number of turns until a server is idle.
const TURNS: usize = 40;
/// Ports of new clients: one of them is unused.
const NEWCOMERS: [u16; 3] = [2000, 2001, 2002];

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// One record: object, kind, meta, data.
type Entry = (u64, Kind, Vec<u8>, Bytes);

fn entry(object: u64, kind: Kind, record: &Record<'_>, data: Bytes) -> Entry {
    let mut meta = Vec::new();
    codec::encode(record, &mut meta);
    (object, kind, meta, data)
}

/// The log of a server with clients in every state, one of them with a write under way; and its files.
struct Base {
    entries: Vec<Entry>,
    files: Files,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let global = Global {
            clock_up_to: Duration::from_secs(101),
            ids_up_to: 10_000,
            secret: hand::SECRET,
            guid: [7; 16],
            watched_until: 0,
            roots: Vec::new(),
            accounts: Vec::new(),
            acquired: Acquired::default(),
            anchor: None,
        };
        let mut entries = vec![entry(
            GLOBAL,
            Kind::Snapshot,
            &Record::Global(global),
            Bytes::new(),
        )];
        let (tcp, conns) = ingress::history(true);
        for (conn, record, data) in tcp {
            entries.push(match record {
                outlast_stack::Record::Opened(checkpoint) => {
                    let client = Record::Client {
                        tcp: Some(Cow::Owned(*checkpoint)),
                        smb: None,
                    };
                    entry(conn, Kind::Snapshot, &client, data)
                }
                delta => entry(conn, Kind::Delta, &Record::Tcp(Cow::Owned(delta)), data),
            });
        }
        let smb = smb::history();
        // The clients with sessions are those in ESTABLISHED.
        let established = [conns[9], conns[1], conns[8]];
        let object = |conn: u64| established[(conn as usize - 1) % established.len()];
        let received = outlast_stack::Record::Received {
            ts_recent: None,
            promise: None,
        };
        let received = Record::Tcp(Cow::Owned(received));
        let (conn, message) = smb.in_hand;
        entries.push(entry(object(conn), Kind::Delta, &received, message.into()));
        for (conn, record) in smb.records {
            let record = Record::Smb(Cow::Owned(record));
            entries.push(entry(object(conn), Kind::Delta, &record, Bytes::new()));
        }
        Base {
            entries,
            files: smb.files,
        }
    })
}

thread_local! {
    static MEMORY: Arc<VecMemory> = Arc::new(VecMemory::new(MEMORY_BYTES));
}

fn write_log(memory: &Arc<VecMemory>, entries: &[Entry]) {
    let identity = Identity {
        instance: [7; 16],
        incarnation: INCARNATION,
    };
    let mut log = Log::format(memory.clone(), identity).expect("a log");
    for (object, kind, meta, data) in entries {
        // Records that the log itself refuses (a change to a missing object) cannot be in a log.
        let _ = log.append(*object, *kind, meta, &[data]);
    }
    log.commit();
    log.set_flag(Flag::NonElectiveReboot);
}

fn parts(memory: &Arc<VecMemory>, files: Files, crashed: bool) -> Parts<Files> {
    Parts {
        memory: Some(memory.clone()),
        follower: None,
        sink: None,
        partner: None,
        reply_room: REPLY_ROOM,
        effect_room: EFFECT_ROOM,
        wall: WALL,
        uptime: Duration::ZERO,
        sources: Sources::default(),
        incarnation: INCARNATION,
        company: outlast::server::open::Company::Alone,
        takes_over: false,
        copy_units: 2,
        sets_apart: true,
        stack: outlast_stack::Config {
            receive_total: 1 << 20,
            receive_least: 4 << 10,
            ..hand::config()
        },
        smb: smb::config(),
        fs: files,
        entropy: Box::new(Zeros),
        probe: Box::new(Unarmed),
        stopwatch: Box::new(Ticking::default()),
        crashed,
        eviction: EvictionLimits {
            login: Duration::from_secs(60),
            idle: Some(Duration::from_secs(900)),
            stalled: Duration::from_secs(300),
            stalled_when_short: Duration::from_secs(5),
            unauthenticated: 4,
            connections: 64,
            unread: 16 << 20,
        },
        lost: if crashed { Lost::Nothing } else { Lost::Frames },
    }
}

/// Checks that there is an error that says so; or a server that becomes idle, serves a new client, and can be recovered
/// again.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut entries = base().entries.clone();
    let crashed = input.yes();
    while !input.is_empty() {
        let at = input.u16() as usize % entries.len();
        match input.below(16) {
            0 => drop(entries.remove(at)),
            1 => {
                let other = input.u16() as usize % entries.len();
                entries.swap(at, other);
            }
            2 => entries.insert(at, entries[at].clone()),
            3 => {
                let other = input.u16() as usize % entries.len();
                entries[at].0 = entries[other].0;
            }
            4 => {
                let mut data = entries[at].3.to_vec();
                input.edit(&mut data);
                entries[at].3 = data.into();
            }
            5 => entries[at].2 = input.bytes().to_vec(),
            6 => input.edit(&mut entries[at].2),
            _ => absurd::change(&mut input, &mut entries, at),
        }
        if entries.is_empty() {
            return;
        }
    }
    MEMORY.with(|memory| {
        write_log(memory, &entries);
        match recover(parts(memory, base().files.clone(), crashed)) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(recovered) => lives(recovered, memory),
        }
    });
}

fn lives(recovered: Recovered<Files>, memory: &Arc<VecMemory>) {
    let Recovered {
        mut machine,
        service_time,
        mut frames,
        ..
    } = recovered;
    let mut time = Time {
        now: service_time,
        wall: WALL,
        uptime: Duration::ZERO,
    };
    for _ in 0..TURNS {
        machine.turn(time, &mut frames);
        time.now += Duration::from_millis(500);
    }
    assert!(!machine.busy(), "the server does not become idle");
    frames.clear();
    let served = NEWCOMERS
        .iter()
        .any(|port| greet(&mut machine, &mut time, *port));
    assert!(served, "a new client is not served");
    machine.save(time, Flag::NonElectiveReboot, false, false);
    let files = Files::default();
    drop((machine, frames));
    recover(parts(memory, files, false)).expect("what was recovered can be recovered again");
}

/// A new client connects and sends NEGOTIATE; returns whether it is answered.
fn greet(machine: &mut Machine<Files>, time: &mut Time, port: u16) -> bool {
    let mut exchange = |seg: &Seg| {
        let bytes = hand::frame(seg);
        let frame = RxFrame {
            bytes: &bytes,
            checksum: RxChecksum::Verify,
        };
        let mut out = Vec::new();
        machine.ingest(frame, *time);
        for _ in 0..3 {
            machine.turn(*time, &mut out);
            time.now += Duration::from_millis(100);
        }
        let segs = out
            .into_iter()
            .map(bytes_of)
            .filter_map(|bytes| hand::read(&bytes));
        segs.filter(|seg| seg.client == port).collect::<Vec<Seg>>()
    };
    let first = Seg {
        port: hand::PORT,
        client: port,
        seq: 1,
        syn: true,
        window: 50_000,
        mss: Some(1400),
        ..Seg::default()
    };
    let Some(answer) = exchange(&first)
        .into_iter()
        .find(|seg| seg.syn && seg.ack == Some(2))
    else {
        return false;
    };
    let greeting = Seg {
        seq: 2,
        syn: false,
        mss: None,
        ack: Some(answer.seq.wrapping_add(1)),
        data: smb::greeting(),
        ..first
    };
    exchange(&greeting).iter().any(|seg| !seg.data.is_empty())
}

fn bytes_of(frame: TxFrame) -> Vec<u8> {
    let mut bytes = frame.header;
    frame
        .payload
        .iter()
        .for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// The original log, and logs with every record changed a little.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![1]];
    for at in 0..base().entries.len() as u16 {
        let [low, high] = at.to_le_bytes();
        seeds.push(vec![0, low, high, 6, 1, 6, 0, 5, 250]);
        seeds.push(vec![0, low, high, 0]);
        seeds.push(vec![
            1, low, high, 2, low, high, 6, 1, 2, 0, 4, 240, 255, 255, 255, 255, 255, 255, 255, 255,
        ]);
    }
    for kind in 0..6_u8 {
        for which in 0..24_u8 {
            for value in [0_u8, 100, 231, 235] {
                let at = if kind == 2 { 1 } else { 60 };
                seeds.push(vec![
                    0, at, 0, 8, kind, 1, which, value, 1, value, 1, 3, value, 1, 2, 3,
                ]);
            }
        }
    }
    seeds
}
