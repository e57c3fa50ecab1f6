use super::*;
use outlast_fsa::fileop::FileKey;

fn metadata() -> Metadata {
    Metadata {
        key: FileKey {
            dev: 0xD,
            ino: 0x1F,
            birth_ns: 0,
        },
        creation_time: 1,
        last_access_time: 2,
        last_write_time: 3,
        change_time: 4,
        end_of_file: 5,
        allocation_size: 8,
        attributes: 0x20,
        links: 2,
        is_dir: false,
    }
}

fn view(metadata: &Metadata) -> View<'_> {
    View {
        metadata,
        path: "d/ä",
        granted_access: 0x0012_0089,
        mode: 0x20,
        delete_pending: false,
        ea_size: 0,
        position: 7,
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn all_is_the_others_in_a_row() {
    let m = metadata();
    let answer = encode(Level::All, &view(&m), 4096).unwrap();
    let mut want = words(&[1, 2, 3, 4, 0x20, 8, 5, 2, 0x1F]);
    want.extend_from_slice(&[0, 0, 0, 0]); // EaSize
    want.extend_from_slice(&[0x89, 0, 0x12, 0]); // AccessFlags
    want.extend_from_slice(&words(&[7])); // CurrentByteOffset
    want.extend_from_slice(&[0x20, 0, 0, 0, 0, 0, 0, 0]); // Mode, AlignmentRequirement
    want.extend_from_slice(&[8, 0, 0, 0, b'\\', 0, b'd', 0, b'\\', 0, 0xE4, 0]);
    assert_eq!(answer.bytes, want);
    assert!(!answer.overflow);

    let cut = encode(Level::All, &view(&m), 101).unwrap();
    assert_eq!(cut.bytes, want[..101]);
    assert_eq!(cut.status(), NtStatus::BUFFER_OVERFLOW);
    assert_eq!(
        encode(Level::All, &view(&m), 99),
        Err(NtStatus::INFO_LENGTH_MISMATCH)
    );
}

#[test]
fn lengths_of_the_fixed_levels() {
    let m = metadata();
    for (class, len) in [
        (4, 40),
        (5, 24),
        (6, 8),
        (7, 4),
        (8, 4),
        (14, 8),
        (16, 4),
        (17, 4),
        (28, 16),
        (34, 56),
        (35, 8),
        (59, 24),
    ] {
        let level = Level::from_class(class).unwrap();
        let answer = encode(level, &view(&m), len).unwrap();
        assert_eq!(answer.bytes.len(), len, "{level:?}");
        assert!(!answer.overflow);
        assert_eq!(
            encode(level, &view(&m), len - 1),
            Err(NtStatus::INFO_LENGTH_MISMATCH)
        );
    }
}

#[test]
fn network_open_has_the_sizes_the_other_way_round() {
    let m = metadata();
    let answer = encode(Level::NetworkOpen, &view(&m), 56).unwrap();
    assert_eq!(answer.bytes, words(&[1, 2, 3, 4, 8, 5, 0x20]));
}

#[test]
fn a_delete_pending_link_is_not_counted() {
    let m = metadata();
    let pending = View {
        delete_pending: true,
        ..view(&m)
    };
    let bytes = encode(Level::Standard, &pending, 24).unwrap().bytes;
    assert_eq!(bytes[16..], [1, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn names() {
    let m = metadata();
    let at = |path| View { path, ..view(&m) };
    let name = |level, path, limit| encode(level, &at(path), limit).unwrap().bytes;
    assert_eq!(name(Level::Name, "", 64), [2, 0, 0, 0, b'\\', 0]);
    assert_eq!(name(Level::NormalizedName, "", 64), [0; 4]);
    assert_eq!(
        name(Level::NormalizedName, "a/b", 64),
        [6, 0, 0, 0, b'a', 0, b'\\', 0, b'b', 0]
    );
    // Cut, but with the whole length.
    assert_eq!(name(Level::Name, "a/b", 6), [8, 0, 0, 0, b'\\', 0]);
}

#[test]
fn the_alternate_name_is_the_short_name_or_computed() {
    let m = metadata();
    let of = |path| encode(Level::AlternateName, &View { path, ..view(&m) }, 64);
    assert_eq!(of("dir/a.t").unwrap().bytes, b"\x06\0\0\0a\0.\0t\0");
    let computed = of("dir/longer than 8.txt").unwrap().bytes;
    let name = crate::wire::utf16::decode(&computed[4..]).unwrap();
    assert_eq!(name, short_name("longer than 8.txt"));
    // A stream has none of its own.
    assert_eq!(of("dir/a.t:s").unwrap().bytes, b"\x06\0\0\0a\0.\0t\0");
    assert_eq!(of(""), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
}

#[test]
fn refusals() {
    let m = metadata();
    let pipe = Level::from_class(23).unwrap();
    let refused = encode(pipe, &view(&m), 64);
    assert_eq!(refused, Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(Level::from_class(2), Err(NtStatus::NOT_SUPPORTED));
    assert_eq!(Level::from_class(0), Err(NtStatus::INVALID_INFO_CLASS));
    assert_eq!(Level::from_class(200), Err(NtStatus::INVALID_INFO_CLASS));
}

#[test]
fn pipes() {
    let local = encode_pipe(Level::PipeLocal, 9, 40).unwrap().bytes;
    assert_eq!(local.len(), 40);
    assert_eq!(local[20..24], [9, 0, 0, 0]);
    assert_eq!(encode_pipe(Level::Pipe, 0, 8).unwrap().bytes, words(&[1]));
    assert_eq!(encode_pipe(Level::Standard, 0, 24).unwrap().bytes.len(), 24);
    assert_eq!(
        encode_pipe(Level::NetworkOpen, 0, 64),
        Err(NtStatus::NOT_SUPPORTED)
    );
}
