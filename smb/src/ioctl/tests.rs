use super::*;
use crate::tests::bytes::hex;
use proptest::prelude::*;

fn copy(source: (u64, u64, u64), chunks: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [source.0, source.1, source.2] {
        bytes.put_u64_le(word);
    }
    bytes.put_u32_le(chunks.len() as u32);
    bytes.put_u32_le(0);
    for (from, to, length) in chunks {
        bytes.put_u64_le(*from);
        bytes.put_u64_le(*to);
        bytes.put_u32_le(*length);
        bytes.put_u32_le(0);
    }
    bytes
}

fn parsed_copy(bytes: &[u8]) -> Result<CopyChunk, NtStatus> {
    match Fsctl::parse(code::SRV_COPYCHUNK, bytes)? {
        Fsctl::CopyChunk(copy) => Ok(copy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn validate_negotiate_info() {
    let input = hex("7f000000 000102030405060708090a0b0c0d0e0f 0100 0200 0202 1002");
    let want = ValidateNegotiate {
        capabilities: 0x7F,
        client_guid: std::array::from_fn(|i| i as u8),
        security_mode: 1,
        dialects: vec![0x0202, 0x0210],
    };
    let parse = |bytes| Fsctl::parse(code::VALIDATE_NEGOTIATE_INFO, bytes);
    assert_eq!(parse(&input), Ok(Fsctl::ValidateNegotiateInfo(want)));
    assert_eq!(
        parse(&input[..input.len() - 1]),
        Err(NtStatus::INVALID_PARAMETER)
    );
    assert_eq!(
        negotiated(7, &[0xAA; 16], 1, 0x0302),
        hex("07000000 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0100 0203")
    );
}

#[test]
fn resume_key_is_the_source_of_a_copy() {
    let key = resume_key(0x1234);
    assert_eq!(key.len(), 32);
    let mut input = key[..24].to_vec();
    input.extend_from_slice(&hex("01000000 00000000"));
    input.extend_from_slice(&hex("0100000000000000 0200000000000000 03000000 00000000"));
    let copy = parsed_copy(&input).unwrap();
    assert_eq!(copy.source, Some(0x1234));
    assert!(copy.target_is_read && copy.within_limits);
    assert_eq!(
        copy.chunks,
        [Chunk {
            source_offset: 1,
            target_offset: 2,
            length: 3
        }]
    );
    for key in [(1, 2, 0), (1, 1, 1)] {
        assert_eq!(parsed_copy(&self::copy(key, &[])).unwrap().source, None);
    }
}

#[test]
fn limits_of_a_copy() {
    let mib = 1 << 20;
    let within = |chunks: &[(u64, u64, u32)]| {
        let copy = parsed_copy(&copy((1, 1, 0), chunks)).unwrap();
        assert!(copy.within_limits || copy.chunks.is_empty());
        copy.within_limits
    };
    assert!(within(&[(0, 0, mib); 16]));
    assert!(!within(&[(0, 0, mib); 17]));
    assert!(!within(&[(0, 0, mib + 1)]));
    assert!(!within(&[(0, 0, 0)]));
    assert!(within(&[(0, 0, 1); 256]));
    assert!(!within(&[(0, 0, 1); 257]));
    assert_eq!(copy_limits(), hex("00010000 00001000 00000001"));
    let chunks = [5, 6].map(|length| Chunk {
        source_offset: 0,
        target_offset: 0,
        length,
    });
    assert_eq!(copied(&chunks), hex("02000000 00000000 0b000000"));
    assert_eq!(
        parsed_copy(&copy((1, 1, 0), &[(u64::MAX, 0, 1)])),
        Err(NtStatus::INVALID_PARAMETER)
    );
}

#[test]
fn ranges() {
    let two = |a: i64, b: i64| [a.to_le_bytes(), b.to_le_bytes()].concat();
    assert_eq!(
        Fsctl::parse(code::SET_ZERO_DATA, &two(3, 9)),
        Ok(Fsctl::SetZeroData { from: 3, beyond: 9 })
    );
    for input in [two(9, 3), two(-1, 3), two(0, -1), two(0, 0)[..15].to_vec()] {
        assert_eq!(
            Fsctl::parse(code::SET_ZERO_DATA, &input),
            Err(NtStatus::INVALID_PARAMETER)
        );
    }
    assert_eq!(
        Fsctl::parse(code::QUERY_ALLOCATED_RANGES, &two(i64::MAX, 1)),
        Err(NtStatus::INVALID_PARAMETER)
    );
    assert_eq!(
        allocated_ranges(&[(1, 2), (3, 4)], 31),
        Ok((two(1, 2), true))
    );
    assert_eq!(
        allocated_ranges(&[(1, 2)], 15),
        Err(NtStatus::BUFFER_TOO_SMALL)
    );
    assert_eq!(allocated_ranges(&[], 0), Ok((Vec::new(), false)));
}

#[test]
fn sparse_and_pipes() {
    let sparse = |input| Fsctl::parse(code::SET_SPARSE, input);
    assert_eq!(sparse(&[]), Ok(Fsctl::SetSparse(true)));
    assert_eq!(sparse(&[0]), Ok(Fsctl::SetSparse(false)));
    let wait = hex("0000000000000000 04000000 00 00 61006200");
    assert_eq!(
        Fsctl::parse(code::PIPE_WAIT, &wait),
        Ok(Fsctl::PipeWait("ab".into()))
    );
    assert_eq!(
        Fsctl::parse(code::PIPE_WAIT, &wait[..17]),
        Err(NtStatus::INVALID_PARAMETER)
    );
}

#[test]
fn refusals() {
    for (ctl_code, status) in [
        (code::DFS_GET_REFERRALS, NtStatus::FS_DRIVER_REQUIRED),
        (code::GET_REPARSE_POINT, NtStatus::NOT_A_REPARSE_POINT),
        (code::QUERY_NETWORK_INTERFACE_INFO, NtStatus::NOT_SUPPORTED),
        (0x0009_8344, NtStatus::INVALID_DEVICE_REQUEST),
        (0, NtStatus::INVALID_DEVICE_REQUEST),
    ] {
        assert_eq!(Fsctl::parse(ctl_code, &[0; 64]), Err(status));
    }
}

proptest! {
    #[test]
    fn any_bytes(which in 0usize..10, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let codes = [
            code::VALIDATE_NEGOTIATE_INFO,
            code::SRV_COPYCHUNK,
            code::SRV_COPYCHUNK_WRITE,
            code::SET_SPARSE,
            code::SET_ZERO_DATA,
            code::QUERY_ALLOCATED_RANGES,
            code::PIPE_WAIT,
            code::SRV_REQUEST_RESUME_KEY,
            code::PIPE_TRANSCEIVE,
            code::GET_OBJECT_ID,
        ];
        let _ = Fsctl::parse(codes[which], &bytes);
    }
}
