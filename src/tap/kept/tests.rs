use super::*;

const HEADER_LEN: usize = 10;

/// A frame of this EtherType and protocol, with a number and a length.
fn raw(ether_type: u16, protocol: u8, number: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![number; length];
    frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
    match ether_type {
        0x0800 => frame[23] = protocol,
        _ => frame[20] = protocol,
    }
    [vec![0; HEADER_LEN], frame].concat()
}

fn segment(number: u8, length: usize) -> Vec<u8> {
    raw(0x0800, 6, number, length)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn only_segments_are_kept() {
    let mut kept = Kept::default();
    let segments = [segment(1, 60), raw(0x86dd, 6, 2, 80)];
    let others = [
        raw(0x0806, 6, 3, 60),
        raw(0x0800, 17, 4, 60),
        raw(0x86dd, 58, 5, 80),
        vec![0; HEADER_LEN + 13],
        vec![0; HEADER_LEN - 1],
        Vec::new(),
    ];
    for frame in others.iter().chain(&segments) {
        kept.put(frame, HEADER_LEN, ms(1));
    }
    assert!(kept.take(ms(1)).eq(segments));
}

#[test]
fn they_are_kept_for_a_second() {
    let mut kept = Kept::default();
    let segments: Vec<_> = (0..4).map(|number| segment(number, 100)).collect();
    for (segment, at) in segments.iter().zip([0, 400, 1000, 1401]) {
        kept.put(segment, HEADER_LEN, ms(at));
    }
    assert_eq!(kept.frames.len(), 2, "those of the last second");
    assert!(kept.take(ms(2000)).eq(segments[2..].iter().cloned()));
    assert_eq!(Kept::default().take(ms(5)).count(), 0);
}

/// What is kept always has room in the memory for received frames, and it is the newest.
#[test]
fn they_are_bounded() {
    for length in [60, 1514, 65_535] {
        let mut kept = Kept::default();
        let number = 2 * received::ROOM / length;
        for number in 0..number {
            kept.put(&segment(number as u8, length), HEADER_LEN, ms(7));
            let occupied = kept
                .frames
                .iter()
                .map(|(_, raw)| received::occupied_by(raw));
            assert_eq!(kept.bytes, occupied.sum::<usize>());
            assert!(kept.bytes <= received::ROOM);
        }
        let newest = kept.frames.back().map(|(_, raw)| raw.clone());
        assert_eq!(newest, Some(segment((number - 1) as u8, length)));
        let left: Vec<_> = kept.take(ms(7)).collect();
        let memory = received::memory().unwrap();
        let mut next = received::Received::new(Some(memory)).unwrap();
        assert_eq!(next.leave(left.iter()), left.len());
    }
}
