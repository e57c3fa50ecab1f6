use crate::command::Reply;
use crate::tests::fixture::{Fixture, file_id, metadata};
use crate::wire::query_directory::{self, *};
use crate::wire::{self, Dialect};
use outlast_fsa::fileop::{DirEntry, FileOp, Outcome};
use outlast_fsa::pattern::{Pattern, fold};
use outlast_fsa::status::NtStatus;

const LISTER: u64 = 10;

fn fixture() -> Fixture {
    let mut fixture = Fixture::new(Dialect::Smb311);
    fixture.open_file(LISTER, "dir", true, 0x0012_0089);
    fixture.open_file(11, "file", false, 0x0012_0089);
    fixture.open_file(12, "dir", true, 0x80);
    fixture
}

fn query(pattern: &str, flags: u8, output_buffer_length: u32) -> query_directory::Request {
    query_directory::Request {
        file_information_class: 12, // FileNamesInformation
        flags,
        file_index: 0,
        file_id: file_id(LISTER),
        pattern: pattern.into(),
        output_buffer_length,
    }
}

/// A directory with these names, as the file system lists it.
fn directory(names: &[&str], op: &FileOp) -> Result<Outcome, NtStatus> {
    let FileOp::QueryDirectory {
        open: LISTER,
        pattern,
        after,
        limit,
    } = op
    else {
        panic!("{op:?}");
    };
    let pattern = Pattern::new(pattern);
    let mut names: Vec<&str> = names
        .iter()
        .copied()
        .filter(|n| pattern.matches(n))
        .collect();
    names.sort_by_key(|n| fold(n));
    let rest = names
        .into_iter()
        .filter(|n| after.as_ref().is_none_or(|after| fold(n) > fold(after)));
    let mut entries: Vec<DirEntry> = rest
        .map(|name| DirEntry {
            name: name.into(),
            metadata: metadata(name, false),
            file_id: 1,
        })
        .collect();
    let more = entries.len() > *limit as usize;
    entries.truncate(*limit as usize);
    Ok(Outcome::Entries { entries, more })
}

/// The names in a reply.
fn names(reply: Result<Reply, NtStatus>) -> Result<Vec<String>, NtStatus> {
    let wire::Response::QueryDirectory(response) = reply?.response else {
        panic!("no listing");
    };
    let (mut names, mut rest) = (Vec::new(), &response.data[..]);
    loop {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        names.push(wire::utf16::decode(&rest[12..12 + word(8)]).unwrap());
        match word(0) {
            0 => return Ok(names),
            next => rest = &rest[next..],
        }
    }
}

fn list(
    fixture: &mut Fixture,
    request: query_directory::Request,
    dir: &[&str],
) -> Result<Vec<String>, NtStatus> {
    names(fixture.run(&wire::Request::QueryDirectory(request), |op| {
        directory(dir, op)
    }))
}

#[test]
fn the_client_buffer_decides_how_far_a_listing_gets() {
    let mut fixture = fixture();
    let dir = ["e", "b", "a", "d", "c"];
    // Room for two names of one character: 14 bytes, padded to 16, and 14.
    assert_eq!(list(&mut fixture, query("*", 0, 30), &dir).unwrap(), ["a"]);
    let cursor = &fixture.file(LISTER).cursor;
    assert_eq!(cursor.after.as_deref(), Some("a"));
    assert_eq!(
        list(&mut fixture, query("*", 0, 200), &dir).unwrap(),
        ["b", "c", "d", "e"]
    );
    assert_eq!(
        list(&mut fixture, query("*", 0, 200), &dir),
        Err(NtStatus::NO_MORE_FILES)
    );
}

#[test]
fn entries_that_do_not_fit_come_next_time() {
    let mut fixture = fixture();
    let long = "x".repeat(100);
    let dir = ["a", long.as_str(), "z"];
    // The file system returns three; the first fits the buffer.
    let length = 200;
    let got = list(&mut fixture, query("*", 0, length), &dir).unwrap();
    assert_eq!(got, ["a"]);
    assert_eq!(
        list(&mut fixture, query("*", 0, length), &dir),
        Err(NtStatus::BUFFER_OVERFLOW)
    );
    assert_eq!(
        list(&mut fixture, query("*", 0, 1000), &dir).unwrap(),
        [long.as_str(), "z"]
    );
}

#[test]
fn changes_meanwhile_neither_repeat_nor_skip_names() {
    let mut fixture = fixture();
    let one = |pattern| query(pattern, FLAG_RETURN_SINGLE_ENTRY, 1000);
    assert_eq!(list(&mut fixture, one("*"), &["b", "d"]).unwrap(), ["b"]);
    assert_eq!(
        list(&mut fixture, one("*"), &["a", "c", "d"]).unwrap(),
        ["c"]
    );
    assert_eq!(list(&mut fixture, one("*"), &["d"]).unwrap(), ["d"]);
    assert_eq!(
        list(&mut fixture, one("*"), &["d"]),
        Err(NtStatus::NO_MORE_FILES)
    );
}

#[test]
fn patterns_stay_until_the_listing_begins_again() {
    let mut fixture = fixture();
    let dir = ["a.c", "b.c", "a.h"];
    let next = |pattern, flags| query(pattern, flags | FLAG_RETURN_SINGLE_ENTRY, 1000);
    assert_eq!(list(&mut fixture, next("*.c", 0), &dir).unwrap(), ["a.c"]);
    assert_eq!(list(&mut fixture, next("*.h", 0), &dir).unwrap(), ["b.c"]);
    assert_eq!(
        list(&mut fixture, next("", FLAG_RESTART_SCANS), &dir).unwrap(),
        ["a.c"]
    );
    assert_eq!(
        list(&mut fixture, next("*.h", FLAG_RESTART_SCANS), &dir).unwrap(),
        ["a.h"]
    );
    assert_eq!(
        list(&mut fixture, next("", FLAG_REOPEN), &dir).unwrap(),
        ["a.c"]
    );
    assert_eq!(list(&mut fixture, next("", 0), &dir).unwrap(), ["a.h"]);
}

#[test]
fn nothing_matches() {
    let mut fixture = fixture();
    assert_eq!(
        list(&mut fixture, query("x", 0, 100), &["a"]),
        Err(NtStatus::NO_SUCH_FILE)
    );
    assert_eq!(
        list(&mut fixture, query("x", 0, 100), &["a"]),
        Err(NtStatus::NO_MORE_FILES)
    );
    let restart = query("x", FLAG_RESTART_SCANS, 100);
    assert_eq!(
        list(&mut fixture, restart, &["a"]),
        Err(NtStatus::NO_SUCH_FILE)
    );
}

#[test]
fn refusals() {
    let mut fixture = fixture();
    let good = query("*", 0, 100);
    for (request, status) in [
        (
            query_directory::Request {
                file_id: file_id(11),
                ..good.clone()
            },
            NtStatus::INVALID_PARAMETER,
        ),
        (
            query_directory::Request {
                file_id: file_id(12),
                ..good.clone()
            },
            NtStatus::ACCESS_DENIED,
        ),
        (
            query_directory::Request {
                file_id: file_id(99),
                ..good.clone()
            },
            NtStatus::FILE_CLOSED,
        ),
        (
            query_directory::Request {
                file_information_class: 4,
                ..good.clone()
            },
            NtStatus::INVALID_INFO_CLASS,
        ),
        (query("*", 0, 11), NtStatus::INFO_LENGTH_MISMATCH),
        (query("a\\b", 0, 100), NtStatus::OBJECT_NAME_INVALID),
        (
            query(&"?".repeat(256), 0, 100),
            NtStatus::OBJECT_NAME_INVALID,
        ),
    ] {
        assert_eq!(list(&mut fixture, request, &["a"]), Err(status));
    }
}
