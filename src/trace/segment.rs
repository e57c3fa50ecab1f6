//! Parses captured TCP segments, which may be truncated after their headers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pcap_parser::Linktype;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};

#[cfg(test)]
pub(crate) mod tests;

/// The number of bytes of a frame that contain all headers and TCP's options: Ethernet with a VLAN tag, IPv6, TCP.
pub const HEADER_BYTES: usize = 18 + 40 + 60;

const ETHERNET_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
/// EtherTypes of a VLAN tag: IEEE 802.1Q, and 802.1ad.
const VLAN: [u16; 2] = [0x8100, 0x88A8];

/// A TCP segment (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The time of its capture, since 1970.
    pub at: Duration,
    /// Its source.
    pub source: SocketAddr,
    /// Its destination.
    pub destination: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: Option<u32>,
    /// The number of bytes of payload; of several segments, if the device segments them.
    pub payload_bytes: u32,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

impl Segment {
    /// Parses a captured frame of this link type that had `wire_bytes` on the wire. `None`: it is not a TCP segment, or
    /// its headers are truncated.
    #[must_use]
    pub fn read(link: Linktype, frame: &[u8], wire_bytes: usize, at: Duration) -> Option<Segment> {
        let packet = packet(link, frame)?;
        let header_bytes = frame.len() - packet.len();
        let on_wire = wire_bytes.saturating_sub(header_bytes);
        match packet.first()? >> 4 {
            4 => from_ipv4(packet, on_wire, at),
            6 => from_ipv6(packet, on_wire, at),
            _ => None,
        }
    }
}

/// Returns the IP packet in a frame.
fn packet(link: Linktype, frame: &[u8]) -> Option<&[u8]> {
    match link {
        Linktype::ETHERNET => in_ethernet(frame),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => Some(frame),
        Linktype(12 | 14) => Some(frame), // DLT_RAW of the BSDs
        Linktype::NULL | Linktype::LOOP => frame.get(4..),
        Linktype::LINUX_SLL => frame.get(16..),
        Linktype::LINUX_SLL2 => frame.get(20..),
        _ => None,
    }
}

fn in_ethernet(frame: &[u8]) -> Option<&[u8]> {
    let mut packet = frame.get(ETHERNET_BYTES..)?;
    let mut protocol = EthernetFrame::new_unchecked(frame).ethertype();
    while VLAN.contains(&protocol.into()) {
        let inner = packet.get(2..4)?.try_into().ok()?;
        protocol = u16::from_be_bytes(inner).into();
        packet = packet.get(VLAN_TAG_BYTES..)?;
    }
    matches!(protocol, EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6).then_some(packet)
}

fn from_ipv4(packet: &[u8], on_wire: usize, at: Duration) -> Option<Segment> {
    if packet.len() < IPV4_BYTES {
        return None;
    }
    let ip = Ipv4Packet::new_unchecked(packet);
    // Only the first fragment has the TCP header.
    if ip.next_header() != IpProtocol::Tcp || ip.frag_offset() != 0 {
        return None;
    }
    let header_bytes = usize::from(ip.header_len());
    // Zero: a packet of more than 64 KiB, which the device segments.
    let total = match usize::from(ip.total_len()) {
        0 => on_wire,
        total => total,
    };
    let tcp = packet.get(header_bytes..)?;
    let addresses = (ip.src_addr().into(), ip.dst_addr().into());
    from_tcp(tcp, total.checked_sub(header_bytes)?, addresses, at)
}

fn from_ipv6(packet: &[u8], on_wire: usize, at: Duration) -> Option<Segment> {
    let tcp = packet.get(IPV6_BYTES..)?;
    let ip = Ipv6Packet::new_unchecked(packet);
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    let bytes = match usize::from(ip.payload_len()) {
        0 => on_wire.checked_sub(IPV6_BYTES)?,
        bytes => bytes,
    };
    let addresses = (ip.src_addr().into(), ip.dst_addr().into());
    from_tcp(tcp, bytes, addresses, at)
}

fn from_tcp(
    segment: &[u8],
    bytes: usize,
    (source, destination): (IpAddr, IpAddr),
    at: Duration,
) -> Option<Segment> {
    if segment.len() < TCP_BYTES {
        return None;
    }
    let tcp = TcpPacket::new_unchecked(segment);
    let payload = bytes.checked_sub(usize::from(tcp.header_len()))?;
    Some(Segment {
        at,
        source: SocketAddr::new(source, tcp.src_port()),
        destination: SocketAddr::new(destination, tcp.dst_port()),
        seq: sequence(tcp.seq_number()),
        ack: tcp.ack().then(|| sequence(tcp.ack_number())),
        payload_bytes: u32::try_from(payload).ok()?,
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
    })
}

fn sequence(number: smoltcp::wire::TcpSeqNumber) -> u32 {
    number.0.cast_unsigned()
}
