//! Tests parsing with messages of Windows and Samba, and framing.

use bytes::Bytes;

mod arbitrary;
mod every_command;

use super::*;
use crate::tests::bytes::{WINDOWS_LOGIN, hex};
use create::ResponseContext;
use frame::Frame;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::{CreateAction, Disposition};
use outlast_fsa::status::NtStatus;

fn head(command: Command) -> Header {
    Header {
        credit_charge: 1,
        status: NtStatus::SUCCESS,
        command,
        credits: 31,
        flags: Flags(0),
        next_command: 0,
        message_id: 0x0102_0304_0506_0708,
        route: Route::Sync {
            process_id: 0xFEFF,
            tree_id: 5,
        },
        session_id: 0x1122_3344,
        signature: [0xA5; 16],
    }
}

fn component(command: Command, body: &[u8]) -> Component {
    let mut bytes = Vec::new();
    head(command).encode(&mut bytes);
    bytes.extend_from_slice(body);
    Component::new(bytes.into()).unwrap()
}

fn parse(command: Command, body: &str) -> Result<Request, Malformed> {
    Request::parse(&component(command, &hex(body)))
}

fn body_of(response: &Response) -> Vec<u8> {
    let mut out = vec![0; header::LEN];
    let payload = response.encode(&mut out);
    out.extend_from_slice(&payload);
    out.split_off(header::LEN)
}

const ID: FileId = FileId {
    persistent: 0x1111_1111_1111_1111,
    volatile: 0x2222_2222_2222_2222,
};

#[test]
fn headers_are_read_as_they_are_written() {
    for route in [
        Route::Sync {
            process_id: 1,
            tree_id: 2,
        },
        Route::Async { async_id: 77 },
    ] {
        let asynchronous = matches!(route, Route::Async { .. });
        let mut header = Header {
            route,
            flags: Flags::SERVER_TO_REDIR | Flags::SIGNED,
            status: NtStatus::PENDING,
            ..head(Command::CHANGE_NOTIFY)
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), header::LEN);
        if asynchronous {
            header.flags = header.flags | Flags::ASYNC_COMMAND;
        }
        assert_eq!(Header::parse(&bytes), Ok(header));
    }
    let bytes = hex(WINDOWS_LOGIN[3]);
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(header.command, Command::SESSION_SETUP);
    assert_eq!(header.status, NtStatus::MORE_PROCESSING_REQUIRED);
    assert_eq!(
        (header.message_id, header.session_id),
        (2, 0x1000_0000_0019)
    );
    let mut again = Vec::new();
    header.encode(&mut again);
    assert_eq!(again, bytes[..64]);
    let mut wrong = bytes.clone();
    wrong[4] = 65;
    assert_eq!(Header::parse(&wrong), Err(Malformed::HeaderSize(65)));
    assert_eq!(Header::parse(&bytes[..63]), Err(Malformed::Truncated));
}

#[test]
fn frames() {
    assert_eq!(frame::parse([0, 1, 2, 3]), Ok(Frame::Message(0x0001_0203)));
    assert_eq!(frame::parse([0x85, 0, 0, 0]), Ok(Frame::KeepAlive));
    assert_eq!(
        frame::parse([0x85, 0, 0, 1]),
        Err(Malformed::FrameType(0x85))
    );
    assert_eq!(
        frame::parse([0x81, 0, 0, 68]),
        Err(Malformed::FrameType(0x81))
    );
    let too_long = frame::MAX_MESSAGE + 1;
    assert_eq!(
        frame::parse(frame::encode(too_long)),
        Err(Malformed::MessageTooLong(too_long))
    );
    assert_eq!(
        frame::parse(frame::encode(frame::MAX_MESSAGE)),
        Ok(Frame::Message(frame::MAX_MESSAGE))
    );
}

/// A message of components with these NextCommand fields and lengths.
fn chain(parts: &[(u32, usize)]) -> Bytes {
    let mut message = Vec::new();
    for (next_command, len) in parts {
        let start = message.len();
        Header {
            next_command: *next_command,
            ..head(Command::ECHO)
        }
        .encode(&mut message);
        message.resize(start + len, 0x44);
    }
    message.into()
}

#[test]
fn compounds_are_cut_at_next_command() {
    let lengths = |parts: &[(u32, usize)]| -> Result<Vec<usize>, Malformed> {
        let components = compound::split(&chain(parts).into())?;
        Ok(components.iter().map(|c| c.bytes.len()).collect())
    };
    assert_eq!(lengths(&[(0, 68)]), Ok(vec![68]));
    assert_eq!(
        lengths(&[(72, 72), (88, 88), (0, 65)]),
        Ok(vec![72, 88, 65])
    );
    for next in [4, 56, 60, 70, 144, u32::MAX, 0xFFFF_FFF8] {
        assert_eq!(
            lengths(&[(next, 72), (0, 64)]),
            Err(Malformed::NextCommand(next))
        );
    }
    // The last header announces a further one, which is missing.
    assert_eq!(lengths(&[(72, 72)]), Err(Malformed::Truncated));
    let many = vec![(64, 64); compound::MAX_COMPONENTS];
    assert_eq!(
        lengths(&[&many[..], &[(0, 64)]].concat()),
        Err(Malformed::TooManyComponents(compound::MAX_COMPONENTS))
    );
    let fewer = [&many[..compound::MAX_COMPONENTS - 1], &[(0, 64)]].concat();
    assert_eq!(lengths(&fewer).unwrap().len(), compound::MAX_COMPONENTS);
}

#[test]
fn a_windows_negotiate() {
    let component = Component::new(hex(WINDOWS_LOGIN[0]).into()).unwrap();
    let Ok(Request::Negotiate(request)) = Request::parse(&component) else {
        panic!("not a NEGOTIATE");
    };
    assert_eq!(request.dialects, [0x0202, 0x0210, 0x0300, 0x0302, 0x0311]);
    assert_eq!((request.security_mode, request.capabilities), (0, 0x3F));
    let salt = hex("FA49E6578F1F3A9F4CD3E9CC14A67AA884B3D05844E0E5A118225C15887F32FF");
    assert_eq!(
        request.contexts,
        [
            negotiate::Context::PreauthIntegrity {
                hash_algorithms: vec![1],
                salt: salt.into(),
            },
            negotiate::Context::Encryption {
                ciphers: vec![2, 1]
            },
        ]
    );
    // The Windows server's response, field by field.
    let answer = hex(WINDOWS_LOGIN[1]);
    let salt = hex("60A3C3B95C3C7CCD51EC536648D9B3AC74C483CA5B65385A251117BEB30712E5");
    let response = Response::Negotiate(negotiate::Response {
        security_mode: 1,
        dialect_revision: 0x0311,
        server_guid: answer[72..88].try_into().unwrap(),
        capabilities: 0x2F,
        max_transact_size: 8 << 20,
        max_read_size: 8 << 20,
        max_write_size: 8 << 20,
        system_time: 0x01D0_AECB_ADE5_DAD8,
        server_start_time: 0x01D0_AE95_B04A_0909,
        security_buffer: Bytes::copy_from_slice(&answer[128..128 + 0x140]),
        contexts: vec![
            negotiate::Context::PreauthIntegrity {
                hash_algorithms: vec![1],
                salt: salt.into(),
            },
            negotiate::Context::Encryption { ciphers: vec![2] },
        ],
    });
    let body = body_of(&response);
    assert_eq!(body, answer[64..]);
}

#[test]
fn negotiate_contexts_that_overrun_or_repeat() {
    let message = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = hex(WINDOWS_LOGIN[0]);
        change(&mut bytes);
        let component = Component::new(bytes.into()).unwrap();
        Request::parse(&component).map(|_| ())
    };
    assert_eq!(message(&|_| ()), Ok(()));
    let offset = 0x70;
    assert_eq!(
        message(&|bytes| bytes[92] = 0xF0),
        Err(Malformed::NegotiateContexts)
    );
    assert_eq!(
        message(&|bytes| bytes[92] = 0x10),
        Err(Malformed::NegotiateContexts)
    );
    assert_eq!(
        message(&|bytes| bytes[offset + 3] = 1),
        Err(Malformed::NegotiateContexts)
    );
    assert_eq!(
        message(&|bytes| bytes[offset] = 2),
        Err(Malformed::DuplicateNegotiateContext(2))
    );
    assert_eq!(
        message(&|bytes| bytes[offset + 8] = 0),
        Err(Malformed::NegotiateContext(1))
    );
    assert_eq!(
        message(&|bytes| bytes[offset + 8] = 200),
        Err(Malformed::NegotiateContext(1))
    );
    // Compression and unknown contexts are ignored.
    assert_eq!(message(&|bytes| bytes[offset] = 3), Ok(()));
    assert_eq!(message(&|bytes| bytes[66] = 0), Err(Malformed::NoDialects));
    assert_eq!(message(&|bytes| bytes[67] = 1), Err(Malformed::Truncated));
}

#[test]
fn a_windows_session_setup() {
    let component = Component::new(hex(WINDOWS_LOGIN[2]).into()).unwrap();
    let Ok(Request::SessionSetup(request)) = Request::parse(&component) else {
        panic!("not a SESSION_SETUP");
    };
    assert_eq!((request.flags, request.security_mode), (0, 1));
    assert_eq!(request.security_buffer.len(), 0x4A);
    assert_eq!(request.security_buffer[..2], [0x60, 0x48]);
    let answer = hex(WINDOWS_LOGIN[3]);
    let response = Response::SessionSetup(session_setup::Response {
        session_flags: 0,
        security_buffer: Bytes::copy_from_slice(&answer[72..]),
    });
    assert_eq!(body_of(&response), answer[64..]);
}

#[test]
fn a_windows_write_is_a_slice_of_the_message() {
    let bytes = Bytes::from(hex(
        "FE534D4240000100000000000900400008000000000000000400000000000000\
         FFFE0000010000001100001400E4080000000000000000000000000000000000\
         3100700017000000000000000000000015010000390000020100000039020000\
         00000000000000007000000000000000536D623320656E6372797074696F6E20\
         74657374696E67",
    ));
    let component = Component::new(bytes.clone()).unwrap();
    let Ok(Request::Write(request)) = Request::parse(&component) else {
        panic!("not a WRITE");
    };
    let data = request.data.together();
    assert_eq!(&data[..], b"Smb3 encryption testing");
    assert_eq!(data.as_ptr(), bytes[112..].as_ptr());
    assert_eq!(request.file_id.persistent, 0x0200_0039_0000_0115);
    let response = Response::Write(write::Response { count: 0x17 });
    assert_eq!(body_of(&response), hex("11000000170000000000000000000000"));
    // One byte more than the message has.
    let mut long = bytes.to_vec();
    long[68] += 1;
    assert_eq!(
        Request::parse(&Component::new(long.into()).unwrap()),
        Err(Malformed::BufferBounds {
            offset: 112,
            length: 24
        })
    );
    // Into the fixed part.
    let mut low = bytes.to_vec();
    low[66] = 111;
    assert!(matches!(
        Request::parse(&Component::new(low.into()).unwrap()),
        Err(Malformed::BufferBounds { offset: 111, .. })
    ));
}

#[test]
fn a_create_with_contexts() {
    let body = "3900 00 09 02000000 0000000000000000 0000000000000000 81001200 80000000 07000000 03000000 40000000
        7800 0600 80000000 38000000 6100 5C00 6200 0000
        18000000 1000 0400 0000 0000 00000000 4D784163 00000000
        00000000 1000 0400 0000 1800 08000000 416C5369 00000000 0010000000000000";
    let Ok(Request::Create(request)) = parse(Command::CREATE, body) else {
        panic!("not a CREATE");
    };
    assert_eq!(request.name, "a\\b");
    assert_eq!(request.requested_oplock_level, create::oplock_level::BATCH);
    assert_eq!(request.desired_access, 0x0012_0081);
    assert_eq!(request.create_disposition, Disposition::OpenIf);
    assert_eq!(request.create_options, create::options::NON_DIRECTORY_FILE);
    assert_eq!(request.contexts.len(), 2);
    let maximal = request.context(create::context::QUERY_MAXIMAL_ACCESS);
    assert_eq!(maximal, Some(&Bytes::new()));
    let allocation = request.context(create::context::ALLOCATION_SIZE).unwrap();
    assert_eq!(allocation[..], hex("0010000000000000"));
    assert_eq!(request.context(create::context::QUERY_ON_DISK_ID), None);
    let change = |at: usize, value: u8| {
        let mut body = hex(body);
        body[at] = value;
        Request::parse(&component(Command::CREATE, &body)).unwrap_err()
    };
    assert_eq!(
        change(0, 56),
        Malformed::StructureSize { got: 56, want: 57 }
    );
    assert_eq!(change(36, 6), Malformed::CreateDisposition(6));
    assert_eq!(change(4, 4), Malformed::ImpersonationLevel(4));
    assert_eq!(change(46, 5), Malformed::OddString(5));
    assert_eq!(change(58, 0), Malformed::ZeroCharacter);
    assert_eq!(change(59, 0xD8), Malformed::Surrogate);
    // Contexts: unaligned, backwards, out of bounds, name and data outside.
    for (at, value) in [
        (64, 17),
        (64, 8),
        (64, 0xF0),
        (68, 8),
        (70, 0xFF),
        (98, 0xFF),
        (100, 9),
    ] {
        assert_eq!(change(at, value), Malformed::CreateContexts, "{at} {value}");
    }
    assert!(matches!(change(52, 0x39), Malformed::BufferBounds { .. }));
}

#[test]
fn a_create_response_with_contexts() {
    let response = Response::Create(create::Response {
        oplock_level: 1,
        create_action: CreateAction::Created,
        creation_time: 1,
        last_access_time: 2,
        last_write_time: 3,
        change_time: 4,
        allocation_size: 5,
        end_of_file: 6,
        file_attributes: 0x20,
        file_id: ID,
        contexts: vec![
            ResponseContext::MaximalAccess {
                status: NtStatus::SUCCESS,
                access: 0x001F_01FF,
            },
            ResponseContext::OnDiskId {
                file_id: 7,
                volume_id: 8,
            },
        ],
    });
    assert_eq!(
        body_of(&response),
        hex("5900 01 00 02000000 0100000000000000 0200000000000000 0300000000000000 0400000000000000
            0500000000000000 0600000000000000 20000000 00000000 1111111111111111 2222222222222222 98000000 58000000
            20000000 1000 0400 0000 1800 08000000 4D784163 00000000 00000000 FF011F00
            00000000 1000 0400 0000 1800 20000000 51466964 00000000 0700000000000000 0800000000000000
            00000000000000000000000000000000")
    );
}

#[test]
fn transform_headers() {
    let header = transform::Transform {
        signature: [1; 16],
        nonce: [2; 16],
        original_message_size: 3,
        session_id: 4,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    assert_eq!(bytes.len(), transform::LEN);
    bytes.extend([0; 3]);
    assert_eq!(transform::Transform::parse(&bytes), Ok(header));
    bytes.push(0);
    assert_eq!(
        transform::Transform::parse(&bytes),
        Err(Malformed::TransformSize(3))
    );
    bytes.pop();
    bytes[42] = 2;
    assert_eq!(
        transform::Transform::parse(&bytes),
        Err(Malformed::TransformFlags(2))
    );
    assert_eq!(Protocol::of(&bytes), Ok(Protocol::Transform));
    assert_eq!(Protocol::of(b"\xFFSMBr"), Ok(Protocol::Smb1));
    assert_eq!(Protocol::of(b"\xFCSMB"), Ok(Protocol::Compression));
    assert_eq!(
        Protocol::of(b"GET "),
        Err(Malformed::ProtocolId(0x2054_4547))
    );
    assert_eq!(Protocol::of(b"\xFES"), Err(Malformed::Truncated));
}

#[test]
fn smb1_negotiates() {
    // A message of Samba's client, shortened.
    let message = hex(
        "FF534D4272000000001843C80000000000000000000000000000FEFF00000000
         00 2200 024E54204C4D20302E313200 02534D4220322E30303200 02534D4220322E3F3F3F00",
    );
    let negotiate = smb1::Negotiate::parse(&message).unwrap();
    assert!(negotiate.smb_2_002 && negotiate.smb_2_wildcard);
    assert_eq!(negotiate.echo.flags2, 0xC843);
    assert_eq!(negotiate.echo.pid_low, 0xFFFE);
    let change = |at: usize, value: u8| {
        let mut message = message.clone();
        message[at] = value;
        smb1::Negotiate::parse(&message)
    };
    assert_eq!(change(4, 0x73), Err(Malformed::Smb1Command(0x73)));
    assert_eq!(change(33, 0x23), Err(Malformed::Truncated));
    assert_eq!(change(33, 0x21), Err(Malformed::Smb1Dialects));
    assert_eq!(change(35, 0x03), Err(Malformed::Smb1Dialects));
    assert_eq!(change(32, 1), Err(Malformed::Smb1Dialects));
}

#[test]
fn utf16_strings() {
    for text in ["", "name", "Grüße", "𝄞 clef"] {
        let bytes = utf16::encode(text);
        assert_eq!(bytes.len(), utf16::len(text));
        assert_eq!(utf16::decode(&bytes).as_deref(), Ok(text));
    }
    assert_eq!(utf16::decode(&[0x61]), Err(Malformed::OddString(1)));
    assert_eq!(utf16::decode(&[0, 0xDC]), Err(Malformed::Surrogate));
    assert_eq!(utf16::decode(&[0, 0]), Err(Malformed::ZeroCharacter));
    assert_eq!(utf16::decode_any(&[0, 0]).as_deref(), Ok("\0"));
}

/// A message as it arrives in pieces of so many bytes.
fn in_pieces(message: &[u8], length: usize) -> Pieces {
    let pieces = message.chunks(length);
    pieces.map(Bytes::copy_from_slice).collect()
}

/// A WRITE of `data` at this DataOffset.
fn a_write(data_offset: usize, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    head(Command::WRITE).encode(&mut message);
    message.put_u16_le(49);
    message.put_u16_le(data_offset as u16);
    message.put_u32_le(data.len() as u32);
    message.put_u64_le(4096);
    FileId::ANY.encode(&mut message);
    message.put_bytes(0, 16);
    message.resize(data_offset, 0x55);
    message.extend_from_slice(data);
    message
}

#[test]
fn a_request_is_the_same_however_it_is_cut() {
    let data: Vec<u8> = (0..100).collect();
    let whole = [a_write(112, &data), a_write(120, &data), a_write(112, &[])];
    let outside = {
        let mut message = a_write(112, &data);
        message.pop();
        message
    };
    let compound = chain(&[(72, 72), (0, 80)]).to_vec();
    let short = [
        whole[0][..100].to_vec(),
        whole[0][..64].to_vec(),
        whole[0][..60].to_vec(),
    ];
    for message in whole.into_iter().chain([outside, compound]).chain(short) {
        let expected = compound::split(&Bytes::from(message.clone()).into());
        let bodies = |components: &[Component]| -> Vec<Result<Request, Malformed>> {
            components.iter().map(Request::parse).collect()
        };
        for length in 1..message.len() {
            let cut = compound::split(&in_pieces(&message, length));
            let (Ok(expected), Ok(cut)) = (&expected, &cut) else {
                assert_eq!(cut, expected, "pieces of {length}");
                continue;
            };
            assert_eq!(bodies(cut), bodies(expected), "pieces of {length}");
            let encoded = |components: &[Component]| {
                let mut bytes = Vec::new();
                components
                    .iter()
                    .for_each(|component| component.encode(&mut bytes));
                bytes
            };
            assert_eq!(encoded(cut), message);
            assert_eq!(
                cut.iter().map(Component::size).sum::<usize>(),
                message.len()
            );
        }
    }
}

#[test]
fn the_data_of_a_write_stay_in_place() {
    let data: Vec<u8> = (0..200).collect();
    let message = in_pieces(&a_write(112, &data), 70);
    let component = compound::split(&message).unwrap().remove(0);
    let Request::Write(body) = Request::parse(&component).unwrap() else {
        panic!("a write");
    };
    assert_eq!(body.data.together(), data);
    let places = |pieces: &Pieces| -> Vec<*const u8> {
        pieces
            .as_slice()
            .iter()
            .map(|piece| piece.as_ptr())
            .collect()
    };
    assert_eq!(places(&body.data), places(&message.slice(112..312)));
}
