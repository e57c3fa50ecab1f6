//! Tests leases, with a crash at every point (MS-SMB2 3.3.4.7, 3.3.5.9.8, 3.3.5.22.2).

use super::client::{
    self, Ask, Client, Opening, Protection, Response, close, rename, set_delete, write,
};
use super::durable::{again, name_client};
use super::world::World;
use super::{statuses, sweep};
use crate::caching::MAX_LEASE_OPENS;
use crate::wire::Command;
use bytes::BufMut;
use outlast_fsa::status::NtStatus;
use std::time::Duration;

const R: u32 = 1;
const RH: u32 = 3;
const RWH: u32 = 7;

pub(super) fn acknowledge(key: u8, state: u32) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(36);
    body.put_bytes(0, 6);
    body.put_bytes(key, 16);
    body.put_u32_le(state);
    body.put_u64_le(0);
    Ask::new(Command::OPLOCK_BREAK, body)
}

/// State, flags and epoch of a CREATE response's lease.
pub(super) fn leased(response: &Response) -> (u32, u32, u16) {
    assert_eq!(response.oplock(), client::LEASE, "{response:?}");
    let at = response.body.windows(4).position(|name| name == b"RqLs");
    let data = &response.body[at.unwrap() + 8..];
    let number = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
    (number(16), number(20), number(48) as u16)
}

/// Key, from, to, whether it must be acknowledged, and the epoch of a notification.
pub(super) fn broken(response: &Response) -> (u8, u32, u32, bool, u16) {
    assert_eq!(response.header.message_id, u64::MAX);
    let body = &response.body;
    assert_eq!((body.len(), body[0]), (44, 44));
    let number = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
    (
        body[8],
        number(24),
        number(28),
        number(4) == 1,
        number(0).to_be_bytes()[1].into(),
    )
}

/// The only notification that a client has received.
pub(super) fn one_break(world: &mut World, client: &Client) -> (u8, u32, u32, bool, u16) {
    let got = world.received(client);
    assert_eq!(got.len(), 1, "{got:?}");
    broken(&got[0])
}

#[test]
fn a_lease_is_broken_and_the_second_open_waits() {
    for protection in [Protection::Plain, Protection::Encrypted] {
        sweep(|world| {
            let mut ann = world.client(protection);
            let mut bob = world.client(Protection::Signed);
            let opening = Opening::of("f");
            let first = world.one(&mut ann, opening.leasing(1, RWH, 10));
            assert_eq!(leased(&first), (RWH, 0, 11));
            // The open only accesses attributes, and breaks no lease.
            let look = Opening {
                access: client::LOOK,
                ..opening
            };
            assert_eq!(world.one(&mut bob, look.ask()).status(), NtStatus::SUCCESS);
            let interim = world.one(&mut bob, opening.leasing(2, RWH, 20));
            assert_eq!(interim.status(), NtStatus::PENDING);
            assert_eq!(one_break(world, &ann), (1, RWH, RH, true, 12));
            // Another open of the same lease is made meanwhile.
            let again = world.one(&mut ann, opening.leasing(1, RWH, 10));
            assert_eq!(leased(&again), (RWH, 2, 12));
            let too_much = world.one(&mut ann, acknowledge(1, RWH));
            assert_eq!(too_much.status(), NtStatus::REQUEST_NOT_ACCEPTED);
            let done = world.one(&mut ann, acknowledge(1, RH));
            assert_eq!(done.status(), NtStatus::SUCCESS);
            let opened = world.received(&bob);
            assert_eq!(leased(&opened[0]), (RH, 0, 21));
            let late = world.one(&mut ann, acknowledge(1, RH));
            assert_eq!(late.status(), NtStatus::UNSUCCESSFUL);
            let unknown = world.one(&mut ann, acknowledge(3, 0));
            assert_eq!(unknown.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
            // A write breaks the other leases, but not its own.
            world.one(&mut ann, write(first.open(), 0, b"x"));
            assert_eq!(one_break(world, &bob), (2, RH, 0, true, 22));
            assert!(world.received(&ann).is_empty());
        });
    }
}

#[test]
fn what_is_needed_during_a_break_is_asked_for_after_it() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let opening = Opening::of("f");
        world.one(&mut ann, opening.leasing(1, RWH, 0)).open();
        world.one(&mut bob, opening.ask());
        assert_eq!(one_break(world, &ann), (1, RWH, RH, true, 2));
        let replacing = Opening {
            disposition: client::OVERWRITE_IF,
            ..opening
        };
        world.one(&mut bob, replacing.ask());
        assert!(world.received(&ann).is_empty());
        let got = world.ask(&mut ann, &[acknowledge(1, RH)]);
        assert_eq!(broken(&got[0]), (1, RH, R, true, 2));
        assert_eq!(got[1].status(), NtStatus::SUCCESS);
        assert!(world.received(&bob).is_empty());
        let got = world.ask(&mut ann, &[acknowledge(1, R)]);
        assert_eq!(broken(&got[0]), (1, R, 0, false, 2));
        let opened = world.received(&bob);
        assert_eq!(statuses(&opened), [NtStatus::SUCCESS; 2]);
    });
}

#[test]
fn a_lease_belongs_to_the_client_and_not_to_a_connection() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut more = again(world, &ann);
        let mut bob = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let first = world.one(&mut ann, opening.leasing(1, R, 10));
        assert_eq!(leased(&first), (R, 0, 11));
        let second = world.one(&mut more, opening.leasing(1, RWH, 10));
        assert_eq!(leased(&second), (RWH, 0, 12));
        // The same key of another client is another lease, and a key belongs to one file.
        let other = Opening::of("g");
        let refused = world.one(&mut more, other.leasing(1, R, 0));
        assert_eq!(refused.status(), NtStatus::INVALID_PARAMETER);
        let theirs = world.one(&mut bob, other.leasing(1, R, 0));
        assert_eq!(leased(&theirs), (R, 0, 1));
        // After the end of the first connection the second one's open keeps the lease, and its connection receives the
        // break.
        world.disconnect(ann.conn);
        world.one(&mut bob, opening.ask());
        assert_eq!(one_break(world, &more), (1, RWH, RH, true, 13));
        world.one(&mut more, close(second.open()));
        let opened = world.received(&bob);
        assert_eq!(statuses(&opened), [NtStatus::SUCCESS]);
    });
}

/// 3.3.4.7: a ClientGuid is no secret, and the break of a lease concerns the lease's user alone.
#[test]
fn a_lease_break_is_not_sent_to_another_user_with_the_same_client_guid() {
    sweep(|world| {
        let mut other_user = world.client_of("bob", Protection::Plain);
        let mut ann = world.client(Protection::Plain);
        name_client(world, &ann, &other_user);
        let mut carol = world.client(Protection::Signed);
        let opening = Opening::of("f");
        let held = world.one(&mut ann, opening.leasing(1, RWH, 0)).open();
        world.one(&mut carol, opening.ask());
        assert!(world.received(&other_user).is_empty());
        assert_eq!(one_break(world, &ann), (1, RWH, RH, true, 2));
        // Nor does that user acknowledge it.
        let refused = world.one(&mut other_user, acknowledge(1, RH));
        assert_eq!(refused.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
        assert!(world.received(&carol).is_empty());
        world.one(&mut ann, close(held));
        assert_eq!(statuses(&world.received(&carol)), [NtStatus::SUCCESS]);
    });
}

#[test]
fn a_lease_whose_break_is_not_acknowledged_is_gone() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let opening = Opening::of("f");
        for _ in 0..2 {
            world.one(&mut ann, opening.leasing(1, RWH, 0)).open();
        }
        world.one(&mut bob, opening.ask());
        assert_eq!(one_break(world, &ann), (1, RWH, RH, true, 2));
        let deadline = world.smb.next_deadline().unwrap();
        assert_eq!(deadline, world.now + Duration::from_secs(35));
        world.pass(Duration::from_secs(36));
        let opened = world.received(&bob);
        assert_eq!(statuses(&opened), [NtStatus::SUCCESS]);
        assert_eq!(world.smb.next_deadline(), None);
        let late = world.one(&mut ann, acknowledge(1, RH));
        assert_eq!(late.status(), NtStatus::UNSUCCESSFUL);
        let state = world.one(&mut ann, opening.leasing(1, 0, 0));
        assert_eq!(leased(&state).0, 0);
    });
}

/// MS-FSA 2.1.4.12: a client that keeps a handle open only in its cache closes it, and the other open is admitted.
#[test]
fn handles_are_given_back_before_sharing_is_judged() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let alone = Opening {
            share: 0,
            ..Opening::of("f")
        };
        let first = world.one(&mut ann, alone.leasing(1, RH, 0)).open();
        world.one(&mut bob, alone.ask());
        assert_eq!(one_break(world, &ann), (1, RH, R, true, 2));
        world.one(&mut ann, close(first));
        assert_eq!(statuses(&world.received(&bob)), [NtStatus::SUCCESS]);
    });
}

#[test]
fn a_lease_has_a_bounded_number_of_opens() {
    let mut world = World::new(None);
    let mut config = super::config();
    config.limits.opens = MAX_LEASE_OPENS + 1;
    world.restart_with(config);
    let mut ann = world.client(Protection::Plain);
    for _ in 0..MAX_LEASE_OPENS {
        let opened = world.one(&mut ann, Opening::of("f").leasing(1, RH, 0));
        assert_eq!(leased(&opened).0, RH);
    }
    let further = world.one(&mut ann, Opening::of("f").leasing(1, RH, 0));
    assert_eq!((further.status(), further.oplock()), (NtStatus::SUCCESS, 0));
}

#[test]
fn a_rename_waits_for_the_handles_of_others() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let opening = Opening::of("f");
        world.one(&mut ann, opening.leasing(1, RH, 0)).open();
        let second = world.one(&mut bob, opening.leasing(2, RH, 0)).open();
        let interim = world.one(&mut bob, rename(second, "g", false));
        assert_eq!(interim.status(), NtStatus::PENDING);
        assert_eq!(one_break(world, &ann), (1, RH, R, true, 2));
        world.one(&mut ann, acknowledge(1, R));
        assert_eq!(statuses(&world.received(&bob)), [NtStatus::SUCCESS]);
    });
}

/// MS-FSA 2.1.5.15.3: a client that keeps a handle only for its next open gives it up, so that the file is deleted.
#[test]
fn a_deletion_asks_for_the_handles_of_others() {
    sweep(|world| {
        let mut bob = world.client(Protection::Signed);
        let opening = Opening::of("f");
        for deletes_on_close in [true, false] {
            let mut ann = world.client(Protection::Plain);
            let held = world.one(&mut ann, opening.leasing(1, RH, 0)).open();
            let deleting = Opening {
                options: if deletes_on_close {
                    client::DELETE_ON_CLOSE
                } else {
                    0
                },
                ..opening
            };
            let open = world.one(&mut bob, deleting.leasing(2, RH, 0)).open();
            assert!(world.received(&ann).is_empty());
            if !deletes_on_close {
                world.one(&mut bob, set_delete(open, true));
                assert_eq!(one_break(world, &ann), (1, RH, R, true, 2));
            }
            world.one(&mut bob, close(open));
            if deletes_on_close {
                assert_eq!(one_break(world, &ann), (1, RH, R, true, 2));
            }
            assert!(world.disk.exists("f"));
            world.one(&mut ann, close(held));
            assert!(!world.disk.exists("f"));
            assert!(world.received(&bob).is_empty());
        }
    });
}
