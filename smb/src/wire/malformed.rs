//! Enumerates the violations of message formats, with the status of each.

use outlast_fsa::status::NtStatus;

/// A violation of the message formats of MS-SMB2 section 2 (MS-CIFS 2.2.4.52 for the SMB1 NEGOTIATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Malformed {
    #[error("NetBIOS packet type {0:#04x} is not a session message")]
    FrameType(u8),
    #[error("message of {0} bytes is longer than the limit")]
    MessageTooLong(usize),
    #[error("message ends before its fixed part does")]
    Truncated,
    #[error("protocol id {0:#010x} is none of SMB's")]
    ProtocolId(u32),
    #[error("SMB1 command {0:#04x} where only NEGOTIATE is served")]
    Smb1Command(u8),
    #[error("SMB1 dialect list is not made of 0x02 and zero-terminated strings")]
    Smb1Dialects,
    #[error("header StructureSize {0} is not 64")]
    HeaderSize(u16),
    #[error("NextCommand {0} is not a multiple of 8, or points outside the message")]
    NextCommand(u32),
    #[error("more than {0} requests in one message")]
    TooManyComponents(usize),
    #[error("StructureSize {got} where the command has {want}")]
    StructureSize { got: u16, want: u16 },
    #[error("command {0:#06x} does not exist")]
    UnknownCommand(u16),
    #[error("buffer at offset {offset}, length {length} lies outside the request")]
    BufferBounds { offset: u32, length: u32 },
    #[error("UTF-16 string of {0} bytes has an odd length")]
    OddString(usize),
    #[error("UTF-16 string has an unpaired surrogate")]
    Surrogate,
    #[error("string contains a zero character")]
    ZeroCharacter,
    #[error("NEGOTIATE without dialects")]
    NoDialects,
    #[error("negotiate contexts overrun the request or one another")]
    NegotiateContexts,
    #[error("negotiate context of type {0:#06x} is given twice")]
    DuplicateNegotiateContext(u16),
    #[error("negotiate context of type {0:#06x} is empty or too short")]
    NegotiateContext(u16),
    #[error("create contexts overrun the request or one another")]
    CreateContexts,
    #[error("CreateDisposition {0} does not exist")]
    CreateDisposition(u32),
    #[error("ImpersonationLevel {0} does not exist")]
    ImpersonationLevel(u32),
    #[error("LOCK with {0} elements")]
    LockCount(u16),
    #[error("transform header's OriginalMessageSize {0} is not what follows it")]
    TransformSize(u32),
    #[error("transform header's flags {0:#06x} do not say encrypted with the connection's cipher")]
    TransformFlags(u16),
}

impl Malformed {
    /// Returns the status of the response to a request with this violation (unless the connection is dropped for it).
    #[must_use]
    pub fn status(self) -> NtStatus {
        match self {
            // MS-SMB2 3.3.5.9, ImpersonationLevel.
            Malformed::ImpersonationLevel(_) => NtStatus::BAD_IMPERSONATION_LEVEL,
            Malformed::Surrogate | Malformed::ZeroCharacter => NtStatus::OBJECT_NAME_INVALID,
            _ => NtStatus::INVALID_PARAMETER,
        }
    }
}

impl<'a> From<nom::Err<nom::error::Error<&'a [u8]>>> for Malformed {
    /// The parsers fail only because the bytes end too early.
    fn from(_: nom::Err<nom::error::Error<&'a [u8]>>) -> Malformed {
        Malformed::Truncated
    }
}
