//! ARP and NDP frames: requests for a peer's Ethernet address and announcements of ours. A server that has just
//! returned needs them: its clients' neighbour entries are gone or stale, or point to the machine that served them
//! before.

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr,
    NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use super::egress::{IpFields, ethernet_header, ip_header};
use super::link_local;
use super::parse::PROTOCOL_ICMPV6;

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Neighbour discovery is for the link alone (RFC 4861 section 7.1): packets with another hop limit are ignored.
const NDP_HOP_LIMIT: u8 = 255;

/// An ARP request (RFC 826) of `source` for `target`; a gratuitous one (RFC 5227 section 3) if they are the same.
pub(crate) fn arp_request(mac: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut frame = Vec::new();
    ethernet_header(&mut frame, mac, BROADCAST, 0x0806);
    let start = frame.len();
    frame.resize(start + request.buffer_len(), 0);
    request.emit(&mut ArpPacket::new_unchecked(&mut frame[start..]));
    frame
}

/// A neighbour solicitation (RFC 4861 section 4.3) of `source` for `target`, to the target's solicited-node group.
pub(crate) fn solicitation(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let solicitation = NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: Some(RawHardwareAddress::from_bytes(&mac)),
    };
    discovery(mac, source, solicited_node(target), solicitation)
}

/// A neighbour solicitation that asks whether another host has the address (RFC 4862 section 5.4.2). Its source is
/// unspecified, so it has no Ethernet address (RFC 4861 section 4.3).
pub(crate) fn probe_address(mac: [u8; 6], target: Ipv6Addr) -> Vec<u8> {
    let solicitation = NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: None,
    };
    let group = solicited_node(target);
    discovery(mac, Ipv6Addr::UNSPECIFIED, group, solicitation)
}

/// A router solicitation (RFC 4861 section 4.1) from the link-local address.
pub(crate) fn router_solicitation(mac: [u8; 6]) -> Vec<u8> {
    let solicitation = NdiscRepr::RouterSolicit {
        lladdr: Some(RawHardwareAddress::from_bytes(&mac)),
    };
    discovery(mac, link_local(mac), ALL_ROUTERS, solicitation)
}

/// The solicited-node group of an address (RFC 4291 section 2.7.1).
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    )
}

/// An unsolicited neighbour advertisement (RFC 4861 section 7.2.6) of `address`, to all nodes.
pub(crate) fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let advertisement = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: address,
        lladdr: Some(RawHardwareAddress::from_bytes(&mac)),
    };
    discovery(mac, address, ALL_NODES, advertisement)
}

fn discovery(mac: [u8; 6], source: Ipv6Addr, group: Ipv6Addr, message: NdiscRepr<'_>) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(message);
    let [.., a, b, c, d] = group.octets();
    let mut frame = Vec::new();
    // The group's Ethernet address (RFC 2464 section 7).
    ethernet_header(&mut frame, mac, [0x33, 0x33, a, b, c, d], 0x86dd);
    let fields = IpFields {
        hop_limit: NDP_HOP_LIMIT,
        ..IpFields::new(PROTOCOL_ICMPV6, 0)
    };
    ip_header(
        &mut frame,
        source.into(),
        group.into(),
        message.buffer_len(),
        fields,
    );
    let start = frame.len();
    frame.resize(start + message.buffer_len(), 0);
    message.emit(
        &source,
        &group,
        &mut Icmpv6Packet::new_unchecked(&mut frame[start..]),
        &ChecksumCapabilities::default(),
    );
    frame
}
