use super::*;

fn stream(bytes: &[u8], piece: usize) -> VecDeque<Bytes> {
    bytes.chunks(piece).map(Bytes::copy_from_slice).collect()
}

#[test]
fn a_message_is_found_however_the_stream_is_cut() {
    let bytes = [&[0, 0, 0, 5][..], b"hello", &[0, 0, 0, 1], b"x"].concat();
    for piece in 1..=bytes.len() {
        let message = Message {
            bytes: Bytes::from_static(b"hello"),
            stream_bytes: 9,
        };
        assert_eq!(
            front(&stream(&bytes, piece)),
            Inbound::Whole(message),
            "pieces of {piece}"
        );
    }
}

#[test]
fn what_is_not_whole_waits() {
    for end in 0..9 {
        assert_eq!(
            front(&stream(&b"\0\0\0\x05hello"[..end], 3)),
            Inbound::Partial,
            "{end} bytes"
        );
    }
}

#[test]
fn what_is_no_message_is_refused() {
    assert!(matches!(
        front(&stream(b"GET / HTTP/1.0", 14)),
        Inbound::Malformed(_)
    ));
    assert!(matches!(
        front(&stream(&[0, 0xFF, 0xFF, 0xFF], 4)),
        Inbound::Malformed(_)
    ));
    assert_eq!(
        front(&stream(&[0x85, 0, 0, 0, 0], 5)),
        Inbound::KeepAlive(4)
    );
}
