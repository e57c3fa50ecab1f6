use super::*;

#[test]
fn times_are_exact_and_round_trip() {
    for time in [
        116_444_736_000_000_000,
        116_444_735_999_999_999,
        133_774_848_001_234_567,
        1,
    ] {
        let unix = from_file_time(time);
        let mut stamp = rustix::fs::statx(
            rustix::fs::CWD,
            "/",
            rustix::fs::AtFlags::empty(),
            StatxFlags::BASIC_STATS,
        )
        .unwrap()
        .stx_mtime;
        stamp.tv_sec = unix.tv_sec;
        stamp.tv_nsec = unix.tv_nsec as u32;
        assert_eq!(to_file_time(&stamp), time);
    }
}

#[test]
fn sambas_format_in_both_versions() {
    let info = DosInfo {
        attributes: Some(0x22),
        creation_time: Some(0x01D0_49E1_679D_41C6),
        change: None,
    };
    assert_eq!(parse(&format(&info)), Some(info));
    let set = DosInfo {
        change: Some(SetChange { time: 7, set_at: 9 }),
        ..info
    };
    assert_eq!(parse(&format(&set)), Some(set));
    // As Samba 4.0 writes it: "0x20", version 3.
    let mut old = b"0x20\0\0\x03\0\x03\0\0\0\x11\0\0\0\x20\0\0\0".to_vec();
    old.extend([0; 20]);
    old.extend(0x01D0_49E1_679D_41C6_u64.to_le_bytes());
    old.extend([0; 8]);
    assert_eq!(
        parse(&old),
        Some(DosInfo {
            attributes: Some(0x20),
            creation_time: Some(0x01D0_49E1_679D_41C6),
            change: None
        })
    );
    for length in 0..old.len() - 8 {
        assert_eq!(parse(&old[..length]).and_then(|i| i.creation_time), None);
    }
    assert_eq!(parse(b"0x20\0\0\x09\0\x09\0"), None);
}
