use super::*;
use proptest::prelude::*;

fn temporary(mode: u32) -> OwnedFd {
    let fd = rustix::fs::memfd_create("security", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).unwrap();
    fd
}

#[test]
fn a_descriptor_read_and_set_again_changes_nothing() {
    // The last three give a wider class more than a narrower one.
    for mode in [
        0o640, 0o755, 0o600, 0o444, 0o777, 0o2751, 0o604, 0o047, 0o171,
    ] {
        let fd = temporary(mode);
        let descriptor = query(&fd, OWNER | GROUP | DACL).unwrap();
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0)).unwrap();
        set(&fd, OWNER | GROUP | DACL, &descriptor).unwrap();
        let now = u32::from(stat(&fd).unwrap().stx_mode) & 0o777;
        assert_eq!(now, mode & 0o777, "{mode:o}");
    }
}

#[test]
fn what_linux_cannot_express_is_refused() {
    let fd = temporary(0o644);
    let domain_user = Sid::new(5, &[21, 1, 2, 3, 1104]);
    let mut dacl = vec![
        1, 0, 4, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0,
    ];
    write_acl(
        &[(ACE_ALLOWED, domain_user, right::FILE_ALL_ACCESS)],
        &mut dacl,
    );
    assert_eq!(set(&fd, DACL, &dacl), Err(NONE_MAPPED));
    assert_eq!(set(&fd, OWNER, &dacl), Err(INVALID_OWNER));
    assert_eq!(
        set(&fd, DACL, &dacl[..30]),
        Err(NtStatus::INVALID_PARAMETER)
    );
    assert_eq!(u32::from(stat(&fd).unwrap().stx_mode) & 0o777, 0o644);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_damage_is_read_without_harm(at in 0_usize..80, byte: u8) {
        let fd = temporary(0o644);
        let mut descriptor = query(&fd, OWNER | GROUP | DACL).unwrap().to_vec();
        if let Some(slot) = descriptor.get_mut(at) {
            *slot = byte;
        }
        if let Some(Descriptor { dacl: Some(Some(dacl)), .. }) = parse(&descriptor) {
            let _ = mode_of(&dacl, 0, 0);
        }
    }
}
