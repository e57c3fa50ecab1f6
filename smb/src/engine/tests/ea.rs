//! Tests extended attributes, with a crash at every point (MS-FSA 2.1.5.12.16, 2.1.5.15.5).

use super::client::{self, Ask, Client, Opening, Protection};
use super::durable::file_id;
use super::sweep;
use super::world::World;
use crate::info::ea;
use crate::wire::Command;
use bytes::BufMut;
use outlast_fsa::ea::Ea;
use outlast_fsa::notify::{action, filter};
use outlast_fsa::status::NtStatus;

fn one(name: &str, value: &[u8]) -> Ea {
    Ea {
        name: name.to_owned(),
        value: value.to_vec(),
    }
}

fn encoded(eas: &[Ea]) -> Vec<u8> {
    ea::encode(eas, 65_536).unwrap().bytes
}

/// SET_INFO of FileFullEaInformation.
fn set(open: u64, eas: &[Ea]) -> Ask {
    let data = encoded(eas);
    let mut body = Vec::new();
    body.put_slice(&[33, 0, 1, 15]);
    body.put_u32_le(data.len() as u32);
    body.put_u16_le(96);
    body.put_u16_le(0);
    body.put_u32_le(0);
    body.put_slice(&file_id(open));
    body.put_slice(&data);
    Ask::new(Command::SET_INFO, body)
}

/// QUERY_INFO of a file information class. `input`: the names that are queried.
fn query(
    world: &mut World,
    client: &mut Client,
    open: u64,
    class: u8,
    input: &[u8],
) -> (NtStatus, Vec<u8>) {
    let mut body = Vec::new();
    body.put_slice(&[41, 0, 1, class]);
    body.put_u32_le(4096);
    body.put_u16_le(104);
    body.put_u16_le(0);
    body.put_u32_le(input.len() as u32);
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_slice(&file_id(open));
    body.put_slice(input);
    let response = world.one(client, Ask::new(Command::QUERY_INFO, body));
    let data = match response.status() {
        NtStatus::SUCCESS => {
            let length = u32::from_le_bytes(response.body[4..8].try_into().unwrap()) as usize;
            response.body[8..8 + length].to_vec()
        }
        _ => Vec::new(),
    };
    (response.status(), data)
}

const FULL_EA: u8 = 15;
const EA: u8 = 7;
const ALL: u8 = 18;

#[test]
fn attributes_are_set_and_queried() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let mut bob = world.client(Protection::Encrypted);
        let first = [one("first", b"of the create")];
        let ask = Opening::of("f").with_contexts(&[(b"ExtA", &encoded(&first))]);
        let open = world.one(&mut ann, ask).open();
        let other = world.one(&mut bob, Opening::of("f").ask()).open();
        let found = query(world, &mut bob, other, FULL_EA, &[]);
        assert_eq!(found, (NtStatus::SUCCESS, encoded(&first)));
        let second = [one("first", b""), one("second", b"2")];
        let done = world.one(&mut ann, set(open, &second));
        assert_eq!(done.status(), NtStatus::SUCCESS);
        let expected = encoded(&second[1..]);
        let found = query(world, &mut bob, other, FULL_EA, &[]);
        assert_eq!(found, (NtStatus::SUCCESS, expected.clone()));
        let name = b"\0\0\0\0\x05FIRST\0";
        let found = query(world, &mut bob, other, FULL_EA, name);
        assert_eq!(found, (NtStatus::SUCCESS, encoded(&[one("FIRST", b"")])));
        let size = (expected.len() as u32).to_le_bytes();
        let (_, found) = query(world, &mut bob, other, EA, &[]);
        assert_eq!(found, size);
        let (_, found) = query(world, &mut bob, other, ALL, &[]);
        assert_eq!(found[72..76], size);
        world.one(&mut ann, set(open, &[one("second", b"")]));
        let (status, _) = query(world, &mut bob, other, FULL_EA, &[]);
        assert_eq!(status, NtStatus::NO_EAS_ON_FILE);
    });
}

#[test]
fn what_is_malformed_or_not_granted_is_refused() {
    let mut world = World::new(None);
    let mut ann = world.client(Protection::Plain);
    let mut looking = Opening::of("f");
    looking.access = 0x0012_0089;
    let made = world.one(&mut ann, Opening::of("f").ask()).open();
    let open = world.one(&mut ann, looking.ask()).open();
    let refused = world.one(&mut ann, set(open, &[one("a", b"x")]));
    assert_eq!(refused.status(), NtStatus::ACCESS_DENIED);
    let refused = world.one(&mut ann, set(made, &[one("a*", b"x")]));
    assert_eq!(refused.status(), NtStatus::INVALID_EA_NAME);
    let ask = Opening::of("g").with_contexts(&[(b"ExtA", &[1, 2, 3])]);
    let refused = world.one(&mut ann, ask);
    assert_eq!(refused.status(), NtStatus::EA_LIST_INCONSISTENT);
    assert!(!world.disk.exists("g"));
    let (status, _) = query(&mut world, &mut ann, open, FULL_EA, &[1]);
    assert_eq!(status, NtStatus::EA_LIST_INCONSISTENT);
}

/// MS-SMB2 2.2.35: FILE_NOTIFY_CHANGE_EA.
#[test]
fn changes_of_attributes_are_reported() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let mut bob = world.client(Protection::Plain);
        let open = world.one(&mut bob, Opening::of("f").ask()).open();
        let mut root = Opening::of("");
        root.disposition = client::OPEN;
        root.options = client::DIRECTORY;
        let root = world.one(&mut ann, root.ask()).open();
        let interim = world.one(&mut ann, client::notify(root, filter::EA, false));
        assert_eq!(interim.status(), NtStatus::PENDING);
        world.one(&mut bob, set(open, &[one("a", b"x")]));
        let seen = world.received(&ann).remove(0).notices();
        assert_eq!(seen, [(action::MODIFIED, "f".to_owned())]);
    });
}
