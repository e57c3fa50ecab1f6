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
mod tests {
    use super::*;

    fn datagram<'a>(source: &str, destination: &str, payload: &'a [u8]) -> Datagram<'a> {
        Datagram {
            source_mac: [2, 0, 0, 0, 0, 1],
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            payload,
        }
    }

    #[test]
    fn a_frame_is_read_as_it_was_made() {
        for (source, destination) in [
            ("10.77.0.1:5353", "224.0.0.251:5353"),
            ("[fd77::1]:5353", "[ff02::fb]:5353"),
        ] {
            for payload in [&b""[..], b"odd", b"question"] {
                let made = datagram(source, destination, payload);
                let frame = made.frame([1, 0, 0x5e, 0, 0, 0xfb], 255).unwrap();
                assert_eq!(Datagram::parse(&frame.header), Some(made));
                // An independent reading, with the checksums.
                let ethernet = EthernetFrame::new_checked(&frame.header[..]).unwrap();
                assert_eq!(ethernet.dst_addr().0, [1, 0, 0x5e, 0, 0, 0xfb]);
                let ends = [made.source, made.destination].map(|end| IpAddress::from(end.ip()));
                let udp = match made.source {
                    SocketAddr::V4(_) => {
                        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                        assert!(ip.verify_checksum() && ip.hop_limit() == 255);
                        ip.payload()
                    }
                    SocketAddr::V6(_) => {
                        let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                        assert_eq!(ip.hop_limit(), 255);
                        ip.payload()
                    }
                };
                let udp = UdpPacket::new_checked(udp).unwrap();
                assert!(udp.verify_checksum(&ends[0], &ends[1]));
            }
        }
        let mixed = datagram("10.77.0.1:5353", "[ff02::fb]:5353", b"");
        assert_eq!(mixed.frame([0; 6], 255), None);
        let long = vec![0; 70_000];
        assert_eq!(
            datagram("10.77.0.1:1", "10.77.0.2:1", &long).frame([0; 6], 1),
            None
        );
    }

    #[test]
    fn what_is_cut_short_is_no_datagram() {
        let made = datagram("10.77.0.1:5353", "224.0.0.251:5353", b"question");
        let frame = made.frame([1; 6], 255).unwrap().header;
        for end in 0..frame.len() {
            assert_eq!(Datagram::parse(&frame[..end]), None);
        }
        // A length of UDP's beyond the packet, and one that is shorter than its header.
        for length in [0, 7, 200] {
            let mut frame = frame.clone();
            frame[39] = length;
            assert_eq!(Datagram::parse(&frame), None);
        }
    }
}
