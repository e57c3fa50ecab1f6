use super::super::segment::tests::ethernet;
use super::*;

fn segments() -> Vec<Segment> {
    let one = |number: u32| Segment {
        at: Duration::new(1_700_000_000 + u64::from(number), 123_456_789),
        source: "10.0.0.1:445".parse().unwrap(),
        destination: "10.0.0.2:50000".parse().unwrap(),
        seq: number * 500,
        ack: Some(1),
        payload_bytes: 500,
        syn: false,
        fin: false,
        rst: number == 2,
    };
    (0..3).map(one).collect()
}

fn pcap() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    for segment in segments() {
        let frame = ethernet(&segment);
        writer.add(segment.at, &frame, frame.len()).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// Writes a file as Wireshark does: blocks of a type, a length, a body and the length again.
fn pcapng(units_exponent: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let padded = body.len().next_multiple_of(4);
        let length = (padded as u32 + 12).to_le_bytes();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(length);
        bytes.extend(body);
        bytes.resize(bytes.len() + padded - body.len(), 0);
        bytes.extend(length);
    };
    let words =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    block(0x0A0D_0D0A, &words(&[0x1A2B_3C4D, 1, u32::MAX, u32::MAX]));
    // Ethernet; if_tsresol; the end of the options
    let resolution = u32::from(units_exponent);
    block(1, &words(&[1, 0, 9 | 1 << 16, resolution, 0]));
    for segment in segments() {
        let frame = ethernet(&segment);
        let stamp =
            segment.at.as_nanos() / 10_u128.pow(9_u32.saturating_sub(units_exponent.into()));
        let length = frame.len() as u32;
        let head = words(&[0, (stamp >> 32) as u32, stamp as u32, length, length]);
        block(6, &[head, frame].concat());
    }
    bytes
}

fn read_all(bytes: &[u8]) -> anyhow::Result<Vec<Segment>> {
    let mut found = Vec::new();
    read_from(bytes, |segment| found.push(segment)).map(|()| found)
}

#[test]
fn both_formats_give_the_segments_with_their_times() {
    assert_eq!(read_all(&pcap()).unwrap(), segments());
    assert_eq!(read_all(&pcapng(9)).unwrap(), segments());
    let microseconds = read_all(&pcapng(6)).unwrap();
    assert_eq!(microseconds[0].at.subsec_nanos(), 123_456_000);
}

#[test]
fn a_capture_that_ends_in_the_middle_of_a_packet_is_read_up_to_there() {
    for bytes in [pcap(), pcapng(9)] {
        let cut = &bytes[..bytes.len() - 9];
        assert_eq!(read_all(cut).unwrap(), segments()[..2]);
    }
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    for bytes in [&b""[..], b"x", &[0x5A; 4096]] {
        let error = read_all(bytes).unwrap_err().to_string();
        assert!(error.contains("tcpdump -w"), "{error}");
    }
    let error = read_all(&pcapng(30)).unwrap_err().to_string();
    assert!(error.contains("resolution"), "{error}");
}
