//! No record is longer than the stated bound, with every part of it as long as possible.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use outlast_fsa::fileop::{Actor, FileHandle, FileKey, FileOp, Intent};
use outlast_nvram::codec;
use outlast_stack::addressing::Acquired;
use outlast_stack::{Path, Promise, Record as Tcp, Seq, State};

use super::*;
use crate::server::effect::{Effect, Identity, Target};
use crate::server::record::{Global, Ids, Record, Root};

const LAST: Seq = Seq(u32::MAX);
const KEY: FileKey = FileKey {
    dev: u64::MAX,
    ino: u64::MAX,
    birth_ns: i64::MIN,
};

fn encoded(record: &Record<'_>) -> usize {
    let mut meta = Vec::new();
    codec::encode(record, &mut meta);
    meta.len()
}

fn path() -> String {
    "\u{ffff}".repeat(32_767)
}

fn checkpoint() -> outlast_stack::Checkpoint {
    let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::from([255; 16])), u16::MAX);
    outlast_stack::Checkpoint {
        path: Path {
            local: address,
            remote: address,
            remote_mac: [255; 6],
        },
        state: State::Closed,
        options: outlast_stack::Options {
            peer_mss: u16::MAX,
            window_scale: Some((255, 255)),
            sack: true,
            timestamps: true,
        },
        ts_offset: u32::MAX,
        iss: LAST,
        irs: LAST,
        snd_una: LAST,
        snd_wnd: u32::MAX,
        snd_wl1: LAST,
        snd_wl2: LAST,
        rcv_nxt: LAST,
        rcv_edge: LAST,
        last_ack_sent: LAST,
        prior_ack_sent: LAST,
        ts_recent: u32::MAX,
        fin_queued: true,
    }
}

#[test]
fn records_of_tcp_and_of_the_server() {
    let tcp = || Some(Cow::Owned(checkpoint()));
    let promise = Some(Promise {
        edge: LAST,
        next: true,
    });
    for record in [
        Record::Client {
            tcp: tcp(),
            smb: None,
        },
        Record::Copied { tcp: tcp() },
        Record::Tcp(Cow::Owned(Tcp::Opened(Box::new(checkpoint())))),
        Record::Tcp(Cow::Owned(Tcp::Received {
            ts_recent: Some(u32::MAX),
            promise,
        })),
        Record::Tcp(Cow::Owned(Tcp::Acked {
            snd_una: LAST,
            snd_wnd: u32::MAX,
            snd_wl1: LAST,
            snd_wl2: LAST,
            ts_recent: Some(u32::MAX),
        })),
    ] {
        assert!(encoded(&record) <= TCP, "{record:?}");
    }
    for record in [
        Record::Global(Global {
            watched_until: u64::MAX,
            clock_up_to: Duration::MAX,
            ids_up_to: u64::MAX,
            secret: [255; 32],
            guid: [255; 16],
            roots: vec![root(); 1000],
            accounts: accounts(),
            acquired: Acquired::default(),
            anchor: None,
        }),
        Record::Account {
            name: "n".repeat(1024),
            ids: Some(ids(40_000)),
        },
        Record::Root {
            share: u32::MAX,
            key: KEY,
        },
        Record::ClockUpTo(Duration::MAX),
        Record::WatchedUntil(u64::MAX),
        Record::IdsUpTo(u64::MAX),
        Record::Closed,
    ] {
        let names = std::iter::repeat_n("s".repeat(80), 1000).collect::<Vec<_>>();
        let most = global(names.iter().map(String::as_str));
        assert!(encoded(&record) <= most, "{record:?}");
    }
}

fn ids(groups: usize) -> Ids {
    Ids {
        uid: u32::MAX,
        gid: u32::MAX,
        groups: vec![u32::MAX; groups],
    }
}

/// As many as are kept.
fn accounts() -> Vec<(String, Ids)> {
    let mut global = Global {
        watched_until: 0,
        clock_up_to: Duration::ZERO,
        ids_up_to: 0,
        secret: [0; 32],
        guid: [0; 16],
        roots: Vec::new(),
        accounts: Vec::new(),
        acquired: Acquired::default(),
        anchor: None,
    };
    for number in 0..10_000 {
        global.note_account(&format!("account {number}"), Some(ids(number % 50)));
    }
    let (last, _) = global.accounts.last().expect("accounts");
    assert_eq!(last, "account 9999");
    assert!((1000..9000).contains(&global.accounts.len()));
    global.accounts
}

fn root() -> Root {
    Root {
        name: "s".repeat(80),
        directory: u64::MAX,
        key: Some(KEY),
    }
}

#[test]
fn effects_and_their_generations() {
    let effect = Effect {
        number: u64::MAX,
        actor: Actor {
            share: u32::MAX,
            user: Some("u".repeat(256)),
        },
        op: FileOp::Rename {
            open: u64::MAX,
            from: path(),
            to: path(),
            replace: true,
        },
        intent: Intent::Rename {
            source: KEY,
            is_dir: true,
            from: path(),
            to: path(),
            replaced: Some(KEY),
        },
        target: Some(Target {
            path: path(),
            identity: Identity {
                key: KEY,
                handle: FileHandle {
                    kind: i32::MIN,
                    bytes: vec![255; 128],
                },
            },
            is_dir: true,
        }),
        made: None,
        modified: u64::MAX,
        created: u64::MAX,
        places: vec![(u64::MAX, u32::MAX); MAX_DATA / BYTES_PER_PLACE],
    };
    assert!(encoded(&Record::Effect(Cow::Owned(effect))) <= EFFECT);
    let shares = vec!["s".repeat(80); 1000];
    let most = generation(shares.iter().map(String::as_str));
    let record = Record::Generation {
        first: u64::MAX,
        boot_id: [255; 16],
        shares,
    };
    assert!(encoded(&record) <= most);
}

#[test]
fn too_many_shares_are_refused_with_the_remedy() {
    let name = "s".repeat(80);
    check(std::iter::repeat_n(&*name, 1000)).unwrap();
    let refused = check(std::iter::repeat_n(&*name, 1_000_000)).unwrap_err();
    assert!(refused.to_string().contains("shorter names"), "{refused}");
}
