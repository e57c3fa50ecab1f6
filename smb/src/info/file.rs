//! Encodes file information classes for QUERY_INFO (MS-FSCC 2.4, MS-SMB2 3.3.5.20.1).

use super::{Answer, client_path, utf16_len};
use crate::wire::utf16;
use bytes::BufMut;
use outlast_fsa::fileop::Metadata;
use outlast_fsa::short_name::short_name;
use outlast_fsa::status::NtStatus;
use outlast_fsa::{access, attributes, path, stream};

#[cfg(test)]
mod tests;

/// IO_REPARSE_TAG_SYMLINK (MS-FSCC 2.1.2.1), the only kind of reparse point on a share.
const IO_REPARSE_TAG_SYMLINK: u32 = 0xA000_000C;

/// A file information class that can be queried (MS-SMB2 2.2.37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are MS-FSCC's, File...Information
pub enum Level {
    Basic,
    Standard,
    Internal,
    Ea,
    Access,
    Name,
    Position,
    FullEa,
    Mode,
    Alignment,
    All,
    AlternateName,
    Stream,
    Pipe,
    PipeLocal,
    PipeRemote,
    Compression,
    NetworkOpen,
    AttributeTag,
    NormalizedName,
    Id,
}

impl Level {
    /// Decodes a FileInformationClass.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for classes that MS-FSCC defines and SMB2 does not offer, `INVALID_INFO_CLASS` for others.
    pub fn from_class(class: u8) -> Result<Level, NtStatus> {
        Ok(match class {
            4 => Level::Basic,
            5 => Level::Standard,
            6 => Level::Internal,
            7 => Level::Ea,
            8 => Level::Access,
            9 => Level::Name,
            14 => Level::Position,
            15 => Level::FullEa,
            16 => Level::Mode,
            17 => Level::Alignment,
            18 => Level::All,
            21 => Level::AlternateName,
            22 => Level::Stream,
            23 => Level::Pipe,
            24 => Level::PipeLocal,
            25 => Level::PipeRemote,
            28 => Level::Compression,
            34 => Level::NetworkOpen,
            35 => Level::AttributeTag,
            48 => Level::NormalizedName,
            59 => Level::Id,
            // The classes of MS-FSCC 2.4 end near 78; those for directories, for SET_INFO and for kernels are among
            // them.
            1..=78 => return Err(NtStatus::NOT_SUPPORTED),
            _ => return Err(NtStatus::INVALID_INFO_CLASS),
        })
    }

    /// Returns the rights that the open must have been granted (MS-SMB2 3.3.5.20.1).
    #[must_use]
    pub fn needed_access(self) -> u32 {
        match self {
            Level::Basic
            | Level::All
            | Level::Pipe
            | Level::PipeLocal
            | Level::PipeRemote
            | Level::NetworkOpen
            | Level::AttributeTag => access::READ_ATTRIBUTES,
            Level::FullEa => access::READ_EA,
            _ => 0,
        }
    }

    /// Returns whether it applies to named pipes.
    #[must_use]
    pub fn is_pipe(self) -> bool {
        matches!(self, Level::Pipe | Level::PipeLocal | Level::PipeRemote)
    }
}

/// The state of an open file that the classes report.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The file system's metadata.
    pub metadata: &'a Metadata,
    /// Path within the share, components joined by '/'.
    pub path: &'a str,
    /// Open.GrantedAccess.
    pub granted_access: u32,
    /// FILE_MODE_INFORMATION: the create options that stay with the open (MS-FSCC 2.4.31).
    pub mode: u32,
    /// The file is delete-pending.
    pub delete_pending: bool,
    /// Open.CurrentByteOffset in bytes.
    pub position: u64,
    /// EaSize, for the classes that have it.
    pub ea_size: u32,
}

/// Encodes `level` of a file, cut to `limit` bytes.
///
/// # Errors
/// `INFO_LENGTH_MISMATCH` if the fixed part does not fit; others by class.
pub fn encode(level: Level, view: &View<'_>, limit: usize) -> Result<Answer, NtStatus> {
    let m = view.metadata;
    let mut out = Vec::new();
    match level {
        Level::Basic => put_basic(&mut out, m),
        Level::Standard => put_standard(&mut out, view),
        Level::Internal => out.put_u64_le(m.key.ino),
        Level::Ea => out.put_u32_le(view.ea_size),
        Level::Access => out.put_u32_le(view.granted_access),
        Level::Position => out.put_u64_le(view.position),
        Level::Mode => out.put_u32_le(view.mode),
        Level::Alignment => out.put_u32_le(0), // FILE_BYTE_ALIGNMENT
        Level::Compression => {
            out.put_u64_le(m.end_of_file); // CompressedFileSize
            out.put_bytes(0, 8); // COMPRESSION_FORMAT_NONE, shifts, Reserved
        }
        Level::NetworkOpen => {
            out.put_u64_le(m.creation_time);
            out.put_u64_le(m.last_access_time);
            out.put_u64_le(m.last_write_time);
            out.put_u64_le(m.change_time);
            out.put_u64_le(m.allocation_size);
            out.put_u64_le(m.end_of_file);
            out.put_u32_le(m.attributes);
            out.put_u32_le(0); // Reserved
        }
        Level::AttributeTag => {
            out.put_u32_le(m.attributes);
            out.put_u32_le(if m.attributes & attributes::REPARSE_POINT == 0 {
                0
            } else {
                IO_REPARSE_TAG_SYMLINK
            });
        }
        Level::Id => {
            out.put_u64_le(m.key.dev); // VolumeSerialNumber
            out.put_u128_le(u128::from(m.key.ino));
        }
        Level::Name => {
            put_name(&mut out, &client_path(view.path));
            return Answer::cut(out, 4, limit);
        }
        Level::NormalizedName => {
            // MS-FSCC 2.4.36: relative to the share's root.
            put_name(&mut out, &view.path.replace('/', "\\"));
            return Answer::cut(out, 4, limit);
        }
        Level::All => {
            put_basic(&mut out, m);
            put_standard(&mut out, view);
            out.put_u64_le(m.key.ino);
            out.put_u32_le(view.ea_size);
            out.put_u32_le(view.granted_access);
            out.put_u64_le(view.position);
            out.put_u32_le(view.mode);
            out.put_u32_le(0); // AlignmentRequirement
            put_name(&mut out, &client_path(view.path));
            return Answer::cut(out, 100, limit);
        }
        Level::AlternateName => {
            // MS-FSA 2.1.5.12.5: the share's root has no alternate name.
            let name = path::name(stream::split(view.path).0);
            if name.is_empty() {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            put_name(&mut out, &short_name(name));
            return Answer::cut(out, 4, limit);
        }
        // `super::streams` and `super::ea` encode these lists.
        Level::Stream | Level::FullEa => return Err(NtStatus::INTERNAL_ERROR),
        // MS-FSCC 2.4.37 to 2.4.39: only for pipes.
        Level::Pipe | Level::PipeLocal | Level::PipeRemote => {
            return Err(NtStatus::INVALID_PARAMETER);
        }
    }
    Answer::fixed(out, limit)
}

/// Encodes `level` of a named pipe with `available` bytes to read.
///
/// # Errors
/// `INFO_LENGTH_MISMATCH`; `NOT_SUPPORTED` for classes that do not apply to pipes.
pub fn encode_pipe(level: Level, available: u32, limit: usize) -> Result<Answer, NtStatus> {
    /// FILE_PIPE_MESSAGE_TYPE and FILE_PIPE_MESSAGE_MODE.
    const MESSAGE: u32 = 1;
    /// The buffer size that Windows' and Samba's pipes report, in bytes.
    const QUOTA: u32 = 4096;
    let mut out = Vec::new();
    match level {
        Level::Pipe => {
            out.put_u32_le(MESSAGE); // ReadMode
            out.put_u32_le(0); // CompletionMode: FILE_PIPE_QUEUE_OPERATION
        }
        Level::PipeLocal => {
            out.put_u32_le(MESSAGE); // NamedPipeType
            out.put_u32_le(2); // NamedPipeConfiguration: FILE_PIPE_FULL_DUPLEX
            out.put_u32_le(u32::MAX); // MaximumInstances: no limit
            out.put_u32_le(1); // CurrentInstances
            out.put_u32_le(QUOTA); // InboundQuota
            out.put_u32_le(available); // ReadDataAvailable
            out.put_u32_le(QUOTA); // OutboundQuota
            out.put_u32_le(QUOTA); // WriteQuotaAvailable
            out.put_u32_le(3); // NamedPipeState: FILE_PIPE_CONNECTED_STATE
            out.put_u32_le(0); // NamedPipeEnd: FILE_PIPE_CLIENT_END
        }
        Level::PipeRemote => out.put_bytes(0, 16), // CollectDataTime, MaximumCollectionCount
        Level::Standard => {
            out.put_u64_le(u64::from(QUOTA)); // AllocationSize
            out.put_u64_le(u64::from(available)); // EndOfFile
            out.put_u32_le(1); // NumberOfLinks
            out.put_u8(1); // DeletePending: a pipe goes with its last close
            out.put_u8(0); // Directory
            out.put_u16_le(0); // Reserved
        }
        _ => return Err(NtStatus::NOT_SUPPORTED),
    }
    Answer::fixed(out, limit)
}

fn put_basic(out: &mut Vec<u8>, m: &Metadata) {
    out.put_u64_le(m.creation_time);
    out.put_u64_le(m.last_access_time);
    out.put_u64_le(m.last_write_time);
    out.put_u64_le(m.change_time);
    out.put_u32_le(m.attributes);
    out.put_u32_le(0); // Reserved
}

fn put_standard(out: &mut Vec<u8>, view: &View<'_>) {
    let m = view.metadata;
    out.put_u64_le(m.allocation_size);
    out.put_u64_le(m.end_of_file);
    // A delete-pending link is not counted (MS-FSA 2.1.5.12.27).
    out.put_u32_le(m.links.saturating_sub(u32::from(view.delete_pending)));
    out.put_u8(u8::from(view.delete_pending));
    out.put_u8(u8::from(m.is_dir));
    out.put_u16_le(0); // Reserved
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.put_u32_le(utf16_len(name));
    utf16::push(name, out);
}
