//! Applies random records to a few connections: the accounts equal the measured sizes, and are no less than the bytes
//! in the log.

use super::*;
use crate::auth::Handshake;
use crate::crypto::{Cipher, PreauthHash, Secret, SessionKeys, SigningAlgorithm};
use crate::record::{Record, WorkId};
use crate::rpc::{Pipe, Server};
use crate::server::Smb;
use crate::state::{
    Answer, Doing, Durable, Holding, Negotiation, Open, Parked, Related, Resource, Security,
    SessionState, Survival, Target, Tree, Wait, Work,
};
use crate::tests::bytes::{from_bytes, to_bytes};
use crate::tests::testing::{Records, config};
use crate::wire::{Command, Dialect, Flags, Header, Route};
use outlast_fsa::fileop::{
    Actor, CreateIntent, FileHandle, FileKey, Intent, KeptTimes, Metadata, Times,
};
use outlast_fsa::locks::Lock;
use outlast_fsa::open::{Cursor, FileOpen, Notice, Watch};
use outlast_fsa::oplock::{Breaking, OplockLevel};
use outlast_fsa::status::NtStatus;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

const CONNECTIONS: std::ops::Range<ConnId> = 1..4;

/// Numbers with the longest encoding, and small ones.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, Just(300), Just(70_000), Just(u64::MAX - 1)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, Just(u32::MAX)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(0), 1usize..40, Just(300), Just(70_000)].prop_map(|length| "x".repeat(length))
}

fn key() -> impl Strategy<Value = FileKey> {
    (number(), number()).prop_map(|(dev, ino)| FileKey {
        dev,
        ino,
        birth_ns: i64::MIN,
    })
}

fn header() -> Header {
    Header {
        credit_charge: u16::MAX,
        status: NtStatus(u32::MAX),
        command: Command(u16::MAX),
        credits: u16::MAX,
        flags: Flags(u32::MAX),
        next_command: u32::MAX,
        message_id: u64::MAX,
        route: Route::Sync {
            process_id: u32::MAX,
            tree_id: u32::MAX,
        },
        session_id: u64::MAX,
        signature: [0xFF; 16],
    }
}

fn metadata(key: FileKey) -> Metadata {
    Metadata {
        key,
        creation_time: u64::MAX,
        last_access_time: u64::MAX,
        last_write_time: u64::MAX,
        change_time: u64::MAX,
        end_of_file: u64::MAX,
        allocation_size: u64::MAX,
        attributes: u32::MAX,
        links: u32::MAX,
        is_dir: true,
    }
}

fn intent() -> impl Strategy<Value = Intent> {
    (0..7, key(), text(), vec(text(), 0..3)).prop_map(|(which, key, path, more)| match which {
        5 => Intent::Keeping {
            times: KeptTimes {
                write: Some(u64::MAX),
                change: Some(u64::MAX),
            },
            intent: Box::new(Intent::Write { offset: u64::MAX }),
        },
        0 => Intent::None,
        1 => Intent::Create(CreateIntent {
            path,
            directory: key,
            existing: Some(metadata(key)),
            base: None,
            maximal_access: u32::MAX,
        }),
        2 => Intent::Write { offset: u64::MAX },
        3 => Intent::Rename {
            source: key,
            is_dir: true,
            from: path.clone(),
            to: path,
            replaced: Some(key),
        },
        4 => Intent::Close {
            metadata: metadata(key),
            digest: Some(u64::MAX),
        },
        _ => Intent::CopyChunks {
            source: more.into_iter().map(String::into_bytes).collect(),
        },
    })
}

fn doing() -> impl Strategy<Value = Doing> {
    (number(), intent()).prop_map(|(id, intent)| Doing { id, intent })
}

fn answer() -> impl Strategy<Value = Answer> {
    text().prop_map(|body| Answer {
        header: header(),
        sign: true,
        body: body.into_bytes(),
    })
}

fn related() -> Related {
    Related {
        session: u64::MAX,
        tree: u32::MAX,
        open: Some(u64::MAX),
        failed: Some(NtStatus(u32::MAX)),
    }
}

fn work() -> impl Strategy<Value = Work> {
    (vec(answer(), 0..3), option::of(doing())).prop_map(|(answers, doing)| Work {
        attempts: u32::MAX - 1,
        admitted: true,
        sealed: Some(u64::MAX),
        next: u32::MAX - 1,
        answers,
        related: related(),
        drawn: Some(u64::MAX),
        doing,
        parts_done: u32::MAX - 9,
    })
}

fn parked() -> impl Strategy<Value = Parked> {
    (text(), work(), key()).prop_map(|(message, work, key)| Parked {
        message: message.into_bytes(),
        work,
        message_id: u64::MAX,
        session: 1,
        tree: u32::MAX,
        open: Some(u64::MAX),
        interim: true,
        wait: Wait::Lock(key),
        cancelled: None,
        running: false,
    })
}

fn security() -> impl Strategy<Value = Security> {
    let state = prop_oneof![1 => Just(SessionState::InProgress), 3 => Just(SessionState::Valid)];
    let handshake = (text(), text(), text()).prop_map(|(types, negotiate, challenge)| {
        // the encoding of `Handshake`, whose fields are private
        let challenged = ([7u8; 8], negotiate.into_bytes(), challenge.into_bytes());
        let written = to_bytes(&(Some(types.into_bytes()), true, Some(challenged)));
        from_bytes::<Handshake>(&written).unwrap()
    });
    let user = option::of(prop_oneof![Just("alice".to_owned()), text()]);
    (state, user, option::of(handshake)).prop_map(|(state, user, handshake)| Security {
        state,
        user,
        password: Some(Secret::new(vec![8; 16])),
        guest: true,
        anonymous: true,
        signing_required: true,
        encrypt: true,
        raised: true,
        keys: Some(SessionKeys::derive(
            Dialect::Smb311,
            SigningAlgorithm::AesGmac,
            Some(Cipher::Aes256Gcm),
            &Secret::new(vec![7; 16]),
            &PreauthHash::START,
        )),
        preauth: Some(PreauthHash::START),
        handshake,
    })
}

fn open(id: u64) -> impl Strategy<Value = Record> {
    let user = option::of(Just("alice".to_owned()));
    (user, key(), text(), text()).prop_map(move |(user, key, handle, path)| {
        let mut file = FileOpen::new(key, path, true);
        file.handle = FileHandle {
            kind: i32::MIN,
            bytes: handle.into_bytes(),
        };
        file.share_access = u32::MAX;
        file.create_options = u32::MAX;
        file.position = u64::MAX;
        file.mode = u32::MAX;
        Record::Opened(Box::new(Open {
            id,
            session: 1,
            tree: u32::MAX,
            actor: Actor {
                share: u32::MAX,
                user,
            },
            granted_access: u32::MAX,
            target: Target::File(file),
            channel_sequence: 0,
            closing: None,
            durable: None,
            create: None,
        }))
    })
}

fn pipe(written: usize) -> Pipe {
    let server = Server {
        name: "OUTLAST",
        comment: "",
        shares: Vec::new(),
    };
    let mut pipe = Pipe::open("srvsvc").unwrap();
    // an incomplete fragment (C706 12.6.3.1: its length is at byte 8)
    let mut fragment = vec![5, 0, 0, 3, 0x10, 0, 0, 0, 0xFF, 0xFF, 0, 0, 1, 0, 0, 0];
    fragment.resize(16 + written, 0);
    let _ = pipe.write(&fragment, &server);
    pipe
}

/// Records about an open.
fn about(open: u64) -> impl Strategy<Value = Record> {
    let lock = Lock {
        offset: u64::MAX,
        length: u64::MAX,
        exclusive: true,
    };
    let notices = vec(text(), 0..3).prop_map(|names| {
        let notice = |name| Notice {
            action: u32::MAX,
            name,
        };
        names.into_iter().map(notice).collect::<Vec<_>>()
    });
    let cursor =
        (option::of(text()), option::of(0usize..255)).prop_map(|(pattern, after)| Cursor {
            pattern,
            after: after.map(|length| "n".repeat(length)),
            finished: true,
            returned: u64::MAX,
        });
    let breaking = Breaking {
        to: OplockLevel::Batch,
        deadline: Duration::MAX,
    };
    let watch = Watch {
        filter: u32::MAX,
        recursive: true,
        ..Watch::default()
    };
    prop_oneof![
        4 => self::open(open),
        1 => Just(Record::Closed { open }),
        1 => doing().prop_map(move |doing| Record::Closing { open, doing }),
        1 => Just(Record::CloseCrashed { open }),
        1 => (text(), key()).prop_map(move |(path, directory)| Record::Moved { open, path, directory }),
        1 => Just(Record::DeletePending { open, on: true }),
        1 => Just(Record::Position { open, position: u64::MAX }),
        1 => Just(Record::Mode { open, mode: u32::MAX }),
        1 => Just(Record::ChannelSequence { open, sequence: u16::MAX }),
        1 => Just(Record::Stopped { open, times: Times { access: true, write: true, change: true } }),
        2 => cursor.prop_map(move |cursor| Record::Cursor { open, cursor }),
        2 => Just(Record::Watch { open, watch }),
        2 => (notices, any::<bool>()).prop_map(move |(notices, overflow)| Record::Noticed {
            open, notices, overflow,
        }),
        1 => Just(Record::Oplock { open, level: OplockLevel::Batch, breaking: Some(breaking) }),
        2 => (0usize..300).prop_map(move |count| Record::Locked { open, locks: vec![lock; count] }),
        1 => Just(Record::Unlocked { open, offset: u64::MAX, length: u64::MAX }),
        1 => (1u32..65).prop_map(move |index| Record::LockSequence { open, index, number: 15 }),
        1 => (0usize..65_000).prop_map(move |written| Record::Pipe {
            open, pipe: Box::new(pipe(written)),
        }),
    ]
}

fn work_id() -> impl Strategy<Value = WorkId> {
    (0u64..4).prop_map(|id| match id {
        0 => WorkId::Message,
        id => WorkId::Parked(id),
    })
}

/// Records about messages and waiting requests.
fn at_work() -> impl Strategy<Value = Record> {
    let credits = 8_192;
    prop_oneof![
        3 => Just(Record::Begin),
        1 => work_id().prop_map(|work| Record::Crashed { work }),
        3 => (0u64..9_000).prop_map(|id| Record::Admitted { ids: vec![(id, 3)], sealed: Some(1) }),
        2 => (work_id(), doing()).prop_map(|(work, doing)| Record::Doing { work, doing }),
        1 => work_id().prop_map(|work| Record::Undone { work }),
        1 => work_id().prop_map(|work| Record::PartsDone { work, parts: u32::MAX }),
        3 => (work_id(), option::of(answer())).prop_map(move |(work, answer)| Record::Answered {
            work, answer: answer.map(Box::new), related: related(), credits,
        }),
        1 => work_id().prop_map(move |work| Record::Done { work, credits }),
        2 => (work_id(), 1u64..4, parked()).prop_map(move |(work, id, parked)| Record::Parked {
            work, id, parked: Box::new(parked), credits,
        }),
        1 => (1u64..4).prop_map(|id| Record::Running { id }),
        1 => (1u64..4, key()).prop_map(|(id, key)| Record::Waiting { id, wait: Wait::Break(key) }),
        1 => (1u64..4).prop_map(|id| Record::Cancelled { id, status: NtStatus(u32::MAX) }),
    ]
}

/// Records about sessions and whole connections.
fn settled() -> impl Strategy<Value = Record> {
    let negotiation = Negotiation {
        dialect: Some(Dialect::Smb311),
        wildcard: true,
        client_guid: [0xFF; 16],
        client_capabilities: u32::MAX,
        client_security_mode: u16::MAX,
        capabilities: u32::MAX,
        security_mode: u16::MAX,
        cipher: Some(Cipher::Aes256Gcm),
        signing: Some(SigningAlgorithm::AesGmac),
        preauth: Some(PreauthHash::START),
    };
    let tree = || {
        text().prop_map(|name| Tree {
            resource: Resource::Disk(u32::MAX),
            name,
            maximal_access: u32::MAX,
            encrypt: true,
            directory: u64::MAX,
        })
    };
    prop_oneof![
        1 => Just(Record::Negotiated(Box::new(negotiation))),
        4 => (1u64..4, security()).prop_map(|(id, security)| Record::Session {
            id, security: Box::new(security),
        }),
        1 => (1u64..4).prop_map(|id| Record::SessionEnded { id }),
        1 => (1u64..4).prop_map(|session| Record::Nonce { session }),
        3 => (1u64..4, small(), tree()).prop_map(|(session, id, tree)| Record::TreeConnected {
            session, id, tree: Box::new(tree),
        }),
        1 => (1u64..4, small()).prop_map(|(session, id)| Record::TreeEnded { session, id }),
        1 => (1u64..4, small(), tree()).prop_map(|(session, id, tree)| Record::TreeChanged {
            session, id, tree: Box::new(tree),
        }),
        1 => Just(Record::SharesMoved { moved: vec![(0, u32::MAX)] }),
        1 => (key(), key(), text()).prop_map(|(from, key, handle)| Record::Rekeyed {
            from, key, handle: FileHandle { kind: 1, bytes: handle.into_bytes() },
        }),
        1 => Just(Record::Connected { client: IpAddr::V6(Ipv6Addr::LOCALHOST) }),
        1 => Just(Record::Disconnected),
    ]
}

fn happening() -> impl Strategy<Value = (ConnId, Record)> {
    let record = prop_oneof![
        4 => (0u64..4).prop_flat_map(about),
        4 => at_work(),
        2 => settled(),
    ];
    (CONNECTIONS, record)
}

/// Checks that no part of a connection takes more bytes of the log than its measured size.
fn check_parts(connection: &Connection) {
    for (id, open) in &connection.opens {
        assert!(to_bytes(&(id, open)).len() <= size::open(open), "{open:?}");
    }
    for (id, parked) in &connection.parked {
        assert!(to_bytes(&(id, parked)).len() <= size::parked(parked));
    }
    let mut frame = connection.clone();
    frame.opens.clear();
    frame.parked.clear();
    for (id, session) in &connection.sessions {
        if session.security.state != SessionState::Ended {
            assert!(to_bytes(&(id, session)).len() <= size::session(session));
            frame.sessions.remove(id);
        }
    }
    assert!(to_bytes(&frame).len() <= size::shell(&frame));
}

proptest! {
    #[test]
    fn what_is_accounted_is_no_less_than_what_the_log_takes(
        happenings in vec(happening(), 1..80),
    ) {
        let mut smb = Smb::new(config());
        for conn in CONNECTIONS {
            smb.apply(conn, &Record::Connected { client: IpAddr::V6(Ipv6Addr::LOCALHOST) });
        }
        for (conn, record) in happenings {
            smb.apply(conn, &record);
            let mut anew = Accounts::default();
            for (conn, connection) in &smb.connections {
                anew.add_all(*conn, connection);
            }
            prop_assert_eq!(&smb.accounts, &anew);
            let connection = smb.connection(conn);
            check_parts(connection);
            let encoded = to_bytes(&smb.checkpoint(conn).unwrap()).len();
            prop_assert!(encoded <= smb.durable_bytes(conn), "{encoded}");
        }
        for conn in CONNECTIONS {
            smb.forget(conn);
        }
        prop_assert_eq!(&smb.accounts, &Accounts::default());
    }
}

#[test]
fn one_account_has_half_and_the_next_half_of_the_rest() {
    let (alice, bob) = (1, 2);
    let mut accounts = Accounts::default();
    for (conn, name) in [(alice, "alice"), (bob, "bob")] {
        let own = Own {
            principal: Principal::User(name.into()),
            bytes: 0,
        };
        accounts.connections.insert(conn, own);
    }
    let mut fill = |conn| {
        let mut got = 0;
        while accounts.has_room(conn, 10, 1000) {
            let own = accounts.connections.get_mut(&conn).unwrap();
            own.bytes += 10;
            *accounts.accounts.entry(own.principal.clone()).or_default() += 10;
            accounts.total += 10;
            got += 10;
        }
        got
    };
    assert_eq!(fill(alice), 500);
    assert_eq!(fill(bob), 250);
}

#[test]
fn the_account_that_has_most_is_parted_with_first() {
    let mut limited = config();
    limited.limits.total.bytes = 20_000;
    let mut smb = Smb::new(limited);
    let login = |smb: &mut Smb, conn: ConnId, user: &str, name: usize| {
        let client = IpAddr::V6(Ipv6Addr::LOCALHOST);
        smb.apply(conn, &Record::Connected { client });
        let security = Security {
            state: SessionState::Valid,
            user: Some(user.to_owned()),
            ..Security::default()
        };
        let security = Box::new(security);
        smb.apply(conn, &Record::Session { id: conn, security });
        let tree = Box::new(Tree {
            resource: Resource::Ipc,
            name: "x".repeat(name),
            maximal_access: 0,
            encrypt: false,
            directory: 0,
        });
        let session = conn;
        smb.apply(
            conn,
            &Record::TreeConnected {
                session,
                id: 1,
                tree,
            },
        );
    };
    login(&mut smb, 1, "alice", 8_000);
    assert_eq!(smb.to_part_with(), None);
    // together more than hers, each less
    login(&mut smb, 2, "Bob", 5_000);
    login(&mut smb, 3, "bob", 6_000);
    let bob = Principal::User("bob".into());
    assert_eq!(smb.to_part_with(), Some((3, bob)));
    smb.apply(3, &Record::Disconnected);
    assert_eq!(smb.to_part_with(), None);
}

/// The opens of a client that has left are closed, too, if there is no room for them.
#[test]
fn opens_without_a_connection_are_parted_with() {
    let mut limited = config();
    limited.limits.total.bytes = 10_000;
    let mut smb = Smb::new(limited);
    let client = IpAddr::V6(Ipv6Addr::LOCALHOST);
    smb.apply(1, &Record::Connected { client });
    for id in 1..=2 {
        let file = FileOpen::new(FileKey::default(), "x".repeat(8_000), false);
        let open = Open {
            id,
            session: 1,
            tree: 1,
            actor: Actor {
                share: 0,
                user: None,
            },
            granted_access: 0,
            target: Target::File(file),
            channel_sequence: 0,
            closing: None,
            durable: Some(Durable {
                survival: Survival::Resilient,
                timeout: Duration::from_secs(300),
                holding: Holding::Connected,
            }),
            create: None,
        };
        smb.apply(1, &Record::Opened(Box::new(open)));
    }
    let mut journal = Records::default();
    smb.disconnected(1, &mut journal);
    assert_eq!(smb.to_part_with().map(|(conn, _)| conn), Some(1));
    smb.close_detached(1, &mut journal);
    assert_eq!(smb.to_part_with(), None, "they are being closed");
}
