//! Decodes and encodes UTF-16LE strings.

use super::Malformed;

/// Decodes a UTF-16LE string.
///
/// # Errors
/// An odd number of bytes, an unpaired surrogate, a zero character.
pub fn decode(bytes: &[u8]) -> Result<String, Malformed> {
    let text = decode_any(bytes)?;
    if text.contains('\0') {
        return Err(Malformed::ZeroCharacter);
    }
    Ok(text)
}

/// Decodes a UTF-16LE string that may contain zero characters.
///
/// # Errors
/// An odd number of bytes, an unpaired surrogate.
pub fn decode_any(bytes: &[u8]) -> Result<String, Malformed> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Malformed::OddString(bytes.len()));
    }
    char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)))
        .collect::<Result<String, _>>()
        .map_err(|_| Malformed::Surrogate)
}

/// Returns the UTF-16LE bytes of `text`, without a terminator.
#[must_use]
pub fn encode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * text.len());
    push(text, &mut out);
    out
}

/// Appends the UTF-16LE bytes of `text`, without a terminator.
pub fn push(text: &str, out: &mut Vec<u8>) {
    out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
}

/// Returns the length of `text` in UTF-16LE, in bytes.
#[must_use]
pub fn len(text: &str) -> usize {
    2 * text.encode_utf16().count()
}
