//! Sends security tokens: SPNEGO and NTLM, in any order, damaged, or correct up to the proof.

use crate::input::Input;
use outlast_smb::auth::client::Client;
use outlast_smb::auth::{Handshake, Identity, Progress, Refused, nt_hash};
use outlast_smb::{Config, Dialect, Entropy, Limits, Oplocks, Requirement, User};

pub(crate) const PASSWORD: &str = "correct";

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

fn config() -> Config {
    Config {
        name: "OUTLAST".into(),
        guid: [7; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares: Vec::new(),
        users: vec![User {
            name: "user".into(),
            nt_hash: nt_hash(PASSWORD),
        }],
        limits: Limits::default(),
    }
}

/// One DER element.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match contents.len() {
        short @ 0..0x80 => out.push(short as u8),
        long => {
            out.push(0x82);
            out.extend((long as u16).to_be_bytes());
        }
    }
    out.extend(contents);
    out
}

const SPNEGO: &[u8] = &[0x06, 6, 0x2B, 0x06, 0x01, 0x05, 0x05, 0x02];
const NTLM: &[u8] = &[
    0x06, 10, 0x2B, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0A,
];
const KERBEROS: &[u8] = &[
    0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x12, 0x01, 0x02, 0x02,
];

pub(crate) fn init(token: &[u8], ntlm_first: bool) -> Vec<u8> {
    let mechanisms = match ntlm_first {
        true => [NTLM, KERBEROS].concat(),
        false => [KERBEROS, NTLM].concat(),
    };
    let parts = [
        der(0xA0, &der(0x30, &mechanisms)),
        der(0xA2, &der(0x04, token)),
    ];
    let init = der(0xA0, &der(0x30, &parts.concat()));
    der(0x60, &[SPNEGO, init.as_slice()].concat())
}

pub(crate) fn resp(token: &[u8], mic: Option<&[u8]>) -> Vec<u8> {
    let mut parts = der(0xA2, &der(0x04, token));
    if let Some(mic) = mic {
        parts.extend(der(0xA3, &der(0x04, mic)));
    }
    der(0xA1, &der(0x30, &parts))
}

/// The CHALLENGE message in the server's token, if there is one.
pub(crate) fn challenge(token: &[u8]) -> Option<&[u8]> {
    let at = token.windows(8).position(|bytes| bytes == b"NTLMSSP\0")?;
    Some(&token[at..])
}

/// Changes length or place of a field of an AUTHENTICATE message (MS-NLMP 2.2.1.3), or its flags.
fn edit_field(input: &mut Input<'_>, message: &mut [u8]) {
    let value = match input.byte() {
        small @ 0..200 => u32::from(small),
        flag @ 200..232 => 1 << (flag - 200),
        _ => input.u32(),
    };
    let start = 12 + 8 * input.below(7);
    let (at, width) = match input.yes() {
        true => (start, 2),
        false => (start + 4, 4),
    };
    if let Some(field) = message.get_mut(at..at + width) {
        field.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// No client without the password is logged in as the user; anything else is refused or continued, and the state
/// survives the log.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let config = config();
    let choices = input.byte();
    let knows = choices & 1 == 1;
    let client = Client {
        password: if knows { PASSWORD } else { "wrong" },
        mic: choices & 2 != 0,
        flags: match choices & 4 {
            0 => Client::DEFAULT.flags,
            _ => input.u32(),
        },
        user: match choices & 8 {
            0 => "user",
            _ => input.pick(&["", "guest", "USER", "user@domain", "DOMAIN\\user"]),
        },
        ..Client::DEFAULT
    };
    let mut handshake = Handshake::new();
    let mut came: Option<Vec<u8>> = None;
    for _ in 0..8 {
        let mut message = match (input.below(4), came.as_deref().and_then(challenge)) {
            (0, _) => input.bytes().to_vec(),
            (_, None) => client.negotiate(),
            (_, Some(challenge)) if challenge.len() >= 56 => client.authenticate(challenge).0,
            (_, Some(_)) => input.bytes().to_vec(),
        };
        input.edit(&mut message);
        if input.byte() & 3 == 3 {
            edit_field(&mut input, &mut message);
        }
        let mut token = match input.below(6) {
            0 => message,
            1 => init(&message, true),
            2 => init(&message, false),
            3 => resp(&message, Some(input.take(16))),
            _ => resp(&message, None),
        };
        input.edit(&mut token);
        match handshake.step(&token, &config, 1, &mut Zeros) {
            Ok(Progress::Continue { token }) => {
                assert!(token.len() < 64 << 10, "longer than a response can hold");
                came = Some(token);
            }
            Ok(Progress::Complete {
                identity,
                session_key,
                ..
            }) => {
                if let Identity::User(name) = &identity {
                    assert!(knows, "let in as {name} without the password");
                }
                assert_eq!(session_key.is_some(), matches!(identity, Identity::User(_)));
                return;
            }
            Err(Refused::Malformed | Refused::Unsupported | Refused::LogonFailure) => {}
        }
        let mut record = Vec::new();
        outlast_nvram::codec::encode(&handshake, &mut record);
        let again: Handshake = outlast_nvram::codec::decode(&record).expect("it can be read back");
        assert_eq!(again, handshake);
        if input.is_empty() {
            return;
        }
    }
}

/// Logins in every way, right and wrong.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // A message's kind, its edits, its fields' edits, its wrapping, edits of that.
    let leg = |wrapping| [1, 0, 0, wrapping, 0];
    let mut seeds = Vec::new();
    for choices in 0..4_u8 {
        for first in [0, 1, 2, 4] {
            let later = if first == 0 { 0 } else { 4 };
            let legs = [leg(first), leg(later), leg(later)].concat();
            seeds.push([&[choices], legs.as_slice()].concat());
        }
    }
    for name in 0..5_u8 {
        seeds.push([&[8, name], [leg(1), leg(4)].concat().as_slice()].concat());
    }
    // The right message with one of its fields at another place, or of another length.
    for field in 0..7 {
        for is_length in [0, 1] {
            let wrong = [1, 0, 3, 16, field, is_length, 4, 0];
            seeds.push([&[0], leg(1).as_slice(), &wrong].concat());
        }
    }
    seeds
}
