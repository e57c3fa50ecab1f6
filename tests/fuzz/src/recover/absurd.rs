//! Makes records that decode and have impossible content: correct form, any value in any field.

use super::{Entry, entry};
use crate::input::Input;
use bytes::Bytes;
use outlast::server::record::{GLOBAL, Global, Record};
use outlast_fsa::fileop::{FileKey, Intent, KeptTimes, Times};
use outlast_fsa::locks::Lock;
use outlast_fsa::open::{Cursor, Watch};
use outlast_fsa::oplock::{Breaking, OplockLevel};
use outlast_fsa::status::NtStatus;
use outlast_nvram::{Kind, codec};
use outlast_smb::record::WorkId;
use outlast_smb::state::{
    Answer, Closing, Connection, Credits, Doing, Related, Resource, Session, Target, Tree, Wait,
    Work,
};
use outlast_stack::addressing::Acquired;
use outlast_stack::{Checkpoint, Promise, Seq, State};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

fn duration(input: &mut Input<'_>) -> Duration {
    Duration::new(input.number(), input.u32() % 1_000_000_000)
}

fn seq(input: &mut Input<'_>) -> Seq {
    Seq(input.number() as u32)
}

/// Changes an existing record if it can be decoded; otherwise makes a new one for the same object.
pub(super) fn change(input: &mut Input<'_>, entries: &mut Vec<Entry>, at: usize) {
    let (object, kind, meta, data) = entries[at].clone();
    let decoded: Result<Record<'static>, _> = codec::decode(&meta);
    let made = match (input.below(6), decoded) {
        (0, _) => return global(input, entries),
        (1, _) => tcp_delta(input),
        (
            2,
            Ok(Record::Client {
                tcp: Some(tcp),
                smb,
            }),
        ) => {
            let mut tcp = tcp.into_owned();
            checkpoint(input, &mut tcp);
            let record = Record::Client {
                tcp: input.yes().then_some(Cow::Owned(tcp)),
                smb,
            };
            entries[at] = entry(object, kind, &record, data);
            return;
        }
        (3, _) => return client(input, entries, object),
        _ => Record::Smb(Cow::Owned(smb_delta(input, entries, object))),
    };
    let data = Bytes::copy_from_slice(input.take(usize::from(object != GLOBAL) * 16));
    entries.insert(at + 1, entry(object, Kind::Delta, &made, data));
}

fn global(input: &mut Input<'_>, entries: &mut Vec<Entry>) {
    let record = match input.below(5) {
        4 => Record::Root {
            share: input.number() as u32,
            key: FileKey {
                dev: input.number(),
                ino: input.number(),
                birth_ns: 0,
            },
        },
        3 => Record::WatchedUntil(input.number()),
        0 => Record::ClockUpTo(duration(input)),
        1 => Record::IdsUpTo(input.number()),
        _ => Record::Global(Global {
            clock_up_to: duration(input),
            ids_up_to: input.number(),
            secret: [1; 32],
            guid: [2; 16],
            watched_until: input.number(),
            roots: Vec::new(),
            accounts: Vec::new(),
            acquired: Acquired::default(),
            anchor: None,
        }),
    };
    let kind = match record {
        Record::Global(_) => Kind::Snapshot,
        _ => Kind::Delta,
    };
    entries.push(entry(GLOBAL, kind, &record, Bytes::new()));
}

const STATES: [State; 9] = [
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
    State::Closed,
];

fn checkpoint(input: &mut Input<'_>, tcp: &mut Checkpoint) {
    for _ in 0..1 + input.below(4) {
        match input.below(16) {
            0 => tcp.state = input.pick(&STATES),
            1 => tcp.options.peer_mss = input.number() as u16,
            2 => tcp.options.window_scale = Some((input.byte(), input.byte())),
            3 => tcp.options.sack = input.yes(),
            4 => tcp.iss = seq(input),
            5 => tcp.irs = seq(input),
            6 => tcp.snd_una = seq(input),
            7 => tcp.snd_wnd = input.number() as u32,
            8 => tcp.snd_wl1 = seq(input),
            9 => tcp.snd_wl2 = seq(input),
            10 => tcp.rcv_nxt = seq(input),
            11 => tcp.rcv_edge = seq(input),
            12 => tcp.last_ack_sent = seq(input),
            13 => tcp.fin_queued = input.yes(),
            14 => {
                let ips = [
                    IpAddr::from([10, 0, 0, 1]),
                    IpAddr::from([0; 4]),
                    IpAddr::from([255; 4]),
                    IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 1]),
                    IpAddr::from([0_u16; 8]),
                ];
                tcp.path.local = SocketAddr::new(input.pick(&ips), input.u16());
                tcp.path.remote = SocketAddr::new(input.pick(&ips), input.u16());
            }
            _ => tcp.options.timestamps = input.yes(),
        }
    }
}

fn tcp_delta(input: &mut Input<'_>) -> Record<'static> {
    use outlast_stack::Record as Tcp;
    let promise = input.yes().then(|| Promise {
        edge: seq(input),
        next: input.yes(),
    });
    Record::Tcp(Cow::Owned(match input.below(10) {
        0 => Tcp::Established,
        1 => Tcp::Received {
            ts_recent: input.yes().then(|| input.u32()),
            promise,
        },
        2 => Tcp::Consumed(input.number() as u32),
        3 => Tcp::Sent { promise },
        4 => Tcp::Acked {
            snd_una: seq(input),
            snd_wnd: input.number() as u32,
            snd_wl1: seq(input),
            snd_wl2: seq(input),
            ts_recent: None,
        },
        5 => Tcp::PeerFinished,
        6 => Tcp::FinQueued,
        7 => input
            .pick(&[Tcp::RequeuedReceived, Tcp::RequeuedSent].each_ref())
            .clone(),
        8 => Tcp::Promised(Promise {
            edge: seq(input),
            next: input.yes(),
        }),
        _ => Tcp::Closed,
    }))
}

/// The SMB state of an object by its records.
fn folded(entries: &[Entry], object: u64) -> Connection {
    let mut connection = Connection::new(IpAddr::from([10, 0, 0, 2]));
    for (_, _, meta, _) in entries.iter().filter(|entry| entry.0 == object) {
        match codec::decode(meta) {
            Ok(Record::Smb(record)) => record.apply(&mut connection),
            Ok(Record::Client { smb: Some(smb), .. }) => connection = smb.into_owned().0,
            _ => {}
        }
    }
    connection
}

/// A snapshot with an impossible SMB state.
fn client(input: &mut Input<'_>, entries: &mut Vec<Entry>, object: u64) {
    let mut smb = folded(entries, object);
    for _ in 0..1 + input.below(4) {
        match input.below(12) {
            0 => {
                smb.credits = Credits {
                    low: input.number(),
                    high: input.number(),
                    used: (0..input.below(4)).map(|_| input.number()).collect(),
                };
            }
            1 => smb.gone = input.yes(),
            2 => smb.work = Some(work(input)),
            3 => {
                let session = Session {
                    nonces: input.number(),
                    last_tree: input.number() as u32,
                    ..Session::default()
                };
                smb.sessions.insert(input.number(), session);
            }
            4 => smb.sessions.clear(),
            5 => smb
                .opens
                .values_mut()
                .for_each(|open| open.closing = Some(Closing::default())),
            6 => {
                let id = input.number();
                if let Some(mut open) = smb.opens.values().next().cloned() {
                    open.id = if input.yes() { id } else { open.id };
                    open.session = input.number();
                    open.actor.share = input.number() as u32;
                    smb.opens.insert(id, open);
                }
            }
            7 => {
                if let Some((_, mut parked)) = smb.parked.pop_first() {
                    parked.wait = wait(input);
                    parked.running = input.yes();
                    parked.work = work(input);
                    parked.open = input.yes().then(|| input.number());
                    parked.message = input.bytes().to_vec();
                    smb.parked.insert(input.number(), parked);
                }
            }
            8 => smb.negotiation.dialect = None,
            9 => {
                for open in smb.opens.values_mut() {
                    if let Target::File(file) = &mut open.target {
                        file.position = input.number();
                        file.breaking = Some(Breaking {
                            to: OplockLevel::None,
                            deadline: duration(input),
                        });
                    }
                }
            }
            10 => smb.negotiation.cipher = None,
            _ => smb.sessions.values_mut().for_each(|session| {
                session.nonces = input.number();
                session.security.keys = None;
            }),
        }
    }
    let tcp = entries.iter().rev().find_map(|(of, _, meta, _)| {
        if *of != object {
            return None;
        }
        match codec::decode(meta) {
            Ok(Record::Client { tcp: Some(tcp), .. }) => Some(tcp.into_owned()),
            _ => None,
        }
    });
    let record = Record::Client {
        tcp: tcp.filter(|_| input.byte() < 200).map(Cow::Owned),
        smb: Some(Cow::Owned(outlast_smb::Checkpoint(smb))),
    };
    entries.push(entry(object.max(1), Kind::Snapshot, &record, Bytes::new()));
}

fn wait(input: &mut Input<'_>) -> Wait {
    let key = FileKey {
        dev: 1,
        ino: input.number(),
        birth_ns: 0,
    };
    match input.below(4) {
        2 => Wait::Pipe(input.number()),
        0 => Wait::Lock(key),
        1 => Wait::Break(key),
        _ => Wait::Notify(input.number()),
    }
}

fn doing(input: &mut Input<'_>) -> Doing {
    Doing {
        id: input.number(),
        intent: match input.below(5) {
            3 => Intent::Keeping {
                times: KeptTimes {
                    write: Some(input.number()),
                    change: None,
                },
                intent: Box::new(Intent::None),
            },
            0 => Intent::None,
            1 => Intent::Write {
                offset: input.number(),
            },
            2 => Intent::CopyChunks { source: Vec::new() },
            _ => Intent::Rename {
                source: FileKey {
                    dev: 1,
                    ino: 1,
                    birth_ns: 0,
                },
                is_dir: false,
                from: "f".into(),
                to: "../g".into(),
                replaced: None,
            },
        },
    }
}

fn work(input: &mut Input<'_>) -> Work {
    Work {
        admitted: input.yes(),
        sealed: input.yes().then(|| input.number()),
        next: input.number() as u32,
        drawn: input.yes().then(|| input.number()),
        doing: input.yes().then(|| doing(input)),
        attempts: input.number() as u32,
        ..Work::default()
    }
}

fn smb_delta(input: &mut Input<'_>, entries: &[Entry], object: u64) -> outlast_smb::Record {
    use outlast_smb::Record as Smb;
    let state = folded(entries, object);
    let open = match state.opens.keys().nth(input.below(4)) {
        Some(open) => *open,
        None => input.number(),
    };
    let session = state.sessions.keys().next().copied().unwrap_or(1);
    let work = match input.yes() {
        true => WorkId::Message,
        false => WorkId::Parked(
            state
                .parked
                .keys()
                .next()
                .copied()
                .unwrap_or(input.number()),
        ),
    };
    match input.below(26) {
        0 => Smb::Connected {
            client: IpAddr::from([10, 0, 0, 2]),
        },
        1 => Smb::Disconnected,
        2 => Smb::Begin,
        3 => Smb::Crashed { work },
        4 => Smb::Admitted {
            ids: vec![(input.number(), input.u16())],
            sealed: input.yes().then_some(session),
        },
        5 => Smb::Doing {
            work,
            doing: doing(input),
        },
        6 => Smb::Undone { work },
        7 => Smb::Answered {
            work,
            answer: None::<Box<Answer>>,
            related: Related {
                session,
                tree: input.number() as u32,
                open: Some(open),
                failed: None,
            },
            credits: input.u16(),
        },
        8 => Smb::Done {
            work,
            credits: input.u16(),
        },
        9 => Smb::Waiting {
            id: state.parked.keys().next().copied().unwrap_or(0),
            wait: wait(input),
        },
        10 => Smb::Cancelled {
            id: state.parked.keys().next().copied().unwrap_or(0),
            status: NtStatus(input.u32()),
        },
        11 => Smb::SessionEnded { id: session },
        12 => Smb::Nonce { session },
        13 => Smb::TreeConnected {
            session,
            id: input.number() as u32,
            tree: Box::new(Tree {
                resource: Resource::Disk(input.number() as u32),
                name: "nowhere".into(),
                maximal_access: 0,
                encrypt: input.yes(),
                directory: 0,
            }),
        },
        14 => Smb::SharesMoved {
            moved: vec![(0, input.number() as u32)],
        },
        15 => Smb::Closing {
            open,
            doing: doing(input),
        },
        16 => Smb::Closed { open },
        17 => Smb::Moved {
            open,
            path: String::from_utf8_lossy(input.bytes()).into_owned(),
            directory: FileKey::default(),
        },
        18 => Smb::Position {
            open,
            position: input.number(),
        },
        19 => Smb::Cursor {
            open,
            cursor: Cursor {
                pattern: Some("*".into()),
                after: Some(String::new()),
                finished: false,
                returned: input.number(),
            },
        },
        20 => Smb::Watch {
            open,
            watch: Watch::default(),
        },
        21 => Smb::Oplock {
            open,
            level: OplockLevel::Batch,
            breaking: Some(Breaking {
                to: OplockLevel::Batch,
                deadline: duration(input),
            }),
        },
        22 => Smb::Locked {
            open,
            locks: vec![Lock {
                offset: input.number(),
                length: input.number(),
                exclusive: true,
            }],
        },
        23 => Smb::Stopped {
            open,
            times: Times {
                write: true,
                ..Times::default()
            },
        },
        24 => Smb::ChannelSequence {
            open,
            sequence: input.u16(),
        },
        _ => Smb::Running {
            id: state.parked.keys().next().copied().unwrap_or(0),
        },
    }
}
