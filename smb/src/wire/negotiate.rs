//! Parses NEGOTIATE requests and encodes the responses (MS-SMB2 2.2.3, 2.2.4).

use bytes::{BufMut, Bytes};
use nom::multi::count;
use nom::number::complete::{le_u16, le_u32};

use super::body::{bytes_16, fields, fixed};
use super::{Component, Dialect, Malformed, header, pad};
use outlast_fsa::fileop::FileTime;

/// SMB2_NEGOTIATE_SIGNING_ENABLED (SecurityMode).
pub const SIGNING_ENABLED: u16 = 0x0001;
/// SMB2_NEGOTIATE_SIGNING_REQUIRED (SecurityMode).
pub const SIGNING_REQUIRED: u16 = 0x0002;

/// SMB2_GLOBAL_CAP_* (Capabilities).
#[allow(missing_docs)]
pub mod capabilities {
    pub const DFS: u32 = 0x0000_0001;
    pub const LEASING: u32 = 0x0000_0002;
    pub const LARGE_MTU: u32 = 0x0000_0004;
    pub const MULTI_CHANNEL: u32 = 0x0000_0008;
    pub const PERSISTENT_HANDLES: u32 = 0x0000_0010;
    pub const DIRECTORY_LEASING: u32 = 0x0000_0020;
    pub const ENCRYPTION: u32 = 0x0000_0040;
}

const PREAUTH_INTEGRITY: u16 = 0x0001;
const ENCRYPTION: u16 = 0x0002;
const SIGNING: u16 = 0x0008;

/// HashAlgorithms: SHA-512, the only one defined (2.2.3.1.1).
pub const HASH_SHA_512: u16 = 0x0001;

/// A negotiate context that the server uses (2.2.3.1, 2.2.4.1). Compression, transport, RDMA, net name and unknown ones
/// are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// SMB2_PREAUTH_INTEGRITY_CAPABILITIES (2.2.3.1.1).
    PreauthIntegrity {
        /// HashAlgorithms.
        hash_algorithms: Vec<u16>,
        /// Salt.
        salt: Bytes,
    },
    /// SMB2_ENCRYPTION_CAPABILITIES (2.2.3.1.2): the client's in its order of preference.
    Encryption {
        /// Ciphers.
        ciphers: Vec<u16>,
    },
    /// SMB2_SIGNING_CAPABILITIES (2.2.3.1.7): the client's in its order of preference.
    Signing {
        /// SigningAlgorithms.
        algorithms: Vec<u16>,
    },
}

impl Context {
    fn kind(&self) -> u16 {
        match self {
            Context::PreauthIntegrity { .. } => PREAUTH_INTEGRITY,
            Context::Encryption { .. } => ENCRYPTION,
            Context::Signing { .. } => SIGNING,
        }
    }

    /// Parses a context; `None`: the server ignores it.
    fn parse(kind: u16, data: &Bytes) -> Result<Option<Context>, Malformed> {
        let short = |_| Malformed::NegotiateContext(kind);
        let context = match kind {
            PREAUTH_INTEGRITY => {
                let (algorithms, salt) = fields(data, (le_u16, le_u16)).map_err(short)?;
                let start = 4 + 2 * usize::from(algorithms);
                let end = start + usize::from(salt);
                if end > data.len() {
                    return Err(Malformed::NegotiateContext(kind));
                }
                Context::PreauthIntegrity {
                    hash_algorithms: fields(&data[4..], count(le_u16, algorithms.into()))
                        .map_err(short)?,
                    salt: data.slice(start..end),
                }
            }
            ENCRYPTION => Context::Encryption {
                ciphers: counted_list(data).map_err(short)?,
            },
            SIGNING => Context::Signing {
                algorithms: counted_list(data).map_err(short)?,
            },
            _ => return Ok(None),
        };
        let empty = match &context {
            Context::PreauthIntegrity {
                hash_algorithms: list,
                ..
            }
            | Context::Encryption { ciphers: list }
            | Context::Signing { algorithms: list } => list.is_empty(),
        };
        // 3.3.5.4: an empty list of hashes, ciphers or signing algorithms is an invalid parameter.
        if empty {
            return Err(Malformed::NegotiateContext(kind));
        }
        Ok(Some(context))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut data = Vec::new();
        match self {
            Context::PreauthIntegrity {
                hash_algorithms,
                salt,
            } => {
                data.put_u16_le(hash_algorithms.len() as u16);
                data.put_u16_le(salt.len() as u16);
                hash_algorithms.iter().for_each(|id| data.put_u16_le(*id));
                data.extend_from_slice(salt);
            }
            Context::Encryption { ciphers: list } | Context::Signing { algorithms: list } => {
                data.put_u16_le(list.len() as u16);
                list.iter().for_each(|id| data.put_u16_le(*id));
            }
        }
        out.put_u16_le(self.kind());
        out.put_u16_le(data.len() as u16);
        out.put_u32_le(0);
        out.extend_from_slice(&data);
    }
}

fn counted_list(data: &[u8]) -> Result<Vec<u16>, Malformed> {
    let n = fields(data, le_u16)?;
    fields(
        data.get(2..).unwrap_or_default(),
        count(le_u16, usize::from(n)),
    )
}

/// The parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Dialects: revisions, at least one.
    pub dialects: Vec<u16>,
    /// SecurityMode.
    pub security_mode: u16,
    /// Capabilities: bits of [`capabilities`].
    pub capabilities: u32,
    /// ClientGuid.
    pub client_guid: [u8; 16],
    /// Negotiate contexts; only if 3.1.1 is among the dialects.
    pub contexts: Vec<Context>,
}

impl Request {
    const SIZE: u16 = 36;

    pub(super) fn parse(component: &Component) -> Result<Request, Malformed> {
        let (
            dialect_count,
            security_mode,
            _reserved,
            capabilities,
            client_guid,
            contexts_offset,
            contexts_count,
        ) = fields(
            fixed(component, Self::SIZE)?,
            (le_u16, le_u16, le_u16, le_u32, bytes_16, le_u32, le_u16),
        )?;
        // 3.3.5.4: DialectCount 0 is an invalid parameter.
        if dialect_count == 0 {
            return Err(Malformed::NoDialects);
        }
        let list = component
            .bytes
            .get(header::LEN + usize::from(Self::SIZE)..)
            .ok_or(Malformed::Truncated)?;
        let dialects = fields(list, count(le_u16, dialect_count.into()))?;
        let contexts = if dialects.contains(&Dialect::Smb311.revision()) {
            parse_contexts(component, contexts_offset, contexts_count)?
        } else {
            Vec::new()
        };
        Ok(Request {
            dialects,
            security_mode,
            capabilities,
            client_guid,
            contexts,
        })
    }
}

/// Parses the list of contexts, each at an 8-byte boundary (2.2.3.1).
fn parse_contexts(
    component: &Component,
    offset: u32,
    number: u16,
) -> Result<Vec<Context>, Malformed> {
    let mut contexts: Vec<Context> = Vec::new();
    let mut at = offset as usize;
    for _ in 0..number {
        if at < header::LEN + usize::from(Request::SIZE) {
            return Err(Malformed::NegotiateContexts);
        }
        let rest = component
            .bytes
            .get(at..)
            .ok_or(Malformed::NegotiateContexts)?;
        let (kind, length, _reserved) =
            fields(rest, (le_u16, le_u16, le_u32)).map_err(|_| Malformed::NegotiateContexts)?;
        let start = at + 8;
        let end = start + usize::from(length);
        if end > component.bytes.len() {
            return Err(Malformed::NegotiateContexts);
        }
        if let Some(context) = Context::parse(kind, &component.bytes.slice(start..end))? {
            // 3.3.5.4: more than one of these is an invalid parameter.
            if contexts.iter().any(|other| other.kind() == kind) {
                return Err(Malformed::DuplicateNegotiateContext(kind));
            }
            contexts.push(context);
        }
        at = end.next_multiple_of(8);
    }
    Ok(contexts)
}

/// The response to encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// SecurityMode.
    pub security_mode: u16,
    /// DialectRevision: one of the request's, or [`Dialect::WILDCARD`].
    pub dialect_revision: u16,
    /// ServerGuid.
    pub server_guid: [u8; 16],
    /// Capabilities: bits of [`capabilities`].
    pub capabilities: u32,
    /// MaxTransactSize in bytes.
    pub max_transact_size: u32,
    /// MaxReadSize in bytes.
    pub max_read_size: u32,
    /// MaxWriteSize in bytes.
    pub max_write_size: u32,
    /// SystemTime.
    pub system_time: FileTime,
    /// ServerStartTime.
    pub server_start_time: FileTime,
    /// The security token: the SPNEGO NegTokenInit2.
    pub security_buffer: Bytes,
    /// Negotiate contexts (3.1.1).
    pub contexts: Vec<Context>,
}

impl Response {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        // 64 bytes of header, 64 of body.
        const BUFFER: usize = 128;
        let contexts_offset = match self.contexts.is_empty() {
            true => 0,
            false => (BUFFER + self.security_buffer.len()).next_multiple_of(8),
        };
        let start = out.len();
        out.put_u16_le(65);
        out.put_u16_le(self.security_mode);
        out.put_u16_le(self.dialect_revision);
        out.put_u16_le(self.contexts.len() as u16);
        out.extend_from_slice(&self.server_guid);
        out.put_u32_le(self.capabilities);
        out.put_u32_le(self.max_transact_size);
        out.put_u32_le(self.max_read_size);
        out.put_u32_le(self.max_write_size);
        out.put_u64_le(self.system_time);
        out.put_u64_le(self.server_start_time);
        out.put_u16_le(BUFFER as u16);
        out.put_u16_le(self.security_buffer.len() as u16);
        out.put_u32_le(contexts_offset as u32);
        out.extend_from_slice(&self.security_buffer);
        for context in &self.contexts {
            pad(out, start, 8);
            context.encode(out);
        }
    }
}
