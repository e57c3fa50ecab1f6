//! Sessions that a client asks to bind to a further connection (MS-SMB2 3.3.5.5): they are refused.

use super::client::{Ask, Client, Protection};
use super::sweep;
use super::world::World;
use crate::crypto::{Cipher, PreauthHash, Secret, SessionKeys, SigningAlgorithm};
use crate::record::Record;
use crate::state::Security;
use crate::wire::{Command, Dialect, session_setup};
use bytes::BufMut;
use outlast_fsa::status::NtStatus;

fn bind() -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(25);
    body.put_u8(session_setup::FLAG_BINDING);
    body.put_u8(1);
    body.put_bytes(0, 8);
    body.put_u16_le(64 + 24);
    body.put_u16_le(1);
    body.put_u64_le(0);
    body.put_u8(0);
    Ask::new(Command::SESSION_SETUP, body)
}

fn keys(algorithm: SigningAlgorithm, secret: u8) -> SessionKeys {
    SessionKeys::derive(
        Dialect::Smb311,
        algorithm,
        Some(Cipher::Aes128Gcm),
        &Secret::new(vec![secret; 16]),
        &PreauthHash::START,
    )
}

/// A client with a session whose messages are signed by this algorithm.
fn signing_by(world: &mut World, algorithm: SigningAlgorithm) -> Client {
    let mut client = world.client(Protection::Signed);
    client.keys = keys(algorithm, 1);
    let mut connections = world.smb.durable();
    let (_, connection) = connections.find(|(conn, _)| *conn == client.conn).unwrap();
    let before = connection.sessions[&client.session].security.clone();
    drop(connections);
    let security = Box::new(Security {
        keys: Some(client.keys.clone()),
        ..before
    });
    let id = client.session;
    world.record(client.conn, Record::Session { id, security });
    client
}

/// A connection on which a client names the session of another one.
fn beside(world: &mut World, of: &Client, keys: SessionKeys) -> Client {
    let mut client = world.client(Protection::Signed);
    client.session = of.session;
    client.keys = keys;
    client
}

/// 3.3.5.2.4: the client knows by the signature that it is the server that refuses.
#[test]
fn a_refused_binding_is_signed_with_the_key_of_the_session() {
    sweep(|world| {
        let ann = signing_by(world, SigningAlgorithm::AesCmac);
        let mut other = beside(world, &ann, ann.keys.clone());
        let refused = world.one(&mut other, bind());
        assert_eq!(refused.status(), NtStatus::REQUEST_NOT_ACCEPTED);
    });
}

/// A sender that does not know the key gets no signature. Nor does AES-GMAC sign: its nonce is the MessageId, which the
/// session's own connection uses, too.
#[test]
fn a_refused_binding_is_not_signed_for_another_or_with_a_nonce_that_is_used() {
    sweep(|world| {
        for (algorithm, secret) in [
            (SigningAlgorithm::AesCmac, 2),
            (SigningAlgorithm::AesGmac, 1),
        ] {
            let ann = signing_by(world, algorithm);
            let mut other = beside(world, &ann, keys(algorithm, secret));
            let message = other.message(&[bind()]);
            world.deliver(other.conn, &message);
            other.protection = Protection::Plain;
            let refused = world.received(&other);
            assert_eq!(refused[0].status(), NtStatus::REQUEST_NOT_ACCEPTED);
        }
    });
}
