//! UDP datagrams as frames, for protocols that find services on a link. Pure wire format (RFC 768): nothing is kept,
//! and nothing is sent by itself.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
};

use super::parse::{ETHERNET_HEADER_LEN, Ethernet, Extent, Packet};
use crate::frame::TxFrame;

/// IP protocol number of UDP.
const PROTOCOL_UDP: u8 = 17;
/// Bytes of a UDP header.
const UDP_HEADER_LEN: usize = 8;

/// A UDP datagram out of its headers. Its checksum is not looked at: what is in it is a question or a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Ethernet address of the sender.
    pub source_mac: [u8; 6],
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// What UDP carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads a frame; `None`: it carries something else, or a part of a datagram.
    #[must_use]
    pub fn parse(frame: &'a [u8]) -> Option<Datagram<'a>> {
        let ethernet = Ethernet::parse(frame).ok()?;
        let packet = Packet::parse(ethernet.payload, Extent::Whole).ok()?;
        if packet.protocol != PROTOCOL_UDP || packet.fragment {
            return None;
        }
        let udp = packet.payload;
        let number = |at: usize| {
            let bytes = udp.get(at..at + 2)?.try_into().ok()?;
            Some(u16::from_be_bytes(bytes))
        };
        let length = usize::from(number(4)?);
        Some(Datagram {
            source_mac: ethernet.source,
            source: SocketAddr::new(packet.source, number(0)?),
            destination: SocketAddr::new(packet.destination, number(2)?),
            payload: udp.get(UDP_HEADER_LEN..length)?,
        })
    }

    /// Makes the frame, from this Ethernet address to another; `None`: the addresses are of two families, or it is too
    /// long for one packet.
    #[must_use]
    pub fn frame(&self, destination_mac: [u8; 6], hop_limit: u8) -> Option<TxFrame> {
        let udp = UdpRepr {
            src_port: self.source.port(),
            dst_port: self.destination.port(),
        };
        let udp_len = UDP_HEADER_LEN + self.payload.len();
        // RFC 791, section 3.1; RFC 768.
        u16::try_from(udp_len + 40).ok()?;
        let (protocol, ip_len) = match self.source {
            SocketAddr::V4(_) => (EthernetProtocol::Ipv4, 20),
            SocketAddr::V6(_) => (EthernetProtocol::Ipv6, 40),
        };
        let mut bytes = vec![0; ETHERNET_HEADER_LEN + ip_len + udp_len];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes[..]);
        ethernet.set_src_addr(EthernetAddress(self.source_mac));
        ethernet.set_dst_addr(EthernetAddress(destination_mac));
        ethernet.set_ethertype(protocol);
        let (ip, rest) = ethernet.payload_mut().split_at_mut(ip_len);
        let checksums = ChecksumCapabilities::default();
        let (source, destination) = (self.source.ip(), self.destination.ip());
        match (source, destination) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => Ipv4Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Udp,
                payload_len: udp_len,
                hop_limit,
            }
            .emit(&mut Ipv4Packet::new_unchecked(ip), &checksums),
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => Ipv6Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Udp,
                payload_len: udp_len,
                hop_limit,
            }
            .emit(&mut Ipv6Packet::new_unchecked(ip)),
            _ => return None,
        }
        udp.emit(
            &mut UdpPacket::new_unchecked(rest),
            &IpAddress::from(source),
            &IpAddress::from(destination),
            self.payload.len(),
            |payload| payload.copy_from_slice(self.payload),
            &checksums,
        );
        Some(TxFrame::plain(bytes))
    }
}

#[cfg(test)]
mod tests;
