use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Characters that a client's name may have, mostly the problematic ones.
fn sent() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        Just('a'),
        Just(' '),
        Just('.'),
        Just('ü'),
        prop::char::range('\u{F000}', '\u{F030}'),
        prop::char::range('\u{F780}', '\u{F7FF}'),
        // The bytes of "ü", of U+F7C3 and of U+F022.
        prop::sample::select(vec![
            '\u{F7C3}', '\u{F7BC}', '\u{F7EF}', '\u{F79F}', '\u{F783}', '\u{F780}', '\u{F7A2}'
        ]),
        prop::sample::select(vec![
            '\u{F02A}',
            '\u{F03A}',
            '\u{F05C}',
            '\u{F07F}',
            '\u{10FFFF}'
        ]),
    ];
    prop::collection::vec(character, 1..8).prop_map(String::from_iter)
}

/// Names on disk: pieces that are shown as something else, and bytes that are no text.
fn on_disk() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        sent().prop_map(String::into_bytes),
        prop::sample::select(vec![
            "\"", "*", ":", "\\", "|", "\u{1}", " ", ".", "\u{F029}"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let name = prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
    name.prop_filter("no file name", |name| {
        !name.contains(&b'/') && !name.contains(&0) && !matches!(name.as_slice(), b"." | b"..")
    })
}

proptest! {
    #[test]
    fn a_name_is_listed_as_it_was_created(name in sent()) {
        prop_assume!(!name.ends_with([' ', '.']));
        let disk = to_disk(&name).unwrap();
        prop_assert_eq!(from_disk(&disk), name);
    }

    #[test]
    fn every_name_on_disk_is_shown_and_leads_to_it(disk in on_disk()) {
        let shown = from_disk(&disk);
        prop_assert!(!shown.contains(is_reserved) && !shown.ends_with([' ', '.']), "{:?}", shown);
        prop_assert_eq!(to_disk(&shown).unwrap(), disk);
    }

    #[test]
    fn different_names_are_different_files(names in prop::collection::hash_set(sent(), 2..20)) {
        let mut files = HashMap::new();
        for name in names.iter().filter(|name| !name.ends_with([' ', '.'])) {
            prop_assert_eq!(files.insert(to_disk(name).unwrap(), name), None);
        }
    }
}

#[test]
fn names_from_linux_and_macos_are_the_intended_ones() {
    let sent = "\u{F020}\u{F021}\u{F022}\u{F023}\u{F024}\u{F025}\u{F026}\u{F027}\u{F001}";
    assert_eq!(to_disk(sent).unwrap(), b"\"*:<>?\\|\x01");
    assert_eq!(to_disk("10\u{F022}30").unwrap(), b"10:30");
    assert_eq!(to_disk("end\u{F028}").unwrap(), b"end ");
    assert_eq!(to_disk("end\u{F029}").unwrap(), b"end.");
    // WSL and Cygwin send U+F000 + code.
    assert_eq!(to_disk("10\u{F03A}30").unwrap(), "10\u{F03A}30".as_bytes());
    assert_ne!(to_disk("a\u{F020}b"), to_disk("a b"));
}

#[test]
fn names_that_the_former_mapping_stored_are_found_as_they_are_listed() {
    // The former mapping's names for "10:30" from macOS, `a"b` from Linux, "10:30" from Cygwin.
    for stored in [&b"10\"30"[..], b"a b", b"10:30", b"x\\y"] {
        assert_eq!(to_disk(&from_disk(stored)).unwrap(), stored);
    }
}

#[test]
fn a_space_or_period_at_the_end_is_the_one_that_is_shown() {
    for (sent, shown) in [
        ("a.", "a\u{F029}"),
        ("a ", "a\u{F028}"),
        ("...", "..\u{F029}"),
        ("a ..", "a .\u{F029}"),
    ] {
        assert_eq!(to_disk(sent), to_disk(shown), "{sent:?}");
        assert_eq!(from_disk(&to_disk(sent).unwrap()), shown);
    }
}

#[test]
fn what_is_no_name() {
    for name in ["", ".", "..", "a/b", "a\0", "a:b", "*", "\u{1}"] {
        assert_eq!(
            to_disk(name),
            Err(NtStatus::OBJECT_NAME_INVALID),
            "{name:?}"
        );
    }
    assert_eq!(to_disk(".Outlast-1"), Err(NtStatus::OBJECT_NAME_INVALID));
    assert_eq!(to_disk(&"x".repeat(256)), Err(NtStatus::NAME_TOO_LONG));
    assert_eq!(
        to_disk(&"\u{F7C3}\u{F7BC}".repeat(100)),
        Err(NtStatus::NAME_TOO_LONG)
    );
}
