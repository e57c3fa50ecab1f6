use super::*;
use proptest::prelude::*;

#[test]
fn header_round_trips() {
    let mut header = Header::new(445, 50_000, Seq(0xffff_fff0));
    header.ack = Some(Seq(7));
    header.timestamp = Some((1, 2));
    header.sack = [
        Some((Seq(1), Seq(2))),
        Some((Seq(3), Seq(4))),
        Some((Seq(5), Seq(6))),
    ];
    header.window = 77;
    let bytes = header.emit();
    assert_eq!(bytes.len(), 60);
    let segment = Received::parse(&bytes).unwrap();
    assert_eq!((segment.seq, segment.ack), (header.seq, header.ack));
    assert_eq!(
        (segment.sack, segment.timestamp),
        (header.sack, header.timestamp)
    );
    assert_eq!((segment.window, segment.payload.len()), (77, 0));
}

#[test]
fn syn_options_round_trip() {
    let mut header = Header::new(1, 2, Seq(3));
    header.syn = true;
    header.mss = Some(1460);
    header.window_scale = Some(9);
    header.sack_permitted = true;
    let bytes = header.emit();
    assert_eq!(bytes.len() % 4, 0);
    let segment = Received::parse(&bytes).unwrap();
    assert_eq!((segment.mss, segment.window_scale), (Some(1460), Some(9)));
    assert!(segment.syn && segment.sack_permitted);
}

/// Every option of a SYN, or of an acknowledgement, or a subset.
fn some_options(which: u8) -> Header {
    let mut header = Header::new(1, 2, Seq(3));
    let bit = |bit: u8| which >> bit & 1 == 1;
    header.mss = bit(0).then_some(1460);
    header.window_scale = bit(1).then_some(7);
    header.sack_permitted = bit(2);
    header.timestamp = bit(3).then_some((1, 2));
    header.sack[0] = (bit(4) && which & 7 == 0).then_some((Seq(5), Seq(6)));
    header
}

//= rfc9293 MUST-68, MUST-69
#[test]
fn options_have_lengths_and_fill_the_header() {
    for which in 0..32 {
        let bytes = some_options(which).emit();
        assert_eq!(
            (bytes.len() % 4, bytes[12] >> 4),
            (0, (bytes.len() / 4) as u8)
        );
        let mut rest = &bytes[20..];
        while let [kind, ..] = rest {
            // No end of the list, so nothing to pad.
            assert_ne!(*kind, 0, "{which}");
            let len = if *kind == 1 { 1 } else { usize::from(rest[1]) };
            rest = &rest[len..];
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Received::parse(&bytes);
    }
}
