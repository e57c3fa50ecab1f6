//! Upper bounds of record sizes, which follow from the limits. They are checked at the start against what the log
//! takes, so that no record is refused later. SMB's records are bounded by its limits (`outlast_smb::Limits`).

use outlast_nvram::{MAX_DATA, MAX_META};

use super::effect::Place;

/// Bytes of an encoded integer, at most: a tag and its eight bytes.
const INTEGER: usize = 9;
/// Bytes of the longest path or name that a client can give: 32,767 UTF-16 units (their length in bytes is in 16
/// bits), each three bytes in UTF-8 at most.
const PATH: usize = INTEGER + 3 * 32_767;
/// Tags, flags, ids, times and addresses of any one record.
const FIXED: usize = 1024;
/// The least number of bytes per place for a write's data to be referred to by places: with many tiny segments the list
/// would be longer than the data.
pub(super) const BYTES_PER_PLACE: usize = 256;

/// Meta bytes of the longest record about TCP: the snapshot of a connection.
pub const TCP: usize = FIXED;
/// Meta bytes of the longest effect: source and target of a rename, in operation and intent, the file's own path, the
/// places of its data, and what else a request may carry (a security descriptor).
pub const EFFECT: usize = FIXED + 5 * PATH + PLACES + PAYLOAD;
const PLACES: usize = (MAX_DATA / BYTES_PER_PLACE) * 2 * INTEGER;
/// Bytes of a request, at most.
const PAYLOAD: usize = (8 << 20) + (64 << 10);
const _: () = assert!(size_of::<Place>() <= 2 * INTEGER);

/// Bytes of all recorded local accounts: some thousands with a dozen groups each.
pub(super) const ACCOUNTS: usize = 256 << 10;

/// Meta bytes of the longest record about object 0: its snapshot, with the directories of the shares, and the accounts.
#[must_use]
pub fn global<'a>(shares: impl Iterator<Item = &'a str>) -> usize {
    FIXED + ACCOUNTS + shares.map(|name| 5 * INTEGER + name.len()).sum::<usize>()
}

/// Meta bytes of the longest beginning of a generation: the names of the shares.
#[must_use]
pub fn generation<'a>(shares: impl Iterator<Item = &'a str>) -> usize {
    FIXED + shares.map(|name| INTEGER + name.len()).sum::<usize>()
}

/// Checks that every record fits into the log, whatever clients do. `shares`: their names.
///
/// # Errors
/// The record that does not fit, and the remedy.
pub fn check<'a>(shares: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let longest = global(shares);
    anyhow::ensure!(
        longest < MAX_META,
        "share.name: the names of all shares take {longest} bytes, and a record of the log has {MAX_META}: give them \
         shorter names"
    );
    const { assert!(TCP < MAX_META && EFFECT < MAX_META) };
    Ok(())
}

#[cfg(test)]
mod tests;
