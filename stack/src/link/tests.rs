mod hosts;
mod icmp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    TcpPacket,
};

use super::checksum::Sum;
use super::egress;
use super::parse::{Extent, Packet};
use super::{Counters, Link};
use crate::device::segment;
use crate::frame::Delivery;
use crate::{Capabilities, Config, Offload, Path, RxChecksum, RxFrame, TxFrame};
use icmp::{icmp_frame, too_big};

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const NOW: Duration = Duration::from_secs(1);

fn link(mac: [u8; 6], v4: Ipv4Addr, v6: Ipv6Addr, capabilities: Capabilities) -> Link {
    let config = Config {
        mac,
        addresses: vec![(v4.into(), 24), (v6.into(), 64)],
        gateways: vec![
            Ipv4Addr::new(10, 77, 0, 254).into(),
            Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0xfe).into(),
        ],
        capabilities,
        ..Config::default()
    };
    Link::new(&config, Duration::ZERO)
}

fn server(capabilities: Capabilities) -> Link {
    link(SERVER_MAC, SERVER_V4, SERVER_V6, capabilities)
}

fn client(capabilities: Capabilities) -> Link {
    link(CLIENT_MAC, CLIENT_V4, CLIENT_V6, capabilities)
}

/// The path as the client sees it.
fn to_server(v6: bool) -> Path {
    let (local, remote): (IpAddr, IpAddr) = if v6 {
        (CLIENT_V6.into(), SERVER_V6.into())
    } else {
        (CLIENT_V4.into(), SERVER_V4.into())
    };
    Path {
        local: SocketAddr::new(local, 40_000),
        remote: SocketAddr::new(remote, 445),
        remote_mac: SERVER_MAC,
    }
}

fn to_client(v6: bool) -> Path {
    let Path { local, remote, .. } = to_server(v6);
    Path {
        local: remote,
        remote: local,
        remote_mac: CLIENT_MAC,
    }
}

fn tcp_header(path: &Path, seq: u32) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[0..2].copy_from_slice(&path.local.port().to_be_bytes());
    header[2..4].copy_from_slice(&path.remote.port().to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = 0x18;
    header[14..16].copy_from_slice(&1000u16.to_be_bytes());
    header
}

fn verify(bytes: &[u8]) -> RxFrame<'_> {
    RxFrame {
        bytes,
        checksum: RxChecksum::Verify,
    }
}

fn frame_to_server(v6: bool, payload: &'static [u8]) -> Vec<u8> {
    let path = to_server(v6);
    let parts = vec![Bytes::from_static(payload)];
    let frame = client(Capabilities::NONE).segment(&path, &tcp_header(&path, 7), parts, 1460);
    segment(&frame).remove(0)
}

/// Recomputes an IPv4 header checksum after a test has changed the header.
fn fix_ipv4(frame: &mut [u8]) {
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
}

#[test]
fn a_sum_over_pieces_is_the_sum_of_the_whole() {
    proptest!(|(bytes: Vec<u8>, cuts in proptest::collection::vec(0usize..300, 0..6))| {
        let mut whole = Sum::default();
        whole.add(&bytes);
        let mut pieces = Sum::default();
        let mut rest = bytes.as_slice();
        for cut in cuts {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            pieces.add(piece);
            rest = later;
        }
        pieces.add(rest);
        prop_assert_eq!(whole.checksum(), pieces.checksum());
    });
}

//= rfc1122 2.3.3a
#[test]
fn a_segment_arrives_with_its_path() {
    for v6 in [false, true] {
        let mut server = server(Capabilities::NONE);
        let frame = frame_to_server(v6, b"payload");
        let Delivery::Segment(segment) = server.ingest(verify(&frame), NOW) else {
            panic!("not delivered")
        };
        assert_eq!(segment.path, to_client(v6));
        assert_eq!(&segment.tcp[20..], b"payload");
        assert_eq!(
            server.counters(),
            Counters {
                segments: 1,
                ..Counters::default()
            }
        );
    }
}

//= rfc9293 MUST-2
//= rfc8200 8.1a
#[test]
fn checksums_are_the_same_with_and_without_offload() {
    let all = Capabilities {
        checksum: true,
        tso4: true,
        tso6: true,
    };
    let some = Capabilities {
        checksum: true,
        ..Capabilities::NONE
    };
    for v6 in [false, true] {
        let path = to_server(v6);
        let header = tcp_header(&path, u32::MAX - 700);
        // Pieces of odd length: the sum is over what they make together.
        let payload: Vec<Bytes> = [333, 1, 500, 0, 166]
            .map(|len| Bytes::from(vec![len as u8; len]))
            .to_vec();
        let frames: Vec<_> = [Capabilities::NONE, some, all]
            .map(|capabilities| {
                segment(&client(capabilities).segment(&path, &header, payload.clone(), 1000))
            })
            .to_vec();
        assert_eq!(frames[0].len(), 1);
        assert_eq!(frames[0], frames[1]);
        assert_eq!(frames[0], frames[2]);
        let ip = &frames[0][0][14..];
        let (source, destination) = (path.local.ip().into(), path.remote.ip().into());
        let tcp = TcpPacket::new_checked(&ip[if v6 { 40 } else { 20 }..]).expect("a TCP packet");
        assert!(tcp.verify_checksum(&source, &destination));
    }
}

#[test]
fn a_super_frame_is_cut_into_valid_segments() {
    for v6 in [false, true] {
        let path = to_server(v6);
        let sender = client(Capabilities::ALL);
        let len = sender.super_frame(&path);
        assert!(len > 65_000);
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 / 3) as u8).collect();
        let mut header = tcp_header(&path, u32::MAX - 5000);
        header[13] = 0x99; // CWR, ACK, PSH, FIN
        let parts = bytes.chunks(1234).map(Bytes::copy_from_slice).collect();
        let frame = sender.segment(&path, &header, parts, 1400);
        assert!(matches!(frame.offload, Offload::Tso { mss: 1400, .. }));
        let next = sender.segment(&path, &header, Vec::new(), 1400);

        let mut receiver = server(Capabilities::NONE);
        let mut received = Vec::new();
        let frames = segment(&frame);
        assert_eq!(frames.len(), len.div_ceil(1400));
        for (index, frame) in frames.iter().enumerate() {
            let Delivery::Segment(segment) = receiver.ingest(verify(frame), NOW) else {
                panic!("not delivered")
            };
            let tcp = TcpPacket::new_checked(segment.tcp).expect("a TCP packet");
            assert_eq!(
                tcp.seq_number().0 as u32,
                (u32::MAX - 5000).wrapping_add(received.len() as u32)
            );
            let last = index + 1 == frames.len();
            assert_eq!(
                (tcp.fin(), tcp.psh(), tcp.cwr(), tcp.ack()),
                (last, last, index == 0, true)
            );
            received.extend_from_slice(tcp.payload());
        }
        assert_eq!(received, bytes);
        if !v6 {
            // the identification continues after those the device gave out.
            let ident = |frame: &[u8]| Ipv4Packet::new_unchecked(&frame[14..]).ident();
            assert_eq!(
                ident(&next.header),
                ident(&frames[frames.len() - 1]).wrapping_add(1)
            );
        }
    }
}

#[test]
fn a_device_without_offload_gets_no_super_frames() {
    let path = to_server(false);
    assert_eq!(client(Capabilities::NONE).super_frame(&path), 0);
    let only_v6 = Capabilities {
        checksum: true,
        tso4: false,
        tso6: true,
    };
    assert_eq!(client(only_v6).super_frame(&path), 0);
    assert!(client(only_v6).super_frame(&to_server(true)) > 0);
}

//= rfc9293 MUST-3
//= rfc1122 3.2.1.2
#[test]
fn a_damaged_bit_is_noticed() {
    for v6 in [false, true] {
        let frame = frame_to_server(v6, b"some bytes of a request");
        let (hop_limit, skipped) = if v6 {
            (21, 14..18)
        } else {
            (usize::MAX, 0..14)
        };
        for bit in 14 * 8..frame.len() * 8 {
            // No checksum covers IPv6's traffic class, flow label and hop limit; its version is checked otherwise.
            let at = bit / 8;
            if at == hop_limit || (v6 && skipped.contains(&at) && !(at == 14 && bit % 8 >= 4)) {
                continue;
            }
            let mut damaged = frame.clone();
            damaged[at] ^= 1 << (bit % 8);
            let delivery = server(Capabilities::NONE).ingest(verify(&damaged), NOW);
            assert!(matches!(delivery, Delivery::Nothing), "v6 {v6} bit {bit}");
        }
    }
}

#[test]
fn a_trusted_checksum_is_not_looked_at() {
    let mut frame = frame_to_server(false, b"partial");
    frame[14 + 20 + 16] ^= 0x55;
    let mut server = server(Capabilities::NONE);
    assert!(matches!(
        server.ingest(verify(&frame), NOW),
        Delivery::Nothing
    ));
    assert_eq!(server.counters().bad_checksum, 1);
    let trusted = RxFrame {
        bytes: &frame,
        checksum: RxChecksum::Trusted,
    };
    assert!(matches!(server.ingest(trusted, NOW), Delivery::Segment(_)));
}

#[test]
fn padding_is_not_payload() {
    let mut frame = frame_to_server(false, b"");
    frame.resize(60, 0xaa);
    let mut server = server(Capabilities::NONE);
    let Delivery::Segment(segment) = server.ingest(verify(&frame), NOW) else {
        panic!("not delivered")
    };
    assert_eq!(segment.tcp.len(), 20);
}

//= rfc9293 MUST-57, MUST-63, MUST-43
//= rfc1122 3.2.1.3a, 3.2.1.3c, 3.2.1.3d, 3.3.4.2b
#[test]
fn what_is_for_others_is_dropped_silently() {
    let good = frame_to_server(false, b"x");
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        fix_ipv4(&mut frame);
        frame
    };
    let foreign = [
        ("another station", with(0, &[2, 0, 0, 0, 0, 0x99])),
        ("broadcast", with(0, &[0xff; 6])),
        ("from a group", with(6, &[0x01, 0, 0x5e, 0, 0, 1])),
        ("from ourselves", with(6, &SERVER_MAC)),
        ("VLAN", with(12, &[0x81, 0x00])),
        ("another host", with(14 + 16, &[10, 77, 0, 3])),
        ("to the subnet", with(14 + 16, &[10, 77, 0, 255])),
        ("from our address", with(14 + 12, &SERVER_V4.octets())),
        (
            "from the subnet's broadcast",
            with(14 + 12, &[10, 77, 0, 255]),
        ),
        ("from a group address", with(14 + 12, &[224, 0, 0, 1])),
        ("from the unspecified address", with(14 + 12, &[0, 0, 0, 0])),
        ("from loopback", with(14 + 12, &[127, 0, 0, 1])),
    ];
    for (what, frame) in foreign {
        let mut server = server(Capabilities::NONE);
        let delivery = server.ingest(
            RxFrame {
                bytes: &frame,
                checksum: RxChecksum::Trusted,
            },
            NOW,
        );
        assert!(matches!(delivery, Delivery::Nothing), "{what}");
        assert_eq!(
            server.counters(),
            Counters {
                foreign: 1,
                ..Counters::default()
            },
            "{what}"
        );
        assert_eq!(server.next_deadline(), None, "{what}");
    }
}

#[test]
fn lengths_that_lie_are_malformed() {
    let good = frame_to_server(false, b"x");
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        fix_ipv4(&mut frame);
        frame
    };
    for (what, frame) in [
        ("no header", good[..20].to_vec()),
        ("header length below 20", with(14, 0x44)),
        ("total length beyond the frame", with(16, 0x40)),
        ("total length below the header", with(17, 19)),
        ("no room for a TCP header", with(17, 39)),
        ("version", with(14, 0x65)),
    ] {
        let mut server = server(Capabilities::NONE);
        assert!(
            matches!(server.ingest(verify(&frame), NOW), Delivery::Nothing),
            "{what}"
        );
        assert_eq!(
            server.counters(),
            Counters {
                malformed: 1,
                ..Counters::default()
            },
            "{what}"
        );
    }
}

#[test]
fn fragments_of_tcp_are_refused() {
    for flags in [0x2000u16, 0x0001, 0x2001] {
        let mut frame = frame_to_server(false, b"x");
        frame[20..22].copy_from_slice(&flags.to_be_bytes());
        fix_ipv4(&mut frame);
        let mut server = server(Capabilities::NONE);
        assert!(matches!(
            server.ingest(verify(&frame), NOW),
            Delivery::Nothing
        ));
        assert_eq!(server.counters().fragments, 1);
    }
    let mut server = server(Capabilities::NONE);
    let fragment = with_extensions(&[(44, vec![6, 0, 0, 1, 0, 0, 0, 9])]);
    assert!(matches!(
        server.ingest(verify(&fragment), NOW),
        Delivery::Nothing
    ));
    assert_eq!(server.counters().fragments, 1);
}

/// An IPv6 segment behind these extension headers, each with its number; their "next header" fields are filled in.
fn with_extensions(extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let plain = frame_to_server(true, b"behind extensions");
    let mut frame = plain[..54].to_vec();
    frame[20] = extensions[0].0;
    for (index, (_, bytes)) in extensions.iter().enumerate() {
        let at = frame.len();
        frame.extend_from_slice(bytes);
        frame[at] = extensions.get(index + 1).map_or(6, |(number, _)| *number);
    }
    frame.extend_from_slice(&plain[54..]);
    let len = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

//= rfc8200 4a, 4b, 4.1a, 4.1b, 4.2a, 4.2b, 4.4a, 4.4b, 4.5a
#[test]
fn extension_headers_are_walked() {
    let options = |number: u8| (number, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let routing = |segments_left: u8| (43, vec![0, 0, 9, segments_left, 0, 0, 0, 0]);
    // Two single bytes of padding, and an unknown option with two bytes.
    let unknown = |number: u8, kind: u8| (number, vec![0, 0, 0, 0, kind, 2, 0, 0]);
    let atomic = (44, vec![0, 0, 0, 0, 0, 0, 0, 9]);
    let frame = with_extensions(&[
        unknown(0, 0x3e),
        options(60),
        routing(0),
        atomic,
        unknown(60, 0x3e),
    ]);
    let mut server = server(Capabilities::NONE);
    let Delivery::Segment(segment) = server.ingest(verify(&frame), NOW) else {
        panic!("not delivered")
    };
    assert_eq!(&segment.tcp[20..], b"behind extensions");

    let many = vec![options(60); 9];
    let misplaced = vec![options(60), options(0)];
    let too_long = vec![(60, vec![0, 200, 1, 4, 0, 0, 0, 0])];
    let cut_short = vec![(60, vec![0, 0, 1, 5, 0, 0, 0, 0])];
    let mut refused = vec![many, misplaced, too_long, cut_short, vec![routing(1)]];
    for kind in [0x7e, 0xbe, 0xfe] {
        refused.push(vec![unknown(0, kind)]);
        refused.push(vec![unknown(60, kind)]);
    }
    for extensions in refused {
        let mut server = self::server(Capabilities::NONE);
        assert!(matches!(
            server.ingest(verify(&with_extensions(&extensions)), NOW),
            Delivery::Nothing
        ));
        assert_eq!(server.counters().malformed, 1);
    }
}

//= rfc1191 3a
//= rfc9293 MUST-48, MUST-49, SHLD-22, SHLD-23
//= rfc1122 3.2.1.6a, 3.2.1.7c
#[test]
fn segments_have_the_configured_ttl_and_codepoint() {
    let config = Config {
        addresses: vec![(SERVER_V4.into(), 24), (SERVER_V6.into(), 64)],
        hop_limit: 7,
        dscp: 0b10_1110,
        ..Config::default()
    };
    let link = Link::new(&config, NOW);
    for _ in 0..3 {
        let path = to_client(false);
        let frame = link.segment(&path, &tcp_header(&path, 1), Vec::new(), 1460);
        let ip = Ipv4Packet::new_checked(&frame.header[14..]).unwrap();
        assert_eq!((ip.hop_limit(), ip.dscp(), ip.ecn()), (7, 0b10_1110, 0));
        assert!(ip.dont_frag());
        let path = to_client(true);
        let frame = link.segment(&path, &tcp_header(&path, 1), Vec::new(), 1440);
        let ip = Ipv6Packet::new_checked(&frame.header[14..]).unwrap();
        assert_eq!((ip.hop_limit(), ip.traffic_class()), (7, 0b1011_1000));
        assert_eq!(ip.version(), 6);
    }
}

//= rfc9293 MUST-50
//= rfc1122 3.2.1.8c
#[test]
fn ip_options_are_passed_over() {
    let mut frame = frame_to_server(false, b"behind options");
    // A loose source route (131), a record route (7) and an unknown option.
    let options = [
        131, 7, 4, 10, 0, 0, 9, 7, 7, 4, 0, 0, 0, 0, 222, 4, 1, 2, 1, 0,
    ];
    frame.splice(34..34, options);
    frame[14] = 0x40 | ((20 + options.len() as u8) / 4);
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[24..26].fill(0);
    let mut sum = Sum::default();
    sum.add(&frame[14..34 + options.len()]);
    frame[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
    let mut server = server(Capabilities::NONE);
    let Delivery::Segment(segment) = server.ingest(verify(&frame), NOW) else {
        panic!("not delivered")
    };
    assert_eq!(&segment.tcp[20..], b"behind options");
}

proptest! {
    #[test]
    fn no_frame_panics(
        base in 0usize..8,
        changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..12),
        cut in 0usize..200,
        trusted: bool,
    ) {
        let mut frame = match base {
            0 => frame_to_server(false, b"some payload"),
            1 => frame_to_server(true, b"some payload"),
            2 => too_big(false, 1000),
            3 => too_big(true, 1300),
            4 => with_extensions(&[(0, vec![0, 0, 1, 4, 0, 0, 0, 0]), (44, vec![0; 8]), (60, vec![0; 8])]),
            5 => client(Capabilities::NONE).solicit(&to_server(false)).expect("a question").header,
            6 => client(Capabilities::NONE).solicit(&to_server(true)).expect("a question").header,
            _ => icmp_frame(true, &[128, 0, 0, 0, 1, 2, 3, 4]),
        };
        for (at, byte) in changes {
            if let Some(target) = frame.get_mut(at) {
                *target = byte;
            }
        }
        frame.truncate(frame.len().saturating_sub(cut.saturating_sub(100)));
        // Valid again at the first layer, so that the changes reach the ones above.
        if frame.len() >= 34 && frame[12..14] == [8, 0] && frame[14] == 0x45 {
            fix_ipv4(&mut frame);
        }
        let checksum = if trusted { RxChecksum::Trusted } else { RxChecksum::Verify };
        let mut server = server(Capabilities::ALL);
        server.ingest(RxFrame { bytes: &frame, checksum }, NOW);
        server.poll(&mut Vec::new());
    }

    #[test]
    fn no_packet_panics(bytes: Vec<u8>, version in prop_oneof![Just(4u8), Just(6u8)], whole: bool) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 0x0f;
        }
        let extent = if whole { Extent::Whole } else { Extent::Quoted };
        if let Ok(packet) = Packet::parse(&bytes, extent) {
            prop_assert!(packet.payload.len() <= bytes.len());
            super::icmp::parse(&packet);
        }
    }
}
