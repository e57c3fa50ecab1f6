use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{EthernetAddress, EthernetRepr, Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber};

use super::*;

/// Makes a frame of IPv4 over Ethernet.
pub(crate) fn ethernet(segment: &Segment) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) =
        (segment.source, segment.destination)
    else {
        panic!("IPv4");
    };
    let payload = vec![0x5A; segment.payload_bytes as usize];
    let tcp = TcpRepr {
        src_port: source.port(),
        dst_port: destination.port(),
        control: match (segment.syn, segment.fin, segment.rst) {
            (true, ..) => TcpControl::Syn,
            (_, true, _) => TcpControl::Fin,
            (.., true) => TcpControl::Rst,
            _ => TcpControl::None,
        },
        seq_number: TcpSeqNumber(segment.seq.cast_signed()),
        ack_number: segment.ack.map(|ack| TcpSeqNumber(ack.cast_signed())),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &payload,
    };
    let ip = Ipv4Repr {
        src_addr: *source.ip(),
        dst_addr: *destination.ip(),
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let link = EthernetRepr {
        src_addr: EthernetAddress([2; 6]),
        dst_addr: EthernetAddress([4; 6]),
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut frame = vec![0; ETHERNET_BYTES + IPV4_BYTES + tcp.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    link.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    ip.emit(
        &mut Ipv4Packet::new_unchecked(&mut frame[ETHERNET_BYTES..]),
        &checksums,
    );
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut frame[ETHERNET_BYTES + IPV4_BYTES..]),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        &checksums,
    );
    frame
}

fn segment() -> Segment {
    Segment {
        at: Duration::from_millis(1500),
        source: "10.0.0.1:445".parse().unwrap(),
        destination: "10.0.0.2:50000".parse().unwrap(),
        seq: 0xFFFF_FF00,
        ack: Some(7),
        payload_bytes: 1000,
        syn: false,
        fin: false,
        rst: false,
    }
}

#[test]
fn a_frame_is_read_whole_or_cut_short_after_its_headers() {
    let expected = segment();
    let frame = ethernet(&expected);
    for length in [frame.len(), HEADER_BYTES, 54] {
        let read = Segment::read(
            Linktype::ETHERNET,
            &frame[..length],
            frame.len(),
            expected.at,
        );
        assert_eq!(read, Some(expected), "{length} bytes");
    }
    let short = Segment::read(Linktype::ETHERNET, &frame[..53], frame.len(), expected.at);
    assert_eq!(short, None);
}

#[test]
fn every_link_type_gives_the_same_segment() {
    let expected = segment();
    let frame = ethernet(&expected);
    let packet = &frame[ETHERNET_BYTES..];
    let tagged = [&frame[..12], &[0x81, 0, 0, 5, 8, 0], packet].concat();
    for (link, frame) in [
        (Linktype::ETHERNET, tagged),
        (Linktype::RAW, packet.to_vec()),
        (Linktype::NULL, [&[2, 0, 0, 0], packet].concat()),
        (Linktype::LINUX_SLL, [&[0; 16], packet].concat()),
        (Linktype::LINUX_SLL2, [&[0; 20], packet].concat()),
    ] {
        let read = Segment::read(link, &frame, frame.len(), expected.at);
        assert_eq!(read, Some(expected), "{link:?}");
    }
}

#[test]
fn the_length_of_a_packet_that_the_device_cuts_up_is_that_on_the_wire() {
    let expected = segment();
    let mut frame = ethernet(&expected);
    frame[ETHERNET_BYTES + 2..ETHERNET_BYTES + 4].fill(0);
    let on_wire = frame.len() + 99_000;
    let read = Segment::read(Linktype::ETHERNET, &frame, on_wire, expected.at).unwrap();
    assert_eq!(read.payload_bytes, 100_000);
}

proptest! {
    #[test]
    fn no_frame_is_the_end_of_the_program(
        link in prop::sample::select(vec![0, 1, 12, 101, 108, 113, 228, 276]),
        frame in prop::collection::vec(any::<u8>(), 0..120),
        length in any::<u16>(),
    ) {
        let _ = Segment::read(Linktype(link), &frame, length.into(), Duration::ZERO);
    }

    #[test]
    fn a_damaged_segment_is_not_the_end_of_the_program(
        at in 12_usize..54, byte in any::<u8>(), length in 0_usize..100
    ) {
        let mut frame = ethernet(&segment());
        frame[at] = byte;
        frame.truncate(length);
        let _ = Segment::read(Linktype::ETHERNET, &frame, 1054, Duration::ZERO);
    }
}
