//! NEGOTIATE and SESSION_SETUP as a client goes through them, handler by handler, over every dialect; and that the records alone give
//! the same state.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::*;
use crate::auth::{client::Client, nt_hash};
use crate::command::negotiate::{answered as negotiate_answered, smb1, start as negotiate_start};
use crate::config::{Config, Limits, Share, User};
use crate::crypto::{Cipher, SessionKeys};
use crate::entropy::Entropy;
use crate::server::{Clock, ConnId, Journal, Output, Smb};
use crate::test_bytes::{WINDOWS_LOGIN, from_bytes, hex, to_bytes};
use crate::wire::negotiate::{Context as NegotiateContext, capabilities};
use crate::wire::{self, Component, Header, header};

const CONN: ConnId = 9;

struct Fixed;

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0x5A);
    }
}

/// Keeps the records as the log does.
#[derive(Default)]
struct Records {
    records: Vec<(ConnId, Vec<u8>)>,
    ids: u64,
}

impl Journal for Records {
    fn append(&mut self, conn: ConnId, record: &Record) {
        self.records.push((conn, to_bytes(record)));
    }

    fn unique_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

struct Server {
    smb: Smb,
    journal: Records,
}

fn config() -> Config {
    let user = |name: &str, password: &str| User {
        name: name.to_owned(),
        nt_hash: nt_hash(password),
    };
    Config {
        name: "OUTLAST".to_owned(),
        guid: [0xAB; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        shares: Vec::new(),
        users: vec![user("alice", "secret"), user("bob", "secret")],
        limits: Limits::default(),
    }
}

fn with_guest_share(mut config: Config) -> Config {
    config.shares.push(Share {
        name: "pub".to_owned(),
        comment: String::new(),
        read_only: true,
        guest: true,
        users: Vec::new(),
        encryption: Requirement::Enabled,
    });
    config
}

fn request(command: wire::Command, session: u64, body: &[u8]) -> (Request, wire::Request) {
    let head = Header {
        credit_charge: 1,
        status: NtStatus::SUCCESS,
        command,
        credits: 1,
        flags: wire::Flags(0),
        next_command: 0,
        message_id: 0,
        route: wire::Route::Sync {
            process_id: 0,
            tree_id: 0,
        },
        session_id: session,
        signature: [0; 16],
    };
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    bytes.extend_from_slice(body);
    from_component(&bytes)
}

fn from_component(bytes: &[u8]) -> (Request, wire::Request) {
    let component = Component::new(Bytes::copy_from_slice(bytes)).unwrap();
    let body = wire::Request::parse(&component).unwrap();
    let request = Request {
        session: component.header.session_id,
        tree: 0,
        related_open: None,
        bytes: component.bytes.clone(),
        sealed: false,
        waited: None,
        drawn: None,
        header: component.header,
    };
    (request, body)
}

/// The body of a NEGOTIATE request.
fn negotiate_body(dialects: &[u16], capabilities: u32, contexts: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16_le(36);
    body.put_u16_le(dialects.len() as u16);
    body.put_u16_le(1);
    body.put_u16_le(0);
    body.put_u32_le(capabilities);
    body.extend_from_slice(&[0xC1; 16]);
    let end = header::LEN + 36 + 2 * dialects.len();
    body.put_u32_le(end.next_multiple_of(8) as u32);
    body.put_u16_le(contexts.len() as u16);
    body.put_u16_le(0);
    dialects
        .iter()
        .for_each(|dialect| body.put_u16_le(*dialect));
    for (kind, data) in contexts {
        wire::pad(&mut body, 0, 8);
        body.put_u16_le(*kind);
        body.put_u16_le(data.len() as u16);
        body.put_u32_le(0);
        body.extend_from_slice(data);
    }
    body
}

const SHA_512: (u16, &[u8]) = (1, &[1, 0, 2, 0, 1, 0, 0xEE, 0xEE]);
const UNKNOWN: (u16, &[u8]) = (0x77, &[1, 2, 3]);

fn setup_body(security_mode: u8, previous: u64, token: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16_le(25);
    body.put_u8(0);
    body.put_u8(security_mode);
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_u16_le(88);
    body.put_u16_le(token.len() as u16);
    body.put_u64_le(previous);
    body.extend_from_slice(token);
    body
}

impl Server {
    fn new(config: Config) -> Server {
        let mut server = Server {
            smb: Smb::new(config),
            journal: Records::default(),
        };
        server.connect(CONN);
        server
    }

    fn connect(&mut self, conn: ConnId) {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.smb.connected(conn, client, &mut self.journal);
    }

    fn with<T>(&mut self, conn: ConnId, call: impl FnOnce(&mut Context<'_>) -> T) -> T {
        call(&mut Context {
            smb: &mut self.smb,
            conn,
            clock: Clock {
                now: Duration::from_secs(1),
                wall: 77,
            },
            entropy: &mut Fixed,
            journal: &mut self.journal,
            out: &mut Output::default(),
        })
    }

    fn negotiate_on(&mut self, conn: ConnId, body: &[u8]) -> Result<Handled, NtStatus> {
        let (request, body) = request(wire::Command::NEGOTIATE, 0, body);
        let wire::Request::Negotiate(body) = body else {
            panic!("not a NEGOTIATE");
        };
        let handled = self.with(conn, |ctx| negotiate_start(ctx, &request, &body));
        if let Ok(Handled::Reply(reply)) = &handled {
            let bytes = encode(reply);
            self.with(conn, |ctx| negotiate_answered(ctx, &bytes));
        }
        handled
    }

    fn negotiate(&mut self, body: &[u8]) -> Result<wire::negotiate::Response, NtStatus> {
        match self.negotiate_on(CONN, body)? {
            Handled::Reply(Reply {
                response: Response::Negotiate(response),
                ..
            }) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    fn setup_on(&mut self, conn: ConnId, session: u64, body: &[u8]) -> Result<Reply, NtStatus> {
        let (request, body) = request(wire::Command::SESSION_SETUP, session, body);
        let wire::Request::SessionSetup(body) = body else {
            panic!("not a SESSION_SETUP");
        };
        match self.with(conn, |ctx| start(ctx, &request, &body))? {
            Handled::Reply(reply) => {
                if reply.status == NtStatus::MORE_PROCESSING_REQUIRED {
                    let bytes = encode(&reply);
                    let id = reply.session.unwrap();
                    self.with(conn, |ctx| answered(ctx, id, &bytes));
                }
                Ok(reply)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Both legs. The session's id and flags, the client's session key, and the reply to the last leg.
    fn login_on(
        &mut self,
        conn: ConnId,
        session: u64,
        client: &Client,
        security_mode: u8,
        previous: u64,
    ) -> Result<(u64, u16, [u8; 16]), NtStatus> {
        let body = setup_body(security_mode, 0, &client.negotiate());
        let reply = self.setup_on(conn, session, &body)?;
        assert_eq!(reply.status, NtStatus::MORE_PROCESSING_REQUIRED);
        let id = reply.session.unwrap();
        let (token, key) = client.authenticate(&setup_of(&reply).security_buffer);
        let reply = self.setup_on(conn, id, &setup_body(security_mode, previous, &token))?;
        assert_eq!(reply.status, NtStatus::SUCCESS);
        assert_eq!(reply.session, Some(id));
        Ok((id, setup_of(&reply).session_flags, key))
    }

    fn login(&mut self, client: &Client) -> Result<(u64, u16, [u8; 16]), NtStatus> {
        self.login_on(CONN, 0, client, 1, 0)
    }

    fn security(&self, id: u64) -> &Security {
        &self.smb.connection(CONN).sessions[&id].security
    }

    fn is_over(&self, id: u64) -> bool {
        let session = self.smb.connection(CONN).sessions.get(&id);
        session.is_none_or(|session| session.security.state == SessionState::Ended)
    }

    /// Law 2.
    fn check_fold(&self) {
        let mut again = Smb::new(self.smb.config.clone());
        for (conn, record) in &self.journal.records {
            again.apply(*conn, &from_bytes(record).unwrap());
        }
        assert_eq!(again.checkpoint(CONN), self.smb.checkpoint(CONN));
    }
}

fn setup_of(reply: &Reply) -> &session_setup::Response {
    match &reply.response {
        Response::SessionSetup(response) => response,
        other => panic!("{other:?}"),
    }
}

/// A response's bytes with some header.
fn encode(reply: &Reply) -> Vec<u8> {
    let mut out = vec![0x33; header::LEN];
    let payload = reply.response.encode(&mut out);
    assert!(payload.is_empty());
    out
}

const ALICE: Client = Client {
    user: "alice",
    domain: "WORKGROUP",
    proved_domain: "WORKGROUP",
    password: "secret",
    ..Client::DEFAULT
};

#[test]
fn the_newest_dialect_in_common_is_chosen() {
    for (offered, min, max, chosen) in [
        (&[0x0202, 0x0210][..], "2.0.2", "3.1.1", Some("2.1")),
        (
            &[0x0202, 0x0210, 0x0300, 0x0302],
            "2.0.2",
            "3.1.1",
            Some("3.0.2"),
        ),
        (
            &[0x0202, 0x0210, 0x0300, 0x0302],
            "2.0.2",
            "2.0.2",
            Some("2.0.2"),
        ),
        (&[0x0302, 0x0300, 0x9999], "2.0.2", "3.0", Some("3.0")),
        (&[0x0202, 0x0210], "3.0", "3.1.1", None),
        (&[0x9999], "2.0.2", "3.1.1", None),
    ] {
        let mut server = Server::new(Config {
            min_dialect: Dialect::from_name(min).unwrap(),
            max_dialect: Dialect::from_name(max).unwrap(),
            ..config()
        });
        let response = server.negotiate(&negotiate_body(offered, capabilities::ENCRYPTION, &[]));
        let Some(chosen) = chosen else {
            assert_eq!(response, Err(NtStatus::NOT_SUPPORTED));
            continue;
        };
        let (response, dialect) = (response.unwrap(), Dialect::from_name(chosen).unwrap());
        assert_eq!(response.dialect_revision, dialect.revision());
        assert_eq!(response.security_mode, 1);
        assert_eq!(response.contexts, []);
        let large = dialect > Dialect::Smb202;
        assert_eq!(response.capabilities & capabilities::LARGE_MTU != 0, large);
        assert_eq!(
            response.max_read_size,
            if large { 8 << 20 } else { 64 << 10 }
        );
        let encrypts = dialect >= Dialect::Smb300;
        assert_eq!(
            response.capabilities & capabilities::ENCRYPTION != 0,
            encrypts
        );
        let negotiation = &server.smb.connection(CONN).negotiation;
        assert_eq!(negotiation.cipher, encrypts.then_some(Cipher::Aes128Ccm));
        assert_eq!(negotiation.capabilities, response.capabilities);
        server.check_fold();
    }
}

#[test]
fn contexts_of_3_1_1() {
    let all: &[u8] = &[4, 0, 1, 0, 2, 0, 4, 0, 3, 0];
    let cases: [(&[u8], &[u8], Cipher, SigningAlgorithm); 3] = [
        (
            all,
            &[3, 0, 0, 0, 1, 0, 2, 0],
            Cipher::Aes128Gcm,
            SigningAlgorithm::AesGmac,
        ),
        (
            &[2, 0, 3, 0, 4, 0],
            &[1, 0, 1, 0],
            Cipher::Aes256Gcm,
            SigningAlgorithm::AesCmac,
        ),
        (
            &[2, 0, 3, 0, 1, 0],
            &[1, 0, 9, 0],
            Cipher::Aes256Ccm,
            SigningAlgorithm::AesCmac,
        ),
    ];
    for (ciphers, algorithms, cipher, signing) in cases {
        let mut server = Server::new(config());
        let contexts = [UNKNOWN, (2, ciphers), (8, algorithms), SHA_512];
        let body = negotiate_body(&[0x0302, 0x0311], 0, &contexts);
        let response = server.negotiate(&body).unwrap();
        assert_eq!(response.dialect_revision, 0x0311);
        assert_eq!(response.capabilities, capabilities::LARGE_MTU);
        let [
            NegotiateContext::PreauthIntegrity {
                hash_algorithms,
                salt,
            },
            NegotiateContext::Encryption { ciphers },
            NegotiateContext::Signing { algorithms },
        ] = &response.contexts[..]
        else {
            panic!("{:?}", response.contexts);
        };
        assert_eq!((&hash_algorithms[..], salt.len()), (&[1][..], 32));
        assert_eq!(
            (&ciphers[..], &algorithms[..]),
            (&[cipher.id()][..], &[signing.id()][..])
        );
        let negotiation = server.smb.connection(CONN).negotiation.clone();
        assert_eq!(negotiation.cipher, Some(cipher));
        assert_eq!(negotiation.signing, Some(signing));
        server.check_fold();
    }
    let refuse = |contexts: &[(u16, &[u8])]| {
        let body = negotiate_body(&[0x0311], 0, contexts);
        Server::new(config()).negotiate(&body).unwrap_err()
    };
    assert_eq!(refuse(&[]), NtStatus::INVALID_PARAMETER);
    assert_eq!(
        refuse(&[(1, &[1, 0, 0, 0, 9, 0])]),
        NtStatus::SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP
    );
    let mut server = Server::new(Config {
        encryption: Requirement::Off,
        ..config()
    });
    let body = negotiate_body(&[0x0311], 0, &[SHA_512, (2, all)]);
    assert_eq!(server.negotiate(&body).unwrap().contexts.len(), 1);
    assert_eq!(server.smb.connection(CONN).negotiation.cipher, None);
}

#[test]
fn the_preauthentication_hash_covers_request_and_response() {
    let mut server = Server::new(config());
    let (request, body) = from_component(&hex(WINDOWS_LOGIN[0]));
    let wire::Request::Negotiate(body) = body else {
        panic!("not a NEGOTIATE");
    };
    let handled = server.with(CONN, |ctx| negotiate_start(ctx, &request, &body));
    assert!(matches!(handled, Ok(Handled::Reply(_))));
    // The server's answer of the vector in place of ours.
    server.with(CONN, |ctx| negotiate_answered(ctx, &hex(WINDOWS_LOGIN[1])));
    let expected = hex(
        "324BFA92A4F3A190E466EBEA08D9C110DC88BFED758D9846ECC6F541CC1D02AE3C94A79F36011E99\
         7E13F841B91B50957AD07B19C8E2539C0B23FDAE09D2C513",
    );
    let hash = server.smb.connection(CONN).negotiation.preauth.clone();
    assert_eq!(hash.unwrap().as_bytes()[..], expected);
}

#[test]
fn a_second_negotiate_drops_the_connection() {
    let mut server = Server::new(config());
    let body = negotiate_body(&[0x0210], 0, &[]);
    server.negotiate(&body).unwrap();
    assert!(matches!(
        server.negotiate_on(CONN, &body),
        Ok(Handled::Drop)
    ));
}

fn smb1_message(dialects: &[&str]) -> Bytes {
    let mut message = hex("FF534D4272000000001853C800000000000000000000000000000FFEE00000000000");
    message.truncate(32);
    let list: Vec<u8> = dialects
        .iter()
        .flat_map(|dialect| [&[2], dialect.as_bytes(), &[0]].concat())
        .collect();
    message.push(0);
    message.put_u16_le(list.len() as u16);
    message.extend(list);
    message.into()
}

#[test]
fn smb1_leads_to_smb2_or_nowhere() {
    let nt1 = smb1_message(&["PC NETWORK PROGRAM 1.0", "NT LM 0.12"]);
    let all = smb1_message(&["NT LM 0.12", "SMB 2.002", "SMB 2.???"]);
    let old = smb1_message(&["NT LM 0.12", "SMB 2.002"]);
    let revision = |handled: &Handled| match handled {
        Handled::Reply(Reply {
            response: Response::Negotiate(response),
            ..
        }) => response.dialect_revision,
        other => panic!("{other:?}"),
    };
    let mut server = Server::new(config());
    let handled = server.with(CONN, |ctx| smb1(ctx, &nt1));
    let Handled::Foreign(refusal) = handled else {
        panic!("{handled:?}");
    };
    assert_eq!(refusal[32..], [1, 0xFF, 0xFF, 0, 0]);
    let handled = server.with(CONN, |ctx| smb1(ctx, &all));
    assert_eq!(revision(&handled), 0x02FF);
    // The same again is against the protocol; SMB2's NEGOTIATE is what follows.
    let again = server.with(CONN, |ctx| smb1(ctx, &all));
    assert!(matches!(again, Handled::Drop));
    let response = server.negotiate(&negotiate_body(&[0x0210], 0, &[]));
    assert_eq!(response.unwrap().dialect_revision, 0x0210);
    let mut server = Server::new(config());
    let handled = server.with(CONN, |ctx| smb1(ctx, &old));
    assert_eq!(revision(&handled), 0x0202);
    let negotiation = &server.smb.connection(CONN).negotiation;
    assert_eq!(negotiation.dialect, Some(Dialect::Smb202));
    let mut server = Server::new(Config {
        min_dialect: Dialect::Smb210,
        ..config()
    });
    let handled = server.with(CONN, |ctx| smb1(ctx, &old));
    assert!(matches!(handled, Handled::Foreign(_)));
    let echo = hex("FF534D422B00");
    let handled = server.with(CONN, |ctx| smb1(ctx, &echo.into()));
    assert!(matches!(handled, Handled::Drop));
}

fn negotiated(config: Config, dialect: Dialect) -> Server {
    let mut server = Server::new(config);
    let contexts: &[(u16, &[u8])] = &[SHA_512, (2, &[1, 0, 2, 0]), (8, &[1, 0, 2, 0])];
    let body = negotiate_body(&[dialect.revision()], capabilities::ENCRYPTION, contexts);
    server.negotiate(&body).unwrap();
    server
}

#[test]
fn a_login_gives_the_keys_of_its_dialect() {
    for dialect in Dialect::ALL {
        let mut server = negotiated(config(), dialect);
        let (id, flags, key) = server.login(&ALICE).unwrap();
        assert_eq!(flags, 0);
        let security = server.security(id);
        assert_eq!(security.state, SessionState::Valid);
        assert_eq!(security.user.as_deref(), Some("alice"));
        assert_eq!(security.handshake, None);
        assert!(!security.signing_required && !security.encrypt);
        let keys = security.keys.as_ref().unwrap();
        let expected = match dialect {
            Dialect::Smb202 | Dialect::Smb210 => SigningAlgorithm::HmacSha256,
            Dialect::Smb300 | Dialect::Smb302 => SigningAlgorithm::AesCmac,
            Dialect::Smb311 => SigningAlgorithm::AesGmac,
        };
        assert_eq!(keys.signing.algorithm(), expected);
        assert_eq!(keys.encryption.is_some(), dialect >= Dialect::Smb300);
        if dialect < Dialect::Smb311 {
            let cipher = keys.encryption.as_ref().map(|key| key.cipher());
            let same = SessionKeys::derive(
                dialect,
                expected,
                cipher,
                &Secret::from(key),
                &PreauthHash::START,
            );
            assert_eq!(*keys, same);
        }
        server.check_fold();
    }
}

#[test]
fn the_session_hash_covers_three_messages_of_the_set_up() {
    let mut server = negotiated(config(), Dialect::Smb311);
    let mut hash = server
        .smb
        .connection(CONN)
        .negotiation
        .preauth
        .clone()
        .unwrap();
    let first = setup_body(1, 0, &ALICE.negotiate());
    let reply = server.setup_on(CONN, 0, &first).unwrap();
    let id = reply.session.unwrap();
    hash.update(&[request(wire::Command::SESSION_SETUP, 0, &first).0.bytes]);
    hash.update(&[encode(&reply)]);
    assert_eq!(server.security(id).preauth.as_ref(), Some(&hash));
    let (token, key) = ALICE.authenticate(&setup_of(&reply).security_buffer);
    let second = setup_body(1, 0, &token);
    server.setup_on(CONN, id, &second).unwrap();
    hash.update(&[request(wire::Command::SESSION_SETUP, id, &second).0.bytes]);
    let keys = SessionKeys::derive(
        Dialect::Smb311,
        SigningAlgorithm::AesGmac,
        Some(Cipher::Aes128Gcm),
        &Secret::from(key),
        &hash,
    );
    assert_eq!(server.security(id).keys, Some(keys));
}

#[test]
fn a_crash_between_the_legs_changes_nothing() {
    let mut server = negotiated(config(), Dialect::Smb311);
    let body = setup_body(1, 0, &ALICE.negotiate());
    let reply = server.setup_on(CONN, 0, &body).unwrap();
    let mut recovered = Server {
        smb: Smb::new(config()),
        journal: Records {
            ids: server.journal.ids,
            ..Records::default()
        },
    };
    for (conn, record) in &server.journal.records {
        recovered.smb.apply(*conn, &from_bytes(record).unwrap());
    }
    let id = reply.session.unwrap();
    let (token, _) = ALICE.authenticate(&setup_of(&reply).security_buffer);
    let body = setup_body(1, 0, &token);
    assert_eq!(
        recovered.setup_on(CONN, id, &body),
        server.setup_on(CONN, id, &body)
    );
    assert_eq!(recovered.smb.checkpoint(CONN), server.smb.checkpoint(CONN));
}

#[test]
fn failed_logins_leave_no_session() {
    let mut server = negotiated(config(), Dialect::Smb302);
    let wrong = Client {
        password: "Secret",
        ..ALICE
    };
    assert_eq!(server.login(&wrong), Err(NtStatus::LOGON_FAILURE));
    let left = server.smb.connection(CONN).sessions.values();
    assert!(
        left.into_iter()
            .all(|session| session.security.state == SessionState::Ended)
    );
    let body = setup_body(1, 0, b"rubbish");
    assert_eq!(
        server.setup_on(CONN, 0, &body),
        Err(NtStatus::INVALID_PARAMETER)
    );
    assert_eq!(
        server.setup_on(CONN, 4711, &body),
        Err(NtStatus::USER_SESSION_DELETED)
    );
    let mut binding = setup_body(1, 0, &ALICE.negotiate());
    binding[2] = session_setup::FLAG_BINDING;
    assert_eq!(
        server.setup_on(CONN, 0, &binding),
        Err(NtStatus::REQUEST_NOT_ACCEPTED)
    );
    server.check_fold();
}

#[test]
fn sessions_are_bounded() {
    let mut config = config();
    config.limits.sessions = 2;
    let mut server = negotiated(config, Dialect::Smb210);
    let body = setup_body(1, 0, &ALICE.negotiate());
    assert!(server.setup_on(CONN, 0, &body).is_ok());
    assert!(server.setup_on(CONN, 0, &body).is_ok());
    assert_eq!(
        server.setup_on(CONN, 0, &body),
        Err(NtStatus::REQUEST_NOT_ACCEPTED)
    );
}

#[test]
fn guest_and_anonymous_only_where_a_share_lets_them_and_nothing_is_required() {
    let guest = Client {
        user: "guest",
        ..ALICE
    };
    let mut server = negotiated(config(), Dialect::Smb311);
    assert_eq!(server.login(&guest), Err(NtStatus::LOGON_FAILURE));
    assert_eq!(
        server.login(&Client::ANONYMOUS),
        Err(NtStatus::ACCESS_DENIED)
    );
    let mut server = negotiated(with_guest_share(config()), Dialect::Smb311);
    for (client, flag) in [(&guest, 1), (&Client::ANONYMOUS, 2)] {
        // Even if the client would like to sign.
        let (id, flags, _) = server.login_on(CONN, 0, client, 3, 0).unwrap();
        assert_eq!(flags, flag);
        let security = server.security(id);
        assert_eq!((&security.user, &security.keys), (&None, &None));
        assert!(!security.signing_required);
    }
    for (signing, encryption) in [
        (Requirement::Required, Requirement::Enabled),
        (Requirement::Enabled, Requirement::Required),
    ] {
        let mut server = negotiated(
            Config {
                signing,
                encryption,
                ..with_guest_share(config())
            },
            Dialect::Smb311,
        );
        for client in [&guest, &Client::ANONYMOUS] {
            assert_eq!(server.login(client), Err(NtStatus::ACCESS_DENIED));
        }
        assert!(server.login(&ALICE).is_ok());
    }
}

#[test]
fn signing_and_encryption_as_required() {
    let mut server = negotiated(config(), Dialect::Smb210);
    let (id, _, _) = server.login_on(CONN, 0, &ALICE, 2, 0).unwrap();
    assert!(server.security(id).signing_required);
    let mut server = negotiated(
        Config {
            signing: Requirement::Required,
            ..config()
        },
        Dialect::Smb210,
    );
    let (id, _, _) = server.login(&ALICE).unwrap();
    assert!(server.security(id).signing_required);
    let required = Config {
        encryption: Requirement::Required,
        ..config()
    };
    let mut server = negotiated(required.clone(), Dialect::Smb300);
    let (id, flags, _) = server.login(&ALICE).unwrap();
    assert_eq!(flags, session_setup::SESSION_FLAG_ENCRYPT_DATA);
    assert!(server.security(id).encrypt);
    let mut server = negotiated(required, Dialect::Smb210);
    assert_eq!(server.login(&ALICE), Err(NtStatus::ACCESS_DENIED));
}

#[test]
fn authenticating_again_keeps_the_keys() {
    let mut server = negotiated(with_guest_share(config()), Dialect::Smb311);
    let (id, _, _) = server.login(&ALICE).unwrap();
    let keys = server.security(id).keys.clone();
    let (again, _, _) = server.login_on(CONN, id, &ALICE, 1, 0).unwrap();
    assert_eq!(again, id);
    assert_eq!(server.security(id).keys, keys);
    // Half way the session goes on being valid.
    let body = setup_body(1, 0, &ALICE.negotiate());
    server.setup_on(CONN, id, &body).unwrap();
    assert_eq!(server.security(id).state, SessionState::Valid);
    server.check_fold();
    let wrong = Client {
        password: "",
        ..ALICE
    };
    let challenge = server.setup_on(CONN, id, &body);
    assert!(challenge.is_err(), "NEGOTIATE in place of AUTHENTICATE");
    assert!(server.is_over(id));
    let (id, _, _) = server.login(&ALICE).unwrap();
    assert_eq!(
        server.login_on(CONN, id, &wrong, 1, 0),
        Err(NtStatus::LOGON_FAILURE)
    );
    assert!(server.is_over(id));
    // A session with keys does not become one without.
    let (id, _, _) = server.login(&ALICE).unwrap();
    assert_eq!(
        server.login_on(CONN, id, &Client::ANONYMOUS, 1, 0),
        Err(NtStatus::ACCESS_DENIED)
    );
}

#[test]
fn the_previous_session_of_the_same_user_ends() {
    let mut server = negotiated(config(), Dialect::Smb210);
    let (lost, _, _) = server.login(&ALICE).unwrap();
    const OTHER: ConnId = 10;
    server.connect(OTHER);
    let body = negotiate_body(&[0x0210], 0, &[]);
    assert!(server.negotiate_on(OTHER, &body).is_ok());
    let bob = Client {
        user: "bob",
        ..ALICE
    };
    server.login_on(OTHER, 0, &bob, 1, lost).unwrap();
    assert_eq!(server.security(lost).state, SessionState::Valid);
    server.login_on(OTHER, 0, &ALICE, 1, lost).unwrap();
    assert!(server.is_over(lost));
    server.check_fold();
}
