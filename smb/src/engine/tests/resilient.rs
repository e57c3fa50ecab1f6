//! Tests resilient and persistent handles, with a crash at every point (MS-SMB2 3.3.5.15.9, 3.3.5.9.10, 3.3.5.9.12).

use super::client::{self, Ask, Client, Opening, Protection, Response, close, ioctl, lock};
use super::durable::{GUID, again, context, file_id, first, reconnect, reconnect_v2, request_v2};
use super::sweep;
use super::world::World;
use crate::ioctl::code;
use bytes::BufMut;
use outlast_fsa::status::NtStatus;
use std::time::Duration;

const EXCLUSIVE_LOCK: u32 = 2;
/// SMB2_DHANDLE_FLAG_PERSISTENT.
const PERSISTENT: u32 = 2;
/// SMB2_SHARE_CAP_CONTINUOUS_AVAILABILITY.
const SHARE_CAP: u32 = 0x10;

fn request_resiliency(open: u64, timeout_ms: u32) -> Ask {
    let mut input = Vec::new();
    input.put_u32_le(timeout_ms);
    input.put_u32_le(0);
    ioctl(code::LMR_REQUEST_RESILIENCY, open, &input)
}

/// A CREATE that requests a persistent handle.
fn first_persistent(opening: Opening<'_>) -> Ask {
    opening.with_contexts(&[(b"DH2Q", &persistent_request())])
}

fn persistent_request() -> Vec<u8> {
    let mut data = request_v2(0);
    data[4..8].copy_from_slice(&PERSISTENT.to_le_bytes());
    data
}

fn persistent_reconnect(open: u64) -> Vec<u8> {
    let mut data = file_id(open);
    data.put_slice(&GUID);
    data.put_u32_le(PERSISTENT);
    data
}

/// Another client opens the file, which is the last thing that it does before it waits.
fn open_and_wait(world: &mut World, bob: &mut Client) {
    let interim = world.one(bob, Opening::of("f").ask());
    assert_eq!(interim.status(), NtStatus::PENDING);
}

/// Ann's connection ends while she has a resilient open with an oplock, for whose break Bob waits. Returns both
/// clients, and the open.
fn lose_an_oplock(world: &mut World) -> (Client, Client, u64) {
    let mut ann = world.client(Protection::Signed);
    let mut bob = world.client_of("bob", Protection::Signed);
    let open = world.one(&mut ann, first(Opening::of("f"))).open();
    world.one(&mut ann, request_resiliency(open, 0));
    world.disconnect(ann.conn);
    open_and_wait(world, &mut bob);
    (ann, bob, open)
}

/// The response to the CREATE that waited.
fn opened(world: &mut World, bob: &Client) -> Response {
    let mut responses = world.received(bob);
    assert_eq!(responses.len(), 1);
    responses.remove(0)
}

#[test]
fn a_resilient_open_is_kept_whatever_others_do() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client_of("bob", Protection::Signed);
        let alone = Opening {
            share: 0,
            ..Opening::of("f")
        };
        let open = world.one(&mut ann, alone.ask()).open();
        let done = world.one(&mut ann, request_resiliency(open, 200_000));
        assert_eq!(done.status(), NtStatus::SUCCESS);
        world.one(&mut ann, lock(open, &[(0, 1, EXCLUSIVE_LOCK)]));
        world.disconnect(ann.conn);
        let refused = world.one(&mut bob, Opening::of("f").ask());
        assert_eq!(refused.status(), NtStatus::SHARING_VIOLATION);
        let mut later = again(world, &ann);
        let back = world.one(&mut later, reconnect(Opening::of("f"), open));
        assert_eq!(back.open(), open);
        let unlocked = world.one(&mut later, lock(open, &[(0, 1, 4)]));
        assert_eq!(unlocked.status(), NtStatus::SUCCESS);
        // Without its client it is closed in the end.
        world.disconnect(later.conn);
        world.pass(Duration::from_secs(199));
        let refused = world.one(&mut bob, Opening::of("f").ask());
        assert_eq!(refused.status(), NtStatus::SHARING_VIOLATION);
        world.pass(Duration::from_secs(2));
        assert!(world.smb.drop_ready(later.conn));
        assert_eq!(
            world.one(&mut bob, Opening::of("f").ask()).status(),
            NtStatus::SUCCESS
        );
    });
}

#[test]
fn the_timeout_of_resiliency_is_limited_and_has_a_default() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let open = world.one(&mut ann, Opening::of("f").ask()).open();
        let refused = world.one(&mut ann, request_resiliency(open, 300_001));
        assert_eq!(refused.status(), NtStatus::INVALID_PARAMETER);
        let short = world.one(&mut ann, ioctl(code::LMR_REQUEST_RESILIENCY, open, &[0; 7]));
        assert_eq!(short.status(), NtStatus::INVALID_PARAMETER);
        world.one(&mut ann, request_resiliency(open, 0));
        world.disconnect(ann.conn);
        let deadline = world.smb.next_deadline().unwrap();
        assert_eq!(deadline, world.now + Duration::from_secs(120));
    });
}

#[test]
fn a_persistent_open_needs_no_caching_but_a_share_that_is_always_available() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let made = world.one(&mut ann, first_persistent(opening));
        let data = context(&made, b"DH2Q").unwrap();
        assert_eq!(data[4..8], PERSISTENT.to_le_bytes());
        let open = made.open();
        world.disconnect(ann.conn);
        let mut later = again(world, &ann);
        for ask in [reconnect(opening, open), reconnect_v2(opening, open, GUID)] {
            let refused = world.one(&mut later, ask);
            assert_eq!(refused.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        let contexts = [(b"DH2C", persistent_reconnect(open))];
        let contexts = contexts.each_ref().map(|(name, data)| (*name, &data[..]));
        let back = world.one(&mut later, opening.with_contexts(&contexts));
        assert_eq!(back.open(), open);
        world.one(&mut later, close(open));

        let connected = world.one(&mut later, client::tree_connect("pub"));
        assert_eq!(connected.body[8..12], SHARE_CAP.to_le_bytes());
        let connected = world.one(&mut later, client::tree_connect("ro"));
        assert_eq!(connected.body[8..12], [0; 4]);
        later.tree = connected.header.tree_id();
        let read_only = Opening {
            access: 1,
            disposition: 1,
            ..opening
        };
        let plain = world.one(&mut later, first_persistent(read_only));
        assert_eq!(plain.status(), NtStatus::SUCCESS);
        assert!(context(&plain, b"DH2Q").is_none());
    });
}

#[test]
fn the_break_of_a_lost_oplock_is_acknowledged_by_the_reconnect() {
    sweep(|world| {
        let (ann, bob, open) = lose_an_oplock(world);
        let mut later = again(world, &ann);
        let back = world.one(&mut later, reconnect(Opening::of("f"), open));
        assert_eq!((back.open(), back.oplock()), (open, client::LEVEL_II));
        assert_eq!(opened(world, &bob).status(), NtStatus::SUCCESS);
    });
}

#[test]
fn the_break_of_a_lost_oplock_ends_in_time() {
    sweep(|world| {
        let (ann, bob, open) = lose_an_oplock(world);
        world.pass(Duration::from_secs(36));
        assert_eq!(opened(world, &bob).status(), NtStatus::SUCCESS);
        let mut later = again(world, &ann);
        let back = world.one(&mut later, reconnect(Opening::of("f"), open));
        assert_eq!((back.open(), back.oplock()), (open, 0));
    });
}

#[test]
fn the_break_of_a_lost_lease_is_acknowledged_by_the_reconnect() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client_of("bob", Protection::Signed);
        let opening = Opening {
            oplock: client::LEASE,
            ..Opening::of("f")
        };
        let mut lease = vec![1; 16];
        lease.put_u32_le(7);
        lease.put_bytes(0, 12);
        let asked = persistent_request();
        let made = opening.with_contexts(&[(b"RqLs", &lease), (b"DH2Q", &asked)]);
        let open = world.one(&mut ann, made).open();
        world.disconnect(ann.conn);
        open_and_wait(world, &mut bob);
        let mut later = again(world, &ann);
        let data = persistent_reconnect(open);
        let back = opening.with_contexts(&[(b"RqLs", &lease), (b"DH2C", &data)]);
        let back = world.one(&mut later, back);
        assert_eq!((back.open(), back.oplock()), (open, client::LEASE));
        let state = context(&back, b"RqLs").unwrap();
        assert_eq!(state[16..20], 3u32.to_le_bytes(), "READ and HANDLE");
        assert_eq!(opened(world, &bob).status(), NtStatus::SUCCESS);
    });
}
