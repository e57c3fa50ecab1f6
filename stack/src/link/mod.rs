//! Implements the link layer: classifies received frames and builds the headers of sent ones.
//!
//! A received frame is TCP for one of our addresses, an ICMP error about our TCP, something for smoltcp's interface
//! (ARP, NDP, ICMP echo), or not for us. Only valid frames get through; the others are counted and dropped. No I/O, no
//! clock.

mod checksum;
mod datagram;
mod egress;
mod host;
mod icmp;
mod neighbor;
mod parse;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use smoltcp::wire::{IpCidr, IpProtocol, Ipv6Cidr};

pub(crate) use checksum::Sum;
pub use datagram::Datagram;
pub(crate) use neighbor::{arp_request, probe_address, router_solicitation};
pub(crate) use parse::{
    ETHERNET_HEADER_LEN, Ethernet, Extent, PROTOCOL_ICMPV6, Packet, Protocol, is_unicast,
};

use crate::frame::{Delivery, IcmpError, IcmpKind, Segment};
use crate::{Capabilities, Config, Offload, Path, RxChecksum, RxFrame, TxFrame};
use egress::{IpFields, headers, ip_header_len};
use host::Host;
use parse::{Malformed, PROTOCOL_ICMP, PROTOCOL_TCP, is_group};

/// Bytes of a TCP header without options, which is the shortest.
const TCP_HEADER_LEN: usize = 20;
/// Bytes of a TCP header with as many options as fit.
const MAX_TCP_HEADER_LEN: usize = 60;
/// The longest IP packet, TSO or not, in bytes.
const MAX_PACKET_LEN: usize = 65_535;

/// Addresses that a link serves besides the IPv6 link-local one it makes from its MAC, at most (smoltcp's table has
/// eight).
pub const MAX_ADDRESSES: usize = 7;

/// Counters of received frames, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP segments passed on.
    pub segments: u64,
    /// ICMP "too big" passed on.
    pub too_big: u64,
    /// Other ICMP errors about TCP passed on.
    pub unreachable: u64,
    /// Frames given to the interface.
    pub host: u64,
    /// Frames for other machines or of other protocols.
    pub foreign: u64,
    /// Frames whose headers or lengths make no sense.
    pub malformed: u64,
    /// Segments whose TCP or IP checksum is wrong.
    pub bad_checksum: u64,
    /// Fragments of TCP, which are not reassembled.
    pub fragments: u64,
    /// Frames for the interface that arrived while too many answers waited, or beyond the limit of echoes.
    pub overflow: u64,
}

/// One Ethernet link.
pub(crate) struct Link {
    mac: [u8; 6],
    /// Our addresses, with the link-local one.
    addresses: Vec<IpCidr>,
    gateways: Vec<IpAddr>,
    mtu: usize,
    hop_limit: u8,
    dscp: u8,
    capabilities: Capabilities,
    host: Host,
    /// Identification of the next IPv4 packet. It need not survive: RFC 6864 lets unfragmentable packets carry any.
    ident: Cell<u16>,
    counters: Counters,
    max_echoes_per_second: u32,
    /// A second of service time, and echo requests answered in it.
    echoes: (u64, u32),
}

impl Link {
    /// A link with the addresses of `config`.
    pub(crate) fn new(config: &Config, now: Duration) -> Link {
        let addresses = own_addresses(config);
        Link {
            mac: config.mac,
            host: Host::new(config, &addresses, now),
            addresses,
            gateways: config.gateways.clone(),
            mtu: config.mtu,
            hop_limit: config.hop_limit,
            dscp: config.dscp,
            capabilities: config.capabilities,
            ident: Cell::new(0),
            counters: Counters::default(),
            max_echoes_per_second: config.max_echoes_per_second,
            echoes: (0, 0),
        }
    }

    /// Changes the addresses and default routers to those that `config` has now.
    pub(crate) fn set_addresses(&mut self, config: &Config) {
        self.addresses = own_addresses(config);
        self.gateways.clone_from(&config.gateways);
        self.host.set_addresses(&self.addresses, &self.gateways);
    }

    /// The counters of received frames.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns whether `address` is one of ours.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|own| IpAddr::from(own.address()) == address)
    }

    /// Takes one Ethernet frame: a TCP segment is returned, the rest is answered at the next [`Link::poll`] or dropped.
    pub(crate) fn ingest<'a>(&mut self, frame: RxFrame<'a>, now: Duration) -> Delivery<'a> {
        match self.classify(&frame) {
            Ok(Class::Tcp(segment)) => {
                self.counters.segments += 1;
                Delivery::Segment(segment)
            }
            Ok(Class::Error(error)) => {
                match error.kind {
                    IcmpKind::TooBig { .. } => self.counters.too_big += 1,
                    IcmpKind::Unreachable { .. } => self.counters.unreachable += 1,
                }
                Delivery::Error(error)
            }
            Ok(Class::Echo) if !self.may_echo(now) => {
                self.counters.overflow += 1;
                Delivery::Nothing
            }
            Ok(Class::Host | Class::Echo) => {
                match self.host.ingest(frame.bytes, now) {
                    true => self.counters.host += 1,
                    false => self.counters.overflow += 1,
                }
                Delivery::Nothing
            }
            Err(dropped) => {
                *match dropped {
                    Dropped::Foreign => &mut self.counters.foreign,
                    Dropped::Malformed => &mut self.counters.malformed,
                    Dropped::Checksum => &mut self.counters.bad_checksum,
                    Dropped::Fragment => &mut self.counters.fragments,
                } += 1;
                Delivery::Nothing
            }
        }
    }

    /// The TCP segment in a frame, if it carries one for this host. It is not counted.
    pub(crate) fn segment_in<'a>(&self, frame: &RxFrame<'a>) -> Option<Segment<'a>> {
        match self.classify(frame) {
            Ok(Class::Tcp(segment)) => Some(segment),
            _ => None,
        }
    }

    /// Limits the rate of echo requests, and of everything but neighbour discovery that may be answered with an error
    /// (RFC 1122 section 3.2.2.6 permits it; RFC 4443 section 2.4 (f) requires it).
    fn may_echo(&mut self, now: Duration) -> bool {
        let second = now.as_secs();
        if self.echoes.0 != second {
            self.echoes = (second, 0);
        }
        self.echoes.1 += 1;
        self.echoes.1 <= self.max_echoes_per_second
    }

    fn classify<'a>(&self, frame: &RxFrame<'a>) -> Result<Class<'a>, Dropped> {
        let ethernet = Ethernet::parse(frame.bytes)?;
        let group = is_group(ethernet.destination);
        if (ethernet.destination != self.mac && !group)
            || ethernet.source == self.mac
            || is_group(ethernet.source)
        {
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
        //= rfc9293 MUST-57, MUST-63
        //= rfc1122 3.3.6c, 3.2.2g, 2.4a, 3.2.1.3d
        //= rfc4443 2.4e
        // Dropped: packets whose source no host can have (RFC 1122 section 3.2.1.3; neighbour discovery may have the
        // unspecified address), and packets that the link sent to many and IP to one (section 3.3.6).
        let discovery = is_neighbour_discovery(&packet);
        let unsent = !discovery && !self.is_peer(packet.source);
        let local = self.is_local(packet.destination);
        if unsent || (group && local) {
            return Err(Dropped::Foreign);
        }
        match packet.protocol {
            // RFC 9293 section 3.9.2.3 (MUST-57, MUST-63): TCP is for unicast alone, at the lower layers too.
            PROTOCOL_TCP if !local => Err(Dropped::Foreign),
            PROTOCOL_TCP if packet.fragment => Err(Dropped::Fragment),
            PROTOCOL_TCP if packet.payload.len() < TCP_HEADER_LEN => Err(Dropped::Malformed),
            PROTOCOL_TCP => {
                //= rfc9293 MUST-3
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
                let port =
                    |at: usize| u16::from_be_bytes([packet.payload[at], packet.payload[at + 1]]);
                let path = Path {
                    local: SocketAddr::new(packet.destination, port(2)),
                    remote: SocketAddr::new(packet.source, port(0)),
                    remote_mac: ethernet.source,
                };
                Ok(Class::Tcp(Segment {
                    path,
                    tcp: packet.payload,
                }))
            }
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 if local && !packet.fragment => {
                match icmp::parse(&packet) {
                    Some(error) if self.is_local(error.local.ip()) => Ok(Class::Error(error)),
                    _ if discovery => Ok(Class::Host),
                    _ => Ok(Class::Echo),
                }
            }
            _ if discovery => Ok(Class::Host),
            //= rfc4443 2.4f
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => Ok(Class::Echo),
            _ if local => Ok(Class::Echo),
            // Dropped: it would cause errors, and none may be sent about a packet that went to many (RFC 1122 section
            // 3.2.2; RFC 4443 section 2.4).
            _ => Err(Dropped::Foreign),
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

    /// Answers to the ARP, NDP and ICMP frames received.
    pub(crate) fn poll(&mut self, out: &mut Vec<TxFrame>) {
        out.extend(self.host.answers().map(TxFrame::plain));
    }

    /// When [`Link::poll`] has something to do: at once, or not before the next frame.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.host.has_answers().then_some(Duration::ZERO)
    }

    /// Largest IP packet of the link, in bytes.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// Makes the frame for `tcp_header` (with its options; its checksum field is filled in here) and `payload`. If that
    /// is more than `mss` bytes (at most [`Link::super_frame`]), the device cuts it into segments of `mss`.
    pub(crate) fn segment(
        &self,
        path: &Path,
        tcp_header: &[u8],
        payload: Vec<Bytes>,
        mss: usize,
    ) -> TxFrame {
        let ident = self.ident.get();
        //= rfc9293 MUST-48, MUST-49, SHLD-22
        let fields = IpFields {
            hop_limit: self.hop_limit,
            ds_field: self.dscp << 2,
            ..IpFields::new(PROTOCOL_TCP, ident)
        };
        let frame = egress::tcp_frame(
            self.mac,
            &self.capabilities,
            fields,
            path,
            tcp_header,
            payload,
            mss,
        );
        // The device numbers the segments it makes on from ours.
        let segments = match frame.offload {
            Offload::Tso { .. } => frame.payload_len().div_ceil(mss.max(1)),
            _ => 1,
        };
        self.ident.set(ident.wrapping_add(segments as u16));
        frame
    }

    /// The largest payload of one [`Link::segment`] that the device cuts into segments, in bytes; 0 if it does not.
    pub(crate) fn super_frame(&self, path: &Path) -> usize {
        match self.capabilities.segments(path.remote.is_ipv6()) {
            true => MAX_PACKET_LEN - ip_header_len(path.remote.ip()) - MAX_TCP_HEADER_LEN,
            false => 0,
        }
    }

    /// Makes the request for the Ethernet address that leads to the remote end of `path` (ARP request or neighbour
    /// solicitation): its own on the link, the router's beyond. Its arrival also renews the peer's entry for us. `None`
    /// without a route.
    pub(crate) fn solicit(&self, path: &Path) -> Option<TxFrame> {
        let remote = path.remote.ip();
        let on_link = self
            .addresses
            .iter()
            .any(|own| own.contains_addr(&remote.into()));
        let gateway = || {
            self.gateways
                .iter()
                .copied()
                .find(|gateway| gateway.is_ipv4() == remote.is_ipv4())
        };
        let target = if on_link { remote } else { gateway()? };
        let frame = match (path.local.ip(), target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                neighbor::arp_request(self.mac, source, target)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                neighbor::solicitation(self.mac, source, target)
            }
            _ => return None,
        };
        Some(TxFrame::plain(frame))
    }

    /// Announces our addresses on the link: gratuitous ARP and unsolicited neighbour advertisements.
    pub(crate) fn announce(&self) -> Vec<TxFrame> {
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|own| IpAddr::from(own.address()));
        addresses.map(|own| self.announce_one(own)).collect()
    }

    /// Announces one of our addresses on the link.
    pub(crate) fn announce_one(&self, own: IpAddr) -> TxFrame {
        TxFrame::plain(match own {
            IpAddr::V4(own) => neighbor::arp_request(self.mac, own, own),
            IpAddr::V6(own) => neighbor::advertisement(self.mac, own),
        })
    }

    /// Makes the ICMP error that undoes one step of a peer's retransmission back-off (RFC 6069): "host unreachable"
    /// (type 3 code 1) or "no route" (ICMPv6 type 1 code 0), quoting the peer's segment at `seq`, its SND.UNA: the last
    /// ACK we sent it.
    pub(crate) fn unreachable(&self, path: &Path, seq: u32) -> TxFrame {
        let message = icmp::host_unreachable(path, seq);
        let remote = path.remote.ip();
        let protocol = if remote.is_ipv4() {
            PROTOCOL_ICMP
        } else {
            PROTOCOL_ICMPV6
        };
        let mut frame =
            Vec::with_capacity(ETHERNET_HEADER_LEN + ip_header_len(remote) + message.len());
        let ident = self.ident.get();
        self.ident.set(ident.wrapping_add(1));
        headers(
            &mut frame,
            self.mac,
            path,
            message.len(),
            IpFields::new(protocol, ident),
        );
        frame.extend_from_slice(&message);
        TxFrame::plain(frame)
    }
}

/// Destination of a valid frame.
enum Class<'a> {
    Tcp(Segment<'a>),
    Error(IcmpError),
    Host,
    /// For the interface, answered at a limited rate.
    Echo,
}

/// Returns whether a packet is a neighbour discovery message (RFC 4861 section 4), without which no peer finds us.
fn is_neighbour_discovery(packet: &Packet<'_>) -> bool {
    packet.protocol == PROTOCOL_ICMPV6
        && packet
            .payload
            .first()
            .is_some_and(|kind| (133..=137).contains(kind))
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

/// The addresses of `config`, and the IPv6 link-local one if any of them is IPv6.
fn own_addresses(config: &Config) -> Vec<IpCidr> {
    let configured = config.addresses.iter();
    let configured = configured.map(|(address, prefix)| IpCidr::new((*address).into(), *prefix));
    let mut addresses: Vec<IpCidr> = configured.collect();
    let own = IpCidr::Ipv6(Ipv6Cidr::new(link_local(config.mac), 64));
    let mut all = config.addresses.iter();
    if all.any(|(address, _)| address.is_ipv6()) && !addresses.contains(&own) {
        addresses.push(own);
    }
    addresses
}

/// The IPv6 link-local address with the modified EUI-64 of `mac`.
pub(crate) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&interface_id(mac));
    octets.into()
}

/// The modified EUI-64 of `mac`, the last half of an IPv6 address (RFC 4291 appendix A).
pub(crate) fn interface_id(mac: [u8; 6]) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac;
    [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}
