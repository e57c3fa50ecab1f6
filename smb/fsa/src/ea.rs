//! Defines extended attributes of files (MS-FSA 2.1.1.3, MS-FSCC 2.4.16).

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// The longest name of an extended attribute, in bytes: EaNameLength is one byte.
pub const MAX_NAME: usize = 255;

/// An extended attribute. To set an empty value removes the attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ea {
    /// EaName.
    pub name: String,
    /// EaValue.
    pub value: Vec<u8>,
}

impl Ea {
    /// The length of an entry without its name and value, in bytes.
    const FIXED: usize = 8;

    /// Returns its length in FileFullEaInformation (MS-FSCC 2.4.16), in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        Ea::FIXED + self.name.len() + 1 + self.value.len()
    }
}

/// Returns whether an extended attribute may have this name (MS-FSCC 2.4.16.1).
#[must_use]
pub fn is_name(name: &str) -> bool {
    let illegal = |c: char| c < ' ' || "\"*+,/:;<=>?[\\]|".contains(c);
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(illegal)
}
