//! Parses and builds NTLM messages (MS-NLMP 2.2.1) and computes their keys and proofs (3.3, 3.4).

use bytes::BufMut;
use hmac::{Hmac, KeyInit, Mac};
use md4::{Digest, Md4};
use md5::Md5;
use nom::number::complete::{le_u16, le_u32};
use nom::{IResult, Parser};
use rc4::{Rc4, StreamCipher};

use crate::wire::utf16;
use outlast_fsa::fileop::FileTime;

/// The first bytes of each message.
pub const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// NegotiateFlags (MS-NLMP 2.2.2.5).
#[allow(missing_docs)]
pub mod flags {
    pub const UNICODE: u32 = 0x0000_0001;
    pub const REQUEST_TARGET: u32 = 0x0000_0004;
    pub const SIGN: u32 = 0x0000_0010;
    pub const SEAL: u32 = 0x0000_0020;
    pub const NTLM: u32 = 0x0000_0200;
    pub const ALWAYS_SIGN: u32 = 0x0000_8000;
    pub const TARGET_TYPE_SERVER: u32 = 0x0002_0000;
    pub const EXTENDED_SESSIONSECURITY: u32 = 0x0008_0000;
    pub const IDENTIFY: u32 = 0x0010_0000;
    pub const TARGET_INFO: u32 = 0x0080_0000;
    pub const VERSION: u32 = 0x0200_0000;
    pub const KEY_128: u32 = 0x2000_0000;
    pub const KEY_EXCH: u32 = 0x4000_0000;
    pub const KEY_56: u32 = 0x8000_0000;

    /// The flags that the server accepts if the client requests them.
    pub const SUPPORTED: u32 = UNICODE
        | REQUEST_TARGET
        | SIGN
        | SEAL
        | NTLM
        | ALWAYS_SIGN
        | EXTENDED_SESSIONSECURITY
        | IDENTIFY
        | VERSION
        | KEY_128
        | KEY_EXCH
        | KEY_56;
}

/// AvId (MS-NLMP 2.2.2.1).
mod av_id {
    pub const EOL: u16 = 0;
    pub const NB_COMPUTER_NAME: u16 = 1;
    pub const NB_DOMAIN_NAME: u16 = 2;
    pub const DNS_COMPUTER_NAME: u16 = 3;
    pub const DNS_DOMAIN_NAME: u16 = 4;
    pub const FLAGS: u16 = 6;
    pub const TIMESTAMP: u16 = 7;
}

/// MsvAvFlags: the AUTHENTICATE message has a MIC.
const AV_FLAG_MIC: u32 = 0x0000_0002;

/// Returns the flags of a NEGOTIATE message (2.2.1.1). `None`: it is not one.
pub fn parse_negotiate(message: &[u8]) -> Option<u32> {
    let rest = message.strip_prefix(SIGNATURE)?;
    let (_, (kind, flags)) = u32_pair(rest).ok()?;
    (kind == 1).then_some(flags)
}

/// Builds the CHALLENGE message (2.2.1.2) with the target info of MS-NLMP 3.2.5.1.1; because of MsvAvTimestamp clients
/// send a MIC.
pub fn challenge(
    client_flags: u32,
    server_challenge: [u8; 8],
    server_name: &str,
    wall: FileTime,
) -> Vec<u8> {
    const FIXED: u32 = 56;
    // Windows 7's version, revision 15, which peers expect with NTLMSSP's current form.
    const VERSION: [u8; 8] = [6, 1, 0xB1, 0x1D, 0, 0, 0, 15];
    let flags = client_flags & flags::SUPPORTED | flags::TARGET_INFO | flags::TARGET_TYPE_SERVER;
    let target_name = utf16::encode(&server_name.to_uppercase());
    let dns_name = utf16::encode(&server_name.to_lowercase());
    let mut target_info = Vec::new();
    for (id, value) in [
        (av_id::NB_DOMAIN_NAME, target_name.as_slice()),
        (av_id::NB_COMPUTER_NAME, &target_name),
        (av_id::DNS_DOMAIN_NAME, &dns_name),
        (av_id::DNS_COMPUTER_NAME, &dns_name),
        (av_id::TIMESTAMP, &wall.to_le_bytes()),
        (av_id::EOL, &[]),
    ] {
        target_info.put_u16_le(id);
        target_info.put_u16_le(value.len() as u16);
        target_info.extend_from_slice(value);
    }
    let mut out = Vec::with_capacity(FIXED as usize + target_name.len() + target_info.len());
    out.extend_from_slice(SIGNATURE);
    out.put_u32_le(2);
    put_field(&mut out, target_name.len(), FIXED);
    out.put_u32_le(flags);
    out.extend_from_slice(&server_challenge);
    out.put_u64_le(0);
    put_field(
        &mut out,
        target_info.len(),
        FIXED + target_name.len() as u32,
    );
    out.extend_from_slice(&VERSION);
    out.extend_from_slice(&target_name);
    out.extend_from_slice(&target_info);
    out
}

fn put_field(out: &mut Vec<u8>, len: usize, offset: u32) {
    out.put_u16_le(len as u16);
    out.put_u16_le(len as u16);
    out.put_u32_le(offset);
}

/// The AUTHENTICATE message (2.2.1.3).
#[derive(Debug, PartialEq, Eq)]
pub struct Authenticate<'a> {
    /// LmChallengeResponse.
    pub lm_response: &'a [u8],
    /// NtChallengeResponse.
    pub nt_response: &'a [u8],
    /// DomainName.
    pub domain: String,
    /// UserName.
    pub user: String,
    /// EncryptedRandomSessionKey.
    pub encrypted_key: &'a [u8],
    /// NegotiateFlags.
    pub flags: u32,
}

/// The position of the MIC in the AUTHENTICATE message.
const MIC: std::ops::Range<usize> = 72..88;

impl<'a> Authenticate<'a> {
    /// Parses the message. `None`: it is not one, or uses an OEM character set.
    pub fn parse(message: &'a [u8]) -> Option<Authenticate<'a>> {
        let rest = message.strip_prefix(SIGNATURE)?;
        let (_, (kind, lm, nt, domain, user, _workstation, key, flags)) =
            (le_u32, field, field, field, field, field, field, le_u32)
                .parse(rest)
                .ok()?;
        if kind != 3 || flags & flags::UNICODE == 0 {
            return None;
        }
        let payload = |(len, offset): (u16, u32)| match len {
            0 => Some(&[][..]),
            len => message.get(offset as usize..(offset as usize).checked_add(len.into())?),
        };
        let text = |field| utf16::decode(payload(field)?).ok();
        Some(Authenticate {
            lm_response: payload(lm)?,
            nt_response: payload(nt)?,
            domain: text(domain)?,
            user: text(user)?,
            encrypted_key: payload(key)?,
            flags,
        })
    }

    /// Returns whether it is an anonymous login (3.2.5.1.2).
    pub fn is_anonymous(&self) -> bool {
        self.user.is_empty() && self.nt_response.is_empty() && matches!(self.lm_response, [] | [0])
    }

    /// Returns the NTLMv2 response (2.2.2.8): the proof and the data that it covers. `None`: an older response, which
    /// is refused.
    pub fn v2_response(&self) -> Option<(&'a [u8; 16], &'a [u8])> {
        let (proof, temp) = self.nt_response.split_first_chunk::<16>()?;
        // NTLMv2_CLIENT_CHALLENGE (2.2.2.7): RespType and HiRespType 1, and 26 bytes before the AV pairs.
        (temp.starts_with(&[1, 1]) && temp.len() >= 28).then_some((proof, temp))
    }

    /// Returns whether the response covers a terminated list of AV pairs (2.2.2.7, 2.2.2.1).
    pub fn is_well_formed(&self) -> bool {
        self.v2_response()
            .is_none_or(|(_, temp)| av_pairs(&temp[28..]).any(|pair| pair.0 == av_id::EOL))
    }

    /// Returns whether the response announces a MIC (MsvAvFlags, 2.2.2.1). The proof covers the announcement.
    pub fn announces_mic(&self) -> bool {
        let Some((_, temp)) = self.v2_response() else {
            return false;
        };
        let flags = av_pairs(&temp[28..]).find(|pair| pair.0 == av_id::FLAGS);
        flags
            .and_then(|(_, value)| value.first_chunk())
            .is_some_and(|value| u32::from_le_bytes(*value) & AV_FLAG_MIC != 0)
    }
}

/// Iterates over the AV pairs of a list, up to and including MsvAvEOL, or up to the first malformed one.
fn av_pairs(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut has_ended = false;
    std::iter::from_fn(move || {
        let (after, (id, len)) = av_header(rest).ok().filter(|_| !has_ended)?;
        let (value, following) = after.split_at_checked(len.into())?;
        rest = following;
        has_ended = id == av_id::EOL;
        Some((id, value))
    })
}

/// Parses length and offset of a payload field; MaxLen is ignored, as 2.2.1 requires.
fn field(input: &[u8]) -> IResult<&[u8], (u16, u32)> {
    let (rest, (len, _max_len, offset)) = (le_u16, le_u16, le_u32).parse(input)?;
    Ok((rest, (len, offset)))
}

fn u32_pair(input: &[u8]) -> IResult<&[u8], (u32, u32)> {
    (le_u32, le_u32).parse(input)
}

fn av_header(input: &[u8]) -> IResult<&[u8], (u16, u16)> {
    (le_u16, le_u16).parse(input)
}

/// Computes HMAC-MD5 over the parts.
fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn rc4(key: &[u8; 16], data: &mut [u8]) {
    use rc4::KeyInit;
    let mut cipher = Rc4::new_from_slice(key).expect("RC4 takes keys of 16 bytes");
    cipher.apply_keystream(data);
}

/// Computes the NT hash of a password: MD4 of its UTF-16LE (MS-NLMP 3.3.1, NTOWFv1). The users file contains it, and it
/// is equivalent to the password.
#[must_use]
pub fn nt_hash(password: &str) -> [u8; 16] {
    Md4::digest(utf16::encode(password)).into()
}

/// Computes NTOWFv2 (3.3.2), with the user's name in upper case and the domain unchanged.
pub fn ntowf_v2(nt_hash: &[u8; 16], user: &str, domain: &str) -> [u8; 16] {
    let user: String = user.chars().map(upper).collect();
    hmac_md5(nt_hash, &[&utf16::encode(&user), &utf16::encode(domain)])
}

/// Maps a character to upper case as Windows does (ß stays ß).
pub fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) => upper,
        _ => c,
    }
}

/// Computes NTProofStr (3.3.2).
pub fn nt_proof(ntowf: &[u8; 16], server_challenge: &[u8; 8], temp: &[u8]) -> [u8; 16] {
    hmac_md5(ntowf, &[server_challenge, temp])
}

/// Computes SessionBaseKey (3.3.2), which is also the KeyExchangeKey (3.4.5.1).
pub fn session_base_key(ntowf: &[u8; 16], proof: &[u8; 16]) -> [u8; 16] {
    hmac_md5(ntowf, &[proof])
}

/// Computes ExportedSessionKey (3.2.5.1.2): the key that the client chose, if keys are exchanged. `None`: the client
/// sent no valid key.
pub fn exported_session_key(base_key: [u8; 16], message: &Authenticate<'_>) -> Option<[u8; 16]> {
    if message.flags & flags::KEY_EXCH == 0 {
        return Some(base_key);
    }
    let mut key: [u8; 16] = message.encrypted_key.try_into().ok()?;
    rc4(&base_key, &mut key);
    Some(key)
}

/// Computes the MIC of the three messages (3.1.5.1.2), with zeros in its place, and returns it and the received one.
/// `None`: none was received.
pub fn mic(
    key: &[u8; 16],
    negotiate: &[u8],
    challenge: &[u8],
    authenticate: &[u8],
) -> Option<([u8; 16], [u8; 16])> {
    let came: [u8; 16] = authenticate.get(MIC)?.try_into().ok()?;
    let (before, after) = (&authenticate[..MIC.start], &authenticate[MIC.end..]);
    let computed = hmac_md5(key, &[negotiate, challenge, before, &[0; 16], after]);
    Some((computed, came))
}

/// The peer that signs with the session's NTLM keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// Computes the signature of the first message in a direction, with extended session security (3.4.4.2). `None`: the
/// client did not negotiate it, which is not supported.
pub fn signature(key: &[u8; 16], flags: u32, signer: Signer, message: &[u8]) -> Option<[u8; 16]> {
    let (signing, sealing): (&[u8], &[u8]) = match signer {
        Signer::Client => (
            b"session key to client-to-server signing key magic constant\0",
            b"session key to client-to-server sealing key magic constant\0",
        ),
        Signer::Server => (
            b"session key to server-to-client signing key magic constant\0",
            b"session key to server-to-client sealing key magic constant\0",
        ),
    };
    if flags & flags::EXTENDED_SESSIONSECURITY == 0 {
        return None;
    }
    const SEQUENCE: [u8; 4] = [0; 4];
    let signing_key = md5(&[key, signing]);
    let mut out = [0; 16];
    out[0] = 1;
    out[4..12].copy_from_slice(&hmac_md5(&signing_key, &[&SEQUENCE, message])[..8]);
    if flags & flags::KEY_EXCH != 0 {
        // 3.4.5.3: the keys are weaker if the client offers no stronger ones.
        let strength = match flags {
            flags if flags & flags::KEY_128 != 0 => 16,
            flags if flags & flags::KEY_56 != 0 => 7,
            _ => 5,
        };
        rc4(&md5(&[&key[..strength], sealing]), &mut out[4..12]);
    }
    out[12..].copy_from_slice(&SEQUENCE);
    Some(out)
}

fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    parts
        .iter()
        .for_each(|part| Digest::update(&mut hash, part));
    hash.finalize().into()
}
