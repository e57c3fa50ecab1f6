use super::*;

fn pair() -> (Reader, Ring) {
    let reader = Reader::new().unwrap();
    let ring = another(&reader);
    (reader, ring)
}

fn another(reader: &Reader) -> Ring {
    let memory = rustix::io::fcntl_dupfd_cloexec(&reader.0, 3).unwrap();
    Ring::inherited(memory).unwrap().unwrap()
}

#[test]
fn frames_leave_the_ring_unchanged_whichever_worker_wrote_them() {
    let (reader, mut ring) = pair();
    ring.put(Direction::Received, &[b"before it began"]);
    assert_eq!(reader.take().unwrap(), None);
    reader.set(Mode::Whole).unwrap();
    // Several times around the ring, each time by another worker.
    for n in 0..10_000_u32 {
        if n % 1000 == 0 {
            ring = another(&reader);
        }
        let bytes = vec![n as u8; 20_000 + n as usize % 7];
        let (first, rest) = bytes.split_at(54);
        ring.put(Direction::Sent, &[first, rest]);
        let frame = reader.take().unwrap().expect("a frame");
        assert_eq!((frame.direction, frame.bytes), (Direction::Sent, bytes));
    }
    assert_eq!((reader.take().unwrap(), reader.lost()), (None, 0));
    reader.set(Mode::Off).unwrap();
    ring.put(Direction::Received, &[b"after it ended"]);
    assert_eq!(reader.take().unwrap(), None);
}

#[test]
fn a_ring_that_nobody_empties_loses_new_frames_and_counts_them() {
    let (reader, mut ring) = pair();
    reader.set(Mode::Whole).unwrap();
    let bytes = vec![7; 1 << 20];
    for _ in 0..ROOM >> 20 {
        ring.put(Direction::Received, &[&bytes]);
    }
    assert_eq!(reader.lost(), 1, "the heads take room, too");
    let mut taken = 0;
    while let Some(frame) = reader.take().unwrap() {
        assert_eq!(frame.bytes, bytes);
        taken += 1;
    }
    assert_eq!(taken, (ROOM >> 20) - 1);
}

#[test]
fn a_capture_may_have_headers_only() {
    let (reader, mut ring) = pair();
    reader.set(Mode::Headers).unwrap();
    let mut frame = vec![0; 1514];
    (frame[12], frame[14], frame[23], frame[46]) = (8, 0x45, 6, 5 << 4);
    let (header, payload) = frame.split_at(54);
    ring.put(Direction::Sent, &[header, payload]);
    ring.put(Direction::Received, &[&frame]);
    for _ in 0..2 {
        let taken = reader.take().unwrap().expect("a frame");
        assert_eq!(
            (taken.bytes, taken.original_len),
            (frame[..54].to_vec(), 1514)
        );
    }
}

#[test]
fn what_is_damaged_is_passed_over() {
    let (reader, mut ring) = pair();
    reader.set(Mode::Whole).unwrap();
    ring.put(Direction::Sent, &[b"frame"]);
    reader.0.set_words(FRAMES_AT, [u64::MAX]).unwrap();
    assert!(reader.take().is_err());
    assert_eq!(reader.take().unwrap(), None);
}
