//! Admits sessions and tree connects under the configuration, and determines the signing and encryption that it
//! requires of them. It does so when they begin, and again after each restart ([`crate::readmission`]), because the
//! configuration may have changed.

use crate::config::{Config, Requirement, Share};
use crate::state::{Negotiation, Resource, Security, Tree};
use crate::wire::Dialect;
use outlast_fsa::access;
use outlast_fsa::status::NtStatus;
use std::fmt;

/// The share for named pipes, which every server has.
const IPC: &str = "IPC$";

/// The reason to refuse a session or a tree connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The configuration excludes the dialect of the connection.
    Dialect(Dialect),
    /// The users file does not contain the user.
    UnknownUser,
    /// The user's password is not the one that the session's client authenticated with.
    AnotherPassword,
    /// No share allows guests.
    NoGuests,
    /// Signing or encryption is required, and guest sessions have no key.
    Unprotected,
    /// Encryption is required, and the session has no key for it.
    CannotEncrypt,
    /// No share has this name.
    NoShare,
    /// The share does not allow this user.
    NotAdmitted,
}

impl Refused {
    /// Returns the status of the response to a client that requests it.
    pub(crate) fn status(self) -> NtStatus {
        match self {
            Refused::UnknownUser | Refused::AnotherPassword | Refused::NoGuests => {
                NtStatus::LOGON_FAILURE
            }
            Refused::NoShare => NtStatus::BAD_NETWORK_NAME,
            Refused::Dialect(_)
            | Refused::Unprotected
            | Refused::CannotEncrypt
            | Refused::NotAdmitted => NtStatus::ACCESS_DENIED,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Dialect(dialect) => {
                write!(
                    f,
                    "SMB {} is outside min_protocol and max_protocol",
                    dialect.name()
                )
            }
            Refused::UnknownUser => f.write_str("the users file has no such user"),
            Refused::AnotherPassword => f.write_str("the user has another password now"),
            Refused::NoGuests => f.write_str("no share admits guests"),
            Refused::Unprotected => {
                f.write_str("signing or encryption is required, and a guest has no key")
            }
            Refused::CannotEncrypt => {
                f.write_str("encryption is required, and this session has no key for it")
            }
            Refused::NoShare => f.write_str("there is no such share"),
            Refused::NotAdmitted => f.write_str("the share does not admit this user"),
        }
    }
}

/// Checks that the configuration allows the dialect that a connection negotiated.
pub(crate) fn dialect(config: &Config, dialect: Dialect) -> Result<(), Refused> {
    match (config.min_dialect..=config.max_dialect).contains(&dialect) {
        true => Ok(()),
        false => Err(Refused::Dialect(dialect)),
    }
}

/// Admits an authenticated session, and sets in `security` what is required of it. Earlier requirements remain.
pub(crate) fn session(
    config: &Config,
    negotiation: &Negotiation,
    security: &mut Security,
) -> Result<(), Refused> {
    if let Some(dialect) = negotiation.dialect {
        self::dialect(config, dialect)?;
    }
    let signing = config.signing == Requirement::Required;
    let encryption = config.encryption == Requirement::Required;
    match &security.user {
        Some(user) => match config.password_of(user) {
            None => return Err(Refused::UnknownUser),
            now if now != security.password => return Err(Refused::AnotherPassword),
            Some(_) => {}
        },
        None if !config.shares.iter().any(|share| share.guest) => return Err(Refused::NoGuests),
        None if signing || encryption => return Err(Refused::Unprotected),
        None => {}
    }
    let can_encrypt = |security: &Security| {
        let keys = security.keys.as_ref();
        keys.is_some_and(|keys| keys.encryption.is_some())
    };
    if encryption && !can_encrypt(security) {
        return Err(Refused::CannotEncrypt);
    }
    let has_keys = security.keys.is_some();
    security.signing_required |= has_keys && signing;
    security.encrypt |= encryption;
    Ok(())
}

/// Makes the tree connect of a session to the share with this name.
pub(crate) fn tree(config: &Config, security: &Security, name: &str) -> Result<Tree, Refused> {
    if name.eq_ignore_ascii_case(IPC) {
        return Ok(Tree {
            resource: Resource::Ipc,
            name: IPC.to_string(),
            maximal_access: access::FILE_GENERIC_READ
                | access::FILE_GENERIC_WRITE
                | access::FILE_GENERIC_EXECUTE,
            encrypt: false,
            directory: 0,
        });
    }
    let (id, share) = config.share_named(name).ok_or(Refused::NoShare)?;
    if !admits(share, security) {
        return Err(Refused::NotAdmitted);
    }
    let encrypt = share.encryption == Requirement::Required;
    // 3.3.5.7: the session has no encryption key (an older dialect, a guest).
    let keys = security.keys.as_ref();
    if encrypt && keys.is_none_or(|keys| keys.encryption.is_none()) {
        return Err(Refused::CannotEncrypt);
    }
    Ok(Tree {
        resource: Resource::Disk(id),
        name: share.name.clone(),
        maximal_access: match share.read_only {
            true => access::FILE_GENERIC_READ | access::FILE_GENERIC_EXECUTE,
            false => access::FILE_ALL_ACCESS,
        },
        encrypt,
        directory: share.directory,
    })
}

/// Returns whether the share allows this login.
fn admits(share: &Share, security: &Security) -> bool {
    match security.present_user() {
        Some(user) if !security.guest => {
            let user = user.to_lowercase();
            let mut users = share.users.iter();
            share.users.is_empty() || users.any(|name| name.to_lowercase() == user)
        }
        _ => share.guest,
    }
}
