//! Format version 4, byte by byte, and what is refused: earlier versions too, unless they hold nothing.

use outlast_nvram::{
    Contents, Error, Flag, Handled, Identity, Incarnation, Kind, Log, MIN_MEMORY, Memory, Suspect,
    VecMemory,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::sync::Arc;
use std::time::Duration;

/// Format version 4 as first written. It is never made again: a change of format is a new version and a new file.
const GOLDEN: &[u8] = include_bytes!("golden-v4.nvram");
/// Earlier versions.
const OLDER: [(u32, &[u8]); 3] = [
    (1, include_bytes!("golden-v1.nvram")),
    (2, include_bytes!("golden-v2.nvram")),
    (3, include_bytes!("golden-v3.nvram")),
];
const INCARNATION: Incarnation = Incarnation {
    host: [8; 16],
    boot: [9; 16],
};
const RING_AT: usize = 12288;
const RING_LEN: usize = 4096;
const HEADER_LEN: usize = 44;

/// Writes what the golden file holds.
fn write_golden() -> Vec<u8> {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let identity = Identity {
        instance: *b"instance 0123456",
        incarnation: Incarnation {
            host: *b"host id of first",
            boot: *b"boot id of first",
        },
    };
    let mut log = Log::format(memory.clone(), identity).unwrap();
    log.set_flag(Flag::NonElectiveReboot);
    log.append(0, Kind::Snapshot, b"clock", &[]).unwrap();
    log.append(1, Kind::Snapshot, b"object one", &[b"queued ", b"bytes"])
        .unwrap();
    log.append(2, Kind::Snapshot, b"object two", &[]).unwrap();
    log.commit();
    // Wraps around the end of the ring, with padding there, and moves the tail.
    for filler in 0..3u8 {
        log.append(2, Kind::Delta, b"filler", &[&[filler; 1200]])
            .unwrap();
        if filler < 2 {
            log.append(0, Kind::Snapshot, b"clock", &[]).unwrap();
        }
        log.append(1, Kind::Snapshot, b"object one again", &[])
            .unwrap();
        log.append(2, Kind::Snapshot, b"object two again", &[])
            .unwrap();
        log.commit();
    }
    log.append(2, Kind::End, b"", &[]).unwrap();
    log.commit();
    // A whole snapshot of several records, with a change to a part that it has not written yet; and an incomplete one.
    log.append(1, Kind::Begin, b"object one, first", &[])
        .unwrap();
    log.append(1, Kind::Delta, b"change between", &[]).unwrap();
    log.commit();
    log.append(1, Kind::Part, b"object one, more", &[]).unwrap();
    log.append(1, Kind::Complete, b"object one, last", &[])
        .unwrap();
    log.commit();
    log.append(0, Kind::Begin, b"incomplete", &[]).unwrap();
    log.append(0, Kind::Part, b"incomplete", &[]).unwrap();
    log.commit();
    log.append(1, Kind::Delta, b"never committed", &[]).unwrap();
    log.count_death(Handled { object: 3, what: 0 });
    log.handle(Some(Handled { object: 1, what: 0 }));
    drop(log);
    let (mut log, _) = Log::open(memory.clone()).unwrap();
    log.begin_epoch(Incarnation {
        host: *b"host id of other",
        boot: *b"boot id of other",
    })
    .unwrap();
    log.set_clock_anchor(Duration::from_micros(1_234_567));
    log.append(3, Kind::Snapshot, b"object three", &[b"its data"])
        .unwrap();
    log.append(1, Kind::Delta, b"change", &[b"received"])
        .unwrap();
    log.commit();
    memory.to_vec()
}

fn open(bytes: &[u8]) -> Result<Contents, Error> {
    let memory = Arc::new(VecMemory::from_bytes(bytes));
    let inspected = Log::inspect(&*memory);
    let opened = Log::open(memory.clone());
    assert_eq!(memory.to_vec(), bytes, "left as it was");
    assert_eq!(inspected.is_ok(), opened.is_ok());
    let contents = opened?.1;
    assert_eq!(inspected.unwrap().records, contents.records);
    Ok(contents)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Positions from the words.
fn tail_and_head(bytes: &[u8]) -> (usize, usize) {
    let position = |at| (u64_at(bytes, at) >> 8) as usize * 8;
    (position(8192 + 128), position(8192))
}

#[test]
fn the_golden_file_is_read() {
    let contents = open(GOLDEN).unwrap();
    assert_eq!(contents.superblock.version, 4);
    assert_eq!(contents.superblock.instance, *b"instance 0123456");
    let Incarnation { host, boot } = contents.superblock.incarnation;
    assert_eq!(host, *b"host id of other");
    assert_eq!(boot, *b"boot id of other");
    assert_eq!(
        (contents.superblock.epoch, contents.superblock.recoveries),
        (2, 1)
    );
    assert_eq!(contents.superblock.flag, Flag::NonElectiveReboot);
    assert_eq!(
        contents.superblock.clock_anchor,
        Duration::from_micros(1_234_567)
    );
    let records: Vec<_> = contents
        .records
        .iter()
        .map(|record| {
            (
                record.object,
                record.kind,
                &record.meta[..],
                &record.data[..],
            )
        })
        .collect();
    let expected: Vec<(u64, Kind, &[u8], &[u8])> = vec![
        (0, Kind::Snapshot, b"clock", b""),
        (1, Kind::Begin, b"object one, first", b""),
        (1, Kind::Delta, b"change between", b""),
        (1, Kind::Part, b"object one, more", b""),
        (1, Kind::Complete, b"object one, last", b""),
        (3, Kind::Snapshot, b"object three", b"its data"),
        (1, Kind::Delta, b"change", b"received"),
    ];
    assert_eq!(records, expected);
    let handled = |object| Handled { object, what: 0 };
    assert_eq!(contents.handled, Some(handled(1)));
    let suspect = Suspect {
        handled: handled(3),
        deaths: 1,
    };
    assert_eq!(contents.suspect, Some(suspect));
}

/// The file is left as it is, and the message says what to do. (`open` checks the former.)
#[test]
fn earlier_versions_are_refused() {
    for (version, golden) in OLDER {
        let error = open(golden).unwrap_err();
        assert!(
            matches!(error, Error::OlderVersion { found, known: 4, clean: false } if found == version),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains(&format!("version is {version}")), "{text}");
        assert!(text.contains("outlast stop"), "{text}");
    }
}

#[test]
fn earlier_versions_that_hold_nothing_may_be_formatted() {
    for (_, golden) in OLDER {
        let mut bytes = golden.to_vec();
        for slot in [0, 4096] {
            bytes[slot + 12] = 1;
        }
        seal(&mut bytes);
        let error = open(&bytes).unwrap_err();
        assert!(matches!(error, Error::OlderVersion { clean: true, .. }));
        let memory = Arc::new(VecMemory::from_bytes(&bytes));
        let (instance, host, boot) = ([1; 16], [2; 16], [3; 16]);
        let incarnation = Incarnation { host, boot };
        let identity = Identity {
            instance,
            incarnation,
        };
        drop(Log::format(memory.clone(), identity).unwrap());
        let contents = Log::open(memory).unwrap().1;
        assert_eq!(contents.superblock.version, 4);
        assert!(contents.records.is_empty());
    }
}

#[test]
fn the_golden_file_is_what_is_written_today() {
    assert!(
        write_golden() == GOLDEN,
        "the format has changed: it needs a new version"
    );
}

//= patent claim-43, claim-44
#[test]
fn the_flag_has_all_its_values() {
    for flag in [
        Flag::Clean,
        Flag::NonElectiveReboot,
        Flag::ElectiveReboot,
        Flag::NonElectiveTakeover,
        Flag::ElectiveTakeover,
    ] {
        let memory = Arc::new(VecMemory::from_bytes(GOLDEN));
        Log::open(memory.clone()).unwrap().0.set_flag(flag);
        let contents = Log::open(memory).unwrap().1;
        assert_eq!(contents.superblock.flag, flag);
        assert_eq!(contents.records.len(), 7, "the state beside it stays");
    }
}

#[test]
fn the_layout_is_as_documented() {
    // Both slots are the same.
    assert_eq!(GOLDEN[..128], GOLDEN[4096..4096 + 128]);
    let slot = &GOLDEN[..128];
    assert_eq!(&slot[..8], b"OUTLAST\n");
    assert_eq!((u32_at(slot, 8), u32_at(slot, 12)), (4, 2));
    assert_eq!(u64_at(slot, 16), 4);
    assert_eq!(&slot[24..40], b"instance 0123456");
    assert_eq!(&slot[40..56], b"boot id of other");
    assert_eq!((u32_at(slot, 56), u32_at(slot, 60)), (2, 1));
    assert_eq!(u64_at(slot, 64), 1_234_567);
    assert_eq!(
        (u64_at(slot, 72), u64_at(slot, 80)),
        (MIN_MEMORY, RING_LEN as u64)
    );
    assert_eq!(u32_at(slot, 88), 0, "not shipped to a sink");
    assert_eq!(&slot[92..108], b"host id of other");
    assert!(slot[108..124].iter().all(|byte| *byte == 0));
    assert_eq!(u32_at(slot, 124), crc32c::crc32c(&slot[..124]));

    for at in [8192, 8192 + 128] {
        let word = &GOLDEN[at..at + 8];
        assert_eq!(
            word[0],
            word[1..].iter().fold(0xa5, |check, byte| check ^ byte)
        );
    }
    // Object 1 is in progress; object 3 has caused one death.
    assert_eq!(u64_at(GOLDEN, 8448), 2);
    assert_eq!(u64_at(GOLDEN, 8456), 1 << 56 | 4);
    let (tail, head) = tail_and_head(GOLDEN);
    assert!(tail < RING_LEN && head > RING_LEN, "it goes round");

    // The last record: 44 bytes of header, "change", "received", padded to 64.
    let last = &GOLDEN[RING_AT + (head - 64) % RING_LEN..][..64];
    let before = &GOLDEN[RING_AT + (head - 64 - 64) % RING_LEN..];
    assert_eq!(u32_at(last, 0), crc32c::crc32c(&last[4..50]));
    assert_eq!(u32_at(last, 4), u32_at(before, 0));
    assert_eq!(u64_at(last, 8) as usize, head - 64);
    assert_eq!(u64_at(last, 16), 1);
    assert_eq!(u32_at(last, 24), 2);
    assert_eq!(last[28..32], [2, 0, 0, 0]);
    assert_eq!((u32_at(last, 32), u32_at(last, 36)), (6, 8));
    assert_eq!(u32_at(last, 40), crc32c::crc32c(b"received"));
    assert_eq!(&last[44..58], b"changereceived");
}

/// Returns every byte that matters, from tail to head, by the documented layout: whether a change of it must be
/// detected.
fn bytes_that_matter(bytes: &[u8]) -> Vec<usize> {
    let (tail, head) = tail_and_head(bytes);
    let mut counting = Vec::new();
    let mut position = tail;
    while position < head {
        let offset = position % RING_LEN;
        if RING_LEN - offset < HEADER_LEN {
            position += RING_LEN - offset;
            continue;
        }
        let record = &bytes[RING_AT + offset..];
        let payload = (u32_at(record, 32) + u32_at(record, 36)) as usize;
        let covered = HEADER_LEN + if record[28] == 0 { 0 } else { payload };
        counting.extend(RING_AT + offset..RING_AT + offset + covered);
        position += (HEADER_LEN + payload).next_multiple_of(8);
    }
    counting
}

#[test]
fn damage_of_any_committed_byte_is_seen() {
    let whole = open(GOLDEN).unwrap();
    let counting = bytes_that_matter(GOLDEN);
    assert!(counting.len() > 500);
    for change in [0x01, 0x80, 0xff] {
        for &at in &counting {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] ^= change;
            let error = open(&bytes).expect_err("damage was not seen");
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
        for at in (8192..8200).chain(8320..8328) {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] ^= change;
            assert!(matches!(open(&bytes), Err(Error::WordDamaged { .. })));
        }
        // A damaged slot: the other one has the same content.
        for at in (0..128).chain(4096..4096 + 128) {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] ^= change;
            assert_eq!(open(&bytes).unwrap().superblock, whole.superblock);
        }
    }
    let mut bytes = GOLDEN.to_vec();
    bytes[30] ^= 1;
    bytes[4096 + 30] ^= 1;
    assert!(matches!(open(&bytes), Err(Error::SuperblockDamaged)));
}

/// Gives both slots a right checksum.
fn seal(bytes: &mut [u8]) {
    for slot in [0, 4096] {
        let checksum = crc32c::crc32c(&bytes[slot..slot + 124]);
        bytes[slot + 124..slot + 128].copy_from_slice(&checksum.to_le_bytes());
    }
}

#[test]
fn an_unknown_version_is_refused() {
    let mut bytes = GOLDEN.to_vec();
    bytes[8] = 5;
    bytes[4096 + 8] = 5;
    seal(&mut bytes);
    let error = open(&bytes).unwrap_err();
    assert!(matches!(
        error,
        Error::UnknownVersion { found: 5, known: 4 }
    ));
    assert!(error.to_string().contains("version 5"));
}

#[test]
fn what_is_no_log_is_refused() {
    assert!(matches!(
        open(&vec![0; MIN_MEMORY as usize]),
        Err(Error::Blank)
    ));
    assert!(matches!(
        open(&vec![b'x'; MIN_MEMORY as usize]),
        Err(Error::NotALog)
    ));
    for len in [0, 7, 128, 8192, MIN_MEMORY as usize - 1] {
        assert!(matches!(open(&GOLDEN[..len]), Err(Error::TooSmall { .. })));
    }
    let mut longer = GOLDEN.to_vec();
    longer.extend_from_slice(&[0; 4096]);
    assert!(matches!(open(&longer), Err(Error::LengthChanged { .. })));
}

fn word(units: u64) -> [u8; 8] {
    let units = units & (u64::MAX >> 8);
    let check = units
        .to_le_bytes()
        .into_iter()
        .fold(0xa5, |check, byte| check ^ byte);
    (units << 8 | u64::from(check)).to_le_bytes()
}

/// Opens it; if that works, continues with it.
fn open_and_continue(bytes: &[u8]) {
    if open(bytes).is_err() {
        return;
    }
    let memory = Arc::new(VecMemory::from_bytes(bytes));
    let (mut log, _) = Log::open(memory.clone()).unwrap();
    if log.begin_epoch(INCARNATION).is_ok() {
        for object in 0..4 {
            let _ = log.append(object, Kind::Snapshot, b"on", &[b"and on"]);
            log.commit();
        }
        Log::inspect(&*memory).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::with_cases(300)
    })]

    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..20_000), magic: bool, sealed: bool) {
        if bytes.len() > 8192 && magic {
            bytes[..12].copy_from_slice(b"OUTLAST\n\x03\0\0\0");
        }
        if bytes.len() > 8192 && sealed {
            seal(&mut bytes);
        }
        open_and_continue(&bytes);
    }

    /// Golden bytes with changes; checksums of slots and words are corrected, so that the code behind them is reached.
    #[test]
    fn changed_bytes(
        edits in proptest::collection::vec((0..GOLDEN.len(), any::<u8>()), 0..8),
        slot_edits in proptest::collection::vec((8..124usize, any::<u8>()), 0..2),
        words in proptest::option::of((any::<u64>(), 0..800u64)),
    ) {
        let mut bytes = GOLDEN.to_vec();
        for (at, byte) in edits {
            bytes[at] = byte;
        }
        for (at, byte) in slot_edits {
            bytes[at] = byte;
        }
        seal(&mut bytes);
        if let Some((tail, used)) = words {
            bytes[8320..8328].copy_from_slice(&word(tail));
            bytes[8192..8200].copy_from_slice(&word(tail.wrapping_add(used)));
        }
        open_and_continue(&bytes);
    }

    /// Records with correct checksums and positions, but any kind, epoch, object and lengths.
    #[test]
    fn any_records(
        records in proptest::collection::vec((0..8u8, 0..4u32, 0..4u64, 0..200u32, any::<u32>(), any::<bool>()), 1..20),
    ) {
        let mut bytes = GOLDEN.to_vec();
        let ring = &mut bytes[RING_AT..];
        let (mut position, mut previous) = (0, 0u32);
        for (kind, epoch, object, meta_len, data_len, sane) in records {
            if position + HEADER_LEN > RING_LEN {
                break;
            }
            let data_len = if sane { data_len % 100 } else { data_len };
            let mut header = [0; HEADER_LEN];
            header[4..8].copy_from_slice(&previous.to_le_bytes());
            header[8..16].copy_from_slice(&(position as u64).to_le_bytes());
            header[16..24].copy_from_slice(&object.to_le_bytes());
            header[24..28].copy_from_slice(&epoch.to_le_bytes());
            header[28] = kind;
            header[32..36].copy_from_slice(&meta_len.to_le_bytes());
            header[36..40].copy_from_slice(&data_len.to_le_bytes());
            let meta_end = position + HEADER_LEN + meta_len as usize;
            let len = meta_end - position + data_len as usize;
            let end = (position + len).min(RING_LEN);
            let own_end = meta_end.min(end);
            let data_checksum = crc32c::crc32c(&ring[own_end..end]);
            header[40..44].copy_from_slice(&data_checksum.to_le_bytes());
            ring[position..position + HEADER_LEN].copy_from_slice(&header);
            previous = crc32c::crc32c(&ring[position + 4..own_end]);
            ring[position..position + 4].copy_from_slice(&previous.to_le_bytes());
            position = (position + len).next_multiple_of(8).min(RING_LEN);
        }
        bytes[8320..8328].copy_from_slice(&word(0));
        bytes[8192..8200].copy_from_slice(&word(position as u64 / 8));
        open_and_continue(&bytes);
    }
}

#[test]
fn a_memory_is_as_long_as_it_says() {
    assert_eq!(VecMemory::from_bytes(GOLDEN).len(), GOLDEN.len() as u64);
    assert!(!VecMemory::new(1).is_empty());
}
