//! Encodes OPLOCK_BREAK notifications and responses, and parses acknowledgments (MS-SMB2 2.2.23 to 2.2.25).

use bytes::BufMut;
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

use super::body::{bytes_16, fields, file_id, fixed};
use super::{Component, FileId, Malformed, header};

/// MessageId of a notification, which answers no request (3.3.4.6).
pub const NOTIFICATION_MESSAGE_ID: u64 = u64::MAX;

/// The acknowledgment of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledgment {
    /// The break of an oplock (2.2.24.1).
    Oplock {
        /// OplockLevel: one of [`super::create::oplock_level`].
        oplock_level: u8,
        /// FileId.
        file_id: FileId,
    },
    /// The break of a lease (2.2.24.2).
    Lease {
        /// LeaseKey.
        lease_key: [u8; 16],
        /// LeaseState.
        lease_state: u32,
    },
}

impl Acknowledgment {
    /// Parses an acknowledgment. The two kinds differ in their StructureSize: 24 and 36.
    pub(super) fn parse(component: &Component) -> Result<Acknowledgment, Malformed> {
        let body = component
            .bytes
            .get(header::LEN..)
            .ok_or(Malformed::Truncated)?;
        if fields(body, le_u16)? == 36 {
            let (_reserved, _flags, lease_key, lease_state, _duration) = fields(
                fixed(component, 36)?,
                (le_u16, le_u32, bytes_16, le_u32, le_u64),
            )?;
            return Ok(Acknowledgment::Lease {
                lease_key,
                lease_state,
            });
        }
        let (oplock_level, _reserved, _reserved2, file_id) =
            fields(fixed(component, 24)?, (le_u8, le_u8, le_u32, file_id))?;
        Ok(Acknowledgment::Oplock {
            oplock_level,
            file_id,
        })
    }
}

/// The notification (2.2.23.1) and the response to an acknowledgment (2.2.25.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OplockBreak {
    /// OplockLevel: the level that the oplock is broken to, or that was acknowledged.
    pub oplock_level: u8,
    /// FileId.
    pub file_id: FileId,
}

impl OplockBreak {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(24);
        out.put_u8(self.oplock_level);
        out.put_u8(0);
        out.put_u32_le(0);
        self.file_id.encode(out);
    }
}

/// The lease break notification (2.2.23.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseBreakNotification {
    /// NewEpoch.
    pub new_epoch: u16,
    /// SMB2_NOTIFY_BREAK_LEASE_FLAG_ACK_REQUIRED.
    pub ack_required: bool,
    /// LeaseKey.
    pub lease_key: [u8; 16],
    /// CurrentLeaseState.
    pub current_state: u32,
    /// NewLeaseState.
    pub new_state: u32,
}

impl LeaseBreakNotification {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(44);
        out.put_u16_le(self.new_epoch);
        out.put_u32_le(self.ack_required.into());
        out.extend_from_slice(&self.lease_key);
        out.put_u32_le(self.current_state);
        out.put_u32_le(self.new_state);
        // BreakReason, AccessMaskHint, ShareMaskHint.
        out.put_bytes(0, 12);
    }
}

/// The response to a lease break acknowledgment (2.2.25.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseBreak {
    /// LeaseKey.
    pub lease_key: [u8; 16],
    /// LeaseState.
    pub lease_state: u32,
}

impl LeaseBreak {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(36);
        out.put_bytes(0, 6);
        out.extend_from_slice(&self.lease_key);
        out.put_u32_le(self.lease_state);
        out.put_u64_le(0);
    }
}
