//! Parses CREATE requests and encodes the responses (MS-SMB2 2.2.13, 2.2.14).

use bytes::{BufMut, Bytes};
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};

use super::body::{buffer, bytes_16, fields, file_id, fixed};
use super::{Component, FileId, Malformed, pad, utf16};
use outlast_fsa::fileop::{CreateAction, Disposition, FileTime};
use outlast_fsa::status::NtStatus;

/// SMB2_OPLOCK_LEVEL_* (2.2.13, RequestedOplockLevel).
#[allow(missing_docs)]
pub mod oplock_level {
    pub const NONE: u8 = 0x00;
    pub const II: u8 = 0x01;
    pub const EXCLUSIVE: u8 = 0x08;
    pub const BATCH: u8 = 0x09;
    pub const LEASE: u8 = 0xFF;
}

/// CreateOptions (2.2.13).
#[allow(missing_docs)]
pub mod options {
    pub const DIRECTORY_FILE: u32 = 0x0000_0001;
    pub const WRITE_THROUGH: u32 = 0x0000_0002;
    pub const SEQUENTIAL_ONLY: u32 = 0x0000_0004;
    pub const NO_INTERMEDIATE_BUFFERING: u32 = 0x0000_0008;
    pub const SYNCHRONOUS_IO_ALERT: u32 = 0x0000_0010;
    pub const SYNCHRONOUS_IO_NONALERT: u32 = 0x0000_0020;
    pub const NON_DIRECTORY_FILE: u32 = 0x0000_0040;
    pub const CREATE_TREE_CONNECTION: u32 = 0x0000_0080;
    pub const COMPLETE_IF_OPLOCKED: u32 = 0x0000_0100;
    pub const NO_EA_KNOWLEDGE: u32 = 0x0000_0200;
    pub const OPEN_REMOTE_INSTANCE: u32 = 0x0000_0400;
    pub const RANDOM_ACCESS: u32 = 0x0000_0800;
    pub const DELETE_ON_CLOSE: u32 = 0x0000_1000;
    pub const OPEN_BY_FILE_ID: u32 = 0x0000_2000;
    pub const OPEN_FOR_BACKUP_INTENT: u32 = 0x0000_4000;
    pub const NO_COMPRESSION: u32 = 0x0000_8000;
    pub const OPEN_REQUIRING_OPLOCK: u32 = 0x0001_0000;
    pub const DISALLOW_EXCLUSIVE: u32 = 0x0002_0000;
    pub const RESERVE_OPFILTER: u32 = 0x0010_0000;
    pub const OPEN_REPARSE_POINT: u32 = 0x0020_0000;
    pub const OPEN_NO_RECALL: u32 = 0x0040_0000;
    pub const OPEN_FOR_FREE_SPACE_QUERY: u32 = 0x0080_0000;
}

/// Names of create contexts (2.2.13.2).
#[allow(missing_docs)]
pub mod context {
    pub const EA_BUFFER: &[u8] = b"ExtA";
    pub const SD_BUFFER: &[u8] = b"SecD";
    pub const DURABLE_HANDLE_REQUEST: &[u8] = b"DHnQ";
    pub const DURABLE_HANDLE_RECONNECT: &[u8] = b"DHnC";
    pub const ALLOCATION_SIZE: &[u8] = b"AlSi";
    pub const QUERY_MAXIMAL_ACCESS: &[u8] = b"MxAc";
    pub const TIMEWARP_TOKEN: &[u8] = b"TWrp";
    pub const QUERY_ON_DISK_ID: &[u8] = b"QFid";
    pub const REQUEST_LEASE: &[u8] = b"RqLs";
    pub const DURABLE_HANDLE_REQUEST_V2: &[u8] = b"DH2Q";
    pub const DURABLE_HANDLE_RECONNECT_V2: &[u8] = b"DH2C";
}

/// A create context of a request: name and data, uninterpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The name: one of those in [`context`], a GUID, or any other.
    pub name: Bytes,
    /// The data.
    pub data: Bytes,
}

/// A durable handle context of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableContext {
    /// SMB2_CREATE_DURABLE_HANDLE_REQUEST.
    Request,
    /// SMB2_CREATE_DURABLE_HANDLE_RECONNECT.
    Reconnect {
        /// FileId.
        file_id: FileId,
    },
    /// SMB2_CREATE_DURABLE_HANDLE_REQUEST_V2.
    RequestV2 {
        /// CreateGuid.
        guid: [u8; 16],
        /// Timeout; 0: the server chooses.
        timeout_ms: u32,
        /// SMB2_DHANDLE_FLAG_PERSISTENT.
        persistent: bool,
    },
    /// SMB2_CREATE_DURABLE_HANDLE_RECONNECT_V2.
    ReconnectV2 {
        /// FileId.
        file_id: FileId,
        /// CreateGuid.
        guid: [u8; 16],
        /// SMB2_DHANDLE_FLAG_PERSISTENT.
        persistent: bool,
    },
}

/// SMB2_DHANDLE_FLAG_PERSISTENT (2.2.13.2.11).
const PERSISTENT: u32 = 0x0000_0002;

/// Flags of a lease's contexts (2.2.13.2.10, 2.2.14.2.10).
#[allow(missing_docs)]
pub mod lease_flags {
    pub const BREAK_IN_PROGRESS: u32 = 0x0000_0002;
    pub const PARENT_LEASE_KEY_SET: u32 = 0x0000_0004;
}

/// A lease context of a request or of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseContext {
    /// LeaseKey.
    pub key: [u8; 16],
    /// LeaseState.
    pub state: u32,
    /// Epoch and ParentLeaseKey, with version 2.
    pub second: Option<(u16, Option<[u8; 16]>)>,
}

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// RequestedOplockLevel: one of [`oplock_level`].
    pub requested_oplock_level: u8,
    /// ImpersonationLevel: 0 (anonymous) to 3 (delegate).
    pub impersonation_level: u32,
    /// DesiredAccess: bits of [`outlast_fsa::access`].
    pub desired_access: u32,
    /// FileAttributes.
    pub file_attributes: u32,
    /// ShareAccess: bits of [`outlast_fsa::sharing::share_access`].
    pub share_access: u32,
    /// CreateDisposition.
    pub create_disposition: Disposition,
    /// CreateOptions: bits of [`options`].
    pub create_options: u32,
    /// Name relative to the share, components separated by backslashes, unmodified.
    pub name: String,
    /// Create contexts.
    pub contexts: Vec<Context>,
}

impl Request {
    const SIZE: u16 = 57;

    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (
            _security_flags,
            requested_oplock_level,
            impersonation_level,
            _smb_create_flags,
            _reserved,
            desired_access,
            file_attributes,
            share_access,
            create_disposition,
            create_options,
            name_offset,
            name_length,
            contexts_offset,
            contexts_length,
        ) = fields(
            fixed(component, Self::SIZE)?,
            (
                le_u8, le_u8, le_u32, le_u64, le_u64, le_u32, le_u32, le_u32, le_u32, le_u32,
                le_u16, le_u16, le_u32, le_u32,
            ),
        )?;
        let name = buffer(
            component,
            Self::SIZE,
            name_offset.into(),
            name_length.into(),
        )?;
        let contexts = buffer(component, Self::SIZE, contexts_offset, contexts_length)?;
        let contexts = parse_contexts(&contexts)?;
        // 3.3.5.9.7, 3.3.5.9.12: if a request reconnects an open, its other fields are ignored.
        let reconnects = contexts.iter().any(|context| {
            context.name == context::DURABLE_HANDLE_RECONNECT
                || context.name == context::DURABLE_HANDLE_RECONNECT_V2
        });
        let create_disposition = match reconnects {
            true => Disposition::Open,
            false if impersonation_level > 3 => {
                return Err(Malformed::ImpersonationLevel(impersonation_level));
            }
            false => disposition(create_disposition)?,
        };
        Ok(Request {
            requested_oplock_level,
            impersonation_level,
            desired_access,
            file_attributes,
            share_access,
            create_disposition,
            create_options,
            name: utf16::decode(&name)?,
            contexts,
        })
    }

    /// Returns the data of the first context with this name.
    #[must_use]
    pub fn context(&self, name: &[u8]) -> Option<&Bytes> {
        self.contexts
            .iter()
            .find(|context| context.name == name)
            .map(|context| &context.data)
    }

    /// Returns the durable handle context, if any (2.2.13.2.3, 2.2.13.2.4, 2.2.13.2.11, 2.2.13.2.12).
    ///
    /// # Errors
    /// Contexts that exclude each other (3.3.5.9.7, 3.3.5.9.10, 3.3.5.9.12), or one of wrong length.
    pub fn durable(&self) -> Result<Option<DurableContext>, Malformed> {
        let [request, reconnect, second, reconnect_second] = [
            context::DURABLE_HANDLE_REQUEST,
            context::DURABLE_HANDLE_RECONNECT,
            context::DURABLE_HANDLE_REQUEST_V2,
            context::DURABLE_HANDLE_RECONNECT_V2,
        ]
        .map(|name| self.context(name));
        let others = [request, reconnect, second, reconnect_second];
        let count = others.iter().flatten().count();
        let sized = |data: &Bytes, length: usize| match data.len() == length {
            true => Ok(()),
            false => Err(Malformed::CreateContexts),
        };
        if (second.is_some() || reconnect_second.is_some()) && count > 1 {
            return Err(Malformed::CreateContexts);
        }
        if let Some(data) = reconnect_second {
            sized(data, 36)?;
            let (file_id, guid, flags) = fields(data, (file_id, bytes_16, le_u32))?;
            return Ok(Some(DurableContext::ReconnectV2 {
                file_id,
                guid,
                persistent: flags & PERSISTENT != 0,
            }));
        }
        if let Some(data) = second {
            sized(data, 32)?;
            let (timeout_ms, flags, _reserved, guid) =
                fields(data, (le_u32, le_u32, le_u64, bytes_16))?;
            return Ok(Some(DurableContext::RequestV2 {
                guid,
                timeout_ms,
                persistent: flags & PERSISTENT != 0,
            }));
        }
        if let Some(data) = reconnect {
            sized(data, 16)?;
            let file_id = fields(data, file_id)?;
            return Ok(Some(DurableContext::Reconnect { file_id }));
        }
        if let Some(data) = request {
            sized(data, 16)?;
            return Ok(Some(DurableContext::Request));
        }
        Ok(None)
    }

    /// Returns the lease context, if any (2.2.13.2.8, 2.2.13.2.10).
    ///
    /// # Errors
    /// The context has a wrong length.
    pub fn lease(&self) -> Result<Option<LeaseContext>, Malformed> {
        let Some(data) = self.context(context::REQUEST_LEASE) else {
            return Ok(None);
        };
        let (key, state, flags, _duration) = fields(data, (bytes_16, le_u32, le_u32, le_u64))?;
        let second = match data.len() {
            32 => None,
            52 => {
                let (parent, epoch, _reserved) = fields(&data[32..], (bytes_16, le_u16, le_u16))?;
                let has_parent = flags & lease_flags::PARENT_LEASE_KEY_SET != 0;
                Some((epoch, has_parent.then_some(parent)))
            }
            _ => return Err(Malformed::CreateContexts),
        };
        Ok(Some(LeaseContext { key, state, second }))
    }
}

fn disposition(value: u32) -> Result<Disposition, Malformed> {
    Ok(match value {
        0 => Disposition::Supersede,
        1 => Disposition::Open,
        2 => Disposition::Create,
        3 => Disposition::OpenIf,
        4 => Disposition::Overwrite,
        5 => Disposition::OverwriteIf,
        _ => return Err(Malformed::CreateDisposition(value)),
    })
}

/// Parses the chain of SMB2_CREATE_CONTEXT structures (2.2.13.2).
fn parse_contexts(list: &Bytes) -> Result<Vec<Context>, Malformed> {
    let mut contexts = Vec::new();
    if list.is_empty() {
        return Ok(contexts);
    }
    let mut rest = list.clone();
    loop {
        let (next, name_offset, name_length, _reserved, data_offset, data_length) =
            fields(&rest, (le_u32, le_u16, le_u16, le_u16, le_u16, le_u32))
                .map_err(|_| Malformed::CreateContexts)?;
        let following = match next {
            0 => None,
            // The fixed part has 16 bytes and the list is 8-byte aligned, so every step advances and the loop ends.
            next if next >= 16 && next % 8 == 0 && (next as usize) < rest.len() => {
                Some(rest.split_off(next as usize))
            }
            _ => return Err(Malformed::CreateContexts),
        };
        let part = |offset: u16, length: usize| {
            let start = usize::from(offset);
            match start.checked_add(length) {
                _ if length == 0 => Ok(Bytes::new()),
                Some(end) if start >= 16 && end <= rest.len() => Ok(rest.slice(start..end)),
                _ => Err(Malformed::CreateContexts),
            }
        };
        // 2.2.13.2: a name has at least four bytes.
        if name_length < 4 {
            return Err(Malformed::CreateContexts);
        }
        contexts.push(Context {
            name: part(name_offset, name_length.into())?,
            data: part(data_offset, data_length as usize)?,
        });
        match following {
            Some(following) => rest = following,
            None => return Ok(contexts),
        }
    }
}

/// A create context of a response (2.2.14.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseContext {
    /// SMB2_CREATE_QUERY_MAXIMAL_ACCESS_RESPONSE (2.2.14.2.5).
    MaximalAccess {
        /// QueryStatus.
        status: NtStatus,
        /// MaximalAccess.
        access: u32,
    },
    /// SMB2_CREATE_QUERY_ON_DISK_ID (2.2.14.2.9).
    OnDiskId {
        /// DiskFileId: first half.
        file_id: u64,
        /// DiskFileId: second half.
        volume_id: u64,
    },
    /// SMB2_CREATE_DURABLE_HANDLE_RESPONSE (2.2.14.2.3).
    Durable,
    /// SMB2_CREATE_DURABLE_HANDLE_RESPONSE_V2 (2.2.14.2.12).
    DurableV2 {
        /// Timeout.
        timeout_ms: u32,
        /// SMB2_DHANDLE_FLAG_PERSISTENT.
        persistent: bool,
    },
    /// SMB2_CREATE_RESPONSE_LEASE, and its version 2 (2.2.14.2.10, 2.2.14.2.11).
    Lease {
        /// The lease.
        lease: LeaseContext,
        /// SMB2_LEASE_FLAG_BREAK_IN_PROGRESS.
        breaking: bool,
    },
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// OplockLevel granted: one of [`oplock_level`].
    pub oplock_level: u8,
    /// CreateAction.
    pub create_action: CreateAction,
    /// CreationTime.
    pub creation_time: FileTime,
    /// LastAccessTime.
    pub last_access_time: FileTime,
    /// LastWriteTime.
    pub last_write_time: FileTime,
    /// ChangeTime.
    pub change_time: FileTime,
    /// AllocationSize in bytes.
    pub allocation_size: u64,
    /// EndofFile in bytes.
    pub end_of_file: u64,
    /// FileAttributes.
    pub file_attributes: u32,
    /// FileId.
    pub file_id: FileId,
    /// Create contexts.
    pub contexts: Vec<ResponseContext>,
}

impl Response {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16_le(89);
        out.put_u8(self.oplock_level);
        out.put_u8(0);
        out.put_u32_le(match self.create_action {
            CreateAction::Superseded => 0,
            CreateAction::Opened => 1,
            CreateAction::Created => 2,
            CreateAction::Overwritten => 3,
        });
        out.put_u64_le(self.creation_time);
        out.put_u64_le(self.last_access_time);
        out.put_u64_le(self.last_write_time);
        out.put_u64_le(self.change_time);
        out.put_u64_le(self.allocation_size);
        out.put_u64_le(self.end_of_file);
        out.put_u32_le(self.file_attributes);
        out.put_u32_le(0);
        self.file_id.encode(out);
        let list = encode_contexts(&self.contexts);
        // 64 bytes of header and 88 of body: a multiple of 8, as the list's alignment requires.
        out.put_u32_le(if list.is_empty() { 0 } else { 152 });
        out.put_u32_le(list.len() as u32);
        out.extend_from_slice(&list);
    }
}

fn encode_lease(lease: &LeaseContext, breaking: bool, out: &mut Vec<u8>) {
    let parent = lease.second.and_then(|(_, parent)| parent);
    let mut flags = 0;
    if breaking {
        flags |= lease_flags::BREAK_IN_PROGRESS;
    }
    if parent.is_some() {
        flags |= lease_flags::PARENT_LEASE_KEY_SET;
    }
    out.extend_from_slice(&lease.key);
    out.put_u32_le(lease.state);
    out.put_u32_le(flags);
    out.put_u64_le(0);
    if let Some((epoch, parent)) = lease.second {
        out.extend_from_slice(&parent.unwrap_or_default());
        out.put_u16_le(epoch);
        out.put_u16_le(0);
    }
}

fn encode_contexts(contexts: &[ResponseContext]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, context) in contexts.iter().enumerate() {
        let mut data = Vec::new();
        let name = match context {
            ResponseContext::MaximalAccess { status, access } => {
                data.put_u32_le(status.0);
                data.put_u32_le(*access);
                context::QUERY_MAXIMAL_ACCESS
            }
            ResponseContext::OnDiskId { file_id, volume_id } => {
                data.put_u64_le(*file_id);
                data.put_u64_le(*volume_id);
                data.put_bytes(0, 16);
                context::QUERY_ON_DISK_ID
            }
            ResponseContext::Durable => {
                data.put_u64_le(0);
                context::DURABLE_HANDLE_REQUEST
            }
            ResponseContext::DurableV2 {
                timeout_ms,
                persistent,
            } => {
                data.put_u32_le(*timeout_ms);
                data.put_u32_le(if *persistent { PERSISTENT } else { 0 });
                context::DURABLE_HANDLE_REQUEST_V2
            }
            ResponseContext::Lease { lease, breaking } => {
                encode_lease(lease, *breaking, &mut data);
                context::REQUEST_LEASE
            }
        };
        let start = out.len();
        out.put_u32_le(0);
        out.put_u16_le(16);
        out.put_u16_le(name.len() as u16);
        out.put_u16_le(0);
        out.put_u16_le(24);
        out.put_u32_le(data.len() as u32);
        out.extend_from_slice(name);
        pad(&mut out, start, 8);
        out.extend_from_slice(&data);
        if index + 1 < contexts.len() {
            pad(&mut out, start, 8);
            let next = (out.len() - start) as u32;
            out[start..start + 4].copy_from_slice(&next.to_le_bytes());
        }
    }
    out
}
