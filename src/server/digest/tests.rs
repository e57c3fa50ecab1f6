use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use outlast_smb::Record;
use outlast_stack::addressing::Acquired;
use proptest::prelude::*;

use super::*;
use crate::server::contents::no_service;

/// Connections, by their ids, with a number in their state.
type Connections = BTreeMap<u64, u32>;

fn global() -> Global {
    Global {
        clock_up_to: Duration::from_secs(7),
        ids_up_to: u64::MAX,
        secret: [1; 32],
        guid: [2; 16],
        watched_until: 3,
        roots: Vec::new(),
        accounts: Vec::new(),
        acquired: Acquired::default(),
        anchor: None,
    }
}

/// All digests of a state with these connections, which are made in this order.
fn digests<'a>(connections: impl Iterator<Item = (&'a u64, &'a u32)>) -> Vec<(Place, u64)> {
    let global = global();
    let stack = Stack::new(outlast_stack::Config::default(), [0; 32], Duration::ZERO);
    let mut smb = Smb::new(no_service());
    for (conn, says) in connections {
        let client = IpAddr::V4(Ipv4Addr::from(*says));
        smb.apply(*conn, &Record::Connected { client });
    }
    let state = State {
        stack: &stack,
        smb: &smb,
        global: &global,
    };
    let mut all = Vec::new();
    let mut next = Some(Place::START);
    while let Some(from) = next {
        let (digest, after) = state.digest(from);
        assert!(after.is_none_or(|after| after.object > from.object));
        all.push((from, digest));
        next = after;
    }
    all
}

fn connections() -> impl Strategy<Value = Connections> {
    prop::collection::btree_map(any::<u64>().prop_map(|id| id.max(1)), any::<u32>(), 1..6000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However a state was made, and whatever is different in another one.
    #[test]
    fn digests_are_the_same_just_if_the_states_are(
        connections in connections(),
        which in any::<prop::sample::Index>(),
        change in 0..3,
    ) {
        let all = digests(connections.iter());
        prop_assert_eq!(&all, &digests(connections.iter().rev()));
        let (conn, says) = connections.iter().nth(which.index(connections.len())).unwrap();
        let mut other = connections.clone();
        match change {
            0 => drop(other.remove(conn)),
            1 => drop(other.insert(*conn, says ^ 1)),
            _ => prop_assume!(other.insert(conn ^ (1 << 63) | 1, *says).is_none()),
        }
        prop_assert_ne!(&all, &digests(other.iter()));
    }
}

#[test]
fn a_digest_covers_a_part_of_a_large_state() {
    let many: Connections = (1..=20_000).map(|conn| (conn, 0)).collect();
    let all = digests(many.iter());
    assert!((3..100).contains(&all.len()), "{}", all.len());
    let few: Connections = (1..=20).map(|conn| (conn, 0)).collect();
    assert_eq!(digests(few.iter()).len(), 1);
}

#[test]
fn a_digest_continues_where_its_object_has_ended() {
    let global = global();
    let stack = Stack::new(outlast_stack::Config::default(), [0; 32], Duration::ZERO);
    let mut smb = Smb::new(no_service());
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for conn in [3, 9] {
        smb.apply(conn, &Record::Connected { client });
    }
    let digest = |from| {
        let state = State {
            stack: &stack,
            smb: &smb,
            global: &global,
        };
        state.digest(from).0
    };
    let inside = |object| Place {
        object,
        cursor: Cursor::Opens(Some(5)),
    };
    assert_eq!(digest(inside(4)), digest(Place::of(9)));
    assert_ne!(digest(inside(3)), digest(Place::of(3)));
    assert_eq!(digest(Place::of(10)), digest(Place::of(u64::MAX)));
}
