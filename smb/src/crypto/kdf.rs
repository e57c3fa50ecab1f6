//! Derives keys by SP 800-108 in counter mode with HMAC-SHA256, r = 32 (MS-SMB2 3.1.4.2).

use aws_lc_rs::kdf::{KbkdfCtrHmacAlgorithmId, get_kbkdf_ctr_hmac_algorithm, kbkdf_ctr_hmac};
use serde::{Deserialize, Serialize};

use super::{Cipher, PreauthHash, SealingKey, Secret, SigningAlgorithm, SigningKey};
use crate::wire::Dialect;

/// The keys of a session (MS-SMB2 3.3.5.5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKeys {
    /// Session.SigningKey.
    pub signing: SigningKey,
    /// Session.EncryptionKey: server to client.
    pub encryption: Option<SealingKey>,
    /// Session.DecryptionKey: client to server.
    pub decryption: Option<SealingKey>,
}

impl SessionKeys {
    /// Derives a session's keys from the session key of its authentication. `signing` is the connection's negotiated
    /// algorithm (3.1.1; older dialects have one each), `cipher` its cipher, `preauth` the session's hash up to the
    /// last request (3.1.1).
    #[must_use]
    pub fn derive(
        dialect: Dialect,
        signing: SigningAlgorithm,
        cipher: Option<Cipher>,
        session_key: &Secret,
        preauth: &PreauthHash,
    ) -> SessionKeys {
        // 3.3.5.5.3: Session.SessionKey is the first 16 bytes of the authentication's key, padded with zeros.
        let mut key = session_key.expose().to_vec();
        key.resize(16, 0);
        let session_key = Secret::new(key);
        if dialect < Dialect::Smb300 {
            return SessionKeys {
                signing: SigningKey::new(SigningAlgorithm::HmacSha256, session_key),
                encryption: None,
                decryption: None,
            };
        }
        let labels = Labels::of(dialect, preauth);
        let (label, context) = labels.signing;
        let signing_algorithm = match dialect {
            Dialect::Smb311 => signing,
            _ => SigningAlgorithm::AesCmac,
        };
        let seal = |(label, context): (&[u8], &[u8])| {
            cipher.map(|cipher| {
                let key = derive(&session_key, label, context, cipher.key_len());
                SealingKey::new(cipher, key)
            })
        };
        SessionKeys {
            signing: SigningKey::new(signing_algorithm, derive(&session_key, label, context, 16)),
            encryption: seal(labels.encryption),
            decryption: seal(labels.decryption),
        }
    }
}

/// Computes a fingerprint of a user's password on a server with this GUID, to detect a changed password. The
/// fingerprint may be stored in the log; the NT hash, which is equivalent to the password, must not.
#[must_use]
pub fn password_digest(nt_hash: &[u8; 16], guid: &[u8; 16], user: &str) -> Secret {
    let mut context = guid.to_vec();
    context.extend_from_slice(user.to_lowercase().as_bytes());
    derive(&Secret::from(*nt_hash), b"OutlastPassword", &context, 16)
}

/// Label and context of each key, terminating zeros included.
struct Labels<'a> {
    signing: (&'a [u8], &'a [u8]),
    encryption: (&'a [u8], &'a [u8]),
    decryption: (&'a [u8], &'a [u8]),
}

impl<'a> Labels<'a> {
    fn of(dialect: Dialect, preauth: &'a PreauthHash) -> Labels<'a> {
        match dialect {
            Dialect::Smb311 => Labels {
                signing: (b"SMBSigningKey\0", preauth.as_bytes()),
                encryption: (b"SMBS2CCipherKey\0", preauth.as_bytes()),
                decryption: (b"SMBC2SCipherKey\0", preauth.as_bytes()),
            },
            _ => Labels {
                signing: (b"SMB2AESCMAC\0", b"SmbSign\0"),
                encryption: (b"SMB2AESCCM\0", b"ServerOut\0"),
                decryption: (b"SMB2AESCCM\0", b"ServerIn \0"),
            },
        }
    }
}

/// Derives `len` bytes. The fixed input is label || 0 || context || length in bits (SP 800-108 5.1).
fn derive(key: &Secret, label: &[u8], context: &[u8], len: usize) -> Secret {
    let mut info = Vec::with_capacity(label.len() + context.len() + 5);
    info.extend_from_slice(label);
    info.push(0);
    info.extend_from_slice(context);
    info.extend_from_slice(&(len as u32 * 8).to_be_bytes());
    let algorithm = get_kbkdf_ctr_hmac_algorithm(KbkdfCtrHmacAlgorithmId::Sha256)
        .expect("the library has SHA-256");
    let mut output = vec![0; len];
    kbkdf_ctr_hmac(algorithm, key.expose(), &info, &mut output)
        .expect("key and output are not empty and short");
    Secret::new(output)
}
