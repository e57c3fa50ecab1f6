//! Encodes directory listings (MS-FSCC 2.4): a chain of entries, each at a multiple of eight bytes.

use super::{begin_entry, utf16_len};
use crate::wire::utf16;
use bytes::BufMut;
use outlast_fsa::fileop::DirEntry;
use outlast_fsa::short_name::{is_short, short_name};
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// An information class of QUERY_DIRECTORY (MS-SMB2 2.2.33).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// FileDirectoryInformation (MS-FSCC 2.4.10).
    Directory,
    /// FileFullDirectoryInformation (2.4.14).
    FullDirectory,
    /// FileBothDirectoryInformation (2.4.8).
    BothDirectory,
    /// FileNamesInformation (2.4.33).
    Names,
    /// FileIdBothDirectoryInformation (2.4.22).
    IdBothDirectory,
    /// FileIdFullDirectoryInformation (2.4.23).
    IdFullDirectory,
    /// FileIdExtdDirectoryInformation (2.4.24).
    IdExtdDirectory,
}

impl Level {
    /// Decodes a FileInformationClass.
    ///
    /// # Errors
    /// `INVALID_INFO_CLASS` for a class that does not list directories (MS-SMB2 3.3.5.18).
    pub fn from_class(class: u8) -> Result<Level, NtStatus> {
        Ok(match class {
            1 => Level::Directory,
            2 => Level::FullDirectory,
            3 => Level::BothDirectory,
            12 => Level::Names,
            37 => Level::IdBothDirectory,
            38 => Level::IdFullDirectory,
            60 => Level::IdExtdDirectory,
            _ => return Err(NtStatus::INVALID_INFO_CLASS),
        })
    }

    /// Returns the length of an entry without its name, in bytes.
    #[must_use]
    pub fn fixed_len(self) -> usize {
        match self {
            Level::Directory => 64,
            Level::FullDirectory => 68,
            Level::BothDirectory => 94,
            Level::Names => 12,
            Level::IdBothDirectory => 104,
            Level::IdFullDirectory => 80,
            Level::IdExtdDirectory => 88,
        }
    }
}

/// Writes entries into a client's output buffer until it is full.
#[derive(Debug)]
pub struct Encoder {
    level: Level,
    limit: usize,
    bytes: Vec<u8>,
    /// The offset of the last entry.
    last: Option<usize>,
}

impl Encoder {
    /// Begins a chain of at most `limit` bytes.
    ///
    /// # Errors
    /// `INFO_LENGTH_MISMATCH` without room for one entry's fixed part (MS-FSA 2.1.5.6.3).
    pub fn new(level: Level, limit: usize) -> Result<Encoder, NtStatus> {
        if limit < level.fixed_len() {
            return Err(NtStatus::INFO_LENGTH_MISMATCH);
        }
        Ok(Encoder {
            level,
            limit,
            bytes: Vec::new(),
            last: None,
        })
    }

    /// Adds an entry; returns `false` and adds nothing if it does not fit.
    pub fn push(&mut self, entry: &DirEntry) -> bool {
        let name_len = utf16_len(&entry.name);
        let start = self.bytes.len().next_multiple_of(8);
        if start + self.level.fixed_len() + name_len as usize > self.limit {
            return false;
        }
        begin_entry(&mut self.bytes, &mut self.last, 8);
        self.encode(entry, name_len);
        true
    }

    fn encode(&mut self, entry: &DirEntry, name_len: u32) {
        let (out, m) = (&mut self.bytes, &entry.metadata);
        out.put_u32_le(0); // NextEntryOffset
        out.put_u32_le(0); // FileIndex: "MUST be ignored" where it has no meaning, as here
        if self.level != Level::Names {
            out.put_u64_le(m.creation_time);
            out.put_u64_le(m.last_access_time);
            out.put_u64_le(m.last_write_time);
            out.put_u64_le(m.change_time);
            out.put_u64_le(m.end_of_file);
            out.put_u64_le(m.allocation_size);
            out.put_u32_le(m.attributes);
        }
        out.put_u32_le(name_len);
        match self.level {
            Level::Directory | Level::Names => {}
            Level::FullDirectory => out.put_u32_le(0), // EaSize
            Level::BothDirectory | Level::IdBothDirectory => {
                out.put_u32_le(0); // EaSize
                put_short_name(&entry.name, out);
                if self.level == Level::IdBothDirectory {
                    out.put_u16_le(0); // Reserved2
                    out.put_u64_le(entry.file_id);
                }
            }
            Level::IdFullDirectory => {
                out.put_u32_le(0); // EaSize
                out.put_u32_le(0); // Reserved
                out.put_u64_le(entry.file_id);
            }
            Level::IdExtdDirectory => {
                out.put_u32_le(0); // EaSize
                out.put_u32_le(0); // ReparsePointTag
                out.put_u128_le(u128::from(entry.file_id));
            }
        }
        utf16::push(&entry.name, out);
    }

    /// Returns whether it has no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Estimates how many more entries fit if their names have an ordinary length, as the limit of a request to the
    /// file system.
    #[must_use]
    pub fn room(&self) -> u32 {
        /// A name in UTF-16 and its padding, in bytes.
        const ORDINARY_NAME: usize = 28;
        let left = self.limit.saturating_sub(self.bytes.len());
        u32::try_from(left / (self.level.fixed_len() + ORDINARY_NAME)).unwrap_or(u32::MAX)
    }

    /// Returns the chain.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Writes ShortNameLength, Reserved1 and ShortName (MS-FSCC 2.4.8): empty if the name itself is an 8.3 name.
fn put_short_name(name: &str, out: &mut Vec<u8>) {
    /// Bytes of the field.
    const ROOM: usize = 24;
    let short = if is_short(name) || matches!(name, "." | "..") {
        Vec::new()
    } else {
        utf16::encode(&short_name(name))
    };
    // A short name has at most 12 characters.
    out.put_u8(u8::try_from(short.len()).unwrap_or(0));
    out.put_u8(0); // Reserved1
    out.extend_from_slice(&short);
    out.put_bytes(0, ROOM.saturating_sub(short.len()));
}
