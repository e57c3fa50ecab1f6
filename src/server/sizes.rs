//! How long records can be, as follows from what may be in them: checked at the start against what the log takes, so
//! that no record is refused later. What SMB puts into its records is bounded by its limits (`outlast_smb::Limits`).

use outlast_nvram::{MAX_DATA, MAX_META};

use super::effect::Place;

/// Bytes of an encoded integer, at most: a tag and its eight bytes.
const INTEGER: usize = 9;
/// Bytes of the longest path or name that a client can give: 32,767 UTF-16 units (their length in bytes is in 16
/// bits), each three bytes in UTF-8 at most.
const PATH: usize = INTEGER + 3 * 32_767;
/// Tags, flags, ids, times and addresses of one record, whichever it is.
const FIXED: usize = 1024;
/// A write's data are referred to by their places only where a place speaks for so many bytes: many tiny segments
/// would make a list longer than the data.
pub(super) const BYTES_PER_PLACE: usize = 256;

/// Meta bytes of the longest record about TCP: the snapshot of a connection.
pub const TCP: usize = FIXED;
/// Of the longest effect: source and target of a rename, in operation and intent, the file's own path, the places of
/// its data, and what else a request may carry (a security descriptor).
pub const EFFECT: usize = FIXED + 5 * PATH + PLACES + PAYLOAD;
const PLACES: usize = (MAX_DATA / BYTES_PER_PLACE) * 2 * INTEGER;
/// Bytes of a request, at most.
const PAYLOAD: usize = (8 << 20) + (64 << 10);
const _: () = assert!(size_of::<Place>() <= 2 * INTEGER);

/// The local accounts that are on record, together: some thousands with a dozen groups each.
pub(super) const ACCOUNTS: usize = 256 << 10;

/// Of the longest about object 0: its snapshot, with the directories of the shares, and the accounts.
#[must_use]
pub fn global<'a>(shares: impl Iterator<Item = &'a str>) -> usize {
    FIXED + ACCOUNTS + shares.map(|name| 5 * INTEGER + name.len()).sum::<usize>()
}

/// Of the longest beginning of a generation: the names of the shares.
#[must_use]
pub fn generation<'a>(shares: impl Iterator<Item = &'a str>) -> usize {
    FIXED + shares.map(|name| INTEGER + name.len()).sum::<usize>()
}

/// Does every record fit into the log, whatever clients do? `shares`: their names.
///
/// # Errors
/// What does not, and the remedy.
pub fn check<'a>(shares: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let longest = global(shares);
    anyhow::ensure!(
        longest < MAX_META,
        "share.name: the names of all shares take {longest} bytes, and a record of the log has {MAX_META}: give them shorter names"
    );
    const { assert!(TCP < MAX_META && EFFECT < MAX_META) };
    Ok(())
}

#[cfg(test)]
mod tests;
