//! Parses and encodes the part of DER (X.690) that SPNEGO needs: definite lengths, single-byte tags.

/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// OBJECT IDENTIFIER.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// ENUMERATED.
pub const ENUMERATED: u8 = 0x0A;
/// GeneralString.
pub const GENERAL_STRING: u8 = 0x1B;
/// [APPLICATION 0], constructed: GSS-API's frame around an initial token (RFC 2743 3.1).
pub const APPLICATION_0: u8 = 0x60;

/// [n], constructed, of a context.
pub const fn context(n: u8) -> u8 {
    0xA0 | n
}

/// Takes the first element of `input`: returns its tag, its contents and the rest. `None`: not DER, or truncated.
pub fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // 0x80 alone is the indefinite form, which DER does not have.
        let count = usize::from(first & 0x7F);
        if count == 0 || count > 4 {
            return None;
        }
        let (octets, rest) = rest.split_at_checked(count)?;
        let length = octets
            .iter()
            .fold(0, |length, octet| length << 8 | usize::from(*octet));
        (length, rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// Takes the first element of `input`, which must have this tag.
pub fn expect(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (got, contents, rest) = element(input)?;
    (got == tag).then_some((contents, rest))
}

/// Encodes an element with these contents.
pub fn encode(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.len() + 6);
    out.push(tag);
    let length = contents.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let octets = (length as u32).to_be_bytes();
        let skip = octets.iter().take_while(|octet| **octet == 0).count();
        out.push(0x80 | (octets.len() - skip) as u8);
        out.extend(octets.into_iter().skip(skip));
    }
    out.extend_from_slice(contents);
    out
}
