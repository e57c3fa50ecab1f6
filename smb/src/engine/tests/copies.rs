//! Tests FSCTL_SRV_COPYCHUNK in several operations, each with an intent of its own.

use super::client::{self, Ask, Opening, Protection, read, write};
use super::sweep;
use crate::ioctl::{self, MAX_CHUNK_BYTES};
use bytes::BufMut;
use outlast_fsa::status::NtStatus;

/// FSCTL_SRV_COPYCHUNK within one file: (from, to, length) of each chunk.
fn copy(open: u64, chunks: &[(u64, u64, u32)]) -> Ask {
    let mut input = Vec::new();
    input.put_u64_le(open);
    input.put_u64_le(open);
    input.put_u64_le(0);
    input.put_u32_le(chunks.len() as u32);
    input.put_u32_le(0);
    for (from, to, length) in chunks {
        input.put_u64_le(*from);
        input.put_u64_le(*to);
        input.put_u32_le(*length);
        input.put_u32_le(0);
    }
    client::ioctl(ioctl::code::SRV_COPYCHUNK, open, &input)
}

/// Overlapping chunks in one file: each copies the result of the earlier ones.
#[test]
fn a_copy_onto_itself_is_done_once_whatever_happens() {
    const PIECE: usize = 1 << 19;
    const LENGTH: u32 = 3 * MAX_CHUNK_BYTES / 4;
    const CHUNKS: [(u64, u64, u32); 4] = [
        (0, 1000, LENGTH),
        (500, 0, LENGTH),
        (1000, 3000, MAX_CHUNK_BYTES / 4),
        (10, 20, LENGTH),
    ];
    let mut expected: Vec<u8> = (0..2 * LENGTH).map(|at| (at % 251) as u8).collect();
    let before = expected.clone();
    for (from, to, length) in CHUNKS {
        let (from, to, length) = (from as usize, to as usize, length as usize);
        expected.copy_within(from..from + length, to);
    }
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let open = world.one(&mut ann, Opening::of("f").ask()).open();
        for (at, piece) in before.chunks(PIECE).enumerate() {
            let mut ask = write(open, (at * PIECE) as u64, piece);
            ask.charge = 8;
            let written = world.one(&mut ann, ask);
            assert_eq!(written.status(), NtStatus::SUCCESS);
        }
        let copied = world.one(&mut ann, copy(open, &CHUNKS));
        assert_eq!(copied.status(), NtStatus::SUCCESS);
        let total: u32 = CHUNKS.iter().map(|(.., length)| length).sum();
        let figures = [4u32, 0, total].map(u32::to_le_bytes).concat();
        assert!(copied.body.ends_with(&figures), "{:?}", copied.body);
        for (at, piece) in expected.chunks(PIECE).enumerate() {
            let mut ask = read(open, (at * PIECE) as u64, PIECE as u32);
            ask.charge = 8;
            let data = world.one(&mut ann, ask);
            assert!(data.data() == piece, "piece {at}");
        }
        let longest = world.longest_intent();
        assert!(longest < MAX_CHUNK_BYTES as usize + 1024, "{longest}");
    });
}

/// MS-SMB2 3.3.5.15.6.1: the response contains the number of chunks written.
#[test]
fn a_copy_that_fails_midway_tells_what_it_has_copied() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let open = world.one(&mut ann, Opening::of("f").ask()).open();
        world.one(&mut ann, write(open, 0, b"0123456789"));
        let chunks = [(0, 20, 4), (2, 30, 4), (90, 40, 4), (0, 50, 4)];
        let copied = world.one(&mut ann, copy(open, &chunks));
        assert_eq!(copied.status(), NtStatus::INVALID_VIEW_SIZE);
        let figures = [2u32, 0, 8].map(u32::to_le_bytes).concat();
        assert!(copied.body.ends_with(&figures), "{:?}", copied.body);
        assert_eq!(world.one(&mut ann, read(open, 20, 4)).data(), b"0123");
        assert_eq!(world.one(&mut ann, read(open, 30, 9)).data(), b"2345");
    });
}
