//! Parses the inputs and builds the outputs of the file system controls in IOCTL (MS-SMB2 2.2.31, 2.2.32, MS-FSCC 2.3).
//! It has no effects.

use crate::wire::{Malformed, utf16};
use bytes::{Buf, BufMut};
use outlast_fsa::fileop::{Chunk, Metadata, OpenId};
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// Control codes (MS-SMB2 2.2.31, MS-FSCC 2.3).
#[allow(missing_docs)] // the names are the documents'
pub mod code {
    pub const DFS_GET_REFERRALS: u32 = 0x0006_0194;
    pub const DFS_GET_REFERRALS_EX: u32 = 0x0006_01B0;
    pub const GET_COMPRESSION: u32 = 0x0009_003C;
    pub const SET_COMPRESSION: u32 = 0x0009_C040;
    pub const GET_OBJECT_ID: u32 = 0x0009_009C;
    pub const SET_REPARSE_POINT: u32 = 0x0009_00A4;
    pub const GET_REPARSE_POINT: u32 = 0x0009_00A8;
    pub const CREATE_OR_GET_OBJECT_ID: u32 = 0x0009_00C0;
    pub const SET_SPARSE: u32 = 0x0009_00C4;
    pub const QUERY_ALLOCATED_RANGES: u32 = 0x0009_40CF;
    pub const SET_ZERO_DATA: u32 = 0x0009_80C8;
    pub const PIPE_WAIT: u32 = 0x0011_0018;
    pub const PIPE_TRANSCEIVE: u32 = 0x0011_C017;
    pub const SRV_REQUEST_RESUME_KEY: u32 = 0x0014_0078;
    pub const LMR_REQUEST_RESILIENCY: u32 = 0x0014_01D4;
    pub const QUERY_NETWORK_INTERFACE_INFO: u32 = 0x0014_01FC;
    pub const VALIDATE_NEGOTIATE_INFO: u32 = 0x0014_0204;
    pub const SRV_ENUMERATE_SNAPSHOTS: u32 = 0x0014_4064;
    pub const SRV_COPYCHUNK: u32 = 0x0014_40F2;
    pub const SRV_READ_HASH: u32 = 0x0014_41BB;
    pub const SRV_COPYCHUNK_WRITE: u32 = 0x0014_80F2;
}

/// Chunks of one FSCTL_SRV_COPYCHUNK (MS-SMB2 3.3.3, ServerSideCopyMaxNumberofChunks).
pub const MAX_CHUNKS: u32 = 256;
/// Bytes of one chunk (ServerSideCopyMaxChunkSize).
pub const MAX_CHUNK_BYTES: u32 = 1 << 20;
/// Bytes of all chunks (ServerSideCopyMaxDataSize).
pub const MAX_COPY_BYTES: u32 = 16 << 20;

/// The largest number of bytes that one operation of a copy writes: its intent contains the bytes of its source that it
/// overwrites.
const STEP_BYTES: u64 = MAX_CHUNK_BYTES as u64;

/// A parsed file system control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fsctl {
    /// FSCTL_VALIDATE_NEGOTIATE_INFO.
    ValidateNegotiateInfo(ValidateNegotiate),
    /// FSCTL_SRV_REQUEST_RESUME_KEY.
    RequestResumeKey,
    /// FSCTL_LMR_REQUEST_RESILIENCY.
    RequestResiliency {
        /// Timeout; 0: the server chooses.
        timeout_ms: u32,
    },
    /// FSCTL_SRV_COPYCHUNK and FSCTL_SRV_COPYCHUNK_WRITE.
    CopyChunk(CopyChunk),
    /// FSCTL_SRV_ENUMERATE_SNAPSHOTS.
    EnumerateSnapshots,
    /// FSCTL_SET_SPARSE.
    SetSparse(bool),
    /// FSCTL_SET_ZERO_DATA: the bytes [from, beyond).
    SetZeroData {
        /// FileOffset.
        from: u64,
        /// BeyondFinalZero.
        beyond: u64,
    },
    /// FSCTL_QUERY_ALLOCATED_RANGES, in bytes.
    QueryAllocatedRanges {
        /// FileOffset.
        offset: u64,
        /// Length.
        length: u64,
    },
    /// FSCTL_PIPE_TRANSCEIVE: the input is what is written.
    PipeTransceive,
    /// FSCTL_PIPE_WAIT for a pipe of this name.
    PipeWait(String),
    /// FSCTL_CREATE_OR_GET_OBJECT_ID, FSCTL_GET_OBJECT_ID.
    ObjectId,
    /// FSCTL_GET_COMPRESSION.
    GetCompression,
    /// FSCTL_SET_COMPRESSION with COMPRESSION_FORMAT_NONE, which every file has.
    SetCompressionNone,
}

impl Fsctl {
    /// Parses an input.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for inputs that are too short or invalid; the specified status for controls that are not
    /// supported; `INVALID_DEVICE_REQUEST` for unknown ones (MS-SMB2 3.3.5.15).
    pub fn parse(ctl_code: u32, mut input: &[u8]) -> Result<Fsctl, NtStatus> {
        match ctl_code {
            code::VALIDATE_NEGOTIATE_INFO => {
                ValidateNegotiate::parse(input).map(Fsctl::ValidateNegotiateInfo)
            }
            code::SRV_REQUEST_RESUME_KEY => Ok(Fsctl::RequestResumeKey),
            code::SRV_COPYCHUNK => CopyChunk::parse(input, true).map(Fsctl::CopyChunk),
            code::SRV_COPYCHUNK_WRITE => CopyChunk::parse(input, false).map(Fsctl::CopyChunk),
            code::SRV_ENUMERATE_SNAPSHOTS => Ok(Fsctl::EnumerateSnapshots),
            // MS-FSCC 2.3.72: without an input the file becomes sparse.
            code::SET_SPARSE => Ok(Fsctl::SetSparse(
                input.first().is_none_or(|&sparse| sparse != 0),
            )),
            code::SET_ZERO_DATA => {
                let (from, beyond) = range(input)?;
                // MS-FSA 2.1.5.10.38.
                if from > beyond {
                    return Err(NtStatus::INVALID_PARAMETER);
                }
                Ok(Fsctl::SetZeroData { from, beyond })
            }
            code::QUERY_ALLOCATED_RANGES => {
                let (offset, length) = range(input)?;
                // MS-FSA 2.1.5.10.22: the end of the range must be a valid offset, too.
                if offset + length > i64::MAX as u64 {
                    return Err(NtStatus::INVALID_PARAMETER);
                }
                Ok(Fsctl::QueryAllocatedRanges { offset, length })
            }
            code::PIPE_TRANSCEIVE => Ok(Fsctl::PipeTransceive),
            code::PIPE_WAIT => pipe_wait(input).map(Fsctl::PipeWait),
            code::CREATE_OR_GET_OBJECT_ID | code::GET_OBJECT_ID => Ok(Fsctl::ObjectId),
            code::GET_COMPRESSION => Ok(Fsctl::GetCompression),
            // MS-FSA 2.1.5.10.31: no file is compressed.
            code::SET_COMPRESSION => match input.try_get_u16_le().map_err(short)? {
                0 => Ok(Fsctl::SetCompressionNone),
                _ => Err(NtStatus::NOT_SUPPORTED),
            },
            // MS-SMB2 3.3.5.15.2: DFS is not supported.
            code::DFS_GET_REFERRALS | code::DFS_GET_REFERRALS_EX => {
                Err(NtStatus::FS_DRIVER_REQUIRED)
            }
            // The server follows symbolic links, so an open is never a reparse point (MS-FSA 2.1.5.10.14).
            code::GET_REPARSE_POINT => Err(NtStatus::NOT_A_REPARSE_POINT),
            code::SET_REPARSE_POINT => Err(NtStatus::NOT_SUPPORTED),
            // 3.3.5.15.11: multichannel is not supported.
            code::QUERY_NETWORK_INTERFACE_INFO => Err(NtStatus::NOT_SUPPORTED),
            // 3.3.5.15.7: BranchCache is not supported.
            code::SRV_READ_HASH => Err(NtStatus::HASH_NOT_SUPPORTED),
            // MS-SMB2 2.2.31.3: Timeout, and four reserved bytes.
            code::LMR_REQUEST_RESILIENCY => {
                let timeout_ms = input.try_get_u32_le().map_err(short)?;
                input.try_get_u32_le().map_err(short)?;
                Ok(Fsctl::RequestResiliency { timeout_ms })
            }
            _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
        }
    }
}

fn short<E>(_: E) -> NtStatus {
    NtStatus::INVALID_PARAMETER
}

/// Parses two byte offsets or lengths, which must not be negative.
fn range(mut input: &[u8]) -> Result<(u64, u64), NtStatus> {
    let first = input.try_get_i64_le().map_err(short)?;
    let second = input.try_get_i64_le().map_err(short)?;
    Ok((
        u64::try_from(first).map_err(short)?,
        u64::try_from(second).map_err(short)?,
    ))
}

/// Parses FSCTL_PIPE_WAIT (MS-FSCC 2.3.49): Timeout, NameLength, TimeoutSpecified, Padding, Name.
fn pipe_wait(mut input: &[u8]) -> Result<String, NtStatus> {
    input.try_get_u64_le().map_err(short)?;
    let length = input.try_get_u32_le().map_err(short)? as usize;
    input.try_get_u16_le().map_err(short)?;
    let name = input.get(..length).ok_or(NtStatus::INVALID_PARAMETER)?;
    utf16::decode(name).map_err(Malformed::status)
}

/// A VALIDATE_NEGOTIATE_INFO request (MS-SMB2 2.2.31.4): what the client sent in its NEGOTIATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidateNegotiate {
    /// Capabilities.
    pub capabilities: u32,
    /// ClientGuid.
    pub client_guid: [u8; 16],
    /// SecurityMode.
    pub security_mode: u16,
    /// Dialects.
    pub dialects: Vec<u16>,
}

impl ValidateNegotiate {
    fn parse(mut input: &[u8]) -> Result<ValidateNegotiate, NtStatus> {
        let capabilities = input.try_get_u32_le().map_err(short)?;
        let mut client_guid = [0; 16];
        input.try_copy_to_slice(&mut client_guid).map_err(short)?;
        let security_mode = input.try_get_u16_le().map_err(short)?;
        let count = input.try_get_u16_le().map_err(short)?;
        let dialects = (0..count)
            .map(|_| input.try_get_u16_le())
            .collect::<Result<_, _>>()
            .map_err(short)?;
        Ok(ValidateNegotiate {
            capabilities,
            client_guid,
            security_mode,
            dialects,
        })
    }
}

/// Builds a VALIDATE_NEGOTIATE_INFO response (MS-SMB2 2.2.32.6): what the server answered in its NEGOTIATE.
#[must_use]
pub fn negotiated(
    capabilities: u32,
    server_guid: &[u8; 16],
    security_mode: u16,
    dialect: u16,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    out.put_u32_le(capabilities);
    out.extend_from_slice(server_guid);
    out.put_u16_le(security_mode);
    out.put_u16_le(dialect);
    out
}

/// Builds a SRV_REQUEST_RESUME_KEY response (MS-SMB2 2.2.32.3). The key contains the open's id, which is never reused.
#[must_use]
pub fn resume_key(open: OpenId) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.put_u64_le(open);
    out.put_u64_le(open);
    out.put_u64_le(0);
    out.put_u32_le(0); // ContextLength
    out.put_u32_le(0); // Context: clients expect its four bytes though it is empty
    out
}

/// SRV_COPYCHUNK_COPY (MS-SMB2 2.2.31.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyChunk {
    /// The open that SourceKey identifies; `None`: the server never issued such a key.
    pub source: Option<OpenId>,
    /// Chunks; empty if they exceed the limits.
    pub chunks: Vec<Chunk>,
    /// FSCTL_SRV_COPYCHUNK: the target must be open for reading too.
    pub target_is_read: bool,
    /// The chunks are within the limits; if not, the response is [`copy_limits`] with INVALID_PARAMETER.
    pub within_limits: bool,
}

impl CopyChunk {
    fn parse(mut input: &[u8], target_is_read: bool) -> Result<CopyChunk, NtStatus> {
        let first = input.try_get_u64_le().map_err(short)?;
        let second = input.try_get_u64_le().map_err(short)?;
        let third = input.try_get_u64_le().map_err(short)?;
        let count = input.try_get_u32_le().map_err(short)?;
        input.try_get_u32_le().map_err(short)?; // Reserved
        let mut copy = CopyChunk {
            source: (first == second && third == 0).then_some(first),
            chunks: Vec::new(),
            target_is_read,
            within_limits: count <= MAX_CHUNKS,
        };
        if !copy.within_limits {
            return Ok(copy);
        }
        let mut total = 0u64;
        for _ in 0..count {
            let chunk = Chunk {
                source_offset: input.try_get_u64_le().map_err(short)?,
                target_offset: input.try_get_u64_le().map_err(short)?,
                length: input.try_get_u32_le().map_err(short)?,
            };
            input.try_get_u32_le().map_err(short)?; // Reserved
            total += u64::from(chunk.length);
            copy.within_limits &= chunk.length != 0 && chunk.length <= MAX_CHUNK_BYTES;
            let end = |offset: u64| offset.checked_add(u64::from(chunk.length));
            let ends = [end(chunk.source_offset), end(chunk.target_offset)];
            if ends.iter().any(|e| e.is_none_or(|e| e > i64::MAX as u64)) {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            copy.chunks.push(chunk);
        }
        copy.within_limits &= total <= u64::from(MAX_COPY_BYTES);
        if !copy.within_limits {
            copy.chunks.clear();
        }
        Ok(copy)
    }
}

/// Length of a SRV_COPYCHUNK_RESPONSE in bytes.
pub const COPY_RESPONSE: u32 = 12;

/// Returns the first of these chunks, as many as one operation copies.
#[must_use]
pub fn one_step(chunks: &[Chunk]) -> &[Chunk] {
    let mut bytes = 0;
    let fits = |chunk: &&Chunk| {
        bytes += u64::from(chunk.length);
        bytes <= STEP_BYTES
    };
    let count = chunks.iter().take_while(fits).count();
    chunks.split_at(count).0
}

/// Builds the SRV_COPYCHUNK_RESPONSE (MS-SMB2 2.2.32.1) after all chunks are written.
#[must_use]
pub fn copied(chunks: &[Chunk]) -> Vec<u8> {
    let total: u32 = chunks
        .iter()
        .fold(0, |sum, chunk| sum.saturating_add(chunk.length));
    let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    copy_response(count, 0, total)
}

/// Builds the SRV_COPYCHUNK_RESPONSE that contains the limits (MS-SMB2 3.3.5.15.6.2).
#[must_use]
pub fn copy_limits() -> Vec<u8> {
    copy_response(MAX_CHUNKS, MAX_CHUNK_BYTES, MAX_COPY_BYTES)
}

fn copy_response(chunks: u32, chunk_bytes: u32, total_bytes: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    out.put_u32_le(chunks);
    out.put_u32_le(chunk_bytes);
    out.put_u32_le(total_bytes);
    out
}

/// Builds an empty SRV_SNAPSHOT_ARRAY (MS-SMB2 2.2.32.2).
#[must_use]
pub fn no_snapshots() -> Vec<u8> {
    vec![0; 16]
}

/// Builds the output of FSCTL_QUERY_ALLOCATED_RANGES (MS-FSCC 2.3.56), cut to whole ranges within `limit`, and returns
/// whether it was cut.
///
/// # Errors
/// `BUFFER_TOO_SMALL` if ranges exist and none fits (MS-FSA 2.1.5.10.22).
pub fn allocated_ranges(ranges: &[(u64, u64)], limit: usize) -> Result<(Vec<u8>, bool), NtStatus> {
    let fit = limit / 16;
    if fit == 0 && !ranges.is_empty() {
        return Err(NtStatus::BUFFER_TOO_SMALL);
    }
    let bytes = ranges
        .iter()
        .take(fit)
        .flat_map(|(offset, length)| [offset.to_le_bytes(), length.to_le_bytes()])
        .flatten()
        .collect();
    Ok((bytes, ranges.len() > fit))
}

/// Builds a FILE_OBJECTID_BUFFER (MS-FSCC 2.1.3.1): an identity derived from device and inode, as Samba does.
#[must_use]
pub fn object_id(metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.put_u64_le(metadata.key.dev);
    out.put_u64_le(metadata.key.ino);
    out.put_u64_le(metadata.key.dev); // BirthVolumeId
    out.put_u64_le(0);
    out.put_u64_le(metadata.key.dev); // BirthObjectId
    out.put_u64_le(metadata.key.ino);
    out.put_bytes(0, 16); // DomainId: zero (MS-FSCC 2.1.3.1)
    out
}
