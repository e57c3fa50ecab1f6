//! Computes the preauthentication integrity hash: a SHA-512 chain over the messages of NEGOTIATE and SESSION_SETUP
//! (MS-SMB2 3.3.5.4, 3.3.5.5).

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

/// PreauthIntegrityHashValue of a connection or of a session whose setup is in progress.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct PreauthHash([u8; 64]);

impl PreauthHash {
    /// The value before the first message: zeros.
    pub const START: PreauthHash = PreauthHash([0; 64]);

    /// Adds a message, from its SMB2 header on, in parts: the new value is SHA-512(old value || message).
    pub fn update<P: AsRef<[u8]>>(&mut self, message: &[P]) {
        let mut context = digest::Context::new(&digest::SHA512);
        context.update(&self.0);
        for part in message {
            context.update(part.as_ref());
        }
        self.0.copy_from_slice(context.finish().as_ref());
    }

    /// Returns the value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl From<PreauthHash> for Vec<u8> {
    fn from(hash: PreauthHash) -> Vec<u8> {
        hash.0.to_vec()
    }
}

impl TryFrom<Vec<u8>> for PreauthHash {
    type Error = &'static str;
    fn try_from(bytes: Vec<u8>) -> Result<PreauthHash, &'static str> {
        let bytes = bytes
            .try_into()
            .map_err(|_| "a SHA-512 value is 64 bytes")?;
        Ok(PreauthHash(bytes))
    }
}

impl std::fmt::Debug for PreauthHash {
    /// It is the salt of the session's keys: its first bytes suffice to distinguish two of them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PreauthHash({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}
