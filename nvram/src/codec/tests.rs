use super::*;
use serde::Deserialize;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    id: u64,
    name: String,
    bytes: Vec<u8>,
    list: Vec<(u16, Option<i64>)>,
}

fn sample() -> Sample {
    Sample {
        id: u64::MAX,
        name: "pub".into(),
        bytes: vec![7; 300],
        list: vec![(1, None), (2, Some(-5))],
    }
}

#[test]
fn a_value_round_trips() {
    let mut bytes = b"before".to_vec();
    encode(&sample(), &mut bytes);
    assert_eq!(decode::<Sample>(&bytes[6..]).unwrap(), sample());
}

#[test]
fn trailing_and_missing_bytes_are_refused() {
    let mut bytes = Vec::new();
    encode(&sample(), &mut bytes);
    for end in 0..bytes.len() {
        assert!(decode::<Sample>(&bytes[..end]).is_err());
    }
    bytes.push(0);
    assert!(decode::<Sample>(&bytes).is_err());
}

#[test]
fn a_hostile_length_is_refused() {
    // 253: a u64 follows (bincode's variable-length integers).
    let mut bytes = vec![253];
    bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
    assert!(decode::<Vec<u8>>(&bytes).is_err());
    assert!(decode::<Vec<u64>>(&bytes).is_err());
    assert!(decode::<String>(&bytes).is_err());
}

#[test]
fn many_small_numbers_are_within_the_limit() {
    let numbers = vec![1u64; 300_000];
    let mut bytes = Vec::new();
    encode(&numbers, &mut bytes);
    assert_eq!(decode::<Vec<u64>>(&bytes).unwrap(), numbers);
    let wide = vec![1u128; 5_000];
    bytes.clear();
    encode(&wide, &mut bytes);
    assert_eq!(decode::<Vec<u128>>(&bytes).unwrap(), wide);
}
