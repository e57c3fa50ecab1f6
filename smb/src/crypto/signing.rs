//! Signs messages and verifies signatures (MS-SMB2 3.1.4.1, 3.1.5.1).

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{cmac, hmac};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::Secret;
use crate::wire::{Command, Flags, header};

/// SigningAlgorithmId (MS-SMB2 2.2.3.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// The first 16 bytes of HMAC-SHA256: dialects 2.0.2 and 2.1.
    HmacSha256,
    /// AES-128-CMAC: 3.0 and 3.0.2, and 3.1.1 unless negotiated otherwise.
    AesCmac,
    /// AES-128-GMAC: 3.1.1 if negotiated.
    AesGmac,
}

impl SigningAlgorithm {
    /// Returns SigningAlgorithmId as on the wire.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            SigningAlgorithm::HmacSha256 => 0,
            SigningAlgorithm::AesCmac => 1,
            SigningAlgorithm::AesGmac => 2,
        }
    }

    /// Returns the algorithm with this id.
    #[must_use]
    pub fn from_id(id: u16) -> Option<SigningAlgorithm> {
        use SigningAlgorithm::{AesCmac, AesGmac, HmacSha256};
        [HmacSha256, AesCmac, AesGmac]
            .into_iter()
            .find(|algorithm| algorithm.id() == id)
    }

    /// Returns its usual name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SigningAlgorithm::HmacSha256 => "HMAC-SHA256",
            SigningAlgorithm::AesCmac => "AES-CMAC",
            SigningAlgorithm::AesGmac => "AES-GMAC",
        }
    }
}

/// The serialized form of a [`SigningKey`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    algorithm: SigningAlgorithm,
    secret: Secret,
}

/// The key as expanded by the algorithm, once.
enum Prepared {
    Hmac(Box<hmac::Key>),
    Cmac(cmac::Key),
    Gmac(LessSafeKey),
}

/// A session's signing key: 16 bytes and its algorithm.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct SigningKey {
    stored: Stored,
    prepared: Arc<Prepared>,
}

impl SigningKey {
    /// Length of the key in bytes, for every algorithm.
    pub const LEN: usize = 16;

    /// Makes a key of 16 bytes. A longer one is cut, a shorter one padded with zeros, as MS-SMB2 does with session
    /// keys.
    #[must_use]
    pub fn new(algorithm: SigningAlgorithm, secret: Secret) -> SigningKey {
        let mut key = [0; Self::LEN];
        for (to, from) in key.iter_mut().zip(secret.expose()) {
            *to = *from;
        }
        let prepared = match algorithm {
            SigningAlgorithm::HmacSha256 => {
                Prepared::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)))
            }
            SigningAlgorithm::AesCmac => Prepared::Cmac(
                cmac::Key::new(cmac::AES_128, &key).expect("the key has AES-128's length"),
            ),
            SigningAlgorithm::AesGmac => Prepared::Gmac(LessSafeKey::new(
                UnboundKey::new(&AES_128_GCM, &key).expect("the key has AES-128's length"),
            )),
        };
        SigningKey {
            stored: Stored {
                algorithm,
                secret: Secret::from(key),
            },
            prepared: Arc::new(prepared),
        }
    }

    /// Returns the algorithm.
    #[must_use]
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.stored.algorithm
    }

    /// Signs a message in parts: `head` begins with its whole SMB2 header, flags final (SIGNED among them); `rest`
    /// follows. The signature is written into the header.
    pub fn sign<P: AsRef<[u8]>>(&self, head: &mut [u8], rest: &[P]) {
        if let Some(signature) = self.signature(head, rest) {
            head[header::SIGNATURE].copy_from_slice(&signature);
        }
    }

    /// Returns whether the signature in the header of `message` (one request, padding included) is valid for this key.
    /// Compares in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8]) -> bool {
        self.verify_parts::<&[u8]>(message, &[])
    }

    /// As [`SigningKey::verify`], of a message in parts: `head` begins with its whole SMB2 header, and `rest` follows.
    #[must_use]
    pub fn verify_parts<P: AsRef<[u8]>>(&self, head: &[u8], rest: &[P]) -> bool {
        match self.signature(head, rest) {
            Some(signature) => signature.ct_eq(&head[header::SIGNATURE]).into(),
            None => false,
        }
    }

    /// Computes the signature, with zeros in its place. `None`: the message is shorter than a header.
    fn signature<P: AsRef<[u8]>>(&self, head: &[u8], rest: &[P]) -> Option<[u8; 16]> {
        let (header, tail) = head.split_at_checked(header::LEN)?;
        let (before, _signature) = header.split_at(header::SIGNATURE.start);
        let fixed = [before, &[0; 16], tail];
        let parts = fixed.into_iter().chain(rest.iter().map(AsRef::as_ref));
        let mut signature = [0; 16];
        match &*self.prepared {
            Prepared::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                parts.for_each(|part| context.update(part));
                signature.copy_from_slice(context.sign().as_ref().get(..16)?);
            }
            Prepared::Cmac(key) => {
                let mut context = cmac::Context::with_key(key);
                for part in parts {
                    context.update(part).ok()?;
                }
                signature.copy_from_slice(context.sign().ok()?.as_ref());
            }
            Prepared::Gmac(key) => {
                // The library accepts authenticated data only in one piece.
                let len = head.len() + rest.iter().map(|part| part.as_ref().len()).sum::<usize>();
                let mut message = Vec::with_capacity(len);
                parts.for_each(|part| message.extend_from_slice(part));
                let tag = key
                    .seal_in_place_separate_tag(gmac_nonce(before), Aad::from(message), &mut [])
                    .ok()?;
                signature.copy_from_slice(tag.as_ref());
            }
        }
        Some(signature)
    }
}

/// 3.1.4.1: MessageId; then a bit for "sent by the server" and one for "CANCEL request"; the rest zeros.
fn gmac_nonce(header: &[u8]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&header[24..32]);
    let response = header[16] & Flags::SERVER_TO_REDIR.0 as u8 != 0;
    let cancel = header[12..14] == Command::CANCEL.0.to_le_bytes();
    nonce[8] = u8::from(response) | u8::from(cancel) << 1;
    Nonce::assume_unique_for_key(nonce)
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &SigningKey) -> bool {
        self.stored == other.stored
    }
}

impl Eq for SigningKey {}

impl From<SigningKey> for Stored {
    fn from(key: SigningKey) -> Stored {
        key.stored
    }
}

impl TryFrom<Stored> for SigningKey {
    type Error = &'static str;
    fn try_from(stored: Stored) -> Result<SigningKey, &'static str> {
        if stored.secret.expose().len() != Self::LEN {
            return Err("a signing key is 16 bytes");
        }
        Ok(SigningKey::new(stored.algorithm, stored.secret))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.algorithm().name())
    }
}
