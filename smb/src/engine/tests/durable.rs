//! Tests durable handles, with a crash at every point (MS-SMB2 3.3.5.9.6 to 3.3.5.9.12).

use super::client::{
    self, Ask, Client, Opening, Protection, Response, close, empty, lock, read, write,
};
use super::world::World;
use super::{statuses, sweep};
use crate::record::Record;
use crate::state::Negotiation;
use crate::wire::Command;
use bytes::BufMut;
use outlast_fsa::status::NtStatus;
use std::time::Duration;

const EXCLUSIVE_LOCK: u32 = 2;
pub(super) const GUID: [u8; 16] = [9; 16];

/// Another connection of a client, of the same user.
pub(super) fn again(world: &mut World, of: &Client) -> Client {
    let client = world.client(of.protection);
    name_client(world, &client, of);
    client
}

/// A connection's client has the same ClientGuid as another one.
pub(super) fn name_client(world: &mut World, client: &Client, of: &Client) {
    let mut connections = world.smb.durable();
    let (_, connection) = connections.find(|(conn, _)| *conn == client.conn).unwrap();
    let negotiation = Negotiation {
        client_guid: [of.conn as u8; 16],
        ..connection.negotiation.clone()
    };
    drop(connections);
    world.record(client.conn, Record::Negotiated(Box::new(negotiation)));
}

pub(super) fn file_id(open: u64) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_u64_le(open);
    data.put_u64_le(open);
    data
}

pub(super) fn first(opening: Opening<'_>) -> Ask {
    opening.durable(b"DHnQ", &[0; 16])
}

pub(super) fn reconnect(opening: Opening<'_>, open: u64) -> Ask {
    opening.durable(b"DHnC", &file_id(open))
}

pub(super) fn request_v2(timeout_ms: u32) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_u32_le(timeout_ms);
    data.put_bytes(0, 12);
    data.put_slice(&GUID);
    data
}

fn first_v2(opening: Opening<'_>, timeout_ms: u32) -> Ask {
    opening.durable(b"DH2Q", &request_v2(timeout_ms))
}

pub(super) fn reconnect_v2(opening: Opening<'_>, open: u64, guid: [u8; 16]) -> Ask {
    let mut data = file_id(open);
    data.put_slice(&guid);
    data.put_u32_le(0);
    opening.durable(b"DH2C", &data)
}

/// The data of a context of a CREATE response.
pub(super) fn context<'a>(response: &'a Response, name: &[u8; 4]) -> Option<&'a [u8]> {
    let at = response.body.windows(4).position(|bytes| bytes == name)?;
    Some(&response.body[at + 8..])
}

#[test]
fn an_open_outlives_its_connection_and_is_reconnected() {
    for protection in [Protection::Signed, Protection::Encrypted] {
        sweep(|world| {
            let mut ann = world.client(protection);
            let opening = Opening {
                share: 0,
                ..Opening::of("f")
            };
            let made = world.one(&mut ann, first(opening));
            let open = made.open();
            assert!(context(&made, b"DHnQ").is_some());
            world.one(&mut ann, write(open, 0, b"hello"));
            world.one(&mut ann, lock(open, &[(0, 1, EXCLUSIVE_LOCK)]));
            let mut later = again(world, &ann);
            let early = world.one(&mut later, reconnect(opening, open));
            assert_eq!(
                early.status(),
                NtStatus::OBJECT_NAME_NOT_FOUND,
                "it is in use"
            );
            world.disconnect(ann.conn);
            assert!(!world.smb.drop_ready(ann.conn));
            world.pass(Duration::from_secs(15 * 60));
            let back = world.one(&mut later, reconnect(opening, open));
            assert_eq!((back.open(), back.oplock()), (open, client::BATCH));
            assert!(context(&back, b"DHnQ").is_none());
            assert!(world.smb.drop_ready(ann.conn));
            let got = world.one(&mut later, read(open, 0, 9));
            assert_eq!(got.data(), b"hello");
            let unlocked = world.one(&mut later, lock(open, &[(0, 1, 4)]));
            assert_eq!(unlocked.status(), NtStatus::SUCCESS);
            world.one(&mut later, close(open));
            let late = world.one(&mut later, reconnect(opening, open));
            assert_eq!(late.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
        });
    }
}

#[test]
fn only_its_own_client_takes_an_open_up() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let open = world.one(&mut ann, first_v2(opening, 300_000)).open();
        world.disconnect(ann.conn);
        let mut bob = world.client_of("bob", Protection::Signed);
        let theirs = world.one(&mut bob, reconnect_v2(opening, open, GUID));
        assert_eq!(theirs.status(), NtStatus::ACCESS_DENIED);
        let mut later = again(world, &ann);
        for ask in [
            reconnect_v2(opening, open, [1; 16]),
            reconnect_v2(opening, open + 1, GUID),
        ] {
            let refused = world.one(&mut later, ask);
            assert_eq!(refused.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        let back = world.one(&mut later, reconnect_v2(opening, open, GUID));
        assert_eq!(back.open(), open);
    });
}

/// 3.3.5.9, 3.3.5.9.12: the CreateGuid of an open of version 1 is zero.
#[test]
fn an_open_of_version_1_is_reconnected_by_version_2_without_a_create_guid() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let open = world.one(&mut ann, first(opening)).open();
        world.disconnect(ann.conn);
        let mut later = again(world, &ann);
        let refused = world.one(&mut later, reconnect_v2(opening, open, GUID));
        assert_eq!(refused.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
        let back = world.one(&mut later, reconnect_v2(opening, open, [0; 16]));
        assert_eq!((back.open(), back.oplock()), (open, client::BATCH));
    });
}

#[test]
fn an_open_that_nobody_takes_up_is_closed() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let made = world.one(&mut ann, first_v2(Opening::of("f"), 70_000));
        let data = context(&made, b"DH2Q").unwrap();
        assert_eq!(data[..4], 70_000u32.to_le_bytes());
        world.disconnect(ann.conn);
        let deadline = world.smb.next_deadline().unwrap();
        assert_eq!(deadline, world.now + Duration::from_secs(70));
        world.pass(Duration::from_secs(69));
        assert!(!world.smb.drop_ready(ann.conn));
        world.pass(Duration::from_secs(2));
        assert!(world.smb.drop_ready(ann.conn));
        assert_eq!(world.smb.next_deadline(), None);
    });
}

#[test]
fn an_open_without_its_client_gives_way() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client(Protection::Plain);
        let alone = Opening {
            share: 0,
            ..Opening::of("f")
        };
        world.one(&mut ann, first(alone)).open();
        world.disconnect(ann.conn);
        let mut responses = world.ask(&mut bob, &[alone.ask()]);
        responses.extend(world.received(&bob));
        assert_eq!(responses.last().unwrap().status(), NtStatus::SUCCESS);
        assert!(world.smb.drop_ready(ann.conn));
    });
}

/// 3.3.5.6: a durable open survives the LOGOFF of its session; the reconnect context contains only the FileId.
#[test]
fn an_open_outlives_a_log_off() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let open = world.one(&mut ann, first_v2(opening, 0)).open();
        let other = world.one(&mut ann, Opening::of("g").ask()).open();
        let done = world.one(&mut ann, empty(Command::LOGOFF));
        assert_eq!(done.status(), NtStatus::SUCCESS);
        let opens: Vec<u64> = world.smb.opens().map(|open| open.open).collect();
        assert_eq!(opens, [open], "{other} is closed");
        let mut later = again(world, &ann);
        let nonsense = Opening {
            name: "elsewhere",
            access: 0x1234_5678,
            share: 0x1234_5678,
            disposition: 0x1234_5678,
            options: 0x1234_5678,
            oplock: 0x78,
        };
        let back = world.one(&mut later, reconnect(nonsense, open));
        assert_eq!((back.open(), back.oplock()), (open, client::BATCH));
    });
}

/// 3.3.5.2.10: the CREATE that is sent again still waits for a break.
#[test]
fn a_create_that_waits_is_not_available_to_its_replay() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client(Protection::Signed);
        let mut opening = Opening::of("f");
        opening.oplock = client::BATCH;
        let held = world.one(&mut bob, opening.ask()).open();
        let interim = world.one(&mut ann, first_v2(opening, 0));
        assert_eq!(interim.status(), NtStatus::PENDING);
        let replayed = world.one(&mut ann, first_v2(opening, 0).replayed());
        assert_eq!(replayed.status(), NtStatus::FILE_NOT_AVAILABLE);
        world.received(&bob);
        world.one(&mut bob, close(held));
        let made = world.received(&ann);
        let replayed = world.one(&mut ann, first_v2(opening, 0).replayed());
        assert_eq!(replayed.open(), made[0].open());
    });
}

/// Without a batch oplock or a lease with HANDLE caching no break could be sent; a delete-pending file is deleted when
/// its last open ends.
#[test]
fn what_is_not_durable_ends_with_its_connection() {
    sweep(|world| {
        let opening = Opening::of("f");
        let mut shared = opening;
        shared.oplock = client::LEVEL_II;
        let deleting = Opening {
            options: client::DELETE_ON_CLOSE,
            ..Opening::of("g")
        };
        let asks = [
            shared.with_contexts(&[(b"DHnQ", &[0; 16])]),
            first(deleting),
        ];
        for ask in asks {
            let mut ann = world.client(Protection::Signed);
            world.one(&mut ann, ask).open();
            world.disconnect(ann.conn);
            assert!(world.smb.drop_ready(ann.conn));
        }
        assert!(world.disk.exists("f") && !world.disk.exists("g"));
    });
}

/// 3.3.5.9.10: the client has not received the response, and sends the CREATE again.
#[test]
fn a_create_that_is_sent_again_makes_no_second_open() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let made = world.one(&mut ann, first_v2(opening, 0));
        let twice = world.one(&mut ann, first_v2(opening, 0));
        assert_eq!(twice.status(), NtStatus::DUPLICATE_OBJECTID);
        let replayed = world.one(&mut ann, first_v2(opening, 0).replayed());
        assert_eq!(replayed.body, made.body);
        world.disconnect(ann.conn);
        let mut later = again(world, &ann);
        let replayed = world.one(&mut later, first_v2(opening, 0).replayed());
        assert_eq!(replayed.open(), made.open());
        assert_eq!(statuses(&[replayed]), [NtStatus::SUCCESS]);
        // After the close the same CreateGuid makes a new open.
        world.one(&mut later, close(made.open()));
        let new = world.one(&mut later, first_v2(opening, 0));
        assert_ne!(new.open(), made.open());
    });
}

/// 3.3.5.9.10: the CreateGuid is remembered of an open that is not durable, too.
#[test]
fn a_create_that_is_not_durable_is_replayed() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut opening = Opening::of("f");
        opening.share = 0;
        let asked = |opening: Opening<'_>| opening.with_contexts(&[(b"DH2Q", &request_v2(0))]);
        let made = world.one(&mut ann, asked(opening));
        assert!(context(&made, b"DH2Q").is_none());
        let twice = world.one(&mut ann, asked(opening));
        assert_eq!(twice.status(), NtStatus::DUPLICATE_OBJECTID);
        let replayed = world.one(&mut ann, asked(opening).replayed());
        assert_eq!(replayed.body, made.body);
    });
}

/// 3.3.1.10, IsReplayEligible: a client that names the open has seen the response.
#[test]
fn a_create_whose_open_has_been_named_is_not_replayed() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let made = world.one(&mut ann, first_v2(opening, 0)).open();
        world.one(&mut ann, write(made, 0, b"x"));
        let got = world.ask(&mut ann, &[first_v2(opening, 0).replayed()]);
        assert_eq!(got[0].header.command, Command::OPLOCK_BREAK);
        assert_eq!(got[1].status(), NtStatus::PENDING);
    });
}

/// A replay that asks for no oplock is answered without one, and without a durable handle; the open keeps both.
#[test]
fn a_replay_is_answered_with_no_more_than_it_asks_for() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut opening = Opening::of("f");
        let made = world.one(&mut ann, first_v2(opening, 0)).open();
        opening.oplock = 0;
        let asked = opening.with_contexts(&[(b"DH2Q", &request_v2(0))]);
        let replayed = world.one(&mut ann, asked.replayed());
        assert_eq!((replayed.open(), replayed.oplock()), (made, 0));
        assert!(context(&replayed, b"DH2Q").is_none());
        world.disconnect(ann.conn);
        let mut later = again(world, &ann);
        let back = world.one(&mut later, reconnect_v2(opening, made, GUID));
        assert_eq!((back.open(), back.oplock()), (made, client::BATCH));
    });
}

#[test]
fn a_lease_is_reconnected_with_its_open() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut opening = Opening::of("f");
        opening.oplock = client::LEASE;
        let lease = |state: u32| {
            let mut data = vec![1; 16];
            data.put_u32_le(state);
            data.put_bytes(0, 12 + 20);
            data
        };
        let asked = lease(7);
        let made = opening.with_contexts(&[(b"RqLs", &asked), (b"DHnQ", &[0; 16])]);
        let open = world.one(&mut ann, made).open();
        world.disconnect(ann.conn);
        let mut later = again(world, &ann);
        let without = world.one(&mut later, reconnect(opening, open));
        assert_eq!(without.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
        let elsewhere = Opening {
            name: "g",
            ..opening
        };
        let back = [(b"RqLs", asked.as_slice()), (b"DHnC", &file_id(open))];
        let misnamed = world.one(&mut later, elsewhere.with_contexts(&back));
        assert_eq!(misnamed.status(), NtStatus::INVALID_PARAMETER);
        let taken = world.one(&mut later, opening.with_contexts(&back));
        assert_eq!((taken.open(), taken.oplock()), (open, client::LEASE));
        let state = context(&taken, b"RqLs").unwrap();
        assert_eq!(state[16..20], 7u32.to_le_bytes());
    });
}
