use super::*;

fn datagram<'a>(source: &str, destination: &str, payload: &'a [u8]) -> Datagram<'a> {
    Datagram {
        source_mac: [2, 0, 0, 0, 0, 1],
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        payload,
    }
}

#[test]
fn a_frame_is_read_as_it_was_made() {
    for (source, destination) in [
        ("10.77.0.1:5353", "224.0.0.251:5353"),
        ("[fd77::1]:5353", "[ff02::fb]:5353"),
    ] {
        for payload in [&b""[..], b"odd", b"question"] {
            let made = datagram(source, destination, payload);
            let frame = made.frame([1, 0, 0x5e, 0, 0, 0xfb], 255).unwrap();
            assert_eq!(Datagram::parse(&frame.header), Some(made));
            // An independent reading, with the checksums.
            let ethernet = EthernetFrame::new_checked(&frame.header[..]).unwrap();
            assert_eq!(ethernet.dst_addr().0, [1, 0, 0x5e, 0, 0, 0xfb]);
            let ends = [made.source, made.destination].map(|end| IpAddress::from(end.ip()));
            let udp = match made.source {
                SocketAddr::V4(_) => {
                    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                    assert!(ip.verify_checksum() && ip.hop_limit() == 255);
                    ip.payload()
                }
                SocketAddr::V6(_) => {
                    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                    assert_eq!(ip.hop_limit(), 255);
                    ip.payload()
                }
            };
            let udp = UdpPacket::new_checked(udp).unwrap();
            assert!(udp.verify_checksum(&ends[0], &ends[1]));
        }
    }
    let mixed = datagram("10.77.0.1:5353", "[ff02::fb]:5353", b"");
    assert_eq!(mixed.frame([0; 6], 255), None);
    let long = vec![0; 70_000];
    assert_eq!(
        datagram("10.77.0.1:1", "10.77.0.2:1", &long).frame([0; 6], 1),
        None
    );
}

#[test]
fn what_is_cut_short_is_no_datagram() {
    let made = datagram("10.77.0.1:5353", "224.0.0.251:5353", b"question");
    let frame = made.frame([1; 6], 255).unwrap().header;
    for end in 0..frame.len() {
        assert_eq!(Datagram::parse(&frame[..end]), None);
    }
    // A length of UDP's beyond the packet, and one that is shorter than its header.
    for length in [0, 7, 200] {
        let mut frame = frame.clone();
        frame[39] = length;
        assert_eq!(Datagram::parse(&frame), None);
    }
}
