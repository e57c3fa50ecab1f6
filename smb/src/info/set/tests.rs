use super::*;
use proptest::prelude::*;

fn rename(root: u64, length: u32, name: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&root.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(name);
    bytes
}

#[test]
fn basic_times() {
    let mut bytes = Vec::new();
    for time in [0u64, u64::MAX, u64::MAX - 1, 77] {
        bytes.extend_from_slice(&time.to_le_bytes());
    }
    bytes.extend_from_slice(&0x21u32.to_le_bytes());
    assert_eq!(
        SetFile::parse(4, &bytes),
        Ok(SetFile::Basic(SetBasic {
            change_time: Some(77),
            attributes: Some(0x21),
            stop: Times {
                access: true,
                write: false,
                change: true,
            },
            resume: Times {
                write: true,
                ..Times::default()
            },
            ..SetBasic::default()
        }))
    );
    assert_eq!(
        SetFile::parse(4, &bytes[..35]),
        Err(NtStatus::INFO_LENGTH_MISMATCH)
    );
    bytes[0..8].copy_from_slice(&(u64::MAX - 2).to_le_bytes());
    assert_eq!(SetFile::parse(4, &bytes), Err(NtStatus::INVALID_PARAMETER));
}

#[test]
fn attributes_zero_leaves_them_and_unknown_ones_are_dropped() {
    let of = |attributes: u32| {
        let mut bytes = vec![0; 32];
        bytes.extend_from_slice(&attributes.to_le_bytes());
        match SetFile::parse(4, &bytes) {
            Ok(SetFile::Basic(basic)) => basic.attributes,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(0), None);
    assert_eq!(of(0x8000_0002), Some(2));
    assert_eq!(of(0x800), Some(0x80)); // FILE_ATTRIBUTE_COMPRESSED alone: none of ours is left
}

#[test]
fn rename_and_link() {
    let parsed = SetFile::parse(10, &rename(0, 6, b"a\0\\\0b\0\xFF\xFF")).unwrap();
    assert_eq!(
        parsed,
        SetFile::Rename {
            replace: true,
            target: "a\\b".into()
        }
    );
    assert_eq!(parsed.needed_access(), access::DELETE);
    assert!(matches!(
        SetFile::parse(11, &rename(0, 2, b"a\0")),
        Ok(SetFile::Link { .. })
    ));
    for (bytes, status) in [
        (rename(1, 2, b"a\0"), NtStatus::INVALID_PARAMETER),
        (rename(0, 3, b"a\0b"), NtStatus::INVALID_PARAMETER),
        (rename(0, 0, b""), NtStatus::INVALID_PARAMETER),
        (rename(0, 4, b"a\0"), NtStatus::INVALID_PARAMETER),
        (rename(0, u32::MAX, b"a\0"), NtStatus::INVALID_PARAMETER),
        (rename(0, 2, b"\0\xD8"), NtStatus::OBJECT_NAME_INVALID),
        (vec![0; 19], NtStatus::INFO_LENGTH_MISMATCH),
    ] {
        assert_eq!(SetFile::parse(10, &bytes), Err(status), "{bytes:?}");
    }
}

#[test]
fn sizes_and_the_rest() {
    let eight = 9u64.to_le_bytes();
    assert_eq!(SetFile::parse(20, &eight), Ok(SetFile::EndOfFile(9)));
    assert_eq!(SetFile::parse(19, &eight), Ok(SetFile::Allocation(9)));
    assert_eq!(SetFile::parse(14, &eight), Ok(SetFile::Position(9)));
    assert_eq!(
        SetFile::parse(20, &[0xFF; 8]),
        Err(NtStatus::INVALID_PARAMETER)
    );
    assert_eq!(SetFile::parse(13, &[1]), Ok(SetFile::Disposition(true)));
    assert_eq!(SetFile::parse(16, &[2, 0, 0, 0]), Ok(SetFile::Mode(2)));
    assert_eq!(
        SetFile::parse(16, &[0x30, 0, 0, 0]),
        Err(NtStatus::INVALID_PARAMETER)
    );
    assert_eq!(SetFile::parse(15, &[]), Ok(SetFile::FullEa(Vec::new())));
    assert_eq!(SetFile::parse(64, &[0; 4]), Err(NtStatus::NOT_SUPPORTED));
    assert_eq!(SetFile::parse(0, &[]), Err(NtStatus::INVALID_INFO_CLASS));
}

#[test]
fn kinds() {
    let sized = SetFile::EndOfFile(0);
    assert_eq!(sized.check_kind(true), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(sized.check_kind(false), Ok(()));
    let basic = |attributes| {
        SetFile::Basic(SetBasic {
            attributes: Some(attributes),
            ..SetBasic::default()
        })
    };
    assert_eq!(basic(0x10).check_kind(true), Ok(()));
    assert_eq!(
        basic(0x10).check_kind(false),
        Err(NtStatus::INVALID_PARAMETER)
    );
    assert_eq!(
        basic(0x100).check_kind(true),
        Err(NtStatus::INVALID_PARAMETER)
    );
}

proptest! {
    #[test]
    fn any_bytes(class: u8, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(set) = SetFile::parse(class, &bytes) {
            let _ = (set.needed_access(), set.check_kind(true), set.check_kind(false));
        }
    }
}
