//! Parses the headers below TCP: Ethernet II, IPv4, IPv6 with its extension headers. Every length is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;

/// Bytes of an Ethernet II header.
pub(crate) const ETHERNET_HEADER_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_HEADER_LEN: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub(crate) const IPV6_HEADER_LEN: usize = 40;

/// IP protocol numbers.
pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;

/// An IPv6 packet with more extension headers than this is treated as an attack.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Why a packet cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A header or a length field does not fit the bytes.
    Length,
    /// The version field contradicts the EtherType.
    Version,
    /// The IPv4 header checksum is wrong.
    HeaderChecksum,
    /// Too many extension headers, a hop-by-hop header out of place, or one that may not be skipped.
    Extensions,
}

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Arp,
    Ipv4,
    Ipv6,
    /// VLAN tags, LLDP, ...: not processed.
    Unknown,
}

/// An Ethernet II frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ethernet<'a> {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub protocol: Protocol,
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub(crate) fn parse(frame: &'a [u8]) -> Result<Ethernet<'a>, Malformed> {
        let (destination, rest) = frame.split_first_chunk::<6>().ok_or(Malformed::Length)?;
        let (source, rest) = rest.split_first_chunk::<6>().ok_or(Malformed::Length)?;
        let (ethertype, payload) = rest.split_first_chunk::<2>().ok_or(Malformed::Length)?;
        let protocol = match u16::from_be_bytes(*ethertype) {
            0x0800 => Protocol::Ipv4,
            0x0806 => Protocol::Arp,
            0x86dd => Protocol::Ipv6,
            _ => Protocol::Unknown,
        };
        Ok(Ethernet {
            destination: *destination,
            source: *source,
            protocol,
            payload,
        })
    }
}

/// An IP packet of either version, its headers parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The protocol above IP and above the extension headers.
    pub protocol: u8,
    /// The packet is a part of a larger one.
    pub fragment: bool,
    /// The bytes above IP, without Ethernet padding; cut short in a quotation.
    pub payload: &'a [u8],
}

/// Whether the whole packet must be present, or only its beginning, as an ICMP error quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Quoted,
}

impl<'a> Packet<'a> {
    /// Reads a packet of the version its first nibble states.
    pub(crate) fn parse(bytes: &'a [u8], extent: Extent) -> Result<Packet<'a>, Malformed> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => Packet::parse_ipv4(bytes, extent),
            Some(6) => Packet::parse_ipv6(bytes, extent),
            Some(_) => Err(Malformed::Version),
            None => Err(Malformed::Length),
        }
    }

    /// RFC 791 section 3.1.
    fn parse_ipv4(bytes: &'a [u8], extent: Extent) -> Result<Packet<'a>, Malformed> {
        let fixed: &[u8; IPV4_HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::Length)?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let header = bytes.get(..header_len).ok_or(Malformed::Length)?;
        if header_len < IPV4_HEADER_LEN || total_len < header_len {
            return Err(Malformed::Length);
        }
        let payload = match extent {
            Extent::Whole => {
                let mut sum = Sum::default();
                sum.add(header);
                if !sum.is_valid() {
                    return Err(Malformed::HeaderChecksum);
                }
                bytes.get(header_len..total_len).ok_or(Malformed::Length)?
            }
            Extent::Quoted => &bytes[header_len..total_len.min(bytes.len())],
        };
        let flags_and_offset = u16::from_be_bytes([fixed[6], fixed[7]]);
        Ok(Packet {
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
            protocol: fixed[9],
            // More fragments, or an offset; "don't fragment" and the reserved bit do not matter.
            fragment: flags_and_offset & 0x3fff != 0,
            payload,
        })
    }

    /// RFC 8200 sections 3 and 4.
    fn parse_ipv6(bytes: &'a [u8], extent: Extent) -> Result<Packet<'a>, Malformed> {
        let (fixed, rest) = bytes
            .split_first_chunk::<IPV6_HEADER_LEN>()
            .ok_or(Malformed::Length)?;
        let payload_len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let mut payload = match extent {
            Extent::Whole => rest.get(..payload_len).ok_or(Malformed::Length)?,
            Extent::Quoted => &rest[..payload_len.min(rest.len())],
        };
        let [source, destination] = [8, 24].map(|at| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&fixed[at..at + 16]);
            Ipv6Addr::from(octets)
        });
        let mut protocol = fixed[6];
        let mut fragment = false;
        let mut walked = 0;
        loop {
            let header_len = match protocol {
                // Hop-by-hop options stand first or not at all (RFC 8200 section 4.1).
                0 if walked > 0 => return Err(Malformed::Extensions),
                // Hop-by-hop, routing, destination options: length in units of 8 bytes, the first not counted.
                0 | 43 | 60 => {
                    let field: &[u8; 8] = payload.first_chunk().ok_or(Malformed::Length)?;
                    let header_len = (usize::from(field[1]) + 1) * 8;
                    let header = payload.get(..header_len).ok_or(Malformed::Length)?;
                    //= rfc8200 4.2b, 4.4a, 4.4b
                    // A routing header is skipped if no segments are left: we are no stop on the way (RFC 8200 section
                    // 4.4).
                    let passed = match protocol {
                        43 => field[3] == 0,
                        _ => may_skip_options(&header[2..]),
                    };
                    if !passed {
                        return Err(Malformed::Extensions);
                    }
                    header_len
                }
                44 => {
                    let field: &[u8; 8] = payload.first_chunk().ok_or(Malformed::Length)?;
                    // An atomic fragment (RFC 6946) is the whole packet; the reserved bits do not matter.
                    if u16::from_be_bytes([field[2], field[3]]) & 0xfff9 != 0 {
                        fragment = true;
                    }
                    8
                }
                _ => break,
            };
            walked += 1;
            if walked > MAX_EXTENSION_HEADERS {
                return Err(Malformed::Extensions);
            }
            let next = payload.first().copied().ok_or(Malformed::Length)?;
            payload = payload.get(header_len..).ok_or(Malformed::Length)?;
            protocol = next;
            // A later fragment has no header of its own above IP.
            if fragment {
                break;
            }
        }
        Ok(Packet {
            source: source.into(),
            destination: destination.into(),
            protocol,
            fragment,
            payload,
        })
    }
}

/// Returns whether options that we do not know may be skipped: the highest two bits of each say so (RFC 8200 section
/// 4.2).
fn may_skip_options(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        let next = match rest {
            _ if *kind == 0 => Some(rest),
            [len, data @ ..] if kind >> 6 == 0 => data.get(usize::from(*len)..),
            _ => None,
        };
        let Some(next) = next else { return false };
        options = next;
    }
    true
}

/// Returns whether a host may have this address as its source: no group, not unspecified, no loopback.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_loopback())
                && v4.octets()[0] != 0
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_loopback()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}

/// Returns whether an Ethernet address is a group, broadcast included.
pub(crate) fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 1
}
