//! Copies a connection while random records change it: the complete copy equals the state.

use super::*;
use crate::record::WorkId;
use crate::state::{Open, Parked, Security, Session, SessionState, Target, Wait, Work};
use crate::{Config, Dialect, Limits, Oplocks, Requirement};
use outlast_fsa::fileop::{Actor, FileKey, Times};
use outlast_fsa::locks::Lock;
use outlast_fsa::open::FileOpen;
use outlast_fsa::oplock::OplockLevel;
use outlast_fsa::status::NtStatus;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::net::{IpAddr, Ipv4Addr};

const CONN: ConnId = 1;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const KEY: FileKey = FileKey {
    dev: 1,
    ino: 2,
    birth_ns: 3,
};

/// An existing id: `pick` chooses among those of the state.
fn one(ids: impl ExactSizeIterator<Item = u64>, pick: u64) -> Option<u64> {
    let count = ids.len() as u64;
    ids.into_iter().nth((pick % count.max(1)) as usize)
}

fn open(id: OpenId, session: u64) -> Open {
    Open {
        id,
        session,
        tree: (id % 2) as u32,
        actor: Actor {
            share: 0,
            user: None,
        },
        granted_access: 0,
        target: Target::File(FileOpen::new(KEY, format!("file {id}"), false)),
        channel_sequence: 0,
        closing: None,
        durable: None,
        create: None,
    }
}

fn parked(id: u64, session: u64, open: Option<OpenId>) -> Parked {
    Parked {
        message: vec![id as u8; 10],
        work: Work {
            sealed: Some(session),
            ..Work::default()
        },
        message_id: id,
        session,
        tree: (id % 2) as u32,
        open,
        interim: false,
        wait: Wait::Lock(KEY),
        cancelled: None,
        running: false,
    }
}

/// A record that a server could write in this state; `None`: this kind is impossible now. `fresh` is an unused id.
fn record(state: &Connection, choice: u8, pick: u64, fresh: u64) -> Option<Record> {
    let open_id = one(state.opens.keys().copied(), pick);
    // An ended session gets no new tree connects.
    let valid = |session: &Session| session.security.state == SessionState::Valid;
    let sessions = state.sessions.iter().filter(|(_, of)| valid(of));
    let sessions: Vec<u64> = sessions.map(|(id, _)| *id).collect();
    let session = one(sessions.into_iter(), pick);
    let parked_id = one(state.parked.keys().copied(), pick);
    let is_working = state.work.is_some();
    let work = match (is_working, parked_id) {
        (true, _) if pick.is_multiple_of(2) => WorkId::Message,
        (_, Some(id)) => WorkId::Parked(id),
        (true, None) => WorkId::Message,
        (false, None) => return (choice < 8).then_some(Record::Begin),
    };
    Some(match choice {
        0 if !is_working => Record::Begin,
        1 => Record::Admitted {
            ids: vec![(state.credits.low, 1)],
            sealed: session,
        },
        2 => Record::Answered {
            work,
            answer: None,
            related: crate::state::Related::default(),
            credits: 1,
        },
        3 => Record::Done { work, credits: 2 },
        4 => Record::Parked {
            work,
            id: fresh,
            parked: Box::new(parked(fresh, session?, open_id)),
            credits: 1,
        },
        5 => Record::Running { id: parked_id? },
        6 => Record::Waiting {
            id: parked_id?,
            wait: Wait::Break(KEY),
        },
        7 => Record::Cancelled {
            id: parked_id?,
            status: NtStatus::CANCELLED,
        },
        8 => Record::Session {
            id: if pick.is_multiple_of(3) {
                session?
            } else {
                fresh
            },
            security: Box::new(Security {
                state: SessionState::Valid,
                user: Some(format!("user {pick}")),
                ..Security::default()
            }),
        },
        9 => Record::SessionEnded { id: session? },
        10 => Record::Nonce { session: session? },
        11 => Record::TreeConnected {
            session: session?,
            id: (pick % 2) as u32,
            tree: Box::new(crate::state::Tree {
                resource: crate::state::Resource::Disk(0),
                name: "share".into(),
                maximal_access: 0,
                encrypt: false,
                directory: 0,
            }),
        },
        12 => Record::TreeEnded {
            session: session?,
            id: (pick % 2) as u32,
        },
        13 | 14 => Record::Opened(Box::new(open(fresh, session?))),
        15 => Record::Closed { open: open_id? },
        16 => Record::Moved {
            open: open_id?,
            path: format!("moved {pick}"),
            directory: KEY,
        },
        17 => Record::Locked {
            open: open_id?,
            locks: vec![Lock {
                offset: pick,
                length: 1,
                exclusive: true,
            }],
        },
        18 => Record::Oplock {
            open: open_id?,
            level: OplockLevel::LevelII,
            breaking: None,
        },
        19 => Record::Crashed { work },
        20 if pick.is_multiple_of(8) => Record::Disconnected,
        21 => Record::SharesMoved {
            moved: vec![(0, 1)],
        },
        22 => Record::Stopped {
            open: open_id?,
            times: Times {
                write: pick.is_multiple_of(2),
                ..Times::default()
            },
        },
        23 => Record::ChannelSequence {
            open: open_id?,
            sequence: pick as u16,
        },
        _ => return None,
    })
}

/// A server and the copy of its connection.
struct Run {
    live: Smb,
    copy: Smb,
    cursor: Option<Cursor>,
    fresh: u64,
}

impl Run {
    fn new() -> Run {
        let config = Config {
            name: String::new(),
            guid: [0; 16],
            min_dialect: Dialect::Smb202,
            max_dialect: Dialect::Smb311,
            signing: Requirement::Enabled,
            encryption: Requirement::Enabled,
            oplocks: Oplocks::On,
            shares: Vec::new(),
            users: Vec::new(),
            limits: Limits::default(),
        };
        let mut run = Run {
            live: Smb::new(config.clone()),
            copy: Smb::new(config),
            cursor: None,
            fresh: 100,
        };
        run.put(Record::Connected { client: CLIENT });
        run
    }

    fn put(&mut self, record: Record) {
        self.live.apply(CONN, &record);
        self.copy.apply(CONN, &record);
    }

    fn begin(&mut self) {
        let begin = self.live.copy_begin(CONN).unwrap();
        self.copy.restore(CONN, begin);
        self.cursor = Some(Cursor::default());
    }

    /// Copies the next piece; `false`: the copy is complete.
    fn copy_piece(&mut self) -> bool {
        let mut cursor = self.cursor.unwrap();
        let piece = self.live.copy_next(CONN, &mut cursor);
        self.cursor = Some(cursor);
        let Some(piece) = piece else { return false };
        // The record changes nothing.
        let before = self.live.checkpoint(CONN);
        self.live.apply(CONN, &piece);
        assert_eq!(self.live.checkpoint(CONN), before);
        self.copy.apply(CONN, &piece);
        true
    }

    fn compare(&self) {
        assert_eq!(self.copy.checkpoint(CONN), self.live.checkpoint(CONN));
        assert_eq!(self.copy.files, self.live.files);
        assert_eq!(self.copy.accounts, self.live.accounts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(12),
        ..ProptestConfig::with_cases(3000)
    })]

    #[test]
    fn a_copy_that_records_come_between_is_the_state(
        before in proptest::collection::vec((0..24u8, any::<u64>()), 0..60),
        between in proptest::collection::vec((0..24u8, any::<u64>(), 0..3u8), 0..60),
        after in proptest::collection::vec((0..24u8, any::<u64>()), 0..20),
    ) {
        let mut run = Run::new();
        let step = |run: &mut Run, choice, pick| {
            run.fresh += 1;
            let state = run.live.checkpoint(CONN).unwrap().0;
            if let Some(record) = record(&state, choice, pick, run.fresh) {
                run.put(record);
            }
        };
        for (choice, pick) in before {
            step(&mut run, choice, pick);
        }
        run.begin();
        for (choice, pick, pieces) in between {
            step(&mut run, choice, pick);
            for _ in 0..pieces / 2 {
                run.copy_piece();
            }
        }
        while run.copy_piece() {}
        run.compare();
        for (choice, pick) in after {
            step(&mut run, choice, pick);
            run.compare();
        }
    }
}
