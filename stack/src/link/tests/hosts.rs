//! Requirements of a host besides TCP: neighbours, pings, errors (RFC 1122, RFC 4443).

use super::icmp::{icmp_frame, icmpv6};
use super::*;

fn answers(link: &mut Link) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    link.poll(&mut out);
    assert_eq!(link.next_deadline(), None);
    out.into_iter()
        .map(
            |TxFrame {
                 header,
                 payload,
                 offload,
             }| {
                assert!(payload.is_empty() && offload == Offload::None);
                header
            },
        )
        .collect()
}

/// Makes the client known to the server's neighbour table, as its ARP request or solicitation does before it pings.
fn introduce(server: &mut Link, v6: bool) -> Vec<u8> {
    let question = client(Capabilities::NONE)
        .solicit(&to_server(v6))
        .expect("a question");
    assert!(matches!(
        server.ingest(verify(&question.header), NOW),
        Delivery::Nothing
    ));
    assert_eq!(server.next_deadline(), Some(Duration::ZERO));
    let mut answers = answers(server);
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

//= rfc1122 2.3.3e
#[test]
fn arp_and_solicitations_are_answered() {
    let answer = introduce(&mut server(Capabilities::NONE), false);
    let ethernet = EthernetFrame::new_checked(&answer).expect("a frame");
    assert_eq!(ethernet.dst_addr(), EthernetAddress(CLIENT_MAC));
    let arp = ArpPacket::new_checked(ethernet.payload()).expect("ARP");
    let expected = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(SERVER_MAC),
        source_protocol_addr: SERVER_V4,
        target_hardware_addr: EthernetAddress(CLIENT_MAC),
        target_protocol_addr: CLIENT_V4,
    };
    assert_eq!(ArpRepr::parse(&arp), Ok(expected));

    let answer = introduce(&mut server(Capabilities::NONE), true);
    let ethernet = EthernetFrame::new_checked(&answer).expect("a frame");
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags, target_addr, ..
    }) = icmpv6(ethernet.payload())
    else {
        panic!("no advertisement")
    };
    assert!(flags.contains(NdiscNeighborFlags::SOLICITED));
    assert_eq!(target_addr, SERVER_V6);
}

//= rfc1122 3.2.2.6a, 3.2.2.6c, 3.2.2.6d, 3.3.4.2a
//= rfc4443 4.1a, 4.2a, 4.2c
//= rfc8200 5a
#[test]
fn pings_are_answered_up_to_the_mtu() {
    for v6 in [false, true] {
        let mut server = server(Capabilities::NONE);
        introduce(&mut server, v6);
        for len in [0, 1, 56, 1000, if v6 { 1452 } else { 1472 }] {
            let (request, reply) = if v6 { (128, 129) } else { (8, 0) };
            let mut message = vec![request, 0, 0, 0, 0x12, 0x34, 0, 9];
            message.extend((0..len).map(|at| at as u8));
            let ping = icmp_frame(v6, &message);
            assert!(matches!(
                server.ingest(verify(&ping), NOW),
                Delivery::Nothing
            ));
            let answers = answers(&mut server);
            assert_eq!(answers.len(), 1, "v6 {v6} len {len}");
            let packet = Packet::parse(&answers[0][14..], Extent::Whole).expect("a packet");
            let path = to_client(v6);
            assert_eq!(
                (packet.source, packet.destination),
                (path.local.ip(), path.remote.ip())
            );
            assert_eq!(packet.payload[0], reply);
            assert_eq!(packet.payload[4..], message[4..]);
        }
    }
}

#[test]
fn a_flood_of_questions_is_not_answered_without_end() {
    let mut server = server(Capabilities::NONE);
    let question = client(Capabilities::NONE)
        .solicit(&to_server(false))
        .expect("a question");
    for _ in 0..1000 {
        server.ingest(verify(&question.header), NOW);
    }
    assert_eq!(answers(&mut server).len(), 256);
    assert_eq!(server.counters().overflow, 744);
}

//= rfc1122 3.3.1.1
#[test]
fn peers_off_the_link_are_reached_by_the_router() {
    let link = server(Capabilities::NONE);
    let far = |address: IpAddr, local: IpAddr| Path {
        local: SocketAddr::new(local, 445),
        remote: SocketAddr::new(address, 1),
        remote_mac: CLIENT_MAC,
    };
    let question = link
        .solicit(&far(Ipv4Addr::new(192, 0, 2, 1).into(), SERVER_V4.into()))
        .expect("a question");
    assert_eq!(question.header[..6], [0xff; 6]);
    let arp = ArpPacket::new_checked(&question.header[14..]).expect("ARP");
    assert_eq!(arp.target_protocol_addr(), [10, 77, 0, 254]);
    assert_eq!(arp.source_protocol_addr(), SERVER_V4.octets());
    let question = link
        .solicit(&far(
            "2001:db8::1".parse().expect("an address"),
            SERVER_V6.into(),
        ))
        .expect("a question");
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr,
        lladdr,
    }) = icmpv6(&question.header[14..])
    else {
        panic!("no solicitation")
    };
    assert_eq!(target_addr, Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0xfe));
    assert!(lladdr.is_some());
    assert_eq!(question.header[..6], [0x33, 0x33, 0xff, 0, 0, 0xfe]);
    assert_eq!(question.header[21], 255);

    let config = Config {
        addresses: vec![(SERVER_V4.into(), 24)],
        ..Config::default()
    };
    let alone = Link::new(&config, NOW);
    assert!(
        alone
            .solicit(&far(Ipv4Addr::new(192, 0, 2, 1).into(), SERVER_V4.into()))
            .is_none()
    );
    assert!(alone.solicit(&to_client(false)).is_some());
}

#[test]
fn all_addresses_are_announced() {
    let announcements = server(Capabilities::NONE).announce();
    let arp = ArpPacket::new_checked(&announcements[0].header[14..]).expect("ARP");
    assert_eq!(arp.source_protocol_addr(), arp.target_protocol_addr());
    assert_eq!(arp.source_hardware_addr(), SERVER_MAC);
    let advertised: Vec<Ipv6Addr> = announcements[1..]
        .iter()
        .map(|frame| match icmpv6(&frame.header[14..]) {
            Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                flags, target_addr, ..
            }) => {
                assert_eq!(flags, NdiscNeighborFlags::OVERRIDE);
                target_addr
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        advertised,
        [SERVER_V6, "fe80::ff:fe00:10".parse().expect("an address")]
    );
}

/// A UDP datagram of the client for the server, which has no use for it.
fn datagram() -> Vec<u8> {
    datagram_over(false)
}

fn datagram_over(v6: bool) -> Vec<u8> {
    let path = to_server(v6);
    let udp = [0x9c, 0x40, 0, 137, 0, 12, 0, 0, 1, 2, 3, 4];
    let mut frame = Vec::new();
    let fields = egress::IpFields::new(17, 0x77);
    egress::headers(&mut frame, CLIENT_MAC, &path, udp.len(), fields);
    frame.extend_from_slice(&udp);
    frame
}

/// What a server that knows the client answers.
fn answered(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut server = server(Capabilities::NONE);
    introduce(&mut server, false);
    introduce(&mut server, true);
    assert!(matches!(
        server.ingest(verify(frame), NOW),
        Delivery::Nothing
    ));
    answers(&mut server)
}

//= rfc1122 3.1a, 3.2.1.3b, 3.2.1.3e, 3.2.1.7a, 3.2.2d, 3.3.8, 3.2.2.1a
#[test]
fn an_unknown_protocol_is_answered_with_an_error() {
    let sent = datagram();
    let answers = answered(&sent);
    assert_eq!(answers.len(), 1);
    let ip = &answers[0][14..];
    let ip_header = Ipv4Packet::new_checked(ip).expect("a packet");
    assert_eq!(
        (ip_header.src_addr(), ip_header.dst_addr()),
        (SERVER_V4, CLIENT_V4)
    );
    assert_eq!((ip[1], ip_header.hop_limit()), (0, 64));
    // Destination unreachable, protocol; then the datagram: addresses and what is above IP as they came.
    assert_eq!(ip[20..22], [3, 2]);
    assert_eq!(ip[28 + 12..], sent[14 + 12..]);
}

//= rfc1122 3.2.2e, 3.2.2f, 3.2.2g, 3.2.2h, 3.2.2i, 3.3.6c, 2.4a
#[test]
fn no_error_is_sent_where_it_would_do_harm() {
    let good = datagram();
    assert_eq!(answered(&good).len(), 1);
    let with = |changes: &[(usize, &[u8])]| {
        let mut frame = good.clone();
        for (at, bytes) in changes {
            frame[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        fix_ipv4(&mut frame);
        frame
    };
    let mut about_an_error = vec![3, 2, 0, 0, 0, 0, 0, 0];
    about_an_error.extend_from_slice(&good[14..]);
    let (source, destination) = (14 + 12, 14 + 16);
    for (what, frame) in [
        ("an error", icmp_frame(false, &about_an_error)),
        (
            "to everyone",
            with(&[(0, &[0xff; 6]), (destination, &[255; 4])]),
        ),
        (
            "to the subnet",
            with(&[(0, &[0xff; 6]), (destination, &[10, 77, 0, 255])]),
        ),
        (
            "to all hosts",
            with(&[(0, &[1, 0, 0x5e, 0, 0, 1]), (destination, &[224, 0, 0, 1])]),
        ),
        ("to us, but by broadcast", with(&[(0, &[0xff; 6])])),
        ("a later fragment", with(&[(20, &[0, 5])])),
        ("from the unspecified address", with(&[(source, &[0; 4])])),
        ("from everyone", with(&[(source, &[255; 4])])),
        ("from the subnet", with(&[(source, &[10, 77, 0, 255])])),
        ("from a group", with(&[(source, &[224, 0, 0, 1])])),
        ("from loopback", with(&[(source, &[127, 0, 0, 1])])),
    ] {
        assert_eq!(answered(&frame), Vec::<Vec<u8>>::new(), "{what}");
    }
}

//= rfc1122 3.2.2a, 3.2.2.7, 3.2.2.9b
#[test]
fn icmp_that_asks_for_what_we_do_not_do_is_dropped() {
    // Redirect, timestamp, information and mask requests, and unassigned numbers.
    for kind in [5, 13, 15, 17, 1, 42, 255] {
        let mut message = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 9];
        message.extend_from_slice(&[0; 40]);
        assert_eq!(
            answered(&icmp_frame(false, &message)),
            Vec::<Vec<u8>>::new(),
            "{kind}"
        );
    }
}

//= rfc1122 3.2.1.1, 3.2.1.2, 3.1d
#[test]
fn versions_that_are_none_and_bad_sums_are_counted_and_dropped() {
    let mut six = datagram();
    six[14] = 0x65;
    fix_ipv4(&mut six);
    let mut five = datagram();
    five[14] = 0x55;
    fix_ipv4(&mut five);
    let mut damaged = datagram();
    damaged[14 + 8] ^= 1;
    for (frame, malformed, bad_checksum) in [(six, 1, 0), (five, 1, 0), (damaged, 0, 1)] {
        let mut server = server(Capabilities::NONE);
        server.ingest(verify(&frame), NOW);
        let expected = Counters {
            malformed,
            bad_checksum,
            ..Counters::default()
        };
        assert_eq!(
            (server.counters(), server.next_deadline()),
            (expected, None)
        );
    }
}

//= rfc1122 3.2.1.7b
//= rfc8200 3a
#[test]
fn a_packet_is_received_whatever_its_ttl() {
    for (v6, left) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        let mut frame = frame_to_server(v6, b"x");
        if v6 {
            frame[14 + 7] = left;
        } else {
            frame[14 + 8] = left;
            fix_ipv4(&mut frame);
        }
        assert!(matches!(
            server(Capabilities::NONE).ingest(verify(&frame), NOW),
            Delivery::Segment(_)
        ));
    }
}

//= rfc1122 2.3.2.1b
#[test]
fn unknown_neighbours_are_asked_for_once_a_second() {
    let mut server = server(Capabilities::NONE);
    // The client is unknown.
    let mut asked = 0;
    for tenths in 10..40 {
        let now = Duration::from_millis(tenths * 100);
        server.ingest(verify(&datagram()), now);
        asked += answers(&mut server).len();
    }
    assert_eq!(asked, 3);
}

//= rfc1122 2.3.2.1a
#[test]
fn a_neighbour_that_moved_is_asked_for_again_after_a_minute() {
    for (seconds, asked) in [(30, false), (62, true)] {
        let mut server = server(Capabilities::NONE);
        introduce(&mut server, false);
        let mut moved = datagram();
        moved[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
        server.ingest(verify(&moved), Duration::from_secs(seconds));
        let answers = answers(&mut server);
        let arp = [8, 6];
        assert_eq!(answers[0][12..14] == arp, asked, "{seconds} s");
    }
}

//= rfc4443 2.2a, 2.4c
#[test]
fn over_ipv6_an_unknown_protocol_is_answered_with_an_error() {
    let sent = datagram_over(true);
    let answers = answered(&sent);
    assert_eq!(answers.len(), 1);
    let answer = Packet::parse(&answers[0][14..], Extent::Whole).expect("a packet");
    assert_eq!(
        (answer.source, answer.destination),
        (SERVER_V6.into(), CLIENT_V6.into())
    );
    // Parameter problem, unrecognized next header; behind the pointer the whole packet.
    assert_eq!(answer.payload[..2], [4, 1]);
    assert_eq!(answer.payload[8 + 8..], sent[14 + 8..]);
}

//= rfc4443 2.4b, 2.4e
#[test]
fn over_ipv6_no_error_is_sent_where_it_would_do_harm() {
    let good = datagram_over(true);
    assert_eq!(answered(&good).len(), 1);
    let with = |changes: &[(usize, &[u8])]| {
        let mut frame = good.clone();
        for (at, bytes) in changes {
            frame[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        frame
    };
    let about = |kind: u8| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 5, 0];
        message.extend_from_slice(&good[14..]);
        icmp_frame(true, &message)
    };
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let (source, destination) = (14 + 8, 14 + 24);
    for (what, frame) in [
        ("an error", about(1)),
        ("an error of an unknown kind", about(100)),
        ("a redirect", about(137)),
        ("information of an unknown kind", about(200)),
        (
            "to all nodes",
            with(&[(0, &[0x33, 0x33, 0, 0, 0, 1]), (destination, &all_nodes)]),
        ),
        (
            "to us, but by multicast",
            with(&[(0, &[0x33, 0x33, 0, 0, 0, 1])]),
        ),
        ("from the unspecified address", with(&[(source, &[0; 16])])),
        ("from a group", with(&[(source, &all_nodes)])),
    ] {
        assert_eq!(answered(&frame), Vec::<Vec<u8>>::new(), "{what}");
    }
}

//= rfc4443 2.4f, 2.4g
#[test]
fn errors_are_sent_at_a_limited_rate() {
    for v6 in [false, true] {
        let config = Config {
            max_echoes_per_second: 300,
            mac: SERVER_MAC,
            addresses: vec![(SERVER_V4.into(), 24), (SERVER_V6.into(), 64)],
            ..Config::default()
        };
        let mut server = Link::new(&config, Duration::ZERO);
        introduce(&mut server, v6);
        let mut sent = 0;
        for _ in 0..500 {
            server.ingest(verify(&datagram_over(v6)), NOW);
            sent += answers(&mut server).len();
        }
        assert_eq!(sent, 300);
    }
}

//= rfc4443 4.2b
#[test]
fn a_ping_to_all_nodes_is_answered_by_each() {
    let mut ping = icmp_frame(true, &[128, 0, 0, 0, 0x12, 0x34, 0, 9, 1, 2, 3]);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    ping[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    ping[38..54].copy_from_slice(&all_nodes.octets());
    ping[56..58].fill(0);
    let mut sum = Sum::pseudo_header(
        CLIENT_V6.into(),
        all_nodes.into(),
        IpProtocol::Icmpv6,
        ping.len() - 54,
    );
    sum.add(&ping[54..]);
    ping[56..58].copy_from_slice(&sum.checksum().to_be_bytes());
    let answers = answered(&ping);
    assert_eq!(answers.len(), 1);
    let answer = Packet::parse(&answers[0][14..], Extent::Whole).expect("a packet");
    assert_eq!(answer.source, IpAddr::from(SERVER_V6));
    assert_eq!(answer.payload[0], 129);
}
