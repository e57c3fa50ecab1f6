//! Checks on the wire what the server has promised by its acknowledgements: bytes within a window are accepted, data
//! reported as received (SACK) are kept as long as the process lives, and the sum of all windows does not exceed the
//! room for them.

use std::collections::{BTreeMap, BTreeSet};

use outlast_stack::Seq;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};

/// The number of SACK blocks that fit beside timestamps: an acknowledgement with fewer of them reports everything.
const BLOCKS: usize = 3;

/// The promises to one client and the data received from it, in sequence numbers of the client.
#[derive(Debug)]
struct Flow {
    acked: Seq,
    edge: Seq,
    /// The end of the data that have arrived in order.
    covered: Seq,
    /// The data that have arrived out of order: begin and end, as distances from the first acknowledgement.
    beyond: BTreeMap<usize, usize>,
    first: Seq,
    /// The data reported as received in this life of the server.
    reported: Vec<(Seq, Seq)>,
    /// The client's latest timestamp, if it uses timestamps.
    newest: Option<u32>,
}

/// The promises to all clients, by port.
#[derive(Debug, Default)]
pub struct Promises {
    flows: BTreeMap<u16, Flow>,
}

/// A TCP segment that is about to leave.
#[derive(Debug)]
pub struct Leaving<'a> {
    /// Its header.
    pub tcp: &'a TcpPacket<&'a [u8]>,
    /// It occupies no sequence space.
    pub is_empty: bool,
    /// The right edge of its window.
    pub edge: Seq,
}

impl Promises {
    /// Begins a new life of the server: data that had arrived and are not on record are lost, and reported data may be
    /// discarded.
    pub fn begin_life(&mut self) {
        for flow in self.flows.values_mut() {
            flow.covered = flow.acked;
            flow.beyond.clear();
            flow.reported.clear();
        }
    }

    /// Notes a frame that has arrived at a running server.
    pub fn arrives(&mut self, frame: &[u8]) {
        with_segment(frame, |tcp| {
            let Some(flow) = self.flows.get_mut(&tcp.src_port()) else {
                return;
            };
            // RFC 7323, section 5.3: a segment that was overtaken by a later one is not acceptable.
            let is_old = flow.is_overtaken(timestamp(tcp));
            if !tcp.rst() && !tcp.syn() && tcp.ack() && !is_old {
                let from = Seq(tcp.seq_number().0 as u32);
                flow.arrives(from, from + tcp.payload().len());
            }
        });
    }

    /// Checks a segment that is about to leave. `takes_all`: it must acknowledge all data that have arrived in order,
    /// as nothing else holds frames back.
    ///
    /// # Panics
    /// A promise is violated.
    pub fn leaves(&mut self, segment: &Leaving<'_>, takes_all: bool) {
        let (tcp, port) = (segment.tcp, segment.tcp.dst_port());
        let ack = Seq(tcp.ack_number().0 as u32);
        if tcp.syn() || !self.flows.contains_key(&port) {
            self.flows.insert(port, Flow::new(ack, segment.edge));
            return;
        }
        let Some(flow) = self.flows.get_mut(&port) else {
            return;
        };
        let blocks = tcp.selective_ack_ranges().unwrap_or_default();
        let blocks: Vec<(Seq, Seq)> = blocks
            .into_iter()
            .flatten()
            .map(|(from, to)| (Seq(from), Seq(to)))
            .collect();
        flow.reports(ack, &blocks, segment.is_empty, port);
        assert!(
            !takes_all || ack >= flow.covered,
            "data in order and within the window were dropped: {} bytes at {ack:?} from the client at port {port}, \
             {flow:?}",
            flow.covered.since(ack)
        );
        flow.acked = flow.acked.max(ack);
        flow.covered = flow.covered.max(ack);
        flow.edge = flow.edge.max(segment.edge);
    }

    /// Returns the number of bytes that the clients with these ports may send.
    #[must_use]
    pub fn promised(&self, ports: &BTreeSet<u16>) -> usize {
        let flows = self.flows.iter().filter(|(port, _)| ports.contains(port));
        flows.map(|(_, flow)| flow.edge.since(flow.acked)).sum()
    }
}

impl Flow {
    fn new(ack: Seq, edge: Seq) -> Flow {
        Flow {
            acked: ack,
            edge,
            covered: ack,
            beyond: BTreeMap::new(),
            first: ack,
            reported: Vec::new(),
            newest: None,
        }
    }

    fn is_overtaken(&mut self, timestamp: Option<u32>) -> bool {
        let Some(timestamp) = timestamp else {
            return false;
        };
        let newest = *self.newest.get_or_insert(timestamp);
        let is_old = (timestamp.wrapping_sub(newest) as i32) < 0;
        if !is_old {
            self.newest = Some(timestamp);
        }
        is_old
    }

    fn arrives(&mut self, from: Seq, to: Seq) {
        let (from, to) = (from.max(self.covered), to.min(self.edge));
        if from >= to {
            return;
        }
        let end = self.beyond.entry(from.since(self.first)).or_default();
        *end = (*end).max(to.since(self.first));
        while let Some(entry) = self.beyond.first_entry()
            && *entry.key() <= self.covered.since(self.first)
        {
            let end = self.first + entry.remove();
            self.covered = self.covered.max(end);
        }
    }

    /// Checks the SACK blocks. RFC 2018, section 8, allows a receiver to discard reported data; this server does so
    /// only when it dies.
    fn reports(&mut self, ack: Seq, blocks: &[(Seq, Seq)], is_empty: bool, port: u16) {
        let is_inside = |(from, to): &&(Seq, Seq)| *from <= ack && ack < *to;
        if let Some((from, to)) = self.reported.iter().find(is_inside) {
            panic!(
                "{} bytes that were reported as received are discarded ({} of them acknowledged), of the client at \
                 port {port}",
                to.since(*from),
                ack.since(*from)
            );
        }
        self.reported.retain(|(_, to)| *to > ack);
        let is_reported = |(from, to): &(Seq, Seq)| {
            let mut blocks = blocks.iter();
            blocks.any(|block| block.0 <= *from && *to <= block.1)
        };
        assert!(
            !is_empty
                || blocks.is_empty()
                || blocks.len() >= BLOCKS
                || self.reported.iter().all(is_reported),
            "data reported as received are not reported any more, to the client at port {port}"
        );
        let is_new = |(from, to): &(Seq, Seq)| {
            !blocks
                .iter()
                .any(|block| block.0 <= *from && *to <= block.1)
        };
        self.reported.retain(is_new);
        self.reported.extend(blocks);
    }
}

/// Returns the sender's timestamp (TSval).
fn timestamp(tcp: &TcpPacket<&[u8]>) -> Option<u32> {
    Some(tcp.options_summary().ok()?.timestamp?.0)
}

/// Passes the TCP segment of an intact frame to `f`.
fn with_segment(frame: &[u8], f: impl FnOnce(&TcpPacket<&[u8]>)) {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return;
    };
    let is_tcp = |protocol| protocol == IpProtocol::Tcp;
    let (from, to, payload) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => match Ipv4Packet::new_checked(ethernet.payload()) {
            Ok(ip) if ip.version() == 4 && ip.verify_checksum() && is_tcp(ip.next_header()) => (
                IpAddress::Ipv4(ip.src_addr()),
                IpAddress::Ipv4(ip.dst_addr()),
                ip.payload(),
            ),
            _ => return,
        },
        EthernetProtocol::Ipv6 => match Ipv6Packet::new_checked(ethernet.payload()) {
            // No checksum covers the version.
            Ok(ip) if ip.version() == 6 && is_tcp(ip.next_header()) => (
                IpAddress::Ipv6(ip.src_addr()),
                IpAddress::Ipv6(ip.dst_addr()),
                ip.payload(),
            ),
            _ => return,
        },
        _ => return,
    };
    if let Ok(tcp) = TcpPacket::new_checked(payload)
        && tcp.verify_checksum(&from, &to)
    {
        f(&tcp);
    }
}
