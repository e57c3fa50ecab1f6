//! Implements an NTLMv2 client (MS-NLMP 3.1.5.1, 3.3.2), without SPNEGO, key exchange or MIC.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

use crate::request::utf16;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
/// UNICODE, REQUEST_TARGET, SIGN, NTLM, ALWAYS_SIGN, EXTENDED_SESSIONSECURITY, 128.
const FLAGS: u32 = 0x2008_8215;

/// Makes a NEGOTIATE message (2.2.1.1).
#[must_use]
pub fn negotiate() -> Vec<u8> {
    let mut message = SIGNATURE.to_vec();
    message.extend(1_u32.to_le_bytes());
    message.extend(FLAGS.to_le_bytes());
    message.extend([0; 16]);
    message
}

/// Makes an AUTHENTICATE message (2.2.1.3), and the session key.
///
/// # Panics
/// The challenge is malformed.
#[must_use]
pub fn authenticate(challenge: &[u8], user: &str, password: &str) -> (Vec<u8>, [u8; 16]) {
    assert!(challenge.starts_with(SIGNATURE), "not a challenge");
    let at = u32::from_le_bytes(challenge[44..48].try_into().expect("four")) as usize;
    let (server_challenge, target_info) = (&challenge[24..32], &challenge[at..]);
    // NTLMv2_CLIENT_CHALLENGE (2.2.2.7)
    let mut temp = vec![1, 1, 0, 0, 0, 0, 0, 0];
    temp.extend([0; 8]);
    temp.extend(server_challenge.iter().map(|byte| byte ^ 0x55));
    temp.extend([0; 4]);
    temp.extend(target_info);
    temp.extend([0; 4]);
    let name = utf16(&user.to_uppercase());
    let key = hmac(&outlast_smb::auth::nt_hash(password), &[&name]);
    let proof = hmac(&key, &[server_challenge, &temp]);
    let response = [proof.as_slice(), &temp].concat();
    let mut message = SIGNATURE.to_vec();
    message.extend(3_u32.to_le_bytes());
    let mut payload = Vec::new();
    // LmChallengeResponse, NtChallengeResponse, DomainName, UserName, Workstation, EncryptedRandomSessionKey
    for field in [&[][..], &response, &[], &utf16(user), &[], &[]] {
        message.extend((field.len() as u16).to_le_bytes());
        message.extend((field.len() as u16).to_le_bytes());
        message.extend((64 + payload.len() as u32).to_le_bytes());
        payload.extend_from_slice(field);
    }
    message.extend(FLAGS.to_le_bytes());
    message.extend(payload);
    (message, hmac(&key, &[&proof]))
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
