//! Applies random records to the opens of a few files: the index equals a scan of all opens.

use crate::file_table::FileTable;
use crate::record::{Record, WorkId};
use crate::rpc::Pipe;
use crate::server::{ConnId, Smb};
use crate::state::{CreateId, Durable, Holding, Open, Parked, Survival, Target, Wait, Work};
use crate::tests::testing::config;
use outlast_fsa::access as right;
use outlast_fsa::access;
use outlast_fsa::caching::Caching;
use outlast_fsa::fileop::{Actor, CreateAction, FileHandle, FileKey, OpenId};
use outlast_fsa::lease::{Lease, LeaseId, Version};
use outlast_fsa::locks::Lock;
use outlast_fsa::open::FileOpen;
use outlast_fsa::oplock::{Breaking, OplockLevel};
use outlast_fsa::sharing::Sharing;
use outlast_fsa::sharing::share_access;
use outlast_fsa::stream::StreamKey;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const CONNECTIONS: std::ops::RangeInclusive<ConnId> = 1..=3;
const FILES: std::ops::Range<u64> = 0..3;
/// The default stream, and two named ones.
const PATHS: [&str; 3] = ["file", "file:s", "file:t"];
const LEVELS: [OplockLevel; 4] = [
    OplockLevel::None,
    OplockLevel::LevelII,
    OplockLevel::Exclusive,
    OplockLevel::Batch,
];

fn key(ino: u64) -> FileKey {
    FileKey {
        dev: 1,
        ino,
        birth_ns: 0,
    }
}

fn rights() -> impl Strategy<Value = u32> {
    let rights = vec![
        right::READ_DATA,
        right::EXECUTE,
        right::WRITE_DATA,
        right::APPEND_DATA,
        right::DELETE,
        right::READ_ATTRIBUTES,
        right::SYNCHRONIZE,
        right::READ_CONTROL,
    ];
    let some = proptest::sample::subsequence(rights, 0..=3);
    some.prop_map(|some| some.into_iter().fold(0, |all, right| all | right))
}

fn level() -> impl Strategy<Value = OplockLevel> {
    proptest::sample::select(LEVELS.to_vec())
}

fn open(id: OpenId) -> impl Strategy<Value = Record> {
    let path = proptest::sample::select(PATHS.to_vec());
    let makes = (FILES, path, rights(), 0u32..8, level(), any::<bool>());
    makes.prop_map(
        move |(ino, path, granted_access, share, oplock, is_durable)| {
            let file = FileOpen {
                share_access: share,
                oplock,
                ..FileOpen::new(key(ino), path.into(), false)
            };
            Record::Opened(Box::new(Open {
                id,
                session: 1,
                tree: u32::from(id.is_multiple_of(2)),
                actor: Actor {
                    share: 0,
                    user: None,
                },
                granted_access,
                target: Target::File(file),
                channel_sequence: 0,
                closing: None,
                durable: is_durable.then_some(Durable {
                    survival: Survival::Durable,
                    timeout: Duration::from_secs(60),
                    holding: Holding::Connected,
                }),
                create: Some(CreateId {
                    guid: [id as u8 % 3; 16],
                    action: CreateAction::Opened,
                    is_replay_eligible: true,
                }),
            }))
        },
    )
}

fn lease(key: u8, breaks: bool) -> Lease {
    let id = LeaseId {
        client: [7; 16],
        key: [key; 16],
    };
    let mut lease = Lease::new(id, Version::One, Caching::ALL);
    if breaks {
        lease.break_to(Caching::READ, Duration::from_secs(key.into()));
    }
    lease
}

/// Records that change an open.
fn about(open: OpenId) -> impl Strategy<Value = Record> {
    let lock = |offset| Lock {
        offset,
        length: 1,
        exclusive: true,
    };
    prop_oneof![
        4 => self::open(open),
        1 => Just(Record::Closed { open }),
        2 => (level(), any::<bool>()).prop_map(move |(level, breaks)| Record::Oplock {
            open,
            level,
            breaking: breaks.then_some(Breaking { to: OplockLevel::None, deadline: Duration::from_secs(open) }),
        }),
        2 => (0u64..2).prop_map(move |at| Record::Locked { open, locks: vec![lock(at)] }),
        2 => (0u64..2).prop_map(move |offset| Record::Unlocked { open, offset, length: 1 }),
        2 => any::<bool>().prop_map(move |on| Record::DeletePending { open, on }),
        1 => any::<bool>().prop_map(move |on| Record::FileDeletePending { open, on }),
        1 => proptest::sample::select(PATHS.to_vec()).prop_map(move |path| Record::Moved {
            open,
            path: path.into(),
            directory: FileKey::default(),
        }),
        2 => (0u8..3, any::<bool>()).prop_map(move |(key, breaks)| Record::Lease {
            open,
            lease: lease(key, breaks),
        }),
        1 => Just(Record::Detached { open, until: Duration::from_secs(open) }),
        1 => Just(Record::Orphaned { open }),
        1 => Just(Record::Released { open }),
        1 => Just(Record::Survives {
            open,
            durable: Durable {
                survival: Survival::Resilient,
                timeout: Duration::from_secs(1),
                holding: Holding::Connected,
            },
        }),
        1 => Just(Record::Moved { open, path: "elsewhere".into(), directory: key(7) }),
        1 => Just(Record::Pipe { open, pipe: Box::new(Pipe::open("srvsvc").unwrap()) }),
    ]
}

/// Records about waiting requests.
fn waiting() -> impl Strategy<Value = Record> {
    let work = (0u64..4).prop_map(|id| match id {
        0 => WorkId::Message,
        id => WorkId::Parked(id),
    });
    let wait = FILES.prop_flat_map(|ino| {
        let waits = vec![
            Wait::Lock(key(ino)),
            Wait::Break(key(ino)),
            Wait::Notify(1),
            Wait::Pipe(1),
        ];
        proptest::sample::select(waits)
    });
    (work, 1u64..4, wait, 0u8..4).prop_map(|(work, id, wait, what)| match what {
        0 => Record::Done { work, credits: 0 },
        1 => Record::Waiting { id, wait },
        _ => Record::Parked {
            work,
            id,
            parked: Box::new(Parked {
                message: vec![0; 7],
                work: Work::default(),
                message_id: 1,
                session: 1,
                tree: 1,
                open: None,
                interim: true,
                wait,
                cancelled: None,
                running: false,
            }),
            credits: 0,
        },
    })
}

fn happening() -> impl Strategy<Value = (ConnId, Record)> {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let any_open = || (CONNECTIONS, 0u64..4).prop_map(|(conn, at)| (conn, conn * 10 + at));
    let one = any_open().prop_flat_map(|(conn, open)| (Just(conn), about(open)));
    let all = prop_oneof![
        (0u32..2).prop_map(|id| Record::TreeEnded { session: 1, id }),
        Just(Record::SessionEnded { id: 1 }),
        Just(Record::SessionLeft { id: 1 }),
        Just(Record::Disconnected),
        Just(Record::Connected { client }),
        (FILES, FILES).prop_map(|(from, to)| Record::Rekeyed {
            from: key(from),
            key: key(to),
            handle: FileHandle::default(),
        }),
    ];
    prop_oneof![40 => one, 5 => (CONNECTIONS, waiting()), 1 => (CONNECTIONS, all)]
}

/// Every open of a stream, found by a scan of all opens.
fn scan(smb: &Smb, key: StreamKey) -> Vec<(ConnId, &Open, &FileOpen)> {
    let all = smb.connections.iter().flat_map(|(conn, connection)| {
        let opens = connection.opens.values();
        opens.map(move |open| (*conn, open))
    });
    all.filter_map(|(conn, open)| match &open.target {
        Target::File(file) if StreamKey::of(file) == key => Some((conn, open, file)),
        _ => None,
    })
    .collect()
}

/// MS-FSA 2.1.5.1.2.2, clause by clause.
fn violates(a: (u32, u32), b: (u32, u32)) -> bool {
    let reads = |access: u32| access & (right::READ_DATA | right::EXECUTE) != 0;
    let writes = |access: u32| access & (right::WRITE_DATA | right::APPEND_DATA) != 0;
    let deletes = |access: u32| access & right::DELETE != 0;
    let takes_part = |access: u32| reads(access) || writes(access) || deletes(access);
    let denied = |access: u32, share: u32| {
        reads(access) && share & share_access::READ == 0
            || writes(access) && share & share_access::WRITE == 0
            || deletes(access) && share & share_access::DELETE == 0
    };
    takes_part(a.0) && takes_part(b.0) && (denied(a.0, b.1) || denied(b.0, a.1))
}

fn check(smb: &Smb, wanted: (u32, u32)) {
    let mut anew = FileTable::default();
    for (conn, connection) in &smb.connections {
        anew.add_all(*conn, connection);
    }
    assert_eq!(smb.files, anew);
    for key in FILES.map(key) {
        let streams = PATHS.map(|path| StreamKey::new(key, path));
        let mut found: Vec<_> = streams.iter().flat_map(|key| scan(smb, *key)).collect();
        found.sort_by_key(|(conn, open, _)| (*conn, open.id));
        let mut known: Vec<_> = smb.files.opens_of_file(key).collect();
        known.sort_unstable();
        let found = found.iter().map(|(conn, open, _)| (*conn, open.id));
        assert!(known.into_iter().eq(found));
    }
    let streams = FILES.flat_map(|ino| PATHS.map(|path| StreamKey::new(key(ino), path)));
    for key in streams {
        let (found, known) = (scan(smb, key), smb.files.opens(key));
        let which = |which: &dyn Fn(&FileOpen) -> bool| -> Vec<(ConnId, OpenId)> {
            let those = found.iter().filter(|(.., file)| which(file));
            those.map(|(conn, open, _)| (*conn, open.id)).collect()
        };
        assert_eq!(known.is_empty(), found.is_empty());
        assert!(known.all().eq(which(&|_| true)));
        for level in LEVELS.into_iter().skip(1) {
            let holders = which(&|file| file.oplock == level);
            assert!(known.with_oplock(level).eq(holders));
        }
        let highest = found.iter().map(|(.., file)| file.oplock).max();
        assert_eq!(known.highest_oplock(), highest.unwrap_or_default());
        let pending = which(&|file| file.delete_pending || file.file_delete_pending);
        assert!(known.delete_pending().eq(pending));
        let locking = which(&|file| !file.locks.is_empty());
        assert!(known.locking().eq(locking));
        let used = found
            .iter()
            .any(|(_, open, _)| !access::only_looks(open.granted_access));
        assert_eq!(known.is_used_beside(None), used);
        let ids = found.iter().filter_map(|(.., file)| Some(file.lease?.id));
        let ids: BTreeSet<LeaseId> = ids.collect();
        assert!(known.leases().eq(ids.iter().copied()));
        for id in ids {
            let beside = found.iter().any(|(_, open, file)| {
                let is_other = file.lease.is_none_or(|lease| lease.id != id);
                is_other && !access::only_looks(open.granted_access)
            });
            assert_eq!(known.is_used_beside(Some(id)), beside);
        }
        let excluded = found
            .iter()
            .any(|(_, open, file)| violates((open.granted_access, file.share_access), wanted));
        assert_eq!(known.exclude(Sharing::of(wanted.0, wanted.1)), excluded);
    }
}

proptest! {
    #[test]
    fn the_index_says_what_each_open_says(
        happenings in proptest::collection::vec((happening(), rights(), 0u32..8), 1..120),
    ) {
        let mut smb = Smb::new(config());
        for conn in CONNECTIONS {
            smb.apply(conn, &Record::Connected { client: IpAddr::V4(Ipv4Addr::LOCALHOST) });
        }
        for ((conn, record), access, share) in happenings {
            smb.apply(conn, &record);
            check(&smb, (access, share));
        }
        for conn in CONNECTIONS {
            smb.forget(conn);
        }
        prop_assert_eq!(&smb.files, &FileTable::default());
    }
}
