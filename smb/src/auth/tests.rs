//! Tests authentication with the vectors of MS-NLMP 4.2.4, with a Windows client's and server's tokens, and with the
//! test client.

use proptest::prelude::*;

use super::client::Client;
use super::*;
use crate::config::{Limits, Oplocks, Requirement, User};
use crate::tests::bytes::{WINDOWS_LOGIN, WINDOWS_SESSION_KEY, from_bytes, hex, to_bytes};
use crate::wire::{Dialect, utf16};

struct Fixed;

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0x5A);
    }
}

fn config() -> Config {
    let user = |name: &str, password: &str| User {
        name: name.to_owned(),
        nt_hash: nt_hash(password),
    };
    Config {
        name: "Outlast".to_owned(),
        guid: [1; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares: Vec::new(),
        users: vec![user("User", "Password"), user("jürgen", "Grüße")],
        limits: Limits::default(),
    }
}

#[test]
fn ms_nlmp_4_2_4() {
    let hash = nt_hash("Password");
    assert_eq!(hash[..], hex("a4f49c406510bdcab6824ee7c30fd852"));
    let ntowf = ntlm::ntowf_v2(&hash, "User", "Domain");
    assert_eq!(ntowf[..], hex("0c868a403bfd7a93a3001ef22ef02e3f"));
    let message = hex(
        "4e544c4d5353500003000000180018006c00000054005400840000000c000c00480000000800080054000000\
         100010005c00000010001000d8000000358288e20501280a0000000f44006f006d00610069006e0055007300\
         6500720043004f004d005000550054004500520086c35097ac9cec102554764a57cccc19aaaaaaaaaaaaaaaa\
         68cd0ab851e51c96aabc927bebef6a1c01010000000000000000000000000000aaaaaaaaaaaaaaaa00000000\
         02000c0044006f006d00610069006e0001000c005300650072007600650072000000000000000000\
         c5dad2544fc9799094ce1ce90bc9d03e",
    );
    let mut handshake = Handshake {
        challenged: Some(Challenged {
            server_challenge: hex("0123456789abcdef").try_into().unwrap(),
            negotiate: Vec::new(),
            challenge: Vec::new(),
        }),
        ..Handshake::new()
    };
    let done = handshake.step(&message, &config(), 0, &mut Fixed).unwrap();
    assert_eq!(
        done,
        Progress::Complete {
            token: Vec::new(),
            identity: Identity::User("User".to_owned()),
            session_key: Some(Secret::from([0x55; 16])),
        }
    );
}

/// The SPNEGO tokens of the Windows login, out of its SMB2 messages.
fn windows_token(index: usize, offset: usize) -> Vec<u8> {
    hex(WINDOWS_LOGIN[index])[offset..].to_vec()
}

#[test]
fn windows_tokens_mic_and_mech_list_mic() {
    let key: [u8; 16] = hex(WINDOWS_SESSION_KEY).try_into().unwrap();
    let (first, second, third) = (
        windows_token(2, 88),
        windows_token(3, 72),
        windows_token(4, 88),
    );
    let Some(Token::Init(init)) = spnego::parse(&first) else {
        panic!("not a NegTokenInit");
    };
    assert!(init.offers_ntlm && init.prefers_ntlm);
    let Some(Token::Resp(challenge)) = spnego::parse(&second) else {
        panic!("not a NegTokenResp");
    };
    let Some(Token::Resp(resp)) = spnego::parse(&third) else {
        panic!("not a NegTokenResp");
    };
    let (negotiate, challenge) = (init.token.unwrap(), challenge.token.unwrap());
    let token = resp.token.unwrap();
    let message = Authenticate::parse(token).unwrap();
    assert_eq!(message.user, "administrator");
    assert_eq!(message.domain, "SUT311");
    assert!(message.announces_mic());
    let (computed, came) = ntlm::mic(&key, negotiate, challenge, token).unwrap();
    assert_eq!(computed, came);
    let mic = ntlm::signature(&key, message.flags, Signer::Client, init.mech_types).unwrap();
    assert_eq!(mic[..], *resp.mech_list_mic.unwrap());
    // The challenge equals that of the Windows server.
    let ours = ntlm::challenge(
        ntlm::parse_negotiate(negotiate).unwrap(),
        challenge[24..32].try_into().unwrap(),
        "SUT311",
        u64::from_le_bytes(hex("A1A1F5ADCBAED001").try_into().unwrap()),
    );
    // Flags: Windows drops IDENTIFY and the like by its own policy; the version differs.
    assert_eq!(ours[..20], challenge[..20]);
    assert_eq!(ours[24..48], challenge[24..48]);
    assert_eq!(ours[56..], *lower_case_dns_names(challenge));
    assert_eq!(
        spnego::respond(NegState::AcceptIncomplete, true, Some(challenge), None),
        second
    );
}

/// The payload of a CHALLENGE with its DNS names in lower case, as ours has them.
fn lower_case_dns_names(challenge: &[u8]) -> Vec<u8> {
    let mut payload = challenge[56..].to_vec();
    let name = utf16::encode("SUT311");
    let lower = utf16::encode("sut311");
    for at in [12 + 16 * 2 + 4, 12 + 16 * 3 + 4] {
        assert_eq!(payload[at..at + 12], name);
        payload[at..at + 12].copy_from_slice(&lower);
    }
    payload
}

const CLIENT: Client = Client {
    user: "user",
    password: "Password",
    ..Client::DEFAULT
};

impl Client {
    /// Both legs without SPNEGO.
    fn login(&self) -> Result<Progress, Refused> {
        let mut handshake = Handshake::new();
        let challenge = handshake.step(&self.negotiate(), &config(), 7, &mut Fixed)?;
        let Progress::Continue { token } = challenge else {
            panic!("no challenge");
        };
        let (message, _) = self.authenticate(&token);
        handshake.step(&message, &config(), 7, &mut Fixed)
    }
}

fn who(progress: Result<Progress, Refused>) -> Result<Identity, Refused> {
    match progress? {
        Progress::Complete { identity, .. } => Ok(identity),
        Progress::Continue { .. } => panic!("not complete"),
    }
}

#[test]
fn right_password_logs_in_whatever_the_domain() {
    let user = Ok(Identity::User("User".to_owned()));
    assert_eq!(who(CLIENT.login()), user);
    for (name, domain, proved_domain) in [
        ("USER", "workgroup", "workgroup"),
        ("USER", "workgroup", "WORKGROUP"),
        ("User", "workgroup", ""),
        ("user@outlast", "", ""),
        ("OUTLAST\\user", "", ""),
    ] {
        let client = Client {
            user: name,
            domain,
            proved_domain,
            ..CLIENT
        };
        assert_eq!(who(client.login()), user, "{name} {domain} {proved_domain}");
    }
    let client = Client {
        user: "Jürgen",
        password: "Grüße",
        ..CLIENT
    };
    assert_eq!(who(client.login()), Ok(Identity::User("jürgen".to_owned())));
}

#[test]
fn wrong_password_or_user_is_refused_with_and_without_mic() {
    for mic in [true, false] {
        for (user, password) in [("user", "password"), ("nobody", "Password"), ("nobody", "")] {
            let client = Client {
                user,
                password,
                mic,
                ..CLIENT
            };
            assert_eq!(who(client.login()), Err(Refused::LogonFailure));
        }
    }
    let client = Client {
        proved_domain: "ELSEWHERE",
        ..CLIENT
    };
    assert_eq!(who(client.login()), Err(Refused::LogonFailure));
}

#[test]
fn a_log_names_the_user_of_a_login_that_fails() {
    let mut handshake = Handshake::new();
    let Ok(Progress::Continue { token }) =
        handshake.step(&CLIENT.negotiate(), &config(), 7, &mut Fixed)
    else {
        panic!("no challenge");
    };
    assert_eq!(claimed_user(&CLIENT.negotiate()), None);
    let (message, _) = CLIENT.authenticate(&token);
    assert_eq!(claimed_user(&message).as_deref(), Some("user"));
    assert_eq!(claimed_user(&message[..70]), None);
    assert_eq!(claimed_user(b"no token"), None);
}

#[test]
fn an_announced_mic_is_verified() {
    let mut handshake = Handshake::new();
    let Ok(Progress::Continue { token }) =
        handshake.step(&CLIENT.negotiate(), &config(), 7, &mut Fixed)
    else {
        panic!("no challenge");
    };
    let (mut message, _) = CLIENT.authenticate(&token);
    message[80] ^= 1;
    assert_eq!(
        handshake.clone().step(&message, &config(), 7, &mut Fixed),
        Err(Refused::LogonFailure)
    );
    // A flag that only the MIC covers is cleared.
    message[80] ^= 1;
    message[60] ^= flags::SIGN as u8;
    assert_eq!(
        handshake.clone().step(&message, &config(), 7, &mut Fixed),
        Err(Refused::LogonFailure)
    );
}

#[test]
fn old_responses_are_refused() {
    let mut handshake = Handshake::new();
    handshake
        .step(&CLIENT.negotiate(), &config(), 7, &mut Fixed)
        .unwrap();
    for response in [&[0x11; 24][..], &[0x11; 16], &[]] {
        let message = CLIENT.message(flags::SUPPORTED, response, &[]);
        assert_eq!(
            handshake.clone().step(&message, &config(), 7, &mut Fixed),
            Err(Refused::Unsupported)
        );
    }
    // An NTLMv2 response with malformed AV pairs, as a diagnostic tool of Microsoft sends it.
    let mut garbage = vec![0xAB; 16];
    garbage.extend([1, 1, 0, 0, 0, 0, 0, 0]);
    garbage.extend([0x3F; 71]);
    let message = CLIENT.message(flags::SUPPORTED, &garbage, &[]);
    assert_eq!(
        handshake.clone().step(&message, &config(), 7, &mut Fixed),
        Err(Refused::Malformed)
    );
    let oem = Client {
        flags: flags::NTLM,
        ..CLIENT
    };
    assert_eq!(
        Handshake::new().step(&oem.negotiate(), &config(), 7, &mut Fixed),
        Err(Refused::Unsupported)
    );
}

#[test]
fn anonymous_and_guest_are_recognized() {
    let mut handshake = Handshake::new();
    handshake
        .step(&CLIENT.negotiate(), &config(), 7, &mut Fixed)
        .unwrap();
    let anonymous = Client {
        user: "",
        domain: "",
        ..CLIENT
    };
    let message = anonymous.message(flags::SUPPORTED, &[], &[0; 16]);
    let progress = handshake.clone().step(&message, &config(), 7, &mut Fixed);
    assert_eq!(
        progress,
        Ok(Progress::Complete {
            token: Vec::new(),
            identity: Identity::Anonymous,
            session_key: None,
        })
    );
    let guest = Client {
        user: "Guest",
        password: "",
        ..CLIENT
    };
    assert_eq!(who(guest.login()), Ok(Identity::Guest));
}

/// A NegTokenInit with these mechanisms (NTLMSSP is `true`, Kerberos `false`).
fn init(mechanisms: &[bool], token: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let list: Vec<u8> = mechanisms
        .iter()
        .flat_map(|ntlm| match ntlm {
            true => hex("060A2B06010401823702020A"),
            false => hex("06092A864886F712010202"),
        })
        .collect();
    let mech_types = der::encode(der::SEQUENCE, &list);
    let mut fields = der::encode(der::context(0), &mech_types);
    if let Some(token) = token {
        let token = der::encode(der::OCTET_STRING, token);
        fields.extend(der::encode(der::context(2), &token));
    }
    let init = der::encode(der::context(0), &der::encode(der::SEQUENCE, &fields));
    let spnego = hex("06062B0601050502");
    let token = der::encode(der::APPLICATION_0, &[spnego, init].concat());
    (token, mech_types)
}

fn resp(token: &[u8], mic: Option<&[u8]>) -> Vec<u8> {
    spnego::respond(NegState::AcceptIncomplete, false, Some(token), mic)
}

/// The NTLM token in the server's answer.
fn inner(progress: Progress) -> Option<Vec<u8>> {
    let Progress::Continue { token } = progress else {
        panic!("complete already");
    };
    let Some(Token::Resp(resp)) = spnego::parse(&token) else {
        panic!("not a NegTokenResp");
    };
    resp.token.map(<[u8]>::to_vec)
}

#[test]
fn spnego_with_mech_list_mic() {
    let mut handshake = Handshake::new();
    let (first, mech_types) = init(&[true, false], Some(&CLIENT.negotiate()));
    let progress = handshake.step(&first, &config(), 7, &mut Fixed).unwrap();
    let (message, key) = CLIENT.authenticate(&inner(progress).unwrap());
    let mic = ntlm::signature(&key, flags::SUPPORTED, Signer::Client, &mech_types).unwrap();
    let mut wrong = mic;
    wrong[5] ^= 4;
    assert_eq!(
        handshake
            .clone()
            .step(&resp(&message, Some(&wrong)), &config(), 7, &mut Fixed),
        Err(Refused::LogonFailure)
    );
    let without = handshake
        .clone()
        .step(&resp(&message, None), &config(), 7, &mut Fixed);
    assert_eq!(who(without), Ok(Identity::User("User".to_owned())));
    // A crash in between: the state is read from the log.
    let mut handshake: Handshake = from_bytes(&to_bytes(&handshake)).unwrap();
    let done = handshake
        .step(&resp(&message, Some(&mic)), &config(), 9, &mut Fixed)
        .unwrap();
    let Progress::Complete {
        token, session_key, ..
    } = done
    else {
        panic!("not complete");
    };
    assert_eq!(session_key, Some(Secret::from(key)));
    let Some(Token::Resp(last)) = spnego::parse(&token) else {
        panic!("not a NegTokenResp");
    };
    let expected = ntlm::signature(&key, flags::SUPPORTED, Signer::Server, &mech_types).unwrap();
    assert_eq!(last.mech_list_mic, Some(&expected[..]));
}

#[test]
fn spnego_falls_back_to_ntlm_only_with_mic() {
    let mut handshake = Handshake::new();
    let (first, mech_types) = init(&[false, true], Some(b"a Kerberos token"));
    let progress = handshake.step(&first, &config(), 7, &mut Fixed).unwrap();
    assert_eq!(inner(progress), None);
    let progress = handshake
        .step(&resp(&CLIENT.negotiate(), None), &config(), 7, &mut Fixed)
        .unwrap();
    let (message, key) = CLIENT.authenticate(&inner(progress).unwrap());
    let without = handshake
        .clone()
        .step(&resp(&message, None), &config(), 7, &mut Fixed);
    assert_eq!(without, Err(Refused::LogonFailure));
    let mic = ntlm::signature(&key, flags::SUPPORTED, Signer::Client, &mech_types).unwrap();
    let with = handshake.step(&resp(&message, Some(&mic)), &config(), 7, &mut Fixed);
    assert_eq!(who(with), Ok(Identity::User("User".to_owned())));
}

#[test]
fn tokens_out_of_order_are_refused() {
    let (first, _) = init(&[true], Some(&CLIENT.negotiate()));
    let (kerberos, _) = init(&[false], None);
    let step = |handshake: &mut Handshake, token: &[u8]| {
        handshake.step(token, &config(), 7, &mut Fixed).map(|_| ())
    };
    assert_eq!(
        step(&mut Handshake::new(), &kerberos),
        Err(Refused::Unsupported)
    );
    assert_eq!(
        step(&mut Handshake::new(), &resp(&CLIENT.negotiate(), None)),
        Err(Refused::Malformed)
    );
    let mut handshake = Handshake::new();
    assert_eq!(step(&mut handshake, &first), Ok(()));
    assert_eq!(step(&mut handshake, &first), Err(Refused::Malformed));
    assert_eq!(
        step(&mut handshake, &CLIENT.negotiate()),
        Err(Refused::Malformed)
    );
    // AUTHENTICATE without a CHALLENGE before it.
    let message = CLIENT.message(flags::SUPPORTED, &[], &[]);
    assert_eq!(
        step(&mut Handshake::new(), &message),
        Err(Refused::Malformed)
    );
}

#[test]
fn the_offer_names_ntlm() {
    let offer = offer();
    let Some(Token::Init(init)) = spnego::parse(&offer) else {
        panic!("not a NegTokenInit");
    };
    assert!(init.prefers_ntlm);
    assert_eq!(init.token, None);
}

proptest! {
    #[test]
    fn arbitrary_tokens_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Handshake::new().step(&bytes, &config(), 7, &mut Fixed);
        let _ = ntlm::parse_negotiate(&bytes);
        let _ = spnego::parse(&bytes);
    }

    #[test]
    fn damaged_tokens_never_panic_nor_log_in(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 1u8..), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut handshake = Handshake::new();
        let (first, mech_types) = init(&[true], Some(&CLIENT.negotiate()));
        let progress = handshake.step(&first, &config(), 7, &mut Fixed).unwrap();
        let (message, key) = CLIENT.authenticate(&inner(progress).unwrap());
        let mic = ntlm::signature(&key, flags::SUPPORTED, Signer::Client, &mech_types).unwrap();
        let last = resp(&message, Some(&mic));
        for mut token in [first, last, message.clone()] {
            let whole = token.clone();
            for (at, change) in &flips {
                let at = at.index(token.len());
                token[at] ^= change;
            }
            let damaged = handshake.clone().step(&token, &config(), 7, &mut Fixed);
            if let Ok(Progress::Complete { identity: Identity::User(_), .. }) = damaged {
                // No MIC covers the changed bytes: SPNEGO's own framing, or flips that cancel each other.
                let inside = token.windows(message.len()).any(|window| window == message);
                prop_assert!(inside || token == whole);
            }
            token.truncate(cut.index(token.len()));
            let _ = handshake.clone().step(&token, &config(), 7, &mut Fixed);
            let _ = Handshake::new().step(&token, &config(), 7, &mut Fixed);
        }
    }
}
