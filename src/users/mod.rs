//! The users file.

/// May a user be called so?
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().count() <= 256
        && name.trim() == name
        && !name.contains(|c: char| c.is_control() || r#""/\[]:;|=,+*?<>#@"#.contains(c))
}

/// The users and their NT hashes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users {
    hashes: std::collections::BTreeMap<String, [u8; 16]>,
}

impl Users {
    /// Names and NT hashes (MD4 of the password in UTF-16LE, MS-NLMP 3.3.1), in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8; 16])> {
        self.hashes.iter().map(|(name, hash)| (name.as_str(), hash))
    }
}
