//! Tests share modes, deletion and renaming.

use super::client::{self, Opening, Protection, close, read, rename, set_delete};
use super::sweep;
use super::world::World;
use outlast_fsa::status::NtStatus;

#[test]
fn share_modes_hold_between_connections() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Signed);
        let mut first = Opening::of("f");
        first.share = 1;
        let open = world.one(&mut ann, first.ask()).open();
        let mut second = Opening::of("f");
        assert_eq!(
            world.one(&mut bob, second.ask()).status(),
            NtStatus::SHARING_VIOLATION
        );
        second.access = 0x0012_0089;
        assert_eq!(
            world.one(&mut bob, second.ask()).status(),
            NtStatus::SUCCESS
        );
        second.access = client::LOOK;
        second.share = 0;
        assert_eq!(
            world.one(&mut bob, second.ask()).status(),
            NtStatus::SUCCESS
        );
        assert_eq!(world.one(&mut ann, close(open)).status(), NtStatus::SUCCESS);
        second.access = client::ALL;
        assert_eq!(
            world.one(&mut bob, second.ask()).status(),
            NtStatus::SHARING_VIOLATION
        );
        second.share = client::SHARE_ALL;
        assert_eq!(
            world.one(&mut bob, second.ask()).status(),
            NtStatus::SUCCESS
        );
    });
}

#[test]
fn the_last_close_deletes() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Encrypted);
        let mut opening = Opening::of("f");
        opening.options = client::DELETE_ON_CLOSE;
        let first = world.one(&mut ann, opening.ask()).open();
        let second = world.one(&mut bob, Opening::of("f").ask()).open();
        assert_eq!(
            world.one(&mut ann, close(first)).status(),
            NtStatus::SUCCESS
        );
        assert!(world.disk.exists("f"));
        assert_eq!(
            world.one(&mut ann, Opening::of("f").ask()).status(),
            NtStatus::DELETE_PENDING
        );
        assert_eq!(
            world.one(&mut bob, close(second)).status(),
            NtStatus::SUCCESS
        );
        assert!(!world.disk.exists("f"));
        // Another open than the one that set the mark clears it.
        let first = world.one(&mut ann, Opening::of("f").ask()).open();
        let second = world.one(&mut bob, Opening::of("f").ask()).open();
        assert_eq!(
            world.one(&mut ann, set_delete(first, true)).status(),
            NtStatus::SUCCESS
        );
        assert_eq!(
            world.one(&mut bob, set_delete(second, false)).status(),
            NtStatus::SUCCESS
        );
        world.one(&mut ann, close(first));
        world.one(&mut bob, close(second));
        assert!(world.disk.exists("f"));
    });
}

/// MS-FSA 2.1.5.5: the link that was opened is deleted.
#[test]
fn of_two_links_the_marked_one_goes() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let made = world.one(&mut ann, Opening::of("drop").ask()).open();
        world.one(&mut ann, close(made));
        world.disk.link("drop", "keep");
        let mut opening = Opening::of("drop");
        opening.options = client::DELETE_ON_CLOSE;
        let drop = world.one(&mut ann, opening.ask()).open();
        let also = world.one(&mut bob, Opening::of("drop").ask()).open();
        let keep = world.one(&mut bob, Opening::of("keep").ask()).open();
        world.one(&mut ann, close(drop));
        let pending = world.one(&mut ann, Opening::of("drop").ask());
        assert_eq!(pending.status(), NtStatus::DELETE_PENDING);
        let more = world.one(&mut ann, Opening::of("keep").ask()).open();
        world.one(&mut bob, close(also));
        assert!(!world.disk.exists("drop"));
        // Through another link the mark is not cleared.
        world.one(&mut bob, set_delete(keep, true));
        world.one(&mut bob, set_delete(keep, false));
        world.one(&mut bob, close(keep));
        world.one(&mut ann, close(more));
        assert!(world.disk.exists("keep"));
        assert_eq!(world.disk.effects, ["create drop", "delete drop"]);
    });
}

#[test]
fn a_directory_that_is_not_empty_is_only_closed() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut opening = Opening::of("d");
        opening.options = client::DIRECTORY | client::DELETE_ON_CLOSE;
        let directory = world.one(&mut ann, opening.ask()).open();
        let file = world.one(&mut ann, Opening::of("d\\f").ask()).open();
        assert_eq!(
            world.one(&mut ann, close(directory)).status(),
            NtStatus::SUCCESS
        );
        assert!(world.disk.exists("d"));
        world.one(&mut ann, close(file));
        assert_eq!(world.smb.status(ann.conn).opens, 0);
    });
}

#[test]
fn a_rename_moves_every_open_below() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let mut opening = Opening::of("d");
        opening.options = client::DIRECTORY;
        let directory = world.one(&mut ann, opening.ask()).open();
        let file = world.one(&mut bob, Opening::of("d\\f").ask()).open();
        // A directory with an open file beneath it cannot be renamed.
        let refused = world.one(&mut ann, rename(directory, "e", false));
        assert_eq!(refused.status(), NtStatus::ACCESS_DENIED);
        // No name in a directory changes while another open of it has DELETE access.
        let refused = world.one(&mut bob, rename(file, "d\\g", false));
        assert_eq!(refused.status(), NtStatus::SHARING_VIOLATION);
        world.one(&mut ann, close(directory));
        opening.access = client::KEEP;
        opening.share = 1;
        let reading = world.one(&mut ann, opening.ask()).open();
        let refused = world.one(&mut bob, rename(file, "d\\g", false));
        assert_eq!(refused.status(), NtStatus::SHARING_VIOLATION);
        world.one(&mut ann, close(reading));
        opening.share = client::SHARE_ALL;
        let reading = world.one(&mut ann, opening.ask()).open();
        let moved = world.one(&mut bob, rename(file, "d\\g", false));
        assert_eq!(moved.status(), NtStatus::SUCCESS);
        world.one(&mut ann, close(reading));
        opening.access = client::ALL;
        let directory = world.one(&mut ann, opening.ask()).open();
        let other = world.one(&mut ann, Opening::of("x").ask()).open();
        let refused = world.one(&mut ann, rename(other, "d\\g", false));
        assert_eq!(refused.status(), NtStatus::OBJECT_NAME_COLLISION);
        let refused = world.one(&mut ann, rename(other, "d\\g", true));
        assert_eq!(refused.status(), NtStatus::ACCESS_DENIED);
        world.one(&mut bob, close(file));
        let moved = world.one(&mut ann, rename(directory, "e", false));
        assert_eq!(moved.status(), NtStatus::SUCCESS);
        let mut opening = Opening::of("e\\g");
        opening.disposition = client::OPEN;
        assert_eq!(
            world.one(&mut bob, opening.ask()).status(),
            NtStatus::SUCCESS
        );
    });
}

#[test]
fn dispositions() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let with = |disposition| Opening {
            disposition,
            ..Opening::of("f")
        };
        let missing = world.one(&mut ann, with(client::OPEN).ask());
        assert_eq!(missing.status(), NtStatus::OBJECT_NAME_NOT_FOUND);
        let created = world.one(&mut ann, with(client::CREATE).ask());
        assert_eq!(created.body[4], 2);
        let there = world.one(&mut ann, with(client::CREATE).ask());
        assert_eq!(there.status(), NtStatus::OBJECT_NAME_COLLISION);
        let emptied = world.one(&mut ann, with(client::OVERWRITE_IF).ask());
        assert_eq!(emptied.body[4], 3);
        let opened = world.one(&mut ann, with(client::OPEN_IF).ask());
        assert_eq!(opened.body[4], 1);
    });
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    let base = Opening::of("f");
    for (opening, status) in [
        (Opening { access: 0, ..base }, NtStatus::ACCESS_DENIED),
        (
            Opening {
                access: 0x0400_0001,
                ..base
            },
            NtStatus::ACCESS_DENIED,
        ),
        (
            Opening {
                options: 0x41,
                ..base
            },
            NtStatus::INVALID_PARAMETER,
        ),
        (
            Opening {
                options: 0x2000,
                ..base
            },
            NtStatus::NOT_SUPPORTED,
        ),
        (Opening { share: 8, ..base }, NtStatus::INVALID_PARAMETER),
        (
            Opening {
                name: "\\f",
                ..base
            },
            NtStatus::INVALID_PARAMETER,
        ),
        (
            Opening { name: "f*", ..base },
            NtStatus::OBJECT_NAME_INVALID,
        ),
        (
            Opening {
                access: 0x81,
                options: 0x1000,
                ..base
            },
            NtStatus::ACCESS_DENIED,
        ),
    ] {
        assert_eq!(world.one(&mut ann, opening.ask()).status(), status);
    }
    let looking = Opening {
        access: client::LOOK,
        ..base
    };
    let open = world.one(&mut ann, looking.ask()).open();
    assert_eq!(
        world.one(&mut ann, read(open, 0, 1)).status(),
        NtStatus::ACCESS_DENIED
    );
}
