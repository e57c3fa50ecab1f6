//! Tests leases of directories, with a crash at every point (MS-SMB2 3.3.5.9.11, MS-FSA 2.1.4.12).

use super::client::{
    self, Ask, Client, Opening, Protection, close, link, rename, set_delete, set_end_of_file, write,
};
use super::leases::{acknowledge, leased, one_break};
use super::sweep;
use super::world::World;
use outlast_fsa::status::NtStatus;

const R: u32 = 1;
const RH: u32 = 3;
const RWH: u32 = 7;
/// The bytes of the key of the directory's lease.
const KEY: u8 = 1;

fn directory(name: &str) -> Opening<'_> {
    Opening {
        options: client::DIRECTORY,
        access: client::KEEP,
        ..Opening::of(name)
    }
}

/// Ann leases the directory "d"; returns her, and its open.
fn leasing(world: &mut World) -> (Client, u64) {
    let mut ann = world.client(Protection::Signed);
    let made = world.one(&mut ann, directory("d").leasing(KEY, RWH, 0));
    assert_eq!(leased(&made), (RH, 0, 1), "no WRITE caching");
    (ann, made.open())
}

#[test]
fn what_another_client_changes_breaks_the_lease() {
    let create = |world: &mut World, bob: &mut Client| {
        let made = world.one(bob, Opening::of("d\\x").ask());
        assert_eq!(made.status(), NtStatus::SUCCESS, "it waits for nothing");
        made.open()
    };
    type Change = fn(u64) -> Vec<Ask>;
    let changes: [Change; 5] = [
        |_| Vec::new(),
        |open| vec![set_end_of_file(open, 5)],
        |open| vec![rename(open, "d\\y", false)],
        |open| vec![rename(open, "z", false)],
        |open| vec![set_delete(open, true), close(open)],
    ];
    for change in changes {
        sweep(|world| {
            let mut bob = world.client_of("bob", Protection::Signed);
            world.one(&mut bob, directory("d").ask());
            let asks = change(0);
            // The CREATE is the change, or it precedes the lease.
            let open = (!asks.is_empty()).then(|| create(world, &mut bob));
            let (mut ann, _) = leasing(world);
            match open {
                None => drop(create(world, &mut bob)),
                Some(open) => {
                    for ask in change(open) {
                        assert_eq!(world.one(&mut bob, ask).status(), NtStatus::SUCCESS);
                    }
                }
            }
            assert_eq!(one_break(world, &ann), (KEY, RH, 0, true, 2));
            let done = world.one(&mut ann, acknowledge(KEY, 0));
            assert_eq!(done.status(), NtStatus::SUCCESS);
        });
    }
}

/// The entry of a file has its new size when it is closed.
#[test]
fn what_another_client_writes_breaks_the_lease_at_the_close() {
    sweep(|world| {
        let mut bob = world.client_of("bob", Protection::Signed);
        world.one(&mut bob, directory("d").ask());
        let open = world.one(&mut bob, Opening::of("d\\x").ask()).open();
        let reading = Opening {
            access: client::LOOK,
            ..Opening::of("d\\x")
        };
        let reading = world.one(&mut bob, reading.ask()).open();
        let (ann, _) = leasing(world);
        world.one(&mut bob, write(open, 0, b"x"));
        world.one(&mut bob, close(reading));
        assert!(world.received(&ann).is_empty());
        world.one(&mut bob, close(open));
        assert_eq!(one_break(world, &ann), (KEY, RH, 0, true, 2));
    });
}

/// A rename into a directory changes it, and so does a hard link.
#[test]
fn a_name_that_arrives_breaks_the_lease() {
    let arrives: [fn(u64) -> Ask; 2] = [
        |open| rename(open, "d\\x", false),
        |open| link(open, "d\\x"),
    ];
    for ask in arrives {
        sweep(|world| {
            let mut bob = world.client_of("bob", Protection::Signed);
            let (ann, _) = leasing(world);
            let open = world.one(&mut bob, Opening::of("x").ask()).open();
            let done = world.one(&mut bob, ask(open));
            assert_eq!(done.status(), NtStatus::SUCCESS);
            assert_eq!(one_break(world, &ann), (KEY, RH, 0, true, 2));
        });
    }
}

/// 3.3.4.7: the client that makes the change knows of it, if it says so.
#[test]
fn the_parent_lease_key_spares_the_own_lease() {
    sweep(|world| {
        let (mut ann, _) = leasing(world);
        let mut bob = world.client_of("bob", Protection::Signed);
        let theirs = world.one(&mut bob, directory("d").leasing(2, RH, 0));
        assert_eq!(leased(&theirs), (RH, 0, 1));
        let made = Opening::of("d\\x").leasing_below(3, R, 0, Some(KEY));
        let open = world.one(&mut ann, made).open();
        assert!(world.received(&ann).is_empty());
        assert_eq!(one_break(world, &bob), (2, RH, 0, true, 2));
        world.one(&mut ann, write(open, 0, b"x"));
        assert!(world.received(&ann).is_empty());
        let got = world.ask(&mut ann, &[Opening::of("d\\y").ask()]);
        assert_eq!(got.len(), 2, "the break, and the response");
    });
}

#[test]
fn a_lease_of_version_1_is_not_granted_to_a_directory() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut opening = directory("d");
        opening.oplock = client::LEASE;
        let mut lease = vec![KEY; 16];
        lease.extend(RH.to_le_bytes());
        lease.extend([0; 12]);
        let made = world.one(&mut ann, opening.with_contexts(&[(b"RqLs", &lease)]));
        assert_eq!((made.status(), made.oplock()), (NtStatus::SUCCESS, 0));
    });
}

/// MS-FSA 2.1.5.14.11: a client that keeps a file open for a later open closes it, so that the directory above it can
/// be renamed.
#[test]
fn a_rename_of_a_directory_breaks_the_handle_caching_beneath_it() {
    for closes in [true, false] {
        sweep(|world| {
            let mut ann = world.client(Protection::Signed);
            let mut bob = world.client_of("bob", Protection::Signed);
            let above = Opening {
                access: client::ALL,
                ..directory("d")
            };
            let above = world.one(&mut ann, above.ask()).open();
            let made = world.one(&mut bob, Opening::of("d\\x").leasing(2, RH, 0));
            let interim = world.one(&mut ann, rename(above, "e", false));
            assert_eq!(interim.status(), NtStatus::PENDING);
            assert_eq!(one_break(world, &bob), (2, RH, R, true, 2));
            let (ask, expected) = match closes {
                true => (close(made.open()), NtStatus::SUCCESS),
                false => (acknowledge(2, R), NtStatus::ACCESS_DENIED),
            };
            world.one(&mut bob, ask);
            let renamed = world.received(&ann);
            assert_eq!(renamed[0].status(), expected);
        });
    }
}
