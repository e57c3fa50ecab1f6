use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn all() -> Vec<Frame> {
    vec![
        Frame::Hello(Hello {
            node: "a".into(),
            epoch: 7,
            memory_len: 1 << 28,
        }),
        Frame::Welcome {
            beginning: vec![3; 9728],
        },
        Frame::Refused(Refusal::Version(9)),
        Frame::Refused(Refusal::Epoch(8)),
        Frame::Refused(Refusal::NotNow),
        Frame::Refused(Refusal::Length(5)),
        Frame::Refused(Refusal::Cannot("the disk is full".into())),
        Frame::Write {
            at: 12288,
            bytes: Bytes::from(vec![5; PIECE]),
        },
        Frame::Write {
            at: 0,
            bytes: Bytes::new(),
        },
        Frame::Complete { number: 1 },
        Frame::Done { number: u64::MAX },
        Frame::Anew,
        Frame::Beat(Beat {
            committed: 99,
            round_trip_us: 70,
        }),
        Frame::Heard,
    ]
}

fn sent(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.send(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_sent_is_received() {
    let stream: Vec<u8> = all().iter().flat_map(sent).collect();
    let mut from = &stream[..];
    for frame in all() {
        assert_eq!(Frame::receive(&mut from).unwrap(), frame);
    }
    assert!(from.is_empty());
}

#[test]
fn a_stream_that_is_cut_off_anywhere_gives_whole_frames_and_an_error() {
    for frame in all() {
        let bytes = sent(&frame);
        let some = (0..bytes.len()).filter(|cut| *cut < 64 || *cut + 64 > bytes.len());
        for cut in some {
            let error = Frame::receive(&mut &bytes[..cut]).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::UnexpectedEof,
                "{cut} bytes of {frame:?}"
            );
        }
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = sent(&all()[0]);
    bytes[13] = 2;
    let error = Frame::receive(&mut &bytes[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn what_is_too_long_is_neither_sent_nor_received() {
    let frame = Frame::Write {
        at: 0,
        bytes: Bytes::from(vec![0; LEN_MAX]),
    };
    assert!(frame.send(&mut Vec::new()).is_err());
    for len in [0, LEN_MAX as u32 + 1, u32::MAX] {
        let error = Frame::receive(&mut &len.to_le_bytes()[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(2000)
    })]

    /// Any bytes are a frame or an error.
    #[test]
    fn any_bytes(kind in 0_u8..12, content in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = (content.len() as u32 + 1).to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(&content);
        if let Ok(frame) = Frame::receive(&mut &bytes[..]) {
            prop_assert_eq!(Frame::receive(&mut &sent(&frame)[..]).unwrap(), frame);
        }
    }
}
