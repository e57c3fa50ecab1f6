//! Builds the headers of sent frames: Ethernet, IPv4 or IPv6, and the TCP checksum, left to the device as far as it
//! can.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use smoltcp::wire::IpProtocol;

use super::checksum::Sum;
use super::parse::{ETHERNET_HEADER_LEN, IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::{Capabilities, Offload, Path, TxFrame};

/// Hop limit of packets that leave the link (RFC 1700), unless it is configured.
const HOP_LIMIT: u8 = 64;
/// Where the checksum lies in a TCP header (RFC 9293 section 3.1), in bytes.
const TCP_CHECKSUM_OFFSET: usize = 16;

/// The fields of an IP header besides addresses and length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpFields {
    pub protocol: u8,
    pub hop_limit: u8,
    /// Differentiated Services field (RFC 2474): codepoint and two bits of ECN, which is not used.
    pub ds_field: u8,
    /// Identification of an IPv4 packet; IPv6 has none.
    pub ident: u16,
}

impl IpFields {
    /// For an ordinary packet of `protocol`.
    pub(crate) fn new(protocol: u8, ident: u16) -> IpFields {
        IpFields {
            protocol,
            hop_limit: HOP_LIMIT,
            ds_field: 0,
            ident,
        }
    }
}

/// Bytes of an IP header of the version of `address`, as we build it.
pub(crate) fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => IPV4_HEADER_LEN,
        IpAddr::V6(_) => IPV6_HEADER_LEN,
    }
}

/// Appends an Ethernet header.
pub(crate) fn ethernet_header(
    out: &mut Vec<u8>,
    source: [u8; 6],
    destination: [u8; 6],
    ethertype: u16,
) {
    out.extend_from_slice(&destination);
    out.extend_from_slice(&source);
    out.extend_from_slice(&ethertype.to_be_bytes());
}

/// Appends an IP header for a packet with `payload_len` bytes above IP, at most 65,475.
pub(crate) fn ip_header(
    out: &mut Vec<u8>,
    source: IpAddr,
    destination: IpAddr,
    payload_len: usize,
    fields: IpFields,
) {
    let IpFields {
        protocol,
        hop_limit,
        ds_field,
        ident,
    } = fields;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let start = out.len();
            out.extend_from_slice(&[0x45, ds_field]);
            out.extend_from_slice(&((IPV4_HEADER_LEN + payload_len) as u16).to_be_bytes());
            out.extend_from_slice(&ident.to_be_bytes());
            //= rfc1191 3a
            // Don't fragment: the path MTU is discovered (RFC 1191).
            out.extend_from_slice(&[0x40, 0, hop_limit, protocol, 0, 0]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
            let mut sum = Sum::default();
            sum.add(&out[start..]);
            out[start + 10..start + 12].copy_from_slice(&sum.checksum().to_be_bytes());
        }
        (source, destination) => {
            out.extend_from_slice(&[0x60 | ds_field >> 4, ds_field << 4, 0, 0]);
            out.extend_from_slice(&(payload_len as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, hop_limit]);
            out.extend_from_slice(&v6(source).octets());
            out.extend_from_slice(&v6(destination).octets());
        }
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Appends Ethernet and IP headers for `payload_len` bytes above IP from `path.local` to `path.remote`.
pub(crate) fn headers(
    out: &mut Vec<u8>,
    mac: [u8; 6],
    path: &Path,
    payload_len: usize,
    fields: IpFields,
) {
    let ethertype = if path.local.is_ipv4() { 0x0800 } else { 0x86dd };
    ethernet_header(out, mac, path.remote_mac, ethertype);
    ip_header(out, path.local.ip(), path.remote.ip(), payload_len, fields);
}

/// Builds the frame of one segment, or of as many as `payload` makes at `mss` bytes each when the device segments.
/// `tcp` is a whole TCP header, 20 bytes at least.
pub(crate) fn tcp_frame(
    mac: [u8; 6],
    capabilities: &Capabilities,
    fields: IpFields,
    path: &Path,
    tcp: &[u8],
    payload: Vec<Bytes>,
    mss: usize,
) -> TxFrame {
    let payload_len: usize = payload.iter().map(Bytes::len).sum();
    let segment_len = tcp.len() + payload_len;
    let start = ETHERNET_HEADER_LEN + ip_header_len(path.remote.ip());
    let header_len = start + tcp.len();
    let mut header = Vec::with_capacity(header_len);
    headers(&mut header, mac, path, segment_len, fields);
    header.extend_from_slice(tcp);

    let field = start + TCP_CHECKSUM_OFFSET;
    header[field..field + 2].fill(0);
    let mut sum = Sum::pseudo_header(
        path.local.ip(),
        path.remote.ip(),
        IpProtocol::Tcp,
        segment_len,
    );
    //= rfc9293 MUST-2
    let (checksum, offload) = if capabilities.checksum {
        // The device adds up what lies from `start` on, this field included, and puts the complement here.
        let (start, offset) = (start as u16, TCP_CHECKSUM_OFFSET as u16);
        let offload = match payload_len > mss {
            true => Offload::Tso {
                v6: path.remote.is_ipv6(),
                mss: mss as u16,
                header_len: header_len as u16,
                start,
                offset,
            },
            false => Offload::Checksum { start, offset },
        };
        (sum.partial(), offload)
    } else {
        sum.add(&header[start..]);
        for part in &payload {
            sum.add(part);
        }
        (sum.checksum(), Offload::None)
    };
    header[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    TxFrame {
        header,
        payload,
        offload,
    }
}
