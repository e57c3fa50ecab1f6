use std::io::Cursor;

use super::*;

/// A log as QEMU writes it.
struct Writer {
    log: Vec<u8>,
    entries: u64,
}

impl Writer {
    fn new() -> Writer {
        Writer {
            log: vec![0; SECTOR as usize],
            entries: 0,
        }
    }

    fn entry(&mut self, sector: u64, flags: u64, data: &[u8]) {
        for word in [sector, data.len() as u64 / SECTOR, flags, 0] {
            self.log.extend(word.to_le_bytes());
        }
        self.log.extend([0; SECTOR as usize - 32]);
        self.log.extend(data);
        self.entries += 1;
    }

    /// Writes sectors filled with this byte.
    fn write(&mut self, sector: u64, sectors: usize, fill: u8) {
        self.entry(sector, 0, &vec![fill; sectors * SECTOR as usize]);
    }

    fn flush(&mut self) {
        self.entry(0, FLUSH, &[]);
        let mut superblock = Vec::new();
        for word in [MAGIC, VERSION, self.entries, SECTOR] {
            superblock.extend(word.to_le_bytes());
        }
        self.log[..superblock.len()].copy_from_slice(&superblock);
    }

    fn entries(&self) -> Vec<Entry> {
        entries(&mut Cursor::new(&self.log)).expect("a log")
    }

    /// The first byte of each of eight sectors after a power cut.
    fn cut(&self, seed: u64) -> Vec<u8> {
        let outcome = power_cut(&self.entries(), &mut Rng(seed));
        let mut disk = vec![0; 8 * SECTOR as usize];
        apply(
            &outcome,
            &mut Cursor::new(&self.log),
            &mut Cursor::new(&mut disk),
        )
        .expect("a disk");
        disk.chunks(SECTOR as usize)
            .map(|sector| {
                assert!(
                    sector.iter().all(|byte| *byte == sector[0]),
                    "a torn sector"
                );
                sector[0]
            })
            .collect()
    }
}

#[test]
fn flushed_data_are_there_and_any_subset_of_the_rest() {
    let mut writer = Writer::new();
    writer.write(0, 4, 1);
    writer.flush();
    writer.write(1, 2, 2);
    writer.write(2, 2, 3);
    let found: std::collections::BTreeSet<_> = (0..1000).map(|seed| writer.cut(seed)).collect();
    let mut possible = std::collections::BTreeSet::new();
    for one in [1, 2] {
        for two in [1, 2, 3] {
            for three in [1, 3] {
                possible.insert(vec![1, one, two, three, 0, 0, 0, 0]);
            }
        }
    }
    assert_eq!(found, possible);
}

#[test]
fn without_a_flush_everything_may_be_lost() {
    let mut writer = Writer::new();
    writer.write(0, 1, 1);
    assert!((0..100).any(|seed| writer.cut(seed)[0] == 0));
    assert!((0..100).any(|seed| writer.cut(seed)[0] == 1));
}

#[test]
fn a_forced_write_is_there_and_what_came_before_it_need_not_be() {
    let mut writer = Writer::new();
    writer.write(0, 1, 1);
    writer.entry(1, FUA, &[2; SECTOR as usize]);
    let found: std::collections::BTreeSet<_> = (0..100).map(|seed| writer.cut(seed)).collect();
    assert!(found.iter().all(|disk| disk[1] == 2));
    assert!(found.iter().any(|disk| disk[0] == 0));
}

#[test]
fn a_flush_with_data_promises_what_came_before_it_alone() {
    let mut writer = Writer::new();
    writer.write(0, 1, 1);
    writer.entry(1, FLUSH, &[2; SECTOR as usize]);
    let found: std::collections::BTreeSet<_> = (0..100).map(|seed| writer.cut(seed)).collect();
    assert!(found.iter().all(|disk| disk[0] == 1));
    assert!(found.iter().any(|disk| disk[1] == 0));
}

#[test]
fn an_incomplete_entry_counts_as_far_as_it_is_in_the_log() {
    let mut writer = Writer::new();
    writer.write(0, 1, 1);
    writer.flush();
    writer.write(0, 4, 2);
    let end = writer.log.len();
    writer.log.truncate(end - SECTOR as usize - 100);
    assert_eq!(writer.entries().last().expect("entries").sectors, 2);
    // not even its header
    writer.log.truncate(end - 4 * SECTOR as usize - 1);
    assert_eq!(writer.entries().len(), 2);
}

#[test]
fn discarded_sectors_take_no_place_in_the_log() {
    let mut writer = Writer::new();
    writer.write(0, 1, 1);
    for word in [0, 8, DISCARD, 0] {
        writer.log.extend(u64::to_le_bytes(word));
    }
    writer.log.extend([0; SECTOR as usize - 32]);
    writer.entries += 1;
    writer.write(1, 1, 2);
    writer.flush();
    assert_eq!(writer.cut(0)[..3], [1, 2, 0]);
}

#[test]
fn without_a_cut_everything_is_there() {
    let mut writer = Writer::new();
    writer.write(0, 4, 1);
    writer.flush();
    writer.write(2, 4, 2);
    let outcome = everything(&writer.entries());
    let mut disk = vec![0; 8 * SECTOR as usize];
    let mut log = Cursor::new(&writer.log);
    apply(&outcome, &mut log, &mut Cursor::new(&mut disk)).expect("a disk");
    let found: Vec<_> = disk.iter().step_by(SECTOR as usize).copied().collect();
    assert_eq!(found, [1, 1, 2, 2, 2, 2, 0, 0]);
}

#[test]
fn a_disk_never_written_to_is_as_it_was() {
    assert_eq!(entries(&mut Cursor::new(&[0; 0])).expect("a log"), []);
}

#[test]
fn malformed_logs_are_refused() {
    let mut writer = Writer::new();
    writer.write(0, 1, 1);
    writer.flush();
    let refused = |log: &[u8]| entries(&mut Cursor::new(log)).is_err();
    let good = &writer.log;
    assert!(!refused(good));
    let mut magic = good.clone();
    magic[0] ^= 1;
    assert!(refused(&magic));
    let mut sector_size = good.clone();
    sector_size[25] = 16;
    assert!(refused(&sector_size));
    let mut flags = good.clone();
    flags[SECTOR as usize + 16] = 16;
    assert!(refused(&flags));
    // a hole where an entry should be
    let mut hole = good.clone();
    hole[3 * SECTOR as usize..].fill(0);
    assert!(refused(&hole));
    // the superblock mentions a flush that is not there
    assert!(refused(&good[..3 * SECTOR as usize]));
}
