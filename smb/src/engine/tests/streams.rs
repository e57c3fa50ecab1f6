//! Tests named streams, with a crash at every point (MS-FSA 2.1.5).

use super::client::{
    self, Ask, Client, Opening, Protection, close, lock, read, rename, set_delete, set_end_of_file,
    write,
};
use super::durable::{again, file_id, first};
use super::sweep;
use super::world::World;
use crate::wire::Command;
use bytes::BufMut;
use outlast_fsa::notify::{action, filter};
use outlast_fsa::status::NtStatus;

const EXCLUSIVE: u32 = 2;

fn is_done(world: &mut World, client: &mut Client, ask: Ask) {
    assert_eq!(world.one(client, ask).status(), NtStatus::SUCCESS);
}

fn is_refused(world: &mut World, client: &mut Client, ask: Ask, status: NtStatus) {
    assert_eq!(world.one(client, ask).status(), status);
}

/// An open that reads and writes, and shares nothing.
fn alone(name: &str) -> Ask {
    Opening {
        access: 0x0012_019F,
        share: 0,
        ..Opening::of(name)
    }
    .ask()
}

/// QUERY_INFO of FileStreamInformation: the names of the streams.
fn streams(world: &mut World, client: &mut Client, open: u64) -> Vec<String> {
    let mut body = Vec::new();
    body.put_slice(&[41, 0, 1, 22]);
    body.put_u32_le(4096);
    body.put_slice(&[0; 16]);
    body.put_slice(&file_id(open));
    let response = world.one(client, Ask::new(Command::QUERY_INFO, body));
    assert_eq!(response.status(), NtStatus::SUCCESS);
    let length = u32::from_le_bytes(response.body[4..8].try_into().unwrap()) as usize;
    let (mut names, mut rest) = (Vec::new(), &response.body[8..8 + length]);
    loop {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let name = &rest[24..24 + word(4)];
        names.push(crate::wire::utf16::decode(name).unwrap());
        match word(0) {
            0 => return names,
            next => rest = &rest[next..],
        }
    }
}

#[test]
fn a_stream_has_content_and_share_modes_of_its_own() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client(Protection::Encrypted);
        let stream = world.one(&mut ann, alone("f:s")).open();
        assert!(world.disk.exists("f") && world.disk.exists("f:s"));
        let file = world.one(&mut bob, alone("f")).open();
        is_refused(world, &mut bob, alone("f:S"), NtStatus::SHARING_VIOLATION);
        is_refused(
            world,
            &mut bob,
            alone("f::$DATA"),
            NtStatus::SHARING_VIOLATION,
        );
        let other = world.one(&mut bob, alone("f:t:$DATA")).open();
        is_done(world, &mut ann, write(stream, 0, b"stream"));
        is_done(world, &mut bob, write(file, 0, b"file"));
        is_done(world, &mut ann, set_end_of_file(stream, 3));
        is_done(world, &mut ann, lock(stream, &[(0, 1, EXCLUSIVE)]));
        is_done(world, &mut bob, lock(file, &[(0, 1, EXCLUSIVE)]));
        assert_eq!(world.one(&mut ann, read(stream, 0, 9)).data(), b"str");
        assert_eq!(world.one(&mut bob, read(file, 0, 9)).data(), b"file");
        let names = streams(world, &mut bob, file);
        assert_eq!(names, ["::$DATA", ":s:$DATA", ":t:$DATA"]);
        is_done(world, &mut ann, close(stream));
        is_done(world, &mut bob, close(file));
        is_done(world, &mut bob, close(other));
        assert_eq!(world.disk.effects, ["create f", "create f:s", "create f:t"]);
    });
}

/// MS-FSA 2.1.5.5: the stream is deleted at its own last close, and not the file.
#[test]
fn a_stream_is_deleted_at_its_last_close() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let mut opening = Opening::of("f:s");
        opening.options = client::DELETE_ON_CLOSE;
        let first = world.one(&mut ann, opening.ask()).open();
        let second = world.one(&mut bob, Opening::of("f:s").ask()).open();
        let file = world.one(&mut bob, Opening::of("f").ask()).open();
        is_done(world, &mut ann, close(first));
        is_refused(
            world,
            &mut ann,
            Opening::of("f:s").ask(),
            NtStatus::DELETE_PENDING,
        );
        let beside = world.one(&mut ann, Opening::of("f:t").ask()).open();
        is_done(world, &mut bob, close(second));
        assert!(!world.disk.exists("f:s"));
        is_done(world, &mut ann, set_delete(beside, true));
        is_done(world, &mut ann, set_delete(beside, false));
        is_done(world, &mut ann, close(beside));
        is_done(world, &mut bob, close(file));
        assert_eq!(
            world.disk.effects,
            ["create f", "create f:s", "create f:t", "delete f:s"]
        );
    });
}

/// MS-FSA 2.1.5.5: a file is deleted when none of its streams is open any more.
#[test]
fn the_last_stream_takes_its_file_with_it() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let stream = world.one(&mut ann, Opening::of("f:s").ask()).open();
        let second = world.one(&mut ann, Opening::of("f:t").ask()).open();
        let file = world.one(&mut bob, Opening::of("f").ask()).open();
        is_done(world, &mut bob, set_delete(file, true));
        is_done(world, &mut bob, close(file));
        for name in ["f", "f:s", "f:new"] {
            is_refused(
                world,
                &mut bob,
                Opening::of(name).ask(),
                NtStatus::DELETE_PENDING,
            );
        }
        // The stream's own mark is another.
        is_done(world, &mut ann, set_delete(stream, true));
        is_done(world, &mut ann, set_delete(stream, false));
        is_done(world, &mut ann, write(second, 0, b"still"));
        is_done(world, &mut ann, close(stream));
        assert!(world.disk.exists("f"));
        is_done(world, &mut ann, close(second));
        assert_eq!(world.disk.effects.last().unwrap(), "delete f");
        assert!(!world.disk.exists("f:s"));
    });
}

/// MS-FSA 2.1.5.1.2.2: the deletion of a file is that of its streams.
#[test]
fn a_stream_that_does_not_share_deletion_keeps_its_file() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let mut opening = Opening::of("f:s");
        opening.share = 3;
        let stream = world.one(&mut ann, opening.ask()).open();
        is_refused(
            world,
            &mut bob,
            Opening::of("f").ask(),
            NtStatus::SHARING_VIOLATION,
        );
        let mut reading = Opening::of("f");
        reading.access = 0x0012_0089;
        let file = world.one(&mut bob, reading.ask()).open();
        is_done(world, &mut ann, close(stream));
        is_done(world, &mut bob, close(file));
        is_done(world, &mut bob, Opening::of("f").ask());
    });
}

#[test]
fn a_rename_gives_a_stream_another_name_in_its_file() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let stream = world.one(&mut ann, Opening::of("f:s").ask()).open();
        let also = world.one(&mut bob, Opening::of("f:s").ask()).open();
        is_done(world, &mut ann, write(stream, 0, b"data"));
        for (to, status) in [
            ("f:t", NtStatus::INVALID_PARAMETER),
            ("::$DATA", NtStatus::INVALID_PARAMETER),
            (":", NtStatus::OBJECT_NAME_INVALID),
        ] {
            is_refused(world, &mut ann, rename(stream, to, true), status);
        }
        let file = world.one(&mut bob, Opening::of("f").ask()).open();
        is_refused(
            world,
            &mut bob,
            rename(file, "g", false),
            NtStatus::ACCESS_DENIED,
        );
        is_done(world, &mut ann, rename(stream, ":t:$DATA", false));
        assert_eq!(world.one(&mut bob, read(also, 0, 9)).data(), b"data");
        is_refused(world, &mut bob, alone("f:t"), NtStatus::SHARING_VIOLATION);
        let names = streams(world, &mut bob, also);
        assert_eq!(names, ["::$DATA", ":t:$DATA"]);
        is_done(world, &mut ann, set_delete(stream, true));
        is_done(world, &mut ann, close(stream));
        is_done(world, &mut bob, close(also));
        assert_eq!(
            world.disk.effects,
            ["create f", "create f:s", "rename f:s f:t", "delete f:t"]
        );
        is_done(world, &mut bob, rename(file, "g", false));
    });
}

#[test]
fn a_durable_open_of_a_stream_is_reconnected() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client_of("bob", Protection::Signed);
        let open = world.one(&mut ann, first(Opening::of("f:s"))).open();
        is_done(world, &mut ann, write(open, 0, b"kept"));
        world.disconnect(ann.conn);
        // An open of the file does not break the oplock of the stream.
        let file = world.one(&mut bob, Opening::of("f").ask()).open();
        let mut later = again(world, &ann);
        let back = world.one(
            &mut later,
            super::durable::reconnect(Opening::of("f:s"), open),
        );
        assert_eq!(back.open(), open);
        assert_eq!(world.one(&mut later, read(open, 0, 9)).data(), b"kept");
        is_done(world, &mut bob, close(file));
    });
}

/// MS-FSCC 2.7.1: FILE_ACTION_ADDED_STREAM and its relatives.
#[test]
fn changes_of_streams_are_reported() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let mut root = Opening::of("");
        root.disposition = client::OPEN;
        root.options = client::DIRECTORY;
        let root = world.one(&mut ann, root.ask()).open();
        let all = filter::STREAM_NAME | filter::STREAM_WRITE;
        let interim = world.one(&mut ann, client::notify(root, all, true));
        assert_eq!(interim.status(), NtStatus::PENDING);
        let stream = world.one(&mut bob, Opening::of("f:s").ask()).open();
        let mut seen = world.received(&ann).remove(0).notices();
        is_done(world, &mut bob, write(stream, 0, b"x"));
        is_done(world, &mut bob, set_delete(stream, true));
        is_done(world, &mut bob, close(stream));
        seen.extend(
            world
                .one(&mut ann, client::notify(root, all, true))
                .notices(),
        );
        let expected = [
            (action::ADDED_STREAM, "f:s".to_owned()),
            (action::MODIFIED_STREAM, "f:s".to_owned()),
            (action::REMOVED_STREAM, "f:s".to_owned()),
        ];
        assert_eq!(seen, expected);
    });
}
