//! Sends frames on live connections, one in every state: segments near the expected ones, valid frames with changes,
//! arbitrary bytes.

#[path = "../../../stack/tests/hand/mod.rs"]
pub(crate) mod hand;

use crate::input::Input;
use bytes::Bytes;
use hand::{Bench, CLIENT, IRS, Log, PORT, SECRET, SERVER, Seg};
use outlast_stack::{Config, ConnId, Lost, Record, RxChecksum, RxFrame, Stack};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

/// Its port, which no hostile frame has.
const BYSTANDER: u16 = 9;
const HOSTILE: [u16; 9] = [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008];
const STEPS: usize = 48;
const START: Duration = Duration::from_secs(100);
/// The longest wait of one step; all of them together are shorter than the silence after which a peer is probed.
const LONGEST_WAIT_MS: u64 = 2_000;

/// One connection as its peer knows it.
#[derive(Clone, Copy)]
struct Peer {
    conn: ConnId,
    port: u16,
    iss: u32,
}

/// Connections in every state, as their records.
struct Scene {
    log: Log,
    peers: Vec<Peer>,
    bystander: Peer,
}

fn config(input: &mut Input<'_>) -> Config {
    Config {
        addresses: vec![
            (SERVER.into(), 24),
            (IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 1]), 64),
        ],
        gateways: vec![IpAddr::from([10, 0, 0, 254])],
        mtu: input.pick(&[1500, 1280, 9000, 65521]),
        ..hand::config()
    }
}

fn connect(bench: &mut Bench, port: u16, timestamps: bool) -> Peer {
    let mut syn = bench.syn(port);
    syn.scale = timestamps.then_some(3);
    syn.timestamp = timestamps.then_some((1, 0));
    let answer = bench.exchange(&syn);
    let conn = bench.log.records.last().expect("a record").0;
    Peer {
        conn,
        port,
        iss: answer[0].seq,
    }
}

fn segment(peer: Peer, timestamps: bool, offset: u32, acked: u32) -> Seg {
    Seg {
        port: PORT,
        client: peer.port,
        seq: IRS.wrapping_add(1).wrapping_add(offset),
        ack: Some(peer.iss.wrapping_add(1).wrapping_add(acked)),
        window: 50_000,
        timestamp: timestamps.then_some((10, 0)),
        ..Seg::default()
    }
}

impl Scene {
    fn set(timestamps: bool) -> Scene {
        let mut bench = Bench::new(hand::config());
        let at = |peer, offset, acked| segment(peer, timestamps, offset, acked);
        let fin = |seg: Seg| Seg { fin: true, ..seg };
        let mut peers = vec![connect(&mut bench, HOSTILE[0], timestamps)];
        for port in &HOSTILE[1..] {
            let peer = connect(&mut bench, *port, timestamps);
            bench.exchange(&at(peer, 0, 0));
            peers.push(peer);
        }
        let close = |bench: &mut Bench, peer: Peer| {
            bench.stack.close(peer.conn, &mut bench.log);
            bench.poll();
        };
        // CLOSE-WAIT, FIN-WAIT-1, FIN-WAIT-2, CLOSING, LAST-ACK, TIME-WAIT; the first is in SYN-RECEIVED, the second
        // ESTABLISHED.
        bench.exchange(&fin(at(peers[2], 0, 0)));
        for peer in &peers[3..6] {
            close(&mut bench, *peer);
        }
        bench.exchange(&at(peers[4], 0, 1));
        bench.exchange(&fin(at(peers[5], 0, 0)));
        bench.exchange(&fin(at(peers[6], 0, 0)));
        close(&mut bench, peers[6]);
        close(&mut bench, peers[7]);
        bench.exchange(&fin(at(peers[7], 0, 1)));
        // Bytes in both queues.
        bench.exchange(&Seg {
            data: vec![7; 500],
            ..at(peers[8], 0, 0)
        });
        bench
            .stack
            .send(peers[8].conn, &[&[1; 3000]], &mut bench.log);
        bench.poll();
        let bystander = connect(&mut bench, BYSTANDER, timestamps);
        bench.exchange(&at(bystander, 0, 0));
        Scene {
            log: bench.log,
            peers,
            bystander,
        }
    }

    /// Restores the scene.
    fn play(&self, config: Config, timestamps: bool) -> Bench {
        let mut bench = Bench {
            stack: Stack::new(config.clone(), SECRET, START),
            log: self.log.clone(),
            now: START,
            config,
            conn: self.peers[1].conn,
            iss: self.peers[1].iss,
            timestamps,
            others: Vec::new(),
        };
        bench.crash();
        bench.resume(Lost::Nothing);
        bench
    }
}

fn scene(timestamps: bool) -> &'static Scene {
    static SCENES: [OnceLock<Scene>; 2] = [OnceLock::new(), OnceLock::new()];
    SCENES[usize::from(timestamps)].get_or_init(|| Scene::set(timestamps))
}

/// The log of these connections, and their ids: in SYN-RECEIVED, ESTABLISHED, CLOSE-WAIT, FIN-WAIT-1, FIN-WAIT-2,
/// CLOSING, LAST-ACK, TIME-WAIT, and two more in ESTABLISHED.
pub(crate) fn history(timestamps: bool) -> (Vec<(ConnId, Record, Bytes)>, Vec<ConnId>) {
    let scene = scene(timestamps);
    let peers = scene.peers.iter().chain([&scene.bystander]);
    (
        scene.log.records.clone(),
        peers.map(|peer| peer.conn).collect(),
    )
}

/// A distance in sequence space: near, a window away, far, or anywhere.
fn distance(input: &mut Input<'_>) -> u32 {
    match input.byte() {
        near @ 0..100 => u32::from(near) * 32,
        back @ 100..140 => u32::from(back - 100).wrapping_mul(32).wrapping_neg(),
        single @ 140..160 => u32::from(single - 140),
        edge @ 160..180 => 60_000 - 10 + u32::from(edge - 160),
        180..230 => u32::from(input.byte()) << 24 | u32::from(input.byte()) << 3,
        _ => input.u32(),
    }
}

/// A segment of one of the peers, near the expected one.
fn near(input: &mut Input<'_>, peers: &[Peer], timestamps: bool) -> Seg {
    let peer = peers[input.below(peers.len())];
    let flags = input.byte();
    let (offset, acked) = (distance(input), distance(input));
    let mut seg = segment(peer, timestamps, offset, acked);
    seg.syn = flags & 1 != 0;
    seg.fin = flags & 2 != 0;
    seg.rst = flags & 4 != 0;
    if flags & 8 != 0 {
        seg.ack = None;
    }
    if flags & 16 != 0 {
        seg.window = input.u16();
        seg.timestamp = input
            .yes()
            .then(|| (input.number() as u32, input.number() as u32));
    }
    if flags & 32 != 0 {
        for range in &mut seg.sack[..1 + input.below(2)] {
            let edge =
                |input: &mut Input<'_>| peer.iss.wrapping_add(1).wrapping_add(distance(input));
            *range = Some((edge(input), edge(input)));
        }
    }
    if flags & 64 != 0 {
        seg.mss = input.yes().then(|| input.u16());
        seg.scale = input.yes().then(|| input.byte());
    }
    if flags & 128 != 0 {
        seg.data = vec![3; input.number() as usize % 60_000];
    }
    seg
}

/// Corrects lengths and checksums of a frame according to its headers, as far as possible.
fn correct(frame: &mut Vec<u8>) {
    let len = frame.len().saturating_sub(14);
    let Ok(mut ethernet) = EthernetFrame::new_checked(frame.as_mut_slice()) else {
        return;
    };
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let mut ip = Ipv4Packet::new_unchecked(ethernet.payload_mut());
            if len < 20 || usize::from(ip.header_len()) > len || ip.header_len() < 20 {
                return;
            }
            ip.set_total_len(len as u16);
            ip.fill_checksum();
            let (src, dst, next) = (ip.src_addr(), ip.dst_addr(), ip.next_header());
            correct_payload(ip.payload_mut(), src.into(), dst.into(), next);
        }
        EthernetProtocol::Ipv6 if len >= 40 => {
            let mut ip = Ipv6Packet::new_unchecked(ethernet.payload_mut());
            ip.set_payload_len((len - 40) as u16);
            let (src, dst, next) = (ip.src_addr(), ip.dst_addr(), ip.next_header());
            correct_payload(ip.payload_mut(), src.into(), dst.into(), next);
        }
        _ => {}
    }
}

fn correct_payload(
    payload: &mut [u8],
    src: smoltcp::wire::IpAddress,
    dst: smoltcp::wire::IpAddress,
    next: IpProtocol,
) {
    match next {
        IpProtocol::Tcp if payload.len() >= 20 => {
            TcpPacket::new_unchecked(payload).fill_checksum(&src, &dst);
        }
        IpProtocol::Icmp if payload.len() >= 8 => {
            smoltcp::wire::Icmpv4Packet::new_unchecked(payload).fill_checksum();
        }
        IpProtocol::Icmpv6 if payload.len() >= 8 => {
            if let (smoltcp::wire::IpAddress::Ipv6(src), smoltcp::wire::IpAddress::Ipv6(dst)) =
                (src, dst)
            {
                smoltcp::wire::Icmpv6Packet::new_unchecked(payload).fill_checksum(&src, &dst);
            }
        }
        _ => {}
    }
}

/// Returns whether a frame is the bystander's, or quotes it. Such a frame is not hostile: it is the bystander's own.
fn is_bystanders(frame: &[u8]) -> bool {
    let port = BYSTANDER.to_be_bytes();
    frame
        .windows(4)
        .any(|ports| ports[..2] == port && ports[2..] == PORT.to_be_bytes())
        || frame
            .windows(4)
            .any(|ports| ports[2..] == port && ports[..2] == PORT.to_be_bytes())
}

const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 0x20];

/// A frame that is not TCP: ARP, ICMP, ICMPv6 and what is in them.
fn other(input: &mut Input<'_>, peers: &[Peer]) -> Vec<u8> {
    let mut frame = ETHERNET.to_vec();
    let peer = peers[input.below(peers.len())];
    let ipv4 = |frame: &mut Vec<u8>, protocol: u8, payload: &[u8]| {
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(CLIENT.octets());
        frame.extend(SERVER.octets());
        frame.extend(payload);
    };
    match input.below(6) {
        0 => {
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, input.byte(), 2, 0, 0, 0, 0, 0x20]);
            frame.extend(CLIENT.octets());
            frame.extend([0; 6]);
            frame.extend(SERVER.octets());
        }
        1 => ipv4(
            &mut frame,
            1,
            &[&[8, 0, 0, 0, 1, 2, 3, 4], input.bytes()].concat(),
        ),
        2 => {
            // Destination unreachable, fragmentation needed (RFC 1191): quotes a segment of ours.
            let mut icmp = vec![3, input.byte(), 0, 0, 0, 0];
            icmp.extend(input.u16().to_be_bytes());
            icmp.extend([0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            icmp.extend(SERVER.octets());
            icmp.extend(CLIENT.octets());
            icmp.extend(PORT.to_be_bytes());
            icmp.extend(peer.port.to_be_bytes());
            icmp.extend(peer.iss.wrapping_add(distance(input)).to_be_bytes());
            ipv4(&mut frame, 1, &icmp);
        }
        3 => {
            let protocol = input.byte();
            ipv4(&mut frame, protocol, input.bytes());
        }
        4 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, input.byte(), 255]);
            frame.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            frame.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend(input.bytes());
        }
        _ => {
            frame.extend(input.u16().to_be_bytes());
            frame.extend(input.bytes());
        }
    }
    frame
}

fn ingest(bench: &mut Bench, input: &mut Input<'_>, mut frame: Vec<u8>) {
    let how = input.byte();
    if how & 1 != 0 {
        input.edit(&mut frame);
    }
    if how & 2 == 0 {
        correct(&mut frame);
    }
    if is_bystanders(&frame) {
        return;
    }
    let checksum = match how & 4 {
        0 => RxChecksum::Verify,
        _ => RxChecksum::Trusted,
    };
    let frame = RxFrame {
        bytes: &frame,
        checksum,
    };
    bench.stack.ingest(frame, bench.now, &mut bench.log);
}

/// Checks, for any input, that the state is the fold of the records, and that the bystander's connection works.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let timestamps = input.yes();
    let scene = scene(timestamps);
    let mut bench = scene.play(config(&mut input), timestamps);
    let peers = &scene.peers;
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(16) {
            0..=4 => {
                let seg = near(&mut input, peers, timestamps);
                ingest(&mut bench, &mut input, hand::frame(&seg));
            }
            5 => {
                let frame = other(&mut input, peers);
                ingest(&mut bench, &mut input, frame);
            }
            6 => {
                let frame = input.bytes().to_vec();
                ingest(&mut bench, &mut input, frame);
            }
            7 => {
                let ms = input.number() % LONGEST_WAIT_MS;
                bench.wait(Duration::from_millis(ms));
            }
            8 => {
                let conn = peers[input.below(peers.len())].conn;
                let len = input.number() as usize % 20_000;
                bench.stack.send(conn, &[&vec![1; len]], &mut bench.log);
            }
            9 => {
                let conn = peers[input.below(peers.len())].conn;
                let queued = bench
                    .stack
                    .received(conn)
                    .into_iter()
                    .flatten()
                    .map(Bytes::len)
                    .sum();
                bench
                    .stack
                    .consume(conn, (input.number() as usize).min(queued), &mut bench.log);
            }
            10 => {
                let conn = peers[input.below(peers.len())].conn;
                bench.stack.close(conn, &mut bench.log);
            }
            11 => {
                let conn = peers[input.below(peers.len())].conn;
                bench.stack.abort(conn, &mut bench.log);
            }
            12 => {
                let lost = input.pick(&[Lost::Frames, Lost::Nothing]);
                bench.crash();
                bench.resume(lost);
                bench.check_fold();
            }
            13 => {
                bench.conn = peers[input.below(peers.len())].conn;
                bench.relocate();
            }
            14 => bench.stack.drain(input.yes()),
            _ => bench.log.room = input.yes().then(|| input.u16().into()),
        }
        let sent = bench.poll();
        for peer in peers {
            let checkpoint = bench.stack.checkpoint(peer.conn);
            let refused = checkpoint.and_then(|checkpoint| checkpoint.contradiction());
            assert_eq!(refused, None, "a state that recovery would refuse");
        }
        assert!(sent.len() < 1000, "{} segments for one step", sent.len());
    }
    bench.stack.drain(false);
    bench.log.room = None;
    works(&mut bench, scene.bystander, timestamps);
}

/// Checks that the bystander can send and receive undisturbed.
fn works(bench: &mut Bench, bystander: Peer, timestamps: bool) {
    bench.poll();
    let request = Seg {
        data: vec![9; 100],
        ..segment(bystander, timestamps, 0, 0)
    };
    bench.exchange(&request);
    let received = bench
        .stack
        .received(bystander.conn)
        .expect("the bystander's connection");
    assert_eq!(
        received.iter().flatten().copied().collect::<Vec<u8>>(),
        request.data
    );
    bench.stack.consume(bystander.conn, 100, &mut bench.log);
    bench
        .stack
        .send(bystander.conn, &[&[5; 200]], &mut bench.log);
    let sent = bench.poll();
    let reply = sent
        .iter()
        .find(|seg| seg.client == BYSTANDER && !seg.data.is_empty());
    let reply = reply.expect("the bystander's reply");
    assert_eq!(
        (reply.seq, &reply.data),
        (bystander.iss.wrapping_add(1), &vec![5; 200])
    );
    assert_eq!(reply.ack, Some(request.seq.wrapping_add(100)));
}

/// Each kind of step alone, and an upload, a download, a close.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for timestamps in [0_u8, 1] {
        for peer in 0..HOSTILE.len() as u8 {
            for flags in [0_u8, 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x82] {
                seeds.push(vec![
                    timestamps, 0, 0, peer, flags, 0, 0, 100, 4, 0, 0, 0, 0, 7, 250,
                ]);
            }
        }
        // SACK blocks far away, of data that is outstanding.
        for (from, to) in [(1, 2), (64, 176), (127, 128), (200, 250)] {
            let ack = [
                0, 8, 0x20, 0, 0, 1, 180, from, 0, 180, to, 0, 140, 180, to, 0, 0,
            ];
            seeds.push([&[timestamps, 0], ack.as_slice(), &ack].concat());
        }
        for kind in 5..16_u8 {
            seeds.push(vec![
                timestamps, 0, kind, 1, 1, 50, 1, 0, 12, 1, kind, 8, 2, 200, 0,
            ]);
        }
        for kind in 0..6_u8 {
            seeds.push(vec![timestamps, 0, 5, 8, kind, 4, 5, 0x78, 10, 0, 0, 0, 0]);
        }
    }
    seeds
}
