//! ICMP errors about live connections.

mod hand;

use hand::{Bench, CLIENT, SECOND, SERVER};
use outlast_stack::{Event, Trouble};
use smoltcp::wire::{Ipv4Address, Ipv4Packet};

/// A frame with an ICMP error about our segment at `seq`, from a router.
fn icmp(kind: u8, code: u8, mtu: u16, seq: u32) -> Vec<u8> {
    let mut quoted = vec![0; 28];
    ip(&mut quoted, SERVER, CLIENT, 6, 1040);
    quoted[20..24].copy_from_slice(&[1, 189, 3, 232]);
    quoted[24..28].copy_from_slice(&seq.to_be_bytes());
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&quoted);
    let sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 0x20, 8, 0];
    let mut header = vec![0; 20];
    ip(
        &mut header,
        Ipv4Address::new(10, 0, 0, 77),
        SERVER,
        1,
        20 + message.len(),
    );
    frame.extend(header);
    frame.extend(message);
    frame
}

fn ip(bytes: &mut [u8], source: Ipv4Address, destination: Ipv4Address, protocol: u8, len: usize) {
    let mut ip = Ipv4Packet::new_unchecked(bytes);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_total_len(len as u16);
    ip.set_hop_limit(64);
    ip.set_next_header(protocol.into());
    ip.set_src_addr(source);
    ip.set_dst_addr(destination);
    ip.fill_checksum();
}

fn sending() -> (Bench, u32) {
    let mut bench = Bench::plain();
    let sent = bench.send(3000);
    bench.events();
    (bench, sent[1].seq)
}

//= rfc9293 MUST-47, MUST-54, MUST-56, SHLD-20, SHLD-25
//= rfc1122 3.2.2.1b, 3.2.2.4, 3.2.2.5b
#[test]
fn errors_are_reported_and_end_no_connection() {
    // Soft ones, and hard ones, which count as soft.
    for (kind, code) in [
        (3, 0),
        (3, 1),
        (3, 5),
        (11, 0),
        (11, 1),
        (12, 0),
        (3, 2),
        (3, 3),
    ] {
        let (mut bench, seq) = sending();
        bench.ingest_frame(&icmp(kind, code, 0, seq));
        let event = Event::Trouble(bench.conn, Trouble::Icmp { kind, code });
        assert_eq!(bench.events(), [event]);
        // An application that ignores them is not disturbed.
        assert_eq!((bench.poll(), bench.state()), (vec![], "ESTABLISHED"));
        bench.exchange(&bench.seg(0, 3000));
        assert_eq!(bench.stack.send_queued(bench.conn), 0);
    }
}

//= rfc8201 4d
#[test]
fn an_error_about_a_segment_that_is_not_outstanding_is_ignored() {
    let (mut bench, seq) = sending();
    for wrong in [
        seq.wrapping_sub(1001),
        seq.wrapping_add(2000),
        seq.wrapping_add(1 << 31),
    ] {
        bench.ingest_frame(&icmp(3, 1, 0, wrong));
        bench.ingest_frame(&icmp(3, 4, 576, wrong));
    }
    assert_eq!((bench.events(), bench.poll()), (vec![], vec![]));
}

//= rfc9293 MUST-55
#[test]
fn source_quench_changes_nothing() {
    let (mut bench, seq) = sending();
    let before = bench.stack.status()[0].cwnd;
    bench.ingest_frame(&icmp(4, 0, 0, seq));
    assert_eq!((bench.events(), bench.poll()), (vec![], vec![]));
    assert_eq!(bench.stack.status()[0].cwnd, before);
}

//= rfc9293 MUST-16
//= rfc5681 3.1j
//= rfc1191 3b, 3c, 3d, 3e, 6.4a, 3f, 3g, 3.1a, 6.4c
//= rfc8201 4a, 4c, 5.4a, 4e, 4f, 5.4b
//= rfc7323 5.7a
#[test]
fn a_smaller_path_is_filled_with_smaller_segments() {
    for (stated, expected) in [(800, 760), (300, 536)] {
        let (mut bench, seq) = sending();
        bench.ingest_frame(&icmp(3, 4, stated, seq));
        assert_eq!(bench.stack.status()[0].cwnd, 10 * expected);
        let again = bench.poll();
        assert_eq!(again[0].data.len(), expected);
        assert_eq!(bench.ours(again[0].seq), 0);
        let all: usize = again.iter().map(|seg| seg.data.len()).sum();
        assert_eq!(all, 3000);
        bench.exchange(&bench.seg(0, 3000));
        assert_eq!(bench.send(2000)[0].data.len(), expected);
        // The same again, about a segment sent before, says nothing new: nothing is sent again for it.
        bench.ingest_frame(&icmp(3, 4, stated, seq.wrapping_add(3000)));
        assert_eq!(bench.poll(), []);
        // A larger one later does not count.
        let sent = bench.wait(10 * SECOND);
        bench.ingest_frame(&icmp(3, 4, 1400, sent[0].seq));
        assert_eq!(bench.poll(), []);
        // Nor is a larger one tried without a message.
        bench.exchange(&bench.seg(0, 5000));
        bench.now += 3600 * SECOND;
        assert_eq!(bench.send(2000)[0].data.len(), expected);
    }
}
