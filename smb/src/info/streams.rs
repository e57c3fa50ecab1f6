//! Encodes FileStreamInformation (MS-FSCC 2.4.49).

use super::{Answer, begin_entry, utf16_len};
use crate::wire::utf16;
use bytes::BufMut;
use outlast_fsa::fileop::StreamEntry;
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// The length of an entry without its name, in bytes.
const FIXED: usize = 24;

/// Encodes the streams of a file, as many as fit into `limit` bytes: no entry is cut (MS-FSA 2.1.5.12.29).
///
/// # Errors
/// `INFO_LENGTH_MISMATCH` for a limit below the length of an entry without its name, `BUFFER_OVERFLOW` if the first one
/// does not fit.
pub fn encode(entries: &[StreamEntry], limit: usize) -> Result<Answer, NtStatus> {
    if limit < FIXED {
        return Err(NtStatus::INFO_LENGTH_MISMATCH);
    }
    let mut bytes: Vec<u8> = Vec::new();
    let mut last = None;
    for entry in entries {
        let start = bytes.len().next_multiple_of(8);
        if start + FIXED + utf16::len(&entry.name) > limit {
            return match last {
                None => Err(NtStatus::BUFFER_OVERFLOW),
                Some(_) => Ok(Answer {
                    bytes,
                    overflow: true,
                }),
            };
        }
        begin_entry(&mut bytes, &mut last, 8);
        bytes.put_u32_le(0); // NextEntryOffset
        bytes.put_u32_le(utf16_len(&entry.name));
        bytes.put_u64_le(entry.end_of_file);
        bytes.put_u64_le(entry.allocation_size);
        utf16::push(&entry.name, &mut bytes);
    }
    Ok(Answer {
        bytes,
        overflow: false,
    })
}
