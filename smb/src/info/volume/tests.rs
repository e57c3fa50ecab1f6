use super::*;

const VOLUME: Volume = Volume {
    total_bytes: 1 << 30,
    available_bytes: 1 << 20,
    free_bytes: 1 << 21,
    unit_bytes: 4096,
    serial: 0x1234_5678,
    creation_time: 0x01D0_0000_0000_0000,
    extended_attributes: true,
};

fn encoded(class: u8, limit: usize) -> Result<Answer, NtStatus> {
    encode(
        Level::from_class(class).unwrap(),
        &VOLUME,
        "pub",
        false,
        limit,
    )
}

#[test]
fn volume_label_is_cut() {
    let whole = encoded(1, 100).unwrap();
    assert_eq!(
        whole.bytes,
        [
            0, 0, 0, 0, 0, 0, 0xD0, 1, 0x78, 0x56, 0x34, 0x12, 6, 0, 0, 0, 0, 0, b'p', 0, b'u', 0,
            b'b', 0
        ]
    );
    assert!(!whole.overflow);
    let long = encode(Level::Volume, &VOLUME, "public", false, 26).unwrap();
    assert_eq!((long.bytes.len(), long.overflow), (26, true));
    assert_eq!(encoded(1, 23), Err(NtStatus::INFO_LENGTH_MISMATCH));
}

#[test]
fn sizes_in_units() {
    let full = encoded(7, 32).unwrap().bytes;
    let want: Vec<u8> = [1u64 << 18, 1 << 8, 1 << 9, 8 | 512 << 32]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    assert_eq!(full, want);
    let size = encoded(3, 24).unwrap().bytes;
    assert_eq!(size, [&want[..16], &want[24..]].concat());
}

#[test]
fn odd_units() {
    for (unit_bytes, sectors, sector_bytes) in [(0, 1, 1), (1000, 1, 1000), (131_072, 256, 512)] {
        let unit = Unit::of(&Volume {
            unit_bytes,
            ..VOLUME
        });
        assert_eq!((unit.sectors, unit.sector_bytes), (sectors, sector_bytes));
    }
}

#[test]
fn attributes_name_ntfs() {
    let bytes = encoded(5, 100).unwrap().bytes;
    assert_eq!(bytes[4..12], [255, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(&bytes[12..], b"N\0T\0F\0S\0");
    assert_eq!(bytes[..4], 0x00C4_004Eu32.to_le_bytes());
    let without = Volume {
        extended_attributes: false,
        ..VOLUME
    };
    let read_only = encode(Level::Attribute, &without, "", true, 100).unwrap();
    assert_eq!(read_only.bytes[2], 0x48);
}

#[test]
fn lengths() {
    for (class, len) in [(4, 8), (8, 64), (11, 28)] {
        assert_eq!(encoded(class, len).unwrap().bytes.len(), len);
        assert_eq!(encoded(class, len - 1), Err(NtStatus::INFO_LENGTH_MISMATCH));
    }
    assert_eq!(Level::from_class(6), Err(NtStatus::NOT_SUPPORTED));
    assert_eq!(Level::from_class(99), Err(NtStatus::INVALID_INFO_CLASS));
}
