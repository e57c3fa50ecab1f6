//! Tests the client against a DHCP server and a router of the tests' own.

mod crashes;
mod leases;
mod routers;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
};

use super::*;
use crate::link::Ethernet;

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A client, its journal and its clock.
pub(super) struct World {
    sources: Sources,
    pub(super) client: Client,
    pub(super) records: Vec<Record>,
    pub(super) now: Duration,
    random: u32,
}

/// A message of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: DhcpMessageType,
    pub(super) xid: u32,
    secs: u16,
    client_ip: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    to: (Ipv4Addr, [u8; 6]),
}

/// A message of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    kind: DhcpMessageType,
    xid: u32,
    address: Ipv4Addr,
    mask: Option<Ipv4Addr>,
    router: Option<Ipv4Addr>,
    lease: Option<u32>,
    times: (Option<u32>, Option<u32>),
}

impl World {
    pub(super) fn new(sources: Sources) -> World {
        World {
            sources,
            client: Client::new(sources, MAC, Acquired::default()),
            records: Vec::new(),
            now: BEGIN,
            random: 1,
        }
    }

    pub(super) fn dhcp() -> World {
        World::new(Sources {
            dhcp: true,
            router_advertisements: false,
        })
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Client, &mut Context<'_>) -> R) -> R {
        let World {
            client,
            records,
            now,
            random,
            ..
        } = self;
        let mut draw = || {
            *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *random
        };
        let mut cx = Context {
            now: *now,
            random: &mut draw,
            journal: &mut |record| records.push(*record),
        };
        f(client, &mut cx)
    }

    /// The state that a reader of the log has.
    pub(super) fn fold(&self) -> Acquired {
        let mut acquired = Acquired::default();
        self.records
            .iter()
            .for_each(|record| acquired.apply(record));
        acquired
    }

    /// Kills the client, and starts another one later.
    pub(super) fn crash(&mut self, outage: Duration) {
        self.client = Client::new(self.sources, MAC, self.fold());
        self.now += outage;
    }

    pub(super) fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        self.with(|client, cx| client.poll(cx, &mut out));
        out.into_iter().map(|frame| frame.header).collect()
    }

    pub(super) fn deliver(&mut self, frame: &[u8]) -> bool {
        self.with(|client, cx| client.ingest(frame, cx))
    }

    /// Advances the time to the client's next deadline, and returns what it sends then.
    pub(super) fn next(&mut self) -> Vec<Vec<u8>> {
        let at = self.client.next_deadline().expect("a deadline");
        self.now = self.now.max(at);
        self.poll()
    }

    /// Waits for the next message to a server.
    pub(super) fn asked(&mut self) -> Asked {
        for _ in 0..10 {
            if let Some(asked) = self.next().iter().find_map(|frame| parse(frame)) {
                return asked;
            }
        }
        panic!("the client asks for nothing");
    }

    /// Goes through the whole exchange. Returns the lease.
    fn acquire(&mut self, lease: u32) -> Lease {
        let discover = self.asked();
        assert_eq!(discover.kind, DhcpMessageType::Discover);
        self.deliver(&Answer::offer(discover.xid).lease(lease).frame());
        let request = self.asked();
        self.deliver(&Answer::ack(request.xid).lease(lease).frame());
        self.probe();
        self.client.acquired().lease.expect("a lease")
    }

    /// Waits until the address has been probed.
    fn probe(&mut self) {
        for _ in 0..4 {
            assert_eq!(self.client.acquired().lease, None);
            self.next();
        }
    }
}

impl Answer {
    fn new(kind: DhcpMessageType, xid: u32) -> Answer {
        Answer {
            kind,
            xid,
            address: ADDRESS,
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            router: Some(SERVER),
            lease: Some(3600),
            times: (None, None),
        }
    }

    fn offer(xid: u32) -> Answer {
        Answer::new(DhcpMessageType::Offer, xid)
    }

    pub(super) fn ack(xid: u32) -> Answer {
        Answer::new(DhcpMessageType::Ack, xid)
    }

    fn lease(self, seconds: u32) -> Answer {
        Answer {
            lease: Some(seconds),
            ..self
        }
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let message = DhcpRepr {
            message_type: self.kind,
            transaction_id: self.xid,
            secs: 0,
            client_hardware_address: EthernetAddress(MAC),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: self.address,
            server_ip: SERVER,
            router: self.router,
            subnet_mask: self.mask,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(SERVER),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: self.lease,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut payload = vec![0; message.buffer_len() + 20];
        let mut packet = DhcpPacket::new_unchecked(&mut payload[..]);
        message.emit(&mut packet).expect("it fits");
        // smoltcp does not write T1 and T2.
        let end = 240
            + payload[240..]
                .iter()
                .position(|byte| *byte == 255)
                .unwrap_or(0);
        let end = payload.iter().rposition(|byte| *byte == 255).unwrap_or(end);
        let mut options = Vec::new();
        for (kind, value) in [(58, self.times.0), (59, self.times.1)] {
            if let Some(value) = value {
                options.extend([kind, 4]);
                options.extend(value.to_be_bytes());
            }
        }
        payload.splice(end..end, options);
        let datagram = Datagram {
            source_mac: SERVER_MAC,
            source: SocketAddr::new(SERVER.into(), 67),
            destination: SocketAddr::new(self.address.into(), 68),
            payload: &payload,
        };
        datagram.frame(MAC, 64).expect("a frame").header
    }
}

/// Parses a message of the client.
pub(super) fn parse(frame: &[u8]) -> Option<Asked> {
    let datagram = Datagram::parse(frame)?;
    let packet = DhcpPacket::new_checked(datagram.payload).ok()?;
    let repr = DhcpRepr::parse(&packet).ok()?;
    assert!(datagram.payload.len() >= 300);
    assert_eq!(repr.client_identifier, Some(EthernetAddress(MAC)));
    let IpAddr::V4(to) = datagram.destination.ip() else {
        return None;
    };
    Some(Asked {
        kind: repr.message_type,
        xid: repr.transaction_id,
        secs: repr.secs,
        client_ip: repr.client_ip,
        requested: repr.requested_ip,
        server: repr.server_identifier,
        to: (to, Ethernet::parse(frame).ok()?.destination),
    })
}

/// Makes an ARP message of another host.
fn arp(operation: ArpOperation, mac: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let message = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut frame = [[0xff; 6], mac].concat();
    frame.extend([8, 6]);
    let at = frame.len();
    frame.resize(at + message.buffer_len(), 0);
    message.emit(&mut ArpPacket::new_unchecked(&mut frame[at..]));
    frame
}

fn link_local_of(mac: [u8; 6]) -> Ipv6Addr {
    link_local(mac)
}

#[test]
fn without_a_source_nothing_is_sent_and_what_was_acquired_ends() {
    let mut world = World::dhcp();
    world.acquire(3600);
    world.sources = Sources::default();
    world.crash(seconds(1));
    assert!(world.poll().is_empty());
    assert_eq!(world.client.addresses(), []);
    assert_eq!(world.fold(), Acquired::default());
    assert_eq!(world.client.next_deadline(), None);
}
