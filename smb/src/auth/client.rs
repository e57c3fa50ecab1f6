//! Implements an NTLMv2 client, for tests.

use super::nt_hash;
use super::ntlm::{self, Authenticate, flags};
use crate::wire::utf16;

/// A client.
pub struct Client {
    /// User name.
    pub user: &'static str,
    /// The domain that the client names.
    pub domain: &'static str,
    /// The domain that the client computes the proof with.
    pub proved_domain: &'static str,
    /// Password.
    pub password: &'static str,
    /// NegotiateFlags.
    pub flags: u32,
    /// The AUTHENTICATE message has a MIC.
    pub mic: bool,
}

impl Client {
    /// A client in a workgroup.
    pub const DEFAULT: Client = Client {
        user: "user",
        domain: "WORKGROUP",
        proved_domain: "WORKGROUP",
        password: "",
        flags: flags::SUPPORTED,
        mic: true,
    };

    /// An anonymous client.
    pub const ANONYMOUS: Client = Client {
        user: "",
        domain: "",
        proved_domain: "",
        ..Client::DEFAULT
    };

    /// Makes the NEGOTIATE message.
    pub fn negotiate(&self) -> Vec<u8> {
        let mut message = ntlm::SIGNATURE.to_vec();
        message.extend(1u32.to_le_bytes());
        message.extend(self.flags.to_le_bytes());
        message.extend([0; 16]);
        message
    }

    /// Makes the AUTHENTICATE message and the session key.
    pub fn authenticate(&self, challenge: &[u8]) -> (Vec<u8>, [u8; 16]) {
        if self.user.is_empty() {
            return (self.message(self.flags, &[], &[0; 16]), [0; 16]);
        }
        let at = u32::from_le_bytes(challenge[44..48].try_into().unwrap()) as usize;
        let server_challenge = challenge[24..32].try_into().unwrap();
        let mut temp = vec![1, 1];
        temp.extend([0; 26]);
        let target_info = &challenge[at..];
        temp.extend(&target_info[..target_info.len() - 4]);
        if self.mic {
            temp.extend([6, 0, 4, 0, 2, 0, 0, 0]);
        }
        temp.extend([0; 8]);
        let ntowf = ntlm::ntowf_v2(&nt_hash(self.password), self.user, self.proved_domain);
        let proof = ntlm::nt_proof(&ntowf, &server_challenge, &temp);
        let base_key = ntlm::session_base_key(&ntowf, &proof);
        let response = [proof.as_slice(), &temp].concat();
        let encrypted_key = [0x77; 16];
        let flags = u32::from_le_bytes(challenge[20..24].try_into().unwrap());
        let mut message = self.message(flags, &response, &encrypted_key);
        let parsed = Authenticate::parse(&message).unwrap();
        let key = ntlm::exported_session_key(base_key, &parsed).unwrap();
        if self.mic {
            let (mic, _) = ntlm::mic(&key, &self.negotiate(), challenge, &message).unwrap();
            message[72..88].copy_from_slice(&mic);
        }
        (message, key)
    }

    /// Makes an AUTHENTICATE message without a MIC.
    pub fn message(&self, flags: u32, response: &[u8], encrypted_key: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut message = ntlm::SIGNATURE.to_vec();
        message.extend(3u32.to_le_bytes());
        for field in [
            &[][..],
            response,
            &utf16::encode(self.domain),
            &utf16::encode(self.user),
            &[],
            encrypted_key,
        ] {
            message.extend((field.len() as u16).to_le_bytes());
            message.extend((field.len() as u16).to_le_bytes());
            message.extend((88 + payload.len() as u32).to_le_bytes());
            payload.extend_from_slice(field);
        }
        message.extend(flags.to_le_bytes());
        message.extend([0; 24]);
        message.extend(payload);
        message
    }
}
