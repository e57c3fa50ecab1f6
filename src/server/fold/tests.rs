use super::*;
use crate::server::contents::no_service;
use crate::server::record::Ids;
use outlast_stack::addressing::Acquired;

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

fn snapshot(clock_up_to: Duration, ids_up_to: u64) -> (u64, Record<'static>, Bytes) {
    let global = Global {
        clock_up_to,
        ids_up_to,
        secret: [1; 32],
        guid: [2; 16],
        watched_until: 0,
        roots: Vec::new(),
        accounts: Vec::new(),
        acquired: Acquired::default(),
        anchor: None,
    };
    (GLOBAL, Record::Global(global), Bytes::new())
}

fn client(object: u64) -> (u64, Record<'static>, Bytes) {
    let client = Record::Client {
        tcp: None,
        smb: None,
    };
    (object, client, Bytes::new())
}

fn folded(replay: Replay) -> anyhow::Result<Folded> {
    let mut fold = Fold::new(outlast_stack::Config::default(), no_service());
    for (object, record, data) in replay {
        fold.take(object, record, data)?;
    }
    fold.finish(&mut Zeros)
}

fn refusal(replay: Replay) -> String {
    let refused = folded(replay).err();
    refused.expect("it cannot be").to_string()
}

#[test]
fn marks_do_not_step_back() {
    let second = Duration::from_secs(1);
    let replay = vec![
        snapshot(second * 2, 100),
        (GLOBAL, Record::IdsUpTo(6), Bytes::new()),
        (GLOBAL, Record::ClockUpTo(second), Bytes::new()),
        client(99),
    ];
    let Folded {
        global, clients, ..
    } = folded(replay).unwrap();
    assert_eq!((global.clock_up_to, global.ids_up_to), (second * 2, 100));
    assert_eq!(clients, BTreeSet::from([99]));
}

#[test]
fn an_account_is_what_the_name_service_answered_last() {
    let account = |name: &str, uid: Option<u32>| {
        let ids = uid.map(|uid| Ids {
            uid,
            gid: 100,
            groups: vec![100],
        });
        let name = name.to_owned();
        (GLOBAL, Record::Account { name, ids }, Bytes::new())
    };
    let replay = vec![
        snapshot(Duration::from_secs(1), 100),
        account("ann", Some(1)),
        account("bob", Some(2)),
        account("eve", Some(3)),
        account("ann", Some(4)),
        account("bob", None),
    ];
    let Folded { global, .. } = folded(replay).unwrap();
    let known = global.accounts.iter();
    let known: Vec<_> = known.map(|(name, ids)| (name.as_str(), ids.uid)).collect();
    assert_eq!(known, [("eve", 3), ("ann", 4)]);
}

#[test]
fn an_impossible_state_is_refused_with_the_remedy() {
    let second = Duration::from_secs(1);
    for replay in [
        vec![snapshot(Duration::MAX, 100)],
        vec![snapshot(second, u64::MAX)],
        vec![snapshot(second, 100), client(100)],
        vec![snapshot(second, 100), client(0)],
    ] {
        let line = refusal(replay);
        assert!(line.contains("remove it"), "{line}");
    }
}
