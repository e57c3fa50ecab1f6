//! Makes requests from choices: each is one that a client could send, with unexpected values.

use super::client::{ANY, Ask, Opening};
use crate::auth;
use crate::input::Input;
use bytes::BufMut;
use outlast_smb::auth::client::Client as Ntlm;
use outlast_smb::wire::{Command, utf16};

const NAMES: [&str; 14] = [
    "",
    "f",
    "g",
    "d",
    "d\\f",
    "d\\sub\\f",
    "f:stream",
    "..\\x",
    "*",
    "F",
    "srvsvc",
    "wkssvc",
    "mine",
    "a\u{fe00}\u{202e}b",
];

/// The objects that requests can refer to.
pub(super) struct About<'a> {
    /// Opens of the attacker, and one of another client.
    pub(super) opens: &'a [u64],
    /// AsyncIds that it has received.
    pub(super) async_ids: &'a [u64],
    /// The last security token the server sent.
    pub(super) challenge: Option<&'a [u8]>,
}

fn name(input: &mut Input<'_>) -> String {
    match input.below(16) {
        listed @ 0..14 => NAMES[listed].to_owned(),
        14 => "n".repeat(input.number() as usize % 600),
        _ => String::from_utf8_lossy(input.bytes()).into_owned(),
    }
}

fn file_id(input: &mut Input<'_>, about: &About<'_>, body: &mut Vec<u8>) {
    let id = match input.byte() {
        0xf0.. => input.u64(),
        0xe0.. => ANY,
        _ if about.opens.is_empty() => ANY,
        other => about.opens[usize::from(other) % about.opens.len()],
    };
    body.put_u64_le(id);
    body.put_u64_le(id);
}

/// Makes one request. Its lengths and offsets are right; edits may follow.
pub(super) fn ask(input: &mut Input<'_>, about: &About<'_>) -> Ask {
    let mut body = Vec::new();
    let command = match input.below(22) {
        0 | 1 => return create(input),
        2 => {
            body.put_slice(&[24, 0]);
            body.put_u16_le(input.below(2) as u16);
            body.put_u32_le(0);
            file_id(input, about, &mut body);
            Command::CLOSE
        }
        3 => {
            body.put_slice(&[24, 0, 0, 0, 0, 0, 0, 0]);
            file_id(input, about, &mut body);
            Command::FLUSH
        }
        4 => {
            body.put_slice(&[49, 0, 80, 0]);
            body.put_u32_le(input.number() as u32);
            body.put_u64_le(input.number());
            file_id(input, about, &mut body);
            body.put_u32_le(input.number() as u32);
            body.put_bytes(0, 13);
            Command::READ
        }
        5 => {
            let (offset, flags) = (input.number(), input.byte());
            let mut id = Vec::new();
            file_id(input, about, &mut id);
            let data = input.bytes();
            body.put_slice(&[49, 0, 112, 0]);
            body.put_u32_le(data.len() as u32);
            body.put_u64_le(offset);
            body.put_slice(&id);
            body.put_bytes(0, 12);
            body.put_u32_le(flags.into());
            body.put_slice(data);
            Command::WRITE
        }
        6 => lock(input, about, &mut body),
        7 | 8 => ioctl(input, about, &mut body),
        9 => Command::ECHO,
        10 => Command::CANCEL,
        11 | 12 => {
            let (class, flags) = (input.pick(&[1, 2, 3, 12, 37, 38, 60, 255]), input.byte());
            body.put_slice(&[33, 0, class, flags, 0, 0, 0, 0]);
            file_id(input, about, &mut body);
            let pattern = name(input);
            body.put_u16_le(96);
            body.put_u16_le(utf16::len(&pattern) as u16);
            body.put_u32_le(input.number() as u32);
            utf16::push(&pattern, &mut body);
            body.put_u8(0);
            Command::QUERY_DIRECTORY
        }
        13 => {
            body.put_slice(&[32, 0]);
            body.put_u16_le(input.byte().into());
            body.put_u32_le(input.number() as u32);
            file_id(input, about, &mut body);
            body.put_u32_le(input.number() as u32);
            body.put_u32_le(0);
            Command::CHANGE_NOTIFY
        }
        14 => {
            let (kind, class) = (1 + input.below(4) as u8, input.byte());
            body.put_slice(&[41, 0, kind, class]);
            body.put_u32_le(input.number() as u32);
            let extra = input.take(8);
            body.put_u16_le(104);
            body.put_u16_le(0);
            body.put_u32_le(extra.len() as u32);
            body.put_u32_le(input.number() as u32);
            body.put_u32_le(input.byte().into());
            file_id(input, about, &mut body);
            body.put_slice(extra);
            body.put_u8(0);
            Command::QUERY_INFO
        }
        15 | 16 => set_info(input, about, &mut body),
        17 => {
            body.put_slice(&[24, 0, input.pick(&[0, 1, 8, 9, 255]), 0, 0, 0, 0, 0]);
            file_id(input, about, &mut body);
            Command::OPLOCK_BREAK
        }
        18 => {
            let share = input.pick(&["pub", "theirs", "IPC$", "PUB", "none", ""]);
            let path = format!("\\\\server\\{share}");
            body.put_slice(&[9, 0, 0, 0, 72, 0]);
            body.put_u16_le(utf16::len(&path) as u16);
            utf16::push(&path, &mut body);
            Command::TREE_CONNECT
        }
        19 => return session_setup(input, about),
        20 => negotiate(input, &mut body),
        _ => input.pick(&[
            Command::LOGOFF,
            Command::TREE_DISCONNECT,
            Command(99),
            Command::ECHO,
        ]),
    };
    if body.is_empty() {
        body.put_slice(&[4, 0, 0, 0]);
    }
    let mut ask = Ask::new(command, body);
    if command == Command::CANCEL && input.yes() && !about.async_ids.is_empty() {
        ask.async_id = Some(input.pick(about.async_ids));
    }
    ask
}

/// CREATE, with contexts.
fn create(input: &mut Input<'_>) -> Ask {
    let named = name(input);
    let mut opening = Opening::of(&named);
    let rare = input.byte();
    if rare & 1 != 0 {
        opening.access = input.u32();
    }
    if rare & 2 != 0 {
        opening.share = input.below(8) as u32;
    }
    if rare & 4 != 0 {
        opening.disposition = input.below(7) as u32;
    }
    if rare & 8 != 0 {
        opening.options = input.u32();
    }
    if rare & 16 != 0 {
        opening.oplock = input.pick(&[0, 1, 8, 9, 255]);
    }
    let mut ask = opening.ask();
    if rare & 32 != 0 {
        let mut contexts = Vec::new();
        let count = 1 + input.below(4);
        for index in 0..count {
            let tag: &[u8] = input.pick(&[
                b"ExtA", b"SecD", b"DHnQ", b"DHnC", b"AlSi", b"MxAc", b"TWrp", b"QFid", b"RqLs",
                b"DH2Q", b"DH2C",
            ]);
            let data = input.bytes();
            let length = (24 + data.len()).next_multiple_of(8);
            let start = contexts.len();
            contexts.put_u32_le(if index + 1 < count { length as u32 } else { 0 });
            contexts.put_slice(&[16, 0, 4, 0, 0, 0, 24, 0]);
            contexts.put_u32_le(data.len() as u32);
            contexts.put_slice(tag);
            contexts.put_u32_le(0);
            contexts.put_slice(data);
            contexts.resize(start + length, 0);
        }
        let padded = ask.body.len().next_multiple_of(8);
        ask.body.resize(padded, 0);
        ask.body[48..52].copy_from_slice(&(64 + padded as u32).to_le_bytes());
        ask.body[52..56].copy_from_slice(&(contexts.len() as u32).to_le_bytes());
        ask.body.extend(contexts);
    }
    ask
}

fn lock(input: &mut Input<'_>, about: &About<'_>, body: &mut Vec<u8>) -> Command {
    let count = input.below(20);
    body.put_slice(&[48, 0]);
    body.put_u16_le(count as u16);
    body.put_u32_le(if input.yes() { input.u32() } else { 0 });
    file_id(input, about, body);
    for _ in 0..count {
        body.put_u64_le(input.number());
        body.put_u64_le(input.number());
        body.put_u32_le(input.pick(&[1, 2, 4, 17, 18, 0, 255]));
        body.put_u32_le(0);
    }
    Command::LOCK
}

fn ioctl(input: &mut Input<'_>, about: &About<'_>, body: &mut Vec<u8>) -> Command {
    const CODES: [u32; 14] = [
        0x0011_C017,
        0x0014_0204,
        0x0014_0078,
        0x0014_40F2,
        0x0014_80F2,
        0x0009_80C8,
        0x0009_40CF,
        0x0009_00C4,
        0x0014_4064,
        0x0011_0018,
        0x0006_0194,
        0x0009_009C,
        0x0014_01FC,
        0x0009_003C,
    ];
    let code = input.pick(&CODES);
    let mut id = Vec::new();
    file_id(input, about, &mut id);
    let mut data = Vec::new();
    match code {
        // A copy within the attacker's own files: the resume key is the open's id.
        0x0014_40F2 | 0x0014_80F2 => {
            file_id(input, about, &mut data);
            data.put_u64_le(0);
            let count = input.below(6) as u32;
            data.put_u32_le(count);
            data.put_u32_le(0);
            for _ in 0..count {
                data.put_u64_le(input.number());
                data.put_u64_le(input.number());
                data.put_u32_le(input.number() as u32);
                data.put_u32_le(0);
            }
        }
        0x0011_C017 => data.put_slice(&rpc(input)),
        0x0009_80C8 | 0x0009_40CF => {
            data.put_u64_le(input.number());
            data.put_u64_le(input.number());
        }
        _ => data.put_slice(input.bytes()),
    }
    body.put_slice(&[57, 0, 0, 0]);
    body.put_u32_le(code);
    body.put_slice(&id);
    body.put_u32_le(120);
    body.put_u32_le(data.len() as u32);
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_u32_le(input.number() as u32);
    body.put_u32_le(1);
    body.put_u32_le(0);
    body.put_slice(&data);
    Command::IOCTL
}

/// A PDU for a pipe: BIND or REQUEST (C706, chapter 12).
fn rpc(input: &mut Input<'_>) -> Vec<u8> {
    const SRVSVC: [u8; 16] = [
        0xc8, 0x4f, 0x32, 0x4b, 0x70, 0x16, 0xd3, 0x01, 0x12, 0x78, 0x5a, 0x47, 0xbf, 0x6e, 0xe1,
        0x88,
    ];
    const NDR: [u8; 16] = [
        0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11, 0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48,
        0x60,
    ];
    let mut pdu = vec![5, 0];
    let binds = input.yes();
    pdu.put_slice(&[
        if binds { 11 } else { 0 },
        3 & input.byte() | 3,
        0x10,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
    ]);
    if binds {
        pdu.put_u16_le(4280);
        pdu.put_u16_le(input.u16());
        pdu.put_slice(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
        pdu.put_slice(&SRVSVC);
        pdu.put_slice(&[3, 0, 0, 0]);
        pdu.put_slice(&NDR);
        pdu.put_slice(&[2, 0, 0, 0]);
    } else {
        pdu.put_u32_le(0);
        pdu.put_u16_le(0);
        pdu.put_u16_le(input.pick(&[15, 16, 21, 36, 0]));
        // A name, the level, a container of the level, a length.
        pdu.put_slice(&[
            0, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'x', 0, 0, 0,
        ]);
        for _ in 0..2 {
            pdu.put_u32_le(input.below(3) as u32);
        }
        pdu.put_slice(input.bytes());
        pdu.put_u32_le(input.number() as u32);
        pdu.put_u32_le(0);
    }
    let length = pdu.len() as u16;
    pdu[8..10].copy_from_slice(&length.to_le_bytes());
    input.edit(&mut pdu);
    pdu
}

fn set_info(input: &mut Input<'_>, about: &About<'_>, body: &mut Vec<u8>) -> Command {
    let (kind, class) = (
        input.pick(&[1, 1, 1, 2, 3, 4]),
        input.pick(&[4, 10, 11, 13, 14, 16, 19, 20, 64, 65, 15, 255]),
    );
    let mut info = Vec::new();
    match class {
        4 => {
            for _ in 0..4 {
                info.put_u64_le(input.number());
            }
            info.put_u64_le(input.byte().into());
        }
        10 | 11 | 65 => {
            let to = name(input);
            info.put_u64_le(input.below(2) as u64);
            info.put_u64_le(0);
            info.put_u32_le(utf16::len(&to) as u32);
            utf16::push(&to, &mut info);
        }
        13 => info.put_u8(input.below(2) as u8),
        15 => info.put_slice(input.bytes()),
        _ => info.put_u64_le(input.number()),
    }
    body.put_slice(&[33, 0, kind, class]);
    body.put_u32_le(info.len() as u32);
    body.put_slice(&[96, 0, 0, 0]);
    body.put_u32_le(input.byte().into());
    file_id(input, about, body);
    body.put_slice(&info);
    Command::SET_INFO
}

fn session_setup(input: &mut Input<'_>, about: &About<'_>) -> Ask {
    let ntlm = Ntlm {
        user: input.pick(&["user", "user", "", "guest"]),
        password: input.pick(&[auth::PASSWORD, "wrong"]),
        mic: input.yes(),
        ..Ntlm::DEFAULT
    };
    let token = match about.challenge {
        Some(challenge) if input.byte() & 7 != 0 => {
            auth::resp(&ntlm.authenticate(challenge).0, None)
        }
        _ => auth::init(&ntlm.negotiate(), input.byte() & 7 != 0),
    };
    let mut body = vec![25, 0, input.below(2) as u8, input.below(4) as u8];
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_u16_le(64 + 24);
    body.put_u16_le(token.len() as u16);
    body.put_u64_le(if input.byte() > 0xf0 {
        super::BEN_SESSION
    } else {
        0
    });
    body.put_slice(&token);
    Ask::new(Command::SESSION_SETUP, body)
}

fn negotiate(input: &mut Input<'_>, body: &mut Vec<u8>) -> Command {
    const DIALECTS: [u16; 7] = [0x0202, 0x0210, 0x0300, 0x0302, 0x0311, 0x02ff, 0];
    let dialects: Vec<u16> = match input.below(3) {
        0 => (0..input.below(8)).map(|_| input.pick(&DIALECTS)).collect(),
        1 => DIALECTS[..5].to_vec(),
        _ => DIALECTS[..1 + input.below(4)].to_vec(),
    };
    body.put_slice(&[36, 0]);
    body.put_u16_le(dialects.len() as u16);
    body.put_u16_le(input.below(4) as u16);
    body.put_u16_le(0);
    body.put_u32_le(0x7f);
    body.put_bytes(7, 16);
    let contexts_at = (64 + 36 + 2 * dialects.len()).next_multiple_of(8);
    body.put_u32_le(contexts_at as u32);
    body.put_slice(&[3, 0, 0, 0]);
    for dialect in dialects {
        body.put_u16_le(dialect);
    }
    body.resize(contexts_at - 64, 0);
    for (kind, data) in [
        (1_u16, vec![1, 0, 4, 0, 1, 0, 9, 9, 9, 9]),
        (2, vec![2, 0, input.byte() % 6, 0, 1, 0]),
        (8, vec![1, 0, input.byte() % 4, 0]),
    ] {
        body.put_u16_le(kind);
        body.put_u16_le(data.len() as u16);
        body.put_u32_le(0);
        body.put_slice(&data);
        let padded = body.len().next_multiple_of(8);
        body.resize(padded, 0);
    }
    Command::NEGOTIATE
}
