//! Defines the dialects of SMB2.

use serde::{Deserialize, Serialize};

/// A dialect that this server supports, in order of age (MS-SMB2 2.2.3, DialectRevision).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dialect {
    /// SMB 2.0.2.
    Smb202,
    /// SMB 2.1.
    Smb210,
    /// SMB 3.0.
    Smb300,
    /// SMB 3.0.2.
    Smb302,
    /// SMB 3.1.1.
    Smb311,
}

impl Dialect {
    /// All dialects, oldest first.
    pub const ALL: [Dialect; 5] = [
        Dialect::Smb202,
        Dialect::Smb210,
        Dialect::Smb300,
        Dialect::Smb302,
        Dialect::Smb311,
    ];

    /// "SMB 2.???" of an SMB1 NEGOTIATE, answered before the real negotiation (MS-SMB2 3.3.5.3.1).
    pub const WILDCARD: u16 = 0x02FF;

    /// Returns DialectRevision as on the wire.
    #[must_use]
    pub fn revision(self) -> u16 {
        match self {
            Dialect::Smb202 => 0x0202,
            Dialect::Smb210 => 0x0210,
            Dialect::Smb300 => 0x0300,
            Dialect::Smb302 => 0x0302,
            Dialect::Smb311 => 0x0311,
        }
    }

    /// Returns the dialect with this DialectRevision.
    #[must_use]
    pub fn from_revision(revision: u16) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|d| d.revision() == revision)
    }

    /// Returns its name in configuration files: "3.1.1".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Smb202 => "2.0.2",
            Dialect::Smb210 => "2.1",
            Dialect::Smb300 => "3.0",
            Dialect::Smb302 => "3.0.2",
            Dialect::Smb311 => "3.1.1",
        }
    }

    /// Parses the name that [`Dialect::name`] returns.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|d| d.name() == name)
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
