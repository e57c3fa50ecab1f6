//! Encoding of records and checkpoints as bytes. Only this module uses `bincode`, so that the encoding can be
//! exchanged.

use crate::Error;
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of memory that decoding may claim for each byte of input: the widest integer takes 16 and may be encoded in
/// one.
const CLAIM_PER_BYTE: usize = 16;

/// Appends the encoding of `value`.
///
/// # Panics
/// If the type cannot be encoded at all (a sequence of unknown length): an error in its `Serialize`, not in its value.
pub fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(value, into, bincode::config::standard())
        .expect("a type that can be encoded");
}

/// Decodes what [`encode`] wrote. A hostile length claims no more memory than a small multiple of the bytes given.
///
/// # Errors
/// [`Error::Malformed`] if the bytes are not one whole value of this type, or more follow it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    const K: usize = 1024;
    // bincode takes its limit as a type, so there are a few steps of it.
    match bytes.len().saturating_mul(CLAIM_PER_BYTE) {
        claim if claim <= 64 * K => decode_within::<T, { 64 * K }>(bytes),
        claim if claim <= K * K => decode_within::<T, { K * K }>(bytes),
        claim if claim <= 16 * K * K => decode_within::<T, { 16 * K * K }>(bytes),
        claim if claim <= 512 * K * K => decode_within::<T, { 512 * K * K }>(bytes),
        _ => Err(Error::Malformed(format!(
            "{} bytes are too many for one record",
            bytes.len()
        ))),
    }
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, Error> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| Error::Malformed(error.to_string()))?;
    if used != bytes.len() {
        return Err(Error::Malformed(format!(
            "{} bytes follow the value",
            bytes.len() - used
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
