//! ICMP errors that concern TCP: those that arrive, and the one that wakes a client whose retransmission timer has backed off (RFC 6069).

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::IpProtocol;

use super::checksum::Sum;
use super::egress::{IpFields, ip_header};
use super::parse::{Extent, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, Packet};

/// Routers from before RFC 1191 leave the next-hop MTU out; its section 7 lists the sizes to try instead, in bytes.
const PLATEAUS: [u16; 11] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
/// A path of IPv6 carries this many bytes (RFC 8200 section 5); a smaller claim is not believed (RFC 8201 section 4).
const IPV6_MIN_MTU: u32 = 1280;

/// An ICMP error about a segment that we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Our end of the connection it quotes.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// Sequence number of the quoted segment. RFC 5927 section 4.1: to be believed, it must be in flight.
    pub seq: u32,
    /// What went wrong.
    pub kind: IcmpErrorKind,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// The next hop takes IP packets of at most this many bytes (RFC 1191, RFC 8201).
    PacketTooBig {
        /// IP packet size in bytes; at least 68 (IPv4) or 1280 (IPv6).
        mtu: u32,
    },
    /// The peer cannot be reached now (RFC 9293 section 3.9.2.2: a soft error).
    Unreachable,
    /// The peer's host refuses the protocol or the port (a hard error, for connections that are not synchronized).
    Refused,
}

/// The error an ICMP or ICMPv6 packet reports about a TCP segment, or `None` if it is something else or not valid.
pub(crate) fn parse(packet: &Packet<'_>) -> Option<IcmpError> {
    let message = packet.payload;
    let (header, quoted) = message.split_first_chunk::<8>()?;
    let [kind, code, ..] = *header;
    let v6 = packet.protocol == PROTOCOL_ICMPV6;
    let mut sum = match v6 {
        true => Sum::pseudo_header(packet.source, packet.destination, IpProtocol::Icmpv6, message.len()),
        false => Sum::default(),
    };
    sum.add(message);
    if !sum.is_valid() {
        return None;
    }

    let quotation = Packet::parse(quoted, Extent::Quoted).ok()?;
    if quotation.protocol != PROTOCOL_TCP || quotation.fragment || quotation.source.is_ipv6() != v6 {
        return None;
    }
    let tcp: &[u8; 8] = quotation.payload.first_chunk()?;

    let kind = match (packet.protocol, kind, code) {
        (PROTOCOL_ICMP, 3, 4) => {
            let stated = u16::from_be_bytes([header[6], header[7]]);
            let sent = u16::from_be_bytes([quoted[2], quoted[3]]);
            let mtu = match stated {
                0 => PLATEAUS.into_iter().find(|plateau| *plateau < sent).unwrap_or(68),
                mtu => mtu.max(68),
            };
            IcmpErrorKind::PacketTooBig { mtu: u32::from(mtu) }
        }
        (PROTOCOL_ICMP, 3, 2 | 3) => IcmpErrorKind::Refused,
        // Destination unreachable, time exceeded, parameter problem.
        (PROTOCOL_ICMP, 3 | 11 | 12, _) => IcmpErrorKind::Unreachable,
        (PROTOCOL_ICMPV6, 2, _) => {
            let stated = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            IcmpErrorKind::PacketTooBig { mtu: stated.max(IPV6_MIN_MTU) }
        }
        (PROTOCOL_ICMPV6, 1, 4) => IcmpErrorKind::Refused,
        (PROTOCOL_ICMPV6, 1 | 3 | 4, _) => IcmpErrorKind::Unreachable,
        _ => return None,
    };
    Some(IcmpError {
        local: SocketAddr::new(quotation.source, u16::from_be_bytes([tcp[0], tcp[1]])),
        peer: SocketAddr::new(quotation.destination, u16::from_be_bytes([tcp[2], tcp[3]])),
        seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        kind,
    })
}

/// The ICMP message (without IP header) "host unreachable" (type 3 code 1) or "no route to destination" (type 1 code 0) about the
/// segment `seq` that `peer` sent to `local`; it goes from `local` to `peer`. `None` if the two are of different IP versions.
pub(crate) fn host_unreachable(local: SocketAddr, peer: SocketAddr, seq: u32) -> Option<Vec<u8>> {
    let (kind, code) = match (local.ip(), peer.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (3, 1),
        (IpAddr::V6(_), IpAddr::V6(_)) => (1, 0),
        _ => return None,
    };
    let mut tcp = [0u8; 20];
    tcp[0..2].copy_from_slice(&peer.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&local.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 0x10;

    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    ip_header(&mut message, peer.ip(), local.ip(), tcp.len(), IpFields::new(PROTOCOL_TCP, 0))?;
    message.extend_from_slice(&tcp);
    let mut sum = match local.is_ipv6() {
        true => Sum::pseudo_header(local.ip(), peer.ip(), IpProtocol::Icmpv6, message.len()),
        false => Sum::default(),
    };
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    Some(message)
}
