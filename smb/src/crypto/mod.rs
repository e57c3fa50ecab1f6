//! Implements SMB2's cryptography: key derivation, signing, encryption, the preauthentication hash (MS-SMB2 3.1.4,
//! 3.3.5.5.3).

pub mod kdf;
pub mod preauth;
pub mod sealing;
pub mod secret;
pub mod signing;

#[cfg(test)]
mod tests;

pub use kdf::SessionKeys;
pub use preauth::PreauthHash;
pub use sealing::{Cipher, SealingKey};
pub use secret::Secret;
pub use signing::{SigningAlgorithm, SigningKey};
