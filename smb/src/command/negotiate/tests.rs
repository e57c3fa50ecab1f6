//! Tests dialects, contexts, the preauthentication hash, and the switch from SMB1.

use bytes::{BufMut, Bytes};

use super::*;
use crate::config::Config;
use crate::tests::bytes::{WINDOWS_LOGIN, hex};
use crate::tests::testing::{
    CONN, SHA_512, Server, UNKNOWN, config, from_component, negotiate_body, with_guest_share,
};
use crate::wire;
use crate::wire::negotiate::Context as NegotiateContext;

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
        assert_eq!(
            response.max_write_size,
            if large { 2 << 20 } else { 64 << 10 }
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

/// 3.3.5.4: the client asks for it, the dialect has it, and the configuration permits it.
#[test]
fn capabilities_of_smb_3_are_negotiated() {
    const PERSISTENT: u32 = capabilities::PERSISTENT_HANDLES;
    const DIRECTORIES: u32 = capabilities::DIRECTORY_LEASING;
    const BOTH: u32 = PERSISTENT | DIRECTORIES;
    for (dialect, asked, is_available, oplocks, expected) in [
        (0x0302, BOTH, true, Oplocks::On, BOTH),
        (0x0302, BOTH, false, Oplocks::On, DIRECTORIES),
        (0x0302, BOTH, true, Oplocks::Off, PERSISTENT),
        (0x0302, 0, true, Oplocks::On, 0),
        (0x0210, BOTH, true, Oplocks::On, 0),
    ] {
        let mut config = with_guest_share(config());
        config.oplocks = oplocks;
        for share in &mut config.shares {
            share.continuous_availability = is_available;
        }
        let mut server = Server::new(config);
        let body = negotiate_body(&[dialect], asked, &[]);
        let response = server.negotiate(&body).unwrap();
        assert_eq!(response.capabilities & BOTH, expected, "{dialect:#x}");
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
        assert_eq!(
            response.capabilities,
            capabilities::LARGE_MTU | capabilities::LEASING
        );
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
    let handled = server.with(CONN, |ctx| start(ctx, &request, &body));
    assert!(matches!(handled, Ok(Handled::Reply(_))));
    // The server's response of the vector instead of ours.
    server.with(CONN, |ctx| answered(ctx, &hex(WINDOWS_LOGIN[1])));
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
    // A second SMB1 NEGOTIATE violates the protocol; SMB2's NEGOTIATE must follow.
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
