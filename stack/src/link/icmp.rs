//! ICMP errors that concern TCP: those that arrive, and the one we send to wake a client whose retransmission timer has
//! backed off (RFC 6069).

use std::net::SocketAddr;

use smoltcp::wire::IpProtocol;

use super::checksum::Sum;
use super::egress::{IpFields, ip_header};
use super::parse::{Extent, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, Packet};
use crate::Path;
use crate::frame::{IcmpError, IcmpKind};

/// Next-hop MTUs to try, in bytes, for routers from before RFC 1191 that state none (its section 7).
//= rfc1191 5a
const PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
];
/// Every IPv4 path carries this many bytes (RFC 791).
const IPV4_MIN_MTU: u16 = 68;
/// Every IPv6 path carries this many bytes (RFC 8200 section 5).
const IPV6_MIN_MTU: u32 = 1280;

/// Parses the error that an ICMP or ICMPv6 packet reports about a TCP segment; `None` if it is something else or not
/// valid.
pub(crate) fn parse(packet: &Packet<'_>) -> Option<IcmpError> {
    let message = packet.payload;
    let (header, quoted) = message.split_first_chunk::<8>()?;
    let (kind, code) = (header[0], header[1]);
    //= rfc9293 MUST-55
    // Destination unreachable, time exceeded, parameter problem (RFC 792; RFC 4443), but not Source Quench (RFC 6633).
    let (v6, too_big) = match (packet.protocol, kind, code) {
        (PROTOCOL_ICMP, 3, 4) if packet.source.is_ipv4() => (false, true),
        (PROTOCOL_ICMP, 3 | 11 | 12, _) if packet.source.is_ipv4() => (false, false),
        (PROTOCOL_ICMPV6, 2, _) if packet.source.is_ipv6() => (true, true),
        (PROTOCOL_ICMPV6, 1 | 3 | 4, _) if packet.source.is_ipv6() => (true, false),
        _ => return None,
    };
    let mut sum = match v6 {
        true => Sum::pseudo_header(
            packet.source,
            packet.destination,
            IpProtocol::Icmpv6,
            message.len(),
        ),
        false => Sum::default(),
    };
    sum.add(message);
    if !sum.is_valid() {
        return None;
    }

    let quotation = Packet::parse(quoted, Extent::Quoted).ok()?;
    if quotation.protocol != PROTOCOL_TCP || quotation.fragment || quotation.source.is_ipv6() != v6
    {
        return None;
    }
    let tcp: &[u8; 8] = quotation.payload.first_chunk()?;
    let mtu = match v6 {
        true => {
            let stated = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            //= rfc8201 4b
            // RFC 8201 section 4: a smaller claim is discarded.
            if too_big && stated < IPV6_MIN_MTU {
                return None;
            }
            stated
        }
        false => {
            let sent = u16::from_be_bytes([quoted[2], quoted[3]]);
            let mtu = match u16::from_be_bytes([header[6], header[7]]) {
                0 => PLATEAUS
                    .into_iter()
                    .find(|plateau| *plateau < sent)
                    .unwrap_or(IPV4_MIN_MTU),
                stated => stated.max(IPV4_MIN_MTU),
            };
            u32::from(mtu)
        }
    };
    Some(IcmpError {
        local: SocketAddr::new(quotation.source, u16::from_be_bytes([tcp[0], tcp[1]])),
        remote: SocketAddr::new(quotation.destination, u16::from_be_bytes([tcp[2], tcp[3]])),
        seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        kind: match too_big {
            true => IcmpKind::TooBig { mtu: mtu as usize },
            false => IcmpKind::Unreachable { kind, code },
        },
    })
}

/// Makes the ICMP message (without IP header) "host unreachable" (type 3 code 1) or "no route to destination" (type 1
/// code 0) about the segment `seq` that the remote end of `path` sent to the local one.
//= rfc6069 4.2a
pub(crate) fn host_unreachable(path: &Path, seq: u32) -> Vec<u8> {
    let Path { local, remote, .. } = *path;
    let (kind, code) = if local.is_ipv4() { (3, 1) } else { (1, 0) };
    let mut tcp = [0u8; 20];
    tcp[0..2].copy_from_slice(&remote.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&local.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 0x10;

    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    ip_header(
        &mut message,
        remote.ip(),
        local.ip(),
        tcp.len(),
        IpFields::new(PROTOCOL_TCP, 0),
    );
    message.extend_from_slice(&tcp);
    let mut sum = match local.is_ipv6() {
        true => Sum::pseudo_header(local.ip(), remote.ip(), IpProtocol::Icmpv6, message.len()),
        false => Sum::default(),
    };
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    message
}
