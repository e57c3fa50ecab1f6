//! ICMP errors about our segments.

use super::*;
use crate::frame::{IcmpError, IcmpKind};

/// An IP packet of `message` from a router (or the client) to the server, in a frame.
pub(super) fn icmp_frame(v6: bool, message: &[u8]) -> Vec<u8> {
    let path = to_server(v6);
    let mut frame = Vec::new();
    let fields = egress::IpFields::new(if v6 { 58 } else { 1 }, 0);
    egress::headers(&mut frame, CLIENT_MAC, &path, message.len(), fields);
    frame.extend_from_slice(message);
    let mut sum = match v6 {
        true => Sum::pseudo_header(
            path.local.ip(),
            path.remote.ip(),
            IpProtocol::Icmpv6,
            message.len(),
        ),
        false => Sum::default(),
    };
    sum.add(message);
    let at = frame.len() - message.len() + 2;
    frame[at..at + 2].copy_from_slice(&sum.checksum().to_be_bytes());
    frame
}

/// "Too big" about a segment the server sent.
pub(super) fn too_big(v6: bool, mtu: u32) -> Vec<u8> {
    let path = to_client(v6);
    let sent = server(Capabilities::NONE).segment(
        &path,
        &tcp_header(&path, 0xfeed_beef),
        vec![Bytes::from(vec![0; 1460])],
        1460,
    );
    let mut message = if v6 {
        vec![2, 0, 0, 0]
    } else {
        vec![3, 4, 0, 0]
    };
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&sent.header[14..14 + if v6 { 48 } else { 28 }]);
    icmp_frame(v6, &message)
}

//= rfc1191 5a
//= rfc8201 4a, 4b
//= rfc4443 3.2a
#[test]
fn too_big_reaches_tcp() {
    // The MTU that the router states, and the one assumed: an IPv4 plateau when it states none, the least MTU when it
    // states nonsense.
    for (v6, stated, believed) in [
        (false, 1400, 1400),
        (false, 0, 1492),
        (false, 20, 68),
        (true, 1400, 1400),
        (true, 1280, 1280),
    ] {
        let mut server = server(Capabilities::NONE);
        let frame = too_big(v6, stated);
        let Delivery::Error(error) = server.ingest(verify(&frame), NOW) else {
            panic!("not delivered")
        };
        let path = to_client(v6);
        let expected = IcmpError {
            local: path.local,
            remote: path.remote,
            seq: 0xfeed_beef,
            kind: IcmpKind::TooBig { mtu: believed },
        };
        assert_eq!(error, expected);
        assert_eq!(server.counters().too_big, 1);

        let mut damaged = frame;
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(matches!(
            server.ingest(verify(&damaged), NOW),
            Delivery::Nothing
        ));
    }
    // IPv6 guarantees that no path takes less.
    let mut server = server(Capabilities::NONE);
    let nonsense = too_big(true, 1279);
    assert!(matches!(
        server.ingest(verify(&nonsense), NOW),
        Delivery::Nothing
    ));
}

/// ICMP type and code about the segment 0xfeed_beef of the server's.
fn icmp_error(v6: bool, kind: u8, code: u8) -> Vec<u8> {
    let sent = &too_big(v6, 0)[14 + if v6 { 48 } else { 28 }..];
    icmp_frame(v6, &[&[kind, code, 0, 0, 0, 0, 0, 0], sent].concat())
}

//= rfc9293 MUST-54, MUST-55
//= rfc1122 3.2.2c, 3.4d
//= rfc4443 3.1c, 3.3a, 3.4b
#[test]
fn errors_reach_tcp_but_source_quench_does_not() {
    for (v6, kind, code, passed) in [
        (false, 3, 0, true),
        (false, 3, 1, true),
        (false, 3, 3, true),
        (false, 3, 5, true),
        (false, 11, 0, true),
        (false, 12, 0, true),
        (false, 4, 0, false),
        (false, 8, 0, false),
        (true, 1, 0, true),
        (true, 3, 1, true),
        (true, 4, 2, true),
        (true, 128, 0, false),
    ] {
        let mut server = server(Capabilities::NONE);
        let path = to_client(v6);
        let expected = IcmpError {
            local: path.local,
            remote: path.remote,
            seq: 0xfeed_beef,
            kind: IcmpKind::Unreachable { kind, code },
        };
        let frame = icmp_error(v6, kind, code);
        match server.ingest(verify(&frame), NOW) {
            Delivery::Error(error) => assert!(passed && error == expected, "{kind} {code}"),
            Delivery::Nothing => assert!(!passed, "{kind} {code}"),
            Delivery::Segment(_) => panic!("{kind} {code}"),
        }
        assert_eq!(server.counters().unreachable, u64::from(passed));
    }
}

#[test]
fn too_big_about_someone_else_does_not() {
    let mut frame = too_big(false, 1400);
    let quoted_source = 14 + 20 + 8 + 12;
    frame[quoted_source + 3] = 77;
    let mut message = frame[34..].to_vec();
    message[2..4].fill(0);
    let frame = icmp_frame(false, &message);
    let mut server = server(Capabilities::NONE);
    assert!(matches!(
        server.ingest(verify(&frame), NOW),
        Delivery::Nothing
    ));
    assert_eq!(server.counters().too_big, 0);
}

pub(super) fn icmpv6(ip: &[u8]) -> Icmpv6Repr<'_> {
    let packet = Ipv6Packet::new_checked(ip).expect("IPv6");
    let Ipv6Repr {
        src_addr, dst_addr, ..
    } = Ipv6Repr::parse(&packet).expect("IPv6");
    let message = Icmpv6Packet::new_checked(&ip[40..]).expect("ICMPv6");
    Icmpv6Repr::parse(
        &src_addr,
        &dst_addr,
        &message,
        &ChecksumCapabilities::default(),
    )
    .expect("ICMPv6")
}

//= rfc6069 4.2a
//= rfc1122 3.4c
#[test]
fn unreachable_quotes_the_peers_segment() {
    let frame = server(Capabilities::NONE).unreachable(&to_client(false), 0x0102_0304);
    let ethernet = EthernetFrame::new_checked(&frame.header).expect("a frame");
    assert_eq!(
        (ethernet.dst_addr(), ethernet.ethertype()),
        (EthernetAddress(CLIENT_MAC), EthernetProtocol::Ipv4)
    );
    let ip = Ipv4Packet::new_checked(ethernet.payload()).expect("IPv4");
    assert!(ip.verify_checksum());
    assert_eq!((ip.src_addr(), ip.dst_addr()), (SERVER_V4, CLIENT_V4));
    let message = Icmpv4Packet::new_checked(ip.payload()).expect("ICMP");
    let Ok(Icmpv4Repr::DstUnreachable {
        reason,
        header,
        data,
    }) = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default())
    else {
        panic!("not an error")
    };
    assert_eq!(reason, Icmpv4DstUnreachable::HostUnreachable);
    let expected = Ipv4Repr {
        src_addr: CLIENT_V4,
        dst_addr: SERVER_V4,
        next_header: IpProtocol::Tcp,
        payload_len: 20,
        hop_limit: 64,
    };
    assert_eq!(header, expected);
    let tcp = TcpPacket::new_checked(data).expect("TCP");
    assert_eq!(
        (tcp.src_port(), tcp.dst_port(), tcp.seq_number().0),
        (40_000, 445, 0x0102_0304)
    );

    let frame = server(Capabilities::NONE).unreachable(&to_client(true), 0x0102_0304);
    let Icmpv6Repr::DstUnreachable {
        reason,
        header,
        data,
    } = icmpv6(&frame.header[14..])
    else {
        panic!("not an error")
    };
    assert_eq!(reason, Icmpv6DstUnreachable::NoRoute);
    assert_eq!(
        (header.src_addr, header.dst_addr, header.next_header),
        (CLIENT_V6, SERVER_V6, IpProtocol::Tcp)
    );
    let tcp = TcpPacket::new_checked(data).expect("TCP");
    assert_eq!(
        (tcp.src_port(), tcp.dst_port(), tcp.seq_number().0),
        (40_000, 445, 0x0102_0304)
    );
}
