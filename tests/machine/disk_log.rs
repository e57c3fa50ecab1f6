//! Computes the content of a disk with a volatile cache after a power cut from the log that QEMU's `blklogwrites`
//! driver keeps of all writes and flushes. The log's format is that of Linux' dm-log-writes
//! (drivers/md/dm-log-writes.c): little-endian, in sectors; first a superblock, then entries, each one sector followed
//! by its data.
//!
//! A disk promises what was written before the last flush, and nothing of what was written later: of that, any sectors
//! may have reached the medium, in any order.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::support::Rng;

#[cfg(test)]
#[path = "disk_log/tests.rs"] // the demonstration has this file in another place
mod tests;

/// Unit of the log, which a disk writes completely or not at all.
pub const SECTOR: u64 = 512;

const MAGIC: u64 = 0x006A_7366_7773_6872;
const VERSION: u64 = 1;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place on the disk, in sectors.
    pub sector: u64,
    /// Sectors of data that are in the log. Some of the last entry's may be missing: it was being written when QEMU was
    /// killed.
    pub sectors: u64,
    /// The place of the data in the log, in sectors.
    pub data: u64,
    /// Everything completed before this entry is on the medium.
    pub flush: bool,
    /// These data are on the medium (force unit access).
    pub fua: bool,
}

/// Reads the log's entries; not their data.
///
/// # Errors
/// It cannot be read, or is no such log.
pub fn entries(log: &mut (impl Read + Seek)) -> io::Result<Vec<Entry>> {
    let end = log.seek(SeekFrom::End(0))? / SECTOR;
    let mut entries = Vec::new();
    if end == 0 {
        // nothing was written, or not even that was logged
        return Ok(entries);
    }
    // the superblock is written with each flush
    let [magic, version, promised, sector_size] = words(log, 0)?;
    if magic != 0 && (magic, version, sector_size as u32) != (MAGIC, VERSION, SECTOR as u32) {
        return Err(invalid(
            "this is not a log of writes, or not in sectors of 512 bytes",
        ));
    }
    let mut at = 1;
    while at < end {
        let [sector, sectors, flags, length] = words(log, at)?;
        if flags & !(FLUSH | FUA | DISCARD) != 0 || length != 0 || (sectors, flags) == (0, 0) {
            return Err(invalid(&format!("sector {at} of the log is not an entry")));
        }
        // discarded data may read as anything, so also as before
        let sectors = if flags & DISCARD == 0 { sectors } else { 0 };
        let data = at + 1;
        entries.push(Entry {
            sector,
            sectors: sectors.min(end - data),
            data,
            flush: flags & FLUSH != 0,
            fua: flags & FUA != 0,
        });
        at = data.saturating_add(sectors);
    }
    if (entries.len() as u64) < promised {
        return Err(invalid("the log ends before what its superblock promises"));
    }
    Ok(entries)
}

fn words(log: &mut (impl Read + Seek), sector: u64) -> io::Result<[u64; 4]> {
    let mut bytes = [0; 32];
    log.seek(SeekFrom::Start(sector * SECTOR))?;
    log.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks();
    Ok([0, 1, 2, 3].map(|word| u64::from_le_bytes(words[word])))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Sectors to copy from the log to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub from: u64,
    pub to: u64,
    pub sectors: u64,
}

/// The outcome of the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The sectors on the medium, in the order of writing.
    pub pieces: Vec<Piece>,
    /// Sectors written after the last flush, and how many of those are lost.
    pub unflushed: u64,
    pub lost: u64,
}

/// Everything that was written: the machine stopped while its disk had power.
pub fn everything(entries: &[Entry]) -> Outcome {
    let pieces = entries.iter().map(whole).collect();
    Outcome {
        pieces,
        ..Outcome::default()
    }
}

/// The outcome of a power cut: everything up to the last flush, all FUA writes, and some of the rest. Of each later
/// write nothing is there, or all, or some of its sectors.
///
/// The order in which the surviving writes reached the medium does not matter: of a sector written twice any version
/// may be found, which depends on the surviving writes.
pub fn power_cut(entries: &[Entry], rng: &mut Rng) -> Outcome {
    // a flush covers earlier entries, not the data of its own
    let flushed = entries.iter().rposition(|entry| entry.flush).unwrap_or(0);
    let (before, after) = entries.split_at(flushed);
    let mut outcome = everything(before);
    for entry in after {
        if entry.fua {
            outcome.pieces.push(whole(entry));
            continue;
        }
        outcome.unflushed += entry.sectors;
        match rng.below(4) {
            0 => outcome.lost += entry.sectors,
            1 => outcome.pieces.push(whole(entry)),
            _ => {
                for sector in 0..entry.sectors {
                    if rng.below(2) == 0 {
                        outcome.lost += 1;
                    } else {
                        outcome.pieces.push(Piece {
                            from: entry.data + sector,
                            to: entry.sector + sector,
                            sectors: 1,
                        });
                    }
                }
            }
        }
    }
    outcome
}

fn whole(entry: &Entry) -> Piece {
    Piece {
        from: entry.data,
        to: entry.sector,
        sectors: entry.sectors,
    }
}

/// Changes a disk from its state at the log's beginning to that of the outcome.
///
/// # Errors
/// The log cannot be read, or the disk not be written.
pub fn apply(
    outcome: &Outcome,
    log: &mut (impl Read + Seek),
    disk: &mut (impl Write + Seek),
) -> io::Result<()> {
    for piece in &outcome.pieces {
        log.seek(SeekFrom::Start(piece.from * SECTOR))?;
        disk.seek(SeekFrom::Start(piece.to * SECTOR))?;
        let length = piece.sectors * SECTOR;
        if io::copy(&mut log.by_ref().take(length), disk)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
