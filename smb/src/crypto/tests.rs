//! Tests the cryptography with vectors of Microsoft's Open Specifications blog ("SMB 3.1.1 Pre-authentication integrity
//! in Windows 10", "Encryption in SMB 3.0: A protocol perspective", "SMB 3.1.1 Encryption in Windows 10"); of RFC 4231
//! for HMAC, and of RFC 4493 for CMAC.

use proptest::prelude::*;

use super::*;
use crate::tests::bytes::{WINDOWS_LOGIN, WINDOWS_SESSION_KEY, from_bytes, hex, to_bytes};
use crate::wire::{Dialect, header};

#[test]
fn preauth_hash_and_signing_key_of_3_1_1() {
    let mut hash = PreauthHash::START;
    for message in WINDOWS_LOGIN {
        let message = hex(message);
        // The message is in two parts: the hash must not depend on it.
        let (a, b) = message.split_at(64);
        hash.update(&[a, b]);
    }
    assert_eq!(
        hash.as_bytes()[..],
        hex(
            "0DD13628CC3ED218EF9DF9772D436D0887AB9814BFAE63A80AA845F36909DB7928622DDDAD522D97\
             51640A459762C5A9D6BB084CBB3CE6BDADEF5D5BCE3C6C01"
        )
    );
    let keys = SessionKeys::derive(
        Dialect::Smb311,
        SigningAlgorithm::AesCmac,
        None,
        &Secret::new(hex(WINDOWS_SESSION_KEY)),
        &hash,
    );
    let expected = Secret::new(hex("73FE7A9A77BEF0BDE49C650D8CCB5F76"));
    assert_eq!(
        keys.signing,
        SigningKey::new(SigningAlgorithm::AesCmac, expected)
    );
    assert_eq!(keys.encryption, None);
}

fn keys_3_0() -> SessionKeys {
    let session_key = Secret::new(hex("B4546771B515F766A86735532DD6C4F0"));
    SessionKeys::derive(
        Dialect::Smb300,
        SigningAlgorithm::AesGmac,
        Some(Cipher::Aes128Ccm),
        &session_key,
        &PreauthHash::START,
    )
}

#[test]
fn keys_of_3_0_and_ccm() {
    let keys = keys_3_0();
    // Only 3.1.1 negotiates algorithms.
    assert_eq!(keys.signing.algorithm(), SigningAlgorithm::AesCmac);
    let decryption = Secret::new(hex("261B72350558F2E9DCF613070383EDBF"));
    let encryption = Secret::new(hex("8FE2B57EC34D2DB5B1A9727F526BBDB5"));
    assert_eq!(
        keys.decryption,
        Some(SealingKey::new(Cipher::Aes128Ccm, decryption))
    );
    assert_eq!(
        keys.encryption,
        Some(SealingKey::new(Cipher::Aes128Ccm, encryption))
    );
    let plain = hex(
        "FE534D4240000100000000000900400008000000000000000400000000000000\
         FFFE0000010000001100001400E4080000000000000000000000000000000000\
         3100700017000000000000000000000015010000390000020100000039020000\
         00000000000000007000000000000000536D623320656E6372797074696F6E20\
         74657374696E67",
    );
    let sealed = hex(
        "FD534D4281A286535415445DAE393921E44FA42E66E69A111892584FB5ED524A\
         744DA3EE87000000000001001100001400E4080025C8FEE16605A437832D1CD5\
         2DA9F4645333482A175FE5384563F45FCDAFAEF38BC62BA4D5C62897996625A4\
         4C29BE5658DE2E6117585779E7B59FFD971278D08580D7FA899E410E910EABF5\
         AA1DB43050B33B49182637759AC15D84BFCDF5B6B238993C0F4CF4D6012023F6\
         C627297075D84B7803912D0A9639634453595EF3E33FFE4E7AC2AB",
    );
    let key = keys.decryption.unwrap();
    let nonce = hex("66E69A111892584FB5ED524A744DA3EE").try_into().unwrap();
    let (head, tail) = plain.split_at(64);
    assert_eq!(
        key.seal_with(0x0008_E400_1400_0011, nonce, &[head, tail]),
        sealed
    );
    assert_eq!(key.open(&sealed).unwrap(), plain);
    let answer = hex(
        "FD534D42A6015530A18F6D9AFFE22AFAE8E66484860000000000000011000014\
         00E4080050000000000001001100001400E40800DBF46435C5F14169293CE079\
         E344479BF670227E49873F458672C3098DAC467DD5809F369D67409166515787\
         1483E01F7BECD02064EAC3E235F913668BBC2F097980D4B378F1993EFF6E60D1\
         77309E5B",
    );
    let answer = keys.encryption.unwrap().open(&answer).unwrap();
    assert_eq!(answer[..4], hex("FE534D42"));
    assert_eq!(answer[64..], hex("11000000170000000000000000000000"));
}

#[test]
fn keys_of_3_1_1_and_gcm() {
    let session_key = Secret::new(hex("419FDDF34C1E001909D362AE7FB6AF79"));
    let preauth = PreauthHash::try_from(hex(
        "B23F3CBFD69487D9832B79B1594A367CDD950909B774C3A4C412B4FCEA9EDDDBA7DB256BA2EA30E9\
         77F11F9B113247578E0E915C6D2A513B8F2FCA5707DC8770",
    ))
    .unwrap();
    let keys = SessionKeys::derive(
        Dialect::Smb311,
        SigningAlgorithm::AesGmac,
        Some(Cipher::Aes128Gcm),
        &session_key,
        &preauth,
    );
    let decryption = Secret::new(hex("A2F5E80E5D59103034F32E52F698E5EC"));
    let encryption = Secret::new(hex("748C50868C90F302962A5C35F5F9A8BF"));
    assert_eq!(
        keys.decryption,
        Some(SealingKey::new(Cipher::Aes128Gcm, decryption))
    );
    assert_eq!(
        keys.encryption,
        Some(SealingKey::new(Cipher::Aes128Gcm, encryption))
    );
    let sealed = hex(
        "FD534D42BD73D97D2BC9001BCAFAC0FDFF5FEEBCC7D6822D269CAF48904C664C0000000087000000\
         0000010025000000001000006ECDD2A7AFC7B47763057A041B8FD4DAFFE990B70C9E09D36C084E02\
         D14EF247F8BDE38ACF6256F8B1D3B56F77FBDEB312FEA5E92CBCC1ED8FB2EBBFAA75E49A4A394BB4\
         4576545567C24D4C014D47C9FBDFDAFD2C4F9B72F8D256452620A299F48E29E53D6B61D1C13A19E9\
         1AF013F00D17E3ABC2FC3D36C8C1B6B93973253852DBD442E46EE8",
    );
    let plain = hex(
        "FE534D4240000100000000000900010008000000000000000500000000000000FFFE000001000000\
         25000000001000000000000000000000000000000000000031007000170000000000000000000000\
         0600000004000000010000000400000000000000000000007000000000000000536D623320656E63\
         72797074696F6E2074657374696E67",
    );
    let key = keys.decryption.unwrap();
    assert_eq!(key.open(&sealed).unwrap(), plain);
    let nonce = hex("C7D6822D269CAF48904C664C00000000").try_into().unwrap();
    assert_eq!(key.seal_with(0x1000_0000_0025, nonce, &[plain]), sealed);
}

#[test]
fn a_cipher_of_256_bits_has_a_key_of_32_bytes() {
    let session_key = Secret::new(vec![7; 16]);
    let keys = SessionKeys::derive(
        Dialect::Smb311,
        SigningAlgorithm::AesGmac,
        Some(Cipher::Aes256Gcm),
        &session_key,
        &PreauthHash::START,
    );
    let key = keys.encryption.unwrap();
    let sealed = key.seal(5, 1, &[b"message"]);
    assert_eq!(key.open(&sealed).unwrap(), b"message");
    assert_eq!(
        keys.decryption.unwrap().open(&sealed),
        Err(sealing::OpenError::NotAuthentic)
    );
}

/// A header with signature zero, then `body`.
fn message(flags: u8, command: u8, body: &[u8]) -> Vec<u8> {
    let mut message = hex("FE534D4240000100000000000000000000000000000000000807060504030201");
    message.resize(header::LEN, 0);
    message[12] = command;
    message[16] = flags;
    message.extend_from_slice(body);
    message
}

#[test]
fn signatures_are_the_algorithms_own_over_the_message_with_zeros() {
    let secret = [0x42; 16];
    let plain = message(0x09, 8, b"some body of no special length");
    let sign = |algorithm| {
        let key = SigningKey::new(algorithm, Secret::from(secret));
        let (head, rest) = plain.split_at(70);
        let mut head = head.to_vec();
        // The previous content of the signature field must not matter.
        head[header::SIGNATURE].fill(0xEE);
        key.sign(&mut head, &[&rest[..5], &rest[5..]]);
        head.extend_from_slice(rest);
        assert!(key.verify(&head));
        head[header::SIGNATURE].to_vec()
    };
    let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
    let expected = aws_lc_rs::hmac::sign(&hmac, &plain);
    assert_eq!(sign(SigningAlgorithm::HmacSha256), expected.as_ref()[..16]);
    let cmac = aws_lc_rs::cmac::Key::new(aws_lc_rs::cmac::AES_128, &secret).unwrap();
    let expected = aws_lc_rs::cmac::sign(&cmac, &plain).unwrap();
    assert_eq!(sign(SigningAlgorithm::AesCmac), expected.as_ref());
    assert_eq!(
        sign(SigningAlgorithm::AesGmac),
        gmac(&secret, "080706050403020101000000", &plain)
    );
}

/// GMAC is GCM without plaintext.
fn gmac(key: &[u8], nonce: &str, authenticated: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&hex(nonce)).unwrap();
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(authenticated), &mut []);
    tag.unwrap().as_ref().to_vec()
}

#[test]
fn gmac_nonce_is_the_message_id_the_role_and_whether_it_is_a_cancel() {
    let key = SigningKey::new(SigningAlgorithm::AesGmac, Secret::from([1; 16]));
    for (flags, command, nonce) in [
        (0x08, 8, "080706050403020100000000"),
        (0x09, 8, "080706050403020101000000"),
        (0x08, 12, "080706050403020102000000"),
    ] {
        let plain = message(flags, command, b"body");
        let mut signed = plain.clone();
        key.sign::<&[u8]>(&mut signed, &[]);
        assert_eq!(signed[header::SIGNATURE], gmac(&[1; 16], nonce, &plain));
    }
}

#[test]
fn rfc_4493_cmac() {
    let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
    let key = aws_lc_rs::cmac::Key::new(aws_lc_rs::cmac::AES_128, &key).unwrap();
    let tag = aws_lc_rs::cmac::sign(&key, &hex("6bc1bee22e409f96e93d7e117393172a")).unwrap();
    assert_eq!(tag.as_ref(), hex("070a16b46b4d4144f79bdd9dd04a287c"));
}

#[test]
fn keys_survive_serialization_and_print_nothing() {
    let keys = keys_3_0();
    let stored = to_bytes(&keys);
    let again: SessionKeys = from_bytes(&stored).unwrap();
    assert_eq!(keys, again);
    let (mut a, mut b) = (message(8, 8, &[]), message(8, 8, &[]));
    keys.signing.sign::<&[u8]>(&mut a, &[]);
    again.signing.sign::<&[u8]>(&mut b, &[]);
    assert_eq!(a, b);
    let printed = format!("{keys:?}");
    assert_eq!(
        printed,
        "SessionKeys { signing: SigningKey(AES-CMAC), encryption: Some(SealingKey(AES-128-CCM)), \
         decryption: Some(SealingKey(AES-128-CCM)) }"
    );
    // A key whose length is wrong for the algorithm.
    let wrong = to_bytes(&(SigningAlgorithm::AesCmac, Secret::new(vec![1; 15])));
    assert!(from_bytes::<SigningKey>(&wrong).is_err());
    let wrong = to_bytes(&(Cipher::Aes256Gcm, Secret::new(vec![1; 16])));
    assert!(from_bytes::<SealingKey>(&wrong).is_err());
}

proptest! {
    #[test]
    fn a_changed_message_is_neither_verified_nor_opened(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<proptest::sample::Index>(),
        bit in 0u8..8,
        algorithm in 0u16..3,
        cipher in 1u16..5,
    ) {
        let key = SigningKey::new(SigningAlgorithm::from_id(algorithm).unwrap(), Secret::from([9; 16]));
        let mut signed = message(8, 8, &body);
        key.sign::<&[u8]>(&mut signed, &[]);
        prop_assert!(key.verify(&signed));
        let (head, rest) = signed.split_at(header::LEN + at.index(body.len() + 1));
        let (first, second) = rest.split_at(at.index(rest.len() + 1));
        prop_assert!(key.verify_parts(head, &[first, second]));
        let cipher = Cipher::from_id(cipher).unwrap();
        let key2 = SealingKey::new(cipher, Secret::new(vec![3; cipher.key_len()]));
        let mut sealed = key2.seal(77, 3, &[&signed]);
        prop_assert_eq!(key2.open(&sealed).unwrap(), signed.clone());
        let i = at.index(signed.len());
        signed[i] ^= 1 << bit;
        prop_assert!(!key.verify(&signed));
        prop_assert!(!key.verify_parts(&signed[..header::LEN], &[&signed[header::LEN..]]));
        let i = at.index(sealed.len());
        // Reserved bytes and unused nonce bytes are authenticated, too.
        sealed[i] ^= 1 << bit;
        prop_assert!(key2.open(&sealed).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let key = SealingKey::new(Cipher::Aes128Ccm, Secret::new(vec![3; 16]));
        let _ = key.open(&bytes);
        let key = SigningKey::new(SigningAlgorithm::AesGmac, Secret::from([9; 16]));
        prop_assert!(!key.verify(&bytes));
    }
}
