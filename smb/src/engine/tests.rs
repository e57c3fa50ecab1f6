//! Tests the whole engine with a file system in memory, and with a crash at every point of every scenario: the sent
//! bytes are the same, every effect on files happens once, and after every step the fold of the records equals the
//! state.

mod binding;
mod client;
mod copies;
mod directory_leases;
mod disk;
mod durable;
mod ea;
mod files;
mod greed;
mod leases;
mod order;
mod readmission;
mod resilient;
mod streams;
mod waiting;
mod world;

use client::{ANY, Client, Opening, Protection, close, empty, read, tree_connect, write};
use world::{World, config};

use crate::server::Task;
use crate::wire::{Command, Flags};
use bytes::Bytes;
use outlast_fsa::status::NtStatus;

/// Runs a scenario, then again with a crash at each of its points, and once without one. Every second run has a slow
/// loop.
fn sweep(scenario: impl Fn(&mut World)) {
    let mut whole = World::new(None);
    scenario(&mut whole);
    for point in 0..whole.points + 2 {
        let mut world = World::new(Some(point));
        world.is_slow = point % 2 == 1;
        scenario(&mut world);
        for (index, (got, wanted)) in world.sent.iter().zip(&whole.sent).enumerate() {
            assert!(
                got == wanted,
                "crash at point {point}: message {index} differs"
            );
        }
        assert_eq!(world.sent.len(), whole.sent.len(), "crash at point {point}");
        assert_eq!(
            world.disk.effects, whole.disk.effects,
            "crash at point {point}"
        );
        for conn in 1..4 {
            let (a, b) = (world.smb.checkpoint(conn), whole.smb.checkpoint(conn));
            assert_eq!(a, b, "crash at point {point}");
        }
    }
}

fn statuses(responses: &[client::Response]) -> Vec<NtStatus> {
    responses.iter().map(client::Response::status).collect()
}

#[test]
fn a_file_is_written_and_read_under_every_protection() {
    for protection in [Protection::Plain, Protection::Signed, Protection::Encrypted] {
        sweep(|world| {
            let mut ann = world.client(protection);
            let open = world.one(&mut ann, Opening::of("dir\\..").ask());
            assert_eq!(open.status(), NtStatus::OBJECT_PATH_SYNTAX_BAD);
            let open = world.one(&mut ann, Opening::of("f").ask()).open();
            assert_eq!(
                world.one(&mut ann, write(open, 2, b"abc")).status(),
                NtStatus::SUCCESS
            );
            let beyond = world.one(&mut ann, write(open, u64::MAX, b"d"));
            assert_eq!(beyond.status(), NtStatus::INVALID_PARAMETER);
            let mut appending = Opening::of("f");
            appending.access = client::APPEND;
            let end = world.one(&mut ann, appending.ask()).open();
            assert_eq!(
                world.one(&mut ann, write(end, 0, b"d")).status(),
                NtStatus::SUCCESS
            );
            world.one(&mut ann, client::close(end));
            assert_eq!(world.one(&mut ann, read(open, 0, 100)).data(), b"\0\0abcd");
            assert_eq!(
                world.one(&mut ann, read(open, 6, 1)).status(),
                NtStatus::END_OF_FILE
            );
            assert_eq!(
                world.one(&mut ann, client::flush(open)).status(),
                NtStatus::SUCCESS
            );
            assert_eq!(world.one(&mut ann, close(open)).status(), NtStatus::SUCCESS);
            assert_eq!(
                world.one(&mut ann, read(open, 0, 1)).status(),
                NtStatus::FILE_CLOSED
            );
        });
    }
}

//= patent fig5-2/composite, claim-21, claim-42
#[test]
fn related_requests_share_a_file_and_its_failure() {
    for protection in [Protection::Plain, Protection::Signed, Protection::Encrypted] {
        sweep(|world| {
            let mut ann = world.client(protection);
            let asks = [
                Opening::of("f").ask(),
                write(ANY, 0, b"hello").related(),
                read(ANY, 0, 3).related(),
                close(ANY).related(),
            ];
            let responses = world.ask(&mut ann, &asks);
            assert_eq!(statuses(&responses), [NtStatus::SUCCESS; 4]);
            assert_eq!(responses[2].data(), b"hel");
            assert!(
                responses[3]
                    .header
                    .flags
                    .contains(Flags::RELATED_OPERATIONS)
            );
            let mut open = Opening::of("missing");
            open.disposition = client::OPEN;
            let asks = [open.ask(), read(ANY, 0, 3).related(), close(ANY).related()];
            let responses = world.ask(&mut ann, &asks);
            assert_eq!(statuses(&responses), [NtStatus::OBJECT_NAME_NOT_FOUND; 3]);
            // After a failed READ the CLOSE still inherits the file.
            let asks = [
                Opening::of("f").ask(),
                read(ANY, 9, 3).related(),
                close(ANY).related(),
            ];
            let responses = world.ask(&mut ann, &asks);
            assert_eq!(
                statuses(&responses),
                [NtStatus::SUCCESS, NtStatus::END_OF_FILE, NtStatus::SUCCESS]
            );
        });
    }
}

#[test]
fn unrelated_requests_of_one_message_stand_alone() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let open = world.one(&mut ann, Opening::of("f").ask()).open();
        let asks = [close(open + 77), read(open, 0, 1), empty(Command::ECHO)];
        let responses = world.ask(&mut ann, &asks);
        assert_eq!(
            statuses(&responses),
            [
                NtStatus::FILE_CLOSED,
                NtStatus::END_OF_FILE,
                NtStatus::SUCCESS
            ]
        );
        let first = world.one(&mut ann, read(ANY, 0, 1));
        assert_eq!(first.status(), NtStatus::FILE_CLOSED);
    });
}

#[test]
fn the_first_request_is_related_to_nothing() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    let mut ask = empty(Command::ECHO);
    ask.related = true;
    assert_eq!(
        world.one(&mut ann, ask).status(),
        NtStatus::INVALID_PARAMETER
    );
}

#[test]
fn a_message_id_is_used_once_and_within_the_window() {
    for id in [0, 5000, u64::MAX] {
        let mut world = World::new(None);
        let mut ann = world.client(Protection::Plain);
        assert_eq!(
            world.one(&mut ann, empty(Command::ECHO)).status(),
            NtStatus::SUCCESS
        );
        let mut again = empty(Command::ECHO);
        again.message_id = Some(id);
        assert!(world.ask(&mut ann, &[again]).is_empty());
        assert_eq!(world.dropped, [ann.conn]);
    }
}

#[test]
fn credits_are_granted_as_asked_and_charged_by_size() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    let open = world.one(&mut ann, Opening::of("f").ask());
    assert_eq!(open.header.credits, 16);
    let open = open.open();
    assert_eq!(
        world.one(&mut ann, read(open, 0, 65_537)).status(),
        NtStatus::INVALID_PARAMETER
    );
    let mut ask = read(open, 0, 65_537);
    ask.charge = 2;
    assert_eq!(world.one(&mut ann, ask).status(), NtStatus::END_OF_FILE);
    assert_eq!(
        world.one(&mut ann, empty(Command::ECHO)).status(),
        NtStatus::SUCCESS
    );
    let credits = world.smb.checkpoint(ann.conn).unwrap().0.credits;
    assert_eq!((credits.low, credits.outstanding()), (5, 16 + 4 * 16 - 5));
}

#[test]
fn the_window_is_bounded_for_who_leaves_an_id_out() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    let left_out = ann.next_message_id;
    ann.next_message_id += 1;
    let limit = u64::from(config().limits.credits);
    let conn = ann.conn;
    let credits = |world: &World| world.smb.checkpoint(conn).unwrap().0.credits;
    for _ in left_out..2 * limit {
        if credits(&world).outstanding() == 1 {
            break;
        }
        let echo = world.one(&mut ann, empty(Command::ECHO));
        assert_eq!(echo.status(), NtStatus::SUCCESS);
    }
    let held = credits(&world);
    assert_eq!((held.low, held.high), (left_out, left_out + 2 * limit));
    // Only this MessageId is unused; with it the window advances.
    let mut last = empty(Command::ECHO);
    last.message_id = Some(left_out);
    assert_eq!(world.one(&mut ann, last).header.credits, 16);
    let held = credits(&world);
    assert_eq!((held.low, held.outstanding()), (left_out + 2 * limit, 16));
}

#[test]
fn what_a_session_requires_is_required() {
    let mut world = World::new(None);
    let mut signing = world.client(Protection::Signed);
    signing.protection = Protection::Plain;
    assert_eq!(
        world.one(&mut signing, Opening::of("f").ask()).status(),
        NtStatus::ACCESS_DENIED
    );
    let mut sealing = world.client(Protection::Encrypted);
    sealing.protection = Protection::Plain;
    assert_eq!(
        world.one(&mut sealing, Opening::of("f").ask()).status(),
        NtStatus::ACCESS_DENIED
    );
    // A wrong signature is refused, and the response is not signed.
    let mut forged = world.client(Protection::Signed);
    let message = forged.message(&[Opening::of("f").ask()]);
    let mut bytes = message.to_vec();
    bytes[50] ^= 1;
    forged.protection = Protection::Plain;
    world.deliver(forged.conn, &Bytes::from(bytes));
    let responses = world.received(&forged);
    assert_eq!(statuses(&responses), [NtStatus::ACCESS_DENIED]);
    // An encrypted message that is not authentic ends the connection.
    let mut sealed = world.client(Protection::Encrypted);
    let mut bytes = sealed.message(&[Opening::of("f").ask()]).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    world.deliver(sealed.conn, &Bytes::from(bytes));
    assert_eq!(world.dropped, [sealed.conn]);
}

#[test]
fn a_share_that_is_offline_is_not_connected_and_who_has_it_keeps_it() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Signed);
    world.smb.set_offline([0]);
    let refused = world.one(&mut ann, tree_connect("PUB")).status();
    assert_eq!(refused, NtStatus::BAD_NETWORK_NAME);
    let other = world.one(&mut ann, tree_connect("RO")).status();
    assert_eq!(other, NtStatus::SUCCESS);
    // The file system determines the results for its files.
    let before = world.one(&mut ann, Opening::of("f").ask()).status();
    assert_eq!(before, NtStatus::SUCCESS);
    world.smb.set_offline([]);
    let again = world.one(&mut ann, tree_connect("PUB")).status();
    assert_eq!(again, NtStatus::SUCCESS);
}

#[test]
fn shares_by_their_settings() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let refused = world.one(&mut ann, tree_connect("nothing"));
        assert_eq!(refused.status(), NtStatus::BAD_NETWORK_NAME);
        let ro = world.one(&mut ann, tree_connect("RO"));
        assert_eq!(ro.status(), NtStatus::SUCCESS);
        ann.tree = ro.header.tree_id();
        let mut opening = Opening::of("f");
        assert_eq!(
            world.one(&mut ann, opening.ask()).status(),
            NtStatus::ACCESS_DENIED
        );
        opening.access = client::LOOK;
        assert_eq!(
            world.one(&mut ann, opening.ask()).status(),
            NtStatus::ACCESS_DENIED
        );
        opening.name = "";
        assert_eq!(
            world.one(&mut ann, opening.ask()).status(),
            NtStatus::SUCCESS
        );
        let secret = world.one(&mut ann, tree_connect("secret"));
        assert_eq!(secret.status(), NtStatus::SUCCESS);
        assert_eq!(secret.body[4..8], 0x8000u32.to_le_bytes());
        ann.tree = secret.header.tree_id();
        assert_eq!(
            world.one(&mut ann, opening.ask()).status(),
            NtStatus::ACCESS_DENIED
        );
        ann.protection = Protection::Encrypted;
        assert_eq!(
            world.one(&mut ann, opening.ask()).status(),
            NtStatus::SUCCESS
        );
    });
}

#[test]
fn logoff_and_disconnect_close_what_is_open() {
    sweep(|world| {
        let mut ann = world.client(Protection::Encrypted);
        let mut opening = Opening::of("gone");
        opening.options = client::DELETE_ON_CLOSE;
        world.one(&mut ann, opening.ask()).open();
        world.one(&mut ann, Opening::of("kept").ask()).open();
        assert_eq!(
            world
                .one(&mut ann, empty(Command::TREE_DISCONNECT))
                .status(),
            NtStatus::SUCCESS
        );
        assert!(!world.disk.exists("gone") && world.disk.exists("kept"));
        assert_eq!(
            world.one(&mut ann, Opening::of("kept").ask()).status(),
            NtStatus::NETWORK_NAME_DELETED
        );
        ann.tree = world.one(&mut ann, tree_connect("pub")).header.tree_id();
        world.one(&mut ann, opening.ask()).open();
        assert_eq!(
            world.one(&mut ann, empty(Command::LOGOFF)).status(),
            NtStatus::SUCCESS
        );
        assert!(!world.disk.exists("gone"));
        let mut bob = world.client(Protection::Plain);
        world.one(&mut bob, opening.ask()).open();
        world.one(&mut bob, Opening::of("kept").ask()).open();
        world.disconnect(bob.conn);
        assert!(!world.disk.exists("gone") && world.smb.drop_ready(bob.conn));
    });
}

#[test]
fn a_message_in_a_session_that_is_over() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    assert_eq!(
        world.one(&mut ann, empty(Command::LOGOFF)).status(),
        NtStatus::SUCCESS
    );
    for command in (2..=19)
        .map(Command)
        .filter(|command| *command != Command::CANCEL)
    {
        let expected = match command {
            Command::ECHO => NtStatus::SUCCESS,
            _ => NtStatus::USER_SESSION_DELETED,
        };
        let response = world.one(&mut ann, empty(command));
        assert_eq!(response.status(), expected, "{command:?}");
    }
}

#[test]
fn shares_are_found_again_by_name_when_the_configuration_has_changed() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Signed);
    let open = world.one(&mut ann, Opening::of("f").ask()).open();
    let mut config = world::config();
    config.shares.swap(0, 2);
    world.restart_with(config.clone());
    let share = |world: &World| world.smb.opens().next().map(|open| open.actor.share);
    assert_eq!(share(&world), Some(2));
    assert_eq!(world.one(&mut ann, close(open)).status(), NtStatus::SUCCESS);
    world.one(&mut ann, Opening::of("f").ask()).open();
    config.shares.truncate(2);
    world.restart_with(config);
    world.run();
    assert_eq!(share(&world), None);
    let gone = world.one(&mut ann, Opening::of("f").ask());
    assert_eq!(gone.status(), NtStatus::NETWORK_NAME_DELETED);
}

#[test]
fn too_many_opens_are_refused() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    for _ in 0..8 {
        world.one(&mut ann, Opening::of("f").ask()).open();
    }
    let refused = world.one(&mut ann, Opening::of("f").ask());
    assert_eq!(refused.status(), NtStatus::TOO_MANY_OPENED_FILES);
}

#[test]
fn what_crashes_the_server_three_times_is_answered_with_an_error() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    let message = ann.message(&[empty(Command::ECHO)]);
    world.begin(ann.conn, &message);
    assert_eq!(world.smb.in_progress(), [Task::Message(ann.conn)]);
    for deaths in 1..=3 {
        assert_eq!(world.crashed_during(Task::Message(ann.conn)), deaths);
    }
    // It crashed before the message was parsed: no response is possible.
    world.deliver(ann.conn, &message);
    assert_eq!(world.dropped, [ann.conn]);
}

#[test]
fn bytes_that_are_no_message_harm_nobody() {
    use proptest::prelude::*;
    let config = proptest::test_runner::Config {
        cases: 512,
        ..Default::default()
    };
    proptest!(config, |(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0usize..200,
        kind in 0u16..20,
    )| {
        let mut world = World::new(None);
        let mut ann = world.client(Protection::Plain);
        let mut client: Client = world.client(Protection::Plain);
        let message = match kind {
            19 => Bytes::from(bytes.clone()),
            command => client.message(&[
                Opening::of("f").ask(),
                client::Ask::new(Command(command), bytes.clone()).related(),
            ]),
        };
        let mut damaged = message.to_vec();
        if kind % 2 == 0 && let Some(byte) = damaged.get_mut(at) {
            *byte = byte.wrapping_add(bytes.first().copied().unwrap_or(1));
        }
        world.deliver(client.conn, &Bytes::from(damaged));
        prop_assert_eq!(world.one(&mut ann, empty(Command::ECHO)).status(), NtStatus::SUCCESS);
    });
}
