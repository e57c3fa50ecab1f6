//! Tests waiting requests (locks, breaks, CHANGE_NOTIFY) and their ends.

use super::client::{
    self, ANY, EXCLUSIVE_LOCK, NOW, Opening, Protection, SHARED, UNLOCK, acknowledge, close, empty,
    lock, notify, read, write,
};
use super::world::{World, config};
use super::{statuses, sweep};
use crate::record::{Record, WorkId};
use crate::state::{Connection, Parked, Wait, Work};
use crate::wire::Command;
use crate::{Config, Oplocks};
use outlast_fsa::fileop::{Change, ChangeKind};
use outlast_fsa::notify::{action, filter};
use outlast_fsa::status::NtStatus;
use std::time::Duration;

#[test]
fn locks_are_granted_together_or_not_at_all() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let a = world.one(&mut ann, Opening::of("f").ask()).open();
        let b = world.one(&mut bob, Opening::of("f").ask()).open();
        world.one(&mut ann, write(a, 0, b"0123456789"));
        let ok = |response: client::Response| assert_eq!(response.status(), NtStatus::SUCCESS);
        ok(world.one(
            &mut ann,
            lock(a, &[(0, 2, EXCLUSIVE_LOCK | NOW), (4, 2, SHARED | NOW)]),
        ));
        let both = lock(b, &[(8, 1, EXCLUSIVE_LOCK | NOW), (1, 1, SHARED | NOW)]);
        assert_eq!(
            world.one(&mut bob, both).status(),
            NtStatus::LOCK_NOT_GRANTED
        );
        assert_eq!(world.smb.status(bob.conn).locks, 0);
        ok(world.one(&mut bob, lock(b, &[(4, 1, SHARED | NOW)])));
        assert_eq!(
            world.one(&mut bob, read(b, 1, 1)).status(),
            NtStatus::FILE_LOCK_CONFLICT
        );
        assert_eq!(
            world.one(&mut bob, write(b, 5, b"x")).status(),
            NtStatus::FILE_LOCK_CONFLICT
        );
        ok(world.one(&mut bob, read(b, 2, 4)));
        ok(world.one(&mut ann, write(a, 0, b"y")));
        let unlock = lock(a, &[(0, 2, UNLOCK), (4, 1, UNLOCK)]);
        assert_eq!(
            world.one(&mut ann, unlock).status(),
            NtStatus::RANGE_NOT_LOCKED
        );
        ok(world.one(&mut bob, read(b, 1, 1)));
        let waits = lock(a, &[(0, 1, EXCLUSIVE_LOCK), (7, 1, EXCLUSIVE_LOCK)]);
        assert_eq!(
            world.one(&mut ann, waits).status(),
            NtStatus::INVALID_PARAMETER
        );
        let beyond = lock(a, &[(u64::MAX, 2, SHARED)]);
        assert_eq!(
            world.one(&mut ann, beyond).status(),
            NtStatus::INVALID_LOCK_RANGE
        );
    });
}

#[test]
fn a_lock_waits_for_its_turn() {
    for protection in [Protection::Plain, Protection::Signed, Protection::Encrypted] {
        sweep(|world| {
            let mut ann = world.client(Protection::Plain);
            let mut bob = world.client(protection);
            let mut eve = world.client(Protection::Plain);
            let a = world.one(&mut ann, Opening::of("f").ask()).open();
            let b = world.one(&mut bob, Opening::of("f").ask()).open();
            let e = world.one(&mut eve, Opening::of("f").ask()).open();
            world.one(&mut ann, lock(a, &[(0, 9, EXCLUSIVE_LOCK)]));
            let interim = world.one(&mut eve, lock(e, &[(1, 2, EXCLUSIVE_LOCK)]));
            assert_eq!(interim.status(), NtStatus::PENDING);
            let eves = interim.async_id();
            let interim = world.one(&mut bob, lock(b, &[(2, 2, EXCLUSIVE_LOCK)]));
            assert_eq!(interim.status(), NtStatus::PENDING);
            let bobs = interim.async_id();
            assert_eq!(
                world.one(&mut ann, lock(a, &[(0, 9, UNLOCK)])).status(),
                NtStatus::SUCCESS
            );
            // In the order of arrival.
            let granted = world.received(&eve);
            assert_eq!(statuses(&granted), [NtStatus::SUCCESS]);
            assert_eq!(
                (granted[0].async_id(), granted[0].header.credits),
                (eves, 0)
            );
            assert!(world.received(&bob).is_empty());
            assert_eq!(world.one(&mut eve, close(e)).status(), NtStatus::SUCCESS);
            let granted = world.received(&bob);
            assert_eq!(statuses(&granted), [NtStatus::SUCCESS]);
            assert_eq!(granted[0].async_id(), bobs);
        });
    }
}

#[test]
fn a_waiting_lock_is_cancelled_by_either_id_or_by_its_close() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let a = world.one(&mut ann, Opening::of("f").ask()).open();
        let b = world.one(&mut bob, Opening::of("f").ask()).open();
        world.one(&mut ann, lock(a, &[(0, 9, EXCLUSIVE_LOCK)]));
        let waiting = lock(b, &[(0, 1, SHARED)]);
        let interim = world.one(&mut bob, waiting.clone());
        let mut cancel = empty(Command::CANCEL);
        cancel.async_id = Some(interim.async_id());
        cancel.message_id = Some(0);
        assert_eq!(
            statuses(&world.ask(&mut bob, &[cancel])),
            [NtStatus::CANCELLED]
        );
        let interim = world.one(&mut bob, waiting.clone());
        let mut cancel = empty(Command::CANCEL);
        cancel.message_id = Some(interim.header.message_id);
        assert_eq!(
            statuses(&world.ask(&mut bob, &[cancel])),
            [NtStatus::CANCELLED]
        );
        world.one(&mut bob, waiting);
        let responses = world.ask(&mut bob, &[close(b)]);
        assert_eq!(
            statuses(&responses),
            [NtStatus::SUCCESS, NtStatus::RANGE_NOT_LOCKED]
        );
        let none = empty(Command::CANCEL);
        assert!(
            world
                .ask(
                    &mut bob,
                    &[client::Ask {
                        message_id: Some(999),
                        ..none
                    }]
                )
                .is_empty()
        );
    });
}

#[test]
fn not_too_many_wait() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    let mut bob = world.client(Protection::Plain);
    let a = world.one(&mut ann, Opening::of("f").ask()).open();
    let b = world.one(&mut bob, Opening::of("f").ask()).open();
    world.one(&mut ann, lock(a, &[(0, 9, EXCLUSIVE_LOCK)]));
    for _ in 0..4 {
        assert_eq!(
            world.one(&mut bob, lock(b, &[(0, 1, SHARED)])).status(),
            NtStatus::PENDING
        );
    }
    let refused = world.one(&mut bob, lock(b, &[(0, 1, SHARED)]));
    assert_eq!(refused.status(), NtStatus::INSUFFICIENT_RESOURCES);
}

#[test]
fn a_batch_oplock_is_broken_and_the_second_open_waits() {
    for protection in [Protection::Plain, Protection::Encrypted] {
        sweep(|world| {
            let mut ann = world.client(protection);
            let mut bob = world.client(Protection::Signed);
            let mut opening = Opening::of("f");
            opening.oplock = client::BATCH;
            let first = world.one(&mut ann, opening.ask());
            assert_eq!(first.oplock(), client::BATCH);
            let look = Opening {
                access: client::LOOK,
                oplock: 0,
                ..opening
            };
            assert_eq!(world.one(&mut bob, look.ask()).status(), NtStatus::SUCCESS);
            // A CREATE that is not the last request of its message delays the rest, and waits without an interim
            // response.
            let asks = [
                opening.ask(),
                read(ANY, 0, 1).related(),
                close(ANY).related(),
            ];
            assert!(world.ask(&mut bob, &asks).is_empty());
            let broken = world.received(&ann);
            assert_eq!(broken[0].header.command, Command::OPLOCK_BREAK);
            assert_eq!((broken.len(), broken[0].oplock()), (1, client::LEVEL_II));
            let open = first.open();
            let done = world.one(&mut ann, acknowledge(open, client::LEVEL_II));
            assert_eq!(done.status(), NtStatus::SUCCESS);
            let responses = world.received(&bob);
            assert_eq!(
                statuses(&responses),
                [NtStatus::SUCCESS, NtStatus::END_OF_FILE, NtStatus::SUCCESS]
            );
            assert_eq!(responses[0].oplock(), client::LEVEL_II);
            let again = world.one(&mut ann, acknowledge(open, 0));
            assert_eq!(again.status(), NtStatus::INVALID_OPLOCK_PROTOCOL);
            // A write by another client breaks level II, without an acknowledgment.
            let second = world.one(&mut bob, Opening::of("f").ask()).open();
            world.one(&mut bob, write(second, 0, b"x"));
            let broken = world.received(&ann);
            assert_eq!((broken.len(), broken[0].oplock()), (1, 0));
        });
    }
}

/// MS-FSA 2.1.4.12: level II ends with a change or a lock, also one by its holder.
#[test]
fn the_holders_own_write_or_lock_ends_its_level_two() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut opening = Opening::of("f");
        opening.oplock = client::LEVEL_II;
        for change in [true, false] {
            let first = world.one(&mut ann, opening.ask());
            assert_eq!(first.oplock(), client::LEVEL_II);
            let open = first.open();
            let ask = match change {
                true => write(open, 0, b"x"),
                false => lock(open, &[(0, 1, EXCLUSIVE_LOCK)]),
            };
            let got = world.ask(&mut ann, &[ask]);
            assert_eq!(got[0].header.command, Command::OPLOCK_BREAK);
            assert_eq!((got.len(), got[0].oplock()), (2, 0));
            world.one(&mut ann, close(open));
        }
    });
}

#[test]
fn an_open_that_only_looks_has_an_oplock_if_it_has_made_or_emptied_the_file() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let looking = |disposition| Opening {
            access: client::LOOK,
            oplock: client::BATCH,
            disposition,
            ..Opening::of("f")
        };
        let made = world.one(&mut ann, looking(client::CREATE).ask());
        assert_eq!(made.oplock(), client::BATCH);
        let looks = world.one(&mut ann, looking(client::OPEN).ask());
        assert_eq!(looks.oplock(), 0);
        world.one(&mut ann, close(made.open()));
        let emptied = world.one(&mut ann, looking(client::OVERWRITE_IF).ask());
        assert_eq!(emptied.oplock(), client::BATCH);
    });
}

#[test]
fn the_configuration_can_refuse_oplocks_and_leases() {
    for (oplocks, granted, leased) in [
        (Oplocks::Off, 0, 0),
        (Oplocks::On, client::BATCH, client::LEASE),
    ] {
        let mut world = World::new(None);
        world.restart_with(Config {
            oplocks,
            ..config()
        });
        let mut ann = world.client(Protection::Plain);
        let mut opening = Opening::of("f");
        opening.oplock = client::BATCH;
        let open = world.one(&mut ann, opening.ask());
        assert_eq!(open.oplock(), granted);
        world.one(&mut ann, close(open.open()));
        let leasing = opening.leasing(1, 7, 0);
        assert_eq!(world.one(&mut ann, leasing).oplock(), leased);
    }
}

#[test]
fn a_break_that_is_not_acknowledged_runs_out() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let mut opening = Opening::of("f");
        opening.oplock = client::EXCLUSIVE;
        world.one(&mut ann, opening.ask()).open();
        let interim = world.one(&mut bob, opening.ask());
        assert_eq!(interim.status(), NtStatus::PENDING);
        assert_eq!(
            world.smb.next_deadline(),
            Some(world.now + Duration::from_secs(35))
        );
        world.pass(Duration::from_secs(34));
        assert!(world.received(&bob).is_empty());
        world.pass(Duration::from_secs(1));
        let opened = world.received(&bob);
        assert_eq!(statuses(&opened), [NtStatus::SUCCESS]);
        assert_eq!(world.smb.next_deadline(), None);
    });
}

#[test]
fn the_holder_of_an_oplock_goes_and_the_waiting_open_goes_on() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let mut opening = Opening::of("f");
        opening.oplock = client::BATCH;
        opening.share = 0;
        let first = world.one(&mut ann, opening.ask()).open();
        assert_eq!(
            world.one(&mut bob, opening.ask()).status(),
            NtStatus::PENDING
        );
        assert_eq!(world.received(&ann).len(), 1);
        // The handle was only cached: the client closes it instead.
        world.one(&mut ann, close(first));
        let opened = world.received(&bob);
        assert_eq!(statuses(&opened), [NtStatus::SUCCESS]);
        assert_eq!(opened[0].oplock(), client::BATCH);
        assert_eq!(
            world.one(&mut ann, opening.ask()).status(),
            NtStatus::PENDING
        );
        world.disconnect(bob.conn);
        let opened = world.received(&ann);
        assert_eq!(statuses(&opened).last(), Some(&NtStatus::SUCCESS));
    });
}

const NAMES: u32 = filter::FILE_NAME | filter::DIR_NAME | filter::SIZE;

#[test]
fn changes_are_reported_and_kept_in_between() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client(Protection::Plain);
        let mut opening = Opening::of("d");
        opening.options = client::DIRECTORY;
        opening.access = client::KEEP;
        let directory = world.one(&mut ann, opening.ask()).open();
        let interim = world.one(&mut ann, notify(directory, NAMES, false));
        assert_eq!(interim.status(), NtStatus::PENDING);
        let file = world.one(&mut bob, Opening::of("d\\new").ask()).open();
        let answers = world.received(&ann);
        assert_eq!(answers[0].notices(), [(action::ADDED, "new".to_string())]);
        assert_eq!(answers[0].async_id(), interim.async_id());
        world.one(&mut bob, write(file, 0, b"1"));
        world.one(&mut bob, write(file, 1, b"2"));
        world.one(&mut bob, client::rename(file, "d\\old", false));
        let answer = world.one(&mut ann, notify(directory, NAMES, false));
        assert_eq!(
            answer.notices(),
            [
                (action::MODIFIED, "new".to_string()),
                (action::RENAMED_OLD_NAME, "new".to_string()),
                (action::RENAMED_NEW_NAME, "old".to_string()),
            ]
        );
        assert_eq!(
            world
                .one(&mut ann, notify(directory, NAMES, false))
                .status(),
            NtStatus::PENDING
        );
        world.local_change(&Change {
            share: 0,
            path: "d/local".into(),
            is_dir: false,
            kind: ChangeKind::Removed,
        });
        let answers = world.received(&ann);
        assert_eq!(
            answers[0].notices(),
            [(action::REMOVED, "local".to_string())]
        );
        world.local_change(&Change {
            share: 0,
            path: String::new(),
            is_dir: true,
            kind: ChangeKind::Overflow,
        });
        let answer = world.one(&mut ann, notify(directory, NAMES, false));
        assert_eq!(answer.status(), NtStatus::NOTIFY_ENUM_DIR);
        world.one(&mut ann, notify(directory, NAMES, false));
        let responses = world.ask(&mut ann, &[close(directory)]);
        assert_eq!(
            statuses(&responses),
            [NtStatus::SUCCESS, NtStatus::NOTIFY_CLEANUP]
        );
    });
}

/// MS-FSA 2.1.5.15.3: a watch does not prevent the deletion of its directory.
#[test]
fn a_watch_of_a_directory_that_is_deleted_ends() {
    for by_disposition in [false, true] {
        sweep(|world| {
            let mut ann = world.client(Protection::Signed);
            let mut bob = world.client(Protection::Plain);
            let mut opening = Opening::of("d");
            opening.options = client::DIRECTORY;
            let watched = world.one(&mut ann, opening.ask()).open();
            world.one(&mut ann, notify(watched, NAMES, false));
            if !by_disposition {
                opening.options |= client::DELETE_ON_CLOSE;
            }
            let doomed = world.one(&mut bob, opening.ask()).open();
            if by_disposition {
                world.one(&mut bob, client::set_delete(doomed, true));
            }
            assert_eq!(world.received(&ann).len(), usize::from(by_disposition));
            world.one(&mut bob, close(doomed));
            let ended = world.received(&ann);
            if !by_disposition {
                assert_eq!(statuses(&ended), [NtStatus::DELETE_PENDING]);
            }
            let again = world.one(&mut ann, notify(watched, NAMES, false));
            assert_eq!(again.status(), NtStatus::DELETE_PENDING);
            world.one(&mut ann, close(watched));
            assert!(!world.disk.exists("d"));
        });
    }
}

#[test]
fn a_session_that_ends_takes_its_waiting_requests_along() {
    sweep(|world| {
        let mut ann = world.client(Protection::Encrypted);
        let directory = world
            .one(
                &mut ann,
                Opening {
                    options: client::DIRECTORY,
                    ..Opening::of("d")
                }
                .ask(),
            )
            .open();
        assert_eq!(
            world.one(&mut ann, notify(directory, NAMES, true)).status(),
            NtStatus::PENDING
        );
        let responses = world.ask(&mut ann, &[empty(Command::LOGOFF)]);
        assert_eq!(
            statuses(&responses),
            [NtStatus::SUCCESS, NtStatus::NOTIFY_CLEANUP]
        );
        assert!(
            world
                .smb
                .checkpoint(ann.conn)
                .unwrap()
                .0
                .sessions
                .is_empty()
        );
    });
}

/// At every end of a session (PreviousSessionId, a failed reauthentication) its opens are closed, which completes their
/// CHANGE_NOTIFY requests (MS-FSA 2.1.5.5).
#[test]
fn what_waits_for_changes_ends_with_its_open_and_the_rest_with_its_session() {
    let parked = |wait| Parked {
        message: Vec::new(),
        work: Work::default(),
        message_id: 1,
        session: 7,
        tree: 1,
        open: Some(3),
        interim: true,
        wait,
        cancelled: None,
        running: false,
    };
    for (end, other) in [
        (
            Record::SessionEnded { id: 7 },
            NtStatus::USER_SESSION_DELETED,
        ),
        (
            Record::TreeEnded { session: 7, id: 1 },
            NtStatus::NETWORK_NAME_DELETED,
        ),
    ] {
        let mut connection = Connection::new(std::net::Ipv4Addr::LOCALHOST.into());
        for (id, wait) in [(1, Wait::Notify(3)), (2, Wait::Pipe(3))] {
            let parked = Box::new(parked(wait));
            let begins = Record::Parked {
                work: WorkId::Message,
                id,
                parked,
                credits: 0,
            };
            begins.apply(&mut connection);
        }
        end.apply(&mut connection);
        let ends = |id| connection.parked[&id].cancelled;
        assert_eq!(ends(1), Some(NtStatus::NOTIFY_CLEANUP));
        assert_eq!(ends(2), Some(other));
    }
}
