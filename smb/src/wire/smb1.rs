//! Parses SMB1's NEGOTIATE (MS-CIFS 2.2.4.52), from which a client may switch to SMB2 (MS-SMB2 3.3.5.3).

use bytes::BufMut;
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

use super::body::fields;
use super::{Malformed, compound};

/// SMB_COM_NEGOTIATE.
const COM_NEGOTIATE: u8 = 0x72;
/// Length of the SMB1 header in bytes.
const HEADER_LEN: usize = 32;

/// The SMB2 dialects that the client offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiate {
    /// "SMB 2.002" is among the dialects.
    pub smb_2_002: bool,
    /// "SMB 2.???" is among the dialects.
    pub smb_2_wildcard: bool,
    /// Flags2, PID and MID, which a response in SMB1 repeats.
    pub echo: Echo,
}

/// The fields of the SMB1 header that a response repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Flags2.
    pub flags2: u16,
    /// PIDHigh.
    pub pid_high: u16,
    /// PIDLow.
    pub pid_low: u16,
    /// MID.
    pub mid: u16,
}

impl Negotiate {
    /// Parses a whole SMB1 message.
    ///
    /// # Errors
    /// Any command but NEGOTIATE, and a malformed dialect list.
    pub fn parse(message: &[u8]) -> Result<Negotiate, Malformed> {
        let (protocol, command, _status, _flags, flags2, pid_high, _signature, _reserved) = fields(
            message,
            (le_u32, le_u8, le_u32, le_u8, le_u16, le_u16, le_u64, le_u16),
        )?;
        if protocol != compound::SMB1_ID {
            return Err(Malformed::ProtocolId(protocol));
        }
        if command != COM_NEGOTIATE {
            return Err(Malformed::Smb1Command(command));
        }
        let (_tid, pid_low, _uid, mid, words, byte_count) = fields(
            message.get(24..).ok_or(Malformed::Truncated)?,
            (le_u16, le_u16, le_u16, le_u16, le_u8, le_u16),
        )?;
        let start = HEADER_LEN + 3;
        let list = message
            .get(start..start + usize::from(byte_count))
            .ok_or(Malformed::Truncated)?;
        // Each dialect: the buffer format 0x02 and a zero-terminated OEM string.
        let list = match list.split_last() {
            Some((0, list)) if words == 0 => list,
            _ => return Err(Malformed::Smb1Dialects),
        };
        let mut negotiate = Negotiate {
            smb_2_002: false,
            smb_2_wildcard: false,
            echo: Echo {
                flags2,
                pid_high,
                pid_low,
                mid,
            },
        };
        for dialect in list.split(|byte| *byte == 0) {
            match dialect.split_first() {
                Some((0x02, b"SMB 2.002")) => negotiate.smb_2_002 = true,
                Some((0x02, b"SMB 2.???")) => negotiate.smb_2_wildcard = true,
                Some((0x02, _)) => {}
                _ => return Err(Malformed::Smb1Dialects),
            }
        }
        Ok(negotiate)
    }
}

/// Builds the SMB1 response for "no dialect in common": DialectIndex 0xFFFF (MS-CIFS 2.2.4.52.2, MS-SMB2 3.3.5.3.2).
#[must_use]
pub fn no_common_dialect(echo: Echo) -> Vec<u8> {
    /// SMB_FLAGS_REPLY.
    const REPLY: u8 = 0x80;
    let mut out = Vec::with_capacity(HEADER_LEN + 5);
    out.put_u32_le(compound::SMB1_ID);
    out.put_u8(COM_NEGOTIATE);
    out.put_u32_le(0);
    out.put_u8(REPLY);
    out.put_u16_le(echo.flags2);
    out.put_u16_le(echo.pid_high);
    out.put_u64_le(0);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u16_le(echo.pid_low);
    out.put_u16_le(0);
    out.put_u16_le(echo.mid);
    out.put_u8(1);
    out.put_u16_le(0xFFFF);
    out.put_u16_le(0);
    out
}
