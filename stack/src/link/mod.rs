//! Between the device and TCP: which frames are for whom, and the headers of what leaves.
//!
//! A received frame is TCP for one of our addresses, an ICMP error about our TCP, something for smoltcp's interface (ARP, NDP, ICMP
//! echo), or nothing to us. Only valid frames get through; the rest is counted and dropped. No I/O, no clock.

mod checksum;
mod egress;
mod host;
mod icmp;
mod neighbor;
mod parse;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use smoltcp::wire::{IpCidr, IpProtocol, Ipv6Cidr};

pub(crate) use checksum::Sum;
pub use egress::Path;
pub use icmp::{IcmpError, IcmpErrorKind};
pub(crate) use parse::ETHERNET_HEADER_LEN;

use crate::device::{Capabilities, Offload, RxChecksum, RxFrame, TxFrame};
use egress::{IpFields, headers, ip_header_len};
use host::Host;
use parse::{
    Ethernet, Extent, Malformed, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, Packet, Protocol, is_group, is_unicast,
};

/// Bytes of a TCP header without options, which are also the fewest a segment has.
const TCP_HEADER_LEN: usize = 20;
/// The longest IP packet, TSO or not, in bytes.
const MAX_PACKET_LEN: usize = 65_535;

/// Addresses that a link serves besides the IPv6 link-local one it makes from its MAC, at most (smoltcp's table has eight).
pub const MAX_ADDRESSES: usize = 7;

/// Who we are on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Our Ethernet address.
    pub mac: [u8; 6],
    /// Our addresses with their prefixes; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<(IpAddr, u8)>,
    /// Router for IPv4 destinations beyond the link.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Router for IPv6 destinations beyond the link.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Largest IP packet of the link, in bytes.
    pub mtu: u16,
}

/// A received TCP segment whose addresses and checksum are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it came from and where an answer goes.
    pub path: Path,
    /// TCP header and payload; at least 20 bytes, otherwise unread.
    pub bytes: &'a [u8],
}

/// What a received frame means to TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress<'a> {
    /// A segment for one of our addresses.
    Tcp(Segment<'a>),
    /// A router or host says something about a segment of ours.
    Error(IcmpError),
    /// Nothing: taken by the interface, not for us, or dropped and counted.
    Nothing,
}

/// Frames received, by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP segments passed on.
    pub segments: u64,
    /// ICMP errors passed on.
    pub errors: u64,
    /// Frames given to the interface.
    pub host: u64,
    /// Frames for other machines or of other protocols.
    pub foreign: u64,
    /// Frames whose headers or lengths make no sense.
    pub malformed: u64,
    /// Segments whose TCP or IP checksum is wrong.
    pub bad_checksum: u64,
    /// Fragments of TCP, which are not put together.
    pub fragments: u64,
    /// Frames for the interface that found its queue full.
    pub overflow: u64,
}

/// One Ethernet link.
pub struct Link {
    mac: [u8; 6],
    /// Ours, link-local address included.
    addresses: Vec<IpCidr>,
    gateway_v4: Option<Ipv4Addr>,
    gateway_v6: Option<Ipv6Addr>,
    mtu: u16,
    capabilities: Capabilities,
    host: Host,
    /// Identification of the next IPv4 packet. It need not survive: RFC 6864 lets unfragmentable packets carry any.
    ident: u16,
    counters: Counters,
}

impl Link {
    /// A link with these addresses on a device that can do this much.
    pub fn new(config: &LinkConfig, capabilities: Capabilities, now: Duration) -> Link {
        let mut addresses: Vec<IpCidr> =
            config.addresses.iter().map(|(address, prefix)| IpCidr::new((*address).into(), *prefix)).collect();
        if config.addresses.iter().any(|(address, _)| address.is_ipv6()) {
            addresses.push(IpCidr::Ipv6(Ipv6Cidr::new(link_local(config.mac), 64)));
        }
        Link {
            mac: config.mac,
            host: Host::new(config, &addresses, now),
            addresses,
            gateway_v4: config.gateway_v4,
            gateway_v6: config.gateway_v6,
            mtu: config.mtu,
            capabilities,
            ident: 0,
            counters: Counters::default(),
        }
    }

    /// What became of the frames received.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether `address` is one of ours.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| IpAddr::from(own.address()) == address)
    }

    /// Takes one Ethernet frame: what is TCP's comes back, the rest is kept for the next [`Link::poll`] or dropped.
    pub fn ingest<'a>(&mut self, frame: RxFrame<'a>) -> Ingress<'a> {
        match self.classify(&frame) {
            Ok(Class::Tcp(segment)) => {
                self.counters.segments += 1;
                Ingress::Tcp(segment)
            }
            Ok(Class::Error(error)) => {
                self.counters.errors += 1;
                Ingress::Error(error)
            }
            Ok(Class::Host) => {
                match self.host.push(frame.bytes) {
                    true => self.counters.host += 1,
                    false => self.counters.overflow += 1,
                }
                Ingress::Nothing
            }
            Err(dropped) => {
                *match dropped {
                    Dropped::Foreign => &mut self.counters.foreign,
                    Dropped::Malformed => &mut self.counters.malformed,
                    Dropped::Checksum => &mut self.counters.bad_checksum,
                    Dropped::Fragment => &mut self.counters.fragments,
                } += 1;
                Ingress::Nothing
            }
        }
    }

    fn classify<'a>(&self, frame: &RxFrame<'a>) -> Result<Class<'a>, Dropped> {
        let ethernet = Ethernet::parse(frame.bytes)?;
        let group = is_group(ethernet.destination);
        if (ethernet.destination != self.mac && !group) || ethernet.source == self.mac || is_group(ethernet.source) {
            return Err(Dropped::Foreign);
        }
        match ethernet.protocol {
            Protocol::Arp => return Ok(Class::Host),
            Protocol::Unknown => return Err(Dropped::Foreign),
            Protocol::Ipv4 | Protocol::Ipv6 => {}
        }
        let packet = Packet::parse(ethernet.payload, Extent::Whole)?;
        if packet.source.is_ipv6() != (ethernet.protocol == Protocol::Ipv6) {
            return Err(Dropped::Malformed);
        }
        match packet.protocol {
            // RFC 9293 section 3.9.2.3 (MUST-57, MUST-63): TCP is for unicast alone, at the lower layers too.
            PROTOCOL_TCP if group || !self.is_local(packet.destination) || !self.is_peer(packet.source) => {
                Err(Dropped::Foreign)
            }
            PROTOCOL_TCP if packet.fragment => Err(Dropped::Fragment),
            PROTOCOL_TCP if packet.payload.len() < TCP_HEADER_LEN => Err(Dropped::Malformed),
            PROTOCOL_TCP => {
                if frame.checksum == RxChecksum::Verify {
                    let mut sum = Sum::pseudo_header(
                        packet.source,
                        packet.destination,
                        IpProtocol::Tcp,
                        packet.payload.len(),
                    );
                    sum.add(packet.payload);
                    if !sum.is_valid() {
                        return Err(Dropped::Checksum);
                    }
                }
                let path = Path { local: packet.destination, peer: packet.source, peer_mac: ethernet.source };
                Ok(Class::Tcp(Segment { path, bytes: packet.payload }))
            }
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 if !packet.fragment && self.is_local(packet.destination) => {
                match icmp::parse(&packet) {
                    Some(error) if self.is_local(error.local.ip()) => Ok(Class::Error(error)),
                    _ => Ok(Class::Host),
                }
            }
            _ => Ok(Class::Host),
        }
    }

    /// Whether segments from `source` can be those of a client: not ours, not a subnet's broadcast address.
    fn is_peer(&self, source: IpAddr) -> bool {
        let broadcast = |own: &IpCidr| match own {
            IpCidr::Ipv4(own) => own.broadcast().map(IpAddr::V4) == Some(source),
            IpCidr::Ipv6(_) => false,
        };
        is_unicast(source) && !self.is_local(source) && !self.addresses.iter().any(broadcast)
    }

    /// Lets the interface answer the ARP, NDP and ICMP frames that have come in.
    pub fn poll(&mut self, now: Duration, out: &mut Vec<TxFrame>) {
        out.extend(self.host.poll(now).map(TxFrame::plain));
    }

    /// Whether [`Link::poll`] has something to do.
    pub fn needs_poll(&self) -> bool {
        !self.host.is_idle()
    }

    /// The MSS to announce to `peer`, in bytes: what a segment without options carries (RFC 6691).
    pub fn mss(&self, peer: IpAddr) -> u16 {
        let headers = (ip_header_len(peer) + TCP_HEADER_LEN) as u16;
        self.mtu.saturating_sub(headers)
    }

    /// Payload bytes that one [`Link::tcp_frame`] may carry to `peer` behind a TCP header of `header_len` bytes, in segments of
    /// `mss` bytes: a multiple of `mss`, more than one where the device segments.
    pub fn max_payload(&self, peer: IpAddr, header_len: usize, mss: u16) -> usize {
        let segments = match self.capabilities.segments(peer.is_ipv6()) {
            true => (MAX_PACKET_LEN - ip_header_len(peer) - header_len) / usize::from(mss.max(1)),
            false => 1,
        };
        segments.max(1) * usize::from(mss)
    }

    /// The frame for `tcp` (a TCP header with its options; its checksum field is filled in here) and `payload`. If that is more
    /// than `mss` bytes (at most [`Link::max_payload`]), the device cuts it into segments of `mss`.
    /// `None` if the path mixes IP versions or an IP packet cannot be this long.
    pub fn tcp_frame(&mut self, path: &Path, tcp: &[u8], payload: Vec<Bytes>, mss: u16) -> Option<TxFrame> {
        let frame = egress::tcp_frame(self.mac, &self.capabilities, self.ident, path, tcp, payload, mss)?;
        // The device numbers the segments it makes on from ours.
        let segments = match frame.offload {
            Offload::Tso { .. } => frame.payload_len().div_ceil(usize::from(mss.max(1))),
            _ => 1,
        };
        self.ident = self.ident.wrapping_add(segments as u16);
        Some(frame)
    }

    /// The question for the Ethernet address that leads to `peer` (ARP request or neighbour solicitation): its own on the link,
    /// the router's beyond. Its arrival also renews the neighbour's entry for us. `None` without an address or a route.
    pub fn resolve(&self, peer: IpAddr) -> Option<TxFrame> {
        let on_link = self.addresses.iter().any(|own| own.contains_addr(&peer.into()));
        let frame = match peer {
            IpAddr::V4(peer) => {
                let target = if on_link { peer } else { self.gateway_v4? };
                let IpAddr::V4(source) = self.source_for(target.into())? else { return None };
                neighbor::arp_request(self.mac, source, target)
            }
            IpAddr::V6(peer) => {
                let target = if on_link { peer } else { self.gateway_v6? };
                let IpAddr::V6(source) = self.source_for(target.into())? else { return None };
                neighbor::solicitation(self.mac, source, target)
            }
        };
        Some(TxFrame::plain(frame))
    }

    /// The address of ours to ask `target` from: one of its subnet, else any of its IP version.
    fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        let same_version = || self.addresses.iter().filter(|own| IpAddr::from(own.address()).is_ipv4() == target.is_ipv4());
        let own = same_version().find(|own| own.contains_addr(&target.into())).or_else(|| same_version().next())?;
        Some(own.address().into())
    }

    /// Tells everyone on the link that our addresses are here: gratuitous ARP and unsolicited neighbour advertisements.
    pub fn announce(&self) -> Vec<TxFrame> {
        let announcement = |own: &IpCidr| match own {
            IpCidr::Ipv4(own) => neighbor::arp_request(self.mac, own.address(), own.address()),
            IpCidr::Ipv6(own) => neighbor::advertisement(self.mac, own.address()),
        };
        self.addresses.iter().map(announcement).map(TxFrame::plain).collect()
    }

    /// The ICMP error that takes back one step of a peer's retransmission back-off (RFC 6069): "host unreachable" (type 3 code 1)
    /// or "no route" (ICMPv6 type 1 code 0), quoting the peer's segment at `seq`, its SND.UNA: the last ACK we sent it.
    /// `None` if the two ends are of different IP versions.
    pub fn host_unreachable(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
        peer_mac: [u8; 6],
        seq: u32,
    ) -> Option<TxFrame> {
        let message = icmp::host_unreachable(local, peer, seq)?;
        let path = Path { local: local.ip(), peer: peer.ip(), peer_mac };
        let protocol = if peer.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        let mut frame = Vec::with_capacity(ETHERNET_HEADER_LEN + ip_header_len(peer.ip()) + message.len());
        headers(&mut frame, self.mac, &path, message.len(), IpFields::new(protocol, self.ident))?;
        frame.extend_from_slice(&message);
        self.ident = self.ident.wrapping_add(1);
        Some(TxFrame::plain(frame))
    }
}

/// Whose a valid frame is.
enum Class<'a> {
    Tcp(Segment<'a>),
    Error(IcmpError),
    Host,
}

/// Why a frame is dropped.
enum Dropped {
    Foreign,
    Malformed,
    Checksum,
    Fragment,
}

impl From<Malformed> for Dropped {
    fn from(malformed: Malformed) -> Dropped {
        match malformed {
            Malformed::HeaderChecksum => Dropped::Checksum,
            Malformed::Length | Malformed::Version | Malformed::Extensions => Dropped::Malformed,
        }
    }
}

/// The IPv6 link-local address with the modified EUI-64 of `mac` (RFC 4291 appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
