use super::*;

fn cut(bytes: &[u8], length: usize) -> Pieces {
    bytes
        .chunks(length)
        .map(Bytes::copy_from_slice)
        .chain([Bytes::new()])
        .collect()
}

#[test]
fn the_value_is_the_sequence_however_it_is_cut() {
    let bytes: Vec<u8> = (0..40).collect();
    for length in 1..=bytes.len() {
        let pieces = cut(&bytes, length);
        assert_eq!(pieces.len(), bytes.len());
        assert_eq!(pieces.together(), bytes);
        assert_eq!(pieces, Bytes::copy_from_slice(&bytes).into());
        for start in 0..=bytes.len() {
            for end in start..=bytes.len() {
                let part = pieces.slice(start..end);
                assert_eq!(part.together(), bytes[start..end], "{start}..{end}");
                assert!(part.as_slice().iter().all(|piece| !piece.is_empty()));
            }
        }
        assert_eq!(pieces.slice(30..99).together(), bytes[30..]);
    }
    assert_ne!(cut(&bytes, 7), cut(&bytes[1..], 7));
    assert_ne!(cut(b"abc", 2), cut(b"abd", 2));
}

#[test]
fn one_piece_stays_in_place() {
    let bytes = Bytes::from_static(b"in place");
    let pieces = Pieces::from(bytes.clone());
    assert_eq!(pieces.together().as_ptr(), bytes.as_ptr());
    assert_eq!(pieces.slice(3..8).together().as_ptr(), bytes[3..].as_ptr());
    assert!(Pieces::from(Bytes::new()).is_empty());
}
