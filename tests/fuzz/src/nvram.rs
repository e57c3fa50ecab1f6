//! Opens log files: any bytes, and whole logs with changes, whose checksums are corrected where that leads deeper.

use crate::input::Input;
use outlast_nvram::{Error, Identity, Incarnation, Kind, Log, VecMemory};
use std::sync::Arc;

const IDENTITY: Identity = Identity {
    instance: [7; 16],
    incarnation: incarnation(9),
};

const fn incarnation(boot: u8) -> Incarnation {
    Incarnation {
        host: [5; 16],
        boot: [boot; 16],
    }
}

// Of docs/log-format.md.
const SLOTS: [usize; 2] = [0, 4096];
const SLOT_LEN: usize = 128;
const HEAD: usize = 8192;
const TAIL: usize = 8192 + 128;
const RING: usize = 12288;
const HEADER_LEN: usize = 44;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn position(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) >> 8 << 3
}

fn put_word(bytes: &mut [u8], at: usize, position: u64) {
    let units = position / 8;
    let check = units
        .to_le_bytes()
        .iter()
        .fold(0xa5, |check, byte| check ^ byte);
    put(bytes, at, &(units << 8 | u64::from(check)).to_le_bytes());
}

/// The places of the records between tail and head, as far as they can be followed.
fn records(bytes: &[u8]) -> Vec<usize> {
    let ring = (bytes.len() - RING) / 8 * 8;
    let (mut position, head) = (position(bytes, TAIL), position(bytes, HEAD));
    let mut found = Vec::new();
    while position < head && found.len() < 10_000 {
        let offset = (position % ring as u64) as usize;
        if ring - offset < HEADER_LEN {
            position += (ring - offset) as u64;
            continue;
        }
        let at = RING + offset;
        let payload = u64::from(u32_at(bytes, at + 32)) + u64::from(u32_at(bytes, at + 36));
        found.push(at);
        position += (HEADER_LEN as u64 + payload).next_multiple_of(8);
    }
    found
}

/// Corrects the checksums of slots and records, and the chain.
fn reseal(bytes: &mut [u8], chain: bool) {
    for at in SLOTS {
        let sum = crc32c::crc32c(&bytes[at..at + SLOT_LEN - 4]);
        put(bytes, at + SLOT_LEN - 4, &sum.to_le_bytes());
    }
    let mut previous = None;
    for at in records(bytes) {
        let (mut meta_end, mut end) = (at + HEADER_LEN, at + HEADER_LEN);
        if bytes[at + 28] != 0 {
            meta_end += u32_at(bytes, at + 32) as usize;
            end = meta_end + u32_at(bytes, at + 36) as usize;
        }
        if end > bytes.len() {
            return;
        }
        let data_sum = crc32c::crc32c(&bytes[meta_end..end]);
        put(bytes, at + 40, &data_sum.to_le_bytes());
        if let Some(sum) = previous.filter(|_| chain) {
            put(bytes, at + 4, &u32::to_le_bytes(sum));
        }
        let sum = crc32c::crc32c(&bytes[at + 4..meta_end]);
        put(bytes, at, &sum.to_le_bytes());
        previous = Some(sum);
    }
}

/// A log that has been in use.
fn image(input: &mut Input<'_>) -> Vec<u8> {
    let memory = Arc::new(VecMemory::new((16 << 10) + 8 * usize::from(input.byte())));
    let mut log = Log::format(memory.clone(), IDENTITY).expect("a log");
    let mut held = std::collections::VecDeque::new();
    for _ in 0..input.byte() {
        let choice = input.byte();
        let object = u64::from(choice >> 4 & 3);
        let len = usize::from(input.byte());
        // A refused append was impossible: no room, no such object.
        let appended = match choice & 7 {
            0 | 1 => log.append(object, Kind::Snapshot, &vec![choice; len], &[]),
            2..=4 => log.append(object, Kind::Delta, &[choice; 3], &[&vec![choice; 2 * len]]),
            5 if len > 200 => log.append(object, Kind::End, &[], &[]),
            5 => {
                let kind = [Kind::Begin, Kind::Part, Kind::Complete][len % 3];
                log.append(object, kind, &[choice], &[])
            }
            6 => {
                let wanted = log.wants_relocation(0, 0);
                let again = wanted.map_or(object, |wanted| wanted.object);
                log.append(again, Kind::Snapshot, &[choice], &[])
            }
            _ => {
                log.commit();
                continue;
            }
        };
        held.extend(appended);
        if held.len() > 4 {
            held.pop_front();
        }
    }
    log.commit();
    memory.to_vec()
}

/// Checks that there is an error, and the file is unchanged; or a log that can be continued, and then holds its records
/// and the added ones.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let bytes = match input.below(8) {
        0 => input.rest().to_vec(),
        how => {
            let mut bytes = image(&mut input);
            while !input.is_empty() {
                let value = input.number();
                let value = &value.to_le_bytes()[..input.pick(&[1, 4, 8])];
                let records = records(&bytes);
                match input.below(4) {
                    0 if !records.is_empty() => {
                        let at = records[input.u16() as usize % records.len()]
                            + input.below(HEADER_LEN + 8);
                        if at + 8 <= bytes.len() {
                            put(&mut bytes, at, value);
                        }
                    }
                    1 => {
                        let at = input.pick(&SLOTS) + input.below(SLOT_LEN - 8);
                        put(&mut bytes, at, value);
                    }
                    2 => {
                        let at = input.pick(&[HEAD, TAIL]);
                        let moved = position(&bytes, at)
                            .wrapping_add_signed(i64::from(input.byte() as i8) * 8);
                        put_word(
                            &mut bytes,
                            at,
                            if input.yes() { moved } else { input.u64() },
                        );
                    }
                    _ => {
                        let at = input.u16() as usize % (bytes.len() - 8);
                        put(&mut bytes, at, value);
                    }
                }
            }
            if how > 2 {
                reseal(&mut bytes, how > 4);
            }
            bytes
        }
    };
    judge(bytes);
}

/// The content of a log.
fn contents(log: &outlast_nvram::Contents) -> Vec<(u64, Kind, Vec<u8>, Vec<u8>)> {
    let records = log.records.iter();
    records
        .map(|it| (it.object, it.kind, it.meta.to_vec(), it.data.to_vec()))
        .collect()
}

pub(crate) fn judge(bytes: Vec<u8>) {
    let memory = Arc::new(VecMemory::from_bytes(&bytes));
    let inspected = Log::inspect(&*memory);
    let opened = Log::open(memory.clone());
    assert_eq!(memory.to_vec(), bytes, "opening has changed the file");
    let (mut log, found) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(
                inspected.is_err(),
                "`nvram show` reads what the server refuses: {error}"
            );
            assert!(!error.to_string().is_empty());
            if matches!(error, Error::Blank) {
                Log::format(memory, IDENTITY).expect("a blank file can be formatted");
            }
            return;
        }
    };
    let before = contents(&found);
    assert_eq!(
        contents(&inspected.expect("an openable log can be inspected")),
        before
    );
    let held: usize = before
        .iter()
        .map(|(_, _, meta, data)| meta.len() + data.len())
        .sum();
    assert!(
        held <= bytes.len(),
        "more is read back than the file can hold"
    );
    if log.begin_epoch(incarnation(1)).is_err() {
        return;
    }
    let added = log
        .append(u64::MAX, Kind::Snapshot, b"added", &[b"data"])
        .is_ok();
    log.commit();
    drop((log, found));
    let (_, after) = Log::open(memory).expect("a continued log can be opened");
    let mut expected: Vec<_> = before;
    if added {
        expected.retain(|(object, ..)| *object != u64::MAX);
        expected.push((
            u64::MAX,
            Kind::Snapshot,
            b"added".to_vec(),
            b"data".to_vec(),
        ));
    }
    assert_eq!(contents(&after), expected);
}

/// Logs of several ages, unchanged and changed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![0; 1 << 10]];
    for how in [1_u8, 3, 7] {
        for steps in [0_u8, 10, 100, 250] {
            let mut seed = vec![how, 3, steps];
            for step in 0..steps {
                seed.extend([
                    [0x00, 0x12, 0x07, 0x23, 0x10, 0x06, 0x02, 0x15, 0x07][usize::from(step % 9)]
                        | (step & 3) << 4,
                    step,
                ]);
            }
            seeds.push(seed.clone());
            seed.extend([5, 0, 0, 0, 0, 8]);
            seeds.push(seed);
        }
    }
    seeds
}
