use super::*;

fn stream(bytes: &[u8], piece: usize) -> VecDeque<Bytes> {
    bytes.chunks(piece).map(Bytes::copy_from_slice).collect()
}

/// What `bytes` begin with, received in pieces of this length, where a message may have 1 MiB.
fn front_of(bytes: &[u8], piece: usize) -> Inbound {
    front(&stream(bytes, piece), bytes.len(), 1 << 20)
}

#[test]
fn a_message_is_found_however_the_stream_is_cut() {
    let bytes = [&[0, 0, 0, 5][..], b"hello", &[0, 0, 0, 1], b"x"].concat();
    for piece in 1..=bytes.len() {
        let message = Message {
            bytes: Bytes::from_static(b"hello").into(),
            stream_bytes: 9,
        };
        assert_eq!(
            front_of(&bytes, piece),
            Inbound::Whole(message),
            "pieces of {piece}"
        );
    }
}

#[test]
fn an_incomplete_message_waits() {
    for end in 0..9 {
        assert_eq!(
            front_of(&b"\0\0\0\x05hello"[..end], 3),
            Inbound::Partial,
            "{end} bytes"
        );
    }
}

#[test]
fn malformed_messages_are_refused() {
    assert!(matches!(
        front_of(b"GET / HTTP/1.0", 14),
        Inbound::Malformed(_)
    ));
    assert!(matches!(
        front_of(&[0, 0xFF, 0xFF, 0xFF], 4),
        Inbound::Malformed(_)
    ));
    assert_eq!(front_of(&[0x85, 0, 0, 0, 0], 5), Inbound::KeepAlive(4));
}

#[test]
fn a_message_that_is_too_long_is_refused_by_its_header() {
    assert_eq!(
        front_of(&[0, 0x10, 0, 1], 4),
        Inbound::TooLong((1 << 20) + 1)
    );
    assert_eq!(front_of(&[0, 0x10, 0, 0], 4), Inbound::Partial);
}
