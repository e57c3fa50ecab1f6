//! Parses and builds connection-oriented PDUs (C706 12.6, MS-RPCE 2.2.2), little-endian.

use super::Fault;
use bytes::BufMut;
use nom::IResult;
use nom::Parser;
use nom::bytes::complete::take;
use nom::multi::count;
use nom::number::complete::{le_u8, le_u16, le_u32};

/// Length of the common header in bytes.
pub(super) const HEADER: usize = 16;
/// Length of a response's header in bytes, the common one included.
const RESPONSE_HEADER: usize = 24;
/// The largest fragment that this server sends and accepts: that of Windows and Samba on pipes.
pub(super) const MAX_FRAGMENT: u16 = 4280;
/// The smallest limit of a peer (MS-RPCE 2.2.2.5: every implementation accepts fragments of this size).
const MUST_RECV_FRAGMENT: u16 = 1432;

const PFC_FIRST_FRAG: u8 = 0x01;
const PFC_LAST_FRAG: u8 = 0x02;
const PFC_OBJECT_UUID: u8 = 0x80;

const REQUEST: u8 = 0;
const RESPONSE: u8 = 2;
const FAULT: u8 = 3;
const BIND: u8 = 11;
const BIND_ACK: u8 = 12;
const BIND_NAK: u8 = 13;
const ALTER_CONTEXT: u8 = 14;
const ALTER_CONTEXT_RESPONSE: u8 = 15;
const CO_CANCEL: u8 = 18;
const ORPHANED: u8 = 19;

/// A p_syntax_id_t: an interface or a transfer syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    /// The UUID as on the wire.
    pub(super) uuid: [u8; 16],
    /// Major version in the low half, minor in the high.
    pub(super) version: u32,
}

/// NDR, 8a885d04-1ceb-11c9-9fe8-08002b104860, version 2.
pub(super) const NDR: Syntax = Syntax {
    uuid: [
        0x04, 0x5D, 0x88, 0x8A, 0xEB, 0x1C, 0xC9, 0x11, 0x9F, 0xE8, 0x08, 0x00, 0x2B, 0x10, 0x48,
        0x60,
    ],
    version: 2,
};

/// A p_cont_elem_t: one presentation context that a client proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) context_id: u16,
    pub(super) interface: Syntax,
    pub(super) transfers: Vec<Syntax>,
}

/// The content of a client's PDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// bind, or alter_context.
    Bind {
        alter: bool,
        max_recv_fragment: u16,
        association: u32,
        proposals: Vec<Proposal>,
    },
    /// A fragment of a request.
    Request {
        first: bool,
        last: bool,
        context_id: u16,
        opnum: u16,
        stub: &'a [u8],
    },
    /// A bind that requests authentication, which the SMB session has already done.
    Authenticated,
    /// Cancels a call; calls are answered at once, so it has no effect.
    Cancel,
}

/// A client's PDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pdu<'a> {
    pub(super) call_id: u32,
    pub(super) body: Body<'a>,
}

/// A violation of the protocol, after which the pipe is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl From<nom::Err<nom::error::Error<&[u8]>>> for Broken {
    fn from(_: nom::Err<nom::error::Error<&[u8]>>) -> Broken {
        Broken
    }
}

/// Returns the length of the PDU at the start of `bytes`, or `None` if its header is incomplete.
pub(super) fn fragment_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let Some([version, minor, _, _, drep, _, _, _, low, high, ..]) = bytes.first_chunk::<HEADER>()
    else {
        return Ok(None);
    };
    let len = u16::from_le_bytes([*low, *high]);
    // Data representation: 0x10 is little-endian integers, ASCII (C706 14.1).
    let known = *version == 5 && *minor <= 1 && *drep == 0x10;
    if !known || usize::from(len) < HEADER || len > MAX_FRAGMENT {
        return Err(Broken);
    }
    Ok(Some(usize::from(len)))
}

/// Parses one whole PDU ([`fragment_len`] bytes).
pub(super) fn parse(bytes: &[u8]) -> Result<Pdu<'_>, Broken> {
    let (body, (_versions, kind, flags, _drep, _length, auth_length, call_id)) =
        (le_u16, le_u8, le_u8, le_u32, le_u16, le_u16, le_u32).parse(bytes)?;
    let body = match kind {
        BIND | ALTER_CONTEXT if auth_length != 0 => Body::Authenticated,
        BIND | ALTER_CONTEXT => {
            let (_, (_max_xmit, max_recv_fragment, association, contexts)) =
                (le_u16, le_u16, le_u32, proposals).parse(body)?;
            Body::Bind {
                alter: kind == ALTER_CONTEXT,
                max_recv_fragment,
                association,
                proposals: contexts,
            }
        }
        REQUEST if auth_length == 0 => {
            let (mut stub, (_alloc_hint, context_id, opnum)) =
                (le_u32, le_u16, le_u16).parse(body)?;
            if flags & PFC_OBJECT_UUID != 0 {
                (stub, _) = take(16usize).parse(stub)?;
            }
            Body::Request {
                first: flags & PFC_FIRST_FRAG != 0,
                last: flags & PFC_LAST_FRAG != 0,
                context_id,
                opnum,
                stub,
            }
        }
        CO_CANCEL | ORPHANED => Body::Cancel,
        _ => return Err(Broken),
    };
    Ok(Pdu { call_id, body })
}

fn syntax(bytes: &[u8]) -> IResult<&[u8], Syntax> {
    let (rest, (uuid, version)) = (nom::number::complete::le_u128, le_u32).parse(bytes)?;
    let uuid = uuid.to_le_bytes();
    Ok((rest, Syntax { uuid, version }))
}

fn proposal(bytes: &[u8]) -> IResult<&[u8], Proposal> {
    let (rest, (context_id, transfers, _reserved, interface)) =
        (le_u16, le_u8, le_u8, syntax).parse(bytes)?;
    let (rest, transfers) = count(syntax, usize::from(transfers)).parse(rest)?;
    Ok((
        rest,
        Proposal {
            context_id,
            interface,
            transfers,
        },
    ))
}

fn proposals(bytes: &[u8]) -> IResult<&[u8], Vec<Proposal>> {
    let (rest, (contexts, _reserved, _reserved2)) = (le_u8, le_u8, le_u16).parse(bytes)?;
    count(proposal, usize::from(contexts)).parse(rest)
}

/// Returns the largest fragment to send to a client with this limit.
pub(super) fn fragment_limit(max_recv_fragment: u16) -> u16 {
    max_recv_fragment.clamp(MUST_RECV_FRAGMENT, MAX_FRAGMENT)
}

/// Prepends a common header to `body`.
fn pdu(kind: u8, flags: u8, call_id: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.put_u16_le(5); // rpc_vers 5, rpc_vers_minor 0
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32_le(0x10);
    out.put_u16_le(u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX));
    out.put_u16_le(0); // auth_length
    out.put_u32_le(call_id);
    out.extend_from_slice(body);
    out
}

/// The result of a proposal: acceptance, or the provider's reason for its rejection (C706 12.6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    AbstractSyntaxNotSupported,
    TransferSyntaxesNotSupported,
}

/// Builds a bind_ack, or an alter_context_resp.
pub(super) fn bind_ack(
    call_id: u32,
    alter: bool,
    fragment: u16,
    association: u32,
    pipe: &str,
    verdicts: &[Verdict],
) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16_le(fragment); // max_xmit_frag
    body.put_u16_le(MAX_FRAGMENT); // max_recv_frag
    body.put_u32_le(association);
    // An alter_context_resp has an empty secondary address (C706 12.6.4.2).
    let address = if alter {
        String::new()
    } else {
        format!("\\pipe\\{pipe}\0")
    };
    body.put_u16_le(u16::try_from(address.len()).unwrap_or(0));
    body.extend_from_slice(address.as_bytes());
    // Aligned from the start of the PDU, whose header is a multiple of four.
    body.resize(body.len().next_multiple_of(4), 0);
    body.put_u32_le(u32::try_from(verdicts.len()).unwrap_or(0)); // n_results (at most 255), reserved
    for verdict in verdicts {
        let (result, reason, transfer) = match verdict {
            Verdict::Accepted => (0, 0, NDR),
            Verdict::AbstractSyntaxNotSupported => (2, 1, NOTHING),
            Verdict::TransferSyntaxesNotSupported => (2, 2, NOTHING),
        };
        body.put_u16_le(result);
        body.put_u16_le(reason);
        body.extend_from_slice(&transfer.uuid);
        body.put_u32_le(transfer.version);
    }
    let kind = if alter {
        ALTER_CONTEXT_RESPONSE
    } else {
        BIND_ACK
    };
    pdu(kind, PFC_FIRST_FRAG | PFC_LAST_FRAG, call_id, &body)
}

/// The transfer syntax of a rejected proposal.
const NOTHING: Syntax = Syntax {
    uuid: [0; 16],
    version: 0,
};

/// Builds a bind_nak: authentication_type_not_recognized (MS-RPCE 2.2.2.5), with the supported versions of the
/// protocol.
pub(super) fn bind_nak(call_id: u32) -> Vec<u8> {
    let flags = PFC_FIRST_FRAG | PFC_LAST_FRAG;
    pdu(BIND_NAK, flags, call_id, &[8, 0, 1, 5, 0])
}

/// Builds a fault PDU.
pub(super) fn fault(call_id: u32, context_id: u16, fault: Fault) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32_le(0); // alloc_hint
    body.put_u16_le(context_id);
    body.put_u16_le(0); // cancel_count, reserved
    body.put_u32_le(fault.code());
    body.put_u32_le(0); // reserved2
    pdu(FAULT, PFC_FIRST_FRAG | PFC_LAST_FRAG, call_id, &body)
}

/// Builds a response in as many fragments as it needs.
pub(super) fn responses(call_id: u32, context_id: u16, stub: &[u8], fragment: u16) -> Vec<Vec<u8>> {
    // All fragments but the last carry a multiple of eight bytes of stub data (C706 12.6.2).
    let room = (usize::from(fragment).saturating_sub(RESPONSE_HEADER) & !7).max(8);
    let chunks: Vec<&[u8]> = if stub.is_empty() {
        vec![stub]
    } else {
        stub.chunks(room).collect()
    };
    let last = chunks.len() - 1;
    let mut left = stub.len();
    chunks
        .iter()
        .enumerate()
        .map(|(i, chunk)| {
            let mut flags = 0;
            if i == 0 {
                flags |= PFC_FIRST_FRAG;
            }
            if i == last {
                flags |= PFC_LAST_FRAG;
            }
            let mut body = Vec::with_capacity(8 + chunk.len());
            body.put_u32_le(u32::try_from(left).unwrap_or(0)); // alloc_hint
            body.put_u16_le(context_id);
            body.put_u16_le(0); // cancel_count, reserved
            body.extend_from_slice(chunk);
            left -= chunk.len();
            pdu(RESPONSE, flags, call_id, &body)
        })
        .collect()
}
