//! Sets security descriptors from a client on a file.

use crate::input::Input;
use outlast::fs::security;
use rustix::fs::Mode;
use std::os::fd::OwnedFd;

const OWNER_GROUP_DACL: u32 = 7;

fn file(mode: u16) -> OwnedFd {
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(u32::from(mode) & 0o777)).expect("its mode");
    fd
}

/// Owner, group, mode.
fn state(fd: &OwnedFd) -> (u32, u32, u32) {
    let stat = rustix::fs::fstat(fd).expect("the file's state");
    (stat.st_uid, stat.st_gid, stat.st_mode)
}

/// The descriptor is refused and nothing changes; or it is set, and then setting what a query shows changes nothing.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let fd = file(input.u16());
    let information = u32::from(input.byte());
    let before = state(&fd);
    let descriptor = match input.byte() {
        0 => input.rest().to_vec(),
        _ => {
            let mut own = security::query(&fd, OWNER_GROUP_DACL)
                .expect("a descriptor")
                .to_vec();
            input.edit(&mut own);
            own
        }
    };
    if security::set(&fd, information, &descriptor).is_err() {
        assert_eq!(state(&fd), before, "what was refused has changed the file");
    }
    let settled = state(&fd);
    let shown = security::query(&fd, OWNER_GROUP_DACL).expect("a descriptor");
    security::set(&fd, OWNER_GROUP_DACL, &shown).expect("what is shown can be set");
    assert_eq!(
        state(&fd),
        settled,
        "the descriptor shown, set again, has changed the file"
    );
}

/// Its own descriptors, and one with every kind of entry.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [0o644_u16, 0o755, 0o600, 0o777]
        .iter()
        .map(|mode| {
            let mut seed = mode.to_le_bytes().to_vec();
            seed.extend([OWNER_GROUP_DACL as u8, 0]);
            seed.extend(security::query(&file(*mode), OWNER_GROUP_DACL).expect("a descriptor"));
            seed
        })
        .collect();
    // A null DACL, a denied entry, CREATOR OWNER, generic rights.
    let mut seed = vec![0xa4, 1, 4, 0, 1, 0, 4, 0x80];
    seed.extend([0; 8]);
    seed.extend([0; 4]);
    seed.extend(20_u32.to_le_bytes());
    seed.extend([2, 0, 48, 0, 2, 0, 0, 0]);
    for (kind, authority, sub) in [(1_u8, 1_u8, 0_u32), (0, 3, 0)] {
        seed.extend([
            kind, 0, 20, 0, 0, 0, 0, 0x40, 1, 1, 0, 0, 0, 0, 0, authority,
        ]);
        seed.extend(sub.to_le_bytes());
    }
    seeds.push(seed);
    seeds
}
