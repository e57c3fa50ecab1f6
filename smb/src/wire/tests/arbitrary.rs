//! Tests the parsers with arbitrary and damaged messages.

use proptest::prelude::*;

use super::*;

/// The StructureSize of each command's request, so that arbitrary bytes get past it.
const SIZES: [u16; 19] = [
    36, 25, 4, 9, 4, 57, 24, 24, 49, 49, 48, 57, 4, 4, 33, 32, 41, 33, 24,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        id in prop_oneof![Just(compound::SMB1_ID), Just(compound::SMB2_ID), Just(compound::TRANSFORM_ID)],
    ) {
        let mut message = id.to_le_bytes().to_vec();
        message.extend(bytes);
        let _ = Protocol::of(&message);
        let _ = smb1::Negotiate::parse(&message);
        let _ = transform::Transform::parse(&message);
        let _ = utf16::decode(&message);
        let _ = FileId::read(&message);
        if let Ok(components) = compound::split(&Bytes::from(message).into()) {
            components.iter().for_each(|component| drop(Request::parse(component)));
        }
    }

    /// With small numbers, offsets and lengths are nearly right.
    #[test]
    fn arbitrary_bodies_never_panic(
        command in 0u16..20,
        body in proptest::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0u8..130, 1 => any::<u8>()], 0..200),
    ) {
        let size = SIZES.get(usize::from(command)).copied().unwrap_or(4);
        let mut bytes = size.to_le_bytes().to_vec();
        bytes.extend(body);
        let _ = Request::parse(&component(Command(command), &bytes));
    }

    #[test]
    fn damaged_messages_never_panic(
        index in 0usize..5,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = hex(WINDOWS_LOGIN[index]);
        for (at, value) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(components) = compound::split(&Bytes::from(bytes).into()) {
            components.iter().for_each(|component| drop(Request::parse(component)));
        }
    }

    #[test]
    fn compounds_lose_no_byte(lengths in proptest::collection::vec(64usize..200, 1..10)) {
        let parts: Vec<(u32, usize)> = lengths
            .iter()
            .enumerate()
            .map(|(i, len)| {
                let len = len.next_multiple_of(8);
                (if i + 1 < lengths.len() { len as u32 } else { 0 }, len)
            })
            .collect();
        let message = chain(&parts);
        let components = compound::split(&message.clone().into()).unwrap();
        let joined: Vec<u8> = components.iter().flat_map(|c| c.bytes.to_vec()).collect();
        prop_assert_eq!(joined, message.to_vec());
    }

    #[test]
    fn negotiate_responses_are_aligned(token in 0usize..40, contexts in 1usize..3) {
        let context = negotiate::Context::Encryption { ciphers: vec![1, 2, 3] };
        let mut out = vec![0; header::LEN];
        let response = negotiate::Response {
            security_mode: 1,
            dialect_revision: 0x0311,
            server_guid: [0; 16],
            capabilities: 0,
            max_transact_size: 0,
            max_read_size: 0,
            max_write_size: 0,
            system_time: 0,
            server_start_time: 0,
            security_buffer: vec![0xCC; token].into(),
            contexts: vec![context; contexts],
        };
        prop_assert!(Response::Negotiate(response).encode(&mut out).is_empty());
        let mut at = u32::from_le_bytes(out[124..128].try_into().unwrap()) as usize;
        for _ in 0..contexts {
            at = at.next_multiple_of(8);
            prop_assert_eq!(&out[at..at + 4], &[2, 0, 8, 0][..]);
            at += 16;
        }
        prop_assert_eq!(at, out.len());
    }
}
