//! Tests a whole machine whose address a DHCP server assigns: it is crashed after every commit, and the lease ends
//! during an outage or while it serves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use outlast_fsa::NtStatus;
use outlast_fsa::fileop::{Actor, Change, FileOp, Intent, OpenId, Outcome};
use outlast_nvram::{Incarnation, VecMemory};
use outlast_smb::OpenInfo;
use outlast_stack::{Datagram, RxChecksum, RxFrame};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::*;
use crate::server::clock::{Anchor, Stopwatch};
use crate::server::eviction::EvictionLimits;
use crate::server::fault::Unarmed;
use crate::server::recover::{Parts, Recovered, recover};

const MEMORY: usize = 64 << 20;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LEASE: u32 = 600;

/// A file system without files.
struct NoFiles;

impl FileSystem for NoFiles {
    fn prepare(&mut self, _: &Actor, _: &FileOp) -> Result<Intent, NtStatus> {
        Err(NtStatus::NOT_SUPPORTED)
    }
    fn perform(&mut self, _: &Actor, _: &FileOp, _: &Intent) -> Result<Outcome, NtStatus> {
        Err(NtStatus::NOT_SUPPORTED)
    }
    fn reopen(&mut self, _: &OpenInfo) -> Result<(), NtStatus> {
        Ok(())
    }
    fn forget(&mut self, _: OpenId) {}
    fn changes(&mut self) -> Vec<Change> {
        Vec::new()
    }
    fn discard_changes(&mut self) {}
}

struct Counted(u8);

impl Entropy for Counted {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        buffer.fill(self.0);
    }
}

struct Still;

impl Stopwatch for Still {
    fn read(&mut self) -> Duration {
        Duration::ZERO
    }
}

/// A machine in its world: time, memory, and the frames it has sent.
struct World {
    machine: Machine<NoFiles>,
    memory: Arc<VecMemory>,
    /// Service time, and the time since the boot, when this process began.
    began: (Duration, Duration),
    uptime: Duration,
    boot: u8,
    sent: Vec<Vec<u8>>,
}

/// Wall time at the boot of the machine.
const WALL: u64 = 133_000_000_000_000_000;

impl World {
    fn new() -> World {
        World::over(
            Arc::new(VecMemory::new(MEMORY)),
            Duration::from_secs(100),
            1,
        )
    }

    /// Starts a server over this memory.
    fn over(memory: Arc<VecMemory>, uptime: Duration, boot: u8) -> World {
        let Recovered {
            machine,
            service_time,
            frames,
            ..
        } = recover(Parts {
            memory: Some(memory.clone()),
            follower: None,
            sink: None,
            partner: None,
            reply_room: 1 << 20,
            effect_room: 1 << 20,
            wall: WALL + uptime.as_micros() as u64 * 10,
            uptime,
            sources: Sources {
                dhcp: true,
                router_advertisements: false,
            },
            incarnation: Incarnation {
                host: [1; 16],
                boot: [boot; 16],
            },
            company: crate::server::open::Company::Alone,
            takes_over: false,
            stack: outlast_stack::Config {
                mac: MAC,
                ports: vec![445],
                receive_buffer: 64 << 10,
                receive_total: 1 << 20,
                ..outlast_stack::Config::default()
            },
            smb: crate::server::contents::no_service(),
            fs: NoFiles,
            entropy: Box::new(Counted(0)),
            probe: Box::new(Unarmed),
            copy_units: 1 << 20,
            sets_apart: true,
            stopwatch: Box::new(Still),
            crashed: true,
            eviction: EvictionLimits {
                login: Duration::from_secs(100_000),
                idle: None,
                stalled: Duration::from_secs(60),
                stalled_when_short: Duration::from_secs(60),
                unauthenticated: 16,
                connections: 64,
                unread: 16 << 20,
            },
            lost: outlast_stack::Lost::Nothing,
        })
        .expect("it recovers");
        World {
            machine,
            memory,
            began: (service_time, uptime),
            uptime,
            boot,
            sent: frames.into_iter().map(|frame| frame.header).collect(),
        }
    }

    /// Crashes the machine; another process continues from this image of its memory.
    fn recovered(&self, image: &VecMemory, outage: Duration, boot: u8) -> World {
        World::over(Arc::new(image.image()), self.uptime + outage, boot)
    }

    fn crash(&mut self, outage: Duration) {
        *self = self.recovered(&self.memory, outage, self.boot);
    }

    fn time(&self) -> Time {
        let (service, began) = self.began;
        Time {
            now: service + (self.uptime - began),
            wall: WALL + self.uptime.as_micros() as u64 * 10,
            uptime: self.uptime,
        }
    }

    fn turn(&mut self) {
        let mut frames = Vec::new();
        let time = self.time();
        self.machine.turn(time, &mut frames);
        self.sent
            .extend(frames.into_iter().map(|frame| frame.header));
    }

    fn ingest(&mut self, bytes: &[u8]) {
        let time = self.time();
        let checksum = RxChecksum::Trusted;
        self.machine.ingest(RxFrame { bytes, checksum }, time);
    }

    /// Advances to the next deadline, and takes a turn.
    fn next(&mut self) {
        let at = self.machine.next_deadline().expect("a deadline");
        let wait = at.saturating_sub(self.time().now);
        self.uptime += wait;
        self.turn();
    }

    /// Answers the requests that have been sent.
    fn answer(&mut self) {
        for frame in std::mem::take(&mut self.sent) {
            if let Some(answer) = answer(&frame) {
                self.ingest(&answer);
            }
        }
    }

    /// Runs until there is an address; `after` is called after each turn.
    fn acquire(&mut self, mut after: impl FnMut(&World)) {
        for _ in 0..50 {
            self.next();
            after(self);
            if !self.machine.addresses().is_empty() {
                return;
            }
            self.answer();
        }
        panic!("no address");
    }

    fn connections(&self) -> usize {
        self.machine.stack().connections().count()
    }

    /// Whether a frame has been sent from the address, other than by ARP.
    fn has_sent_from_address(&self) -> bool {
        let ip = self.sent.iter().filter(|frame| frame[12..14] == [8, 0]);
        let mut sources = ip.map(|frame| &frame[26..30]);
        sources.any(|source| source == ADDRESS.octets())
    }
}

/// The DHCP server's answer.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let datagram = Datagram::parse(frame)?;
    let packet = DhcpPacket::new_checked(datagram.payload).ok()?;
    let asked = DhcpRepr::parse(&packet).ok()?;
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => DhcpMessageType::Ack,
        _ => return None,
    };
    let message = DhcpRepr {
        message_type,
        client_hardware_address: EthernetAddress(MAC),
        your_ip: ADDRESS,
        server_ip: SERVER,
        router: Some(SERVER),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(SERVER),
        parameter_request_list: None,
        max_size: None,
        lease_duration: Some(LEASE),
        ..asked
    };
    let mut payload = vec![0; message.buffer_len()];
    let mut packet = DhcpPacket::new_unchecked(&mut payload[..]);
    message.emit(&mut packet).expect("it fits");
    let datagram = Datagram {
        source_mac: OTHER_MAC,
        source: SocketAddr::new(SERVER.into(), 67),
        destination: SocketAddr::new(ADDRESS.into(), 68),
        payload: &payload,
    };
    Some(datagram.frame(MAC, 64).expect("a frame").header)
}

/// A SYN of a client.
fn syn(port: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: port,
        dst_port: 445,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: CLIENT,
        dst_addr: ADDRESS,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = [&MAC[..], &OTHER_MAC[..], &[8, 0]].concat();
    let at = frame.len();
    frame.resize(at + 20 + tcp.buffer_len(), 0);
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[at..]), &checksums);
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut frame[at + 20..]),
        &CLIENT.into(),
        &ADDRESS.into(),
        &checksums,
    );
    frame
}

/// A server with an address, and a client that has begun to connect.
fn connected() -> World {
    let mut world = World::new();
    world.acquire(|_| ());
    world.ingest(&syn(40_000));
    world.turn();
    assert_eq!(world.connections(), 1);
    world
}

#[test]
fn an_address_is_acquired_announced_and_served() {
    let mut world = World::new();
    assert_eq!(world.machine.addresses(), Vec::<IpAddr>::new());
    world.ingest(&syn(40_000));
    world.turn();
    assert_eq!(world.connections(), 0, "it has no address yet");
    world.acquire(|_| ());
    assert_eq!(world.machine.addresses(), [IpAddr::from(ADDRESS)]);
    // RFC 5227, section 3: an ARP request for the own address.
    let announced = |frame: &Vec<u8>| frame[12..14] == [8, 6] && frame[28..32] == frame[38..42];
    assert!(world.sent.iter().any(announced));
    let mut world = connected();
    assert!(world.has_sent_from_address(), "the SYN is answered");
    let assigned = world.machine.assigned();
    assert_eq!(assigned[0].source, "dhcp");
    assert!(assigned[0].left <= Some(Duration::from_secs(LEASE.into())));
    world.crash(Duration::from_secs(1));
    assert!(world.sent.iter().any(announced), "again");
}

#[test]
fn a_crash_after_each_commit_loses_neither_address_nor_connection() {
    let mut images = Vec::new();
    let mut world = World::new();
    world.acquire(|world| images.push((world.memory.image(), world.machine.addresses())));
    images.push((world.memory.image(), world.machine.addresses()));
    for (image, before) in &images {
        let mut next = world.recovered(image, Duration::from_secs(1), 1);
        // What was committed is there; what was not is acquired again.
        assert_eq!(next.machine.addresses(), *before);
        if before.is_empty() {
            next.acquire(|_| ());
        }
        next.ingest(&syn(40_000));
        next.turn();
        assert_eq!(next.connections(), 1);
    }
    assert!(images.len() > 5, "{}", images.len());
    // With a connection: through each turn in which the lease is extended.
    let mut world = connected();
    for turn in 0..40 {
        world.next();
        let mut next = world.recovered(&world.memory, Duration::from_millis(1), 1);
        assert_eq!(
            next.machine.addresses(),
            [IpAddr::from(ADDRESS)],
            "turn {turn}"
        );
        assert_eq!(next.connections(), world.connections(), "turn {turn}");
        let acquired = &next.machine.journal.global().acquired;
        assert_eq!(*acquired, world.machine.journal.global().acquired);
        next.turn();
        world.answer();
    }
}

#[test]
fn the_lease_is_extended_while_the_server_serves() {
    let mut world = connected();
    let begun = world.uptime;
    while world.uptime < begun + Duration::from_secs(10 * u64::from(LEASE)) {
        world.next();
        world.answer();
        assert_eq!(world.machine.addresses(), [IpAddr::from(ADDRESS)]);
    }
}

#[test]
fn a_lease_that_ends_ends_its_connections_silently() {
    let mut world = connected();
    world.sent.clear();
    while !world.machine.addresses().is_empty() {
        world.sent.clear();
        world.next();
    }
    assert_eq!(world.connections(), 0);
    assert!(!world.has_sent_from_address());
    world.sent.clear();
    world.ingest(&syn(40_001));
    world.turn();
    assert!(!world.has_sent_from_address());
    world.acquire(|_| ());
    world.ingest(&syn(40_002));
    world.turn();
    assert_eq!(world.connections(), 1);
}

#[test]
fn a_lease_that_ends_during_an_outage_is_not_used() {
    let lease = Duration::from_secs(LEASE.into());
    let mut world = connected();
    world.crash(lease / 2);
    assert_eq!(world.machine.addresses(), [IpAddr::from(ADDRESS)]);
    assert_eq!(world.connections(), 1);
    world.crash(lease / 2 + Duration::from_secs(1));
    assert_eq!(world.machine.addresses(), Vec::<IpAddr>::new());
    assert_eq!(world.connections(), 0);
    assert!(!world.has_sent_from_address());
    world.turn();
    assert!(!world.has_sent_from_address());
    // The next process does not restore it either.
    world.crash(Duration::ZERO);
    assert_eq!(world.machine.addresses(), Vec::<IpAddr>::new());
}

#[test]
fn between_two_boots_the_wall_clock_counts() {
    let recorded = Anchor {
        boot: [1; 16],
        uptime: Duration::from_secs(500),
        real: Duration::from_secs(2_000_000_000),
    };
    let time = |uptime: u64, unix: u64| Time {
        now: Duration::ZERO,
        wall: (unix + 11_644_473_600) * 10_000_000,
        uptime: Duration::from_secs(uptime),
    };
    let real = |boot: u8, time: Time| {
        let clock = RealTime::resumed(Some(recorded), [boot; 16], time);
        clock.at(time).as_secs()
    };
    assert_eq!(
        real(1, time(530, 7)),
        2_000_000_030,
        "whatever the wall clock says"
    );
    assert_eq!(real(2, time(10, 2_000_000_100)), 2_000_000_100);
    assert_eq!(
        real(2, time(10, 7)),
        2_000_000_000,
        "it never runs backwards"
    );
    let first = RealTime::resumed(None, [1; 16], time(10, 2_000_000_000));
    assert_eq!(first.at(time(15, 7)).as_secs(), 2_000_000_005);
}
