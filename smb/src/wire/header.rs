//! Parses and encodes the SMB2 packet header, synchronous and asynchronous (MS-SMB2 2.2.1).

use bytes::BufMut;
use nom::number::complete::{le_u16, le_u32, le_u64};
use serde::{Deserialize, Serialize};

use super::body::{bytes_16, fields};
use super::{Malformed, compound};
use outlast_fsa::status::NtStatus;

/// Length of the header in bytes.
pub const LEN: usize = 64;
/// The position of the signature in the header.
pub const SIGNATURE: std::ops::Range<usize> = 48..64;

/// A command code (MS-SMB2 2.2.1.2). Unknown codes are representable: they are answered, not dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Command(pub u16);

macro_rules! commands {
    ($($name:ident = $value:expr;)*) => {
        #[allow(missing_docs)] // MS-SMB2's names
        impl Command {
            $(pub const $name: Command = Command($value);)*
            /// Returns MS-SMB2's name, if the command exists.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self { $(Command::$name => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

commands! {
    NEGOTIATE = 0;
    SESSION_SETUP = 1;
    LOGOFF = 2;
    TREE_CONNECT = 3;
    TREE_DISCONNECT = 4;
    CREATE = 5;
    CLOSE = 6;
    FLUSH = 7;
    READ = 8;
    WRITE = 9;
    LOCK = 10;
    IOCTL = 11;
    CANCEL = 12;
    ECHO = 13;
    QUERY_DIRECTORY = 14;
    CHANGE_NOTIFY = 15;
    QUERY_INFO = 16;
    SET_INFO = 17;
    OPLOCK_BREAK = 18;
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {:#06x}", self.0),
        }
    }
}

/// The Flags field (MS-SMB2 2.2.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flags(pub u32);

impl Flags {
    /// SMB2_FLAGS_SERVER_TO_REDIR: a response.
    pub const SERVER_TO_REDIR: Flags = Flags(0x0000_0001);
    /// SMB2_FLAGS_ASYNC_COMMAND: the header has an AsyncId.
    pub const ASYNC_COMMAND: Flags = Flags(0x0000_0002);
    /// SMB2_FLAGS_RELATED_OPERATIONS: uses session, tree connect and file of the preceding request.
    pub const RELATED_OPERATIONS: Flags = Flags(0x0000_0004);
    /// SMB2_FLAGS_SIGNED.
    pub const SIGNED: Flags = Flags(0x0000_0008);
    /// SMB2_FLAGS_PRIORITY_MASK (3.1.1).
    pub const PRIORITY_MASK: Flags = Flags(0x0000_0070);
    /// SMB2_FLAGS_DFS_OPERATIONS.
    pub const DFS_OPERATIONS: Flags = Flags(0x1000_0000);
    /// SMB2_FLAGS_REPLAY_OPERATION.
    pub const REPLAY_OPERATION: Flags = Flags(0x2000_0000);

    /// Returns whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The eight bytes in which the synchronous and the asynchronous header differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// Reserved (clients put a process id there; responses echo it) and TreeId.
    Sync {
        /// The Reserved field.
        process_id: u32,
        /// TreeId.
        tree_id: u32,
    },
    /// AsyncId; the flag ASYNC_COMMAND goes with it.
    Async {
        /// AsyncId.
        async_id: u64,
    },
}

/// An SMB2 header (MS-SMB2 2.2.1.1, 2.2.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// CreditCharge: the credits that this request costs (0 counts as 1).
    pub credit_charge: u16,
    /// Status of a response. In a request of 3.x: ChannelSequence in the low 16 bits.
    pub status: NtStatus,
    /// Command.
    pub command: Command,
    /// CreditRequest in a request, CreditResponse (credits granted) in a response.
    pub credits: u16,
    /// Flags. Encoding sets ASYNC_COMMAND according to `route`.
    pub flags: Flags,
    /// NextCommand: the offset in bytes of the next header in a compound, 0 in the last.
    pub next_command: u32,
    /// MessageId.
    pub message_id: u64,
    /// TreeId or AsyncId.
    pub route: Route,
    /// SessionId.
    pub session_id: u64,
    /// Signature.
    pub signature: [u8; 16],
}

impl Header {
    /// Parses the first 64 bytes.
    ///
    /// # Errors
    /// Truncated, a wrong protocol id or StructureSize.
    pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
        let input = bytes.get(..LEN).ok_or(Malformed::Truncated)?;
        let (protocol, size, credit_charge, status, command, credits, flags) = fields(
            input,
            (le_u32, le_u16, le_u16, le_u32, le_u16, le_u16, le_u32),
        )?;
        if protocol != compound::SMB2_ID {
            return Err(Malformed::ProtocolId(protocol));
        }
        if usize::from(size) != LEN {
            return Err(Malformed::HeaderSize(size));
        }
        let flags = Flags(flags);
        let (next_command, message_id) = fields(&input[20..], (le_u32, le_u64))?;
        let route = if flags.contains(Flags::ASYNC_COMMAND) {
            let async_id = fields(&input[32..], le_u64)?;
            Route::Async { async_id }
        } else {
            let (process_id, tree_id) = fields(&input[32..], (le_u32, le_u32))?;
            Route::Sync {
                process_id,
                tree_id,
            }
        };
        let (session_id, signature) = fields(&input[40..], (le_u64, bytes_16))?;
        Ok(Header {
            credit_charge,
            status: NtStatus(status),
            command: Command(command),
            credits,
            flags,
            next_command,
            message_id,
            route,
            session_id,
            signature,
        })
    }

    /// Appends the 64 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(compound::SMB2_ID);
        out.put_u16_le(LEN as u16);
        out.put_u16_le(self.credit_charge);
        out.put_u32_le(self.status.0);
        out.put_u16_le(self.command.0);
        out.put_u16_le(self.credits);
        let flags = self.flags.0 & !Flags::ASYNC_COMMAND.0;
        match self.route {
            Route::Sync { .. } => out.put_u32_le(flags),
            Route::Async { .. } => out.put_u32_le(flags | Flags::ASYNC_COMMAND.0),
        }
        out.put_u32_le(self.next_command);
        out.put_u64_le(self.message_id);
        match self.route {
            Route::Sync {
                process_id,
                tree_id,
            } => {
                out.put_u32_le(process_id);
                out.put_u32_le(tree_id);
            }
            Route::Async { async_id } => out.put_u64_le(async_id),
        }
        out.put_u64_le(self.session_id);
        out.extend_from_slice(&self.signature);
    }

    /// Returns TreeId; 0 for an asynchronous header, which has none.
    #[must_use]
    pub fn tree_id(&self) -> u32 {
        match self.route {
            Route::Sync { tree_id, .. } => tree_id,
            Route::Async { .. } => 0,
        }
    }

    /// Returns ChannelSequence of a request (3.x).
    #[must_use]
    pub fn channel_sequence(&self) -> u16 {
        self.status.0 as u16
    }
}
