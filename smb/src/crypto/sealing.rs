//! Encrypts and decrypts messages (MS-SMB2 3.1.4.3).

use std::sync::Arc;

use aes::{Aes128, Aes256};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U11, U16};
use ccm::{AeadInOut, Ccm, KeyInit};
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::wire::Malformed;
use crate::wire::transform::{self, Transform};

/// CipherId (MS-SMB2 2.2.3.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cipher {
    /// AES-128-CCM: 3.0 and 3.0.2, and 3.1.1.
    Aes128Ccm,
    /// AES-128-GCM: 3.1.1.
    Aes128Gcm,
    /// AES-256-CCM: 3.1.1.
    Aes256Ccm,
    /// AES-256-GCM: 3.1.1.
    Aes256Gcm,
}

impl Cipher {
    /// Returns CipherId as on the wire.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Cipher::Aes128Ccm => 1,
            Cipher::Aes128Gcm => 2,
            Cipher::Aes256Ccm => 3,
            Cipher::Aes256Gcm => 4,
        }
    }

    /// Returns the cipher with this id.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Cipher> {
        use Cipher::{Aes128Ccm, Aes128Gcm, Aes256Ccm, Aes256Gcm};
        [Aes128Ccm, Aes128Gcm, Aes256Ccm, Aes256Gcm]
            .into_iter()
            .find(|cipher| cipher.id() == id)
    }

    /// Returns the length of the key in bytes.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Cipher::Aes128Ccm | Cipher::Aes128Gcm => 16,
            Cipher::Aes256Ccm | Cipher::Aes256Gcm => 32,
        }
    }

    /// Returns its usual name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes128Ccm => "AES-128-CCM",
            Cipher::Aes128Gcm => "AES-128-GCM",
            Cipher::Aes256Ccm => "AES-256-CCM",
            Cipher::Aes256Gcm => "AES-256-GCM",
        }
    }
}

/// The reason why a message cannot be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The transform header is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The authentication tag is not that of this key and message.
    #[error("encrypted message is not authentic")]
    NotAuthentic,
}

/// The serialized form of a [`SealingKey`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    cipher: Cipher,
    secret: Secret,
}

/// The key as expanded by the cipher, once.
enum Prepared {
    Gcm(LessSafeKey),
    Ccm128(Ccm<Aes128, U16, U11>),
    Ccm256(Ccm<Aes256, U16, U11>),
}

impl Prepared {
    fn new(cipher: Cipher, key: &[u8]) -> Option<Prepared> {
        Some(match cipher {
            Cipher::Aes128Gcm => {
                Prepared::Gcm(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).ok()?))
            }
            Cipher::Aes256Gcm => {
                Prepared::Gcm(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?))
            }
            Cipher::Aes128Ccm => Prepared::Ccm128(KeyInit::new_from_slice(key).ok()?),
            Cipher::Aes256Ccm => Prepared::Ccm256(KeyInit::new_from_slice(key).ok()?),
        })
    }

    /// Encrypts in place and returns the tag. `None`: the message is longer than the cipher allows.
    fn seal(&self, nonce: &[u8; 16], aad: &[u8], message: &mut [u8]) -> Option<[u8; 16]> {
        match self {
            Prepared::Gcm(key) => key
                .seal_in_place_separate_tag(gcm_nonce(nonce), Aad::from(aad), message)
                .ok()
                .and_then(|tag| tag.as_ref().try_into().ok()),
            Prepared::Ccm128(key) => key
                .encrypt_inout_detached(&ccm_nonce(nonce), aad, message.into())
                .ok()
                .map(Into::into),
            Prepared::Ccm256(key) => key
                .encrypt_inout_detached(&ccm_nonce(nonce), aad, message.into())
                .ok()
                .map(Into::into),
        }
    }

    /// Decrypts `sealed` into `plain`, which has the same length. `None`: not authentic.
    fn open(
        &self,
        nonce: &[u8; 16],
        aad: &[u8],
        tag: &[u8; 16],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Option<()> {
        match self {
            Prepared::Gcm(key) => key
                .open_separate_gather(gcm_nonce(nonce), Aad::from(aad), sealed, tag, plain)
                .ok(),
            Prepared::Ccm128(key) => {
                let buffer = InOutBuf::new(sealed, plain).ok()?;
                key.decrypt_inout_detached(&ccm_nonce(nonce), aad, buffer, &(*tag).into())
                    .ok()
            }
            Prepared::Ccm256(key) => {
                let buffer = InOutBuf::new(sealed, plain).ok()?;
                key.decrypt_inout_detached(&ccm_nonce(nonce), aad, buffer, &(*tag).into())
                    .ok()
            }
        }
    }
}

/// 2.2.41: GCM uses the first 12 bytes of the field.
fn gcm_nonce(field: &[u8; 16]) -> Nonce {
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&field[..12]);
    Nonce::assume_unique_for_key(nonce)
}

/// 2.2.41: CCM uses the first 11 bytes of the field.
fn ccm_nonce(field: &[u8; 16]) -> ccm::Nonce<U11> {
    let mut nonce = ccm::Nonce::<U11>::default();
    nonce.copy_from_slice(&field[..11]);
    nonce
}

/// A session's encryption key for one direction.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct SealingKey {
    stored: Stored,
    prepared: Arc<Prepared>,
}

impl SealingKey {
    /// Makes a key of [`Cipher::key_len`] bytes.
    ///
    /// # Panics
    /// If the key has another length; keys are derived, not received.
    #[must_use]
    pub fn new(cipher: Cipher, secret: Secret) -> SealingKey {
        SealingKey::try_from(Stored { cipher, secret }).expect("the key has the cipher's length")
    }

    /// Returns the cipher.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.stored.cipher
    }

    /// Encrypts a message that is given in parts, and returns transform header and encrypted message in one piece.
    ///
    /// `nonce` must never be used twice with this key (law 3): a counter kept with the session.
    ///
    /// # Panics
    /// If the message is longer than 4 GiB; messages are bounded far below.
    #[must_use]
    pub fn seal<P: AsRef<[u8]>>(&self, session_id: u64, nonce: u64, parts: &[P]) -> Vec<u8> {
        let mut field = [0; 16];
        field[..8].copy_from_slice(&nonce.to_le_bytes());
        self.seal_with(session_id, field, parts)
    }

    pub(super) fn seal_with<P: AsRef<[u8]>>(
        &self,
        session_id: u64,
        nonce: [u8; 16],
        parts: &[P],
    ) -> Vec<u8> {
        let len = parts.iter().map(|part| part.as_ref().len()).sum::<usize>();
        let mut out = Vec::with_capacity(transform::LEN + len);
        let header = Transform {
            signature: [0; 16],
            nonce,
            original_message_size: len as u32,
            session_id,
        };
        header.encode(&mut out);
        for part in parts {
            out.extend_from_slice(part.as_ref());
        }
        let (header, message) = out.split_at_mut(transform::LEN);
        let tag = self
            .prepared
            .seal(&nonce, &header[transform::AUTHENTICATED], message)
            .expect("the message is shorter than the cipher's limit");
        header[4..20].copy_from_slice(&tag);
        out
    }

    /// Decrypts a whole encrypted message, transform header included. The input is unchanged.
    ///
    /// # Errors
    /// A malformed transform header; a message that is not authentic.
    pub fn open(&self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        let header = Transform::parse(message)?;
        let (head, sealed) = message.split_at(transform::LEN);
        let mut plain = vec![0; sealed.len()];
        self.prepared
            .open(
                &header.nonce,
                &head[transform::AUTHENTICATED],
                &header.signature,
                sealed,
                &mut plain,
            )
            .ok_or(OpenError::NotAuthentic)?;
        Ok(plain)
    }
}

impl PartialEq for SealingKey {
    fn eq(&self, other: &SealingKey) -> bool {
        self.stored == other.stored
    }
}

impl Eq for SealingKey {}

impl From<SealingKey> for Stored {
    fn from(key: SealingKey) -> Stored {
        key.stored
    }
}

impl TryFrom<Stored> for SealingKey {
    type Error = &'static str;
    fn try_from(stored: Stored) -> Result<SealingKey, &'static str> {
        let prepared = Prepared::new(stored.cipher, stored.secret.expose())
            .ok_or("the encryption key has not the cipher's length")?;
        Ok(SealingKey {
            stored,
            prepared: Arc::new(prepared),
        })
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealingKey({})", self.cipher().name())
    }
}
