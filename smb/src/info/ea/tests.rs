use super::{encode, parse, parse_names, select, size};
use outlast_fsa::ea::Ea;
use outlast_fsa::status::NtStatus;

fn ea(name: &str, value: &[u8]) -> Ea {
    Ea {
        name: name.into(),
        value: value.into(),
    }
}

/// The layout of MS-FSCC 2.4.16.
const TWO: &[u8] = b"\x10\0\0\0\0\x03\x02\0one\0ab\0\0\0\0\0\0\0\x01\0\0x\0";

#[test]
fn attributes_follow_one_another_at_offsets_of_four() {
    let eas = [ea("one", b"ab"), ea("x", b"")];
    let answer = encode(&eas, 100).unwrap();
    assert_eq!((answer.bytes.as_slice(), answer.overflow), (TWO, false));
    assert_eq!(size(&eas), 26);
    assert_eq!(size(&[]), 0);
    assert_eq!(parse(TWO), Ok(eas.to_vec()));
    assert_eq!(parse(&[]), Ok(Vec::new()));
}

#[test]
fn no_attribute_is_cut() {
    let eas = [ea("one", b"ab"), ea("x", b"")];
    let answer = encode(&eas, 25).unwrap();
    assert!(answer.overflow);
    assert_eq!(answer.bytes, b"\0\0\0\0\0\x03\x02\0one\0ab");
    assert_eq!(encode(&eas, 13), Err(NtStatus::BUFFER_TOO_SMALL));
    assert_eq!(encode(&[], 100), Err(NtStatus::NO_EAS_ON_FILE));
}

#[test]
fn lists_that_are_malformed_are_refused() {
    let inconsistent = Err(NtStatus::EA_LIST_INCONSISTENT);
    for cut in 1..TWO.len() {
        let parsed = parse(&TWO[..cut]);
        assert_eq!(parsed, inconsistent, "{cut}");
    }
    for next in [1_u8, 2, 3, 15, 28, 100] {
        let mut bytes = TWO.to_vec();
        bytes[0] = next;
        assert_eq!(parse(&bytes), inconsistent, "{next}");
    }
    let mut needed = TWO.to_vec();
    needed[4] = 0x80;
    assert_eq!(parse(&needed), Err(NtStatus::INVALID_PARAMETER));
    for name in [b'*', b'=', 0x1F, 0xFF] {
        let mut bytes = TWO.to_vec();
        bytes[8] = name;
        assert_eq!(parse(&bytes), Err(NtStatus::INVALID_EA_NAME), "{name}");
    }
}

#[test]
fn attributes_are_selected_by_name() {
    let names = parse_names(b"\x0C\0\0\0\x03ONE\0\0\0\0\0\0\0\0\x04none\0").unwrap();
    assert_eq!(names, ["ONE", "none"]);
    let eas = vec![ea("x", b""), ea("one", b"ab")];
    assert_eq!(
        select(eas.clone(), &names),
        [ea("ONE", b"ab"), ea("none", b"")]
    );
    assert_eq!(select(eas.clone(), &[]), eas);
    assert_eq!(
        parse_names(b"\0\0\0\0\x03on"),
        Err(NtStatus::EA_LIST_INCONSISTENT)
    );
}
