//! Parses file information classes of SET_INFO (MS-FSCC 2.4, MS-SMB2 2.2.39, 3.3.5.21.1).

use super::ea;
use crate::wire::{Malformed, utf16};
use bytes::Buf;
use outlast_fsa::ea::Ea;
use outlast_fsa::fileop::{SetBasic, Times};
use outlast_fsa::status::NtStatus;
use outlast_fsa::{access, attributes};

#[cfg(test)]
mod tests;

/// The attributes allowed in SET_INFO, which may include the kind of file.
const FILE_ATTRIBUTES_SETTABLE: u32 =
    attributes::SETTABLE | attributes::DIRECTORY | attributes::NORMAL;

/// The information that a client sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetFile {
    /// FileBasicInformation.
    Basic(SetBasic),
    /// FileRenameInformation for SMB2 (MS-FSCC 2.4.42.2). The target as the client wrote it.
    Rename {
        /// ReplaceIfExists.
        replace: bool,
        /// FileName, relative to the share's root.
        target: String,
    },
    /// FileLinkInformation for SMB2 (MS-FSCC 2.4.28.2).
    Link {
        /// ReplaceIfExists.
        replace: bool,
        /// FileName, relative to the share's root.
        target: String,
    },
    /// FileDispositionInformation: DeletePending.
    Disposition(bool),
    /// FileFullEaInformation.
    FullEa(Vec<Ea>),
    /// FilePositionInformation: CurrentByteOffset.
    Position(u64),
    /// FileModeInformation.
    Mode(u32),
    /// FileAllocationInformation: AllocationSize in bytes.
    Allocation(u64),
    /// FileEndOfFileInformation: in bytes.
    EndOfFile(u64),
    /// FilePipeInformation: ReadMode and CompletionMode.
    Pipe {
        /// FILE_PIPE_BYTE_STREAM_MODE (0) or FILE_PIPE_MESSAGE_MODE (1).
        read_mode: u32,
        /// FILE_PIPE_QUEUE_OPERATION (0) or FILE_PIPE_COMPLETE_OPERATION (1).
        completion_mode: u32,
    },
}

impl SetFile {
    /// Parses the buffer of a SET_INFO on a file.
    ///
    /// # Errors
    /// `INFO_LENGTH_MISMATCH` if it is too short, `INVALID_PARAMETER` for invalid values, `INVALID_INFO_CLASS` and
    /// `NOT_SUPPORTED` for other classes; those of [`ea::parse`].
    pub fn parse(class: u8, buffer: &[u8]) -> Result<SetFile, NtStatus> {
        match class {
            4 => parse_basic(buffer).map(SetFile::Basic),
            10 => parse_target(buffer).map(|(replace, target)| SetFile::Rename { replace, target }),
            11 => parse_target(buffer).map(|(replace, target)| SetFile::Link { replace, target }),
            13 => Ok(SetFile::Disposition(u8_at_start(buffer)? != 0)),
            14 => parse_size(buffer).map(SetFile::Position),
            15 => ea::parse(buffer).map(SetFile::FullEa),
            16 => {
                // FILE_WRITE_THROUGH, FILE_SEQUENTIAL_ONLY, FILE_NO_INTERMEDIATE_BUFFERING, FILE_SYNCHRONOUS_IO_ALERT
                // and _NONALERT, of which the last two exclude each other and affect only the client (MS-FSA
                // 2.1.5.15.9).
                let mode = u32_of(&mut &*buffer)?;
                if mode & !0x0000_003E != 0 || mode & 0x30 == 0x30 {
                    return Err(NtStatus::INVALID_PARAMETER);
                }
                Ok(SetFile::Mode(mode))
            }
            19 => parse_size(buffer).map(SetFile::Allocation),
            20 => parse_size(buffer).map(SetFile::EndOfFile),
            23 => {
                let mut rest = buffer;
                let (read_mode, completion_mode) = (u32_of(&mut rest)?, u32_of(&mut rest)?);
                if read_mode > 1 || completion_mode > 1 {
                    return Err(NtStatus::INVALID_PARAMETER);
                }
                Ok(SetFile::Pipe {
                    read_mode,
                    completion_mode,
                })
            }
            39 => Err(NtStatus::PRIVILEGE_NOT_HELD), // FileValidDataLengthInformation: MS-FSA 2.1.5.15.14
            // Classes that MS-FSCC defines and MS-SMB2 2.2.39 excludes: 3.3.5.21.1.
            1..=78 => Err(NtStatus::NOT_SUPPORTED),
            _ => Err(NtStatus::INVALID_INFO_CLASS),
        }
    }

    /// Returns the rights that the open must have been granted (MS-SMB2 3.3.5.21.1).
    #[must_use]
    pub fn needed_access(&self) -> u32 {
        match self {
            SetFile::Basic(_) | SetFile::Pipe { .. } => access::WRITE_ATTRIBUTES,
            SetFile::Rename { .. } | SetFile::Disposition(_) => access::DELETE,
            SetFile::FullEa(_) => access::WRITE_EA,
            SetFile::Allocation(_) | SetFile::EndOfFile(_) => access::WRITE_DATA,
            SetFile::Link { .. } | SetFile::Position(_) | SetFile::Mode(_) => 0,
        }
    }

    /// Checks that the information applies to a file or to a directory (MS-FSA 2.1.5.15).
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for sizes and a temporary attribute of directories and for a directory attribute of files,
    /// `FILE_IS_A_DIRECTORY` for a link to a directory.
    pub fn check_kind(&self, is_dir: bool) -> Result<(), NtStatus> {
        match self {
            SetFile::Basic(basic) => {
                let attributes = basic.attributes.unwrap_or(0);
                let wrong = if is_dir {
                    attributes::TEMPORARY
                } else {
                    attributes::DIRECTORY
                };
                if attributes & wrong == 0 {
                    Ok(())
                } else {
                    Err(NtStatus::INVALID_PARAMETER)
                }
            }
            SetFile::Allocation(_) | SetFile::EndOfFile(_) if is_dir => {
                Err(NtStatus::INVALID_PARAMETER)
            }
            SetFile::Link { .. } if is_dir => Err(NtStatus::FILE_IS_A_DIRECTORY),
            _ => Ok(()),
        }
    }
}

fn u8_at_start(buffer: &[u8]) -> Result<u8, NtStatus> {
    buffer
        .first()
        .copied()
        .ok_or(NtStatus::INFO_LENGTH_MISMATCH)
}

fn u32_of(rest: &mut &[u8]) -> Result<u32, NtStatus> {
    rest.try_get_u32_le()
        .map_err(|_| NtStatus::INFO_LENGTH_MISMATCH)
}

fn u64_of(rest: &mut &[u8]) -> Result<u64, NtStatus> {
    rest.try_get_u64_le()
        .map_err(|_| NtStatus::INFO_LENGTH_MISMATCH)
}

/// Parses a byte count: a signed number that must not be negative.
fn parse_size(buffer: &[u8]) -> Result<u64, NtStatus> {
    let size = u64_of(&mut &*buffer)?;
    if size > i64::MAX as u64 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok(size)
}

/// Parses FileBasicInformation (MS-FSCC 2.4.7).
fn parse_basic(mut rest: &[u8]) -> Result<SetBasic, NtStatus> {
    let mut times = [None; 4];
    let (mut stop, mut resume) = ([false; 4], [false; 4]);
    for ((time, stop), resume) in times.iter_mut().zip(&mut stop).zip(&mut resume) {
        // MS-FSA 2.1.5.15.2: 0 keeps a time. Operations by this open no longer update a time that is set; -1 has the
        // same effect without a new value, and -2 ends it.
        match u64_of(&mut rest)? {
            0 => {}
            u64::MAX => *stop = true,
            0xFFFF_FFFF_FFFF_FFFE => *resume = true,
            value if value <= i64::MAX as u64 => (*time, *stop) = (Some(value), true),
            _ => return Err(NtStatus::INVALID_PARAMETER),
        }
    }
    // No other operation changes CreationTime.
    let which = |[_, access, write, change]: [bool; 4]| Times {
        access,
        write,
        change,
    };
    let attributes = u32_of(&mut rest)?;
    let [
        creation_time,
        last_access_time,
        last_write_time,
        change_time,
    ] = times;
    Ok(SetBasic {
        creation_time,
        last_access_time,
        last_write_time,
        change_time,
        // 0 keeps the attributes (MS-FSCC 2.4.7).
        attributes: match (attributes, attributes & FILE_ATTRIBUTES_SETTABLE) {
            (0, _) => None,
            (_, 0) => Some(attributes::NORMAL),
            (_, settable) => Some(settable),
        },
        stop: which(stop),
        resume: which(resume),
    })
}

/// Parses FILE_RENAME_INFORMATION_TYPE_2 and FILE_LINK_INFORMATION_TYPE_2: ReplaceIfExists, Reserved, RootDirectory,
/// FileNameLength, FileName.
fn parse_target(mut rest: &[u8]) -> Result<(bool, String), NtStatus> {
    let replace = u8_at_start(rest)? != 0;
    u64_of(&mut rest)?;
    if u64_of(&mut rest)? != 0 {
        return Err(NtStatus::INVALID_PARAMETER); // RootDirectory: "For network operations, this value MUST be zero"
    }
    let length = u32_of(&mut rest)? as usize;
    let name = rest.get(..length).ok_or(NtStatus::INVALID_PARAMETER)?;
    if name.is_empty() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let target = utf16::decode(name).map_err(Malformed::status)?;
    Ok((replace, target))
}
