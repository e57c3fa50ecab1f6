use super::*;
use crate::rpc::Share;
use crate::tests::bytes::hex;
use proptest::prelude::*;

pub(crate) fn server() -> Server<'static> {
    Server {
        name: "OUTLAST",
        comment: "The comment",
        shares: vec![Share {
            name: "pub",
            comment: "Files for all",
        }],
    }
}

/// The bind to srvsvc that Debian's smbclient 4.17 writes.
const BIND: &str = "05000b03100000004800000001000000 b810b81000000000 01000000 00000100
    c84f324b7016d30112785a47bf6ee18803000000 045d888aeb1cc9119fe808002b10486002000000";

pub(crate) fn bound() -> Pipe {
    let mut pipe = Pipe::open("SrvSvc").unwrap();
    pipe.write(&hex(BIND), &server()).unwrap();
    pipe.read(4280).unwrap();
    pipe
}

/// A request PDU.
pub(crate) fn request(call_id: u32, opnum: u16, flags: u8, stub: &[u8]) -> Vec<u8> {
    let mut bytes = vec![5, 0, 0, flags, 0x10, 0, 0, 0];
    bytes.extend_from_slice(&(24 + stub.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&call_id.to_le_bytes());
    bytes.extend_from_slice(&(stub.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&opnum.to_le_bytes());
    bytes.extend_from_slice(stub);
    bytes
}

#[test]
fn bind_is_answered_as_samba_does() {
    let mut pipe = Pipe::open("srvsvc").unwrap();
    pipe.write(&hex(BIND), &server()).unwrap();
    let answer = pipe.read(4280).unwrap();
    // Samba's own response, except the association group.
    let want = "05000c03100000004400000001000000 b810b810 f0530000 0d00
        5c706970655c73727673766300 00 01000000 00000000 045d888aeb1cc9119fe808002b10486002000000";
    assert_eq!(answer.data, hex(want));
    assert!(!answer.more);
    assert_eq!(pipe.read(4280), Err(NtStatus::PIPE_EMPTY));
}

#[test]
fn other_syntaxes_are_rejected() {
    for (at, reason) in [(32, 1), (52, 2)] {
        let mut bind = hex(BIND);
        bind[at] ^= 1;
        let mut pipe = Pipe::open("srvsvc").unwrap();
        pipe.write(&bind, &server()).unwrap();
        let answer = pipe.read(4280).unwrap().data;
        assert_eq!(answer[44..48], [2, 0, reason, 0]);
        assert_eq!(answer[48..], [0; 20]);
        assert!(pipe.contexts.is_empty());
    }
}

#[test]
fn authentication_is_declined() {
    let mut bind = hex(BIND);
    bind[10] = 8;
    let mut pipe = Pipe::open("srvsvc").unwrap();
    pipe.write(&bind, &server()).unwrap();
    let answer = pipe.read(4280).unwrap().data;
    assert_eq!(answer[2], 13);
    assert_eq!(answer[16..], [8, 0, 1, 5, 0]);
}

#[test]
fn no_such_operation_is_a_fault() {
    let mut pipe = bound();
    pipe.write(&request(9, 99, 3, &[]), &server()).unwrap();
    let want = "05000303100000002000000009000000 00000000 0000 0000 0200011c 00000000";
    assert_eq!(pipe.read(4280).unwrap().data, hex(want));
    pipe.write(&request(10, 15, 3, &[1]), &server()).unwrap();
    assert_eq!(
        pipe.read(4280).unwrap().data[24..28],
        [0xF7, 0x06, 0, 0],
        "arguments that end too early"
    );
}

#[test]
fn a_context_that_is_not_bound_is_a_fault() {
    let mut pipe = bound();
    let mut bytes = request(9, 15, 3, &[]);
    bytes[20] = 1;
    pipe.write(&bytes, &server()).unwrap();
    assert_eq!(
        pipe.read(4280).unwrap().data[24..28],
        [0x03, 0x00, 0x01, 0x1C]
    );
}

#[test]
fn fragments_and_pieces_make_one_call() {
    let stub = hex("00000000 65000000");
    let mut whole = bound();
    whole.write(&request(3, 21, 3, &stub), &server()).unwrap();
    let want = whole.read(4280).unwrap();

    let mut pipe = bound();
    let bytes = [
        request(3, 21, 1, &stub[..4]),
        request(3, 21, 0, &stub[4..6]),
        request(3, 21, 2, &stub[6..]),
    ]
    .concat();
    for piece in bytes.chunks(7) {
        assert_eq!(pipe.available(), 0);
        pipe.write(piece, &server()).unwrap();
    }
    assert_eq!(pipe.read(4280).unwrap(), want);
    assert_eq!(pipe, whole);
}

#[test]
fn a_message_is_read_in_parts() {
    let mut pipe = bound();
    pipe.write(&request(3, 99, 3, &[]), &server()).unwrap();
    pipe.write(&request(4, 99, 3, &[]), &server()).unwrap();
    assert_eq!(pipe.available(), 32);
    let first = pipe.read(20).unwrap();
    assert_eq!((first.data.len(), first.more), (20, true));
    assert_eq!(first.status(), NtStatus::BUFFER_OVERFLOW);
    assert_eq!(pipe.available(), 12);
    let rest = pipe.read(100).unwrap();
    assert_eq!((rest.data.len(), rest.more), (12, false));
    assert_eq!(pipe.read(100).unwrap().data.len(), 32);
}

#[test]
fn long_answers_come_in_fragments() {
    let names: Vec<String> = (0..200).map(|i| format!("share{i}")).collect();
    let many = Server {
        shares: names
            .iter()
            .map(|name| Share { name, comment: "" })
            .collect(),
        ..server()
    };
    let stub = hex("00000000 01000000 01000000 04000200 00000000 00000000 ffffffff 00000000");
    let mut pipe = bound();
    pipe.write(&request(3, 15, 3, &stub), &many).unwrap();
    let mut answer = Vec::new();
    let mut flags = Vec::new();
    while let Ok(message) = pipe.read(4280) {
        assert_eq!(
            u16::from_le_bytes([message.data[8], message.data[9]]) as usize,
            message.data.len()
        );
        flags.push(message.data[3]);
        if message.data[3] & 2 == 0 {
            assert_eq!(message.data.len() % 8, 0);
        }
        answer.extend_from_slice(&message.data[24..]);
    }
    assert_eq!(flags.first(), Some(&1));
    assert_eq!(flags.last(), Some(&2));
    assert!(flags.len() > 2);
    assert_eq!(answer[12..16], 201u32.to_le_bytes());
}

#[test]
fn breaches_disconnect_the_pipe() {
    let good = request(3, 21, 3, &hex("00000000 65000000"));
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    for bytes in [
        changed(0, 4),                                             // version
        changed(4, 0),                                             // big-endian
        changed(2, 12),                                            // a server's PDU
        changed(8, 8),                                             // shorter than its header
        changed(9, 0xFF),                                          // longer than any fragment
        changed(3, 2),  // a last fragment without a first
        changed(10, 1), // authenticated, without a context of authentication
        [request(3, 21, 1, &[]), request(4, 21, 2, &[])].concat(), // fragments of two calls
        hex(BIND),      // bound already
    ] {
        let mut pipe = bound();
        assert_eq!(
            pipe.write(&bytes, &server()),
            Err(NtStatus::PIPE_DISCONNECTED)
        );
        assert_eq!(pipe.read(100), Err(NtStatus::PIPE_DISCONNECTED));
        assert_eq!(
            pipe.write(&good, &server()),
            Err(NtStatus::PIPE_DISCONNECTED)
        );
    }
}

#[test]
fn requests_and_unread_answers_are_bounded() {
    let mut pipe = bound();
    let fragment = |flags| request(3, 21, flags, &[0; 4000]);
    pipe.write(&fragment(1), &server()).unwrap();
    let end = (0..20).find_map(|_| pipe.write(&fragment(0), &server()).err());
    assert_eq!(end, Some(NtStatus::PIPE_DISCONNECTED));

    let mut pipe = bound();
    let end = (0..100_000).find_map(|_| pipe.write(&request(3, 99, 3, &[]), &server()).err());
    assert_eq!(end, Some(NtStatus::INSUFFICIENT_RESOURCES));
    pipe.read(100).unwrap();
    pipe.write(&request(3, 99, 3, &[]), &server()).unwrap();
}

#[test]
fn pipes_by_name() {
    assert!(Pipe::open("WKSSVC").is_some());
    assert!(Pipe::open("samr").is_none());
    assert!(Pipe::open("").is_none());
}

proptest! {
    #[test]
    fn any_bytes(writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)) {
        let mut pipe = bound();
        for bytes in &writes {
            let _ = pipe.write(bytes, &server());
            let _ = pipe.read(50);
        }
    }

    #[test]
    fn any_bytes_behind_a_good_header(
        kind in prop::sample::select(vec![0u8, 11, 14]),
        flags: u8,
        body in prop::collection::vec(any::<u8>(), 0..200),
        alter: bool,
    ) {
        let mut pipe = if alter { bound() } else { Pipe::open("srvsvc").unwrap() };
        let mut bytes = vec![5, 0, kind, flags, 0x10, 0, 0, 0];
        bytes.extend_from_slice(&(16 + body.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[0, 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(&body);
        let _ = pipe.write(&bytes, &server());
    }

    #[test]
    fn any_arguments(opnum in 0u16..40, stub in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut pipe = bound();
        pipe.write(&request(1, opnum, 3, &stub), &server()).unwrap();
        prop_assert!(pipe.available() > 0);
    }
}
