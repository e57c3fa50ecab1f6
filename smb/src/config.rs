//! Defines the configuration of the server. It is the same for every connection and not part of the durable state.

use crate::crypto::Secret;
use crate::crypto::kdf::password_digest;
use crate::held::Held;
use crate::wire::Dialect;
use outlast_fsa::fileop::ShareId;

/// MaxWriteSize in bytes: no less than what clients use by themselves, a small part of the room for received data.
const OFFERED_WRITE_BYTES: u32 = 2 << 20;

/// "off", "enabled" or "required", for signing and encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// Not offered.
    Off,
    /// Offered; the client decides.
    Enabled,
    /// Mandatory: a client without it is refused.
    Required,
}

/// The configuration of client caching by oplocks (MS-SMB2 2.2.13, RequestedOplockLevel) and leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oplocks {
    /// Both are granted; leases from SMB 2.1 on.
    #[default]
    On,
    /// None are granted.
    Off,
}

/// A share of the configuration. Its index in [`Config::shares`] is its [`ShareId`].
#[derive(Clone, Debug)]
pub struct Share {
    /// Name as clients write it; compared without case.
    pub name: String,
    /// Remark shown in listings.
    pub comment: String,
    /// Read-only: no file in it may be changed.
    pub read_only: bool,
    /// Guest and anonymous logins may connect.
    pub guest: bool,
    /// The users that may connect; empty: every user.
    pub users: Vec<String>,
    /// Fingerprint of the configured directory: another value is another directory.
    pub directory: u64,
    /// Share.IsCA: persistent handles are granted on it.
    pub continuous_availability: bool,
    /// Encryption of this share's traffic; the stricter one of this setting and the server's applies.
    pub encryption: Requirement,
}

/// A share of the configuration before the restart. Its index was its [`ShareId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerShare {
    /// Name.
    pub name: String,
    /// Fingerprint of its directory, as [`Share::directory`].
    pub directory: u64,
}

/// A line of the users file.
#[derive(Clone)]
pub struct User {
    /// Login name; compared without case.
    pub name: String,
    /// MD4 of the password in UTF-16LE (MS-NLMP 3.3.1, NTOWFv1).
    pub nt_hash: [u8; 16],
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Limits on the resources of clients. A client that exceeds one receives an error; other clients are not affected.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions of one connection.
    pub sessions: usize,
    /// Failed logins on one connection, after which it is dropped.
    pub failed_logins: u32,
    /// Tree connects of one connection.
    pub trees: usize,
    /// Opens of one connection: TOO_MANY_OPENED_FILES.
    pub opens: usize,
    /// Requests of one connection that wait: INSUFFICIENT_RESOURCES.
    pub pending: usize,
    /// Directory watches of one connection: INSUFFICIENT_RESOURCES.
    pub watches: usize,
    /// Byte-range locks of one open: INSUFFICIENT_RESOURCES.
    pub locks: usize,
    /// Resources of all connections together. The last quarter is divided into equal parts, one for each connection; of
    /// the bytes an account may have at most half.
    pub total: Held,
    /// Credits a client may hold (MS-SMB2 3.3.1.1).
    pub credits: u16,
    /// Bytes of one READ, WRITE or transaction (MS-SMB2 2.2.4, MaxReadSize and the like), for dialects with large MTU.
    pub io_bytes: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sessions: 64,
            failed_logins: 16,
            trees: 1024,
            opens: 16_384,
            pending: 512,
            watches: 128,
            locks: 4_096,
            total: Held {
                opens: 65_536,
                locks: 65_536,
                pending: 8_192,
                watches: 1_024,
                bytes: 32 << 20,
            },
            credits: 8_192,
            io_bytes: 8 << 20,
        }
    }
}

/// The server's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// NetBIOS name.
    pub name: String,
    /// ServerGuid (MS-SMB2 2.2.4).
    pub guid: [u8; 16],
    /// Oldest dialect spoken.
    pub min_dialect: Dialect,
    /// Newest dialect spoken.
    pub max_dialect: Dialect,
    /// Signing.
    pub signing: Requirement,
    /// Encryption.
    pub encryption: Requirement,
    /// Oplocks and leases.
    pub oplocks: Oplocks,
    /// Shares, in the order of the configuration.
    pub shares: Vec<Share>,
    /// Users.
    pub users: Vec<User>,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// Returns the share with this name, without regard to case.
    #[must_use]
    pub fn share_named(&self, name: &str) -> Option<(ShareId, &Share)> {
        let index = self
            .shares
            .iter()
            .position(|share| share.name.to_lowercase() == name.to_lowercase())?;
        Some((ShareId::try_from(index).ok()?, self.shares.get(index)?))
    }

    /// Returns the present id of a share with the same name and path; [`ShareId::MAX`] if none has both.
    #[must_use]
    pub fn id_now(&self, former: &[FormerShare], id: ShareId) -> ShareId {
        let before = former.get(id as usize);
        let now = before.and_then(|before| {
            let (id, share) = self.share_named(&before.name)?;
            (share.directory == before.directory).then_some(id)
        });
        now.unwrap_or(ShareId::MAX)
    }

    /// Returns the share with this id.
    #[must_use]
    pub fn share(&self, id: ShareId) -> Option<&Share> {
        self.shares.get(id as usize)
    }

    /// Returns MaxReadSize and MaxTransactSize of a dialect, in bytes (MS-SMB2 3.3.5.4). No request may be longer.
    #[must_use]
    pub fn max_io(&self, dialect: Dialect) -> u32 {
        match dialect {
            Dialect::Smb202 => self.limits.io_bytes.min(65_536),
            _ => self.limits.io_bytes,
        }
    }

    /// Returns MaxWriteSize of a dialect, in bytes. (A client that was offered more may write up to
    /// [`Config::max_io`].) A message takes room for received data until its data are in the file, so with shorter
    /// messages the same room serves more clients at once.
    #[must_use]
    pub fn max_write(&self, dialect: Dialect) -> u32 {
        self.max_io(dialect).min(OFFERED_WRITE_BYTES)
    }

    /// Returns the fingerprint of a user's present password; `None`: no user has this name.
    #[must_use]
    pub fn password_of(&self, name: &str) -> Option<Secret> {
        let user = self.user(name)?;
        Some(password_digest(&user.nt_hash, &self.guid, &user.name))
    }

    /// Returns the user with this name, without regard to case.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users
            .iter()
            .find(|user| user.name.to_lowercase() == name.to_lowercase())
    }
}
