//! Parses and encodes the transform header of an encrypted message (MS-SMB2 2.2.41).

use bytes::BufMut;
use nom::number::complete::{le_u16, le_u32, le_u64};

use super::body::{bytes_16, fields};
use super::{Malformed, compound};

/// Length of the header in bytes.
pub const LEN: usize = 52;
/// The part of the header that is authenticated with the message: from the nonce on (MS-SMB2 3.1.4.3).
pub const AUTHENTICATED: std::ops::Range<usize> = 20..52;
/// Flags/EncryptionAlgorithm: "Encrypted" in 3.1.1, AES-128-CCM in 3.0 and 3.0.2. Both are 1.
const ENCRYPTED: u16 = 0x0001;

/// A transform header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Signature: the cipher's authentication tag.
    pub signature: [u8; 16],
    /// Nonce, of which CCM uses the first 11 bytes and GCM the first 12.
    pub nonce: [u8; 16],
    /// OriginalMessageSize: length in bytes of the message after this header.
    pub original_message_size: u32,
    /// SessionId of the session by whose keys it is encrypted.
    pub session_id: u64,
}

impl Transform {
    /// Parses the header of `message`, which must be the whole message, because its length is checked.
    ///
    /// # Errors
    /// A truncated header, a wrong protocol id, flags other than "encrypted", a size other than that of the message.
    pub fn parse(message: &[u8]) -> Result<Transform, Malformed> {
        let (protocol, signature, nonce, original_message_size, _reserved, flags, session_id) =
            fields(
                message,
                (le_u32, bytes_16, bytes_16, le_u32, le_u16, le_u16, le_u64),
            )?;
        if protocol != compound::TRANSFORM_ID {
            return Err(Malformed::ProtocolId(protocol));
        }
        if flags != ENCRYPTED {
            return Err(Malformed::TransformFlags(flags));
        }
        if message.len() - LEN != original_message_size as usize {
            return Err(Malformed::TransformSize(original_message_size));
        }
        Ok(Transform {
            signature,
            nonce,
            original_message_size,
            session_id,
        })
    }

    /// Appends the 52 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(compound::TRANSFORM_ID);
        out.extend_from_slice(&self.signature);
        out.extend_from_slice(&self.nonce);
        out.put_u32_le(self.original_message_size);
        out.put_u16_le(0);
        out.put_u16_le(ENCRYPTED);
        out.put_u64_le(self.session_id);
    }
}
