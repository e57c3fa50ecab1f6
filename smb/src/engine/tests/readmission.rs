//! Tests sessions and tree connects after a restart with another configuration.

use super::client::{
    self, CREATE, Opening, Protection, SHARE_ALL, close, empty, notify, read, tree_connect, write,
};
use super::sweep;
use super::world::{World, config};
use crate::config::{Config, Requirement};
use crate::wire::{Command, Dialect};
use outlast_fsa::notify::filter;
use outlast_fsa::status::NtStatus;

/// The configuration with this changed.
fn changed(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

fn without_ann() -> Config {
    changed(|config| config.users.retain(|user| user.name != "ann"))
}

#[test]
fn a_user_who_was_removed_is_logged_off_and_the_others_stay() {
    sweep(|world| {
        let mut ann = world.client_of("ann", Protection::Plain);
        let mut bob = world.client_of("bob", Protection::Signed);
        let mut whole = Opening::of("f");
        whole.share = 0;
        let anns = world.one(&mut ann, whole.ask()).open();
        let bobs = world.one(&mut bob, Opening::of("g").ask()).open();
        let watched = world.one(
            &mut ann,
            Opening {
                options: client::DIRECTORY,
                ..Opening::of("")
            }
            .ask(),
        );
        let waits = notify(watched.open(), filter::FILE_NAME, false);
        assert_eq!(world.one(&mut ann, waits).status(), NtStatus::PENDING);
        world.restart_with(without_ann());
        let answers: Vec<NtStatus> = super::statuses(&world.received(&ann));
        assert_eq!(answers, [NtStatus::NOTIFY_CLEANUP]);
        let gone = world.one(&mut ann, read(anns, 0, 1)).status();
        assert_eq!(gone, NtStatus::USER_SESSION_DELETED);
        assert_eq!(world.smb.status(ann.conn).opens, 0);
        assert_eq!(Vec::from_iter(world.closed.clone()), [ann.conn]);
        // Her files are closed, and the other session works as before.
        assert_eq!(
            world.one(&mut bob, write(bobs, 0, b"x")).status(),
            NtStatus::SUCCESS
        );
        whole.share = SHARE_ALL;
        assert_eq!(world.one(&mut bob, whole.ask()).status(), NtStatus::SUCCESS);
    });
}

#[test]
fn a_user_with_another_password_is_logged_off_and_the_others_stay() {
    sweep(|world| {
        let mut ann = world.client_of("ann", Protection::Plain);
        let mut bob = world.client_of("bob", Protection::Signed);
        let anns = world.one(&mut ann, Opening::of("f").ask()).open();
        let bobs = world.one(&mut bob, Opening::of("g").ask()).open();
        world.readmit();
        assert!(world.closed.is_empty(), "the passwords are what they were");
        world.restart_with(changed(|config| config.users[0].nt_hash = [1; 16]));
        let gone = world.one(&mut ann, read(anns, 0, 1)).status();
        assert_eq!(gone, NtStatus::USER_SESSION_DELETED);
        assert_eq!(world.smb.status(ann.conn).opens, 0);
        assert_eq!(Vec::from_iter(world.closed.clone()), [ann.conn]);
        let stays = world.one(&mut bob, write(bobs, 0, b"x")).status();
        assert_eq!(stays, NtStatus::SUCCESS);
    });
}

#[test]
fn a_share_that_does_not_admit_a_user_any_more_is_disconnected() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let open = world.one(&mut ann, Opening::of("f").ask()).open();
        world.restart_with(changed(|config| {
            config.shares[0].users = vec!["BOB".into()]
        }));
        let gone = world.one(&mut ann, read(open, 0, 1)).status();
        assert_eq!(gone, NtStatus::NETWORK_NAME_DELETED);
        assert_eq!(world.smb.status(ann.conn).opens, 0);
        let again = world.one(&mut ann, tree_connect("pub")).status();
        assert_eq!(again, NtStatus::ACCESS_DENIED);
        // The session remains valid.
        let other = world.one(&mut ann, tree_connect("ro")).status();
        assert_eq!(other, NtStatus::SUCCESS);
    });
}

#[test]
fn a_share_with_another_path_is_disconnected() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut doomed = Opening::of("f");
        doomed.options = client::DELETE_ON_CLOSE;
        doomed.disposition = CREATE;
        let open = world.one(&mut ann, doomed.ask()).open();
        world.restart_with(changed(|config| config.shares[0].directory += 1));
        let gone = world.one(&mut ann, read(open, 0, 1)).status();
        assert_eq!(gone, NtStatus::NETWORK_NAME_DELETED);
        let again = world.one(&mut ann, tree_connect("pub"));
        assert_eq!(again.status(), NtStatus::SUCCESS);
    });
}

/// Its tree connect has ended and does not identify the share any more.
#[test]
fn a_file_that_is_still_to_be_closed_stays_in_its_share() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Signed);
    world.one(&mut ann, Opening::of("f").ask());
    world.lose_connection(ann.conn);
    world.return_with(changed(|config| config.shares.rotate_right(1)));
    let share_of = |world: &World| {
        let opens = world.smb.connection(ann.conn).opens.values();
        opens.map(|open| open.actor.share).collect::<Vec<_>>()
    };
    assert_eq!(share_of(&world), [1]);
    world.return_with(changed(|config| config.shares[0].directory += 1));
    assert_eq!(share_of(&world), [outlast_fsa::fileop::ShareId::MAX]);
}

#[test]
fn signing_that_is_required_now_is_required_of_those_who_stay() {
    sweep(|world| {
        let mut signs = world.client(Protection::Plain);
        let mut does_not = world.client(Protection::Plain);
        let open = world.one(&mut signs, Opening::of("f").ask()).open();
        world.restart_with(changed(|config| config.signing = Requirement::Required));
        signs.protection = Protection::Signed;
        assert_eq!(
            world.one(&mut signs, close(open)).status(),
            NtStatus::SUCCESS
        );
        assert_eq!(world.ask(&mut does_not, &[empty(Command::ECHO)]).len(), 0);
        assert_eq!(world.dropped, [does_not.conn]);
    });
}

#[test]
fn encryption_that_is_required_now_is_required_of_those_who_stay() {
    let by_server = || changed(|config| config.encryption = Requirement::Required);
    let by_share = || changed(|config| config.shares[0].encryption = Requirement::Required);
    for config in [by_server, by_share] as [fn() -> Config; 2] {
        sweep(|world| {
            let mut seals = world.client(Protection::Signed);
            let mut does_not = world.client(Protection::Signed);
            let open = world.one(&mut does_not, Opening::of("f").ask()).open();
            world.restart_with(config());
            seals.protection = Protection::Encrypted;
            let sealed = world.one(&mut seals, Opening::of("f").ask()).status();
            assert_eq!(sealed, NtStatus::SUCCESS);
            assert_eq!(world.ask(&mut does_not, &[read(open, 0, 1)]).len(), 0);
            assert_eq!(world.dropped, [does_not.conn]);
        });
    }
}

#[test]
fn a_client_that_logged_in_under_a_requirement_is_refused_and_not_disconnected() {
    sweep(|world| {
        world.restart_with(changed(|config| config.signing = Requirement::Required));
        let mut ann = world.client(Protection::Signed);
        ann.protection = Protection::Plain;
        let refused = world.one(&mut ann, Opening::of("f").ask()).status();
        assert_eq!(refused, NtStatus::ACCESS_DENIED);
        assert_eq!(world.dropped, []);
    });
}

#[test]
fn a_dialect_that_is_not_spoken_any_more_ends_its_connection() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        world.one(&mut ann, Opening::of("f").ask());
        world.readmit();
        assert!(world.closed.is_empty());
        world.restart_with(changed(|config| config.max_dialect = Dialect::Smb302));
        assert_eq!(Vec::from_iter(world.closed.clone()), [ann.conn]);
        assert_eq!(world.smb.status(ann.conn).user, "");
        assert_eq!(world.smb.status(ann.conn).opens, 0);
    });
}

#[test]
fn rights_of_a_tree_connect_are_those_of_the_share_now() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        world.restart_with(changed(|config| config.shares[0].read_only = true));
        let trees = || {
            let connection = world.smb.connection(ann.conn);
            connection
                .sessions
                .values()
                .flat_map(|session| session.trees.values())
        };
        let rights: Vec<u32> = trees().map(|tree| tree.maximal_access).collect();
        assert_eq!(
            rights,
            [outlast_fsa::access::FILE_GENERIC_READ | outlast_fsa::access::FILE_GENERIC_EXECUTE]
        );
        let refused = world.one(&mut ann, Opening::of("f").ask()).status();
        assert_eq!(refused, NtStatus::ACCESS_DENIED);
    });
}

/// The user is removed, and the server crashes at each point of her operation: an operation in progress has its effect
/// once, and no other follows.
#[test]
fn what_was_under_way_is_done_before_its_session_ends() {
    let scenario = |crash_in: Option<usize>| {
        let mut world = World::new(None);
        let mut ann = world.client(Protection::Plain);
        let before = world.points;
        if let Some(points) = crash_in {
            world.next_life_with(without_ann(), points);
        }
        let mut new = Opening::of("new");
        new.disposition = CREATE;
        let answer = world.one(&mut ann, new.ask()).status();
        let made = world.disk.effects.len();
        assert_eq!(
            made,
            usize::from(answer == NtStatus::SUCCESS),
            "crash in {crash_in:?}"
        );
        let points = world.points - before;
        if world.deaths > 0 {
            world.readmit();
            assert_eq!(world.closed.len(), 1);
            let gone = world.one(&mut ann, Opening::of("new").ask()).status();
            assert_eq!(
                gone,
                NtStatus::USER_SESSION_DELETED,
                "crash in {crash_in:?}"
            );
            assert_eq!(world.smb.status(ann.conn).opens, 0, "crash in {crash_in:?}");
        }
        (points, made)
    };
    let (points, _) = scenario(None);
    let made: Vec<usize> = (0..points).map(|point| scenario(Some(point)).1).collect();
    assert!(made.contains(&0) && made.contains(&1), "{made:?}");
}

/// A man in the middle has no key: its requests must not change a protected session.
#[test]
fn a_protected_session_is_not_authenticated_again_without_protection() {
    for protection in [Protection::Signed, Protection::Encrypted] {
        sweep(|world| {
            let mut ann = world.client(protection);
            let before = world.smb.connection(ann.conn).sessions.clone();
            let token = crate::auth::client::Client::DEFAULT.negotiate();
            let setup = || {
                let body = crate::tests::testing::setup_body(1, 0, &token);
                client::Ask::new(Command::SESSION_SETUP, body)
            };
            ann.protection = Protection::Plain;
            let refused = world.one(&mut ann, setup()).status();
            assert_eq!(refused, NtStatus::ACCESS_DENIED);
            assert_eq!(world.smb.connection(ann.conn).sessions, before);
            ann.protection = protection;
            let goes_on = world.one(&mut ann, setup()).status();
            assert_eq!(goes_on, NtStatus::MORE_PROCESSING_REQUIRED);
        });
    }
}
