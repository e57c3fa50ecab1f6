//! Tests logins over every dialect; the fold of the records equals the state.

use super::*;
use crate::auth::client::Client;
use crate::config::Config;
use crate::crypto::{Cipher, SessionKeys};
use crate::server::{ConnId, Smb};
use crate::tests::bytes::from_bytes;
use crate::tests::testing::{
    ALICE, CONN, Records, Server, config, encode, negotiate_body, negotiated, request, setup_body,
    setup_of, with_guest_share,
};
use crate::wire;

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
    config.limits.sessions = 3;
    let mut server = negotiated(config, Dialect::Smb210);
    server.login(&ALICE).unwrap();
    let body = setup_body(1, 0, &ALICE.negotiate());
    assert!(server.setup_on(CONN, 0, &body).is_ok());
    assert!(server.setup_on(CONN, 0, &body).is_ok());
    assert_eq!(
        server.setup_on(CONN, 0, &body),
        Err(NtStatus::REQUEST_NOT_ACCEPTED)
    );
}

#[test]
fn of_set_ups_in_progress_the_oldest_ends() {
    let mut server = negotiated(config(), Dialect::Smb210);
    let body = setup_body(1, 0, &ALICE.negotiate());
    let mut begin = || server.setup_on(CONN, 0, &body).unwrap().session.unwrap();
    let begun: Vec<u64> = (0..4).map(|_| begin()).collect();
    let over: Vec<bool> = begun.iter().map(|id| server.is_over(*id)).collect();
    assert_eq!(over, [true, true, false, false]);
    server.check_fold();
}

#[test]
fn what_is_kept_of_a_token_is_short() {
    let mut server = negotiated(config(), Dialect::Smb311);
    let mut long = ALICE.negotiate();
    long.resize(60_000, 0);
    assert_eq!(
        server.setup_on(CONN, 0, &setup_body(1, 0, &long)),
        Err(NtStatus::INVALID_PARAMETER)
    );
    let before = server.smb.durable_bytes(CONN);
    long.truncate(1024);
    server.setup_on(CONN, 0, &setup_body(1, 0, &long)).unwrap();
    let more = server.smb.durable_bytes(CONN) - before;
    assert!((1024..crate::size::SETUP).contains(&more), "{more}");
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
        // Even if the client requests signing.
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
    // Before the last round the session is still valid.
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
}

/// MS-SMB2 3.3.5.5.3: a session with keys does not become one without.
#[test]
fn a_session_lasts_as_long_as_the_password_it_began_with() {
    let mut server = negotiated(config(), Dialect::Smb311);
    let (id, ..) = server.login(&ALICE).unwrap();
    let digest = server.security(id).password.clone().unwrap();
    for user in &config().users {
        assert_ne!(
            digest.expose(),
            user.nt_hash,
            "the hash has no place in the log"
        );
    }
    assert_eq!(server.smb.readmit(&mut server.journal), []);
    assert!(!server.is_over(id));
    server
        .smb
        .config
        .users
        .iter_mut()
        .for_each(|user| user.nt_hash[0] ^= 1);
    assert_eq!(server.smb.readmit(&mut server.journal), [CONN]);
    assert!(server.is_over(id));
    server.check_fold();
}

#[test]
fn a_session_may_give_its_rights_up_and_have_them_back() {
    let mut server = negotiated(config(), Dialect::Smb311);
    let (id, _, _) = server.login(&ALICE).unwrap();
    let keys = server.security(id).keys.clone();
    let (again, flags, _) = server.login_on(CONN, id, &Client::ANONYMOUS, 1, 0).unwrap();
    assert_eq!((again, flags), (id, 0));
    let security = server.security(id);
    assert_eq!((&security.keys, security.present_user()), (&keys, None));
    let bob = Client {
        user: "bob",
        ..ALICE
    };
    let (id, _, _) = server.login_on(CONN, id, &ALICE, 1, 0).unwrap();
    assert!(server.security(id).present_user().is_some());
    server.login_on(CONN, id, &Client::ANONYMOUS, 1, 0).unwrap();
    let other = server.login_on(CONN, id, &bob, 1, 0);
    assert_eq!(other, Err(NtStatus::ACCESS_DENIED));
    server.check_fold();
}

#[test]
fn a_session_stays_its_users() {
    let mut server = negotiated(with_guest_share(config()), Dialect::Smb311);
    let bob = Client {
        user: "bob",
        ..ALICE
    };
    let (id, _, _) = server.login(&ALICE).unwrap();
    let other = server.login_on(CONN, id, &bob, 1, 0);
    assert_eq!(other, Err(NtStatus::ACCESS_DENIED));
    assert!(server.is_over(id));
    server.check_fold();
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
