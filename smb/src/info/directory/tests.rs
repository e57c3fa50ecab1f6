use super::*;
use outlast_fsa::fileop::{FileKey, Metadata};
use proptest::prelude::*;

fn entry(name: &str) -> DirEntry {
    DirEntry {
        name: name.to_owned(),
        metadata: Metadata {
            key: FileKey {
                dev: 1,
                ino: 0x1122_3344_5566_7788,
                birth_ns: 0,
            },
            creation_time: 0x01D0_0000_0000_0001,
            last_access_time: 0x01D0_0000_0000_0002,
            last_write_time: 0x01D0_0000_0000_0003,
            change_time: 0x01D0_0000_0000_0004,
            end_of_file: 5,
            allocation_size: 4096,
            attributes: 0x20,
            links: 1,
            is_dir: false,
        },
        file_id: 0x1122_3344_5566_7788,
    }
}

const LEVELS: [Level; 7] = [
    Level::Directory,
    Level::FullDirectory,
    Level::BothDirectory,
    Level::Names,
    Level::IdBothDirectory,
    Level::IdFullDirectory,
    Level::IdExtdDirectory,
];

#[test]
fn id_both_directory_byte_for_byte() {
    let mut encoder = Encoder::new(Level::IdBothDirectory, 1000).unwrap();
    assert!(encoder.push(&entry("a.b")));
    assert!(encoder.push(&entry("é")));
    let bytes = encoder.finish();
    let mut want = Vec::new();
    for (next, name) in [(112u32, "a.b"), (0, "é")] {
        want.extend_from_slice(&next.to_le_bytes());
        want.extend_from_slice(&[0; 4]);
        for time in 1..=4u8 {
            want.extend_from_slice(&[time, 0, 0, 0, 0, 0, 0xD0, 0x01]);
        }
        want.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]);
        want.extend_from_slice(&[0x20, 0, 0, 0]);
        want.extend_from_slice(&(name.chars().count() as u32 * 2).to_le_bytes());
        want.extend_from_slice(&[0; 4]); // EaSize
        // ShortNameLength, Reserved1, ShortName: "a.b" is one itself.
        let short = if name == "é" {
            short_name(name)
        } else {
            String::new()
        };
        want.extend_from_slice(&[2 * short.len() as u8, 0]);
        let units = short.bytes().flat_map(|unit| [unit, 0]);
        want.extend(units.chain([0; 24]).take(24));
        want.extend_from_slice(&[0; 2]); // Reserved2
        want.extend_from_slice(&[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        for unit in name.encode_utf16() {
            want.extend_from_slice(&unit.to_le_bytes());
        }
        if next != 0 {
            want.resize(next as usize, 0);
        }
    }
    assert_eq!(bytes, want);
}

#[test]
fn fixed_lengths_are_those_of_the_layouts() {
    for level in LEVELS {
        let mut encoder = Encoder::new(level, level.fixed_len() + 2).unwrap();
        assert!(encoder.push(&entry("x")), "{level:?}");
        assert_eq!(encoder.finish().len(), level.fixed_len() + 2, "{level:?}");
    }
}

#[test]
fn what_does_not_fit_is_left_out_whole() {
    let level = Level::Names;
    assert_eq!(
        Encoder::new(level, 11).unwrap_err(),
        NtStatus::INFO_LENGTH_MISMATCH
    );
    let mut encoder = Encoder::new(level, 14 + 2 + 13).unwrap();
    assert!(!encoder.push(&entry("longer than that")));
    assert!(encoder.is_empty());
    assert!(encoder.push(&entry("x")));
    assert!(!encoder.push(&entry("y"))); // one byte short
    assert_eq!(
        encoder.finish(),
        [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'x', 0]
    );
}

proptest! {
    #[test]
    fn chains_can_be_walked(
        names in prop::collection::vec("\\PC{1,20}", 0..20),
        limit in 104usize..2000,
        which in 0usize..7,
    ) {
        let level = LEVELS[which];
        let mut encoder = Encoder::new(level, limit).unwrap();
        let mut pushed = 0;
        for name in &names {
            if !encoder.push(&entry(name)) { break; }
            pushed += 1;
        }
        let bytes = encoder.finish();
        prop_assert!(bytes.len() <= limit);
        let length_at = if level == Level::Names { 8 } else { 60 };
        let mut at = 0;
        for (i, name) in names.iter().take(pushed).enumerate() {
            let word = |o: usize| u32::from_le_bytes(bytes[o..o + 4].try_into().unwrap()) as usize;
            let len = word(at + length_at);
            let from = at + level.fixed_len();
            let units: Vec<u16> = bytes[from..from + len].chunks(2).map(|p| u16::from_le_bytes([p[0], p[1]])).collect();
            prop_assert_eq!(&String::from_utf16(&units).unwrap(), name);
            let next = word(at);
            prop_assert_eq!(next == 0, i + 1 == pushed);
            prop_assert_eq!(next % 8, 0);
            at += next;
        }
    }
}
